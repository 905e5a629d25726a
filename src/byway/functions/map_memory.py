# SPDX-License-Identifier: Apache-2.0
"""The memory of maps, and maps as users see them.

Used by states.py. Uses map_kernels.py (which explains it), map_control.py, map_rows.py, nf.
"""

import ctypes
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from byway.functions.map_control import (
    KNOWN,
    NEW,
    PUT,
    REFUSED,
    map_find_rows,
    map_put_rows,
    map_remove_rows,
    map_sweep,
)
from byway.functions.map_kernels import AGED, MAP, USED, WINDOW, M
from byway.functions.map_rows import Rows, value_words
from byway.functions.state_memory import (
    PORTION,
    WORD,
    StateMemory,
    Steps,
    Surroundings,
    in_steps,
    zeros,
)
from byway.machine.layout import address_of, alloc
from byway.nf.keys import BITS, pack, rows_as, signed
from byway.nf.maps import Map
from byway.nf.states import LONGEST, SECOND, TICK_BITS

LINE = 64
HALF = 1 << 31  # ticks
LOT = 64  # rows that are put while a lock is held: some microseconds
LOT_SECONDS, STEP_SECONDS = 0.0001, 0.001  # what lots and steps should take at the most
SHOWN = PORTION // 4  # words of buckets that are shown in a step: some milliseconds
SMALL = 1024  # buckets that can be swept while frames wait: some microseconds, at most each tick
# By ways: how full the buckets are where all entries are there.
FULL = {2: 0.5, 3: 0.6, 4: 0.65, 5: 0.7, 6: 0.72, 7: 0.75}


class _ReplacedError(Exception):
    """The entries of a map were replaced as a whole, between two steps of a change."""


def map_shape(words: int, values: int, bits: int = 64, aged: bool = False,
              used: bool = False) -> int:
    """The shape of a map whose keys and values have so many words (map_kernels.py)."""
    entry = 8 * (words + values)

    def lines(ways: int) -> int:
        return -(-(_base(ways) + ways * entry) // LINE)

    # Short entries: as many as a cache line has room for; others: what takes the least memory.
    ways = {16: 3, 24: 2}.get(entry) or min(range(4, 8), key=lambda n: lines(n) / (n * FULL[n]))
    return (words | ways << 4 | entry << 8 | _base(ways) << 18 | lines(ways) << 24 | bits << 32
            | (AGED if aged else 0) | (USED if used else 0))


def _base(ways: int) -> int:
    """Bytes of a bucket before its entries."""
    return -(-((8 if ways >= 4 else 4) + 4 * ways) // 8) * 8


class MapMemory(StateMemory):
    """The memory of one nf.Map (or nf.Buckets). ``seed``: for tests; else the secret numbers are
    nobody's to know."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings,
                 seed: int | None = None) -> None:
        super().__init__(spec, around)
        self.rows = Rows(spec["key"], spec["value"])
        self.age = spec.get("age") or spec.get("idle")
        self.shape = shape_of(spec)
        ways = self.shape >> 4 & 15
        self.homes = max(1, int(-(-spec["capacity"] // (FULL[ways] * ways))))
        self.record = alloc(MAP, 1, LINE)
        self.address = address_of(self.record)
        draw = secrets.SystemRandom() if seed is None else random.Random(seed)
        row = self.record[0]
        row["seeds"] = [signed(draw.getrandbits(64) | (k == 1))
                        for k in range(len(row["seeds"]))]
        row["n"], row["capacity"] = self.homes, spec["capacity"]
        row["strict"], row["frame"] = self.homes <= SMALL, -1
        self.bind(around.lock, around.parameter)
        self.buckets = self._new_buckets()
        row["buckets"] = address_of(self.buckets)

    def strict(self) -> None:
        self.record["strict"] = 1

    @property
    def _bucket_words(self) -> int:
        return (self.shape >> 24 & 255) * LINE // 8

    def _new_buckets(self) -> Any:
        return zeros((self.homes + WINDOW) * self._bucket_words)

    def bind(self, lock: int, parameter: Callable[[str], int]) -> None:
        super().bind(lock, parameter)
        row, age = self.record[0], self.address + M.own_age
        if isinstance(self.age, str):
            age = parameter(self.age)
        elif self.age is not None:
            row["own_age"] = round(self.age * SECOND)
        row["age"] = age  # at once: workers read it

    def _now(self) -> int:
        return self.around.clock() if self.shape & AGED else 0

    # ------------------------------------------------------------ entries
    def _each(self, kernel: Any, rows: Any, marks: Any, which: int = NEW) -> Steps[None]:
        """Have a kernel do its work with those rows that are marked so."""
        buckets, first, lot, began = self.buckets, 0, 1, time.monotonic()
        while first < len(marks):
            called = time.monotonic()
            n = min(lot, len(marks) - first)
            kernel(self.around.lock, self.address, self._now(), self.shape,
                   address_of(rows) + first * self.rows.entry, address_of(marks) + 8 * first, which,
                   n)
            first, now = first + n, time.monotonic()
            # Memory that is touched the first time costs the Linux kernel up to milliseconds a row.
            lot = min(2 * lot, LOT) if now - called < LOT_SECONDS else 1
            if first < len(marks) and now - began >= STEP_SECONDS:
                yield None
                began = time.monotonic()
                if self.buckets is not buckets:
                    raise _ReplacedError

    def _packed(self, given: Mapping[Any, Any]) -> Steps[tuple[Any, Any]]:
        """Rows as in entries, and marks for them."""
        rows, first = zeros(len(given) * self.rows.entry // 8), 0
        for some in in_steps(given.items()):
            words = np.frombuffer(b"".join(rows_as(some, self.rows.packed)), WORD)
            rows[first : first + len(words)] = words
            first += len(words)
            yield None
        return rows, zeros(len(given))

    def changing(self, rows: Mapping[Any, Any], whole: bool) -> Steps[list[Any]]:
        packed, marks = yield from self._packed(rows)
        if whole:
            if (yield from self._filling(packed, marks)):
                return []
        else:
            while True:
                try:
                    yield from self._putting(packed, marks)
                    break
                except _ReplacedError:
                    marks[:] = NEW
        refused = set(np.flatnonzero(marks == REFUSED).tolist())
        return [key for number, key in enumerate(rows) if number in refused] if refused else []

    def _putting(self, rows: Any, marks: Any) -> Steps[None]:
        # New ones first: what is there has room, and is not touched where one is refused.
        yield from self._each(map_find_rows, rows, marks)
        yield from self._each(map_put_rows, rows, marks, NEW)
        if (marks == REFUSED).any():
            yield from self._each(map_remove_rows, rows, marks, PUT)
        else:  # (one of these may have gone just now)
            yield from self._each(map_put_rows, rows, marks, KNOWN)

    def _filling(self, rows: Any, marks: Any) -> Steps[bool]:
        # Workers see the old entries until all new ones are there.
        other = MapMemory(self.spec, self.around)
        own = alloc(WORD, 1, LINE)
        other.around = Surroundings(address_of(own), self.around.parameter, self.around.clock)
        other.record["seeds"] = self.record["seeds"]
        yield from other._each(map_put_rows, rows, marks)
        if (marks == REFUSED).any():
            return False
        self._place(other.buckets, int(other.record["count"][0]))
        return True

    def removing(self, key: Any) -> Steps[bool]:
        row, marks = zeros(self.rows.entry // 8), zeros(1)
        row[:] = np.frombuffer(self.rows.key(key), WORD)
        yield from self._each(map_remove_rows, row, marks)
        return bool(marks[0] == KNOWN)

    def _place(self, buckets: Any, count: int) -> None:
        both = alloc(WORD, 2, LINE)
        both[:] = address_of(buckets), count
        self.store(self.address + M.buckets, both)
        self.buckets = buckets

    def clear(self) -> None:
        self._place(self._new_buckets(), 0)

    def entries(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values as functions see them; a map that changes meanwhile may be seen in part
        before, in part after."""
        for found in self._found():
            yield from self.rows.decoded(found)

    def portions(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        for found in self._found():
            yield self.rows.shown(found[:limit])
            limit -= len(found)
            if limit <= 0:
                break

    def _found(self) -> Iterator[Any]:
        """The entries that have not aged out, some (or none) at a time: words, a row for each."""
        now, size, buckets = self._now(), self._bucket_words, self.buckets
        portion = max(1, SHOWN // size)
        for first in range(0, self.homes + WINDOW, portion):
            n = min(portion, self.homes + WINDOW - first)
            copied = self.copy(address_of(buckets) + 8 * first * size, n * size)
            yield self._used(copied.reshape(n, size), now)

    def _used(self, buckets: Any, now: int) -> Any:
        octets = buckets.view(np.uint8).reshape(len(buckets), -1)
        ways, entry, base = self.shape >> 4 & 15, self.shape >> 8 & 1023, self.shape >> 18 & 63
        used = octets[:, :ways] != 0
        if self.shape & AGED:
            stamps = np.ascontiguousarray(octets[:, 4 + (ways & 4):][:, :4 * ways]).view("<u4")
            used &= self._young(stamps.astype(np.int64), now)
        entries = buckets[:, base // 8:][:, :ways * entry // 8]
        return entries.reshape(len(buckets), ways, entry // 8)[used]

    def _young(self, stamps: Any, now: int) -> Any:
        ns = ctypes.c_int64.from_address(int(self.record["age"][0])).value
        age = ns + (1 << TICK_BITS) - 1 >> TICK_BITS
        since = ((now >> TICK_BITS) - stamps + HALF & 2 * HALF - 1) - HALF  # as age_at
        return since < min(max(1, age), LONGEST)

    def expire(self) -> int:
        if not self.shape & AGED:
            return 0
        portion = max(1, PORTION // self._bucket_words)
        return sum(int(map_sweep(self.around.lock, self.address, self._now(), self.shape, first,
                                 min(portion, self.homes + WINDOW - first)))
                   for first in range(0, self.homes + WINDOW, portion))

    def stats(self) -> dict[str, int]:
        """entries: those too that have aged out and were not yet removed; full: how often there was
        no room."""
        row = self.record[0]
        return {"entries": int(row["count"]), "capacity": int(row["capacity"]),
                "full": int(row["full"]), "bytes": int(self.buckets.nbytes)}


def shape_of(spec: Mapping[str, Any]) -> int:
    """The shape of the map that is described so."""
    fields = spec["value"]
    bits = BITS[fields[""]] if "" in fields else 64
    return map_shape(pack(spec["key"]).words, value_words(fields), bits,
                     aged=bool(spec.get("age") or spec.get("idle")), used=bool(spec.get("idle")))


def map_of(spec: Mapping[str, Any]) -> Map:
    """The nf.Map that is described so."""
    fields = spec["value"]
    return Map(spec["key"], fields.get("", fields), spec["capacity"], age=spec["age"],
               idle=spec["idle"])
