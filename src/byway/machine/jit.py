# SPDX-License-Identifier: Apache-2.0
"""The one decorator for compiled code, and the cache its machine code is kept in.

    @kernel                 a building block, called by other kernels (and by tests)
    @kernel(entry=True)     what Python calls: all arguments int64, releases the GIL, cached

Used by every module that holds kernels. Everything that depends on private names of Numba
stands in this file and in dual.py, so that a new Numba version means two files to read.

Theory of operation
-------------------
Numba's own cache looks at the file of the cached function only: an edit in an imported module
is silently ignored. Here the key is a digest of the sources of *all* data-path packages plus the
versions of Python, Numba and llvmlite, and it names the directory. Only entries are cached: an
entry's object code contains everything it calls. A literal argument must not make another
specialisation (a third of the compile time of the data path), so literal types are widened.

A building block is only ever linked into others, so it gets neither machine code nor a Python
wrapper nor optimisation of its own: the entry that it ends up in is optimised as a whole. That
halves the time of the first start. A call from Python compiles the block by itself, for tests.

The directory is private to the user: cache files are pickles, and whoever can write them runs
code in the switch. A directory that others can write to is refused.
"""

import ctypes
import functools
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from numba import njit, types
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from byway.machine.cachedir import COMPILED_PACKAGES, TESTING, cache_root, sources_digest

OPTIONS: dict[str, Any] = {"error_model": "numpy", "boundscheck": False}
INTERPRETED = bool(config.DISABLE_JIT)


class _Locator(_CacheLocator):  # type: ignore[misc]
    """Tells Numba where the code of one entry is kept and what it depends on."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_func = py_func

    def digest(self) -> str:
        packages: tuple[str, ...] = COMPILED_PACKAGES
        if self._py_func.__module__.startswith(f"byway.{TESTING}."):
            packages = (*packages, TESTING)
        return sources_digest(packages)

    def get_cache_path(self) -> str:
        return str(cache_root() / self.digest())

    def get_source_stamp(self) -> str:
        # Not a path or a time: the directory may be moved, copied or shipped.
        return self.digest()

    def get_disambiguator(self) -> str:
        generated = getattr(self._py_func, "__digest__", None)
        return generated or str(self._py_func.__code__.co_firstlineno)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_Locator":
        return cls(py_func, py_file)

    def ensure_cache_path(self) -> None:
        path = self.get_cache_path()
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{path}: others may write here; set BYWAY_CACHE to a private"
                                  " directory")


class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar = [_Locator]


class _Cache(FunctionCache):  # type: ignore[misc]
    _impl_class = _Impl

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            print(f"byway: machine code is not kept ({error})", file=sys.stderr)


class _Part(JITCodeLibrary):  # type: ignore[misc]
    """The code of a building block: kept as it is until an entry links it in."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _PartCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler, with _Part for the library and no machine code."""

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        self.state.library = _Part(self.state.targetctx.codegen(), function.__qualname__)
        return super().compile_extra(function)


def _building_block(function: Callable[..., Any], inline: bool) -> Any:
    dispatcher = njit(pipeline_class=_PartCompiler, no_cpython_wrapper=True,
                      no_cfunc_wrapper=True, forceinline=inline, **OPTIONS)(function)

    def linked_only(flags: Any) -> Any:
        flags.no_compile = True
        return flags

    def keep(result: Any) -> None:
        # Callers find the code by this key, which is the machine code's wrapper where there is one.
        key = object()
        result.target_context.insert_user_function(key, result.fndesc, [result.library])
        dispatcher.overloads[tuple(result.signature.args)] = result._replace(entry_point=key)

    @functools.cache
    def callable_from_python() -> Any:
        return njit(no_cfunc_wrapper=True, **OPTIONS)(function)

    dispatcher._compiler._customize_flags = linked_only
    dispatcher.add_overload = keep
    # What this answers is called instead.
    dispatcher._compile_for_args = lambda *args, **kwargs: callable_from_python()
    return _widen_literals(dispatcher)


def _widen_literals(dispatcher: Any) -> Any:
    original = dispatcher.get_call_template
    dispatcher.get_call_template = lambda args, kws: original(
        tuple(types.unliteral(a) for a in args), kws
    )
    return dispatcher


def kernel(function: Callable[..., Any] | None = None, *, entry: bool = False,
           inline: bool = False) -> Any:
    """Compile ``function`` to machine code on first use; interpreted runs call it as it is.

    A building block (default) may take and return any kernel types; with ``inline`` it becomes
    part of its caller even where LLVM finds it long (a call costs some ten cycles, which matters
    once a frame). An entry takes int64 arguments only, has one signature, releases the GIL, and is
    loaded from the cache.
    """
    if function is None:
        return lambda f: kernel(f, entry=entry, inline=inline)
    if INTERPRETED:
        return function
    if not entry:
        return _building_block(function, inline)
    dispatcher = njit(nogil=True, **OPTIONS)(function)
    dispatcher._cache = _Cache(function)
    return dispatcher


def prepare(entries: Iterable[Any], progress: Callable[[str], None] | None = None) -> float:
    """Load or compile entries now, so that no frame waits for the compiler; -> seconds.

    ``progress`` is told of every entry that has to be compiled (not of loaded ones).
    """
    began = time.perf_counter()
    for entry in () if INTERPRETED else entries:
        signature = (types.int64,) * entry.py_func.__code__.co_argcount
        if signature in entry.overloads:
            continue
        if progress and not is_cached(entry):
            progress(f"compiling {entry.py_func.__module__.removeprefix('byway.')}."
                     f"{entry.py_func.__name__} (first run with these sources)")
        entry.compile(signature)
    return time.perf_counter() - began


def is_cached(entry: Any) -> bool:
    """Is there machine code for this entry on disk already?"""
    implementation = entry._cache._impl
    name = implementation.filename_base
    path = Path(implementation.locator.get_cache_path())
    return path.is_dir() and any(path.glob(f"{name}*.nbc"))


class Native:
    """A kernel as a C function of int64 arguments: reached by its address (mem.callN)."""

    def __init__(self, function: Callable[..., int], arguments: int) -> None:
        self.function = function
        if INTERPRETED:
            proto = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)
            self._code: Any = proto(function)
            self.address = int(ctypes.cast(self._code, ctypes.c_void_p).value or 0)
            return
        signature = (tuple([types.int64] * arguments), types.int64)
        self._code = CFunc(function, signature, {}, dict(OPTIONS))
        self._code._cache = _Cache(function)
        self._code.compile()
        self.address = int(self._code.address)
