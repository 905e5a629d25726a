# SPDX-License-Identifier: Apache-2.0
"""The memory of maps, and maps as users see them.

Used by states.py. Uses map_kernels.py (which explains it), map_control.py, nf.
"""

import ctypes
import random
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from byway.functions.state_memory import PORTION, WORD, StateMemory, Surroundings, zeros
from byway.machine.layout import address_of, alloc
from byway.nf.keys import BITS, pack, read_key, show_key, signed
from byway.nf.maps import Map
from byway.nf.states import LONGEST, SECOND, TICK_BITS, given_value, shown_value

LINE = 64
HALF = 1 << 31  # ticks
LOT = 64  # rows that are put while a lock is held: some microseconds
SMALL = 1024  # buckets that can be swept while frames wait: some microseconds, at most each tick
# By ways: how full the buckets are where all entries are there.
FULL = {2: 0.5, 3: 0.6, 4: 0.65, 5: 0.7, 6: 0.72, 7: 0.75}


def field_bytes(kind: str) -> int:
    """What a field of a record takes (an IPv6 address: two words, high and low)."""
    return {"u8": 1, "u16": 2, "u32": 4, "ipv4": 4, "ipv6": 16}.get(kind, 8)


def value_words(fields: Mapping[str, str]) -> int:
    """How many words a value of these fields has."""
    return -(-sum(map(field_bytes, fields.values())) // 8)


def offsets(fields: Mapping[str, str]) -> dict[str, int]:
    """Where each field of a record is: bytes from its beginning. Long ones are first, so that all
    are aligned and nothing is between them."""
    made, at = {}, 0
    for name in sorted(fields, key=lambda name: -field_bytes(fields[name])):
        made[name] = at
        at += field_bytes(fields[name])
    return made


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
        self.packing = pack(spec["key"])
        self.fields: dict[str, str] = dict(spec["value"])
        self._sizes = [(name, field_bytes(self.fields[name]) if name else 8)
                       for name in offsets(self.fields)]  # as they lie, with nothing between
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
        row = self.record[0]
        row["age"] = self.address + M.own_age
        if isinstance(self.age, str):
            row["age"] = parameter(self.age)
        elif self.age is not None:
            row["own_age"] = round(self.age * SECOND)

    def _now(self) -> int:
        return self.around.clock() if self.shape & AGED else 0

    # ------------------------------------------------------------ entries
    def _key(self, key: Any) -> bytes:
        words = self.packing.words_of(read_key(self.packing.types, key))
        return b"".join([word.to_bytes(8, "little", signed=True) for word in words])

    def _value_of(self, value: Any) -> bytes:
        given, made = given_value(self.fields, value), []
        for name, size in self._sizes:
            number = given[name] if isinstance(given, dict) else given
            if size == 16:  # high word first
                number = number >> 64 | (number & (1 << 64) - 1) << 64
            made.append((number & (1 << 8 * size) - 1).to_bytes(size, "little"))
        return b"".join(made)

    def _each(self, kernel: Any, rows: Any, marks: Any, which: int = NEW) -> Any:
        """Have a kernel do its work with those rows that are marked so; -> the marks."""
        entry = self.shape >> 8 & 1023
        for first in range(0, len(marks), LOT):
            kernel(self.around.lock, self.address, self._now(), self.shape,
                   address_of(rows) + first * entry, address_of(marks) + 8 * first, which,
                   min(LOT, len(marks) - first))
        return marks

    def _rows(self, given: Sequence[bytes]) -> tuple[Any, Any]:
        """Rows as in entries, and marks for them."""
        octets = b"".join([one.ljust(self.shape >> 8 & 1023, b"\0") for one in given])
        rows = zeros(len(octets) // 8)
        rows[:] = np.frombuffer(octets, WORD)
        return rows, zeros(len(given))

    def _packed(self, pairs: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        return self._rows([self._key(key) + self._value_of(value) for key, value in pairs])

    def _put(self, pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
        # New ones first: what is there has room, and is not touched where one is refused.
        rows, marks = self._packed(pairs)
        self._each(map_find_rows, rows, marks)
        self._each(map_put_rows, rows, marks, NEW)
        refused = [pairs[k][0] for k in np.flatnonzero(marks == REFUSED).tolist()]
        if refused:
            self._each(map_remove_rows, rows, marks, PUT)
            return refused
        self._each(map_put_rows, rows, marks, KNOWN)  # (one of these may have gone just now)
        return [pairs[k][0] for k in np.flatnonzero(marks == REFUSED).tolist()]

    def put(self, key: Any, value: Any) -> bool:
        return not self._put([(key, value)])

    def put_all(self, rows: Mapping[Any, Any]) -> list[Any]:
        return self._put(list(rows.items()))

    def remove(self, key: Any) -> bool:
        rows, marks = self._rows([self._key(key)])
        return bool(self._each(map_remove_rows, rows, marks)[0] == KNOWN)

    def _place(self, buckets: Any, count: int) -> None:
        both = alloc(WORD, 2, LINE)
        both[:] = address_of(buckets), count
        self.store(self.address + M.buckets, both)
        self.buckets = buckets

    def clear(self) -> None:
        self._place(self._new_buckets(), 0)

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        # Workers see the old entries until all new ones are there.
        other = MapMemory(self.spec, self.around)
        own = alloc(WORD, 1, LINE)
        other.around = Surroundings(address_of(own), self.around.parameter, self.around.clock)
        other.record["seeds"] = self.record["seeds"]
        if (other._each(map_put_rows, *self._packed(list(rows.items()))) == REFUSED).any():
            return False
        self._place(other.buckets, int(other.record["count"][0]))
        return True

    def entries(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values as functions see them; a map that changes meanwhile may be seen in part
        before, in part after."""
        now, size = self._now(), self._bucket_words
        portion = max(1, PORTION // size)
        for first in range(0, self.homes + WINDOW, portion):
            n = min(portion, self.homes + WINDOW - first)
            copied = self.copy(address_of(self.buckets) + 8 * first * size, n * size)
            yield from self._decoded(copied.reshape(n, size), now)

    def _decoded(self, buckets: Any, now: int) -> Iterator[tuple[Any, Any]]:
        octets = np.ascontiguousarray(buckets).view(np.uint8).reshape(len(buckets), -1)
        ways, entry, base = self.shape >> 4 & 15, self.shape >> 8 & 1023, self.shape >> 18 & 63
        for bucket, way in np.argwhere(octets[:, :ways] != 0).tolist():
            at = 4 + (ways & 4) + 4 * way
            if not self._young(int(octets[bucket, at : at + 4].view("<u4")[0]), now):
                continue
            words = buckets[bucket, (base + way * entry) // 8 :][: entry // 8]
            yield (self.packing.key_of(words[: self.packing.words].tolist()),
                   self._value(words[self.packing.words :]))

    def _young(self, stamp: int, now: int) -> bool:
        if not self.shape & AGED:
            return True
        ns = ctypes.c_int64.from_address(int(self.record["age"][0])).value
        age = ns + (1 << TICK_BITS) - 1 >> TICK_BITS
        since = ((now >> TICK_BITS) - stamp + HALF & 2 * HALF - 1) - HALF  # as age_at
        return since < min(max(1, age), LONGEST)

    def _value(self, words: Any) -> Any:
        octets, found, at = words.tobytes(), {}, 0
        for name, size in self._sizes:
            number = int.from_bytes(octets[at : at + size], "little")
            if size == 16:
                number = number >> 64 | (number & (1 << 64) - 1) << 64
            found[name] = signed(number) if self.fields[name] == "u64" else number
            at += size
        made = {name: found[name] for name in self.fields}
        return made.get("", made)

    def dump(self, limit: int = 1000) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for key, value in self.entries():
            if len(rows) == limit:
                break
            rows.append({"key": show_key(self.packing.types, key),
                         "value": shown_value(self.fields, value)})
        return rows

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
