# SPDX-License-Identifier: Apache-2.0
"""@formula: a kernel that is one expression over numbers, for a twentieth of its compile time.

Used by functions (what is compiled while a user waits). Uses dual.py.

The function is called once with symbols in place of numbers; what it does to them becomes LLVM's
instructions, right where it is called. So it is made of + - * & | ^ << >> ~, ``logical``, loads
and stores (byway.machine.mem) and other formulas, with neither a branch nor a comparison.
Interpreted it is the function as it stands, wrapped at the end: so what has wrapped must not be
shifted right but by ``logical``.
"""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from llvmlite import ir

from byway.machine.dual import Dual, dual, i64, signed


class Symbol:
    """A number that is not known yet."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value


def _operator(name: str, turned: bool) -> Callable[[Symbol, Any], Symbol]:
    def apply(self: Symbol, other: Any) -> Symbol:
        given = other.value if isinstance(other, Symbol) else i64(other)
        pair = (given, self.value) if turned else (self.value, given)
        return Symbol(self.builder, getattr(self.builder, name)(*pair))

    return apply


for _python, _llvm in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("and", "and_"),
                       ("or", "or_"), ("xor", "xor"), ("lshift", "shl"), ("rshift", "ashr")):
    setattr(Symbol, f"__{_python}__", _operator(_llvm, turned=False))
    setattr(Symbol, f"__r{_python}__", _operator(_llvm, turned=True))
setattr(Symbol, "__invert__", lambda self: self ^ -1)  # noqa: B010


def logical(value: Any, n: int) -> Any:
    """``value`` >> n, with zeros from the left (n: from 1 to 63)."""
    if isinstance(value, Symbol):
        return Symbol(value.builder, value.builder.lshr(value.value, ir.Constant(i64, n)))
    return (int(value) & (1 << 64) - 1) >> n


def _emitting(builder: Any, known: Dual) -> Callable[..., Symbol | None]:
    """A primitive that puts its instructions where a formula calls it."""

    def call(*given: Any) -> Symbol | None:
        values = [each.value if isinstance(each, Symbol) else i64(each) for each in given]
        made = known.emit(builder, *values) if known.emit is not None else None
        return None if made is None else Symbol(builder, made)

    return call


def formula(function: Callable[..., Any]) -> Any:
    """Make a function of int64 that is one expression a building block of kernels."""

    def emit(builder: Any, *values: Any) -> Any:
        used = {name: _emitting(builder, known) if isinstance(known, Dual) else known
                for name, known in function.__globals__.items()}
        symbolic = FunctionType(function.__code__, used, closure=function.__closure__)
        made = symbolic(*(Symbol(builder, value) for value in values))
        return made.value if isinstance(made, Symbol) else i64(made)

    made = dual(function.__name__, len(inspect.signature(function).parameters), emit,
                lambda *values: signed(function(*values)))
    made.__doc__, made.__module__ = function.__doc__, function.__module__
    return made
