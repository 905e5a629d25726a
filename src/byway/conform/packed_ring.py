# SPDX-License-Identifier: Apache-2.0
"""The driver's side of a packed virtqueue in plain Python (VIRTIO 1.2, 2.8).

Used by the sessions (backend) beside ring.SplitRing, with the same words.
"""

import struct
from collections.abc import Sequence

from byway.conform.layout import (
    AVAIL,
    EVENT_AT_SLOT,
    EVENT_DISABLE,
    EVENT_ENABLE,
    EVENT_FLAGS,
    INDIRECT,
    NEXT,
    USED,
    WRAP,
    WRITE,
)
from byway.conform.outcome import Failed
from byway.conform.ring import Chain, Piece, Ring, Used


class PackedRing(Ring):
    """2.8: one descriptor ring, and an event suppression structure for each side."""

    packed = True

    def parts(self, area: int) -> None:
        take, size = self.memory.take, self.size
        self.desc = take(16 * size, 16, area)
        self.avail = take(4, 4, area)  # the driver's event suppression
        self.used = take(4, 4, area)  # the device's
        for gpa, n in ((self.desc, 16 * size), (self.avail, 4), (self.used, 4)):
            self.memory.write(gpa, bytes(n))
        start = self.start or WRAP
        self.slot, self.wrap = start & (WRAP - 1), start >> 15 & 1
        self.used_slot, self.used_wrap = self.slot, self.wrap
        self.room = size
        self._pending: list[tuple[int, int]] = []  # (address of flags, flags), not shown yet
        self._kicked = self.slot | self.wrap << 15

    def describe(self, at: int, gpa: int, n: int, ident: int, flags: int) -> None:
        """Write one descriptor at a guest address, its flags last (2.8.13)."""
        self.memory.write(at, struct.pack("<QIH", gpa & (1 << 64) - 1, n, ident & 0xFFFF))
        self.memory.put16(at + 14, flags)

    def lap(self) -> int:
        """The flags that make a descriptor of this lap available."""
        return AVAIL if self.wrap else USED

    def step(self) -> None:
        """Go to the next slot."""
        self.slot += 1
        self.room -= 1
        if self.slot == self.size:
            self.slot, self.wrap = 0, self.wrap ^ 1

    def put(self, gpa: int, n: int, ident: int, flags: int, first: bool = True) -> int:
        """Write a descriptor at the next slot; the first of a chain shows with ``publish``."""
        at, flags = self.desc + 16 * self.slot, flags | self.lap()
        self.memory.write(at, struct.pack("<QIH", gpa & (1 << 64) - 1, n, ident & 0xFFFF))
        if first:
            self._pending.append((at + 14, flags))
        else:
            self.memory.put16(at + 14, flags)
        slot = self.slot
        self.step()
        return slot

    def indirect_table(self, pieces: Sequence[Piece], writable: bool) -> tuple[int, int]:
        table = self.memory.take(16 * len(pieces), 16)
        for k, (gpa, n) in enumerate(pieces):
            self.describe(table + 16 * k, gpa, n, 0, WRITE * writable)
        return table, 16 * len(pieces)

    def add(self, pieces: Sequence[Piece], content: bytes = b"", direct: int | None = None,
            writable: bool | None = None) -> Chain:
        writable = self.receive if writable is None else writable
        self.fill(pieces, content, writable)
        # Direct and indirect descriptors do not mix in one list (2.8.8).
        if direct is not None:
            entries = [(*self.indirect_table(pieces, writable), INDIRECT)]
        else:
            entries = [(gpa, n, WRITE * writable) for gpa, n in pieces]
        if self.room < len(entries) or not self.free:
            raise Failed(f"the tester has no free descriptors in ring {self.index}")
        ident = self.free.pop(0)
        slots = []
        for k, (gpa, n, flags) in enumerate(entries):
            more = 0 if k + 1 == len(entries) else NEXT
            slots.append(self.put(gpa, n, ident, flags | more, first=k == 0))
        chain = Chain(ident, slots, list(pieces), content, writable, direct)
        self.out[ident] = chain
        return chain

    def publish(self) -> bool:
        # The first chain's flags last: the device sees all of them or none.
        for at, flags in reversed(self._pending):
            self.memory.put16(at, flags)
        self._pending.clear()
        old, self._kicked = self._kicked, self.slot | self.wrap << 15
        flags = self.memory.get16(self.used + EVENT_FLAGS)
        if flags == EVENT_AT_SLOT and self.event_idx:
            return due(self.memory.get16(self.used), self._kicked, old, self.size)
        return flags != EVENT_DISABLE

    def poll(self) -> list[Used]:
        answer: list[Used] = []
        while self.out:
            at = self.desc + 16 * self.used_slot
            flags = self.memory.get16(at + 14)
            if flags & (AVAIL | USED) != (AVAIL | USED) * self.used_wrap:
                break
            n, ident = struct.unpack("<IH", self.memory.read(at + 8, 6))
            if ident not in self.out:
                raise Failed(f"ring {self.index}: used descriptor {self.used_slot} names buffer "
                             f"{ident}, which the device did not have")
            before = list(self.out)[: list(self.out).index(ident)] if self.in_order else []
            for skipped in before:
                chain = self.out[skipped]
                answer.append(self._back(skipped, chain.capacity if chain.writable else 0))
            answer.append(self._back(ident, n if flags & WRITE else 0))
        return answer

    def _back(self, ident: int, length: int) -> Used:
        chain = self.out.pop(ident)
        self.free.append(ident)
        self.room += len(chain.slots)
        self.used_slot += len(chain.slots)
        if self.used_slot >= self.size:
            self.used_slot, self.used_wrap = self.used_slot - self.size, self.used_wrap ^ 1
        return self.finish(chain, length)

    @property
    def position(self) -> int:
        return self.used_slot | self.used_wrap << 15

    def allow_calls(self, after: int = 0) -> None:
        if not self.event_idx:
            self.memory.put16(self.avail + EVENT_FLAGS, EVENT_ENABLE)
            return
        slot, wrap = self.used_slot + after, self.used_wrap
        if slot >= self.size:
            slot, wrap = slot - self.size, wrap ^ 1
        self.memory.put16(self.avail, slot | wrap << 15)
        self.memory.put16(self.avail + EVENT_FLAGS, EVENT_AT_SLOT)

    def refuse_calls(self) -> None:
        self.memory.put16(self.avail + EVENT_FLAGS, EVENT_DISABLE)


def due(event: int, new: int, old: int, size: int) -> bool:
    """Whether going from ``old`` to ``new`` (slot | wrap) passes the slot of ``event`` (2.8.14).

    Counted slot by slot: the event names the slot whose use is to be told of.
    """
    at = old
    while at != new:
        if at == event:
            return True
        slot = (at & (WRAP - 1)) + 1
        at = at + 1 if slot < size else (at & WRAP) ^ WRAP
    return False
