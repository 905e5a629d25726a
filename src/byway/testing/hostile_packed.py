# SPDX-License-Identifier: Apache-2.0
"""A hostile guest's packed ring: chains over the end of the ring, loops around all of it, tables
inside chains, wrap bits of any lap, ids that mean nothing.

Used by hostile.py; hostile_split.py is its like.
"""

from typing import Any

import numpy as np

from byway.testing.device import Device
from byway.testing.hostile_memory import (
    LENGTHS,
    MAIN,
    TABLES,
    WILD,
    World,
    chosen,
    pick,
    place,
    spoil,
)
from byway.vhost.ring import Ring as BackendRing

SIZES = (1, 2, 3, 5, 7, 16, 64, 100, 256, 1000)
AVAIL, USED = 1 << 7, 1 << 15
CHAINED = (0.05,) * 8 + (0.3,) * 8 + (0.97, 0.995, 0.995, 1.0)
LONG = 0.9
POOL = 160  # descriptors that those made available are drawn from
DESCRIPTOR = np.dtype([("gpa", "<u8"), ("len", "<u4"), ("id", "<u2"), ("flags", "<u2")])


class PackedRing:
    """One case's ring, placed and written at random; attributes as SplitRing's.

    ``avail`` is the driver's event suppression, ``used`` the device's, ``start`` slot | wrap << 15.
    """

    def __init__(self, rng: Any, world: World, event: bool, towards: bool) -> None:
        # How often a chain goes on in the next slot: seldom, or nearly always, around the ring.
        self._chained = CHAINED[int(rng.integers(0, len(CHAINED)))]
        sizes = SIZES if self._chained < LONG else SIZES[-2:]
        self.size = sizes[int(rng.integers(0, len(sizes)))]
        self._main = world.memory[0]
        (self.desc, self.avail, self.used, self.tables), self.apart = place(
            rng, (16 * self.size, 4, 4, 16 * TABLES), (16, 4, 4, 16))
        self.start = int(rng.integers(0, self.size)) | int(rng.integers(0, 2)) << 15
        self.wild = WILD[int(rng.integers(0, len(WILD)))]
        self._write(rng, world, towards)

    def _write(self, rng: Any, world: World, towards: bool) -> None:
        count, wild = POOL + TABLES, self.wild
        table = np.zeros(count, DESCRIPTOR)
        table["gpa"] = world.base + rng.integers(0, MAIN, count).astype(np.uint64)
        chained = self._chained
        table["len"] = pick(rng, LENGTHS if chained < LONG else (0, 1, 14), count)
        table["flags"] = np.where(rng.random(count) < chained, 1, 0) | (2 if towards else 0)
        table["id"] = rng.integers(0, (self.size, 1 << 16)[int(rng.integers(0, 2))], count)
        nested = rng.random(count) < (0.15 + wild / 4 if chained < LONG else 0)
        table["flags"][nested] = 4
        entries = rng.integers(0, TABLES, count)
        table["gpa"][nested] = world.base + self.tables + 16 * entries[nested]
        table["len"][nested] = 16 * np.minimum(TABLES - entries[nested], 1 + entries[nested] % 9)
        if wild:
            spoil(rng, world, table, wild, (self.desc, self.avail, self.used, self.tables))
            inside = chosen(rng, count, wild / 4)
            table["flags"][inside] |= 5  # a table in a chain
        self._pool = table[:POOL]
        self.buffers = table["gpa"][:: count // 16]
        main = self._main
        main[self.tables : self.tables + 16 * TABLES] = table[POOL:].view(np.uint8)
        main[self.avail : self.avail + 4].view("<u2")[:] = (
            int(rng.integers(0, 1 << 16)), int(rng.integers(0, 4)))
        # All slots were used: those in front in this lap, the others in the one before.
        ring = self._pool[rng.integers(0, POOL, self.size)]
        self._mark(ring, self.start, np.arange(self.size), False)
        self._ring()[:] = ring

    def _ring(self) -> Any:
        return self._main[self.desc : self.desc + 16 * self.size].view(DESCRIPTOR)

    def _mark(self, descriptors: Any, position: int, slots: Any, available: bool) -> None:
        """Set the flags of what is available from ``position`` on, or of what was used before."""
        lap = (slots < position & 0x7FFF) ^ bool(position >> 15)
        flags = descriptors["flags"]
        flags &= ~np.uint16(AVAIL | USED)
        if available:
            flags |= np.where(lap, np.uint16(AVAIL), np.uint16(USED))
        else:
            flags |= np.where(lap, np.uint16(0), np.uint16(AVAIL | USED))

    def known(self, row: Any) -> BackendRing:
        """The ring as a back end knows it."""
        made = BackendRing(0)
        made.packed, made.size, made.base = True, self.size, self.start
        made.desc, made.avail, made.used = (int(row[k]) for k in ("desc", "avail", "used"))
        return made

    def go_on(self, position: int) -> None:
        """The device begins there."""
        self.start = position

    def offer(self, rng: Any, device: Device) -> None:
        """Make slots available from where the device is; seldom, all wrap bits are nonsense."""
        position = int(device.queue["last_avail"][0])
        count = (0, 1, -(-self.size // 2), self.size)[int(rng.integers(0, 4))]
        slots = ((position & 0x7FFF) + np.arange(count)) % self.size
        made = self._pool[rng.integers(0, POOL, count)]
        self._mark(made, position, slots, True)
        if rng.random() < self.wild / 3:
            made["flags"] ^= pick(rng, (0, 0, AVAIL, USED, AVAIL | USED), count).astype("<u2")
        ring = self._ring()
        ring[slots] = made
        if rng.random() < 0.05:  # available for ever, in this lap and the next
            ring["flags"] &= ~np.uint16(AVAIL | USED)
            ring["flags"] |= pick(rng, (AVAIL, USED), self.size).astype("<u2")

    def taken(self, device: Device) -> int:
        """-1 where the device stands outside the ring, or did not give back what it took; else
        how many buffers it took can only be told from what it counted."""
        row = device.queue[0]
        position = int(row["used_idx"])
        sound = position == int(row["last_avail"]) and position & 0x7FFF < self.size
        counters = device.counters[0]
        return int(counters["frames"] + counters["drops"].sum()) \
            if sound and 0 <= position < 1 << 16 else -1

    def unlogged(self, reading: bool) -> slice:
        """What a device may write without noting it: nothing."""
        return slice(0, 0)

    def without_own_words(self, main: Any) -> Any:
        """As SplitRing's."""
        copy = main.copy()
        copy[self.desc : self.desc + 16 * self.size] = 0
        copy[self.used : self.used + 4] = 0
        return copy
