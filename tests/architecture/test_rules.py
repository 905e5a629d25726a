# SPDX-License-Identifier: Apache-2.0
"""The house rules that a program can check. Each test names the places that break its rule."""

import ast
import fnmatch
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import FOLDERS, PACKAGE, ROOT, calls, dotted, files, shown, tree

SPDX = "# SPDX-License-Identifier: Apache-2.0"
BANNED_NAMES = {"utils.py", "util.py", "common.py", "helpers.py", "helper.py", "misc.py"}
# What marks a file as one with kernels, or as one that emits code for them.
KERNELS = re.compile(r"^@kernel|^\w+ = kernel\(|^from (llvmlite|numba)|"
                     r"^from byway.machine.jit .*Native", re.M)
COMPILERS = {"njit", "jit", "vectorize", "guvectorize", "cfunc", "stencil", "generated_jit"}
# The only files that may name Numba's compilers: the one decorator, and callbacks from C.
COMPILER_FILES = {PACKAGE / "machine" / "jit.py"}
ON_DEMAND = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")


def test_every_file_opens_with_its_licence_and_a_docstring() -> None:
    without_licence = [
        shown(path)
        for path in files(*FOLDERS)
        if SPDX not in path.read_text().split("\n", 2)[:2]  # after a #! line at most
    ]
    without_docstring = [
        shown(path) for path in files(*FOLDERS) if not ast.get_docstring(tree(path))
    ]
    assert (without_licence, without_docstring) == ([], [])


def test_no_file_is_named_after_nothing() -> None:
    assert [shown(path) for path in files(*FOLDERS) if path.name in BANNED_NAMES] == []


def test_one_decorator_compiles_everything() -> None:
    offenders = [
        shown(path, line)
        for path in files("src", "bench", "examples")
        if path not in COMPILER_FILES
        for line in _compiler_uses(path)
    ]
    assert offenders == []


def _compiler_uses(path: Path) -> Iterator[int]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            if COMPILERS & {alias.name for alias in node.names}:
                yield node.lineno
        elif isinstance(node, ast.Attribute) and dotted(node).startswith("numba."):
            if node.attr in COMPILERS:
                yield node.lineno


def test_no_handler_is_silent() -> None:
    offenders = [
        shown(path, node.lineno)
        for path in files("src", "bench")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and _silent(node)
    ]
    assert offenders == []


def _silent(handler: ast.ExceptHandler) -> bool:
    """Does this handler hide what happened? Broad ones must use the exception or raise."""
    if all(isinstance(step, ast.Pass) or _is_ellipsis(step) for step in handler.body):
        return True
    caught = dotted(handler.type) if handler.type else "BaseException"
    if caught not in {"Exception", "BaseException"}:
        return False
    nodes = [node for step in handler.body for node in ast.walk(step)]
    raises = any(isinstance(node, ast.Raise) for node in nodes)
    uses = any(isinstance(node, ast.Name) and node.id == handler.name for node in nodes)
    logs = any(isinstance(node, ast.Attribute) and node.attr == "exception" for node in nodes)
    return not (raises or uses or logs)


def _is_ellipsis(step: ast.stmt) -> bool:
    return (
        isinstance(step, ast.Expr)
        and isinstance(step.value, ast.Constant)
        and step.value.value is Ellipsis
    )


def test_nothing_broad_is_suppressed() -> None:
    offenders = [
        shown(path, call.lineno)
        for path in files("src", "bench")
        for name, call in calls(path)
        if name in {"suppress", "contextlib.suppress"}
        and {"Exception", "BaseException"} & {dotted(argument) for argument in call.args}
    ]
    assert offenders == []


def test_only_the_commands_print() -> None:
    offenders = [
        shown(path, call.lineno)
        for path in files("src")
        if PACKAGE / "cli" not in path.parents
        for name, call in calls(path)
        if name == "print" and not any(keyword.arg == "file" for keyword in call.keywords)
    ]
    assert offenders == []


def test_nothing_is_left_for_later() -> None:
    offenders = [
        shown(path, number)
        for path in files(*FOLDERS)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ON_DEMAND.search(line)
    ]
    assert offenders == []


def test_unit_tests_do_not_sleep() -> None:
    offenders = [
        shown(path, call.lineno)
        for path in files("tests/unit", "tests/spec", "tests/oracles")
        for name, call in calls(path)
        if name in {"time.sleep", "sleep", "asyncio.sleep"}
        and not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
    ]
    assert offenders == []


def test_product_files_run_nothing_by_themselves() -> None:
    offenders = [
        shown(path, node.lineno)
        for path in files("src")
        if path.name != "__main__.py"
        for node in tree(path).body
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    ]
    assert offenders == []


def test_only_the_commands_import_the_test_peers() -> None:
    commands = {PACKAGE / "cli", PACKAGE / "testing"}
    offenders = [
        shown(path, node.lineno)
        for path in files("src")
        if not commands & set(path.parents)
        for node in ast.walk(tree(path))
        if "byway.testing" in _imported(node)
    ]
    assert offenders == []


def _imported(node: ast.AST) -> str:
    if isinstance(node, ast.ImportFrom):
        return f"{node.module}." + " ".join(alias.name for alias in node.names)
    if isinstance(node, ast.Import):
        return " ".join(alias.name for alias in node.names)
    return ""


def test_types_are_relaxed_for_kernels_and_network_functions_only() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    relaxed = [
        pattern
        for override in settings["tool"]["mypy"]["overrides"]
        if override.get("allow_untyped_defs")
        for pattern in override["module"]
    ]
    low_level = {
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in files("src")
        if KERNELS.search(path.read_text()) or "\n@nf.function\n" in path.read_text()
    }
    assert [pattern for pattern in relaxed if not fnmatch.filter(low_level, pattern)] == []
