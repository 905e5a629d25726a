# SPDX-License-Identifier: Apache-2.0
"""From what stands in a chain to an author's class: "guard.py:RateGuard", "byway.nat44".

Used by build.py and by the commands that check functions: they import the author's file, and what
that imports. The switch itself never does. Uses nf.
"""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from byway.nf.function import is_function
from byway.nf.problem import FunctionError, Problem

BUILTIN = "byway."
_PACKAGE = "byway.functions.builtin"


def find(use: str, folder: Path) -> tuple[type, dict[str, str]]:
    """The class that ``use`` names, files relative to ``folder``; -> it, and {file: digest} of what
    it came from. Raises FunctionError."""
    if use.startswith(BUILTIN) and ":" not in use:
        module = _builtin(use)
        return _chosen(use, "", module), {}
    file, _, name = use.partition(":")
    path = (folder / file).resolve()
    before = set(sys.modules)
    found = _chosen(use, name, _imported(use, path))
    return found, _files(path, before)


def is_builtin(use: str) -> bool:
    """Does it come with Byway?"""
    return use.startswith(BUILTIN) and ":" not in use


def builtins() -> list[str]:
    """The names of all functions that come with Byway: files that have one (others help them)."""
    folder = Path(importlib.import_module(_PACKAGE).__path__[0])
    return sorted(BUILTIN + path.stem for path in folder.glob("*.py")
                  if "\n@nf.function" in path.read_text())


def digest_of(path: Path) -> str:
    """Of a file's bytes; "" where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _builtin(use: str) -> ModuleType:
    if use not in builtins():
        raise _problem(use, "no such function comes with Byway",
                       f"there are {', '.join(builtins())}; files are written as guard.py:Name")
    return importlib.import_module(f"{_PACKAGE}.{use.removeprefix(BUILTIN)}")


def _imported(use: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise _problem(str(path), "there is no such file", "write its path, as in guard.py:Name")
    spec = importlib.util.spec_from_file_location(f"byway_author_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise _problem(str(path), "this is no Python file", "give it a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _beside(path.parent):
        try:
            spec.loader.exec_module(module)
        except FunctionError:
            raise
        except SyntaxError as error:
            raise FunctionError([Problem(str(error.filename or path), error.lineno or 0,
                                         f"no Python: {error.msg}", "mend the line")]) from None
        except (Exception, SystemExit) as error:
            line = next((one.lineno for one in reversed(traceback.extract_tb(error.__traceback__))
                         if one.filename == str(path)), None)
            raise FunctionError([Problem(
                str(path), line or 0, f"importing it ends with {type(error).__name__}: {error}",
                "see that `python3 FILE` works with the packages that the switch has")]) from error
    return module


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """The modules beside an author's file can be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _chosen(use: str, name: str, module: ModuleType) -> type:
    """The function of that name; of no name, the only one that the module itself defines."""
    there: dict[str, type] = {
        key: value for key, value in vars(module).items()
        if is_function(value) and value.__module__ == module.__name__}
    if not name and len(there) == 1:
        return next(iter(there.values()))
    if name in there:
        return there[name]
    known = ", ".join(there) or "none: write @nf.function above a class"
    if name:
        raise _problem(use, f"there is no network function {name} in it", f"there are: {known}")
    raise _problem(use, "it is not said which function of the file is meant",
                   f"write FILE:NAME; there are: {known}")


def _files(path: Path, before: set[str]) -> dict[str, str]:
    """The author's file, and the modules beside it that were imported with it."""
    files = {path}
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).resolve().is_relative_to(path.parent):
            files.add(Path(file).resolve())
    return {str(one): digest_of(one) for one in sorted(files)}


def _problem(file: str, message: str, fix: str) -> FunctionError:
    return FunctionError([Problem(file, 0, message, fix)])
