# SPDX-License-Identifier: Apache-2.0
"""The driver's side of a virtqueue in plain Python: what both formats share, and the split one.

Used by the sessions (backend). VIRTIO 1.2: 2.7 (split); packed_ring has 2.8. ``add`` writes a
chain, ``publish`` shows it to the device, ``reap`` takes back what was used. What makes it
impossible to go on (a chain used that the device did not have, an index that jumps) raises Failed;
what merely is wrong is noted in ``faults`` for the check that asks about it.
"""

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from byway.conform.layout import (
    AVAIL_NO_INTERRUPT,
    INDIRECT,
    NEXT,
    USED_NO_NOTIFY,
    WRITE,
)
from byway.conform.memory import GuestMemory
from byway.conform.outcome import Failed
from byway.virtio.features import Feature, has

FILL = 0xA5  # what writable buffers hold before the device writes
PAUSE = 0.0003  # seconds between two looks at a ring
Piece = tuple[int, int]  # guest address, bytes


@dataclass
class Chain:
    """One buffer of one or more pieces that the device was given."""

    head: int
    slots: list[int]
    pieces: list[Piece]
    content: bytes  # of a readable one
    writable: bool
    direct: int | None = None  # so many pieces outside an indirect table, None: all

    @property
    def capacity(self) -> int:
        """Bytes of all pieces."""
        return sum(n for _, n in self.pieces)


@dataclass
class Used:
    """A chain that the device gave back, and the length it said."""

    chain: Chain
    length: int


@dataclass(frozen=True)
class Fault:
    """Something wrong that did not stop the driver."""

    kind: str
    text: str


class Ring:
    """``size`` entries; ``receive``: the device writes; ``start``: both positions begin there."""

    packed = False

    def __init__(self, memory: GuestMemory, index: int, size: int, features: int, *,
                 receive: bool, start: int = 0, area: int = 0) -> None:
        self.memory, self.index, self.size, self.receive = memory, index, size, receive
        self.event_idx = has(features, Feature.EVENT_IDX)
        self.in_order = has(features, Feature.IN_ORDER)
        self.start = start
        self.kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.free = list(range(size))
        self.out: dict[int, Chain] = {}  # what the device has, in the order it got it
        self.faults: list[Fault] = []
        self.parts(area)

    # ------------------------------------------------------------ of each format
    desc = avail = used = 0  # guest addresses

    def parts(self, area: int) -> None:
        """Place the parts of the ring in memory."""
        raise NotImplementedError

    def add(self, pieces: Sequence[Piece], content: bytes = b"", direct: int | None = None,
            writable: bool | None = None) -> Chain:
        """Make a chain of pieces; ``direct``: so many, the others in an indirect table."""
        raise NotImplementedError

    def publish(self) -> bool:
        """Let the device see what was added; -> whether it wants to be kicked."""
        raise NotImplementedError

    def poll(self) -> list[Used]:
        """What was used since the last look."""
        raise NotImplementedError

    @property
    def position(self) -> int:
        """What SET_VRING_BASE says to go on from here."""
        raise NotImplementedError

    def allow_calls(self, after: int = 0) -> None:
        """Ask for a call, with EVENT_IDX once ``after`` + 1 more chains are used."""
        raise NotImplementedError

    def refuse_calls(self) -> None:
        """Ask not to be called."""
        raise NotImplementedError

    # ------------------------------------------------------------ of both
    def reap(self, count: int, seconds: float) -> list[Used]:
        """``count`` used chains; Failed where they do not come in time."""
        used: list[Used] = []
        end = time.monotonic() + seconds
        while True:
            used += self.poll()
            if len(used) >= count:
                return used
            if time.monotonic() > end:
                raise Failed(f"ring {self.index}: {len(used)} of {count} chains used within "
                             f"{seconds:g} s")
            time.sleep(PAUSE)

    def notify(self) -> None:
        """Kick, wanted or not."""
        os.eventfd_write(self.kick, 1)

    def calls(self) -> int:
        """Calls since the last look."""
        try:
            return os.eventfd_read(self.call)
        except BlockingIOError:
            return 0

    def called(self, seconds: float) -> bool:
        """Whether a call comes in time."""
        end = time.monotonic() + seconds
        while not (came := self.calls()) and time.monotonic() < end:
            time.sleep(PAUSE)
        return bool(came)

    def fill(self, pieces: Sequence[Piece], content: bytes, writable: bool) -> None:
        """Write a chain's content into its pieces, or the pattern where the device is to write."""
        rest = bytes([FILL]) * sum(n for _, n in pieces) if writable else content
        for gpa, n in pieces:
            self.memory.write(gpa, rest[:n])
            rest = rest[n:]

    def content(self, chain: Chain) -> bytes:
        """What the pieces hold now."""
        return b"".join(self.memory.read(gpa, n) for gpa, n in chain.pieces)

    def finish(self, chain: Chain, length: int) -> Used:
        """Note what is wrong with a chain that came back."""
        data = self.content(chain)
        if not chain.writable:
            if length:
                self.fault("length", f"used length {length} of chain {chain.head}, in which the "
                           "device can write nothing")
            if data != chain.content:
                self.fault("readable", f"the device wrote into readable chain {chain.head}")
        elif length > chain.capacity:
            self.fault("length", f"used length {length} of a chain of {chain.capacity} bytes")
        elif data[length:] != bytes([FILL]) * (len(data) - length):
            self.fault("beyond", f"bytes beyond the used length {length} of chain {chain.head} "
                       "were written")
        return Used(chain, length)

    def fault(self, kind: str, text: str) -> None:
        """Note what is wrong."""
        self.faults.append(Fault(kind, f"ring {self.index}: {text}"))

    def wrong(self, kind: str) -> str:
        """The first fault of a kind, "" where there is none."""
        return next((f.text for f in self.faults if f.kind == kind), "")

    def indirect_table(self, pieces: Sequence[Piece], writable: bool) -> tuple[int, int]:
        """A table of the format; -> (guest address, bytes)."""
        raise NotImplementedError

    def new_call(self) -> int:
        """Another call fd in place of the one so far, which is the caller's now."""
        old, self.call = self.call, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return old

    def close(self) -> None:
        """Close the event fds. Idempotent."""
        for fd in (self.kick, self.call):
            if fd >= 0:
                os.close(fd)
        self.kick = self.call = -1


def crossed(event: int, new: int, old: int) -> bool:
    """Is event + 1 among the indices from old + 1 to new (2.7.10)?"""
    return (new - event - 1) % 65536 < (new - old) % 65536


class SplitRing(Ring):
    """2.7: a descriptor table, an available ring and a used ring."""

    def parts(self, area: int) -> None:
        take, size = self.memory.take, self.size
        self.desc = take(16 * size, 16, area)
        self.avail = take(6 + 2 * size, 4, area)
        self.used = take(6 + 8 * size, 4, area)
        self.avail_idx = self.published = self.used_seen = self.start & 0xFFFF
        for gpa, n in ((self.desc, 16 * size), (self.avail, 6 + 2 * size),
                       (self.used, 6 + 8 * size)):
            self.memory.write(gpa, bytes(n))
        self.memory.put16(self.avail + 2, self.avail_idx)
        self.memory.put16(self.used + 2, self.used_seen)

    def describe(self, at: int, gpa: int, n: int, flags: int, following: int = 0) -> None:
        """Write one descriptor at a guest address (2.7.5)."""
        self.memory.write(at, struct.pack("<QIHH", gpa & (1 << 64) - 1, n, flags, following))

    def show(self, head: int) -> None:
        """Name a head in the available ring; ``publish`` moves the index."""
        self.memory.put16(self.avail + 4 + 2 * (self.avail_idx % self.size), head)
        self.avail_idx = (self.avail_idx + 1) % 65536

    def indirect_table(self, pieces: Sequence[Piece], writable: bool) -> tuple[int, int]:
        table = self.memory.take(16 * len(pieces), 16)
        for k, (gpa, n) in enumerate(pieces):
            last = k + 1 == len(pieces)
            self.describe(table + 16 * k, gpa, n, WRITE * writable | (0 if last else NEXT),
                          0 if last else k + 1)
        return table, 16 * len(pieces)

    def add(self, pieces: Sequence[Piece], content: bytes = b"", direct: int | None = None,
            writable: bool | None = None) -> Chain:
        writable = self.receive if writable is None else writable
        self.fill(pieces, content, writable)
        outside = len(pieces) if direct is None else direct
        entries = [(gpa, n, WRITE * writable) for gpa, n in pieces[:outside]]
        if pieces[outside:]:
            entries.append((*self.indirect_table(pieces[outside:], writable), INDIRECT))
        if len(self.free) < len(entries):
            raise Failed(f"the tester has no free descriptors in ring {self.index}")
        slots = [self.free.pop(0) for _ in entries]
        for k, (gpa, n, flags) in enumerate(entries):
            last = k + 1 == len(entries)
            self.describe(self.desc + 16 * slots[k], gpa, n, flags | (0 if last else NEXT),
                          0 if last else slots[k + 1])
        chain = Chain(slots[0], slots, list(pieces), content, writable, direct)
        self.out[chain.head] = chain
        self.show(chain.head)
        return chain

    def publish(self) -> bool:
        self.memory.put16(self.avail + 2, self.avail_idx)
        old, self.published = self.published, self.avail_idx
        if self.event_idx:
            event = self.memory.get16(self.used + 4 + 8 * self.size)
            return crossed(event, self.published, old)
        return not self.memory.get16(self.used) & USED_NO_NOTIFY

    @property
    def used_idx(self) -> int:
        """The device's index."""
        return self.memory.get16(self.used + 2)

    def poll(self) -> list[Used]:
        count = (self.used_idx - self.used_seen) % 65536
        if count > (self.published - self.used_seen) % 65536:
            raise Failed(f"ring {self.index}: the used index went from {self.used_seen} to "
                         f"{self.used_idx} while the available index is {self.published}")
        answer: list[Used] = []
        while len(answer) < count:
            at = self.used + 4 + 8 * (self.used_seen % self.size)
            head, length = struct.unpack("<II", self.memory.read(at, 8))
            if head not in self.out:
                raise Failed(f"ring {self.index}: used entry {self.used_seen % self.size} names "
                             f"{head}, which is no head of a chain that the device had")
            # In order, one entry may stand for all chains up to its own (2.7.9).
            before = list(self.out)[: list(self.out).index(head)] if self.in_order else []
            for skipped in before:
                answer.append(self._back(skipped, self.out[skipped].capacity
                                         if self.out[skipped].writable else 0))
            answer.append(self._back(head, length))
        return answer

    def _back(self, head: int, length: int) -> Used:
        chain = self.out.pop(head)
        self.free += chain.slots
        self.used_seen = (self.used_seen + 1) % 65536
        return self.finish(chain, length)

    @property
    def position(self) -> int:
        return self.used_seen

    def allow_calls(self, after: int = 0) -> None:
        if self.event_idx:
            self.memory.put16(self.avail + 4 + 2 * self.size, self.used_seen + after)
        else:
            self.memory.put16(self.avail, 0)

    def refuse_calls(self) -> None:
        if self.event_idx:
            self.memory.put16(self.avail + 4 + 2 * self.size, self.used_seen - 1)
        else:
            self.memory.put16(self.avail, AVAIL_NO_INTERRUPT)
