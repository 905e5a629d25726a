# SPDX-License-Identifier: Apache-2.0
"""The kinds of state: which kernels their methods are, and what memory they have.

Used by translate (KINDS), memory.py and control (make). Uses the kernels and the memory of each
kind, and nf, which says what they mean.

How a method is called: kernel(state, [now], [shape], [hash], *arguments), where ``state`` is the
address of its memory, now the time (where ``timed``), shape a constant of the declaration (where
``shaped``). A key is stored before, packed (nf.keys.pack), from state + KEY on, and its hash is
map_kernels.hash_of(state, shape); a flow in it by put_flow(state, word, row, frame). A record is an
address from which its fields are counted (map_rows.offsets, field_bytes); state + SPARE: there is
none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from byway.functions import map_methods as m
from byway.functions import states_kernels as k
from byway.functions.event_memory import EventMemory
from byway.functions.maglev_kernels import maglev_pick
from byway.functions.map_kernels import KEY, SPARE
from byway.functions.map_memory import MapMemory, shape_of
from byway.functions.rules_kernels import rules_match
from byway.functions.rules_memory import MaglevMemory, RulesMemory
from byway.functions.state_memory import StateMemory, Surroundings
from byway.functions.table_memory import (
    ArrayMemory,
    BucketMemory,
    BucketsMemory,
    CounterMemory,
    LpmMemory,
    buckets_shape,
)
from byway.nf.events import Event
from byway.nf.keys import BITS
from byway.nf.maglev import Maglev
from byway.nf.maps import Buckets, Lpm, Map
from byway.nf.rules import Rules
from byway.nf.states import Array, Bucket, Counter


@dataclass(frozen=True)
class Method:
    """``key``: does the author give a key first? ``arguments``: the names of the others, with
    ``defaults``; ``wide``: those that are wide (two words); ``frame``: is the first one a frame or
    a view (row, frame)? ``result``: "number", "truth", "record" or "" for nothing."""

    kernel: Any
    key: bool = False
    arguments: tuple[str, ...] = ()
    defaults: Mapping[str, int] = field(default_factory=dict)
    timed: bool = False
    shaped: bool = False
    result: str = "number"
    wide: tuple[str, ...] = ()
    frame: bool = False


@dataclass(frozen=True)
class StateKind:
    """``shape``, ``methods``: of a declared state. Methods: by the name that authors call them;
    ``key in map`` is "__contains__", reading and writing array[i] (i was checked) "__getitem__" and
    "__setitem__"."""

    memory: Callable[[Mapping[str, Any], Surroundings], StateMemory]
    methods: Callable[[Any], Mapping[str, Method]]
    shape: Callable[[Any], int] = lambda state: 0


_HAS = Method(m.map_has, key=True, timed=True, shaped=True, result="truth")
_NUMBERS = {
    "get": Method(m.map_get, key=True, arguments=("default",), defaults={"default": 0}, timed=True,
                  shaped=True),
    "set": Method(m.map_set, key=True, arguments=("value",), timed=True, shaped=True,
                  result="truth"),
    "add": Method(m.map_add, key=True, arguments=("n",), defaults={"n": 1}, timed=True,
                  shaped=True),
    "delete": Method(m.map_delete, key=True, timed=True, shaped=True, result="truth"),
    "__contains__": _HAS,
}
_RECORDS = {
    "find": Method(m.map_find, key=True, timed=True, shaped=True, result="record"),
    "peek": Method(m.map_peek, key=True, timed=True, shaped=True, result="record"),
    "make": Method(m.map_make, key=True, timed=True, shaped=True, result="record"),
    "delete": Method(m.map_bury, key=True, timed=True, shaped=True, result="truth"),
    "__contains__": _HAS,
}
_TAKE = ("n", "rate", "burst")


def _lpm_methods(state: Lpm) -> Mapping[str, Method]:
    wide = state.key == "ipv6"
    return {"lookup": Method(k.lpm_get6 if wide else k.lpm_get4, arguments=("ip", "default"),
                             defaults={"default": -1}, wide=("ip",) if wide else ())}


KINDS: dict[type, StateKind] = {
    Counter: StateKind(CounterMemory, lambda state: {
        "add": Method(k.counter_add, arguments=("n",), defaults={"n": 1}, result="")}),
    Array: StateKind(ArrayMemory, lambda state: {
        "__getitem__": Method(k.array_get, arguments=("index",)),
        "__setitem__": Method(k.array_set, arguments=("index", "value"), shaped=True, result=""),
    }, shape=lambda state: BITS[state.type]),
    Map: StateKind(MapMemory, lambda state: _NUMBERS if state.is_word else _RECORDS,
                   shape=lambda state: shape_of(state.spec())),
    Bucket: StateKind(BucketMemory, lambda state: {
        "take": Method(k.bucket_take, arguments=_TAKE, timed=True, result="truth")}),
    Buckets: StateKind(BucketsMemory, lambda state: {
        "take": Method(k.buckets_take, key=True, arguments=_TAKE, timed=True, shaped=True,
                       result="truth")}, shape=lambda state: buckets_shape(state.spec())),
    Lpm: StateKind(LpmMemory, _lpm_methods),
    Rules: StateKind(RulesMemory, lambda state: {
        "match": Method(rules_match, arguments=("frame", "default"), defaults={"default": 0},
                        frame=True)}),
    Maglev: StateKind(MaglevMemory, lambda state: {
        "pick": Method(maglev_pick, arguments=("hash", "default"), defaults={"default": -1})}),
    Event: StateKind(EventMemory, lambda state: {}),  # emit: event_kernels.py
}


def _no_clock() -> int:
    raise RuntimeError("entries of this state age: it needs the clock of the chain")


def make(spec: Mapping[str, Any], lock: int, parameter: Callable[[str], int],
         clock: Callable[[], int] = _no_clock) -> StateMemory:
    """The memory of a state that is described so (spec() of its nf class), empty. ``lock``: address
    of the instance's lock; ``parameter``: name -> address of its word; ``clock``: nanoseconds as
    the chain counts them."""
    for declared, kind in KINDS.items():
        if declared.kind == spec["kind"]:  # type: ignore[attr-defined]
            return kind.memory(spec, Surroundings(lock, parameter, clock))
    raise ValueError(f"{spec['kind']}: no kind of state")


__all__ = ["KEY", "KINDS", "SPARE", "Method", "StateKind", "StateMemory", "make"]
