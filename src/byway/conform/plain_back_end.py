# SPDX-License-Identifier: Apache-2.0
"""A vhost-user back end in plain Python: slow, obvious, and watchful.

Used by the checks of front ends, which look at what it noted, and by the tests, whose subclasses
break one rule each; plain_rings serves its rings and runs it.

A handler of a request is a method ``on_name``; it returns the payload of the reply where there is
one, and raises `Refusal` for what a front end may not ask. Whatever a front end may not do is also
noted, as a rule's name and a sentence.
"""

import itertools
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from byway.conform.memory import LoggedMemory
from byway.conform.outcome import Failed
from byway.vhost.connection import Connection, Message
from byway.vhost.messages import (
    NEED_REPLY,
    REPLY,
    SPECS,
    ProtocolError,
    ProtocolFeature,
    Request,
)
from byway.vhost.payloads import (
    Inflight,
    Log,
    MemoryRegion,
    RingFile,
    VringAddress,
    VringState,
    pack_u64,
    unpack_memory_table,
    unpack_u64,
)
from byway.virtio.features import Feature, has, mask, names

P, F, R = ProtocolFeature, Feature, Request
OFFERED = mask(F.VERSION_1, F.PROTOCOL_FEATURES, F.MRG_RXBUF, F.INDIRECT_DESC, F.EVENT_IDX,
               F.RING_PACKED, F.IN_ORDER, F.CSUM, F.MQ, F.MTU, F.LOG_ALL, F.GUEST_ANNOUNCE)
PROTOCOL_OFFERED = sum(1 << p for p in (
    P.MQ, P.LOG_SHMFD, P.RARP, P.REPLY_ACK, P.NET_MTU, P.INFLIGHT_SHMFD, P.RESET_DEVICE,
    P.CONFIGURE_MEM_SLOTS, P.STATUS))
SLOTS = 16
MAX_SIZE = 32768
DRIVER_OK = 4


class Refusal(Exception):
    """The request is not done; the text says why."""


class Mapped:
    """A region that a front end shares, under the names of memory.Area."""

    def __init__(self, region: MemoryRegion, fd: int) -> None:
        self.size, self.gpa, self.user, self.offset = (
            region.size, region.gpa, region.user, region.offset)
        if region.size == 0 or region.gpa + region.size > 1 << 64 \
                or region.user + region.size > 1 << 64:
            raise Refusal(f"a region of {region.size} bytes at {region.gpa:#x}")
        try:
            if os.fstat(fd).st_size < region.offset + region.size:
                raise Refusal("a region that is longer than its file")
            self.map = mmap.mmap(fd, region.offset + region.size)
        except (OSError, ValueError) as error:
            raise Refusal(f"memory that cannot be mapped: {error}") from error

    def close(self) -> None:
        """Unmap."""
        self.map.close()


@dataclass
class RingState:
    """What a front end said of a ring."""

    index: int
    size: int = 0
    base: int = 0
    address: VringAddress | None = None
    kick: int = -1
    call: int = -1
    err: int = -1
    started: bool = False
    enabled: bool = False
    device: "object | None" = None
    fds: list[int] = field(default_factory=list)


class PlainConversation:
    """The messages of one front end, and what it said; `plain_rings.PlainBackEnd` has the rings."""

    offered, protocol_offered, pairs = OFFERED, PROTOCOL_OFFERED, 2

    def __init__(self, connection: Connection,
                 note: Callable[[str, str], None] = lambda rule, text: None) -> None:
        self.connection, self.note = connection, note
        self.features = self.protocol = self.status = self.mtu = 0
        self.features_set = self.status_seen = False
        self.rings = [RingState(k) for k in range(2 * self.pairs)]
        self.memory = LoggedMemory([])
        self.log: list[str] = []  # names of all requests, in order

    # ------------------------------------------------------------ one message
    def handle(self, message: Message) -> None:
        """Do one message and answer it."""
        spec = SPECS.get(message.request)
        self.log.append(message.name)
        try:
            if spec is None:
                raise Refusal("unknown")
            if message.flags & REPLY:
                raise Refusal("a request marked as a reply")
            if not spec.payload.fewest <= len(message.payload) <= spec.payload.most:
                raise Refusal(f"{len(message.payload)} bytes of payload")
            if not spec.fds[0] <= len(message.fds) <= spec.fds[1]:
                raise Refusal(f"{len(message.fds)} fds")
            if spec.gate is not None and not self.took(spec.gate):
                raise Refusal(f"{spec.gate.name} was not negotiated")
            handler = getattr(self, f"on_{spec.name.lower()}", None)
            if handler is None:
                raise Refusal("not served")
            self.prepare()
            answer = handler(message)
        except (Refusal, Failed) as why:
            self.note("conversation.refused", f"{message.name}: {why}")
            self.refuse(message, str(why))
            return
        finally:
            message.close()
        self.settle()
        if answer is not None:
            self.reply(message, answer)
        else:
            self.acknowledge(message, 0)

    def reply(self, message: Message, payload: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send the reply of a request."""
        self.connection.send(message.request, REPLY, payload, fds)

    def acknowledge(self, message: Message, result: int) -> bool:
        """Send the result to a front end that waits for it; -> whether it does."""
        if not message.flags & NEED_REPLY or not self.took(P.REPLY_ACK):
            return False
        self.reply(message, pack_u64(result))
        return True

    def refuse(self, message: Message, why: str) -> None:
        """Say no: by the result, or by hanging up."""
        if not self.acknowledge(message, 1):
            raise ProtocolError(f"{message.name}: {why}")

    def prepare(self) -> None:
        """Before a message takes effect."""

    def settle(self) -> None:
        """After a message took effect, before its answer."""

    def took(self, feature: ProtocolFeature) -> bool:
        """Whether the front end took a protocol feature."""
        return bool(self.protocol >> feature & 1)

    # ------------------------------------------------------------ features
    def on_get_features(self, message: Message) -> bytes:
        return pack_u64(self.offered)

    def on_set_features(self, message: Message) -> None:
        features = unpack_u64(message.payload)
        if unknown := features & ~self.offered:
            self.note("features.offered-only", f"took {' '.join(names(unknown))}, which were not "
                      "offered")
            raise Refusal("features that were not offered")
        self.features, self.features_set = features, True
        self.memory.logging = has(features, F.LOG_ALL)
        if not has(features, F.PROTOCOL_FEATURES):
            for ring in self.rings:
                ring.enabled = True

    def on_get_protocol_features(self, message: Message) -> bytes:
        return pack_u64(self.protocol_offered)

    def on_set_protocol_features(self, message: Message) -> None:
        features = unpack_u64(message.payload)
        if unknown := features & ~self.protocol_offered:
            self.note("features.protocol-offered-only", f"took protocol features {unknown:#x}, "
                      "which were not offered")
            raise Refusal("protocol features that were not offered")
        self.protocol = features

    def on_set_owner(self, message: Message) -> None:
        return None

    def on_reset_owner(self, message: Message) -> None:
        return None

    def on_get_queue_num(self, message: Message) -> bytes:
        return pack_u64(self.pairs)

    def on_net_set_mtu(self, message: Message) -> None:
        mtu = unpack_u64(message.payload)
        if not 68 <= mtu <= 65535:
            raise Refusal(f"an MTU of {mtu}")
        self.mtu = mtu

    def on_get_status(self, message: Message) -> bytes:
        return pack_u64(self.status)

    def on_set_status(self, message: Message) -> None:
        status = unpack_u64(message.payload)
        if status > 0xFF:
            raise Refusal(f"a status of {status:#x}")
        self.status, self.status_seen = status, True

    def on_reset_device(self, message: Message) -> None:
        self.features, self.features_set, self.status = 0, False, 0
        for ring in self.rings:
            self.stop(ring)
            ring.enabled, ring.base = False, 0

    # ------------------------------------------------------------ memory
    def on_set_mem_table(self, message: Message) -> None:
        regions = unpack_memory_table(message.payload)
        if len(regions) != len(message.fds):
            raise Refusal(f"{len(regions)} regions with {len(message.fds)} fds")
        self._check_overlap(regions)
        made = [Mapped(r, fd) for r, fd in zip(regions, message.fds, strict=True)]
        self.unmap()
        self.memory.areas = made  # type: ignore[assignment]

    def _check_overlap(self, regions: list[MemoryRegion]) -> None:
        ordered = sorted(regions, key=lambda r: r.gpa)
        for one, other in itertools.pairwise(ordered):
            if one.gpa + one.size > other.gpa:
                self.note("memory.overlap", f"regions at {one.gpa:#x} and {other.gpa:#x} overlap")
                raise Refusal("overlapping regions")

    def unmap(self) -> None:
        """Let go of all memory."""
        for area in self.memory.areas:
            area.close()
        self.memory.areas = []

    def on_get_max_mem_slots(self, message: Message) -> bytes:
        return pack_u64(SLOTS)

    def on_add_mem_reg(self, message: Message) -> None:
        region = MemoryRegion.unpack_single(message.payload)
        if len(self.memory.areas) >= SLOTS:
            raise Refusal("no slot left")
        self._check_overlap([*(MemoryRegion(a.gpa, a.size, a.user, a.offset)
                               for a in self.memory.areas), region])
        self.memory.areas.append(Mapped(region, message.fds[0]))  # type: ignore[arg-type]

    def on_rem_mem_reg(self, message: Message) -> None:
        region = MemoryRegion.unpack_single(message.payload)
        for area in self.memory.areas:
            if (area.gpa, area.size, area.user) == (region.gpa, region.size, region.user):
                area.close()
                self.memory.areas.remove(area)
                return
        raise Refusal("no such region")

    def on_set_log_base(self, message: Message) -> bytes:
        log = Log.unpack(message.payload)
        try:
            self.memory.log = mmap.mmap(message.fds[0], log.size + log.offset)
        except (OSError, ValueError) as error:
            raise Refusal(f"a log that cannot be mapped: {error}") from error
        return b""

    def on_send_rarp(self, message: Message) -> None:
        self.out(rarp(message.payload[:6]), bytes(12))

    def out(self, frame: bytes, header: bytes) -> None:
        """A frame that the driver sent."""

    # ------------------------------------------------------------ in-flight
    def on_get_inflight_fd(self, message: Message) -> None:
        # Answered here, with an fd; no acknowledgement beside it.
        asked = Inflight.unpack(message.payload)
        size = asked.queues * -(-(16 + 16 * asked.queue_size) // 64) * 64
        fd = os.memfd_create("inflight", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            self.reply(message, Inflight(size, 0, asked.queues, asked.queue_size).pack(), (fd,))
        finally:
            os.close(fd)
        message.flags &= ~NEED_REPLY  # answered

    def on_set_inflight_fd(self, message: Message) -> None:
        asked = Inflight.unpack(message.payload)
        if os.fstat(message.fds[0]).st_size < asked.size + asked.offset:
            raise Refusal("an in-flight region that is longer than its file")

    # ------------------------------------------------------------ rings
    def ring(self, index: int) -> RingState:
        """A ring by its index."""
        if index >= len(self.rings):
            raise Refusal(f"there is no ring {index}")
        return self.rings[index]

    def on_set_vring_num(self, message: Message) -> None:
        state = VringState.unpack(message.payload)
        power = not state.num & (state.num - 1)
        packed = has(self.features, F.RING_PACKED) or not self.features_set
        if not 1 <= state.num <= MAX_SIZE or not (power or packed):
            self.note("rings.size", f"ring {state.index} of {state.num} entries")
            raise Refusal(f"a ring of {state.num}")
        self.ring(state.index).size = state.num

    def on_set_vring_addr(self, message: Message) -> None:
        address = VringAddress.unpack(message.payload)
        for user, align in ((address.desc, 16), (address.avail, 2), (address.used, 4)):
            if user % align:
                self.note("rings.aligned", f"ring {address.index}: {user:#x} is no multiple of "
                          f"{align}")
                raise Refusal("a ring at an odd address")
            self.memory.gpa_of_user(user)
        self.ring(address.index).address = address

    def on_set_vring_base(self, message: Message) -> None:
        state = VringState.unpack(message.payload)
        self.ring(state.index).base = state.num

    def on_get_vring_base(self, message: Message) -> bytes:
        state = VringState.unpack(message.payload)
        ring = self.ring(state.index)
        self.stop(ring)
        return VringState(state.index, ring.base).pack()

    def _file(self, message: Message) -> tuple[RingState, int]:
        payload = RingFile.unpack(message.payload)
        if payload.has_fd != bool(message.fds):
            raise Refusal("an fd announced and not sent, or sent and not announced")
        return self.ring(payload.index), message.take_fd()

    def on_set_vring_kick(self, message: Message) -> None:
        ring, fd = self._file(message)
        close(ring.kick)
        ring.kick, ring.started = fd, True

    def on_set_vring_call(self, message: Message) -> None:
        ring, fd = self._file(message)
        close(ring.call)
        ring.call = fd

    def on_set_vring_err(self, message: Message) -> None:
        ring, fd = self._file(message)
        close(ring.err)
        ring.err = fd

    def on_set_vring_enable(self, message: Message) -> None:
        state = VringState.unpack(message.payload)
        if state.num > 1:
            raise Refusal(f"enabled with {state.num}")
        self.ring(state.index).enabled = bool(state.num)

    def stop(self, ring: RingState) -> None:
        """The ring is not touched any more."""
        close(ring.kick)
        close(ring.call)
        ring.kick = ring.call = -1
        ring.started = False

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        for ring in self.rings:
            self.stop(ring)
            close(ring.err)
            ring.err = -1
        self.unmap()
        if self.memory.log is not None:
            self.memory.log.close()
            self.memory.log = None
        self.connection.close()


def close(fd: int) -> None:
    """Close an fd that may be none."""
    if fd >= 0:
        os.close(fd)


def rarp(mac: bytes) -> bytes:
    """The frame that SEND_RARP makes (RFC 903: request reverse)."""
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
    return (b"\xff" * 6 + mac + b"\x80\x35" + body).ljust(60, b"\0")
