# SPDX-License-Identifier: Apache-2.0
"""Comparisons of the author's source: == != < <= > >= in, and chains of them.

Used by world.py. Uses unit.py and values.py.
"""

import ast
import dataclasses
from typing import Any

from byway.functions.translate import states
from byway.functions.translate.refused import Refused
from byway.functions.translate.unit import Unit
from byway.functions.translate.values import Value, condition, number, whole, widened

_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_MOST = 64  # values that something is compared with by "in"


def compare(unit: Unit, node: ast.Compare) -> Value:
    """a < b, a < b < c, a in (1, 2), key in self.table."""
    if len(node.ops) == 1:
        return _one(unit, node, node.left, node.ops[0], node.comparators[0])
    left, right = unit.in_order([node.left, node.comparators[0]])
    parts: list[tuple[list[str], str]] = []
    with unit.capture() as lines:
        right = unit.settle(right)
        code = _compared(unit, node, node.ops[0], left, right).code
    parts.append((lines, code))
    for k, (op, each) in enumerate(zip(node.ops[1:], node.comparators[1:], strict=True), 3):
        with unit.capture() as lines:
            left, right = right, unit.value(each)
            if k < len(node.comparators) + 1:
                right = unit.settle(right)
            code = _compared(unit, node, op, left, right).code
        parts.append((lines, code))
    return condition(unit.joined(parts, "and"))


def _one(unit: Unit, node: ast.Compare, left: ast.expr, op: ast.cmpop,
         right: ast.expr) -> Value:
    if not isinstance(op, ast.In | ast.NotIn):
        values = unit.in_order([left, right])
        return _compared(unit, node, op, values[0], values[1])
    made = _inside(unit, node, left, right)
    return made if isinstance(op, ast.In) else condition(f"(not {made.code})")


def _compared(unit: Unit, node: ast.AST, op: ast.cmpop, left: Value, right: Value) -> Value:
    if isinstance(op, ast.Is | ast.IsNot):
        raise Refused(node, "is compares objects, and there are none here", "write == or !=")
    if isinstance(op, ast.In | ast.NotIn):
        raise Refused(node, "in cannot stand in a chain of comparisons", "join them with and")
    sign = _SIGNS[type(op)]
    kinds = {left.kind, right.kind}
    if "unknown" in kinds:
        return condition("False")
    if kinds == {"choice", "text"}:
        return _chosen(node, sign, *((left, right) if left.kind == "choice" else (right, left)))
    if kinds == {"verdict"} and sign in ("==", "!="):
        return condition(f"({left.code} {sign} {right.code})")
    if "wide" in kinds:
        if sign not in ("==", "!="):
            raise Refused(node, f"addresses of 128 bits are compared with {sign}",
                          "write == or !=, or compare nf.high(x) and nf.low(x)")
        left, right = widened(left, node, "one side"), widened(right, node, "one side")
        return condition(f"(({left.high} ^ {right.high} | {left.code} ^ {right.code}) {sign} 0)")
    if left.kind == "flow" or right.kind == "flow":
        raise Refused(node, "flows are compared", "use them as keys, or compare their fields")
    left, right = whole(left, node, "one side"), whole(right, node, "one side")
    return condition(f"({left.code} {sign} {right.code})")


def _chosen(node: ast.AST, sign: str, choice: Value, text: Value) -> Value:
    """self.mode == "text", where mode is one of some texts."""
    choices: tuple[str, ...] = choice.constant
    if sign not in ("==", "!="):
        raise Refused(node, f"texts are compared with {sign}", "write == or !=")
    if text.constant not in choices:
        raise Refused(node, f"the parameter is never {text.constant!r}",
                      "compare it with one of " + ", ".join(map(repr, choices)))
    return condition(f"({choice.code} {sign} {choices.index(text.constant)})")


def _inside(unit: Unit, node: ast.Compare, left: ast.expr, right: ast.expr) -> Value:
    if isinstance(right, ast.Tuple | ast.List | ast.Set):
        value, *members = unit.in_order([left, *right.elts])
        return _among(unit, node, value, members)
    if isinstance(right, ast.Call) and isinstance(right.func, ast.Name) \
            and right.func.id == "range":
        raise Refused(node, "in range(...)", "write a <= x < b")
    holder = unit.value(right)
    if holder.kind == "state":
        return states.has(unit, node, holder, left)
    value = unit.value(left)
    if holder.kind == "tuple":
        return _among(unit, node, value, [number(each) for each in holder.constant])
    if holder.kind == "prefix":
        return condition(_in_prefix(node, value, holder.constant))
    if "unknown" in (holder.kind, value.kind):
        return condition("False")
    raise Refused(node, f"in {holder.shown}",
                  "write a tuple of numbers, a network, or a state with keys")


def _among(unit: Unit, node: ast.Compare, value: Value, members: list[Value]) -> Value:
    if len(members) > _MOST:
        raise Refused(node, f"{len(members)} values to compare with, one by one",
                      "keep them in an nf.Map")
    if len(members) > 2:
        value = unit.settle(value)
    found = [_compared(unit, node, ast.Eq(), value, each).code for each in members]
    return condition("(" + " or ".join(found) + ")" if found else "False")


def _in_prefix(node: ast.AST, value: Value, prefix: Any) -> str:
    if not isinstance(prefix, tuple):  # a constant of the file
        wide = prefix.mask >> 32 != 0
        words = [number(word) for word in (prefix.network, prefix.mask)]
        words = [dataclasses.replace(word, high=word.high or "0") for word in words]
        prefix = ((words[0].high, words[0].code, words[1].high, words[1].code) if wide else
                  (words[0].code, words[1].code))
    if len(prefix) == 2:
        network, mask = prefix
        return f"(({whole(value, node, 'the address').code} & {mask}) == {network})"
    value = widened(value, node, "the address")
    high, low, mask_high, mask_low = prefix
    return (f"(({value.high} & {mask_high} ^ {high} | {value.code} & {mask_low} ^ {low}) == 0)")
