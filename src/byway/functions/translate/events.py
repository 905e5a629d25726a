# SPDX-License-Identifier: Apache-2.0
"""Events in the author's source: self.seen.emit(src=..., head=frame).

Used by states.py. Uses unit.py and values.py; event_kernels.py says how a slot is filled.
"""

import ast

from byway.functions import blueprint as does
from byway.functions.event_memory import event_fields
from byway.functions.translate import frames
from byway.functions.translate.refused import Refused
from byway.functions.translate.unit import Unit
from byway.functions.translate.values import NONE, UNKNOWN, Value, whole, widened
from byway.nf.events import Event, bytes_of
from byway.nf.keys import BITS

_KERNELS = "byway.functions.event_kernels"


def emit(unit: Unit, node: ast.Call, name: str, holder: Value, event: Event) -> Value:
    """self.event.emit(field=value, ...): a slot is asked for, filled and given away."""
    if name != "emit":
        raise Refused(node, f"an event has no {name}()", "write emit(field=value, ...)")
    if node.args:
        raise Refused(node, "a field without its name", "write emit(field=value, ...)")
    for keyword in node.keywords:
        if keyword.arg not in event.fields:
            raise Refused(node, f"{holder.name} has no field {keyword.arg}",
                          f"it has {', '.join(event.fields)}")
    values = unit.in_order([each.value for each in node.keywords])
    if any(each.kind == "unknown" for each in values):
        return UNKNOWN
    given = {str(each.arg): value for each, value in zip(node.keywords, values, strict=True)}
    unit.world.flags.add(does.TIMED)
    event_at, at = unit.temp(), unit.temp()
    unit.emit(f"{event_at} = {holder.code}")
    unit.emit(f"{at} = {unit.use(_KERNELS, 'event_begin')}({event_at}, now)")
    for field, offset in event_fields(event.fields).items():
        _fill(unit, node, event.fields[field], f"{at} + {offset}", f"{at} + {offset + 8}",
              given.get(field), field)
    unit.emit(f"{unit.use(_KERNELS, 'event_end')}({event_at}, {at})")
    return NONE


def _fill(unit: Unit, node: ast.Call, kind: str, at: str, behind: str, value: Value | None,
          field: str) -> None:
    """The lines that fill a field of a slot."""
    store = unit.use("byway.machine.mem", "st64")
    if value is None:
        unit.emit(f"{store}({at}, 0)")
        if kind == "ipv6":
            unit.emit(f"{store}({behind}, 0)")
    elif most := bytes_of(kind):
        if value.kind == "payload":
            begin, length = frames.payload_place(unit)
            extent = f"{begin}, {begin} + {length}"
        elif value.kind == "view" and value.name == "frame":
            extent = f"0, {frames.length(unit)}"
        else:
            raise Refused(node, f"{field} is {value.shown}", "give frame or frame.payload: its "
                          "first bytes are taken")
        unit.emit(f"{unit.use(_KERNELS, 'event_bytes')}({at}, {most}, row, {extent})")
    elif kind == "ipv6":
        value = widened(value, node, field)
        unit.emit(f"{store}({at}, {value.high})")
        unit.emit(f"{store}({behind}, {value.code})")
    else:
        code = whole(value, node, field).code
        bits = BITS[kind]
        unit.emit(f"{store}({at}, {code if bits == 64 else f'({code} & {(1 << bits) - 1})'})")
