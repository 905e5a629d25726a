# SPDX-License-Identifier: Apache-2.0
"""A device of virtqueues in plain Python: slow, obvious, strict. The oracle for drivers.

    memory = PlainMemory([(0x100000, address, size)])      # (guest address, host address, bytes)
    device = plain_device(memory, 256, features, desc, avail, used)      # guest addresses
    taken = device.take()                     # chains that the driver made available, checked
    device.content(taken[0])                  # what a readable chain holds
    device.fill(taken[1], data)               # into a writable one; -> bytes
    device.use([taken[1], taken[0]], [len(data), 0])       # in any order, or several as one

Used by tests of drivers, Byway's and others'; the drivers' counterpart is plain_driver.py. It knows
nothing of kernels, only struct. VIRTIO 1.2: 2.7 (split), 2.8 (packed). Direct descriptors only.

Whatever the driver does against the specification is a DriverError that says what and where: an
index that jumps, a chain that loops or is made available twice, a readable descriptor behind a
writable one, flags of another lap, descriptors out of order where IN_ORDER was negotiated.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from byway.testing.plain_memory import PlainMemory
from byway.testing.plain_queue import (
    EVENT_IDX,
    IN_ORDER,
    INDIRECT,
    MRG_RXBUF,
    NEXT,
    RING_PACKED,
    WRITE,
    header_bytes,
)

AVAIL, USED = 0x80, 0x8000
NO_INTERRUPT = NO_NOTIFY = 1
ENABLE, DISABLE, AT_SLOT = 0, 1, 2


class DriverError(AssertionError):
    """The driver did something that VIRTIO does not allow."""


@dataclass(frozen=True)
class Taken:
    """A chain that the device has. ``name``: how the device names it when it is used."""

    name: int
    readable: list[tuple[int, int]]  # (guest address, bytes)
    writable: list[tuple[int, int]]
    descriptors: int

    @property
    def capacity(self) -> int:
        """Bytes that the device may write."""
        return sum(n for _, n in self.writable)


class PlainDevice(ABC):
    """One virtqueue of ``size`` entries whose parts lie at guest addresses.

    ``avail``, ``used``: the rings, or the driver's and the device's event suppression.
    """

    def __init__(self, memory: PlainMemory, size: int, features: int, desc: int, avail: int,
                 used: int) -> None:
        self.memory, self.size = memory, size
        self.desc, self.avail, self.used = desc, avail, used
        self.event_idx = bool(features & EVENT_IDX)
        self.in_order = bool(features & IN_ORDER)
        self.merge = bool(features & MRG_RXBUF)
        self.header = header_bytes(features)
        self.held: dict[int, Taken] = {}  # taken and not used, oldest first

    # ------------------------------------------------------------ what a ring format does
    @abstractmethod
    def take(self, limit: int = 65536) -> list[Taken]:
        """Chains that the driver made available since, at most ``limit``."""

    @abstractmethod
    def _write(self, entries: list[tuple[Taken, int, int, int]], publish: bool) -> None:
        """Write used entries (chain, length, chains and descriptors that it stands for)."""

    @abstractmethod
    def ask_for_kicks(self, after: int = 0) -> None:
        """Ask for a kick once ``after`` + 1 more entries are available (EVENT_IDX); else any."""

    @abstractmethod
    def refuse_kicks(self) -> None:
        """Ask not to be kicked."""

    @abstractmethod
    def kick_is_due(self) -> bool:
        """Must the driver have kicked for what it made available since this was asked last?"""

    @abstractmethod
    def call_is_wanted(self) -> bool:
        """Does the driver want a call for what was used since this was asked last?"""

    # ------------------------------------------------------------ chains
    def _word(self, at: int) -> int:
        return int.from_bytes(self.memory.read(at, 2), "little")

    def _put(self, at: int, *words: int) -> None:
        self.memory.write(at, struct.pack(f"<{len(words)}H", *(w & 0xFFFF for w in words)))

    def _keep(self, name: int, pieces: list[tuple[int, int, int]]) -> Taken:
        """Check the pieces (address, bytes, flags) of a chain, and have it."""
        if name in self.held:
            raise DriverError(f"chain {name} was made available while the device had it")
        directions = [bool(flags & WRITE) for _, _, flags in pieces]
        if directions != sorted(directions):
            raise DriverError(f"chain {name}: a readable descriptor behind a writable one")
        for gpa, n, flags in pieces:
            if n == 0:
                raise DriverError(f"chain {name}: an empty descriptor")
            if flags & INDIRECT:
                raise DriverError(f"chain {name}: an indirect descriptor")
            self.memory.read(gpa, n)  # ValueError where that is no memory
        kept = Taken(name, [(a, n) for a, n, flags in pieces if not flags & WRITE],
                     [(a, n) for a, n, flags in pieces if flags & WRITE], len(pieces))
        self.held[name] = kept
        return kept

    def content(self, chain: Taken) -> bytes:
        """What the readable pieces hold."""
        return b"".join(self.memory.read(gpa, n) for gpa, n in chain.readable)

    def fill(self, chain: Taken, data: bytes) -> int:
        """Write into the writable pieces, as much as there is room for; -> bytes."""
        n = min(len(data), chain.capacity)
        data = data[:n]
        for gpa, room in chain.writable:
            self.memory.write(gpa, data[:room])
            data = data[room:]
        return n

    def use(self, chains: Sequence[Taken], lengths: Sequence[int] = (), *, as_one: bool = False,
            publish: bool = True) -> None:
        """Give chains back in this order, all seen at once by the driver.

        ``lengths``: bytes written into each (none: 0). ``as_one``: by a single used entry, the
        last one's (IN_ORDER; 2.7.9, 2.8.9). ``publish=False``: a device that dies just before the
        driver can see any of it.
        """
        sizes = list(lengths) or [0] * len(chains)
        for chain in chains:
            del self.held[chain.name]
        if as_one:
            assert self.in_order
            entries = [(chains[-1], sizes[-1], len(chains), sum(c.descriptors for c in chains))]
        else:
            entries = [(chain, n, 1, chain.descriptors)
                       for chain, n in zip(chains, sizes, strict=True)]
        self._write(entries, publish)

    # ------------------------------------------------------------ frames
    def frames(self) -> list[tuple[bytes, bytes]]:
        """Take what was sent and give it back; -> (header, frame) of each."""
        taken = self.take()
        data = [self.content(chain) for chain in taken]
        self.use(taken)
        return [(d[: self.header], d[self.header :]) for d in data]

    def deliver(self, frames: Sequence[bytes], headers: Sequence[bytes] = (), *,
                as_one: bool = False) -> int:
        """Receive frames into the driver's buffers, merged where one is too small; -> how many.

        ``headers``: the first 10 bytes of each virtio header (default: zero). ``as_one``: the
        buffers of a frame by a single used entry.
        """
        for k, frame in enumerate(frames):
            if not self._deliver(frame, headers[k] if headers else bytes(10), as_one):
                return k
        return len(frames)

    def _deliver(self, frame: bytes, header: bytes, as_one: bool) -> bool:
        need = self.header + len(frame)
        waiting = [*self.held.values()]
        chains: list[Taken] = []
        while sum(c.capacity for c in chains) < need and (self.merge or not chains):
            if not waiting:
                waiting = self.take(1)
            if not waiting:
                return False
            chains.append(waiting.pop(0))
        if sum(c.capacity for c in chains) < need:
            return False
        data = header[:10] + len(chains).to_bytes(2, "little")[: self.header - 10] + frame
        lengths = []
        for chain in chains:
            lengths.append(self.fill(chain, data))
            data = data[lengths[-1] :]
        self.use(chains, lengths, as_one=as_one)
        return True


class PlainSplitDevice(PlainDevice):
    """A split virtqueue; ``start``: the value both indices begin at."""

    def __init__(self, memory: PlainMemory, size: int, features: int, desc: int, avail: int,
                 used: int, start: int = 0) -> None:
        super().__init__(memory, size, features, desc, avail, used)
        self.next = self.used_idx = self.asked = self.told = start
        self.next_head: int | None = None  # in order: the descriptor that comes next

    def take(self, limit: int = 65536) -> list[Taken]:
        count = (self._word(self.avail + 2) - self.next) % 65536
        if count + len(self.held) > self.size:
            raise DriverError(f"{count} chains available beside {len(self.held)}: the ring has "
                              f"{self.size} entries")
        taken = []
        for _ in range(min(count, limit)):
            head = self._word(self.avail + 4 + 2 * (self.next % self.size))
            taken.append(self._keep(head, self._walk(head)))
            self.next = (self.next + 1) % 65536
        return taken

    def _walk(self, head: int) -> list[tuple[int, int, int]]:
        pieces: list[tuple[int, int, int]] = []
        index, more = head, True
        while more:
            if index >= self.size or len(pieces) == self.size:
                raise DriverError(f"chain {head} leaves the table or loops")
            if self.in_order and self.next_head not in (None, index):
                raise DriverError(f"descriptor {index} where {self.next_head} is next (2.7.9)")
            self.next_head = (index + 1) % self.size
            gpa, n, flags, index = struct.unpack(
                "<QIHH", self.memory.read(self.desc + 16 * index, 16))
            pieces.append((gpa, n, flags))
            more = bool(flags & NEXT)
        return pieces

    def _write(self, entries: list[tuple[Taken, int, int, int]], publish: bool) -> None:
        for chain, length, chains, _ in entries:
            self.memory.write(self.used + 4 + 8 * (self.used_idx % self.size),
                              struct.pack("<II", chain.name, length))
            self.used_idx = (self.used_idx + chains) % 65536
        if publish:
            self._put(self.used + 2, self.used_idx)

    def ask_for_kicks(self, after: int = 0) -> None:
        if self.event_idx:
            self._put(self.used + 4 + 8 * self.size, self.next + after)
        else:
            self._put(self.used, 0)

    def refuse_kicks(self) -> None:
        if self.event_idx:
            self._put(self.used + 4 + 8 * self.size, self.next - 1)
        else:
            self._put(self.used, NO_NOTIFY)

    def kick_is_due(self) -> bool:
        old, self.asked = self.asked, self._word(self.avail + 2)
        if self.event_idx:
            event = self._word(self.used + 4 + 8 * self.size)
            return event in _between(old, self.asked)
        return old != self.asked and not self._word(self.used) & NO_NOTIFY

    def call_is_wanted(self) -> bool:
        old, self.told = self.told, self.used_idx
        if self.event_idx:
            return self._word(self.avail + 4 + 2 * self.size) in _between(old, self.told)
        return old != self.told and not self._word(self.avail) & NO_INTERRUPT


def _between(old: int, new: int) -> list[int]:
    """The indices passed on the way, counted one by one."""
    return [(old + k) % 65536 for k in range((new - old) % 65536)]


class PlainPackedDevice(PlainDevice):
    """A packed virtqueue. Positions count slots from the start of the ring's first lap on;
    ``start``: where both begin (a device that takes over)."""

    def __init__(self, memory: PlainMemory, size: int, features: int, desc: int, avail: int,
                 used: int, start: int = 0) -> None:
        super().__init__(memory, size, features, desc, avail, used)
        self.next = self.used_next = self.asked = self.told = start

    @classmethod
    def place(cls, position: int, size: int) -> int:
        """A position as a count of slots from slot | wrap << 15 (the low half of a ring's base)."""
        return (position & 0x7FFF) + (0 if position & 0x8000 else size)

    def _first_lap(self, position: int) -> bool:
        """The wrap counter, which is 1 in the first lap and in every other one (2.8.1)."""
        return position // self.size % 2 == 0

    def _descriptor(self, position: int) -> int:
        return self.desc + 16 * (position % self.size)

    def take(self, limit: int = 65536) -> list[Taken]:
        taken: list[Taken] = []
        while len(taken) < limit and self._is_available(self.next):
            name, pieces = self._walk()
            taken.append(self._keep(name, pieces))
        return taken

    def _is_available(self, position: int) -> bool:
        if position - self.used_next >= self.size:
            return False  # once around: what stands there is older
        flags = self._word(self._descriptor(position) + 14)
        return flags & (AVAIL | USED) == (AVAIL if self._first_lap(position) else USED)

    def _walk(self) -> tuple[int, list[tuple[int, int, int]]]:
        pieces: list[tuple[int, int, int]] = []
        name, more = 0, True
        while more:
            if not self._is_available(self.next):
                raise DriverError(f"slot {self.next % self.size}, in a chain, is not available")
            gpa, n, name, flags = struct.unpack(
                "<QIHH", self.memory.read(self._descriptor(self.next), 16))
            if flags & ~(AVAIL | USED | NEXT | WRITE | INDIRECT):
                raise DriverError(f"slot {self.next % self.size}: flags {flags:#x}")
            pieces.append((gpa, n, flags))
            self.next += 1
            more = bool(flags & NEXT)
        return name, pieces

    def _write(self, entries: list[tuple[Taken, int, int, int]], publish: bool) -> None:
        first: tuple[int, int] | None = None
        for chain, length, _, slots in entries:
            at = self._descriptor(self.used_next)
            lap = AVAIL | USED if self._first_lap(self.used_next) else 0
            self.memory.write(at + 8, struct.pack("<IH", length, chain.name))
            flags = lap | (WRITE if length else 0)
            if first is None:
                first = at + 14, flags
            else:
                self._put(at + 14, flags)
            self.used_next += slots
        if first and publish:
            self._put(*first)

    def ask_for_kicks(self, after: int = 0) -> None:
        if self.event_idx:
            self._put(self.used, self._event(self.next + after))
        self._put(self.used + 2, AT_SLOT if self.event_idx else ENABLE)

    def _event(self, position: int) -> int:
        return position % self.size | (0x8000 if self._first_lap(position) else 0)

    def refuse_kicks(self) -> None:
        self._put(self.used + 2, DISABLE)

    def _published(self) -> int:
        """Where the driver is: behind the last slot that it made available."""
        end = self.next
        while self._is_available(end):
            end += 1
        return end

    def kick_is_due(self) -> bool:
        old, self.asked = self.asked, self._published()
        return self._wanted(self.used, old, self.asked)

    def call_is_wanted(self) -> bool:
        old, self.told = self.told, self.used_next
        return self._wanted(self.avail, old, self.told)

    def _wanted(self, area: int, old: int, new: int) -> bool:
        flags = self._word(area + 2)
        if flags == AT_SLOT and self.event_idx:
            return self._word(area) in [self._event(k) for k in range(old, new)]
        return old != new and flags != DISABLE


def plain_device(memory: PlainMemory, size: int, features: int, desc: int, avail: int, used: int,
                 base: int | None = None) -> PlainDevice:
    """A device of the format that was negotiated, which begins at ``base`` (as SET_VRING_BASE has
    it; none: a fresh queue)."""
    if not features & RING_PACKED:
        return PlainSplitDevice(memory, size, features, desc, avail, used, base or 0)
    start = 0 if base is None else PlainPackedDevice.place(base & 0xFFFF, size)
    return PlainPackedDevice(memory, size, features, desc, avail, used, start)
