# SPDX-License-Identifier: Apache-2.0
"""What an expression of the author's source is, and the Python text that computes it in a kernel.

Used by all of translate. Uses nothing.

A value is made without being computed: its ``code`` is an expression without side effects, which
stands wherever the value is used. What has a side effect, or may go wrong, is a line of its own in
front (unit.py), so the order of things stays the author's.
"""

import ast
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from byway.functions.translate.refused import Refused
from byway.machine.dual import signed

Kind: TypeAlias = Literal[
    "number", "wide", "verdict", "record", "view", "payload", "flow", "text", "tuple", "prefix",
    "choice", "state", "self", "object", "none", "unknown"]
LOW = (1 << 64) - 1
_SHOWN: dict[Kind, str] = {
    "number": "a number", "wide": "an address of 128 bits", "verdict": "a verdict",
    "record": "a record", "view": "a frame", "payload": "a payload", "flow": "a flow",
    "text": "text", "tuple": "several values", "prefix": "a network", "choice": "text",
    "state": "a state", "self": "the function itself", "object": "a Python object",
    "none": "nothing", "unknown": "something unknown"}


@dataclass(frozen=True)
class Value:
    """``code``: a number's expression (int64; where ``test``: a condition), or the low word of a
    wide one whose high word is ``high``; the address of a record; a view's parsed word. ``truth``:
    it is 0 or 1. ``constant``: what is known of it already. ``name``: of the state that it is, or
    that a record is of; of a view."""

    kind: Kind
    code: str = ""
    high: str = ""
    test: bool = False
    truth: bool = False
    constant: Any = None
    name: str = ""

    @property
    def settled(self) -> bool:
        """Does nothing that happens later change it?"""
        return all(not each or each.lstrip("-").isalnum() or each.isidentifier()
                   for each in (self.code, self.high))

    @property
    def everywhere(self) -> bool:
        """Is there one of it, which every kernel has anyway?"""
        return self.kind in ("self", "payload") or (self.kind == "view" and self.name == "frame")

    @property
    def shown(self) -> str:
        """What it is, for messages."""
        return _SHOWN[self.kind]


UNKNOWN = Value("unknown", "0", "0")
NONE = Value("none", "0")


def number(constant: int) -> Value:
    """A constant; one of more than 64 bits is wide. ValueError: it has more than 128."""
    if -(1 << 63) <= constant < 1 << 63:
        truth = constant in (0, 1)
        return Value("number", str(int(constant)), constant=int(constant), truth=truth)
    if not 0 <= constant < 1 << 128:
        raise ValueError(constant)
    return Value("wide", str(signed(constant)), str(signed(constant >> 64)), constant=int(constant))


def condition(code: str) -> Value:
    """What a comparison gives."""
    return Value("number", code, test=True, truth=True)


def whole(value: Value, node: ast.AST, what: str) -> Value:
    """The value as an int64 expression. Refused where it is no number; ``what`` needs one."""
    if value.kind == "unknown":
        return value
    if value.kind == "wide":
        raise Refused(node, f"{what} is an address of 128 bits", "take nf.high(x) or nf.low(x)")
    if value.kind != "number":
        raise Refused(node, f"{what} is {value.shown}, where a number is needed",
                      'write a number; an address is nf.IPv4("10.0.0.1")'
                      if value.shown == "text" else "write a number")
    return replace(value, code=f"int({value.code})", test=False) if value.test else value


def widened(value: Value, node: ast.AST, what: str) -> Value:
    """The value as two words. Refused where it is neither wide nor a constant."""
    if value.kind in ("wide", "unknown"):
        return value
    if value.kind == "number" and value.constant is not None and value.constant >= 0:
        return replace(value, kind="wide", high="0")
    raise Refused(node, f"{what} is {value.shown}, where an address of 128 bits is needed",
                  "write one, like frame.ipv6_src or nf.IPv6(\"2001:db8::1\")")
