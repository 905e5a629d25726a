# SPDX-License-Identifier: Apache-2.0
"""The machine code of chains: compiled and put into the cache, or loaded from there.

Used by build.py (compiles, in a process apart), by control and harness.py (load). Uses compose.py
and machine.

A composed chain is exec'd as a module of its own, of generated source that consists of nothing but
kernels over numbers. Its machine code is found in the cache by the source's digest and that of
everything below (the kernels it calls).

A chain's code, its source and what the compiler knows of it (1.3 MiB, of a small one) are there as
long as somebody has the chain, and a little longer: who builds may be about to use it. Its machine
code itself stays (0.1 MiB): the compiler has no way to take that back.
"""

import importlib.abc
import importlib.machinery
import linecache
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from types import ModuleType

from byway.functions.compose import Composed
from byway.machine.cachedir import CHAIN
from byway.machine.jit import Native

_ARGUMENTS = {"rx": 2, "tx": 5}
_KNOWN: "weakref.WeakValueDictionary[str, Native]" = weakref.WeakValueDictionary()  # by digest
_LATELY: deque[Native] = deque(maxlen=16)  # that were asked for
_GONE: deque[tuple[ModuleType, str]] = deque()  # modules and files of chains that nobody has
_MAKING = threading.Lock()


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of chains that this process has not made, empty.

    Cached code names the modules in which its parts were compiled first, and those of an author's
    function may have been compiled for another chain. Kernels ask no module for anything."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(CHAIN):
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """It stays empty."""


def native(composed: Composed) -> Native:
    """The chain as a C function, the same one as long as somebody has it; its code is compiled or
    loaded when its address is asked for. From any thread."""
    with _MAKING:
        _forget()
        found = _KNOWN.get(composed.digest)
        if found is None:
            found = _KNOWN[composed.digest] = _made(composed)
        _LATELY.append(found)
    return found


def _made(composed: Composed) -> Native:
    if not any(isinstance(finder, _Absent) for finder in sys.meta_path):
        sys.meta_path.append(_Absent())
    name, file = CHAIN + composed.digest, f"<chain {composed.digest}>"
    module = sys.modules[name] = ModuleType(name)  # cached code asks for it by this name
    # Tracebacks and the compiler's messages show the lines.
    linecache.cache[file] = (len(composed.source), None, composed.source.splitlines(True), file)
    exec(compile(composed.source, file, "exec"), module.__dict__)
    function = module.__dict__["chain"]
    function.__digest__ = composed.digest
    made = Native(function, _ARGUMENTS[composed.direction])
    # Garbage may be collected while somebody goes through sys.modules: so not then.
    weakref.finalize(made, _GONE.append, (module, file)).atexit = False
    return made


def _forget() -> None:
    """Let go of the modules of chains that nobody has any more."""
    while _GONE:
        module, file = _GONE.popleft()
        if sys.modules.get(module.__name__) is module:  # else another one was made of the source
            del sys.modules[module.__name__]
            linecache.cache.pop(file, None)
