# SPDX-License-Identifier: Apache-2.0
"""Expressions of the author's source: names, attributes, arithmetic, conditions.

Used by world.py. Uses unit.py and values.py; calls are in calls.py, comparisons in comparing.py.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

from byway.functions.blueprint import SETTLES
from byway.functions.instance import DIVISION, SHIFT
from byway.functions.translate import frames, states
from byway.functions.translate.refused import Refused, forbidden
from byway.functions.translate.unit import Unit
from byway.functions.translate.values import UNKNOWN, Value, condition, number, whole, widened
from byway.nf.addresses import Port, Prefix4, Prefix6, Text
from byway.nf.function import Definition
from byway.nf.problem import nearest
from byway.nf.verdicts import KINDS, Verdict

ARITH = "byway.functions.arith"
_FOLDED: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor}
_BITS: dict[type[ast.operator], str] = {ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"}
_SIGNED: dict[type[ast.unaryop], Callable[[int], int]] = {
    ast.USub: operator.neg, ast.Invert: operator.invert, ast.UAdd: operator.pos}
_WRAPPING: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}


# ---------------------------------------------------------------- constants and names
def constant(node: ast.AST, thing: Any) -> Value:
    """What an object that is known when the function is translated is to it."""
    if isinstance(thing, Text):
        raise Refused(node, "text cannot be read here", "leave it to the listener")
    if isinstance(thing, Port):
        raise Refused(node, "a port has no number before the function is at work",
                      "make it a parameter: uplink: nf.Port = nf.Port()")
    if isinstance(thing, int):
        try:
            return number(int(thing))
        except ValueError:
            raise Refused(node, f"{thing} has more than 64 bits",
                          "write a number from -2**63 to 2**63 - 1") from None
    if isinstance(thing, str):
        return Value("text", constant=thing)
    if isinstance(thing, tuple | frozenset) and all(isinstance(each, int) for each in thing):
        return Value("tuple", constant=tuple(sorted(thing) if isinstance(thing, frozenset)
                                             else thing))
    if isinstance(thing, Prefix4 | Prefix6):
        return Value("prefix", constant=thing)
    if isinstance(thing, Verdict) and not thing.reason and thing.port == -1:
        return Value("verdict", str(KINDS.index(thing.kind)))
    if isinstance(thing, float):
        raise Refused(node, f"{thing} is no whole number",
                      "count in whole units, like nanoseconds, or thousandths")
    if thing is None:
        raise Refused(node, "None is no value here", "use a number, like -1 or 0, for nothing")
    return Value("object", constant=thing)


def _known(unit: Unit, node: ast.AST, thing: Any) -> Value:
    """As ``constant``; that a frame may go back is noted, wherever the verdict stands."""
    if isinstance(thing, Verdict) and thing.kind == "reply":
        unit.world.flags |= {SETTLES}
    return constant(node, thing)


def name(unit: Unit, node: ast.Name) -> Value:
    """A variable, or what the file has under a name."""
    local = unit.local(node)
    if local is not None:
        return local
    try:
        return _known(unit, node, unit.seen(node.id))
    except KeyError:
        raise Refused(node, f"there is no {node.id}", "define or import it in the file") from None


def attribute(unit: Unit, node: ast.Attribute) -> Value:
    """owner.name, of the function itself, a frame, a record or a module."""
    return attribute_of(unit, node, unit.value(node.value))


def attribute_of(unit: Unit, node: ast.Attribute, owner: Value) -> Value:
    """As ``attribute``, of an owner that is known."""
    if owner.kind == "unknown":
        return UNKNOWN
    if owner.kind == "self":
        return own(unit, node)
    if owner.kind == "view":
        return frames.read(unit, node, owner)
    if owner.kind == "payload":
        return frames.read_payload(unit, node)
    if owner.kind == "record":
        return states.read_field(unit, node, owner)
    if owner.kind == "object":
        if not hasattr(owner.constant, node.attr):
            shown = getattr(owner.constant, "__name__", repr(owner.constant))
            fix = nearest(node.attr, dir(owner.constant))
            raise Refused(node, f"{shown} has no {node.attr}", fix or "look for its right name")
        return _known(unit, node, getattr(owner.constant, node.attr))
    if owner.kind == "state":
        raise Refused(node, f"{owner.name}.{node.attr} is not called",
                      f"write self.{owner.name}.{node.attr}(...)")
    raise Refused(node, f"{owner.shown} has no {node.attr}", "take it from the frame, or self")


def own(unit: Unit, node: ast.Attribute) -> Value:
    """self.name: a parameter, a state, a constant, a method."""
    definition: Definition = unit.world.definition
    if node.attr in definition.states:
        return Value("state", unit.world.state_address(unit, node.attr), name=node.attr)
    if node.attr in definition.constants:
        return _known(unit, node, definition.constants[node.attr])
    if node.attr in definition.methods:
        return Value("object", constant=definition.methods[node.attr])
    if node.attr not in (each.name for each in definition.parameters):
        known = [*(each.name for each in definition.parameters), *definition.states]
        raise Refused(node, f"{definition.name} has no {node.attr}",
                      nearest(node.attr, known) or (
                          f"declare it in the class; there are {', '.join(known)}" if known else
                          "declare it in the class as a parameter or a state"))
    parameter = definition.parameter(node.attr)
    if parameter.kind == "text":
        raise Refused(node, f"{node.attr} is an nf.Text, which only the listener can read",
                      "use a parameter that is a number")
    words = [unit.world.parameter_word(unit, node.attr, k) for k in range(parameter.size)]
    if parameter.kind == "ipv6":
        return Value("wide", words[1], words[0])
    if parameter.kind in ("prefix4", "prefix6"):
        return Value("prefix", constant=tuple(words))
    if parameter.kind == "choice":
        return Value("choice", words[0], constant=parameter.choices)
    return Value("number", words[0], truth=parameter.kind == "bool")


def subscript(unit: Unit, node: ast.Subscript) -> Value:
    """self.array[index], or an element of a tuple of constants."""
    if isinstance(node.slice, ast.Slice):
        raise forbidden(node.slice)
    holder = unit.value(node.value)
    index = unit.settle(unit.number(node.slice, "the index"))
    if holder.kind == "tuple" and index.constant is not None:
        if not -len(holder.constant) <= index.constant < len(holder.constant):
            raise Refused(node, "a place that the tuple does not have", "write another")
        return number(holder.constant[index.constant])
    return states.read_element(unit, node, holder, index)


# ---------------------------------------------------------------- arithmetic
def binary(unit: Unit, node: ast.BinOp) -> Value:
    """left operator right."""
    left, right = unit.in_order([node.left, node.right])
    return operate(unit, node, node.op, left, right)


def operate(unit: Unit, node: ast.expr | ast.stmt, op: ast.operator, left: Value,
            right: Value) -> Value:
    """The result of an operator."""
    kind = type(op)
    if kind is ast.Div:
        raise Refused(node, "/ makes a number with a fraction", "write //")
    if kind not in _FOLDED:
        sign = "**" if kind is ast.Pow else "@"
        raise Refused(node, f"{sign} is not translated", "multiply, or shift: 1 << n")
    if "unknown" in (left.kind, right.kind):
        return UNKNOWN
    if isinstance(left.constant, int) and isinstance(right.constant, int):
        return _folded(node, kind, left.constant, right.constant)
    left, right = (whole(each, node, what) for each, what in
                   ((left, "the left side"), (right, "the right side")))
    if kind in _BITS:
        return Value("number", f"({left.code} {_BITS[kind]} {right.code})",
                     truth=left.truth and right.truth)
    if kind in _WRAPPING:
        return Value("number", f"{unit.use(ARITH, _WRAPPING[kind])}({left.code}, {right.code})")
    if kind in (ast.LShift, ast.RShift):
        return _shifted(unit, node, kind is ast.LShift, left, right)
    return _divided(unit, node, kind is ast.FloorDiv, left, right)


def _folded(node: ast.AST, kind: type[ast.operator], left: int, right: int) -> Value:
    try:
        if kind is ast.LShift and right > 128:
            raise ValueError
        return number(_FOLDED[kind](left, right))
    except ZeroDivisionError:
        raise Refused(node, "a division by zero", "divide by something else") from None
    except ValueError:
        raise Refused(node, "the result has more than 64 bits, or the shift is negative",
                      "stay within -2**63 to 2**63 - 1") from None


def _shifted(unit: Unit, node: ast.AST, left_shift: bool, value: Value, amount: Value) -> Value:
    function = "shifted_left" if left_shift else "shifted_right"
    if amount.constant is None:
        value, amount = unit.settle(value), unit.settle(amount)
        with unit.block(f"if {amount.code} < 0:"):
            unit.fault(node, SHIFT)
    elif amount.constant < 0:
        raise Refused(node, "a shift by a negative amount", "shift the other way")
    elif not left_shift and amount.constant < 64:
        return Value("number", f"({value.code} >> {amount.code})")
    return Value("number", f"{unit.use(ARITH, function)}({value.code}, {amount.code})")


def _divided(unit: Unit, node: ast.AST, quotient: bool, value: Value, divisor: Value) -> Value:
    by = divisor.constant
    if by is None:
        value, divisor = unit.settle(value), unit.settle(divisor)
        with unit.block(f"if {divisor.code} == 0:"):
            unit.fault(node, DIVISION)
    elif by == 0:
        raise Refused(node, "a division by zero", "divide by something else")
    elif by > 0 and by & (by - 1) == 0:
        return Value("number", f"({value.code} >> {by.bit_length() - 1})" if quotient else
                     f"({value.code} & {by - 1})")
    function = unit.use(ARITH, "quotient" if quotient else "remainder")
    return Value("number", f"{function}({value.code}, {divisor.code})")


def unary(unit: Unit, node: ast.UnaryOp) -> Value:
    """not x, -x, ~x, +x."""
    if isinstance(node.op, ast.Not):
        return condition(f"(not {unit.test(node.operand)})")
    value = unit.value(node.operand)
    if isinstance(value.constant, int):
        return constant(node, _SIGNED[type(node.op)](value.constant))
    value = whole(value, node, "the value")
    if isinstance(node.op, ast.USub):
        return Value("number", f"{unit.use(ARITH, 'sub')}(0, {value.code})")
    return Value("number", f"(~{value.code})") if isinstance(node.op, ast.Invert) else value


# ---------------------------------------------------------------- conditions
def truth(unit: Unit, node: ast.AST, value: Value) -> str:
    """A value as a condition."""
    if value.kind in ("number", "unknown"):
        return value.code if value.test else f"({value.code} != 0)"
    if value.kind == "wide":
        return f"(({value.code} | {value.high}) != 0)"
    if value.kind == "record":
        return states.there(unit, value)
    raise Refused(node, f"{value.shown} is no condition", "compare it with something")


def test(unit: Unit, node: ast.expr) -> str:
    """An expression as a condition; and, or, not go on only where they must."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return f"(not {unit.test(node.operand)})"
    if not isinstance(node, ast.BoolOp):
        return truth(unit, node, unit.value(node))
    parts = []
    for each in node.values:
        with unit.capture() as lines:
            code = unit.test(each)
        parts.append((lines, code))
    word = "and" if isinstance(node.op, ast.And) else "or"
    return unit.joined(parts, word)


def both(unit: Unit, node: ast.BoolOp) -> Value:
    """a and b, a or b, as a value: one of them, as in Python."""
    parts = []
    for each in node.values:
        with unit.capture() as lines:
            parts.append((lines, unit.value(each)))
    if all(value.truth and not lines for lines, value in parts):
        word = " and " if isinstance(node.op, ast.And) else " or "
        return condition("(" + word.join(truth(unit, node, value) for _, value in parts) + ")")
    made, depth = unit.temp(), unit.depth
    negated = "" if isinstance(node.op, ast.And) else "not "
    for k, (lines, value) in enumerate(parts):
        unit.paste(lines, k)
        value = whole(value, node.values[k], "a side of and/or")
        unit.emit(f"{made} = {value.code}")
        if k < len(node.values) - 1:
            unit.emit(f"if {negated}({made} != 0):")
            unit.depth += 1
    unit.depth = depth
    return Value("number", made)


def either(unit: Unit, node: ast.IfExp) -> Value:
    """a if condition else b."""
    code = unit.test(node.test)
    made = unit.temp()
    parts: list[tuple[list[str], Value]] = []
    taken, rounds = [], unit.rounds
    for branch in (node.body, node.orelse):
        unit.rounds = rounds
        with unit.capture() as lines:
            value = unit.value(branch)
        parts.append((lines, value))
        taken.append(unit.rounds)
    unit.rounds = None if None in taken else max(each for each in taken if each is not None)
    wide = "wide" in [value.kind for _, value in parts]  # a constant beside an address is one
    values = []
    for head, branch, (lines, value) in zip(
            (f"if {code}:", "else:"), (node.body, node.orelse), parts, strict=True):
        with unit.block(head):
            unit.paste(lines, 1)
            if wide:
                value = widened(value, branch, "one of the two")
            if value.kind not in ("number", "wide", "verdict", "record", "unknown"):
                raise Refused(branch, f"{value.shown} cannot be chosen by a condition",
                              "write if and else around all of it")
            values.append(value)
            unit.assign(made, f"h{made}", value)
    first, second = values
    if "unknown" in (first.kind, second.kind):
        return UNKNOWN
    if (first.kind, first.name) != (second.kind, second.name):
        raise Refused(node, f"this is {first.shown} or {second.shown}, as it comes",
                      "make both sides alike")
    return Value(first.kind, made, f"h{made}" if first.high else "", name=first.name)


def refused(unit: Unit, node: ast.expr) -> Value:
    """An expression that nothing translates."""
    raise forbidden(node)
