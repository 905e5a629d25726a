# SPDX-License-Identifier: Apache-2.0
"""The memory of counters, arrays, token buckets and prefixes.

Used by states.py. Uses states_kernels.py, map_memory.py, built_memory.py, nf.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from byway.functions.built_memory import BuiltAnew
from byway.functions.map_memory import MapMemory, map_shape
from byway.functions.state_memory import (
    PORTION,
    STEP,
    WORD,
    StateMemory,
    Steps,
    Surroundings,
    in_steps,
    zeros,
)
from byway.functions.states_kernels import BUCKET_WORDS, PREFIXES, SIGN
from byway.machine.dual import signed
from byway.machine.layout import address_of, alloc
from byway.nf.keys import BITS, pack, read, rows_as, show
from byway.nf.maps import read_prefix, show_prefix
from byway.nf.states import SECOND, array_rows, counter_row

MOST_INDEX_BITS = 16
_LOW = (1 << 64) - 1


class CounterMemory(StateMemory):
    """One word."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self.words = alloc(WORD, 1, 64)
        self.address = address_of(self.words)

    def portions(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        yield [{"key": "value", "value": show("u64", int(self.words[0]))}][:limit]

    def changing(self, rows: Mapping[Any, Any], whole: bool) -> Steps[list[Any]]:
        yield None
        for number in [*rows_as(rows.items(), counter_row)] or [0] * whole:
            self.store(self.address, np.array([number], WORD))
        return []

    def removing(self, key: Any) -> Steps[bool]:
        return not (yield from self.changing({key: 0}, whole=False))

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

    def portions(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        held = self.copy(self.address, self.size)
        for places in in_steps(np.flatnonzero(held)[:limit].tolist()):
            yield [{"key": place, "value": show(self.type, number)}
                   for place, number in zip(places, held[places].tolist(), strict=True)]

    def _read(self, rows: Mapping[Any, Any]) -> Steps[list[tuple[int, list[int]]]]:
        """Places, and values from there on: some of a row at a time, which may have very many."""
        def pieces(key: Any, value: Any) -> Iterator[tuple[int, list[int]]]:
            first, _ = array_rows(self.type, self.size, key, [])
            for some in in_steps(value if isinstance(value, (list, bytes)) else [value]):
                yield array_rows(self.type, self.size, first, some)
                first += len(some)

        read: list[tuple[int, list[int]]] = []
        values = 0
        for key, value in rows.items():
            try:
                for piece in pieces(key, value):
                    read.append(piece)
                    values += len(piece[1])
                    if values >= STEP:
                        values = 0
                        yield None
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        return read

    def changing(self, rows: Mapping[Any, Any], whole: bool) -> Steps[list[Any]]:
        read = yield from self._read(rows)
        if whole:
            made = zeros(self.size)
            for first, values in read:
                made[first : first + len(values)] = values
            for first in range(0, self.size, PORTION):
                self.store(self.address + 8 * first, made[first : first + PORTION])
                yield None
            return []
        for some in in_steps(read):
            for first, values in some:
                self.store(self.address + 8 * first, np.array(values, WORD))
            yield None
        return []

    def removing(self, key: Any) -> Steps[bool]:
        yield None
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

    def changing(self, rows: Mapping[Any, Any], whole: bool) -> Steps[list[Any]]:
        if rows:
            raise ValueError("a token bucket cannot be put; remove it, and it is full again")
        return StateMemory.changing(self, rows, whole)


def buckets_shape(spec: Mapping[str, Any]) -> int:
    """The shape of the buckets that are described so."""
    return map_shape(pack(spec["key"]).words, BUCKET_WORDS, aged=True, used=True)


class LpmMemory(BuiltAnew):
    """Prefixes, which are cut into intervals."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        self.key, self.type = str(spec["key"]), str(spec["value"])
        self.full = 0
        self._index_bits = min(MOST_INDEX_BITS, int(spec["capacity"]).bit_length() + 3)
        super().__init__(spec, around)
        self.record = alloc(PREFIXES, 1, 64)
        self.record["shift"] = min(64, BITS[self.key]) - self._index_bits
        self.address = address_of(self.record)
        self._keep: tuple[Any, Any] | None = None
        self.clear()

    def _read(self, key: Any, value: Any) -> tuple[tuple[int, int], int]:
        return read_prefix(self.key, key), read(self.type, value)

    def _part(self, key: Any) -> tuple[int, int]:
        return read_prefix(self.key, key)

    @staticmethod
    def _in_order(keys: Collection[Any]) -> Iterable[Any]:
        return _sorted(keys)

    @staticmethod
    def _takes(n: int) -> int:
        return n * 800

    def _build(self, parts: Mapping[tuple[int, int], int]) -> tuple[Any, Any]:
        """The intervals, and the index of them."""
        width = BITS[self.key]
        firsts, values, there = _intervals(parts, width)
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
        return index, kept

    def _place(self, parts: Mapping[tuple[int, int], int], built: tuple[Any, Any]) -> None:
        self.store(self.address, np.array([address_of(one) for one in built], WORD))
        self._keep = built  # what was kept before is let go of: nobody uses it any more

    def _shown(self, key: tuple[int, int], value: int) -> dict[str, Any]:
        return {"key": show_prefix(self.key, key), "value": show(self.type, value)}

    def changing(self, rows: Mapping[Any, Any], whole: bool) -> Steps[list[Any]]:
        refused = yield from super().changing(rows, whole)
        self.full += len(refused)
        return refused

    def stats(self) -> dict[str, int]:
        return {"entries": len(self.parts), "capacity": int(self.spec["capacity"]),
                "full": self.full}


def _intervals(prefixes: Mapping[tuple[int, int], int],
               width: int) -> tuple[list[int], Any, Any]:
    """The intervals that prefixes of addresses of so many bits make, in order: first addresses,
    values, and whether there is one."""
    ends = {prefix: prefix[0] + (1 << width - prefix[1]) for prefix in prefixes}
    cuts = {0, *(first for first, _ in prefixes), *ends.values()} - {1 << width}
    firsts = [first for (first,) in _sorted([(first,) for first in cuts])]
    place = {first: k for k, first in enumerate(firsts)} | {1 << width: len(firsts)}
    values, there = np.zeros(len(firsts), WORD), np.zeros(len(firsts), WORD)
    for prefix in sorted(prefixes, key=lambda one: one[1]):  # longer ones over shorter ones
        values[place[prefix[0]]:place[ends[prefix]]] = prefixes[prefix]
        there[place[prefix[0]]:place[ends[prefix]]] = 1
    return firsts, values, there


def _sorted(keys: Collection[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Numbers, or pairs of them, of up to 128 bits, in order. NumPy lets other threads work
    meanwhile."""
    given = list(keys)
    columns = [np.array([number >> shift & _LOW for number in column], np.uint64)
               for column in reversed(list(zip(*given, strict=True))) for shift in (0, 64)]
    return [given[k] for k in np.lexsort(columns).tolist()] if given else []
