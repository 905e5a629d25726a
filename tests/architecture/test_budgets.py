# SPDX-License-Identifier: Apache-2.0
"""The budgets: a file and a function stay small enough to be read at one go."""

import ast

from tests.architecture.sources import FOLDERS, ROOT, files, shown, tree

FILE_LINES = 400
FUNCTION_LINES = 60
README_LINES = 120


def test_no_file_is_longer_than_its_budget() -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in files(*FOLDERS)}
    assert {place: n for place, n in lengths.items() if n > FILE_LINES} == {}


def test_no_function_is_longer_than_its_budget() -> None:
    long = {
        f"{shown(path, node.lineno)} {node.name}": length
        for path in files("src", "bench")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}


def test_the_readme_fits_its_budget() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
