# SPDX-License-Identifier: Apache-2.0
"""From what stands in a chain to an author's class: "guard.py:RateGuard", "byway.nat44".

Used by build.py and by the commands that check functions: they import the author's file, and what
that imports. The switch itself never does. Uses nf.

Theory of operation
-------------------
Files of several folders may be imported in one process, and a name like "limits" is another module
in each of them. So whatever an author's file imports that came neither with Python nor as a package
nor with Byway is *his*: it is imported anew for each function (``_HIS`` of the file's own module
says what it was, and the next ``find`` takes it out of sys.modules), and its digest is noted. A
module beside the file goes before one of the same name that this process happens to have imported.
"""

import hashlib
import importlib
import importlib.util
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from byway.machine.cachedir import PACKAGE, read_file
from byway.nf.function import is_function
from byway.nf.problem import FunctionError, Problem, nearest

BUILTIN = "byway."
_PACKAGE = "byway.functions.builtin"
_AUTHOR, _HIS = "byway_author_", "__byway_imported__"
_MOST = 1 << 24  # bytes of a file


def find(use: str, folder: Path) -> tuple[type, dict[str, str]]:
    """The class that ``use`` names, files relative to ``folder``; -> it, and {file: digest} of what
    it came from. Raises FunctionError."""
    if use.startswith(BUILTIN) and ":" not in use:
        module = _builtin(use)
        return _chosen(use, "", module), {}
    file, name = file_and_name(use)
    path = (folder / file).resolve()
    digest = digest_of(path)
    module = _imported(use, path)
    return _chosen(use, name, module), {**_files(module), str(path): digest}


def file_and_name(use: str) -> tuple[str, str]:
    """The file that ``use`` names, and the class in it; "" where it names none. Folders may have a
    colon in their names."""
    file, _, name = use.rpartition(":")
    return (file, name) if file and "/" not in name else (use, "")


def is_builtin(use: str) -> bool:
    """Does it come with Byway?"""
    return use.startswith(BUILTIN) and ":" not in use


def builtins() -> list[str]:
    """The names of all functions that come with Byway: files that have one (others help them)."""
    folder = Path(importlib.import_module(_PACKAGE).__path__[0])
    return sorted(BUILTIN + path.stem for path in folder.glob("*.py")
                  if "\n@nf.function" in path.read_text())


def digest_of(path: Path) -> str:
    """Of a file's bytes; "" where it cannot be read, or is far too long for a program."""
    try:
        return hashlib.sha256(read_file(path, _MOST)).hexdigest()
    except OSError:
        return ""


def _builtin(use: str) -> ModuleType:
    if use not in builtins():
        raise _problem(use, "no such function comes with Byway", nearest(use, builtins()) or
                       f"there are {', '.join(builtins())}; files are written as guard.py:Name")
    return importlib.import_module(f"{_PACKAGE}.{use.removeprefix(BUILTIN)}")


def _imported(use: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise _problem(str(path), "there is no such file",
                       "put it there, or write the path that it has, as in guard.py:RateGuard")
    if path.stat().st_size > _MOST:
        raise _problem(str(path), f"it has more than {_MOST >> 20} MiB", "name a program's file")
    place = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"{_AUTHOR}{path.stem}_{place}", path)
    if spec is None or spec.loader is None:
        raise _problem(str(path), "this is no Python file", "give it a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    _forget()
    sys.modules[spec.name] = module
    with _beside(path.parent, module):
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


def _forget() -> None:
    """Modules that were imported for functions found before are imported anew."""
    for author in [one for name, one in list(sys.modules.items())
                   if name.startswith(_AUTHOR)]:
        for name, module in vars(author).get(_HIS, {}).items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


@contextmanager
def _beside(folder: Path, module: ModuleType) -> Iterator[None]:
    """The modules beside an author's file can be imported; afterwards ``module`` has those that
    are his. No compiled copy is written: by the file's time and length it may be mistaken for that
    of the next edit."""
    hidden = {name: sys.modules.pop(name) for name in _names(folder) if name in sys.modules}
    before, writes = dict(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        vars(module)[_HIS] = {name: one for name, one in list(sys.modules.items())
                              if before.get(name) is not one and _is_his(one, folder)}
        sys.modules.update(hidden)


def _names(folder: Path) -> Iterator[str]:
    """The modules in a folder, but for names that are Byway's or Python's own."""
    for path in folder.glob("*.py"):
        if path.stem not in sys.stdlib_module_names and path.stem not in ("byway", "__main__"):
            yield path.stem


def _is_his(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    if not file:
        return False
    path = Path(file).resolve()
    paths = sysconfig.get_paths()
    foreign = [PACKAGE, *(Path(one).resolve() for one in (
        *site.getsitepackages(), site.getusersitepackages(),
        *(paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))))]
    return not any(path.is_relative_to(one) and not folder.is_relative_to(one) for one in foreign)


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
        raise _problem(use, f"there is no network function {name} in it",
                       nearest(name, there) or f"there are: {known}")
    raise _problem(use, "it is not said which function of the file is meant",
                   f"write FILE:NAME; there are: {known}")


def _files(module: ModuleType) -> dict[str, str]:
    """The modules that were imported with an author's, with their digests."""
    files = {Path(str(one.__file__)).resolve() for one in vars(module)[_HIS].values()}
    return {str(one): digest_of(one) for one in sorted(files)}


def _problem(file: str, message: str, fix: str) -> FunctionError:
    return FunctionError([Problem(file, 0, message, fix)])
