# SPDX-License-Identifier: Apache-2.0
"""What a front end has set up so far, and how it changes: the base of the back end.

Used by backend.py and the files of its requests (backend_device, backend_iommu, backend_memory,
backend_rings); uses memory, iotlb, log, inflight, recovery and
ring. The theory of operation stands in backend.py.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from byway.vhost import back_channel, recovery
from byway.vhost.connection import Connection, Message
from byway.vhost.inflight import InflightRegion
from byway.vhost.iotlb import Iotlb, Timer
from byway.vhost.log import DirtyLog
from byway.vhost.memory import Memory
from byway.vhost.messages import ProtocolError, ProtocolFeature
from byway.vhost.payloads import VringState
from byway.vhost.ring import Placing, Ring
from byway.vhost.target import Target
from byway.virtio.features import Feature, has, mask
from byway.virtio.status import Status

MAX_QUEUE_PAIRS = 32
MAX_RINGS = 256  # that messages can name by 8 bits


class Answer(NamedTuple):
    """A reply with a file descriptor, which is closed once it was sent."""

    payload: bytes
    fd: int


class Loop(back_channel.Loop, Protocol):
    """What is needed of an event loop (asyncio's has it)."""

    def call_later(self, seconds: float, callback: Callable[[], None], /) -> Timer:
        """Call it once, so much later."""

    def time(self) -> float:
        """Seconds, from any beginning."""


class State:
    """The features, memory and rings of one conversation; see BackEnd for the public ones."""

    connection: Connection

    def __init__(self, target: Target, *, features: int, protocol_features: int,
                 queue_pairs: int, mem_slots: int, loop: Loop | None) -> None:
        if not 1 <= queue_pairs <= MAX_QUEUE_PAIRS:
            raise ValueError(f"{queue_pairs} queue pairs; from 1 to {MAX_QUEUE_PAIRS}")
        # A guest that takes MQ may use as many pairs as its front end was promised: with one
        # pair, it would use rings that nobody serves.
        self.offered = features & ~mask(Feature.MQ) if queue_pairs == 1 else features
        self.protocol_offered = protocol_features
        if loop is None:  # to hear, and to wait
            self.offered &= ~mask(Feature.ACCESS_PLATFORM)
            self.protocol_offered &= ~(1 << ProtocolFeature.BACKEND_REQ)
        self.features = 0
        self.features_set = False
        self.protocol_features = 0
        self.mem_slots = mem_slots
        self.mtu = 0
        self.status = 0
        self.status_seen = False
        self.memory = Memory(target.fault_flag)
        self.iotlb = Iotlb(self.memory, target.settle, loop.time if loop else time.monotonic)
        self.log = DirtyLog(self.memory.table, target.fault_flag)
        self.log_fd = -1
        self.inflight = InflightRegion(MAX_RINGS, target.fault_flag)
        # QEMU reads GET_QUEUE_NUM as pairs of rings, rust-vmm's front ends as rings. Without
        # the feature MQ a guest uses one pair whatever is promised, so two satisfy both; rings
        # beyond queue_pairs may be prepared but never become ready. With MQ every pair that QEMU
        # was promised may be used and must be served: rust-vmm's front ends then get half.
        self.queue_num = queue_pairs if has(self.offered, Feature.MQ) else 2 * queue_pairs
        self.rings = [Ring(i, served=i < 2 * queue_pairs) for i in range(2 * self.queue_num)]
        self._target = target
        self._loop = loop

    @property
    def packed(self) -> bool:
        """Whether the rings are packed."""
        return has(self.features, Feature.RING_PACKED)

    @property
    def translated(self) -> bool:
        """Whether addresses of rings and descriptors are those of the guest's IOMMU."""
        return has(self.features, Feature.ACCESS_PLATFORM)

    @property
    def memtab(self) -> int:
        """The address of the MEMTAB record in which descriptors' addresses are looked up."""
        return self.iotlb.table if self.translated else self.memory.table

    @property
    def log_record(self) -> int:
        """The address of the LOG record for queues, 0 while nothing is to be logged."""
        return self.log.record if has(self.features, Feature.LOG_ALL) else 0

    def _took(self, feature: ProtocolFeature) -> bool:
        return bool(self.protocol_features >> feature & 1)

    def _driver_ok(self) -> bool:
        return not self.status_seen or bool(self.status & Status.DRIVER_OK)

    def _ring(self, index: int) -> Ring:
        if index >= len(self.rings):
            raise ProtocolError(f"ring {index} of a device that has {len(self.rings)}")
        return self.rings[index]

    def _state(self, message: Message) -> tuple[Ring, int]:
        state = VringState.unpack(message.payload)
        return self._ring(state.index), state.num

    @contextmanager
    def _change(self, starting: Iterable[Ring] = ()) -> Iterator[None]:
        """Around a change: workers leave before it and come back after it.

        ``starting``: the rings that the front end means to start, whose addresses must be good;
        others are left stopped where theirs are not. Nothing may be Refused inside.
        """
        self._target.detach()
        for ring in self.rings:
            if ring.ready:
                ring.base = self._target.position(ring.index)
        yield
        common = self.features_set and bool(self.memory.regions) and self._driver_ok()
        locate = self.iotlb.locate if self.translated else self.memory.user_to_host
        placing = Placing(locate, has(self.features, Feature.EVENT_IDX), self.packed,
                          self.translated)
        for ring in self.rings:
            problem = ring.place(placing) if common else ring.unplace()
            if ring.ready:
                problem = self._recover(ring)
            if problem and ring in starting:
                raise ProtocolError(problem)
        self._target.attach()

    def _recover(self, ring: Ring) -> str:
        """Let a ring that was placed use its part of the in-flight region; -> as Ring.place."""
        part = self.inflight.part(ring.index, ring.packed)
        if not part:
            return ""
        if ring.recovered:
            recovery.resume(part, ring)
        elif problem := recovery.start(part, self.inflight.queue_size, ring, self.features,
                                       self.log_record):
            ring.unplace()
            return problem
        ring.recovered = True
        ring.inflight = part if ring.packed else 0  # a split ring's used index says it all
        return ""
