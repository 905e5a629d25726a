# SPDX-License-Identifier: Apache-2.0
"""A driver of a split virtqueue in plain Python: slow, obvious, strict. The oracle for devices.

    memory = PlainMemory([(0x100000, address, size)])         # (guest address, host address, bytes)
    queue = PlainDriver(memory, 256, features, receive=False)
    queue.send(frame, Layout((12, 20), direct=1))             # header apart, the rest indirect
    queue.publish()
    ... the device runs ...
    queue.reap()                                              # checks the used ring; -> heads

Used by tests of devices, Byway's and others'; plain_packed_driver.py is its like for packed rings,
plain_queue.py holds what both share: how buffers are laid out and devices judged. A chain is named
by its head, the index of its first descriptor. VIRTIO 1.2: 2.7 (split virtqueues).
"""

import struct

from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_queue import (
    EVENT_IDX,
    IN_ORDER,
    INDIRECT,
    INDIRECT_DESC,
    MRG_RXBUF,
    NEXT,
    VERSION_1,
    WRITE,
    Chain,
    DeviceError,
    PlainQueue,
    Used,
)

__all__ = ["EVENT_IDX", "INDIRECT_DESC", "IN_ORDER", "MRG_RXBUF", "VERSION_1", "Chain",
           "DeviceError", "Layout", "PlainDriver", "PlainMemory", "crossed"]

NO_INTERRUPT = NO_NOTIFY = 1


def crossed(event: int, new: int, old: int) -> bool:
    """Is event + 1 among the indices from old + 1 to new? Counted one by one (2.7.10)."""
    steps = (new - old) % 65536
    return any((old + k) % 65536 == (event + 1) % 65536 for k in range(1, steps + 1))


class PlainDriver(PlainQueue):
    """One split virtqueue.

    ``start``: the value both indices begin at (a fresh queue's is 0; others test the wrap from
    65535 to 0). With IN_ORDER descriptors are taken in the order of the table (2.7.9).
    """

    def __init__(self, memory: PlainMemory, size: int, features: int, *, receive: bool,
                 start: int = 0, region: int = 0) -> None:
        super().__init__(memory, size, features, receive=receive)
        self.desc = memory.take(16 * size, 16, region)
        self.avail = memory.take(6 + 2 * size, 2, region)
        self.used = memory.take(6 + 8 * size, 4, region)
        self.avail_idx = self.used_seen = self.published = self.considered = start
        memory.write(self.desc, bytes(16 * size))
        memory.write(self.avail, bytes(6 + 2 * size))
        memory.write(self.used, bytes(6 + 8 * size))
        self.free = list(range(size))
        self._put16(self.avail + 2, start)
        self._put16(self.used + 2, start)

    # ------------------------------------------------------------ words
    def _put16(self, gpa: int, value: int) -> None:
        self.memory.write(gpa, struct.pack("<H", value & 0xFFFF))

    def _get16(self, gpa: int) -> int:
        return int(struct.unpack("<H", self.memory.read(gpa, 2))[0])

    @property
    def used_idx(self) -> int:
        """The device's index."""
        return self._get16(self.used + 2)

    # ------------------------------------------------------------ chains
    @property
    def room(self) -> int:
        """Free entries of the descriptor table."""
        return len(self.free)

    def descriptors_for(self, total: int, layout: Layout) -> int:
        """How many entries of the descriptor table a buffer takes."""
        pieces = len(layout.sizes(total))
        return pieces if layout.direct is None else min(layout.direct, pieces - 1) + 1

    def _list(self, places: list[tuple[int, int]], layout: Layout) -> tuple[int, list[int]]:
        """Write the descriptors of a chain and its entry of the available ring."""
        flag = WRITE if self.receive else 0
        direct = len(places) if layout.direct is None else min(layout.direct, len(places) - 1)
        inside = places[direct:]
        taken = [self.free.pop(0 if self.in_order else -1) for _ in range(direct + bool(inside))]
        for k, (gpa, n) in enumerate(places[:direct]):
            last = k + 1 == len(taken)
            following = 0 if last else taken[k + 1]
            self._describe(self.desc + 16 * taken[k], gpa, n, flag | (0 if last else NEXT),
                           following)
        if inside:
            table = self.memory.take(16 * len(inside), 16)
            for k, (gpa, n) in enumerate(inside):
                last = k + 1 == len(inside)
                self._describe(table + 16 * k, gpa, n, flag | (0 if last else NEXT),
                               0 if last else k + 1)
            self._describe(self.desc + 16 * taken[direct], table, 16 * len(inside), INDIRECT, 0)
        self._put16(self.avail + 4 + 2 * (self.avail_idx % self.size), taken[0])
        self.avail_idx = (self.avail_idx + 1) % 65536
        return taken[0], taken

    def _describe(self, at: int, gpa: int, n: int, flags: int, following: int) -> None:
        self.memory.write(at, struct.pack("<QIHH", gpa, n, flags, following))

    def publish(self) -> bool:
        """Let the device see what was added; -> whether it asked to be kicked (2.7.10)."""
        self._put16(self.avail + 2, self.avail_idx)
        old, self.published = self.published, self.avail_idx
        for chain in self.chains.values():
            chain.published = True
        if self.event_idx:
            event = self._get16(self.used + 4 + 8 * self.size)
            return crossed(event, self.published, old)
        return not self._get16(self.used) & NO_NOTIFY

    # ------------------------------------------------------------ notifications
    def ask_for_calls(self, after: int = 0) -> None:
        """Ask for a call once ``after`` + 1 more buffers are used (2.7.7); else any."""
        if self.event_idx:
            self._put16(self.avail + 4 + 2 * self.size, self.used_seen + after)
        else:
            self._put16(self.avail, 0)

    def refuse_calls(self) -> None:
        """Ask not to be called (with EVENT_IDX: as late as possible)."""
        if self.event_idx:
            self._put16(self.avail + 4 + 2 * self.size, self.used_seen - 1)
        else:
            self._put16(self.avail, NO_INTERRUPT)

    def call_is_due(self) -> bool:
        """Must the device have called for what it used since this was asked last?"""
        old, self.considered = self.considered, self.used_idx
        if self.event_idx:
            return crossed(self._get16(self.avail + 4 + 2 * self.size), self.considered, old)
        return old != self.considered and not self._get16(self.avail) & NO_INTERRUPT

    # ------------------------------------------------------------ the used ring
    def take_used(self) -> list[Used]:
        """New entries of the used ring as (head, length, chain), checked; the chains are free.

        With IN_ORDER one entry may stand for a batch (2.7.9): it lies where the first one's would,
        names the last, and the next entry comes as many entries later as the batch has chains.
        """
        count = (self.used_idx - self.used_seen) % 65536
        outstanding = (self.published - self.used_seen) % 65536
        if count > min(outstanding, self.size):
            raise DeviceError(f"used {count} buffers where {outstanding} were available")
        answer: list[Used] = []
        while len(answer) < count:
            at = self.used + 4 + 8 * (self.used_seen % self.size)
            head, length = struct.unpack("<II", self.memory.read(at, 8))
            names = self.names_up_to(head, self.outstanding())
            if len(answer) + len(names) > count:
                raise DeviceError(f"the used index says {count} buffers, the entries name more")
            answer += self.finish(names, length)
            self.used_seen = (self.used_seen + len(names)) % 65536
        for _, _, chain in answer:
            self.free += chain.descriptors
        return answer
