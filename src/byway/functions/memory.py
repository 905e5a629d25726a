# SPDX-License-Identifier: Apache-2.0
"""Instances of functions and chains of them, as memory that workers use.

Used by control (functions) and harness.py. Uses blueprints, states, compose and code.

State outlives the code that uses it: when a function is built anew, the new instance takes over the
states that are described as before, and their lock (``carry``), while workers still go on with the
old one; what that one has counted is added when no worker can be in it any more (``add_counts``). A
chain never changes: another one is made.

The lock is held while a batch is in a chain that the instance is in, and while control changes a
table or parameters; so state is never used by two at once. A function without state is not locked,
but where a parameter has several words (of which it could see some old, some new).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from byway.functions import blueprint as does
from byway.functions.apply import add_word
from byway.functions.blueprint import Blueprint
from byway.functions.code import native
from byway.functions.compose import Composed, Direction, compose
from byway.functions.instance import FAULTS, FILE_MASK, FIRST, LINE_BITS, LINE_MASK, I, place
from byway.functions.map_control import copy_words
from byway.functions.state_memory import StateMemory, TooLargeError
from byway.functions.states import make
from byway.functions.trace import Trace
from byway.machine.clock import tsc
from byway.machine.dual import signed
from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.nf.parameters import Parameter, from_description, values
from byway.nf.problem import ParameterError
from byway.switch.chain import CHAIN, SCALE_SHIFT

_WORD = np.dtype("<i8")
_NANOSECONDS = 1_000_000_000
NO_MEMORY = "the machine has no memory for it; declare a smaller one"


class Instance:
    """A function at work. ``given``: parameters as their user gave them; ``number``: the number of
    a port by its name, -1 where there is none; ``clock``: nanoseconds, as its chains count them
    (clock_of). Raises ParameterError, also where there is no memory for a state."""

    def __init__(self, blueprint: Blueprint, given: Mapping[str, Any] | None = None,
                 number: Callable[[str], int] = lambda name: -1,
                 clock: Callable[[], int] = lambda: 0) -> None:
        self.blueprint = blueprint
        self.name = ""  # what control calls it, or called it last
        self.heir: Instance | None = None  # newer code of it, which has its name
        self._number = number
        self._parameters: dict[str, Parameter] = {
            name: from_description(name, one) for name, one in blueprint.parameters.items()}
        self.given: dict[str, Any] = {}
        self._values = values(self._parameters.values(), dict(given or {}))
        self.record = alloc(_WORD, max(blueprint.words, FIRST), CACHE_LINE)
        self.address = address_of(self.record)
        self._put(I.random, int.from_bytes(os.urandom(8), "little") | 1)
        self.given.update(given or {})
        self.lock = alloc(_WORD, 1, CACHE_LINE)
        self.renumber()
        self.states: dict[str, StateMemory] = {}
        for name, spec in blueprint.states.items():
            self._place_state(name, self._made(name, spec, clock))

    def _made(self, name: str, spec: Mapping[str, Any], clock: Callable[[], int]) -> StateMemory:
        try:
            return make(spec, address_of(self.lock), self._parameter_at, clock)
        except (TooLargeError, MemoryError) as error:
            for state in self.states.values():
                state.close()
            said = error if isinstance(error, TooLargeError) else NO_MEMORY
            raise ParameterError(f"{name}: {said}") from None

    def _parameter_at(self, name: str) -> int:
        return self.address + self.blueprint.place(name)

    def _place_state(self, name: str, state: StateMemory) -> None:
        self.states[name] = state
        self._put(self.blueprint.place(name), state.address)

    def _put(self, offset: int, word: int) -> None:
        self.record[offset // 8] = signed(word)

    def _get(self, offset: int) -> int:
        return int(self.record[offset // 8])

    # ------------------------------------------------------------ parameters
    def set(self, given: Mapping[str, Any]) -> None:
        """Other values of some parameters, from the next frame on. ParameterError: none is taken.
        """
        merged = {**self.given, **given}
        self._values = values(self._parameters.values(), merged)
        self.given = merged
        self.renumber()

    def renumber(self) -> None:
        """Store all parameters; those that name ports as the numbers that these have now. Who holds
        the lock sees them change all at once."""
        words = [signed(word) for name, parameter in self._parameters.items()
                 for word in parameter.words(self._values[name], self._number)]
        if words:
            made = np.array(words, _WORD)
            copy_words(address_of(self.lock), self.address + place(FIRST), address_of(made),
                       len(made))

    @property
    def parameters(self) -> dict[str, Any]:
        """All of them, as users write them."""
        return {name: one.shown(self._values[name]) for name, one in self._parameters.items()}

    # ------------------------------------------------------------ life
    def carry(self, old: "Instance") -> None:
        """Take over the states of an instance whose place this one takes, where they are described
        as they were, and the lock. No worker knows this one yet; they may be using the old one."""
        self.lock = old.lock
        for name, state in old.states.items():
            if name in self.states and self.blueprint.states[name] == old.blueprint.states[name]:
                self.states[name].close()
                self._place_state(name, state)
        for state in self.states.values():
            state.bind(address_of(self.lock), self._parameter_at)

    def add_counts(self, old: "Instance") -> None:
        """Add what an instance has counted whose place this one took. No worker uses it any more,
        but they do use this one."""
        for offset in (I.seen, I.faults, I.lost):
            add_word(self.address + offset, old._get(offset))
        if self._get(I.last_fault) == 0:
            self._put(I.last_fault, old._get(I.last_fault))
        drops = old.drops
        for k, reason in enumerate(self.blueprint.reasons):
            add_word(self.address + self.blueprint.place_of_reasons + 8 * k, drops.get(reason, 0))

    # ------------------------------------------------------------ what happened
    @property
    def drops(self) -> dict[str, int]:
        """Frames that it dropped, by reason; reasons that did not happen as well."""
        first = self.blueprint.place_of_reasons
        return {reason: self._get(first + 8 * k)
                for k, reason in enumerate(self.blueprint.reasons)}

    @property
    def counters(self) -> dict[str, Any]:
        """frames: that came to it; drops, by reason; faults, and what the last one was; copies that
        were lost."""
        return {"frames": self._get(I.seen), "drops": self.drops, "faults": self._get(I.faults),
                "last_fault": self.last_fault, "copies_lost": self._get(I.lost)}

    @property
    def last_fault(self) -> str | None:
        """What went wrong the last time, and in which line."""
        if self._get(I.last_fault) == 0:
            return None
        what, file, line = self.fault_of(self._get(I.last_fault))
        return f"{file}:{line}: {what}" if line else what

    def fault_of(self, word: int) -> tuple[str, str, int]:
        """What a fault's word says: what went wrong, in which file and line (0: not known)."""
        number, line = word >> LINE_BITS & FILE_MASK, word & LINE_MASK
        file = self.blueprint.sources[number] if number < len(self.blueprint.sources) else ""
        return FAULTS[word >> 32], file, line


class Chain:
    """Instances one after the other, as a worker reaches them. ``hz``: ticks of the time stamp
    counter a second; ``trace``: where the chain is to note what it does with frames."""

    def __init__(self, instances: Sequence[Instance], direction: Direction, hz: float,
                 trace: Trace | None = None) -> None:
        self.instances = tuple(instances)
        self.trace = trace
        self.composed: Composed = compose(
            [one.blueprint for one in instances], direction, traced=trace is not None)
        self._code = native(self.composed)
        locked = {address_of(one.lock) for one in instances
                  if does.STATEFUL in _flags(one, direction) or one.blueprint.has_long_parameters}
        if trace:
            locked.add(trace.address)  # its lock is its first word
        self._addresses = np.array([one.address for one in instances] or [0], _WORD)
        self._locks = np.array(sorted(locked) or [0], _WORD)
        self.record = alloc(CHAIN, 1, CACHE_LINE)
        row = self.record[0]
        row["code"] = self._code.address
        row["instances"], row["locks"] = address_of(self._addresses), address_of(self._locks)
        row["nlocks"] = len(locked)
        row["trace"] = trace.address if trace else 0
        row["scale"] = _scale(hz)
        self.address = address_of(self.record)


def clock_of(hz: float) -> Callable[[], int]:
    """The time as chains count it, in nanoseconds. ``hz``: ticks of the time stamp counter a
    second."""
    scale = _scale(hz)
    return lambda: int(tsc()) * scale >> SCALE_SHIFT


def _scale(hz: float) -> int:
    return round(_NANOSECONDS / hz * (1 << SCALE_SHIFT))


def _flags(instance: Instance, direction: Direction) -> frozenset[str]:
    method = instance.blueprint.method(direction)
    return method.flags if method else frozenset()
