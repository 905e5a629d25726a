# SPDX-License-Identifier: Apache-2.0
"""Calls in the author's source: verdicts, the page's functions, own methods and functions.

Used by world.py and statements.py. Uses unit.py, values.py; frames.py and states.py for methods of
the frame and of states.
"""

import ast
import inspect
import types
from collections.abc import Callable
from typing import Any

from byway import nf
from byway.functions import blueprint as does
from byway.functions.instance import I
from byway.functions.translate import expressions, frames, states
from byway.functions.translate.refused import Refused
from byway.functions.translate.unit import Unit
from byway.functions.translate.values import NONE, UNKNOWN, Value, condition, whole, widened
from byway.functions.verdicts import CLONE, DROP, MIRROR, REDIRECT
from byway.nf.verdicts import DROP as drop_of

_PORTS: dict[Any, tuple[int, str]] = {
    nf.REDIRECT: (REDIRECT, does.SETTLES), nf.MIRROR: (MIRROR, does.COPIES),
    nf.CLONE: (CLONE, does.COPIES)}
_CALLS = "byway.functions.states_kernels"
_TYPES = (nf.IPv4, nf.IPv6, nf.Mac, nf.Seconds, nf.Prefix4, nf.Prefix6)
# What a builtin of Python would have to be here.
_INSTEAD = {
    print: "send it with an nf.Event, and print it where events are received",
    len: "write frame.length, frame.payload.length or the number itself",
    range: "write for i in range(...), or a <= x < b", sum: "write a for loop",
    float: "count in whole units", str: "send the number with an nf.Event",
    isinstance: "ask the frame: frame.is_tcp", pow: "multiply, or shift: 1 << n",
    divmod: "write // and %", sorted: "write a for loop", enumerate: "write for i in range(...)",
    zip: "write for i in range(...)", any: "write or", all: "write and", list: "use an nf.Array",
    dict: "use an nf.Map", set: "use an nf.Map", round: "write //", hash: "write nf.hash(...)",
    bytes: "read with frame.u8(at), u16(at) or u32(at)", open: "write to files in the listener"}


def call(unit: Unit, node: ast.Call) -> Value:
    """What a call gives; adds the lines that it needs."""
    if isinstance(node.func, ast.Attribute):
        owner = unit.value(node.func.value)
        if owner.kind == "unknown":
            return UNKNOWN
        if owner.kind == "view":
            return frames.call(unit, node, node.func.attr, owner)
        if owner.kind == "payload":
            return frames.call_payload(unit, node, node.func.attr)
        if owner.kind == "state":
            return states.call(unit, node, node.func.attr, owner)
        if owner.kind == "self" and node.func.attr in unit.world.definition.methods:
            return own_function(unit, node, unit.world.definition.methods[node.func.attr], owner)
    called = unit.value(node.func)
    if called.kind == "unknown":
        return UNKNOWN
    if called.kind != "object":
        raise Refused(node, f"{called.shown} is called", "call a method, or a function of the file")
    thing = called.constant
    if isinstance(thing, types.FunctionType) and not thing.__module__.startswith("byway.nf"):
        return own_function(unit, node, thing, None)
    for known, answer in _KNOWN.items():
        if known is thing:
            return answer(unit, node)
    if thing in _PORTS:
        return _to_port(unit, node, *_PORTS[thing])
    if thing in _TYPES:
        return _address(unit, node, thing)
    name = getattr(thing, "__name__", repr(thing))
    for known, fix in _INSTEAD.items():
        if known is thing:
            raise Refused(node, f"{name}() is not there when frames flow", fix)
    raise Refused(node, f"{name} cannot be called when frames flow",
                  "call a function that is written in Python and takes numbers")


# ---------------------------------------------------------------- arguments
def arguments(unit: Unit, node: ast.Call, least: int, most: int | None = None) -> list[Value]:
    """The values of a call's arguments, so many of them, all by place."""
    if node.keywords:
        raise Refused(node, f"{node.keywords[0].arg}= by name", "give the arguments by place")
    if len(node.args) < least or (most is not None and len(node.args) > most):
        wanted = str(least) if most == least else f"{least} to {most}" if most else f"{least}"
        raise Refused(node, f"{len(node.args)} arguments, where {wanted} are needed",
                      "look at the page of the author")
    return unit.in_order(node.args)


def _numbers(unit: Unit, node: ast.Call, least: int, most: int | None = None) -> list[Value]:
    values = arguments(unit, node, least, most)
    return [whole(each, node, "an argument") for each in values]


# ---------------------------------------------------------------- the page's functions
def _drop(unit: Unit, node: ast.Call) -> Value:
    values = [*node.args, *(each.value for each in node.keywords)]
    text = unit.value(values[0]) if len(values) == 1 else NONE
    if text.kind == "unknown":
        return UNKNOWN
    if text.kind != "text" or not text.constant:
        raise Refused(node, "a drop whose reason is no plain text",
                      'write the reason as it stands: nf.DROP("over limit")')
    return Value("verdict", str(unit.world.reason(text.constant) << 8 | DROP))


def _to_port(unit: Unit, node: ast.Call, kind: int, flag: str) -> Value:
    [port] = _numbers(unit, node, 1, 1)
    unit.world.flags.add(flag)
    if port.kind == "unknown":
        return UNKNOWN
    shift = unit.use(expressions.ARITH, "shifted_left")
    return Value("verdict", f"({shift}({port.code}, 8) | {kind})")


def _now(unit: Unit, node: ast.Call) -> Value:
    arguments(unit, node, 0, 0)
    unit.world.flags.add(does.TIMED)
    return Value("number", "now")


def _random(unit: Unit, node: ast.Call) -> Value:
    [n] = _numbers(unit, node, 1, 1)
    unit.world.flags.add(does.STATEFUL)
    made = unit.temp()
    function = unit.use(_CALLS, "draw")
    unit.emit(f"{made} = {function}(self + {I.random}, {n.code})")
    return Value("number", made)


def _hash(unit: Unit, node: ast.Call) -> Value:
    values = arguments(unit, node, 1)
    code = "0"
    for value in values:
        if value.kind == "wide":
            code = f"{unit.use(_CALLS, 'hash_wide')}({code}, {value.high}, {value.code})"
        else:
            number = whole(value, node, "an argument").code
            code = f"{unit.use(_CALLS, 'hash_more')}({code}, {number})"
    return Value("number", f"{unit.use(_CALLS, 'hash_end')}({code})")


def _half(unit: Unit, node: ast.Call, high: bool) -> Value:
    [value] = arguments(unit, node, 1, 1)
    value = widened(value, node, "the argument")
    return Value("number", value.high if high else value.code)


def _wide(unit: Unit, node: ast.Call) -> Value:
    high, low = _numbers(unit, node, 2, 2)
    return Value("wide", low.code, high.code)


def _high(unit: Unit, node: ast.Call) -> Value:
    return _half(unit, node, True)


def _low(unit: Unit, node: ast.Call) -> Value:
    return _half(unit, node, False)


def _address(unit: Unit, node: ast.Call, kind: Callable[[Any], Any]) -> Value:
    """nf.IPv4("10.0.0.1") in the source: a constant."""
    [value] = arguments(unit, node, 1, 1)
    if value.kind == "unknown":
        return UNKNOWN
    if value.constant is None:
        raise Refused(node, "an address is made of something that is no constant",
                      "addresses are numbers here: use the number itself")
    try:
        return expressions.constant(node, kind(value.constant))
    except ValueError as error:
        raise Refused(node, str(error), "write an address") from None


# ---------------------------------------------------------------- Python's functions
def _chosen(function: str) -> Callable[[Unit, ast.Call], Value]:
    def least_or_most(unit: Unit, node: ast.Call) -> Value:
        first, *others = _numbers(unit, node, 2)
        code = first.code
        for each in others:
            code = f"{unit.use(expressions.ARITH, function)}({code}, {each.code})"
        return Value("number", code)

    return least_or_most


def _abs(unit: Unit, node: ast.Call) -> Value:
    [value] = _numbers(unit, node, 1, 1)
    return Value("number", f"{unit.use(expressions.ARITH, 'magnitude')}({value.code})")


def _int(unit: Unit, node: ast.Call) -> Value:
    [value] = _numbers(unit, node, 1, 1)
    return value


def _bool(unit: Unit, node: ast.Call) -> Value:
    arguments(unit, node, 1, 1)
    return condition(unit.test(node.args[0]))


_KNOWN: dict[Any, Callable[[Unit, ast.Call], Value]] = {
    drop_of: _drop, nf.now: _now, nf.random: _random, nf.hash: _hash, nf.high: _high,
    nf.low: _low, nf.wide: _wide, min: _chosen("least"), max: _chosen("most"), abs: _abs,
    int: _int, bool: _bool}


# ---------------------------------------------------------------- own functions
def own_function(unit: Unit, node: ast.Call, function: types.FunctionType,
                 owner: Value | None) -> Value:
    """A call of a method or function of the author's: of the kernel that it is made into."""
    values = _bound(unit, node, function, owner)
    if any(each.kind == "unknown" for each in values.values()):
        return UNKNOWN
    made = unit.world.kernel_for(unit, node, function, values)
    passed = ["self", "row", "frame", "batch", "now"]
    for value in values.values():
        if not value.everywhere:
            passed += [value.high, value.code] if value.kind == "wide" else [
                f"int({value.code})" if value.test else value.code]
    unit.counts = True
    if made.counts and not made.spends:
        unit.spend(made.node, function)
    result = unit.temp()
    unit.emit(f"{result} = {made.name}({', '.join(passed)})")
    if made.faulty:
        unit.check_fault()
    if made.reshapes:
        frames.parse_again(unit)
    unit.size += made.size
    unit.rounds = None if unit.rounds is None or made.rounds is None else (
        unit.rounds + int(made.counts) + made.rounds)
    if made.result.kind == "wide":
        high = f"h{result}"
        unit.emit(f"{high} = {unit.world.load_high(unit)}")
        return Value("wide", result, high)
    return Value(made.result.kind, result, truth=made.result.truth, name=made.result.name)


def _bound(unit: Unit, node: ast.Call, function: types.FunctionType,
           owner: Value | None) -> dict[str, Value]:
    """The arguments by the names that the function has for them."""
    signature = inspect.signature(function)
    kinds = {each.kind for each in signature.parameters.values()}
    if kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}:
        raise Refused(node, f"{function.__name__} takes * or **", "name each of its arguments")
    given: list[Any] = [] if owner is None else [owner]
    given += unit.in_order([*node.args, *(each.value for each in node.keywords)])
    places, names = given[:len(given) - len(node.keywords)], given[len(given) - len(node.keywords):]
    try:
        bound = signature.bind(*places, **{str(each.arg): value for each, value in
                                           zip(node.keywords, names, strict=True)})
    except TypeError as error:
        raise Refused(node, f"{function.__name__}: {error}", "give it what it takes") from None
    values: dict[str, Value] = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if name not in values:
            values[name] = expressions.constant(node, parameter.default)
    for name, value in values.items():
        if value.kind not in ("number", "wide", "verdict", "record", "view", "payload", "self",
                              "unknown"):
            raise Refused(node, f"{function.__name__} is given {value.shown} as {name}",
                          "give it numbers, addresses, records or the frame")
    return {name: values[name] for name in signature.parameters}


