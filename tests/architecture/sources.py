# SPDX-License-Identifier: Apache-2.0
"""The project's Python files, parsed once, for the tests that check rules about them."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "byway"
FOLDERS = ("src", "integrations", "tests", "bench", "examples")


def files(*folders: str) -> list[Path]:
    """All Python files below these folders of the project."""
    return sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))


def shown(path: Path, line: int | None = None) -> str:
    """A place as people write it: path from the root, and a line."""
    place = str(path.relative_to(ROOT))
    return place if line is None else f"{place}:{line}"


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(), str(path))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, node) of every call in a file whose callee has a plain name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            yield name, node


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression that is such a name, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""
