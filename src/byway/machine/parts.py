# SPDX-License-Identifier: Apache-2.0
"""Building blocks that were compiled before: kept beside the machine code, so that whoever compiles
an entry anew compiles only what is new.

Used by jit.py, with which it shares what is private to Numba. Uses cachedir.

Theory of operation
-------------------
A building block (a *part*) is LLVM code that entries link in; most of the time that it takes goes
into making that code from Python (some twenty milliseconds), not into the machine code of the
whole. What is kept of a part: its signature, its code, and which parts it calls, each with the
*symbol* (the name in the code) that it calls them by. Symbols have a number in them that is another
one in each process; so a part counts as known only where those that it calls are known by the same
symbols. If not (two processes have kept different parts at once) it is compiled again.

Parts lie in the directory that is named by the digest of all sources, as entries do (those whose
source is made, of authors' functions, are forgotten in time: cachedir). Not kept are
parts with addresses in them, parts that call something that is not kept, and parts of modules
outside the package.
"""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompileResult

from byway.machine.cachedir import keep, kept

PART, MADE_PART = "part_", "made_"  # how files begin: of parts, and of those whose source is made
_RUNTIME = "nrt"  # of objects with counted references, of which kernels have none


class Part(JITCodeLibrary):  # type: ignore[misc]
    """The code of a building block: as it is, by itself, until an entry links it in. ``kept``: its
    folder and file in the cache ("": it is not kept); ``symbol``: what its callers call."""

    kept = ""
    symbol = ""
    made = False  # of a chain (jit.is_made): all is optimised once, where it is linked

    def _optimize_functions(self, module: Any) -> None:
        if self.made:
            module.data_layout = self._codegen._data_layout
        else:
            super()._optimize_functions(module)

    def finalize(self) -> None:
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        self._finalized = True


class PartCache:
    """What a building block's dispatcher asks before it compiles, and tells when it has."""

    known: ClassVar[dict[str, Part]] = {}

    def __init__(self, function: Callable[..., Any], folder: Callable[[], Path | None]) -> None:
        self._function = function
        self._folder = folder

    def load_overload(self, signature: Any, target: Any) -> CompileResult | None:
        """The part for these types of arguments, if it was kept."""
        folder = self._folder()
        found = None if folder is None else _load(
            folder.parent, self._name(folder, signature, target), target)
        if found is None:
            return None
        part, stored = found
        return CompileResult(
            target_context=target, typing_context=target.typing_context, library=part,
            environment=None, entry_point=object(), fndesc=stored["fndesc"], type_annotation="",
            signature=stored["signature"], objectmode=False, lifted=(), typing_error=None,
            call_helper=None, metadata=None, reload_init=(), referenced_envs=())

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a part that was just compiled."""
        folder, part = self._folder(), result.library
        linked = [each for each in dict.fromkeys(part._linking_libraries) if each.name != _RUNTIME]
        called = [each for each in linked if isinstance(each, Part)]
        if folder is None or part._dynamic_globals or not all(each.kept for each in called):
            return
        code = part._final_module.clone()
        for each in linked:
            if each not in called:  # of Numba's own functions, like min
                code.link_in(each._get_module_for_linking(), preserve=True)
        part.kept = self._name(folder, signature, result.target_context)
        part.symbol = result.fndesc.llvm_func_name
        result.fndesc.typemap = result.fndesc.calltypes = None
        stored = {"fndesc": result.fndesc, "signature": result.signature, "symbol": part.symbol,
                  "name": part.name, "code": code.as_bitcode(),
                  "called": [(each.kept, each.symbol) for each in called]}
        PartCache.known[part.kept] = part
        try:
            keep(folder.parent / part.kept, pickle.dumps(stored))
        except OSError:
            return  # it is compiled again the next time

    def _name(self, folder: Path, signature: Any, target: Any) -> str:
        function = self._function
        # Generated kernels, which may be in several modules, have names that tell all of them.
        place = ((function.__module__, function.__code__.co_firstlineno)
                 if Path(function.__code__.co_filename).is_file() else ())
        what = (function.__qualname__, place, str(signature), target.codegen().magic_tuple())
        kind = PART if place else MADE_PART
        return f"{folder.name}/{kind}{hashlib.sha256(repr(what).encode()).hexdigest()[:24]}"


def _load(root: Path, name: str, target: Any) -> tuple[Part, dict[str, Any]] | None:
    """A part of this name, and all that it calls; None: it is not there as a whole."""
    found = kept(root / name)
    if found is None:
        return None
    stored = pickle.loads(found)
    known = PartCache.known.get(name)
    if known is not None:
        return (known, stored) if known.symbol == stored["symbol"] else None
    called = []
    for other, symbol in stored["called"]:
        part = PartCache.known.get(other)
        if part is None:
            whole = _load(root, other, target)
            part = whole[0] if whole else None
        if part is None or part.symbol != symbol:
            return None
        called.append(part)
    part = Part(target.codegen(), stored["name"])
    part._final_module = llvm.parse_bitcode(stored["code"])
    for each in called:
        part.add_linking_library(each)
    part.finalize()
    part.kept, part.symbol = name, stored["symbol"]
    PartCache.known[name] = part
    return part, stored
