# SPDX-License-Identifier: Apache-2.0
"""A hostile guest's split ring: heads, chains and tables that are wrong in every way.

Used by hostile.py; hostile_packed.py is its like.
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
from byway.virtio.ring import avail_bytes, used_bytes

SIZES = (1, 2, 4, 8, 16, 64, 256, 1024)
STARTS = (0, 1, 65535, 65520, 40000)


class SplitRing:
    """One case's ring, placed and written at random.

    ``desc``, ``avail``, ``used``: offsets in the main region. ``towards``: its buffers are meant to
    be received into. ``start``: where both indices begin. ``wild``: how much of it is wrong.
    """

    def __init__(self, rng: Any, world: World, event: bool, towards: bool) -> None:
        self.size = SIZES[int(rng.integers(0, len(SIZES)))]
        self._main = world.memory[0]
        parts = (16 * self.size, avail_bytes(self.size, event), used_bytes(self.size, event),
                 16 * TABLES)
        (self.desc, self.avail, self.used, self.tables), self.apart = place(
            rng, parts, (16, 2, 4, 16))
        self.start = STARTS[int(rng.integers(0, len(STARTS)))]
        self._index = self.start
        self.wild = WILD[int(rng.integers(0, len(WILD)))]
        self._write(rng, world, towards)

    def _write(self, rng: Any, world: World, towards: bool) -> None:
        count, size, wild = self.size + TABLES, self.size, self.wild
        table = np.zeros(count, [("gpa", "<u8"), ("len", "<u4"), ("flags", "<u2"), ("next", "<u2")])
        table["gpa"] = world.base + rng.integers(0, MAIN, count).astype(np.uint64)
        table["len"] = pick(rng, LENGTHS, count)
        table["flags"] = np.where(rng.random(count) < 0.3, 1, 0) | (2 if towards else 0)
        table["next"] = rng.integers(0, size, count)
        table["next"][size:] = rng.integers(0, TABLES, TABLES)
        nested = rng.random(count) < 0.15 + wild / 4
        table["flags"][nested] = 4
        entries = rng.integers(0, TABLES, count)
        table["gpa"][nested] = world.base + self.tables + 16 * entries[nested]
        table["len"][nested] = 16 * np.minimum(TABLES - entries[nested], 1 + entries[nested] % 9)
        if wild:
            spoil(rng, world, table, wild, (self.desc, self.avail, self.used, self.tables))
            following = chosen(rng, count, wild)
            table["next"][following] = rng.integers(0, 1 << 16, len(following))
        self.buffers = table["gpa"][:: max(count // 16, 1)]
        main = self._main
        main[self.desc : self.desc + 16 * size] = table[:size].view(np.uint8)
        main[self.tables : self.tables + 16 * TABLES] = table[size:].view(np.uint8)
        heads = rng.integers(0, size, size).astype("<u2")
        bad = rng.random(size) < wild / 20
        heads[bad] = rng.integers(0, 1 << 16, int(bad.sum()))
        main[self.avail + 4 : self.avail + 4 + 2 * size] = heads.view(np.uint8)

    def known(self, row: Any) -> BackendRing:
        """The ring as a back end knows it. Some entries wait in it."""
        made = BackendRing(0)
        made.size, made.base = self.size, self.start
        made.desc, made.avail, made.used = (int(row[k]) for k in ("desc", "avail", "used"))
        for at, index in ((self.avail, self.start + self.size), (self.used, self.start)):
            self._main[at + 2 : at + 4].view("<u2")[0] = index & 0xFFFF
        return made

    def go_on(self, position: int) -> None:
        """The device begins there; what was available before is no longer."""
        self.start = self._index = position

    def offer(self, rng: Any, device: Device) -> None:
        """Move the available index on, by what there is room for, or (seldom) too far."""
        step, jump = rng.integers(0, 40, 2).tolist()
        room = self.size - (self._index - int(device.queue["last_avail"][0]) & 0xFFFF)
        if jump < 2:
            self._index += (room + 1, 65535)[jump]
        else:
            self._index += (0, 1, room // 2, room)[step & 3]
        self._index &= 0xFFFF
        self._main[self.avail + 2 : self.avail + 4].view("<u2")[0] = self._index

    def taken(self, device: Device) -> int:
        """How many buffers the device took; -1: it did not give as many back."""
        row = device.queue[0]
        taken = int(row["last_avail"]) - self.start & 0xFFFF
        return taken if int(row["used_idx"]) - self.start & 0xFFFF == taken else -1

    def unlogged(self, reading: bool) -> slice:
        """What a device may write without noting it: used entries that it does not publish, which
        it writes in advance where it only reads buffers."""
        return slice(self.used + 4, self.used + 4 + 8 * self.size * reading)

    def without_own_words(self, main: Any) -> Any:
        """A copy of the main region, but for what the guest itself, or a device that only reads
        buffers, may have changed since."""
        copy = main.copy()
        copy[self.used : self.used + used_bytes(self.size, True)] = 0
        copy[self.avail + 2 : self.avail + 4] = 0
        return copy
