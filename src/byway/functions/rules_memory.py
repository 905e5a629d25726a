# SPDX-License-Identifier: Apache-2.0
"""The memory of nf.Rules and nf.Maglev: what control puts in.

Used by states.py. Uses built_memory.py, rules_build.py, nf.rules and nf.maglev.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from byway.functions.built_memory import BuiltAnew
from byway.functions.maglev_kernels import MAGLEV
from byway.functions.rules_build import Built
from byway.functions.rules_kernels import RULES
from byway.functions.state_memory import WORD, Surroundings
from byway.machine.layout import address_of, alloc
from byway.nf.maglev import Member, places, read_number
from byway.nf.rules import Rule, read_place


class RulesMemory(BuiltAnew):
    """A list of rules by place, and what finds the first one that matches a frame."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self._counted: dict[int, int] = {}  # by those who were looked up before
        self._numbers: dict[int, int] = {}  # in what was built, by place
        self._built = Built([])
        self.record = alloc(RULES, 1, 64)
        self.address = address_of(self.record)

    def _read(self, key: Any, value: Any) -> tuple[int, Rule]:
        return read_place(key), Rule.given(value, self.spec["values"])

    def _part(self, key: Any) -> int:
        return read_place(key)

    @staticmethod
    def _takes(n: int) -> int:
        return n * (12_000 + 2 * n)

    def _build(self, parts: Mapping[int, Rule]) -> Built:
        return Built(list(parts.values()))

    def _place(self, parts: Mapping[int, Rule], built: Built) -> None:
        """Those that stay keep their counts."""
        stay = [place for place, rule in parts.items() if self.parts.get(place) is rule]
        numbers = {place: number for number, place in enumerate(parts)}
        self.store(self.address, np.array(built.addresses, WORD))
        # No worker counts in the old entries any more.
        self._counted = {place: self._hits(place) for place in stay}
        self._built, self._numbers = built, numbers

    def _hits(self, place: int) -> int:
        """How often a rule was the first that matched."""
        return int(self._built.entries["hits"][self._numbers[place]]) + self._counted.get(place, 0)

    def _shown(self, key: int, part: Rule) -> dict[str, Any]:
        """A rule as users write it, with how often it was the first that matched."""
        hits = self._hits(key) if self.parts.get(key) is part else 0  # (it may have gone just now)
        return {"key": key, "value": {**part.shown(self.spec["values"]), "hits": hits}}

    def stats(self) -> dict[str, int]:
        """entries, capacity; asked: frames that were held against the rules; unmatched: those that
        no rule matched."""
        row = self.record[0]
        return {"entries": len(self.parts), "capacity": self.spec["capacity"],
                "asked": int(row["asked"]), "unmatched": int(row["unmatched"])}


class MaglevMemory(BuiltAnew):
    """Members by number, and which of them has each place of the table."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self._places = np.zeros(spec["size"], np.uint32)
        self.record = alloc(MAGLEV, 1, 64)
        self.record["size"], self.record["places"] = spec["size"], address_of(self._places)
        self.address = address_of(self.record)

    def _read(self, key: Any, value: Any) -> tuple[int, Member]:
        return read_number(key), Member.given(value)

    def _part(self, key: Any) -> int:
        return read_number(key)

    @staticmethod
    def _takes(n: int) -> int:
        return n * 1000

    def _build(self, parts: Mapping[int, Member]) -> Any:
        wanted = np.array(places(self.spec["size"], parts), np.int64) + 1
        return wanted.astype(np.uint32)

    def _place(self, parts: Mapping[int, Member], built: Any) -> None:
        self.store(self.address, np.array([address_of(built)], WORD))
        self._places = built

    def _shown(self, key: int, part: Member) -> dict[str, Any]:
        return {"key": key, "value": part.shown()}

    def stats(self) -> dict[str, int]:
        """entries, capacity; up: members that can be chosen."""
        return {"entries": len(self.parts), "capacity": self.spec["capacity"],
                "up": sum(member.up for member in self.parts.values())}
