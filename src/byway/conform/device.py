# SPDX-License-Identifier: Apache-2.0
"""The device's side of a virtqueue in plain Python, both formats: takes chains, gives them back.

Used by plain_back_end. VIRTIO 1.2: 2.7, 2.8. It believes the driver nothing: whatever a chain may
not be is noted in ``faults`` (name of the rule, what was seen), and the chain is given back unused.
"""

import contextlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from byway.conform.layout import (
    AVAIL,
    AVAIL_NO_INTERRUPT,
    EVENT_AT_SLOT,
    EVENT_DISABLE,
    EVENT_ENABLE,
    EVENT_FLAGS,
    INDIRECT,
    NEXT,
    USED,
    USED_NO_NOTIFY,
    WRAP,
    WRITE,
)
from byway.conform.memory import GuestMemory
from byway.conform.outcome import Failed
from byway.conform.packed_ring import due
from byway.conform.ring import crossed
from byway.virtio.features import Feature, has

Descriptor = tuple[int, int, int, int]  # address, length, flags, next (split) or id (packed)


@dataclass
class Taken:
    """A chain as the device sees it: pieces to read, then pieces to write."""

    head: int
    slots: int = 1
    readable: list[tuple[int, int]] = field(default_factory=list)
    writable: list[tuple[int, int]] = field(default_factory=list)
    bad: bool = False

    @property
    def room(self) -> int:
        """Bytes that can be written."""
        return sum(n for _, n in self.writable)


class DeviceRing:
    """One virtqueue. ``desc``, ``avail``, ``used``: guest addresses; ``base``: where to go on."""

    def __init__(self, memory: GuestMemory, index: int, size: int, features: int, base: int,
                 desc: int, avail: int, used: int, note: Callable[[str, str], None]) -> None:
        self.memory, self.index, self.size, self.features = memory, index, size, features
        self.desc, self.avail, self.used = desc, avail, used
        self.packed = has(features, Feature.RING_PACKED)
        self.event_idx = has(features, Feature.EVENT_IDX)
        self.position = base & 0xFFFF if self.packed else base
        self.used_position = self.position
        if not self.packed:
            self.used_position = memory.get16(used + 2)
        self._signalled: int | None = None  # where the driver was last considered for a call
        self._note = note
        self.kicks_wanted = True

    def note(self, rule: str, text: str) -> None:
        """Say that the driver broke a rule."""
        self._note(rule, f"ring {self.index}: {text}")

    # ------------------------------------------------------------ taking
    def waiting(self) -> int:
        """How many chains are there to be taken (packed: 0 or 1)."""
        if not self.packed:
            count = (self.memory.get16(self.avail + 2) - self.position) % 65536
            if count > self.size:
                self.note("driver.available-index", f"the available index is {count} ahead in a "
                          f"ring of {self.size}")
                return 0
            return count
        return int(self._available(self.position))

    def _available(self, at: int) -> bool:
        """Whether the packed descriptor at a position is the driver's last word (2.8.1)."""
        flags = self.memory.get16(self.desc + 16 * (at & WRAP - 1) + 14)
        return bool(flags & AVAIL) == bool(at >> 15) != bool(flags & USED)

    def posted(self) -> int:
        """How many chains (packed: descriptors) the driver has made available."""
        if not self.packed:
            return self.waiting()
        count, at = 0, self.position
        while count < self.size and self._available(at):
            slot = (at & WRAP - 1) + 1
            count, at = count + 1, at + 1 if slot < self.size else (at & WRAP) ^ WRAP
        return count

    def take(self) -> Taken | None:
        """The next chain, None where there is none."""
        if not self.waiting():
            return None
        try:
            return self._take_packed() if self.packed else self._take_split()
        except Failed as error:
            self.note("driver.addresses", str(error))
            return Taken(0, bad=True)

    def _take_split(self) -> Taken:
        slot = self.avail + 4 + 2 * (self.position % self.size)
        head = self.memory.get16(slot)
        self.position = (self.position + 1) % 65536
        taken = Taken(head)
        at, seen = head, 0
        while True:
            if at >= self.size or seen >= self.size:
                self.note("driver.chain", f"chain {head} leads to descriptor {at} after {seen} in "
                          f"a ring of {self.size}")
                taken.bad = True
                return taken
            address, n, flags, following = self._descriptor(self.desc + 16 * at)
            seen += 1
            if flags & INDIRECT:
                if flags & NEXT:
                    self.note("driver.indirect", f"descriptor {at} is indirect and has a next")
                self._indirect(taken, address, n)
                return taken
            self._piece(taken, address, n, flags)
            if not flags & NEXT:
                return taken
            at = following

    def _take_packed(self) -> Taken:
        taken = Taken(0, 0)
        wrap = self.position >> 15
        while True:
            slot = self.position & WRAP - 1
            address, n, ident, flags = self._descriptor(self.desc + 16 * slot)
            taken.slots += 1
            self.position = slot + 1 | wrap << 15
            if slot + 1 == self.size:
                wrap ^= 1
                self.position = wrap << 15
            taken.head = ident
            if flags & INDIRECT:
                if flags & NEXT or taken.slots > 1:
                    self.note("driver.indirect", f"slot {slot} is indirect, and in a chain")
                self._indirect(taken, address, n)
                return taken
            self._piece(taken, address, n, flags)
            if not flags & NEXT:
                return taken
            if taken.slots >= self.size:
                self.note("driver.chain", f"a chain of more than {self.size} descriptors")
                taken.bad = True
                return taken

    def _descriptor(self, gpa: int) -> Descriptor:
        return struct.unpack("<QIHH", self.memory.read(gpa, 16))

    def _indirect(self, taken: Taken, table: int, n: int) -> None:
        if not has(self.features, Feature.INDIRECT_DESC):
            self.note("driver.unnegotiated", "an indirect descriptor without INDIRECT_DESC")
        if n == 0 or n % 16:
            self.note("driver.indirect", f"an indirect table of {n} bytes")
            taken.bad = True
            return
        at, seen = 0, 0
        while True:
            if at >= n // 16 or seen >= n // 16:
                self.note("driver.chain", f"an indirect table of {n // 16} leads to entry {at}")
                taken.bad = True
                return
            address, size, third, fourth = self._descriptor(table + 16 * at)
            flags, following = (fourth, at + 1) if self.packed else (third, fourth)
            seen += 1
            if flags & INDIRECT:
                self.note("driver.indirect", "an indirect table within an indirect table")
            self._piece(taken, address, size, flags)
            if self.packed:
                if following == n // 16:
                    return
            elif not flags & NEXT:
                return
            at = following

    def _piece(self, taken: Taken, gpa: int, n: int, flags: int) -> None:
        if flags & WRITE:
            taken.writable.append((gpa, n))
        else:
            if taken.writable:
                self.note("driver.chain-order", "a readable descriptor after a writable one")
            taken.readable.append((gpa, n))
        if n == 0:
            self.note("driver.empty-descriptor", "a descriptor of no bytes")
        elif not self._inside(gpa, n):
            self.note("driver.addresses", f"{n} bytes at guest address {gpa:#x} are in no memory "
                      "region")
            taken.bad = True

    def _inside(self, gpa: int, n: int) -> bool:
        areas = self.memory.areas
        return all(any(a.gpa <= at < a.gpa + a.size for a in areas) for at in (gpa, gpa + n - 1))

    def content(self, taken: Taken) -> bytes:
        """What a chain holds to be read."""
        return b"".join(self.memory.read(gpa, n) for gpa, n in taken.readable)

    def store(self, taken: Taken, data: bytes) -> int:
        """Write into a chain; -> bytes written."""
        written = 0
        for gpa, n in taken.writable:
            part = data[written : written + n]
            self.memory.write(gpa, part)
            written += len(part)
        return written

    # ------------------------------------------------------------ giving back
    def give_back(self, chains: list[tuple[Taken, int]]) -> None:
        """Mark chains used, each with the bytes written into it; seen together."""
        if self.packed:
            self._give_back_packed(chains)
            return
        for k, (taken, length) in enumerate(chains):
            slot = (self.used_position + k) % 65536 % self.size
            self.memory.write(self.used + 4 + 8 * slot, struct.pack("<II", taken.head, length))
        self.used_position = (self.used_position + len(chains)) % 65536
        self.memory.put16(self.used + 2, self.used_position)

    def _give_back_packed(self, chains: list[tuple[Taken, int]]) -> None:
        shown = []
        for taken, length in chains:
            slot, wrap = self.used_position & WRAP - 1, self.used_position >> 15
            at = self.desc + 16 * slot
            self.memory.write(at + 8, struct.pack("<IH", length, taken.head))
            shown.append((at + 14, (AVAIL | USED) * wrap | WRITE * bool(length)))
            slot += taken.slots
            if slot >= self.size:
                slot, wrap = slot - self.size, wrap ^ 1
            self.used_position = slot | wrap << 15
        for at, flags in reversed(shown):
            self.memory.put16(at, flags)

    def wants_call(self) -> bool:
        """Whether the driver asked to be called for what was used since this was last asked."""
        old, new = self._signalled, self.used_position
        self._signalled = new
        if old is None:
            return True
        if self.packed:
            flags = self.memory.get16(self.avail + EVENT_FLAGS)
            if flags == EVENT_AT_SLOT and self.event_idx:
                return due(self.memory.get16(self.avail), new, old, self.size)
            return flags != EVENT_DISABLE
        if self.event_idx:
            return crossed(self.memory.get16(self.avail + 4 + 2 * self.size), new, old)
        return not self.memory.get16(self.avail) & AVAIL_NO_INTERRUPT

    def want_kicks(self, wanted: bool) -> None:
        """Ask to be kicked for the next chain, or not to be kicked."""
        self.kicks_wanted = wanted
        if self.packed:
            if wanted and self.event_idx:
                self.memory.put16(self.used, self.position)
                self.memory.put16(self.used + EVENT_FLAGS, EVENT_AT_SLOT)
            else:
                self.memory.put16(self.used + EVENT_FLAGS,
                                  EVENT_ENABLE if wanted else EVENT_DISABLE)
        elif self.event_idx:
            # Not the chain before: a driver that added it may not have looked here yet.
            far = self.position + (0 if wanted else 0x8000)
            self.memory.put16(self.used + 4 + 8 * self.size, far)
        else:
            self.memory.put16(self.used, 0 if wanted else USED_NO_NOTIFY)


def call(fd: int) -> None:
    """Write a call fd: it may be full, a pipe that nobody reads any more, or none at all. What is
    wrong with it is the front end's loss."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.eventfd_write(fd, 1)
