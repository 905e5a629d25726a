# SPDX-License-Identifier: Apache-2.0
"""The vhost-user back end: what a conversation means, in whatever order it comes.

Used by the vhost-user port. This file receives, dispatches and answers; what the requests do
stands in backend_device, backend_iommu, backend_memory and backend_rings, and what they change in
backend_state.
It moves no frame: the *target* (the port) does, between ``attach`` and ``detach``.

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
a back end was killed, a split ring's used index is where the driver goes on).

Behind an IOMMU (ACCESS_PLATFORM) the addresses of rings, and those in descriptors, are the guest's
I/O virtual ones; ``memtab`` is where kernels look them up. A ring whose place is not known is
*waiting*: the front end is asked, nobody blocks, and the ring is placed when the answer came. An
INVALIDATE is acknowledged after workers ended the passes in which they might have used what it
takes away, and after they left the rings that lay there.

While a guest is moved to another machine, the front end turns on LOG_ALL and shares a dirty log:
``log_record`` is what the target gives to its kernels, for all that they write into buffers, and
``Ring.logged`` says whether the used ring is to be logged as well. Used rings are logged by the
guest address where they lie, whatever address the front end gave for it: it is the same, and not
in the front end's hands.

What is wrong raises ProtocolError after a refusal was sent to a front end that wants one; then the
owner closes the BackEnd and the connection. A request that is merely not served is refused and
the conversation goes on, if the front end can hear the refusal.
"""

import os
from collections.abc import Callable
from contextlib import suppress

from byway.vhost.backend_device import DeviceRequests
from byway.vhost.backend_memory import MemoryRequests
from byway.vhost.backend_rings import RingRequests
from byway.vhost.backend_state import Answer, Loop
from byway.vhost.connection import Closed, Message
from byway.vhost.messages import (
    NEED_REPLY,
    REPLY,
    SPECS,
    ProtocolError,
    ProtocolFeature,
    Refused,
    Spec,
)
from byway.vhost.payloads import pack_u64
from byway.vhost.target import Target

__all__ = ["BackEnd", "Target"]

DONE, FAILED = pack_u64(0), pack_u64(1)


class BackEnd(DeviceRequests, MemoryRequests, RingRequests):
    """One conversation with a front end. ``connection`` is set by the owner, and stays its own.

    ``features``, ``protocol_features``: what is offered (bits). ``queue_pairs``: how many pairs of
    rings the target can serve, 1 to 32; with one, MQ is not offered. ``mem_slots``: how many
    memory regions the front end may add. ``loop``: the event loop that everything runs on; without
    one, what needs to hear or to wait is not offered (BACKEND_REQ and ACCESS_PLATFORM). The same
    values must be given for every connection of a port: a front end that comes back expects what
    it had.

    Attributes of these names hold what the front end took; ``offered`` and ``protocol_offered``
    hold what it may take.
    """

    def __init__(self, target: Target, *, features: int, protocol_features: int,
                 queue_pairs: int = 1, mem_slots: int = 32, loop: Loop | None = None) -> None:
        super().__init__(target, features=features, protocol_features=protocol_features,
                         queue_pairs=queue_pairs, mem_slots=mem_slots, loop=loop)
        self._handlers: dict[int, Callable[[Message], bytes | Answer | None]] = {
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
        elif isinstance(answer, Answer):
            try:
                self.connection.send(message.request, REPLY, answer.payload, [answer.fd])
            finally:
                os.close(answer.fd)
        else:
            self.connection.send(message.request, REPLY, answer)

    def _acknowledge(self, message: Message, result: bytes) -> bool:
        """Send the result to a front end that waits for one; -> whether it does."""
        if not message.flags & NEED_REPLY or not self._took(ProtocolFeature.REPLY_ACK):
            return False
        self.connection.send(message.request, REPLY, result)
        return True

    def _serve(self, message: Message) -> bytes | Answer | None:
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

    def close(self) -> None:
        """Let go of rings and memory, after the workers did. Idempotent."""
        self._target.detach()
        for ring in self.rings:
            ring.stop()
            ring.set_err(-1)
        self._end_translation()
        self._close_log_fd()
        self.log.close()
        self.inflight.close()
        self.memory.close()


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
