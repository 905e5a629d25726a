# SPDX-License-Identifier: Apache-2.0
"""Statements of the author's source, as lines of a kernel.

Used by world.py. Uses unit.py, values.py and the modules for targets of assignments.

A refused statement is noted and left out, and what comes after it is looked at as well: an author
learns of all that is wrong at once.
"""

import ast
from collections.abc import Sequence

from byway.functions.translate import calls, expressions, frames, states
from byway.functions.translate.refused import Refused, forbidden
from byway.functions.translate.unit import Unit
from byway.functions.translate.values import NONE, Value, number, whole

_TARGETS = "assign to a variable, a field of the frame or of a record, or an element of an nf.Array"


def run(unit: Unit, nodes: Sequence[ast.stmt]) -> bool:
    """Translate statements; -> does what comes after them never run?"""
    ended = False
    for node in nodes:
        if ended:
            unit.world.refuse(unit, Refused(node, "this line is never reached", "leave it out"))
            break
        try:
            ended = _statement(unit, node)
        except Refused as refused:
            unit.world.refuse(unit, refused)
            ended = isinstance(node, ast.Return)
            for each in ast.walk(node):
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                    unit.forget(each.id)
    return ended


def _statement(unit: Unit, node: ast.stmt) -> bool:
    match node:
        case ast.Return():
            return _return(unit, node)
        case ast.If():
            return _if(unit, node)
        case ast.While():
            return _while(unit, node)
        case ast.For():
            return _for(unit, node)
        case ast.Break() | ast.Continue():
            unit.emit("break" if isinstance(node, ast.Break) else "continue")
            return True
        case ast.Pass():
            pass
        case ast.Assign():
            _assign(unit, node)
        case ast.AnnAssign():
            if node.value is not None:
                _store(unit, node.target, unit.value(node.value))
        case ast.AugAssign():
            _change(unit, node)
        case ast.Expr():
            _alone(unit, node)
        case _:
            raise forbidden(node)
    return False


def _alone(unit: Unit, node: ast.Expr) -> None:
    if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return
    if not isinstance(node.value, ast.Call):
        unit.value(node.value)
        raise Refused(node, "this line does nothing", "leave it out, or assign what it computes")
    value = calls.call(unit, node.value)
    if value.kind == "verdict":
        raise Refused(node, "a verdict is made and forgotten", "write return in front of it")
    if not value.settled and value.kind in ("number", "wide", "record"):
        unit.settle(value)


# ---------------------------------------------------------------- assignments
def _assign(unit: Unit, node: ast.Assign) -> None:
    if len(node.targets) == 1 and isinstance(node.targets[0], ast.Tuple):
        _unpack(unit, node.targets[0], node.value)
        return
    value = unit.value(node.value)
    if len(node.targets) > 1:
        value = unit.settle(value)
    for target in node.targets:
        _store(unit, target, value)


def _unpack(unit: Unit, target: ast.Tuple, node: ast.expr) -> None:
    if not isinstance(node, ast.Tuple) or len(node.elts) != len(target.elts):
        raise Refused(node, "several names on the left, and not as many values on the right",
                      "write as many values, like a, b = b, a, or one assignment for each")
    values = unit.in_order(node.elts)
    copied = []
    for value in values:  # all are read before any is written
        name = unit.temp()
        copied.append(unit.assign(name, f"h{name}", value) if value.kind != "unknown" else value)
    for each, value in zip(target.elts, copied, strict=True):
        _store(unit, each, value)


def _store(unit: Unit, target: ast.expr, value: Value) -> None:
    if value.kind == "none":
        raise Refused(target, "what is called gives nothing", "call it on a line of its own")
    if isinstance(target, ast.Name):
        unit.bind(target, target.id, value)
        return
    if not isinstance(target, ast.Attribute | ast.Subscript):
        raise Refused(target, "this cannot be assigned to", _TARGETS)
    with unit.capture() as lines:  # as in Python the value comes first, then where it goes
        owner = unit.value(target.value)
        index = _index(unit, target) if isinstance(target, ast.Subscript) else NONE
    value = unit.settle(value) if lines else value
    unit.lines += lines
    _put(unit, target, owner, index, value)


def _index(unit: Unit, target: ast.Subscript) -> Value:
    if isinstance(target.slice, ast.Slice):
        raise forbidden(target.slice)
    return unit.settle(unit.number(target.slice, "the index"))


def _put(unit: Unit, target: ast.Attribute | ast.Subscript, owner: Value, index: Value,
         value: Value, checked: bool = False) -> None:
    """owner.name = value, or owner[index] = value."""
    if isinstance(target, ast.Subscript):
        states.write_element(unit, target, owner, index, value, checked)
    elif owner.kind == "view":
        frames.write(unit, target, owner, value)
    elif owner.kind == "record":
        states.write_field(unit, target, owner, value)
    elif owner.kind == "self":
        raise Refused(target, f"self.{target.attr} is assigned to",
                      "parameters are changed from outside: keep it in an nf.Array")
    elif owner.kind != "unknown":
        raise Refused(target, f"a part of {owner.shown} is assigned to", _TARGETS)


def _change(unit: Unit, node: ast.AugAssign) -> None:
    """x += 1: what is on the left is found once, read, then the right side, then written."""
    target = node.target
    if isinstance(target, ast.Name):
        before = ast.copy_location(ast.Name(target.id, ast.Load()), target)
        left, right = unit.in_order([before, node.value])
        _store(unit, target, expressions.operate(unit, node, node.op, left, right))
        return
    owner = unit.settle(unit.value(target.value))
    if isinstance(target, ast.Attribute):
        index, left = NONE, expressions.attribute_of(unit, target, owner)
    else:
        index = _index(unit, target)
        left = unit.settle(states.read_element(unit, target, owner, index))
    with unit.capture() as lines:
        right = unit.value(node.value)
    left = unit.settle(left) if lines else left
    unit.lines += lines
    made = expressions.operate(unit, node, node.op, left, right)
    _put(unit, target, owner, index, made, checked=True)


# ---------------------------------------------------------------- ways
def _return(unit: Unit, node: ast.Return) -> bool:
    if isinstance(node.value, ast.IfExp):  # no need to choose twice
        choice = node.value
        branches = [ast.copy_location(ast.Return(each), each)
                    for each in (choice.body, choice.orelse)]
        made = ast.If(choice.test, [branches[0]], [branches[1]])
        return _if(unit, ast.copy_location(made, node))
    value = NONE if node.value is None or (
        isinstance(node.value, ast.Constant) and node.value.value is None
    ) else unit.value(node.value)
    unit.world.returned(unit, node, value)
    if value.kind == "wide":
        unit.world.store_high(unit, value.high)
    unit.emit(f"return {whole(value, node, '').code if value.kind == 'number' else value.code}")
    return True


def _if(unit: Unit, node: ast.If) -> bool:
    code = unit.test(node.test)
    before, rounds = set(unit.assigned), unit.rounds
    with unit.block(f"if {code}:"):
        ended = run(unit, node.body)
    after, unit.assigned = unit.assigned, before
    if not node.orelse:
        if not ended:
            unit.assigned = before & after
        return False
    taken, unit.rounds = unit.rounds, rounds
    with unit.block("else:"):
        other = run(unit, node.orelse)
    unit.rounds = None if taken is None or unit.rounds is None else max(taken, unit.rounds)
    if ended and other:
        return True
    if not ended:
        unit.assigned = after if other else after & unit.assigned
    return False


def _body(unit: Unit, nodes: Sequence[ast.stmt], trips: int | None) -> None:
    """A loop's body. What it assigns may have no value behind the loop."""
    unit.counts = True
    before, rounds, unit.rounds = set(unit.assigned), unit.rounds, 0
    run(unit, nodes)
    unit.assigned = before
    if rounds is None or trips is None or unit.rounds is None:
        unit.rounds = None
    else:
        unit.rounds = rounds + trips * (1 + unit.rounds)


def _while(unit: Unit, node: ast.While) -> bool:
    if node.orelse:
        raise Refused(node.orelse[0], "else at a loop", "set a variable before break, and test it")
    with unit.capture() as lines:
        code = unit.test(node.test)
    endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
    if endless or lines:
        with unit.block("while True:"):
            if not endless:
                unit.paste(lines, 1)
                with unit.block(f"if not {code}:"):
                    unit.emit("break")
            unit.spend(node)
            _body(unit, node.body, None)
    else:
        with unit.block(f"while {code}:"):
            unit.spend(node)
            _body(unit, node.body, None)
    return endless and not _breaks(node.body)


def _breaks(nodes: Sequence[ast.stmt]) -> bool:
    """Is there a break among the statements that ends this loop, and not one inside?"""
    for node in nodes:
        if isinstance(node, ast.Break):
            return True
        if isinstance(node, ast.If) and (_breaks(node.body) or _breaks(node.orelse)):
            return True
    return False


def _for(unit: Unit, node: ast.For) -> bool:
    if node.orelse:
        raise Refused(node.orelse[0], "else at a loop", "set a variable before break, and test it")
    if not isinstance(node.target, ast.Name):
        raise Refused(node.target, "a loop over several names", "write for i in range(...)")
    call = node.iter
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range" \
            and not call.keywords and 1 <= len(call.args) <= 3:
        _range(unit, node, node.target, call)
        return False
    if isinstance(call, ast.Tuple | ast.List):
        values = unit.in_order(call.elts)
    elif (held := unit.value(call)).kind == "tuple":
        values = [number(each) for each in held.constant]
    else:
        raise Refused(node, "a loop over something that is no range",
                      "write for i in range(...), or for x in (1, 2, 3)")
    if any(isinstance(each, ast.Break | ast.Continue) for each in ast.walk(node)):
        raise Refused(node, "break or continue in a loop over single values",
                      "write for i in range(...)")
    assigned = set(unit.assigned)
    for value in [_kept(unit, each) for each in values]:
        unit.bind(node.target, node.target.id, value)
        unit.spend(node)
        _body(unit, node.body, 1)
    unit.assigned = assigned
    return False


def _kept(unit: Unit, value: Value) -> Value:
    """A value of an unrolled loop, whatever the rounds before it change."""
    if value.constant is not None or value.everywhere or value.kind not in (
            "number", "wide", "verdict", "record", "view"):
        return value
    name = unit.temp()
    return unit.assign(name, f"h{name}", value)


def _range(unit: Unit, node: ast.For, target: ast.Name, call: ast.Call) -> None:
    values = [whole(each, node, "an end of the range") for each in unit.in_order(call.args)]
    start, stop = (number(0), values[0]) if len(values) == 1 else values[:2]
    step = values[2] if len(values) == 3 else number(1)
    if step.constant is None or step.constant == 0:
        raise Refused(call, "a range whose step is no constant, or 0", "write the step as a number")
    trips = None
    if start.constant is not None and stop.constant is not None:
        away = stop.constant - start.constant
        trips = max(0, -(-away // step.constant))
    at, end = unit.temp(), unit.temp()
    unit.emit(f"{at} = {start.code}")
    unit.emit(f"{end} = {stop.code}")
    sign = "<" if step.constant > 0 else ">"
    with unit.block(f"while {at} {sign} {end}:"):
        before = set(unit.assigned)
        unit.spend(node)
        unit.bind(target, target.id, Value("number", at))
        add = unit.use(expressions.ARITH, "add")
        unit.emit(f"{at} = {add}({at}, {step.code})")
        if _may_wrap(start, stop, step.constant, trips):  # it ends there, as Python's does
            with unit.block(f"if {at} {sign} v_{target.id}:"):
                unit.emit(f"{at} = {end}")
        _body(unit, node.body, trips)
        unit.assigned = before


def _may_wrap(start: Value, stop: Value, step: int, trips: int | None) -> bool:
    """May a range's counter leave 64 bits behind its last round?"""
    if abs(step) == 1:
        return False
    if trips is not None:
        last = start.constant + trips * step
    elif stop.constant is not None:
        last = stop.constant + step
    else:
        return True
    return not -(1 << 63) <= last < 1 << 63
