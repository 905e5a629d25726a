# SPDX-License-Identifier: Apache-2.0
"""A front end with a driver: one conversation, guest memory, rings, and frames through them.

Used by the checks of back ends. The rings are those of VIRTIO 1.2, 5.1.2: the driver receives on
ring 0 and transmits on ring 1 of each pair. A `Setup` says how it is made; `run` does everything,
and checks that want another order call the steps themselves.
"""

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byway.conform.memory import AREA, GuestMemory
from byway.conform.outcome import Failed, NotApplicable
from byway.conform.packed_ring import PackedRing
from byway.conform.ring import PAUSE, Piece, Ring, SplitRing, Used
from byway.conform.wire import Wire, u64
from byway.vhost.messages import ProtocolFeature, Request
from byway.vhost.payloads import RingFile, VringAddress, VringState, pack_memory_table
from byway.virtio.features import Feature, has, header_length, mask

if TYPE_CHECKING:
    from byway.conform.backend.bench import Bench

P, F, R = ProtocolFeature, Feature, Request
BUFFER = 2048
RECEIVE, TRANSMIT = 0, 1
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK = 1, 2, 4, 8  # VIRTIO 1.2, 2.1


@dataclass(frozen=True)
class Setup:
    """How a session is made.

    ``need``, ``protocol_need``: features without which the check does not apply; ``features``,
    ``protocol``: taken where offered. ``start``: where the rings begin. ``posted``: receive buffers
    of ``buffer`` bytes posted before the start. ``polled``: no kick fd; ``silent``: no call fd.
    """

    need: int = 0
    protocol_need: int = 0
    features: int = mask(F.VERSION_1, F.PROTOCOL_FEATURES)
    protocol: int = 1 << P.REPLY_ACK
    size: int = 256
    packed: bool = False
    start: int = 0
    areas: int = 1
    area_size: int = AREA
    offset: int = 0
    ring_area: int = 0
    posted: int = 64
    buffer: int = BUFFER
    pairs: int = 1
    polled: bool = False
    silent: bool = False


PEER = Setup(features=mask(F.VERSION_1, F.PROTOCOL_FEATURES, F.MRG_RXBUF, F.MQ), posted=128,
             protocol=1 << P.REPLY_ACK | 1 << P.MQ)


@dataclass
class Frame:
    """A frame that came in: its virtio header, its bytes, and the chains it lay in."""

    header: bytes
    data: bytes
    used: list[Used]


class Session:
    """One conversation with its memory and rings; closed with the bench's check."""

    def __init__(self, bench: "Bench", setup: Setup, wire: Wire) -> None:
        bench.learn()
        self.bench, self.setup, self.wire, self.timeout = bench, setup, wire, bench.timeout
        need = setup.need | (mask(F.RING_PACKED, F.VERSION_1) if setup.packed else 0)
        for kind, wanted, offered in ((Feature, need, bench.offered),
                                      (P, setup.protocol_need, bench.protocol_offered)):
            if missing := wanted & ~offered:
                bit = (missing & -missing).bit_length() - 1
                raise NotApplicable(f"did not offer {kind(bit).name}")
        self.features = bench.offered & (need | setup.features)
        self.protocol = bench.protocol_offered & (setup.protocol_need | setup.protocol)
        self.header = header_length(self.features)
        self.merge = has(self.features, F.MRG_RXBUF)
        self.platform = has(self.features, F.ACCESS_PLATFORM)
        self.refilled = True  # a receive buffer that was used is posted again
        self.memory = GuestMemory.make(setup.areas, setup.area_size, setup.offset)
        make = PackedRing if setup.packed else SplitRing
        self.rings: list[Ring] = [
            make(self.memory, k, setup.size, self.features, receive=k % 2 == RECEIVE,
                 start=setup.start, area=setup.ring_area) for k in range(2 * setup.pairs)]

    @property
    def rx(self) -> Ring:
        """The ring that frames come in on."""
        return self.rings[RECEIVE]

    @property
    def tx(self) -> Ring:
        """The ring that frames go out on."""
        return self.rings[TRANSMIT]

    # ------------------------------------------------------------ the conversation
    def negotiate(self) -> None:
        """Protocol features, owner, features; the status where it was negotiated."""
        if has(self.features, F.PROTOCOL_FEATURES):
            self.wire.get_u64(R.GET_PROTOCOL_FEATURES)
            self.wire.send(R.SET_PROTOCOL_FEATURES, u64(self.protocol))
            self.wire.protocol_features = self.protocol
        self.wire.set(R.SET_OWNER)
        for status in (0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER):
            self.status(status)
        self.wire.set(R.SET_FEATURES, u64(self.features))
        self.status(ACKNOWLEDGE | DRIVER | FEATURES_OK)

    def status(self, status: int) -> None:
        """Tell the device status, where that was negotiated."""
        if self.wire.took(P.STATUS):
            self.wire.set(R.SET_STATUS, u64(status))

    def share(self) -> None:
        """Hand over the memory."""
        areas = self.memory.areas
        self.wire.set(R.SET_MEM_TABLE, pack_memory_table([a.region for a in areas]),
                      [a.fd for a in areas])

    def place(self, ring: Ring, base: int | None = None) -> None:
        """Size, base and addresses of a ring; by default it goes on where it is."""
        base = ring.position if base is None else base
        # With ACCESS_PLATFORM these are bus addresses, which are the guest's here.
        user = (lambda gpa: gpa) if self.platform else self.memory.user
        self.wire.set(R.SET_VRING_NUM, VringState(ring.index, ring.size).pack())
        self.wire.set(R.SET_VRING_BASE, VringState(ring.index, base).pack())
        self.wire.set(R.SET_VRING_ADDR, VringAddress(
            ring.index, 0, user(ring.desc), user(ring.used), user(ring.avail)).pack())

    def file(self, request: Request, ring: Ring, fd: int) -> None:
        """Hand over an event fd of a ring, or none (-1)."""
        self.wire.set(request, RingFile(ring.index, fd >= 0).pack(), [fd] if fd >= 0 else [])

    def start(self, ring: Ring, base: int | None = None) -> None:
        """Set a ring up; the kick last, which back ends take for the start."""
        self.place(ring, base)
        self.file(R.SET_VRING_CALL, ring, -1 if self.setup.silent else ring.call)
        self.file(R.SET_VRING_KICK, ring, -1 if self.setup.polled else ring.kick)

    def enable(self, ring: Ring, on: bool = True) -> None:
        """Let frames pass a ring, or none; back when that took effect."""
        if has(self.features, F.PROTOCOL_FEATURES):
            self.wire.set(R.SET_VRING_ENABLE, VringState(ring.index, int(on)).pack())
            self.sync()

    def sync(self) -> None:
        """Back when everything said so far is done."""
        if not self.wire.acked:
            self.wire.get_u64(R.GET_FEATURES)

    def stop(self, ring: Ring) -> int:
        """Take a ring back; -> its base, as said."""
        answer = VringState.unpack(self.wire.get(
            R.GET_VRING_BASE, VringState(ring.index, 0).pack()))
        if answer.index != ring.index:
            raise Failed(f"GET_VRING_BASE of ring {ring.index} was answered for ring "
                         f"{answer.index}")
        return answer.num

    def run(self, enable: bool = True) -> None:
        """All of it, with receive buffers posted."""
        self.negotiate()
        self.share()
        for ring in self.rings:
            self.start(ring)
        for ring in self.rings[::2]:
            self.post(min(self.setup.posted, ring.size), ring=ring)
        for ring in self.rings if enable else ():
            self.enable(ring)
        self.status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        for ring in self.rings if enable else ():
            ring.notify()

    # ------------------------------------------------------------ buffers
    def pieces(self, total: int, cuts: Sequence[int] = (), area: int | None = None) -> list[Piece]:
        """A buffer of ``total`` bytes, its first pieces of these sizes, none neighbours."""
        sizes, left = [], total
        for cut in cuts:
            if cut < left:
                sizes.append(cut)
                left -= cut
        areas = self.setup.areas
        return [(self.memory.take(n + 8, 2, (k if area is None else area) % areas), n)
                for k, n in enumerate([*sizes, left])]

    def post(self, count: int, size: int = 0, cuts: Sequence[int] = (), ring: Ring | None = None,
             direct: int | None = None) -> None:
        """Post receive buffers (not kicked)."""
        ring = ring or self.rx
        for _ in range(count):
            ring.add(self.pieces(size or self.setup.buffer, cuts, None if cuts else 0),
                     direct=direct)
        ring.publish()

    def send(self, frame: bytes, cuts: Sequence[int] = (), direct: int | None = None,
             header: bytes = b"", ring: Ring | None = None, area: int | None = None) -> None:
        """Add a frame behind its header (not published)."""
        data = (header or bytes(self.header)) + frame
        (ring or self.tx).add(self.pieces(len(data), cuts, area), data, direct)

    def flush(self, ring: Ring | None = None) -> None:
        """Publish, and kick if the device wants it."""
        ring = ring or self.tx
        if ring.publish() and not self.setup.polled:
            ring.notify()

    def sent(self, frame: bytes, **how: object) -> Used:
        """Send one frame and wait until it is used."""
        self.send(frame, **how)  # type: ignore[arg-type]
        self.flush()
        return self.tx.reap(1, self.timeout)[0]

    # ------------------------------------------------------------ receiving
    def frames(self) -> list[Frame]:
        """The frames that arrived, on any pair; their buffers are posted again."""
        got: list[Frame] = []
        for ring in self.rings[::2]:
            used = ring.poll()
            got += self._parse(ring, used)
            if used and self.refilled:
                for entry in used:
                    ring.add(entry.chain.pieces, direct=entry.chain.direct)
                if ring.publish() and not self.setup.polled:
                    ring.notify()
        return got

    def _parse(self, ring: Ring, used: list[Used]) -> list[Frame]:
        got: list[Frame] = []
        used = list(used)
        while used:
            first = used.pop(0)
            data = ring.content(first.chain)[: first.length]
            parts, header = [first], data[: self.header]
            if len(header) < self.header:
                if first.length:
                    ring.fault("header", f"{first.length} bytes do not hold a header")
                continue
            for _ in range(self._more(ring, header)):
                if not used:
                    ring.fault("merge", "num_buffers counts buffers that were not used with it")
                    break
                parts.append(used.pop(0))
                data += ring.content(parts[-1].chain)[: parts[-1].length]
            for part in parts[:-1]:
                if part.length != part.chain.capacity:
                    ring.fault("merge", f"buffer {part.chain.head} is not full, but another one "
                               "follows")
            got.append(Frame(header, data[self.header :], parts))
        return got

    def _more(self, ring: Ring, header: bytes) -> int:
        """How many buffers follow the first (5.1.6.4.1)."""
        if self.header < 12:
            return 0
        (buffers,) = struct.unpack_from("<H", header, 10)
        if buffers < 1 or (buffers > 1 and not self.merge):
            ring.fault("buffers", f"num_buffers is {buffers}")
            return 0
        return int(buffers) - 1

    def await_frame(self, tag: bytes, seconds: float) -> Frame | None:
        """The frame that holds ``tag``, None where it does not come; others are dropped."""
        end = time.monotonic() + seconds
        while True:
            found = next((f for f in self.frames() if tag in f.data), None)
            if found or time.monotonic() > end:
                return found
            time.sleep(PAUSE)

    def close(self) -> None:
        """Hang up and let go of everything. Idempotent."""
        self.wire.close()
        for ring in self.rings:
            ring.close()
        self.memory.close()


def event_fd(value: int = 0) -> int:
    """A new event fd, which the caller closes."""
    return os.eventfd(value, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
