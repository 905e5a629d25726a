# SPDX-License-Identifier: Apache-2.0
"""The machine code of chains: compiled and put into the cache, or loaded from there.

Used by build.py (compiles, in a process apart), by control and harness.py (load). Uses compose.py
and machine.

A composed chain is exec'd as a module of its own, of generated source that consists of nothing but
kernels over numbers. Its machine code is found in the cache by the source's digest and that of
everything below (the kernels it calls).
"""

import functools
import importlib.abc
import importlib.machinery
import linecache
import sys
from collections.abc import Sequence
from types import ModuleType

from byway.functions.compose import Composed
from byway.machine.cachedir import FUNCTIONS
from byway.machine.jit import Native

_ARGUMENTS = {"rx": 2, "tx": 5}
_CHAIN = f"byway.{FUNCTIONS}.chain_"


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of chains that this process has not made, empty.

    Cached code names the modules in which its parts were compiled first, and those of an author's
    function may have been compiled for another chain. Kernels ask no module for anything."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_CHAIN):
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """It stays empty."""


@functools.lru_cache(maxsize=1024)
def native(composed: Composed) -> Native:
    """The chain as a C function; its code is compiled or loaded when its address is asked for."""
    if not any(isinstance(finder, _Absent) for finder in sys.meta_path):
        sys.meta_path.append(_Absent())
    name = _CHAIN + composed.digest
    file = f"<chain {composed.digest}>"
    module = sys.modules[name] = ModuleType(name)  # cached code asks for it by this name
    # Tracebacks and the compiler's messages show the lines.
    linecache.cache[file] = (len(composed.source), None, composed.source.splitlines(True), file)
    exec(compile(composed.source, file, "exec"), module.__dict__)
    function = module.__dict__["chain"]
    function.__digest__ = composed.digest
    return Native(function, _ARGUMENTS[composed.direction])
