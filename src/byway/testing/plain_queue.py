# SPDX-License-Identifier: Apache-2.0
"""What the plain drivers of both ring formats share: buffers, frames, and how a device is judged.

Used by plain_driver.py (split) and plain_packed_driver.py, which write the rings; tests of devices
use those. It knows nothing of kernels, only struct. VIRTIO 1.2: 5.1.6 (frames and their header).

Theory of operation
-------------------
Each frame or receive buffer is one chain, cut and placed as its Layout says. The driver keeps for
each outstanding chain what it needs to judge the answer: its descriptors and where its pieces lie.
Whatever the device does against the specification is a DeviceError that says what and where:
a chain used twice or never given, a length that cannot be, a header with wrong fields, a buffer
not filled before the next, a byte written beyond what the length says (all writable pieces are
filled with a pattern first), a readable buffer changed.

With IN_ORDER a device may answer for several chains at once by naming the last (2.7.9, 2.8.8). The
chains before it then count as used completely.
"""

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from byway.testing.plain_memory import Layout, PlainMemory

NEXT, WRITE, INDIRECT = 1, 2, 4
GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_UFO = 1 << 1, 1 << 7, 1 << 8, 1 << 9, 1 << 10
MRG_RXBUF, INDIRECT_DESC, EVENT_IDX, VERSION_1 = 1 << 15, 1 << 28, 1 << 29, 1 << 32
RING_PACKED, IN_ORDER = 1 << 34, 1 << 35
GUEST_USO4, GUEST_USO6, HASH_REPORT = 1 << 54, 1 << 55, 1 << 57
# virtio_net_hdr (5.1.6): flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
HEADER = struct.Struct("<BBHHHH")
NEEDS_CSUM, DATA_VALID, GSO_ECN = 1, 2, 0x80
# gso_type: the features of which one must be there before a device may send such a frame.
GSO_FEATURES = {1: GUEST_TSO4, 3: GUEST_UFO, 4: GUEST_TSO6, 5: GUEST_USO4 | GUEST_USO6}
FILL = 0xA5  # what receive buffers hold before the device writes


class DeviceError(AssertionError):
    """The device did something that VIRTIO does not allow."""


def header_bytes(features: int) -> int:
    """Bytes of the virtio_net_hdr (5.1.6): 20 with a hash, 12 with num_buffers, else 10."""
    if features & HASH_REPORT:
        return 20
    return 12 if features & (VERSION_1 | MRG_RXBUF | RING_PACKED) else 10


@dataclass
class Chain:
    """What the driver knows of a chain that the device has, or is about to get."""

    descriptors: list[int]  # entries of the table or, packed, slots of the ring
    places: list[tuple[int, int]]  # (guest address, bytes) of the pieces
    content: bytes  # readable: what is in it; writable: empty
    published: bool = False
    capacity: int = field(init=False)

    def __post_init__(self) -> None:
        self.capacity = sum(n for _, n in self.places)


Used = tuple[int, int, Chain]  # (name, length, chain)


class PlainQueue(ABC):
    """One virtqueue of ``size`` entries whose rings and buffers lie in ``memory``.

    ``receive``: the device writes into its buffers. A chain's *name* is what the device calls it
    when it is used. ``headers``: the virtio headers of the frames last received.
    """

    def __init__(self, memory: PlainMemory, size: int, features: int, *, receive: bool) -> None:
        self.memory, self.size, self.features, self.receive = memory, size, features, receive
        self.event_idx = bool(features & EVENT_IDX)
        self.merge = bool(features & MRG_RXBUF)
        self.in_order = bool(features & IN_ORDER)
        self.header = header_bytes(features)
        self.chains: dict[int, Chain] = {}  # in the order in which they were added
        self.headers: list[bytes] = []

    # ------------------------------------------------------------ what a ring format does
    @property
    @abstractmethod
    def room(self) -> int:
        """Free descriptors."""

    @abstractmethod
    def descriptors_for(self, total: int, layout: Layout) -> int:
        """How many descriptors a buffer takes."""

    @abstractmethod
    def _list(self, places: list[tuple[int, int]], layout: Layout) -> tuple[int, list[int]]:
        """Write the descriptors of a chain; -> (its name, the descriptors it takes)."""

    @abstractmethod
    def publish(self) -> bool:
        """Let the device see what was added; -> whether it asked to be kicked."""

    @abstractmethod
    def take_used(self) -> list[Used]:
        """What the device used since this was asked last, checked; the chains are free again."""

    @abstractmethod
    def ask_for_calls(self, after: int = 0) -> None:
        """Ask for a call once ``after`` + 1 more entries are used (EVENT_IDX); else any."""

    @abstractmethod
    def refuse_calls(self) -> None:
        """Ask not to be called."""

    @abstractmethod
    def call_is_due(self) -> bool:
        """Must the device have called for what it used since this was asked last?"""

    # ------------------------------------------------------------ chains
    def add(self, total: int, layout: Layout, content: bytes = b"") -> int:
        """Make a chain of ``total`` bytes available (``publish`` shows it); -> its name.

        ``content``: what a readable chain holds. MemoryError where memory or descriptors run out.
        """
        if self.room < self.descriptors_for(total, layout):
            raise MemoryError("no free descriptors")
        region = len(self.chains) % len(self.memory.regions)
        places = [(self.memory.take(n + layout.gap, 1, region), n) for n in layout.sizes(total)]
        rest = content if not self.receive else bytes([FILL]) * total
        for gpa, n in places:
            self.memory.write(gpa, rest[:n])
            rest = rest[n:]
        name, taken = self._list(places, layout)
        self.chains[name] = Chain(taken, places, content)
        return name

    def names_up_to(self, name: int, waiting: list[int]) -> list[int]:
        """The chains, of those ``waiting``, that are used when the device names one."""
        if name not in waiting:
            raise DeviceError(f"the device used {name}, which is not the name of a chain that it "
                              "was given")
        return waiting[: waiting.index(name) + 1] if self.in_order else [name]

    def finish(self, names: list[int], length: int) -> list[Used]:
        """Take chains off the list: ``length`` is what the last one's entry says."""
        answer = []
        for name in names:
            chain = self.chains.pop(name)
            limit = chain.capacity if self.receive else 0
            written = length if name == names[-1] else limit
            if written > limit:
                raise DeviceError(
                    f"used length {length} of a chain of {chain.capacity} bytes that is "
                    f"{'writable' if self.receive else 'readable'}")
            answer.append((name, written, chain))
        return answer

    def outstanding(self) -> list[int]:
        """The names of the chains that the device has, oldest first."""
        return [name for name, chain in self.chains.items() if chain.published]

    def content(self, chain: Chain) -> bytes:
        """What the pieces of a chain hold now."""
        return b"".join(self.memory.read(gpa, n) for gpa, n in chain.places)

    # ------------------------------------------------------------ frames
    def send(self, frame: bytes, layout: Layout, header: bytes = b"") -> int:
        """Add a frame behind its virtio header (default: all zero); -> name."""
        data = header.ljust(self.header, b"\0") + frame
        return self.add(len(data), layout, data)

    def reap(self) -> list[int]:
        """Take back what was sent; -> names in the order in which they were used."""
        names = []
        for name, _, chain in self.take_used():
            if self.content(chain) != chain.content:
                raise DeviceError(f"the device wrote into readable chain {name}")
            names.append(name)
        return names

    def receive_frames(self) -> list[bytes | None]:
        """The frames received (5.1.6.4), checked; None for a buffer that came back empty."""
        frames: list[bytes | None] = []
        self.headers = []
        used = self.take_used()
        while used:
            name, length, chain = used.pop(0)
            data = self._written(name, length, chain)
            if not data:
                frames.append(None)
                continue
            buffers = self._buffers(name, data)
            for _ in range(buffers - 1):
                if length != chain.capacity:
                    raise DeviceError(f"chain {name} is not full, but another one follows")
                if not used:
                    raise DeviceError(f"num_buffers {buffers}: not all published together")
                name, length, chain = used.pop(0)
                if not length:
                    raise DeviceError(f"chain {name} of a merged frame is empty")
                data += self._written(name, length, chain)
            self._check_offloads(name, data)
            self.headers.append(data[: self.header])
            frames.append(data[self.header :])
        return frames

    def _written(self, name: int, length: int, chain: Chain) -> bytes:
        data = self.content(chain)
        if data[length:] != bytes([FILL]) * (len(data) - length):
            raise DeviceError(f"chain {name}: bytes beyond its used length {length} were written")
        return data[:length]

    def _buffers(self, name: int, data: bytes) -> int:
        """5.1.6.4.1: num_buffers, which is 1 without MRG_RXBUF."""
        if len(data) < self.header:
            raise DeviceError(f"chain {name}: {len(data)} bytes do not hold a header")
        buffers = int.from_bytes(data[10:12], "little") if self.header >= 12 else 1
        if buffers < 1 or (buffers > 1 and not self.merge):
            raise DeviceError(f"chain {name}: num_buffers {buffers}")
        return buffers

    def _check_offloads(self, name: int, data: bytes) -> None:
        """5.1.6.4.1: only what was negotiated is left to the driver, and it can be done."""
        flags, gso, hdr_len, gso_size, start, offset = HEADER.unpack(data[: HEADER.size])
        length = len(data) - self.header
        if self.features & GUEST_CSUM:
            sound = flags in (0, NEEDS_CSUM, DATA_VALID)
        else:
            sound = flags == 0
        if flags & NEEDS_CSUM:
            sound &= start + offset + 2 <= length
        else:
            sound &= start == offset == gso == 0
        if gso == 0:
            sound &= gso_size == hdr_len == 0 or flags == NEEDS_CSUM
        else:
            sound &= bool(self.features & GSO_FEATURES.get(gso & ~GSO_ECN, 0))
            sound &= gso_size > 0 and 0 < hdr_len <= length
            sound &= not gso & GSO_ECN or bool(self.features & GUEST_ECN)
        if not sound:
            raise DeviceError(f"chain {name}: header {data[: self.header].hex()}")
