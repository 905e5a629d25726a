# SPDX-License-Identifier: Apache-2.0
"""The frame in the author's source: fields that are read and set, methods, views, the payload.

Used by expressions.py, statements.py and calls.py. Uses unit.py and values.py; the tables of
fields.py say which kernel reads and sets what.

A view (the frame itself, ``inner``, ``quoted``) is a parsed word. Whoever changes the frame's shape
has it parsed again behind that, and other views are nothing from there on (their word is 0).
"""

import ast
import dataclasses
import re
from typing import Any

from byway.functions import blueprint as does
from byway.functions.fields import FIELDS, METHODS, PAYLOAD, VIEWS, Field, Method
from byway.functions.translate.refused import Refused
from byway.functions.translate.unit import Unit
from byway.functions.translate.values import NONE, UNKNOWN, Value, whole, widened
from byway.nf.problem import nearest

_PARSE = "byway.functions.parse_kernels"


def _named(unit: Unit, kernel: Any) -> str:
    """A kernel as the generated source calls it."""
    function = getattr(kernel, "py_func", kernel)
    return unit.use(function.__module__, function.__name__)


def _known(node: ast.AST, name: str, view: Value) -> Refused:
    known = [*FIELDS, *METHODS, *VIEWS]
    fix = "" if name in known else nearest(name, known)  # (some are of the frame alone)
    return Refused(node, f"{view.name} has no {name}",
                   fix or "look it up on the page of frame's fields")


def parse_again(unit: Unit) -> None:
    """Add the lines behind what changed the frame's shape."""
    unit.reshapes = True
    again = unit.use(_PARSE, "parse_again")
    unit.emit(f"frame = {again}(row, frame)")
    given = {value.code for name, value in unit.variables.items()
             if name in unit.assigned and value.kind == "view" and value.name != "frame"}
    for code in sorted(given | unit.views):
        unit.emit(f"{code} = 0")


# ---------------------------------------------------------------- fields
def read(unit: Unit, node: ast.Attribute, view: Value) -> Value:
    """view.name."""
    name = node.attr
    if name in VIEWS and view.name == "frame":
        return Value("view", f"{_named(unit, VIEWS[name].parse)}(row, frame)", name=name)
    if view.name == "frame" and name == "payload":
        return Value("payload", name="payload")
    if view.name == "frame" and name == "flow":
        return Value("flow")
    field = FIELDS.get(name)
    if field is None or (field.frame_only and view.name != "frame"):
        if name in METHODS:
            raise Refused(node, f"{view.name}.{name} is not called", f"write {name}(...)")
        raise _known(node, name, view)
    return _read(unit, field, view)


def _read(unit: Unit, field: Field, view: Value) -> Value:
    given = f"row, {view.code}, batch" if field.batch else f"row, {view.code}"
    if field.high is not None:
        return Value("wide", f"{_named(unit, field.get)}({given})",
                     f"{_named(unit, field.high)}({given})")
    code = f"{_named(unit, field.get)}({given})"
    if field.choices:
        return Value("choice", code, constant=field.choices)
    return Value("number", code, truth=field.truth)


def write(unit: Unit, node: ast.Attribute, view: Value, value: Value) -> None:
    """view.name = value."""
    field = FIELDS.get(node.attr)
    if field is None or (field.frame_only and view.name != "frame"):
        raise _known(node, node.attr, view)
    around = VIEWS[view.name] if view.name != "frame" else None
    if around is not None and around.after is None:
        raise Refused(node, f"{view.name} is set", "what a tunnel carries can be read only: "
                      "frame.decapsulate(n) first")
    if field.set is None or (view.name != "frame" and field.reshapes):
        raise Refused(node, f"{view.name}.{node.attr} is set", "it can be read only")
    unit.world.flags.add(does.WRITES)
    if "unknown" in (value.kind, view.kind):
        return
    if field.high is not None:
        value = widened(value, node, node.attr)
        given = f"{value.high}, {value.code}"
    else:
        given = whole(value, node, node.attr).code
    view, kept = unit.settle(view), unit.temp()
    if around is not None:
        unit.emit(f"{kept} = {_named(unit, around.before)}(row, {view.code})")
    elif _joined(unit, field, view, given):
        return
    unit.emit(f"{_named(unit, field.set)}(row, {view.code}, {given})")
    if around is not None:
        unit.emit(f"{_named(unit, around.after)}(row, {view.code}, {kept})")
    if field.reshapes:
        parse_again(unit)


def _joined(unit: Unit, field: Field, view: Value, given: str) -> bool:
    """Have a field be set together with the one that the line before sets, if there is a kernel for
    both; -> is there? What reads the frame must read it after the first one is set."""
    if not unit.lines or re.search(r"\brow\b", given):
        return False
    for name, kernel in field.joins.items():
        before = "    " * unit.depth + f"{_named(unit, FIELDS[name].set)}(row, {view.code}, "
        if unit.lines[-1].startswith(before):
            first = unit.lines.pop().removeprefix(before).removesuffix(")")
            unit.emit(f"{_named(unit, kernel)}(row, {view.code}, {first}, {given})")
            return True
    return False


# ---------------------------------------------------------------- methods
def call(unit: Unit, node: ast.Call, name: str, view: Value) -> Value:
    """view.name(...)."""
    if name == "send_copy" and view.name == "frame":
        return _copy(unit, node)
    method = METHODS.get(name)
    if method is None or (view.name != "frame" and not method.views):
        if name in FIELDS:
            raise Refused(node, f"{view.name}.{name} is no method", f"write {view.name}.{name}")
        raise _known(node, name, view)
    return _called(unit, node, method, view.code)


def _copy(unit: Unit, node: ast.Call) -> Value:
    """frame.send_copy(port): what the verdict CLONE makes, now."""
    if len(node.args) != 1 or node.keywords:
        raise Refused(node, "send_copy without a port", "write frame.send_copy(port)")
    port = unit.number(node.args[0], "the port")
    unit.world.flags |= {does.COPIES}
    unit.emit(f"{unit.use('byway.functions.apply', 'clone')}(self, batch, row, {port.code})")
    return NONE


def read_payload(unit: Unit, node: ast.Attribute) -> Value:
    """frame.payload.length."""
    if node.attr != "length":
        raise Refused(node, f"payload has no {node.attr}",
                      "it has length, u8(at), u16(at), u32(at), set_u8(at, value), ...")
    return _called(unit, node, PAYLOAD["length"], "frame")


def call_payload(unit: Unit, node: ast.Call, name: str) -> Value:
    """frame.payload.name(...)."""
    if name not in PAYLOAD or name == "length":
        raise Refused(node, f"payload has no {name}()",
                      "it has length, u8(at), u16(at), u32(at), set_u8(at, value), ...")
    return _called(unit, node, PAYLOAD[name], "frame")


def _called(unit: Unit, node: ast.Call | ast.Attribute, method: Method, word: str) -> Value:
    """A method's kernel, called: (row, parsed word, [batch,] arguments)."""
    given = _arguments(unit, node, method) if isinstance(node, ast.Call) else []
    if any(each.kind == "unknown" for each in given):
        return UNKNOWN
    words = ["row", word] + ["batch"] * method.batch
    words += [whole(each, node, "an argument").code for each in given]
    code = f"{_named(unit, method.kernel)}({', '.join(words)})"
    if method.writes:
        unit.world.flags.add(does.WRITES)
    if method.pure:
        return Value("number", code)
    made = unit.temp()
    unit.emit(f"{made} = {code}")
    if method.reshapes:
        parse_again(unit)
    return Value("number", made, truth=True) if method.answers else NONE


def _arguments(unit: Unit, node: ast.Call, method: Method) -> list[Value]:
    names = method.arguments
    given = dict(zip(names, node.args, strict=False))
    for keyword in node.keywords:
        if keyword.arg not in names or keyword.arg in given:
            raise Refused(node, f"there is no argument {keyword.arg}",
                          f"give {', '.join(names) or 'nothing'}")
        given[keyword.arg] = keyword.value
    missing = [name for name in names if name not in given and name not in method.defaults]
    if missing or len(node.args) > len(names):
        raise Refused(node, f"{len(node.args)} arguments",
                      f"give {', '.join(names) or 'nothing'}")
    values = dict(zip(given, unit.in_order(list(given.values())), strict=True))
    return [values[name] if name in values else
            dataclasses.replace(NONE, kind="number", code=str(method.defaults[name]))
            for name in names]


def length(unit: Unit) -> str:
    """The expression for the frame's length."""
    return _read(unit, FIELDS["length"], Value("view", "frame", name="frame")).code


def payload_place(unit: Unit) -> tuple[str, str]:
    """The expressions for where the payload begins, and its length."""
    begin = _read(unit, FIELDS["payload_offset"], Value("view", "frame", name="frame"))
    code = f"{_named(unit, PAYLOAD['length'].kernel)}(row, frame, batch)"
    return unit.settle(begin).code, code
