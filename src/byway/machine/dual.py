# SPDX-License-Identifier: Apache-2.0
"""Intrinsics with two lives: a few LLVM instructions when compiled, plain Python otherwise.

Used by mem, system and layout to define their primitives. ``watch`` lets a test see every
access of an interpreted run (an address sanitizer: byway.testing.arena).
"""

from collections.abc import Callable
from typing import Any, ClassVar

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import codegen, config, types
from numba.core.extending import _Intrinsic

# Numba initialises LLVM's printer only; without the parser the first inline assembly ends the
# process ("Inline asm not supported by this streamer").
llvm.initialize_native_asmparser()

i1, i8, i16, i32, i64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
INT = {8: i8, 16: i16, 32: i32, 64: i64}
PTR = i8.as_pointer()


def compiled_for(*features: str) -> bool:
    """Are these among the processor's features that Numba compiles for: the host's, or
    NUMBA_CPU_FEATURES where set?"""
    chosen = config.CPU_FEATURES
    known = str(codegen.get_host_cpu_features() if chosen is None else chosen).split(",")
    return all(f"+{feature}" in known for feature in features)


class Watch:
    """Whoever wants to see the accesses of interpreted code: ``Watch.see(name, arguments)``."""

    see: Callable[[str, tuple[Any, ...]], None] | None = None


class Interpreted:
    """Functions that interpreted code calls by address, so that their exceptions arrive (they would
    get lost in a C function)."""

    functions: ClassVar[dict[int, Callable[..., int]]] = {}


class Dual(_Intrinsic):  # type: ignore[misc]
    """An intrinsic that interpreted code can call as well.

    numba.extending.intrinsic refuses such calls; this forwards them to ``plain``.
    """

    def __init__(self, name: str, defn: Any, plain: Callable[..., Any], **options: Any) -> None:
        super().__init__(name, defn, **options)
        self._plain = plain
        self.emit: Callable[..., Any] | None = None  # for those of ``dual``
        self.__name__ = name

    def __call__(self, *args: Any) -> Any:
        if Watch.see is not None:
            Watch.see(self.__name__, args)
        return self._plain(*args)

    def _reduce_states(self) -> dict[str, Any]:
        return {**super()._reduce_states(), "plain": self._plain}

    @classmethod
    def _rebuild(cls, uuid: Any, name: str, defn: Any, plain: Any) -> "Dual":
        if uuid in cls._memo:
            return cls._memo[uuid]
        made = cls(name, defn, plain)
        made._register()
        made._set_uuid(uuid)
        return made


def dual(
    name: str,
    arguments: int,
    emit: Callable[..., Any],
    plain: Callable[..., Any],
    result: Any = types.int64,
) -> Any:
    """Define intrinsic ``name`` of int64 arguments.

    ``emit(builder, *values)`` gets i64 LLVM values and returns one of the result type, or None.
    """
    argument_types = (types.int64,) * arguments

    def definition(typingctx: Any, *args: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            made = emit(builder, *values)
            return context.get_dummy_value() if made is None else made

        return result(*argument_types), codegen

    # Numba inspects the arity of the definition: give it a fixed one.
    names = "".join(f", a{k}" for k in range(arguments))
    namespace: dict[str, Any] = {"definition": definition}
    exec(f"def fixed(typingctx{names}):\n    return definition(typingctx{names})\n", namespace)
    made = Dual(name, namespace["fixed"], plain)
    made._register()
    made.emit = emit
    return made


def dual_with_context(name: str, emit: Callable[..., Any], plain: Any, result: Any) -> Any:
    """As ``dual`` with one int64 argument; ``emit`` gets Numba's target context as well."""

    def definition(typingctx: Any, a0: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return emit(context, builder, values[0])

        return result(types.int64), codegen

    made = Dual(name, definition, plain)
    made._register()
    return made


def hint(name: str, expected: bool) -> Any:
    """A branch hint: ``if likely(c)``."""

    def definition(typingctx: Any, condition: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            function = builder.module.declare_intrinsic(
                "llvm.expect.i1", fnty=ir.FunctionType(i1, [i1, i1])
            )
            return builder.call(function, [values[0], i1(int(expected))])

        return types.boolean(types.boolean), codegen

    made = Dual(name, definition, bool)
    made._register()
    return made


def signed(value: int) -> int:
    """The low 64 bits of ``value`` as an int64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
