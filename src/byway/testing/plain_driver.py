# SPDX-License-Identifier: Apache-2.0
"""A driver of a split virtqueue in plain Python: slow, obvious, strict. The oracle for devices.

    memory = PlainMemory([(0x100000, address, size)])         # (guest address, host address, bytes)
    queue = PlainDriver(memory, 256, features, receive=False)
    queue.send(frame, Layout((12, 20), direct=1))             # header apart, the rest indirect
    queue.publish()
    ... the device runs ...
    queue.reap()                                              # checks the used ring; -> heads

Used by tests of devices, Byway's and others': it knows nothing of kernels, only ctypes and struct.
VIRTIO 1.2: 2.7 (split virtqueues), 5.1.6 (frames and their header).

Theory of operation
-------------------
Each frame or receive buffer is one chain, cut and placed as its Layout says. The driver keeps for
each outstanding chain what it needs to judge the answer: its descriptors and where its pieces lie.
Whatever the device does against the specification is a DeviceError that says what and where:
a chain used twice or never given, an index that jumps, a length that cannot be, a header with
wrong fields, a buffer not filled before the next, a byte written beyond what the length says (all
writable pieces are filled with a pattern first), a readable buffer changed.
"""

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

NEXT, WRITE, INDIRECT = 1, 2, 4
VERSION_1, MRG_RXBUF, INDIRECT_DESC, EVENT_IDX = 1 << 32, 1 << 15, 1 << 28, 1 << 29
NO_INTERRUPT = NO_NOTIFY = 1
FILL = 0xA5  # what receive buffers hold before the device writes


class DeviceError(AssertionError):
    """The device did something that VIRTIO does not allow."""


class PlainMemory:
    """Guest memory: regions of (guest address, host address, size); a simple allocator over it."""

    def __init__(self, regions: Sequence[tuple[int, int, int]]) -> None:
        self.regions = sorted(regions)
        self._next = [gpa for gpa, _, _ in self.regions]

    def _pieces(self, gpa: int, n: int) -> list[tuple[int, int]]:
        """Host (address, bytes) of guest [gpa, gpa + n), which may span adjacent regions."""
        pieces = []
        for start, host, size in self.regions:
            if n > 0 and start <= gpa < start + size:
                piece = min(n, start + size - gpa)
                pieces.append((host + gpa - start, piece))
                gpa, n = gpa + piece, n - piece
        if n > 0:
            raise ValueError(f"{n} bytes at guest address {gpa:#x} are in no region")
        return pieces

    def read(self, gpa: int, n: int) -> bytes:
        """n bytes at a guest address (ValueError: not memory)."""
        return b"".join(ctypes.string_at(a, piece) for a, piece in self._pieces(gpa, n))

    def write(self, gpa: int, data: bytes) -> None:
        """Put bytes at a guest address (ValueError: not memory)."""
        for address, piece in self._pieces(gpa, len(data)):
            ctypes.memmove(address, data[:piece], piece)
            data = data[piece:]

    def host(self, gpa: int) -> int:
        """The host address of a guest address."""
        return self._pieces(gpa, 1)[0][0]

    def take(self, n: int, align: int = 1, region: int = 0) -> int:
        """A guest address of n bytes that nobody had before (MemoryError: the region is full).

        The last piece of a region runs on into the next one, if that is adjacent and untouched.
        """
        start, _, size = self.regions[region]
        gpa = -(-self._next[region] // align) * align
        after = region + 1
        if gpa + n <= start + size:
            self._next[region] = gpa + n
        elif (after < len(self.regions) and self._next[after] == start + size
                and gpa + n <= start + size + self.regions[after][2]):
            self._next[region], self._next[after] = start + size, gpa + n
        else:
            raise MemoryError(f"no {n} bytes left in region {region}")
        return gpa


@dataclass(frozen=True)
class Layout:
    """How a buffer is cut: piece sizes (the rest is one more piece), and how they are listed.

    ``direct``: None for a chain of direct descriptors; k for k direct ones followed by one
    indirect descriptor whose table holds the others. ``gap``: bytes left free behind each piece,
    so that no two of them are neighbours.
    """

    cuts: tuple[int, ...] = ()
    direct: int | None = None
    gap: int = 0

    def sizes(self, total: int) -> list[int]:
        """Sizes of the pieces of a buffer of ``total`` bytes; at least one piece."""
        made = []
        for cut in self.cuts:
            if cut < total:
                made.append(cut)
                total -= cut
        return [*made, total]


@dataclass
class _Chain:
    """What the driver knows of a chain that the device has."""

    descriptors: list[int]
    places: list[tuple[int, int]]  # (guest address, bytes) of the pieces
    content: bytes  # readable: what is in it; writable: empty
    capacity: int = field(init=False)

    def __post_init__(self) -> None:
        self.capacity = sum(n for _, n in self.places)


def crossed(event: int, new: int, old: int) -> bool:
    """Is event + 1 among the indices from old + 1 to new? Counted one by one (2.7.10)."""
    steps = (new - old) % 65536
    return any((old + k) % 65536 == (event + 1) % 65536 for k in range(1, steps + 1))


class PlainDriver:
    """One virtqueue of ``size`` entries whose rings and buffers lie in ``memory``.

    ``receive``: the device writes into its buffers. ``start``: the value both indices begin at
    (a fresh queue's is 0; others test the wrap from 65535 to 0).
    """

    def __init__(self, memory: PlainMemory, size: int, features: int, *, receive: bool,
                 start: int = 0, region: int = 0) -> None:
        self.memory, self.size, self.receive = memory, size, receive
        self.event_idx = bool(features & EVENT_IDX)
        self.merge = bool(features & MRG_RXBUF)
        self.header = 12 if features & (VERSION_1 | MRG_RXBUF) else 10
        self.desc = memory.take(16 * size, 16, region)
        self.avail = memory.take(6 + 2 * size, 2, region)
        self.used = memory.take(6 + 8 * size, 4, region)
        self.avail_idx = self.used_seen = self.published = self.considered = start
        memory.write(self.desc, bytes(16 * size))
        memory.write(self.avail, bytes(6 + 2 * size))
        memory.write(self.used, bytes(6 + 8 * size))
        self.free = list(range(size))
        self.chains: dict[int, _Chain] = {}
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
    def descriptors_for(self, total: int, layout: Layout) -> int:
        """How many entries of the descriptor table a buffer takes."""
        pieces = len(layout.sizes(total))
        return pieces if layout.direct is None else min(layout.direct, pieces - 1) + 1

    def add(self, total: int, layout: Layout, content: bytes = b"") -> int:
        """Make a chain of ``total`` bytes available (``publish`` shows it); -> its head.

        ``content``: what a readable chain holds. MemoryError where memory or descriptors run out.
        """
        sizes = layout.sizes(total)
        if len(self.free) < self.descriptors_for(total, layout):
            raise MemoryError("no free descriptors")
        region = len(self.chains) % len(self.memory.regions)
        places = [(self.memory.take(n + layout.gap, 1, region), n) for n in sizes]
        rest = content if not self.receive else bytes([FILL]) * total
        for gpa, n in places:
            self.memory.write(gpa, rest[:n])
            rest = rest[n:]
        taken = self._list(places, layout)
        self.chains[taken[0]] = _Chain(taken, places, content)
        self._put16(self.avail + 4 + 2 * (self.avail_idx % self.size), taken[0])
        self.avail_idx = (self.avail_idx + 1) % 65536
        return taken[0]

    def _list(self, places: list[tuple[int, int]], layout: Layout) -> list[int]:
        """Write the descriptors of a chain; -> the entries of the table it takes."""
        flag = WRITE if self.receive else 0
        direct = len(places) if layout.direct is None else min(layout.direct, len(places) - 1)
        inside = places[direct:]
        taken = [self.free.pop() for _ in range(direct + bool(inside))]
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
        return taken

    def _describe(self, at: int, gpa: int, n: int, flags: int, following: int) -> None:
        self.memory.write(at, struct.pack("<QIHH", gpa, n, flags, following))

    def publish(self) -> bool:
        """Let the device see what was added; -> whether it asked to be kicked (2.7.10)."""
        self._put16(self.avail + 2, self.avail_idx)
        old, self.published = self.published, self.avail_idx
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
    def take_used(self) -> list[tuple[int, int, _Chain]]:
        """New entries of the used ring as (head, length, chain), checked; the chains are free."""
        count = (self.used_idx - self.used_seen) % 65536
        outstanding = (self.published - self.used_seen) % 65536
        if count > min(outstanding, self.size):
            raise DeviceError(f"used {count} buffers where {outstanding} were available")
        answer = []
        for _ in range(count):
            at = self.used + 4 + 8 * (self.used_seen % self.size)
            head, length = struct.unpack("<II", self.memory.read(at, 8))
            chain = self.chains.pop(head, None)
            if chain is None:
                raise DeviceError(f"used entry {self.used_seen} names {head}, which is not a head "
                                  "of an available chain")
            if length > (chain.capacity if self.receive else 0):
                raise DeviceError(f"used length {length} of a chain of {chain.capacity} bytes "
                                  f"that is {'writable' if self.receive else 'readable'}")
            self.free += chain.descriptors
            self.used_seen = (self.used_seen + 1) % 65536
            answer.append((head, length, chain))
        return answer

    def content(self, chain: _Chain) -> bytes:
        """What the pieces of a chain hold now."""
        return b"".join(self.memory.read(gpa, n) for gpa, n in chain.places)

    # ------------------------------------------------------------ frames
    def send(self, frame: bytes, layout: Layout, header: bytes = b"") -> int:
        """Add a frame behind its virtio header (default: all zero); -> head."""
        data = (header or bytes(self.header)) + frame
        return self.add(len(data), layout, data)

    def reap(self) -> list[int]:
        """Take back what was sent; -> heads in the order in which they were used."""
        heads = []
        for head, _, chain in self.take_used():
            if self.content(chain) != chain.content:
                raise DeviceError(f"the device wrote into readable chain {head}")
            heads.append(head)
        return heads

    def receive_frames(self) -> list[bytes | None]:
        """The frames received (5.1.6.4), checked; None for a buffer that came back empty."""
        frames: list[bytes | None] = []
        used = self.take_used()
        while used:
            head, length, chain = used.pop(0)
            data = self._written(head, length, chain)
            if not data:
                frames.append(None)
                continue
            buffers = self._check_header(head, data)
            for _ in range(buffers - 1):
                if length != chain.capacity:
                    raise DeviceError(f"chain {head} is not full, but another one follows")
                if not used:
                    raise DeviceError(f"num_buffers {buffers}: not all published together")
                head, length, chain = used.pop(0)
                if not length:
                    raise DeviceError(f"chain {head} of a merged frame is empty")
                data += self._written(head, length, chain)
            frames.append(data[self.header :])
        return frames

    def _written(self, head: int, length: int, chain: _Chain) -> bytes:
        data = self.content(chain)
        if data[length:] != bytes([FILL]) * (len(data) - length):
            raise DeviceError(f"chain {head}: bytes beyond its used length {length} were written")
        return data[:length]

    def _check_header(self, head: int, data: bytes) -> int:
        """5.1.6.4.1: no offloads were negotiated, so all is zero but num_buffers; -> it."""
        if len(data) < self.header:
            raise DeviceError(f"chain {head}: {len(data)} bytes do not hold a header")
        if data[:10] != bytes(10):
            raise DeviceError(f"chain {head}: header {data[: self.header].hex()}")
        buffers = int(struct.unpack_from("<H", data, 10)[0]) if self.header == 12 else 1
        if buffers < 1 or (buffers > 1 and not self.merge):
            raise DeviceError(f"chain {head}: num_buffers {buffers}")
        return buffers
