# SPDX-License-Identifier: Apache-2.0
"""In-flight tracking as the vhost-user document has it, step by step, and drivers that judge.

Used by test_inflight. ``cut`` kills whoever writes: it lets a number of stores happen and no more.
The drivers keep books of their own: which buffers they made available, and which came back. The
trackers are a back end that follows the document's lists of steps literally ("Inflight I/O
tracking"), returns buffers in any order, and shares nothing with the product but memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from byway.machine.dual import Watch
from byway.machine.layout import address_of, alloc
from byway.machine.mem import ld8, ld16, ld32, ld64, st8, st16, st32, st64
from byway.vhost.ring import Ring

AVAIL, USED, NEXT = 1 << 7, 1 << 15, 1
BYTE: Any = np.dtype("u1")


class Killed(Exception):
    """The process ends here."""


class Stores:
    """How many there were."""

    n = 0


@contextmanager
def cut(after: int | None = None) -> Iterator[Stores]:
    """Let ``after`` stores happen, then Killed; None: count them all."""
    stores = Stores()

    def see(name: str, arguments: tuple[object, ...]) -> None:
        if name.startswith("st"):
            if stores.n == after:
                raise Killed
            stores.n += 1

    Watch.see = see
    try:
        yield stores
    finally:
        Watch.see = None


class Room:
    """Zeroed memory."""

    def __init__(self, n: int) -> None:
        self.bytes = alloc(BYTE, n)
        self.address = address_of(self.bytes)


class Books:
    """Buffers by the number that the driver gave them: waiting at the device, and come back."""

    def __init__(self) -> None:
        self.waiting: dict[int, int] = {}  # id -> number of the buffer
        self.back: list[int] = []
        self.made = 0

    def give(self, identity: int) -> None:
        """The device has it from now on."""
        assert identity not in self.waiting
        self.waiting[identity] = self.made
        self.made += 1

    def take(self, identity: int) -> None:
        """The device returned it."""
        assert identity in self.waiting, f"buffer {identity} came back that the device had not"
        self.back.append(self.waiting.pop(identity))


class PackedDriver(Books):
    """The driver of a packed ring (VIRTIO 1.2, 2.8): offers chains, takes used ones."""

    def __init__(self, size: int, position: int) -> None:
        super().__init__()
        self.size = size
        self.memory = Room(16 * size + 8)
        self.desc = self.memory.address
        self.slot, self.wrap = position & 0x7FFF, position >> 15
        self.used_slot, self.used_wrap = self.slot, self.wrap
        self.free = size
        self._ids = list(range(size))
        self._slots: dict[int, int] = {}

    def ring(self, base: int) -> Ring:
        """The ring as a back end that begins has it."""
        ring = Ring(0)
        ring.size, ring.packed, ring.base, ring.ready = self.size, True, base, True
        ring.desc, ring.avail = self.desc, self.desc + 16 * self.size
        ring.used = ring.avail + 4
        return ring

    def offer(self, n: int) -> bool:
        """Make a chain of n descriptors available; -> whether there is room."""
        if n > self.free:
            return False
        identity = self._ids.pop()
        head, head_flags = self.slot, 0
        for k in range(n):
            at = self.desc + 16 * self.slot
            flags = (NEXT if k < n - 1 else 0) | (AVAIL if self.wrap else USED)
            st64(at, 0x1000 * self.made + k)
            st32(at + 8, 100 + k)
            st16(at + 12, identity)
            if k == 0:
                head_flags = flags
            else:
                st16(at + 14, flags)
            self.slot += 1
            if self.slot == self.size:
                self.slot, self.wrap = 0, 1 - self.wrap
        st16(self.desc + 16 * head + 14, head_flags)
        self.free -= n
        self._slots[identity] = n
        self.give(identity)
        return True

    def poll(self) -> None:
        """Take back what is used."""
        while True:
            at = self.desc + 16 * self.used_slot
            flags = ld16(at + 14)
            if {flags & AVAIL != 0, flags & USED != 0} != {bool(self.used_wrap)}:
                return
            identity = ld16(at + 12)
            self.take(identity)
            n = self._slots.pop(identity)
            self._ids.append(identity)
            self.free += n
            self.used_slot += n
            if self.used_slot >= self.size:
                self.used_slot -= self.size
                self.used_wrap = 1 - self.used_wrap


class SplitDriver(Books):
    """The driver of a split ring: each buffer is one descriptor, its head the buffer's id."""

    def __init__(self, size: int, position: int) -> None:
        super().__init__()
        self.size = size
        self.memory = Room(16 * size + 8 + 2 * size + 8 + 8 * size)
        self.desc = self.memory.address
        self.avail = self.desc + 16 * size
        self.used = self.avail + 4 + 2 * size + (4 - 2 * size) % 4
        self.next = self.seen = position
        st16(self.avail + 2, position)
        st16(self.used + 2, position)
        self._ids = list(range(size))

    def ring(self, base: int) -> Ring:
        """The ring as a back end that begins has it."""
        ring = Ring(0)
        ring.size, ring.base, ring.ready = self.size, base, True
        ring.desc, ring.avail, ring.used = self.desc, self.avail, self.used
        return ring

    def offer(self, n: int) -> bool:
        """Make a buffer available; -> whether there is room."""
        if not self._ids:
            return False
        identity = self._ids.pop(self.made * 7 % len(self._ids))
        st16(self.avail + 4 + 2 * (self.next % self.size), identity)
        self.next = (self.next + 1) & 0xFFFF
        st16(self.avail + 2, self.next)
        self.give(identity)
        return True

    def poll(self) -> None:
        """Take back what is used."""
        while self.seen != ld16(self.used + 2):
            identity = ld32(self.used + 4 + 8 * (self.seen % self.size))
            self.take(identity)
            self._ids.append(identity)
            self.seen = (self.seen + 1) & 0xFFFF


# ---------------------------------------------------------------- the document's back end


class PackedTracker:
    """A back end for a packed ring that has chains in flight and returns them in any order."""

    def __init__(self, driver: PackedDriver, part: int, position: int) -> None:
        self.driver, self.part = driver, part
        self.avail, self.wrap = position & 0x7FFF, position >> 15
        self.counter = 0
        self.flying: list[int] = []  # entries

    def _entry(self, i: int) -> int:
        return self.part + 32 + 32 * i

    def receive(self) -> bool:
        """Take one chain, as "When receiving available buffers from the driver" has it."""
        flags = ld16(self.driver.desc + 16 * self.avail + 14)
        if flags & (AVAIL | USED) != (AVAIL if self.wrap else USED) or (
                len(self.flying) and sum(ld16(self._entry(i) + 6) for i in self.flying)
                >= self.driver.size):
            return False
        part = self.part
        head = self._entry(ld16(part + 14))
        entry, first, last = ld16(part + 14), True, False
        while not last:
            d = self.driver.desc + 16 * self.avail
            flags = ld16(d + 14)
            last = not flags & NEXT
            if first:
                st16(head + 6, 0)
                st64(head + 8, self.counter)
                self.counter += 1
                st8(head, 1)
            if last:
                st16(head + 4, ld16(part + 12))
            st16(head + 6, ld16(head + 6) + 1)
            e = self._entry(ld16(part + 12))
            st64(e + 24, ld64(d))
            st32(e + 20, ld32(d + 8))
            st16(e + 18, flags)
            st16(e + 16, ld16(d + 12))
            st16(part + 12, ld16(e + 2))
            if last:
                st16(part + 14, ld16(part + 12))
            first = False
            self.avail += 1
            if self.avail == self.driver.size:
                self.avail, self.wrap = 0, 1 - self.wrap
        self.flying.append(entry)
        return True

    def supply(self, chosen: Sequence[int]) -> None:
        """Return these chains as one batch: "When supplying used buffers to the driver"."""
        part, slot, wrap = self.part, ld16(self.part + 16), ld8(self.part + 20)
        words = []
        for i in chosen:
            e = self._entry(i)
            st16(self._entry(ld16(e + 4)) + 2, ld16(part + 12))
            st16(part + 12, i)
            words.append((slot, wrap, ld16(self._entry(ld16(e + 4)) + 16)))
            slot += ld16(e + 6)
            if slot >= self.driver.size:
                slot, wrap = slot - self.driver.size, 1 - wrap
        # The document says "increase used_idx and update used_wrap_counter": as one store here,
        # since between two of them nobody could tell what is meant.
        st64(part + 16, slot | ld16(part + 18) << 16 | wrap << 32 | ld8(part + 21) << 40)
        for at, lap, identity in [*words[1:], words[0]]:
            d = self.driver.desc + 16 * at
            st32(d + 8, 0)
            st16(d + 12, identity)
            st16(d + 14, AVAIL | USED if lap else 0)
        for i in chosen:
            st8(self._entry(i), 0)
            self.flying.remove(i)
        st16(part + 14, ld16(part + 12))
        st64(part + 16, slot | slot << 16 | wrap << 32 | wrap << 40)


class SplitTracker:
    """A back end for a split ring that has buffers in flight and returns them in any order."""

    def __init__(self, driver: SplitDriver, part: int, position: int) -> None:
        self.driver, self.part = driver, part
        self.avail = position
        self.counter = 0
        self.flying: list[int] = []  # heads

    def receive(self) -> bool:
        """Take one buffer."""
        if self.avail == ld16(self.driver.avail + 2):
            return False
        i = ld16(self.driver.avail + 4 + 2 * (self.avail % self.driver.size))
        st64(self.part + 16 + 16 * i + 8, self.counter)
        self.counter += 1
        st8(self.part + 16 + 16 * i, 1)
        self.flying.append(i)
        self.avail = (self.avail + 1) & 0xFFFF
        return True

    def supply(self, chosen: Sequence[int]) -> None:
        """Return these buffers as one batch."""
        used = ld16(self.driver.used + 2)
        for k, i in enumerate(chosen):
            st64(self.driver.used + 4 + 8 * ((used + k) % self.driver.size), i)
            st16(self.part + 16 + 16 * i + 6, ld16(self.part + 12))
            st16(self.part + 12, i)
        used = (used + len(chosen)) & 0xFFFF
        st16(self.driver.used + 2, used)
        for i in chosen:
            st8(self.part + 16 + 16 * i, 0)
            self.flying.remove(i)
        st16(self.part + 14, used)
