# SPDX-License-Identifier: Apache-2.0
"""The memory of nf.Rules and nf.Maglev: what control puts in, built anew as a whole at each change.

Used by states.py. Uses rules_build.py, nf.rules and nf.maglev.

What workers look up never changes; a change puts another in its place while the instance's lock is
held, so the old one is let go of at once.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from byway.functions.maglev_kernels import MAGLEV
from byway.functions.rules_build import Built
from byway.functions.rules_kernels import RULES
from byway.functions.state_memory import WORD, StateMemory, Surroundings
from byway.machine.layout import address_of, alloc
from byway.nf.maglev import Member, places, read_number
from byway.nf.rules import Rule, read_place


class _BuiltAnew(StateMemory):
    """Parts by number, read and replaced as a whole."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self._parts: dict[int, Any] = {}

    def _read(self, key: Any, value: Any) -> tuple[int, Any]:
        """A row as its user wrote it: its number, and the part."""
        raise NotImplementedError

    def _number(self, key: Any) -> int:
        """A row's number."""
        raise NotImplementedError

    def _replace(self, parts: Mapping[int, Any]) -> None:
        """Have these looked up from now on."""
        raise NotImplementedError

    def put_all(self, rows: Mapping[Any, Any]) -> list[Any]:
        wanted, refused = dict(self._parts), []
        for key, value in rows.items():
            number, part = self._read(key, value)
            if number in wanted or len(wanted) < self.spec["capacity"]:
                wanted[number] = part
            else:
                refused.append(key)
        if not refused:
            self._replace(wanted)
        return refused

    def remove(self, key: Any) -> bool:
        number = self._number(key)
        if number not in self._parts:
            return False
        self._replace({at: part for at, part in self._parts.items() if at != number})
        return True

    def clear(self) -> None:
        self._replace({})

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        read = dict(self._read(key, value) for key, value in rows.items())
        if len(read) > self.spec["capacity"]:
            return False
        self._replace(read)
        return True


class RulesMemory(_BuiltAnew):
    """A list of rules by place, and what finds the first one that matches a frame."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self._counted: dict[int, int] = {}  # by those who were looked up before
        self._built = Built([])
        self.record = alloc(RULES, 1, 64)
        self.address = address_of(self.record)

    def _read(self, key: Any, value: Any) -> tuple[int, Rule]:
        return read_place(key), Rule.given(value, self.spec["values"])

    def _number(self, key: Any) -> int:
        return read_place(key)

    def _replace(self, parts: Mapping[int, Rule]) -> None:
        """Have these rules looked up from now on. Those that stay keep their counts."""
        wanted = dict(sorted(parts.items()))
        built = Built(list(wanted.values()))
        self.store(self.address, np.array(built.addresses, WORD))
        # No worker counts in the old entries any more.
        hits = self._hits()
        self._counted = {place: hits[place] for place, rule in wanted.items()
                         if self._parts.get(place) is rule}
        self._built, self._parts = built, wanted

    def _hits(self) -> dict[int, int]:
        """How often each rule was the first that matched, by its place."""
        here = self._built.entries["hits"].tolist()
        return {place: self._counted.get(place, 0) + hits
                for place, hits in zip(self._parts, here, strict=False)}

    def dump(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Rules by place, as users write them, with how often each was the first that matched."""
        values, hits = self.spec["values"], self._hits()
        return [{"key": place, "value": {**rule.shown(values), "hits": hits[place]}}
                for place, rule in list(self._parts.items())[:limit]]

    def stats(self) -> dict[str, int]:
        """entries, capacity; asked: frames that were held against the rules; unmatched: those that
        no rule matched."""
        row = self.record[0]
        return {"entries": len(self._parts), "capacity": self.spec["capacity"],
                "asked": int(row["asked"]), "unmatched": int(row["unmatched"])}


class MaglevMemory(_BuiltAnew):
    """Members by number, and which of them has each place of the table."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self._places = np.zeros(spec["size"], np.uint32)
        self.record = alloc(MAGLEV, 1, 64)
        self.record["size"], self.record["places"] = spec["size"], address_of(self._places)
        self.address = address_of(self.record)

    def _read(self, key: Any, value: Any) -> tuple[int, Member]:
        return read_number(key), Member.given(value)

    def _number(self, key: Any) -> int:
        return read_number(key)

    def _replace(self, parts: Mapping[int, Member]) -> None:
        wanted = np.array(places(self.spec["size"], parts), np.int64) + 1
        made = wanted.astype(np.uint32)
        self.store(self.address, np.array([address_of(made)], WORD))
        self._places, self._parts = made, dict(sorted(parts.items()))

    def dump(self, limit: int = 1000) -> list[dict[str, Any]]:
        return [{"key": number, "value": member.shown()}
                for number, member in self._parts.items()][:limit]

    def stats(self) -> dict[str, int]:
        """entries, capacity; up: members that can be chosen."""
        return {"entries": len(self._parts), "capacity": self.spec["capacity"],
                "up": sum(member.up for member in self._parts.values())}
