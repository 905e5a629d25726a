# SPDX-License-Identifier: Apache-2.0
"""The one decorator for compiled code, and the cache its machine code is kept in.

    @kernel                 a building block, called by other kernels (and by tests)
    @kernel(entry=True)     what Python calls: all arguments int64, releases the GIL, cached

Used by every module that holds kernels. Everything that depends on private names of Numba
stands in this file, in parts.py and dual.py, so that a new Numba version means three files to read.

Theory of operation
-------------------
Numba's own cache looks at the file of the cached function only: an edit in an imported module
is silently ignored. Here the key is a digest of the sources of *all* data-path packages plus the
versions of Python, Numba and llvmlite, and it names the directory. Only entries are cached: an
entry's object code contains everything it calls. A literal argument must not make another
specialisation (a third of the compile time of the data path), so literal types are widened.

A building block is only ever linked into others, so it gets neither machine code nor a Python
wrapper nor optimisation of its own: the entry that it ends up in is made of all its parts at once
and optimised as a whole. That halves the time of the first start. A call from Python compiles the
block by itself, for tests.

Cache files are pickles: cachedir says which are believed. What cannot be loaded is compiled anew.
"""

import contextlib
import ctypes
import functools
import gc
import hashlib
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from numba import njit, types
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps
from numba.core.types.functions import BaseFunction

from byway.machine.cachedir import (
    CHAIN,
    COMPILED_PACKAGES,
    FUNCTIONS,
    TESTING,
    cache_root,
    keep,
    kept,
    private,
    sources_digest,
)
from byway.machine.dual import Interpreted
from byway.machine.parts import Part, PartCache

OPTIONS: dict[str, Any] = {"error_model": "numpy", "boundscheck": False}
INTERPRETED = bool(config.DISABLE_JIT)


class _Locator(_CacheLocator):  # type: ignore[misc]
    """Tells Numba where the code of one entry is kept and what it depends on."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_func = py_func

    def digest(self) -> str:
        module = self._py_func.__module__
        if module.startswith(f"byway.{FUNCTIONS}."):
            return sources_digest((*COMPILED_PACKAGES, FUNCTIONS))
        if module.startswith(f"byway.{TESTING}."):
            return sources_digest((*COMPILED_PACKAGES, FUNCTIONS, TESTING))
        return sources_digest(COMPILED_PACKAGES)

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
        private(Path(self.get_cache_path()))


class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar = [_Locator]


class _Files:
    """The files of one function's code, each for one type of machine and one source: what Numba
    asks for its cache. No index, whose pickle would be one more to believe."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def _path(self, key: Any) -> Path:
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return self._folder / f"{self._name}.{digest}.nbc"

    def load(self, key: Any) -> Any:
        """What was saved; None: nothing that is believed."""
        found = kept(self._path(key))
        return None if found is None else pickle.loads(found)

    def save(self, key: Any, data: Any) -> None:
        """OSError: it cannot be kept."""
        keep(self._path(key), dumps(data))


class _Cache(FunctionCache):  # type: ignore[misc]
    _impl_class = _Impl

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _Files(Path(self._cache_path), self._impl.filename_base)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # of code that is as it was saved: whatever the linker says
            print(f"byway: machine code of {self._name} cannot be loaded"
                  f" ({type(error).__name__}: {error}); it is compiled anew", file=sys.stderr)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            print(f"byway: machine code is not kept ({error})", file=sys.stderr)


def _parts(called: Iterable[Any]) -> list[Any]:
    """Libraries and, of parts, what they call and what that calls: each once, and after all of its
    callers (LLVM's linker leaves out what nobody has asked for yet)."""
    seen: set[Any] = set()
    ended: list[Any] = []

    def visit(library: Any) -> None:
        if library not in seen:
            seen.add(library)
            for one in library._linking_libraries if isinstance(library, Part) else ():
                visit(one)
            ended.append(library)

    for library in called:
        visit(library)
    return ended[::-1]


def is_made(function: Callable[..., Any]) -> bool:
    """Is it of a chain, whose source is made while somebody waits for it?"""
    return function.__module__.startswith(CHAIN)


class _Whole(JITCodeLibrary):  # type: ignore[misc]
    """The code of an entry, with all parts that it is made of. ``made``: of a chain, which goes
    through LLVM's passes once (Numba's first time is for objects with counted references)."""

    made = False

    def _optimize_final_module(self) -> None:
        if not self.made:
            super()._optimize_final_module()
            return
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)

    def finalize(self) -> None:
        self._linking_libraries = _parts(self._linking_libraries)  # type: ignore[has-type]
        super().finalize()


class _EntryCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler, with _Whole for the library."""

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        self.state.library = _Whole(self.state.targetctx.codegen(), function.__qualname__)
        self.state.library.made = is_made(function)
        self.state.library.enable_object_caching()
        return super().compile_extra(function)


class NotKeptError(Exception):
    """The code is not in the cache, and was not to be compiled."""


class _CFunction(CFunc):  # type: ignore[misc]
    """Numba's C function, which may be told not to compile."""

    loads_only = False

    def _compile_uncached(self) -> Any:
        if self.loads_only:
            raise NotKeptError
        return super()._compile_uncached()


class _PartCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler, with Part for the library and no machine code."""

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        self.state.library = Part(self.state.targetctx.codegen(), function.__qualname__)
        self.state.library.made = is_made(function)
        return super().compile_extra(function)


def _parts_folder(function: Callable[..., Any]) -> Path | None:
    """Where parts of a function's module are kept; None: nowhere."""
    if not function.__module__.startswith("byway.") or function.__closure__ is not None:
        return None
    locator = _Locator(function, "")
    try:
        locator.ensure_cache_path()
    except OSError:
        return None
    return Path(locator.get_cache_path())


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
        return njit(no_cfunc_wrapper=True, pipeline_class=_EntryCompiler, **OPTIONS)(function)

    dispatcher._compiler._customize_flags = linked_only
    dispatcher._cache = PartCache(function, functools.partial(_parts_folder, function))
    dispatcher.add_overload = keep
    # What this answers is called instead.
    dispatcher._compile_for_args = lambda *args, **kwargs: callable_from_python()
    return _widen_literals(dispatcher)


def _widen_literals(dispatcher: Any) -> Any:
    original = dispatcher.get_call_template
    dispatcher.get_call_template = lambda args, kws: original(
        tuple(map(types.unliteral, args)), kws)
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
    dispatcher = njit(nogil=True, pipeline_class=_EntryCompiler, **OPTIONS)(function)
    dispatcher._cache = _Cache(function)
    return dispatcher


def prepare(entries: Iterable[Any], progress: Callable[[str], None] | None = None) -> float:
    """Load or compile entries now, so that no frame waits for the compiler; -> seconds.

    ``progress`` is told of every entry that has to be compiled (not of loaded ones).
    """
    began = time.perf_counter()
    with global_compiler_lock, _remembered_operators(), _no_collection():
        for entry in () if INTERPRETED else entries:
            signature = (types.int64,) * entry.py_func.__code__.co_argcount
            if signature in entry.overloads:
                continue
            if progress and not is_cached(entry):
                progress(f"compiling {entry.py_func.__module__.removeprefix('byway.')}."
                         f"{entry.py_func.__name__} (first run with these sources)")
            entry.compile(signature)
    return time.perf_counter() - began


@contextlib.contextmanager
def _remembered_operators() -> Iterator[None]:
    """Numba asks anew for each ``+`` which of its many meanings is that of two integers: a fifth of
    the time. Here what was found for a function and its simple types is found once."""
    search = BaseFunction.get_call_type
    known: dict[Any, tuple[Any, Any]] = {}

    def remembered(self: Any, context: Any, args: Any, kws: Any) -> Any:
        if kws or not all(isinstance(a, (types.Integer, types.Boolean)) for a in args):
            return search(self, context, args, kws)
        key = self.typing_key, args
        if key not in known:
            found = search(self, context, args, kws)
            if found is None:
                return None
            known[key] = found, self._impl_keys[found.args]
        found, implementation = known[key]
        self._impl_keys[found.args] = implementation
        return found

    BaseFunction.get_call_type = remembered
    try:
        yield
    finally:
        BaseFunction.get_call_type = search


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """The compiler makes millions of objects and few cycles: looking for those takes a tenth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def is_cached(entry: Any) -> bool:
    """Is there machine code for this entry on disk already?"""
    files = entry._cache._impl
    return any(Path(files.locator.get_cache_path()).glob(f"{files.filename_base}.*.nbc"))


class Native:
    """A kernel as a C function of int64 arguments: reached by its address, by the operating system
    or by other kernels (system.callN), which need not be compiled with it. Lives as long as who
    calls it."""

    def __init__(self, function: Callable[..., int], arguments: int) -> None:
        self.function = function
        self._arguments = arguments
        self._code: Any = None
        self._address: int | None = None
        if not INTERPRETED:
            signature = (tuple([types.int64] * arguments), types.int64)
            self._code = _CFunction(function, signature, {}, dict(OPTIONS), _EntryCompiler)
            self._code._cache = _Cache(function)

    @property
    def address(self) -> int:
        """Where its code is; it is loaded or compiled when this is first asked for."""
        if self._address is None:
            with global_compiler_lock:  # no other lock: load() is called by other threads
                if self._address is None:
                    self._address = self._made()
        return self._address

    def _made(self) -> int:
        if not INTERPRETED:
            with _remembered_operators(), _no_collection():
                self._code.compile()
            return int(self._code.address)
        proto = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * self._arguments)
        self._code = proto(self.function)
        address = int(ctypes.cast(self._code, ctypes.c_void_p).value or 0)
        Interpreted.functions[address] = self.function
        return address

    def load(self) -> bool:
        """Have its code, if that is in the cache; it is not compiled. -> is there code?"""
        if INTERPRETED or self._address is not None:
            return True
        with global_compiler_lock:
            self._code.loads_only = True
            try:
                return self.address != 0
            except NotKeptError:
                return False
            finally:
                self._code.loads_only = False

    @property
    def cached(self) -> bool:
        """Need it not be compiled?"""
        return INTERPRETED or is_cached(self._code)
