# SPDX-License-Identifier: Apache-2.0
"""The machine code of chains: compiled and put into the cache, or loaded from there.

Used by build.py (compiles, in a process apart), by control and harness.py (load). Uses compose.py
and machine.

A composed chain is exec'd as a module of its own, of generated source that consists of nothing but
kernels over numbers. Its machine code is found in the cache by the source's digest and that of
everything below (the kernels it calls).
"""

import functools
import linecache
import sys
from types import ModuleType

from byway.functions.compose import Composed
from byway.machine.cachedir import FUNCTIONS
from byway.machine.jit import Native

_ARGUMENTS = {"rx": 2, "tx": 5}


@functools.lru_cache(maxsize=256)
def native(composed: Composed) -> Native:
    """The chain as a C function; its code is compiled or loaded when its address is asked for."""
    name = f"byway.{FUNCTIONS}.chain_{composed.digest}"
    file = f"<chain {composed.digest}>"
    module = sys.modules[name] = ModuleType(name)  # cached code asks for it by this name
    # Tracebacks and the compiler's messages show the lines.
    linecache.cache[file] = (len(composed.source), None, composed.source.splitlines(True), file)
    exec(compile(composed.source, file, "exec"), module.__dict__)
    function = module.__dict__["chain"]
    function.__digest__ = composed.digest
    return Native(function, _ARGUMENTS[composed.direction])
