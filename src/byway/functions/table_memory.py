# SPDX-License-Identifier: Apache-2.0
"""The memory of counters, arrays, token buckets and prefixes.

Used by states.py. Uses states_kernels.py, map_memory.py, nf.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from byway.functions.map_memory import MapMemory, map_shape
from byway.functions.state_memory import WORD, StateMemory, Surroundings, zeros
from byway.functions.states_kernels import BUCKET_WORDS, PREFIXES, SIGN
from byway.machine.dual import signed
from byway.machine.layout import address_of, alloc
from byway.nf.keys import BITS, pack, read, show
from byway.nf.maps import read_prefix, show_prefix
from byway.nf.states import SECOND, array_rows

MOST_INDEX_BITS = 16


class CounterMemory(StateMemory):
    """One word."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self.words = alloc(WORD, 1, 64)
        self.address = address_of(self.words)

    def dump(self, limit: int = 1000) -> list[dict[str, Any]]:
        return [{"key": "value", "value": show("u64", int(self.words[0]))}][:limit]

    def put_all(self, rows: Mapping[Any, Any]) -> list[Any]:
        for key in rows:
            if key != "value":
                raise ValueError(f"a counter has no {key!r}; its one key is 'value'")
        for value in rows.values():
            self.store(self.address, np.array([read("u64", value)], WORD))
        return []

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        return not self.put_all(rows or {"value": 0})

    def remove(self, key: Any) -> bool:
        return self.put(key, 0)

    def clear(self) -> None:
        self.put("value", 0)

    def stats(self) -> dict[str, int]:
        """value: what was counted."""
        return {"value": show("u64", int(self.words[0]))}


class ArrayMemory(StateMemory):
    """A word for each place."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self.type, self.size = str(spec["value"]), int(spec["size"])
        self.words = zeros(self.size)
        self.address = address_of(self.words)

    def dump(self, limit: int = 1000) -> list[dict[str, Any]]:
        held = self.copy(self.address, self.size)
        places = np.flatnonzero(held)[:limit].tolist()
        return [{"key": place, "value": show(self.type, int(held[place]))} for place in places]

    def _rows(self, rows: Mapping[Any, Any]) -> list[tuple[int, list[int]]]:
        return [array_rows(self.type, self.size, key, value) for key, value in rows.items()]

    def put_all(self, rows: Mapping[Any, Any]) -> list[Any]:
        for first, values in self._rows(rows):
            self.store(self.address + 8 * first, np.array(values, WORD))
        return []

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        made = zeros(self.size)
        for first, values in self._rows(rows):
            made[first : first + len(values)] = values
        self.store(self.address, made)
        return True

    def remove(self, key: Any) -> bool:
        first, values = array_rows(self.type, self.size, key, 0)
        there = bool(self.words[first])
        self.store(self.address + 8 * first, np.array(values, WORD))
        return there

    def clear(self) -> None:
        self.fill({})

    def stats(self) -> dict[str, int]:
        return {"capacity": self.size, "bytes": int(self.words.nbytes)}


class BucketMemory(StateMemory):
    """What is missing, and since when."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self.words = alloc(WORD, BUCKET_WORDS, 64)
        self.address = address_of(self.words)

    def clear(self) -> None:
        """Fill it."""
        self.store(self.address, np.zeros(BUCKET_WORDS, WORD))

    def stats(self) -> dict[str, int]:
        """missing: tokens, when something was taken last."""
        return {"missing": int(self.words[0]) // SECOND}


class BucketsMemory(MapMemory):
    """A map of token buckets."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings,
                 seed: int | None = None) -> None:
        super().__init__({**spec, "value": {"missing": "u64", "since": "u64"}}, around, seed)

    def put(self, key: Any, value: Any) -> bool:
        raise ValueError("a token bucket cannot be put; remove it, and it is full again")

    def put_all(self, rows: Mapping[Any, Any]) -> list[Any]:
        return [key for key, value in rows.items() if not self.put(key, value)]

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        self.put_all(rows)
        self.clear()
        return True


def buckets_shape(spec: Mapping[str, Any]) -> int:
    """The shape of the buckets that are described so."""
    return map_shape(pack(spec["key"]).words, BUCKET_WORDS, aged=True, used=True)


class LpmMemory(StateMemory):
    """Prefixes, which are cut into intervals anew by each change: put many by ``fill``."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self.key, self.type = str(spec["key"]), str(spec["value"])
        self.prefixes: dict[tuple[int, int], int] = {}
        self.full = 0
        self._index_bits = min(MOST_INDEX_BITS, int(spec["capacity"]).bit_length() + 3)
        self.record = alloc(PREFIXES, 1, 64)
        self.record["shift"] = min(64, BITS[self.key]) - self._index_bits
        self.address = address_of(self.record)
        self._keep: tuple[Any, Any] | None = None
        self._replace({})

    def _replace(self, prefixes: dict[tuple[int, int], int]) -> None:
        """Have these prefixes looked up from now on."""
        width = BITS[self.key]
        firsts, values, there = _intervals(prefixes, width)
        if width == 32:
            rows = np.stack([np.array(firsts, WORD) << 1 | there, values], axis=1)
        else:
            halves = np.array([(signed(one >> 64), signed(one)) for one in firsts], WORD) ^ SIGN
            rows = np.concatenate([halves, np.stack([there, values], axis=1)], axis=1)
        kept = alloc(WORD, rows.size, 64)
        kept[:] = rows.reshape(-1)
        index = alloc(np.dtype("<u4"), (1 << self._index_bits) + 1, 64)
        below = width - self._index_bits
        # The interval that holds the first address of a place: the last one not after it.
        places = [-(-first >> below) for first in firsts]
        index[:-1] = np.searchsorted(places, np.arange(1 << self._index_bits), "right") - 1
        index[-1] = len(firsts) - 1
        self.store(self.address, np.array([address_of(index), address_of(kept)], WORD))
        self._keep = index, kept  # what was kept before is let go of: nobody uses it any more
        self.prefixes = prefixes

    def dump(self, limit: int = 1000) -> list[dict[str, Any]]:
        return [{"key": show_prefix(self.key, prefix), "value": show(self.type, value)}
                for prefix, value in sorted(self.prefixes.items())[:limit]]

    def _add(self, before: Mapping[tuple[int, int], int], rows: Mapping[Any, Any]) -> list[Any]:
        """Have these rows looked up beside others; -> the keys that there is no room for."""
        wanted, refused = dict(before), []
        for key, value in rows.items():
            prefix, number = read_prefix(self.key, key), read(self.type, value)
            if prefix in wanted or len(wanted) < self.spec["capacity"]:
                wanted[prefix] = number
            else:
                refused.append(key)
        self.full += len(refused)
        if not refused:
            self._replace(wanted)
        return refused

    def put_all(self, rows: Mapping[Any, Any]) -> list[Any]:
        return self._add(self.prefixes, rows)

    def remove(self, key: Any) -> bool:
        gone = read_prefix(self.key, key)
        if gone not in self.prefixes:
            return False
        self._replace({prefix: n for prefix, n in self.prefixes.items() if prefix != gone})
        return True

    def clear(self) -> None:
        self._replace({})

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        return not self._add({}, rows)

    def stats(self) -> dict[str, int]:
        return {"entries": len(self.prefixes), "capacity": int(self.spec["capacity"]),
                "full": self.full}


def _intervals(prefixes: Mapping[tuple[int, int], int],
               width: int) -> tuple[list[int], Any, Any]:
    """The intervals that prefixes of addresses of so many bits make, in order: first addresses,
    values, and whether there is one."""
    ends = {prefix: prefix[0] + (1 << width - prefix[1]) for prefix in prefixes}
    firsts = sorted({0, *(first for first, _ in prefixes), *ends.values()} - {1 << width})
    place = {first: k for k, first in enumerate(firsts)} | {1 << width: len(firsts)}
    values, there = np.zeros(len(firsts), WORD), np.zeros(len(firsts), WORD)
    for prefix in sorted(prefixes, key=lambda one: one[1]):  # longer ones over shorter ones
        values[place[prefix[0]]:place[ends[prefix]]] = prefixes[prefix]
        there[place[prefix[0]]:place[ends[prefix]]] = 1
    return firsts, values, there
