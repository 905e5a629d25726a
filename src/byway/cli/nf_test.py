# SPDX-License-Identifier: Apache-2.0
"""`byway nf test`: pytest over the tests that stand beside a function's file.

Used by cli.nf. pytest runs in a process of its own, in the folder of the tests, so that they
import the function by its file's name. Uses control.chains, which knows how functions are written.
"""

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from byway.control.chains import file_of


def tests_of(file: str) -> Path:
    """Where the tests of FILE are: itself, if it is a file of tests. FileNotFoundError: there is no
    such file, or none with its tests."""
    path = Path(file_of(file) or file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.name.startswith("test_"):
        return path
    tests = path.with_name(f"test_{path.name}")
    if not tests.is_file():
        raise FileNotFoundError(f"{path}: its tests stand in {tests}, and there is no such file;"
                                " `byway nf new` shows what one looks like")
    return tests


def run_tests(file: str, more: Sequence[str]) -> int:
    """Run the tests of a function; -> 0 where all of them passed, 1, or 2 for a wrong call."""
    try:
        tests = tests_of(file)
    except FileNotFoundError as error:
        print(f"byway nf test: {error}", file=sys.stderr)
        return 2
    if find_spec("pytest") is None:
        print("byway nf test: pytest is not installed; `pip install pytest` installs it",
              file=sys.stderr)
        return 1
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more, tests.name],
        cwd=tests.resolve().parent, check=False)
    return min(done.returncode, 1) if done.returncode != 4 else 2
