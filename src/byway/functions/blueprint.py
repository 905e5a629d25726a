# SPDX-License-Identifier: Apache-2.0
"""A function as passive data: all that is needed to make instances of it and to put it in a chain.

Made by the build process from an author's class (translate), which is the only one to import the
author's file; goes to the switch as JSON. Used by compose (the source of a chain), instance memory
and control. Uses nf, for the kinds of parameters and states.

``sources``: for each method of the chain ("process", "rx", "tx"), Python source of the kernels that
it became, the one that a chain calls last. ``digest``: of all that makes its code what it is: two
blueprints with one digest have the same code. ``flags``: what its code does (the constants here).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from byway.functions.instance import FIRST, place

# What a function does, so that a chain does for it what it needs and nothing else.
STATEFUL = "state"  # it has state: no two workers may run it at once
TIMED = "time"  # it asks for the time
SETTLES = "settles"  # it may send a frame somewhere itself (REDIRECT, REPLY)
COPIES = "copies"  # it may send copies (MIRROR, CLONE)
WRITES = "writes"  # it may change the frame
RESHAPES = "reshapes"  # headers may move: the frame is parsed again behind it
FAULTY = "faults"  # something in it may go wrong
LOOPS = "loops"  # its loops and calls take from the work budget


@dataclass(frozen=True)
class Method:
    """What a chain calls. ``name``: of the kernel in ``source``; ``flags``: what it does.
    ``ahead``: of the kernel that asks its maps before a whole batch ("": none does; else the first
    one takes what that has found as its last argument)."""

    name: str
    source: str
    flags: frozenset[str] = frozenset()
    ahead: str = ""


@dataclass(frozen=True)
class Blueprint:
    """One function. ``parameters``: as nf.parameters has them, by name, in their order, each with
    its ``words``; ``states``: the JSON of each state's description (nf.states), by name."""

    use: str
    name: str
    doc: str
    digest: str
    parameters: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    states: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    budget: int = 1000
    methods: Mapping[str, Method] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # path: digest of what was read there
    sources: tuple[str, ...] = ()  # files of what it calls, by the number in a fault's word
    listener: bool = False

    @property
    def words(self) -> int:
        """How many words an instance's record has."""
        return self._word_of_reasons + len(self.reasons)

    @property
    def has_long_parameters(self) -> bool:
        """Is there one of several words?"""
        return any(int(one["words"]) > 1 for one in self.parameters.values())

    @property
    def _word_of_states(self) -> int:
        return FIRST + sum(int(one["words"]) for one in self.parameters.values())

    @property
    def _word_of_reasons(self) -> int:
        return self._word_of_states + len(self.states)

    def place(self, name: str) -> int:
        """Bytes from an instance's beginning to a parameter (wide ones: its high word), or to the
        address of a state. KeyError: the function has none of that name."""
        word = FIRST
        for parameter, described in self.parameters.items():
            if parameter == name:
                return place(word)
            word += int(described["words"])
        if name not in self.states:
            raise KeyError(name)
        return place(self._word_of_states + list(self.states).index(name))

    @property
    def place_of_reasons(self) -> int:
        """Bytes from an instance's beginning to the counter of its first drop reason."""
        return place(self._word_of_reasons)

    def method(self, direction: str) -> Method | None:
        """What a chain of this direction ("rx", "tx") calls; None: nothing."""
        return self.methods.get(direction) or self.methods.get("process")

    def takes_part(self, direction: str, own: bool = False) -> bool:
        """Has it anything to do in a chain of this direction? ``own``: only a method that is of the
        direction alone counts, as where frames come back through a chain."""
        return direction in self.methods or (not own and "process" in self.methods)

    def to_json(self) -> str:
        """As text, for another process."""
        data = asdict(self)
        for method in data["methods"].values():
            method["flags"] = sorted(method["flags"])
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The blueprint that ``to_json`` wrote."""
        data = json.loads(text)
        data["reasons"], data["sources"] = tuple(data["reasons"]), tuple(data["sources"])
        data["methods"] = {name: Method(**{**one, "flags": frozenset(one["flags"])})
                           for name, one in data["methods"].items()}
        return cls(**data)
