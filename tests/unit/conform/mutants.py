# SPDX-License-Identifier: Apache-2.0
"""Back ends that break one rule each, and the check that finds it.

Used by test_mutants. Each is the plain back end with a few lines changed; `MUTANTS` lists them with
the name of the check that must fail.
"""

import mmap
import os

from byway.conform.plain_back_end import Refusal
from byway.conform.plain_rings import PlainBackEnd
from byway.vhost.connection import Connection, Message
from byway.vhost.messages import NEED_REPLY, REPLY, Request
from byway.vhost.payloads import Inflight, MemoryRegion, VringState, pack_u64, unpack_u64
from byway.virtio.features import Feature, mask
from tests.unit.conform.ring_mutants import (
    AlwaysCalls,
    CallsTooOften,
    CountsOneMore,
    Crashes,
    DirtyHeader,
    ForgetsWraps,
    HeaderInFirst,
    KeepsDisabled,
    LeavesChecksums,
    NeverCalls,
    NoIndirect,
    NoNumBuffers,
    Reorders,
    SaysLess,
    SaysWritten,
    TooEarly,
    UsesTwice,
    WantsNoKicks,
    WritesBeyond,
    WritesReadable,
)


class RepliesTwice(PlainBackEnd):
    def acknowledge(self, message: Message, result: int) -> bool:
        super().acknowledge(message, result)
        return super().acknowledge(message, result)


class AcksUnasked(PlainBackEnd):
    def acknowledge(self, message: Message, result: int) -> bool:
        self.reply(message, pack_u64(result))
        return True


class AcksEverything(PlainBackEnd):
    def refuse(self, message: Message, why: str) -> None:
        self.acknowledge(message, 0)


class HangsUpEasily(PlainBackEnd):
    def refuse(self, message: Message, why: str) -> None:
        message.flags &= ~NEED_REPLY
        super().refuse(message, why)


class WrongReplyFlags(PlainBackEnd):
    def reply(self, message: Message, payload: bytes, fds: tuple[int, ...] = ()) -> None:
        self.connection.send(message.request, REPLY | NEED_REPLY, payload, fds)


class EnabledAnyway(PlainBackEnd):
    def on_set_vring_enable(self, message: Message) -> None:
        state = VringState.unpack(message.payload)
        self.ring(state.index).enabled = True


class TakesAnyFeature(PlainBackEnd):
    def on_set_features(self, message: Message) -> None:
        message.payload = pack_u64(unpack_u64(message.payload) & self.offered)
        super().on_set_features(message)


class TakesAnyProtocol(PlainBackEnd):
    def on_set_protocol_features(self, message: Message) -> None:
        self.protocol = unpack_u64(message.payload)


class Moody(PlainBackEnd):
    """Offers something else on each connection."""

    connections = 0

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        type(self).connections += 1
        if self.connections % 2:
            self.offered = self.offered & ~mask(Feature.MTU)


class SegmentsWithoutChecksums(PlainBackEnd):
    offered = PlainBackEnd.offered & ~mask(Feature.CSUM) | mask(Feature.HOST_TSO4)


class KeepsMappings(PlainBackEnd):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.kept: list[mmap.mmap] = []

    def unmap(self) -> None:
        self.kept += [area.map for area in self.memory.areas]
        self.memory.areas = []


class KeepsSlots(PlainBackEnd):
    def on_rem_mem_reg(self, message: Message) -> None:
        return None


class NoSlots(PlainBackEnd):
    def on_get_max_mem_slots(self, message: Message) -> bytes:
        return pack_u64(0)


class ForgetsOffsets(PlainBackEnd):
    def settle(self) -> None:
        for area in self.memory.areas:
            area.offset = 0
        super().settle()


class KnowsOneRegion(PlainBackEnd):
    def settle(self) -> None:
        del self.memory.areas[1:]
        super().settle()


class TakesShortFiles(PlainBackEnd):
    def on_set_mem_table(self, message: Message) -> None:
        if os.fstat(message.fds[0]).st_size > 0:
            super().on_set_mem_table(message)


class TakesOverlaps(PlainBackEnd):
    def _check_overlap(self, regions: list[MemoryRegion]) -> None:
        return None


class BaseOneOff(PlainBackEnd):
    def on_get_vring_base(self, message: Message) -> bytes:
        state = VringState.unpack(super().on_get_vring_base(message))
        return VringState(state.index, state.num + 1).pack()


class BaseOfAnother(PlainBackEnd):
    def on_get_vring_base(self, message: Message) -> bytes:
        state = VringState.unpack(super().on_get_vring_base(message))
        return VringState(state.index ^ 1, state.num).pack()


class NeverStops(PlainBackEnd):
    def on_get_vring_base(self, message: Message) -> bytes:
        ring = self.ring(VringState.unpack(message.payload).index)
        return VringState(ring.index, self.devices[ring.index].position).pack()


class BeginsAtZero(PlainBackEnd):
    def on_set_vring_base(self, message: Message) -> None:
        return None


class AnySize(PlainBackEnd):
    def on_set_vring_num(self, message: Message) -> None:
        state = VringState.unpack(message.payload)
        self.ring(state.index).size = state.num


class LogsNothing(PlainBackEnd):
    def prepare(self) -> None:
        self.memory.log = None


class LogsAlways(PlainBackEnd):
    def settle(self) -> None:
        self.memory.logging = True
        super().settle()


class KeepsCall(PlainBackEnd):
    def on_set_vring_call(self, message: Message) -> None:
        if self.ring(message.payload[0]).call < 0:
            super().on_set_vring_call(message)


class NoAnnouncement(PlainBackEnd):
    def on_send_rarp(self, message: Message) -> None:
        return None


class ForgetsStatus(PlainBackEnd):
    def on_get_status(self, message: Message) -> bytes:
        return pack_u64(0)


class AnyMtu(PlainBackEnd):
    def on_net_set_mtu(self, message: Message) -> None:
        return None


class LeaksFds(PlainBackEnd):
    kept: list[int]

    def handle(self, message: Message) -> None:
        self.kept = [*getattr(self, "kept", []), *(os.dup(fd) for fd in message.fds)]
        super().handle(message)


class ResetsNothing(PlainBackEnd):
    def on_reset_device(self, message: Message) -> None:
        return None


class DirtyInflight(PlainBackEnd):
    def reply(self, message: Message, payload: bytes, fds: tuple[int, ...] = ()) -> None:
        if message.request == Request.GET_INFLIGHT_FD:
            os.pwrite(fds[0], b"\1", 8)
        super().reply(message, payload, fds)


class SmallInflight(PlainBackEnd):
    def reply(self, message: Message, payload: bytes, fds: tuple[int, ...] = ()) -> None:
        if message.request == Request.GET_INFLIGHT_FD:
            payload = Inflight(64, 0, 2, 256).pack()
        super().reply(message, payload, fds)


class EatsReplies(PlainBackEnd):
    def on_get_protocol_features(self, message: Message) -> bytes:
        raise Refusal("not today")


class Connections(PlainBackEnd):
    """Serves its first connection only."""

    count = 0

    def __init__(self, connection: Connection, *more: object) -> None:
        type(self).count += 1
        if self.count > 2:
            connection.close()
        super().__init__(connection, *more)  # type: ignore[arg-type]


MUTANTS: dict[str, tuple[type[PlainBackEnd], str]] = {
    kind.__name__: (kind, check) for kind, check in (
        (SaysWritten, "ring.split.used-length-transmit"),
        (SaysLess, "ring.packed.used-length-receive"),
        (NeverCalls, "notify.split.call-transmit"),
        (AlwaysCalls, "notify.split.suppressed"),
        (CallsTooOften, "notify.packed.event-batched"),
        (RepliesTwice, "transport.ack-once"),
        (AcksUnasked, "transport.no-ack-unasked"),
        (AcksEverything, "transport.unknown-request-ack"),
        (HangsUpEasily, "transport.goes-on-after-refusal"),
        (WrongReplyFlags, "features.minimal"),
        (EnabledAnyway, "ring.split.disabled-receive"),
        (KeepsDisabled, "ring.split.disabled-transmit-used"),
        (TakesAnyFeature, "features.unknown-bit"),
        (TakesAnyProtocol, "features.protocol-unknown-bit"),
        (Moody, "features.stable"),
        (SegmentsWithoutChecksums, "features.closure"),
        (KeepsMappings, "memory.replaced"),
        (KeepsSlots, "memory.slots-remove"),
        (NoSlots, "memory.slots-max"),
        (ForgetsOffsets, "memory.offset"),
        (KnowsOneRegion, "memory.eight-regions"),
        (TakesShortFiles, "memory.short-file"),
        (TakesOverlaps, "memory.slots-overlap"),
        (BaseOneOff, "ring.split.get-base"),
        (BaseOfAnother, "ring.packed.get-base"),
        (NeverStops, "ring.split.stopped-transmit"),
        (BeginsAtZero, "ring.split.base"),
        (AnySize, "ring.size-0"),
        (NoNumBuffers, "net.one-buffer"),
        (CountsOneMore, "net.split.merged"),
        (DirtyHeader, "net.header-zero"),
        (WritesBeyond, "ring.split.beyond-untouched"),
        (WritesReadable, "ring.split.readable-untouched"),
        (LogsNothing, "log.split.receive"),
        (LogsAlways, "log.off"),
        (KeepsCall, "notify.call-changed"),
        (NoAnnouncement, "net.rarp"),
        (LeavesChecksums, "net.needs-csum"),
        (TooEarly, "status.before-driver-ok"),
        (ForgetsStatus, "status.handshake"),
        (HeaderInFirst, "ring.split.header-with-frame"),
        (NoIndirect, "ring.split.indirect"),
        (ForgetsWraps, "ring.packed.laps"),
        (Reorders, "ring.split.frames-in-order"),
        (UsesTwice, "ring.split.whole-ring"),
        (AnyMtu, "net.mtu-too-small"),
        (LeaksFds, "transport.stray-fd"),
        (ResetsNothing, "features.reset-device"),
        (DirtyInflight, "inflight.get"),
        (SmallInflight, "inflight.get"),
        (WantsNoKicks, "notify.split.kick-wanted"),
        (EatsReplies, "features.protocol-before-features"),
        (Connections, "transport.reconnect"),
        (Crashes, "robust.split.bad-address"),
    )}
