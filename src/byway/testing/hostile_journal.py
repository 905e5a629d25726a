# SPDX-License-Identifier: Apache-2.0
"""The in-flight region of a hostile front end: what a back end finds that was killed before.

Used by hostile.py. vhost-user specification, "Inflight I/O tracking".
"""

from typing import Any

import numpy as np

from byway.testing.guarded import Guarded
from byway.testing.hostile_memory import chosen, pick
from byway.vhost import recovery
from byway.vhost.ring import Ring
from byway.virtio.inflight import (
    IN_FLIGHT,
    NUMBER_AT,
    PACKED_ENTRIES_AT,
    PACKED_ENTRY,
    POSITIONS_AT,
    SPLIT_ENTRIES_AT,
    SPLIT_ENTRY,
)

ROUND = (0, 1, 2, 3, 7, 63, 64, 255, 256, 999, 1000, 32767, 32768, 65535)


class Journal:
    """A ring's part of an in-flight region, which ends where forbidden memory begins."""

    SIZE = 1 << 16

    def __init__(self, packed: bool) -> None:
        self.packed = packed
        self.memory = Guarded(self.SIZE)
        self._part = self.memory.view[:0]
        self.entries = self.address = 0

    def begin(self, entries: int) -> int:
        """A part with so many entries, never used; -> its host address."""
        n = PACKED_ENTRIES_AT + PACKED_ENTRY * entries if self.packed \
            else SPLIT_ENTRIES_AT + SPLIT_ENTRY * entries
        self._part = self.memory.view[self.SIZE - n :]
        self._part[:] = 0
        self.entries, self.address = entries, self.memory.ending(n)
        return self.address

    def wrong(self, position: int) -> bool:
        """Is a chain of a packed ring said to be in flight, or the device elsewhere than at
        ``position``?"""
        slots = self._part[POSITIONS_AT : POSITIONS_AT + 4].view("<u2").tolist()
        wraps = self._part[POSITIONS_AT + 4 : POSITIONS_AT + 6].tolist()
        at = [slot | wrap << 15 for slot, wrap in zip(slots, wraps, strict=True)]
        return at not in ([position] * 2, [0, 0]) or self.flying()

    def flying(self) -> bool:
        """Is any of the entries that count said to be in flight?"""
        first, step = ((PACKED_ENTRIES_AT, PACKED_ENTRY) if self.packed
                       else (SPLIT_ENTRIES_AT, SPLIT_ENTRY))
        number = int(self._part[NUMBER_AT : NUMBER_AT + 2].view("<u2")[0])
        return bool((self._part[first::step][:number] == IN_FLIGHT).any())

    def tempt(self, rng: Any, position: int, size: int, wild: float) -> None:
        """What may have been left by somebody who was killed at ``position`` of a ring of ``size``,
        more or less spoiled."""
        kind, entry = ((recovery.PACKED_HEAD, recovery.PACKED_ENTRY_TYPE) if self.packed
                       else (recovery.SPLIT_HEAD, recovery.SPLIT_ENTRY_TYPE))
        head, entries = np.zeros(1, kind), np.zeros(self.entries, entry)
        entries["next"] = np.arange(1, self.entries + 1)
        flying = int(rng.integers(0, min(size, self.entries) + 1))
        entries["inflight"][:flying] = 1
        entries["counter"] = rng.permutation(self.entries)
        head["version"], head["number"] = 1, self.entries
        if self.packed:
            entries["last"], entries["num"] = np.arange(self.entries), 1
            pairs = rng.random(self.entries) < 0.2  # chains of two
            entries["num"][pairs] = 2
            entries["last"][pairs] += 1
            entries["inflight"][1:][pairs[:-1]] = 0
            entries["flags"] = pick(rng, (0, 2, 1, 0x8080), self.entries)
            head["free"] = head["old_free"] = flying
            head["used"] = head["old_used"] = position & 0x7FFF
            head["wrap"] = head["old_wrap"] = position >> 15
            head["used"] = (position & 0x7FFF) + int(rng.integers(0, 2)) * flying
        else:
            head["used"] = position - int(rng.integers(0, 4)) & 0xFFFF
            head["last_batch_head"] = int(rng.integers(0, self.entries))
        for table in (head, entries):
            for name in table.dtype.names:
                bad = chosen(rng, len(table), wild / 4)
                table[name][bad] = (pick(rng, ROUND, len(bad))
                                    & (1 << min(8 * table.dtype[name].itemsize, 62)) - 1)
        self._part[: kind.itemsize] = head.view(np.uint8)
        self._part[kind.itemsize :] = entries.view(np.uint8)

    def recover(self, ring: Ring) -> str:
        """What a back end says of it at the start of the ring, which goes on at ``ring.base``."""
        return recovery.start(self.address, self.entries, ring, 0)
