# SPDX-License-Identifier: Apache-2.0
"""The vhost-user back end: what a conversation means, in whatever order it comes.

Used by the vhost-user port; uses messages, payloads, connection, memory. It moves no frame: the
*target* (the port) does, between ``attach`` and ``detach``.

Theory of operation
-------------------
One BackEnd serves one connection; the next connection gets a new one. Front ends differ in order
(QEMU enables rings long before SET_FEATURES, cloud-hypervisor sends addresses before the base and
before the memory) and repeat themselves. So nothing is an event: each message changes the wanted
state of a ring, and after each change it is asked anew which rings are *ready*: features and
memory set, size, addresses (inside one memory region each, aligned), a kick and a call message
seen, and, if the front end ever sent SET_STATUS, DRIVER_OK. Whether a ready ring is *enabled* is
the target's business: a disabled ring is served, but nothing passes it ("Ring states").

Every change of memory, addresses, features, enabling or kick runs as

    target.detach()      no worker touches rings or memory any more
    change               and rings' positions taken back into ``base``
    target.attach()      the target serves what is ready

and a message that changes nothing does not disturb the workers. ``base`` is what the
front end said, or where the target had come; a target may know better from the ring itself (after
a back end was killed, its used index is where the driver goes on).

What is wrong raises ProtocolError after a refusal was sent to a front end that wants one; then the
owner closes the BackEnd and the connection. A request that is merely not served is refused and
the conversation goes on, if the front end can hear the refusal.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from byway.vhost.connection import Closed, Connection, Message
from byway.vhost.memory import Memory
from byway.vhost.messages import (
    NEED_REPLY,
    REPLY,
    SPECS,
    ProtocolError,
    ProtocolFeature,
    Refused,
    Spec,
)
from byway.vhost.payloads import (
    MemoryRegion,
    RingFile,
    VringAddress,
    VringState,
    pack_u64,
    unpack_memory_table,
    unpack_u64,
)
from byway.vhost.ring import Ring, check_event_fd
from byway.virtio.features import Feature, has, names

DRIVER_OK = 4  # VIRTIO 1.2, 2.1 Device Status Field
MIN_MTU, MAX_MTU = 68, 65535
MAX_BASE = 0xFFFF  # a split ring's index
DONE, FAILED = pack_u64(0), pack_u64(1)


class Target(Protocol):
    """What a back end drives: it serves the rings that are ready."""

    @property
    def fault_flag(self) -> int:
        """Address of the int64 that a fault in the front end's memory raises."""

    def detach(self) -> None:
        """When this returns no worker touches rings or memory. Idempotent."""

    def attach(self) -> None:
        """Rings may be ready now; look at ``BackEnd.rings``."""

    def position(self, index: int) -> int:
        """The next avail index of a ring that was ready; after detach.

        ``Ring.base`` where the target did not take the ring up (it waits for its pair, say).
        """

    def call_changed(self, index: int) -> None:
        """Use ``Ring.call`` of a ready ring; when this returns no worker uses the old fd."""

    def mtu_changed(self, mtu: int) -> bool:
        """The guest's MTU in bytes; -> whether it can be served."""


class BackEnd:
    """One conversation with a front end. ``connection`` is set by the owner, and stays its own.

    ``features``, ``protocol_features``: what is offered (bits). ``mem_slots``: how many memory
    regions the front end may add. Attributes of these names hold what the front end took.
    """

    connection: Connection

    def __init__(self, target: Target, *, features: int, protocol_features: int,
                 queue_pairs: int = 1, mem_slots: int = 32) -> None:
        self.offered = features
        self.protocol_offered = protocol_features
        self.features = 0
        self.features_set = False
        self.protocol_features = 0
        self.mem_slots = mem_slots
        self.mtu = 0
        self.status = 0
        self.status_seen = False
        self.memory = Memory(target.fault_flag)
        # QEMU reads GET_QUEUE_NUM as pairs of rings, rust-vmm's front ends as rings. Without
        # the feature MQ a guest uses one pair whatever is promised, so two satisfy both; rings
        # beyond queue_pairs may be prepared but never become ready.
        self.queue_num = queue_pairs if has(features, Feature.MQ) else 2 * queue_pairs
        self.rings = [Ring(i, served=i < 2 * queue_pairs) for i in range(2 * self.queue_num)]
        self._target = target
        self._handlers: dict[int, Callable[[Message], bytes | None]] = {
            spec.number: getattr(self, f"_{spec.name.lower()}")
            for spec in SPECS.values() if spec.served}

    # ------------------------------------------------------------ one message

    def handle(self, message: Message) -> None:
        """Do one message and answer it; every fd it carries is kept by a ring or closed.

        ProtocolError: the conversation is over; Closed: the answer found nobody.
        """
        try:
            answer = self._serve(message)
        except Refused:
            if not self._acknowledge(message, FAILED):
                raise
            return
        except ProtocolError:
            with suppress(Closed, ProtocolError):  # the first reason is the one to tell
                self._acknowledge(message, FAILED)
            raise
        finally:
            message.close()
        if answer is None:
            self._acknowledge(message, DONE)
        else:
            self.connection.send(message.request, REPLY, answer)

    def _acknowledge(self, message: Message, result: bytes) -> bool:
        """Send the result to a front end that waits for one; -> whether it does."""
        if not message.flags & NEED_REPLY or not self._took(ProtocolFeature.REPLY_ACK):
            return False
        self.connection.send(message.request, REPLY, result)
        return True

    def _took(self, feature: ProtocolFeature) -> bool:
        return bool(self.protocol_features >> feature & 1)

    def _serve(self, message: Message) -> bytes | None:
        spec = SPECS.get(message.request)
        if spec is None or not spec.served:
            raise Refused(f"{message.name} is not supported")
        _check_frame(spec, message)
        if spec.gate is not None and not self._took(spec.gate):
            raise Refused(f"{spec.name} without the protocol feature {spec.gate.name}")
        try:
            return self._handlers[spec.number](message)
        except ProtocolError as error:
            raise type(error)(f"{spec.name}: {error.reason}") from error

    # ------------------------------------------------------------ changes

    @contextmanager
    def _change(self, starting: Iterable[Ring] = ()) -> Iterator[None]:
        """Around a change: workers leave before it and come back after it.

        ``starting``: the rings that the front end means to start, whose addresses must be good;
        others are left stopped where theirs are not.
        """
        self._target.detach()
        for ring in self.rings:
            if ring.ready:
                ring.base = self._target.position(ring.index)
        yield
        common = self.features_set and bool(self.memory.regions) and self._driver_ok()
        event_idx = has(self.features, Feature.EVENT_IDX)
        for ring in self.rings:
            problem = ring.place(self.memory, event_idx) if common else ring.unplace()
            if problem and ring in starting:
                raise ProtocolError(problem)
        self._target.attach()

    def _driver_ok(self) -> bool:
        return not self.status_seen or bool(self.status & DRIVER_OK)

    def _ring(self, index: int) -> Ring:
        if index >= len(self.rings):
            raise ProtocolError(f"ring {index} of a device that has {len(self.rings)}")
        return self.rings[index]

    def _state(self, message: Message) -> tuple[Ring, int]:
        state = VringState.unpack(message.payload)
        return self._ring(state.index), state.num

    def close(self) -> None:
        """Let go of rings and memory, after the workers did. Idempotent."""
        self._target.detach()
        for ring in self.rings:
            ring.stop()
            ring.set_err(-1)
        self.memory.close()

    # ------------------------------------------------------------ features

    def _get_features(self, message: Message) -> bytes:
        return pack_u64(self.offered)

    def _set_features(self, message: Message) -> None:
        features = unpack_u64(message.payload)
        if unknown := features & ~self.offered:
            raise ProtocolError("features that were not offered: " + ", ".join(names(unknown)))
        if self.features_set and features == self.features:
            return
        with self._change(self.rings):
            self.features, self.features_set = features, True
            if not has(features, Feature.PROTOCOL_FEATURES):
                for ring in self.rings:  # "Ring states": enabled at once
                    ring.enabled = True

    def _get_protocol_features(self, message: Message) -> bytes:
        return pack_u64(self.protocol_offered)

    def _set_protocol_features(self, message: Message) -> None:
        features = unpack_u64(message.payload)
        if unknown := features & ~self.protocol_offered:
            raise ProtocolError(f"protocol features that were not offered: {unknown:#x}")
        self.protocol_features = features

    def _set_owner(self, message: Message) -> None:
        pass  # the connection has one owner anyway

    def _reset_owner(self, message: Message) -> None:
        pass  # deprecated: "recommended that back-ends ... ignore this message"

    def _get_queue_num(self, message: Message) -> bytes:
        return pack_u64(self.queue_num)

    def _net_set_mtu(self, message: Message) -> None:
        mtu = unpack_u64(message.payload)
        if not MIN_MTU <= mtu <= MAX_MTU or not self._target.mtu_changed(mtu):
            raise Refused(f"an MTU of {mtu} is not served")
        self.mtu = mtu

    def _get_status(self, message: Message) -> bytes:
        return pack_u64(self.status)

    def _set_status(self, message: Message) -> None:
        status = unpack_u64(message.payload)
        if status > 0xFF:
            raise ProtocolError(f"a device status of {status:#x}")
        was_ok = self._driver_ok()
        if was_ok == bool(status & DRIVER_OK):
            self.status, self.status_seen = status, True
            return
        with self._change(self.rings):
            self.status, self.status_seen = status, True

    def _reset_device(self, message: Message) -> None:
        with self._change():
            self.features, self.features_set, self.status = 0, False, 0
            for ring in self.rings:
                ring.stop()
                ring.base, ring.enabled = 0, False

    # ------------------------------------------------------------ memory

    def _set_mem_table(self, message: Message) -> None:
        regions = unpack_memory_table(message.payload)
        if self.memory.is_same(regions, message.fds):
            return  # QEMU repeats it whenever a driver starts
        with self._change(self.rings):
            self.memory.replace(regions, message.fds)

    def _get_max_mem_slots(self, message: Message) -> bytes:
        return pack_u64(self.mem_slots)

    def _add_mem_reg(self, message: Message) -> None:
        region = MemoryRegion.unpack_single(message.payload)
        if len(self.memory.regions) >= self.mem_slots:
            raise ProtocolError(f"more than {self.mem_slots} memory regions")
        with self._change():
            self.memory.add(region, message.fds[0])

    def _rem_mem_reg(self, message: Message) -> None:
        region = MemoryRegion.unpack_single(message.payload)
        with self._change():
            self.memory.remove(region)

    def _set_log_fd(self, message: Message) -> None:
        pass  # an event fd for a log that was not offered: closed with the message

    # ------------------------------------------------------------ rings

    def _set_vring_num(self, message: Message) -> None:
        ring, size = self._state(message)
        ring.check_size(size)
        if size != ring.size:
            with self._change([ring]):
                ring.size = size

    def _set_vring_addr(self, message: Message) -> None:
        address = VringAddress.unpack(message.payload)
        ring = self._ring(address.index)
        if address != ring.address:
            with self._change([ring]):
                ring.address = address

    def _set_vring_base(self, message: Message) -> None:
        ring, base = self._state(message)
        if base > MAX_BASE:
            raise ProtocolError(f"ring {ring.index} starts at {base:#x}, no 16-bit index")
        if ring.ready or base != ring.base:
            with self._change([ring]):
                ring.base = base

    def _get_vring_base(self, message: Message) -> bytes:
        ring, _ = self._state(message)
        with self._change():
            ring.stop()
        return VringState(ring.index, ring.base).pack()

    def _set_vring_kick(self, message: Message) -> None:
        ring = self._ring_of_file(message)
        with self._change([ring]):
            ring.set_kick(message.take_fd())

    def _set_vring_call(self, message: Message) -> None:
        ring = self._ring_of_file(message)
        if not ring.ready:
            with self._change([ring]):
                ring.set_call(message.take_fd())
            return
        # QEMU switches between two fds while the guest runs: no reason to stop the ring.
        old, ring.call = ring.call, message.take_fd()
        self._target.call_changed(ring.index)
        if old >= 0:
            os.close(old)

    def _set_vring_err(self, message: Message) -> None:
        self._ring_of_file(message).set_err(message.take_fd())

    def _ring_of_file(self, message: Message) -> Ring:
        """The ring that a message brings an event fd (or none) for; the message keeps it."""
        payload = RingFile.unpack(message.payload)
        ring = self._ring(payload.index)
        if payload.has_fd != bool(message.fds):
            said = "one" if payload.has_fd else "no"
            raise ProtocolError(f"{said} file descriptor announced, {len(message.fds)} attached")
        if message.fds:
            check_event_fd(message.fds[0])
        return ring

    def _set_vring_enable(self, message: Message) -> None:
        ring, on = self._state(message)
        if on > 1:
            raise ProtocolError(f"ring {ring.index} enabled with {on}, neither 0 nor 1")
        if ring.enabled != bool(on):
            with self._change():
                ring.enabled = bool(on)


def _check_frame(spec: Spec, message: Message) -> None:
    """What the table says of a message: flags, size, number of fds."""
    if message.flags & REPLY:
        raise ProtocolError(f"{spec.name} marked as a reply")
    size = len(message.payload)
    if not spec.payload.fewest <= size <= spec.payload.most:
        raise ProtocolError(f"{spec.name} with {size} bytes; its payload ({spec.payload.what}) has "
                            f"{_span(spec.payload.fewest, spec.payload.most)}")
    fewest, most = spec.fds
    if not fewest <= len(message.fds) <= most:
        raise ProtocolError(f"{spec.name} with {len(message.fds)} file descriptors; it takes "
                            f"{_span(fewest, most)}")


def _span(fewest: int, most: int) -> str:
    return str(most) if fewest == most else f"{fewest} to {most}"
