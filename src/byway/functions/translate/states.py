# SPDX-License-Identifier: Apache-2.0
"""State in the author's source: methods, keys, records, elements of arrays.

Used by expressions.py, statements.py, comparing.py and calls.py. Uses unit.py and values.py; the
table KINDS of byway.functions.states says which kernel does what.
"""

import ast
from typing import Any

from byway import nf
from byway.functions import blueprint as does
from byway.functions.instance import INDEX
from byway.functions.map_kernels import hash_of
from byway.functions.map_methods import next_frame
from byway.functions.map_rows import field_bytes, offsets
from byway.functions.states import KEY, KINDS, SPARE, Method
from byway.functions.translate import events
from byway.functions.translate.refused import Refused
from byway.functions.translate.unit import Unit
from byway.functions.translate.values import NONE, UNKNOWN, Value, condition, whole, widened
from byway.nf.keys import BITS, Packing

_MEM = "byway.machine.mem"


def named(unit: Unit, kernel: Any) -> str:
    """A kernel as the generated source calls it."""
    function = getattr(kernel, "py_func", kernel)
    return unit.use(function.__module__, function.__name__)


def _state(unit: Unit, holder: Value) -> Any:
    return unit.world.definition.states[holder.name]


# ---------------------------------------------------------------- methods
def call(unit: Unit, node: ast.Call, name: str, holder: Value) -> Value:
    """self.state.name(...)."""
    state = _state(unit, holder)
    if isinstance(state, nf.Event):
        return events.emit(unit, node, name, holder, state)
    methods = KINDS[type(state)].methods(state)
    method = methods.get(name)
    if method is None or name.startswith("__"):
        known = ", ".join(each for each in methods if not each.startswith("__"))
        shown = type(state).__name__
        if isinstance(state, nf.Map):
            shown += " of numbers" if state.is_word else " of records"
        raise Refused(node, f"an nf.{shown} has no {name}()",
                      f"it has {known}" if known else f"write self.{holder.name}[place]")
    unit.world.called.add((holder.name, name))
    return _called(unit, node, state, method, holder)


def begin(unit: Unit) -> None:
    """Add the first lines of an entry: no record that it deletes becomes another one while it is at
    work."""
    called = unit.world.called
    for name, state in unit.world.definition.states.items():
        if isinstance(state, nf.Map) and not state.is_word and {
                (name, "delete"), (name, "make")} <= called:
            unit.emit(f"{named(unit, next_frame)}({unit.world.state_address(unit, name)})")


def _called(unit: Unit, node: ast.Call, state: Any, method: Method, holder: Value) -> Value:
    names = (["key"] if method.key else []) + list(method.arguments)
    given = dict(zip(names, node.args, strict=False))
    for keyword in node.keywords:
        if keyword.arg not in names or keyword.arg in given:
            raise Refused(node, f"there is no argument {keyword.arg}", f"give {', '.join(names)}")
        given[str(keyword.arg)] = keyword.value
    missing = [name for name in names if name not in given and name not in method.defaults]
    if missing or len(node.args) > len(names):
        raise Refused(node, f"{len(node.args) + len(node.keywords)} arguments",
                      f"give {', '.join(names) or 'none'}")
    parts = _parts(node, state, given.pop("key")) if method.key else []
    values = unit.in_order([*parts, *given.values()])
    if any(each.kind == "unknown" for each in values):
        return UNKNOWN
    arguments = dict(zip(given, values[len(parts):], strict=True))
    words: list[str] = []
    for name in method.arguments:
        if name not in arguments:
            words.append(str(method.defaults[name]))
        elif method.frame and name == method.arguments[0]:
            if arguments[name].kind != "view":
                raise Refused(node, f"{arguments[name].shown} as {name}", "give it the frame")
            words += ["row", arguments[name].code]
        elif name in method.wide:
            value = widened(arguments[name], node, name)
            words += [value.high, value.code]
        else:
            words.append(whole(arguments[name], node, name).code)
    if method.key:
        return _keyed(unit, node, state, method, holder, values[:len(parts)], words)
    return _result(unit, state, method, holder, words)


def _result(unit: Unit, state: Any, method: Method, holder: Value, words: list[str]) -> Value:
    """The line that calls a method's kernel, and what it gives."""
    given = [holder.code]
    if method.timed:
        unit.world.flags.add(does.TIMED)
        given.append("now")
    if method.shaped:
        given.append(str(KINDS[type(state)].shape(state)))
    if method.key:
        given.append(f"{named(unit, hash_of)}({holder.code}, {given[-1]})")
    code = f"{named(unit, method.kernel)}({', '.join([*given, *words])})"
    if not method.result:
        unit.emit(code)
        return NONE
    made = unit.temp()
    unit.emit(f"{made} = int({code})" if method.result == "truth" else f"{made} = {code}")
    if method.result == "record":
        return Value("record", made, name=holder.name)
    return Value("number", made, truth=method.result == "truth")


def has(unit: Unit, node: ast.Compare, holder: Value, key: ast.expr) -> Value:
    """key in self.state."""
    state = _state(unit, holder)
    method = KINDS[type(state)].methods(state).get("__contains__")
    if method is None:
        raise Refused(node, f"in {type(state).__name__}", "only maps have keys")
    values = unit.in_order(_parts(node, state, key))
    if any(each.kind == "unknown" for each in values):
        return condition("False")
    return _keyed(unit, node, state, method, holder, values, [])


# ---------------------------------------------------------------- keys
def _parts(node: ast.AST, state: Any, key: ast.expr) -> list[ast.expr]:
    """The expressions of a key's parts."""
    parts = list(key.elts) if isinstance(key, ast.Tuple) else [key]
    types = state.key_types
    if len(parts) != len(types):
        raise Refused(key, f"a key of {len(parts)} parts",
                      f"the state was declared with {', '.join(types)}")
    return parts


def _keyed(unit: Unit, node: ast.AST, state: Any, method: Method, holder: Value,
           values: list[Value], words: list[str]) -> Value:
    """The lines that put a key where the kernel expects it, and call it."""
    packing: Packing = state.packing
    terms: dict[int, list[str]] = {}
    flows: list[int] = []
    for kind, places, value in zip(packing.types, packing.places, values, strict=True):
        if kind == "flow":
            if value.kind != "flow":
                raise Refused(node, f"{value.shown} as a flow of a key", "write frame.flow")
            flows.append(places[0].word)
            continue
        if value.kind == "flow":
            raise Refused(node, f"a flow as {kind} of a key", "write a number or an address")
        if kind == "ipv6":
            value = widened(value, node, "the key's address")
            halves = [value.high, value.code]
        else:
            halves = [whole(value, node, "a part of the key").code]
        for place, code in zip(places, halves, strict=True):
            if place.bits < 64:
                code = f"({code} & {(1 << place.bits) - 1})"
                if place.shift:
                    code = f"({code} << {place.shift})"
            terms.setdefault(place.word, []).append(code)
    at = unit.temp()
    unit.emit(f"{at} = {holder.code}")
    store = unit.use(_MEM, "st64")
    for word, codes in terms.items():
        unit.emit(f"{store}({at} + {KEY + 8 * word}, {' | '.join(codes)})")
    for word in flows:
        put = unit.use("byway.functions.states_kernels", "put_flow")
        unit.emit(f"{put}({at}, {word}, row, frame)")
    return _result(unit, state, method, Value("state", at, name=holder.name), words)


# ---------------------------------------------------------------- records
def there(unit: Unit, record: Value) -> str:
    """Is there such a record? (Whoever finds none has the spare one.)"""
    return f"({record.code} != {unit.world.state_address(unit, record.name)} + {SPARE})"


def _field(unit: Unit, node: ast.Attribute, record: Value) -> tuple[int, str]:
    """-> bytes from the record's beginning to a field, the field's type."""
    fields: dict[str, str] = _state(unit, record).fields
    if node.attr not in fields:
        raise Refused(node, f"a record of {record.name} has no {node.attr}",
                      f"it has {', '.join(fields)}")
    return offsets(fields)[node.attr], fields[node.attr]


def read_field(unit: Unit, node: ast.Attribute, record: Value) -> Value:
    """record.name."""
    at, kind = _field(unit, node, record)
    if kind == "ipv6":
        load = unit.use(_MEM, "ld64")
        return Value("wide", f"{load}({record.code} + {at + 8})", f"{load}({record.code} + {at})")
    load = unit.use(_MEM, f"ld{8 * field_bytes(kind)}")
    return Value("number", f"{load}({record.code} + {at})")


def write_field(unit: Unit, node: ast.Attribute, record: Value, value: Value) -> None:
    """record.name = value."""
    at, kind = _field(unit, node, record)
    if value.kind == "unknown":
        return
    if kind == "ipv6":
        store = unit.use(_MEM, "st64")
        value = widened(value, node, node.attr)
        value = unit.settle(value)
        unit.emit(f"{store}({record.code} + {at}, {value.high})")
        unit.emit(f"{store}({record.code} + {at + 8}, {value.code})")
        return
    store = unit.use(_MEM, f"st{8 * field_bytes(kind)}")
    unit.emit(f"{store}({record.code} + {at}, {_cut(whole(value, node, node.attr), kind)})")


def _cut(value: Value, kind: str) -> str:
    """A number as a field of a type keeps it."""
    bits = BITS[kind]
    if bits == 64:
        return value.code
    if value.constant is not None:
        return str(value.constant & (1 << bits) - 1)
    return f"({value.code} & {(1 << bits) - 1})"


# ---------------------------------------------------------------- arrays
def _array(unit: Unit, node: ast.AST, holder: Value, index: Value) -> Any:
    """The array that a subscript is of; adds the lines for a place that there is not."""
    if holder.kind == "tuple":
        raise Refused(node, "a tuple's element", "keep the numbers in an nf.Array")
    state = _state(unit, holder) if holder.kind == "state" else None
    if not isinstance(state, nf.Array):
        raise Refused(node, f"[...] of {holder.shown}",
                      "only an nf.Array has places; a map has get, set, find, make")
    if index.constant is not None:
        if not 0 <= index.constant < state.size:
            raise Refused(node, f"place {index.constant} of an array of {state.size}",
                          f"write a place from 0 to {state.size - 1}")
    else:
        with unit.block(f"if {index.code} < 0 or {index.code} >= {state.size}:"):
            unit.fault(node, INDEX)
    return state


def read_element(unit: Unit, node: ast.expr, holder: Value, index: Value) -> Value:
    """self.array[index]."""
    if "unknown" in (holder.kind, index.kind):
        return UNKNOWN
    _array(unit, node, holder, index)
    return Value("number", f"{unit.use(_MEM, 'ld64')}({holder.code} + 8 * {index.code})")


def write_element(unit: Unit, node: ast.expr, holder: Value, index: Value, value: Value,
                  checked: bool = False) -> None:
    """self.array[index] = value; ``checked``: the place was read just before."""
    if "unknown" in (holder.kind, index.kind, value.kind):
        return
    value = whole(value, node, "what is put into the array")
    value = unit.settle(value)
    state = _state(unit, holder) if checked else _array(unit, node, holder, index)
    unit.emit(f"{unit.use(_MEM, 'st64')}({holder.code} + 8 * {index.code}, "
              f"{_cut(value, state.type)})")
