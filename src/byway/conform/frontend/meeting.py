# SPDX-License-Identifier: Apache-2.0
"""One connection of a front end to the plain back end, and everything that was seen on it.

Used by frontend.bench. A `Meeting` serves until a condition holds; what the front end said is in
``said``, what it did wrong in ``notes`` (by rule, see plain_back_end and device).
"""

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from byway.conform.device import DeviceRing, Taken
from byway.conform.outcome import Failed
from byway.conform.plain_back_end import OFFERED, PROTOCOL_OFFERED, PlainConversation, RingState
from byway.conform.plain_rings import PlainBackEnd
from byway.vhost.connection import Closed, Connection, Message
from byway.vhost.messages import NEED_REPLY, SPECS, ProtocolError, ProtocolFeature
from byway.virtio.features import Feature, mask

P, F = ProtocolFeature, Feature
PAIRS = 4
BROADCAST = b"\xff" * 6
SOURCE = b"\x02\0\0\0\xc0\x03"


@dataclass(frozen=True)
class Said:
    """One message, and what had been negotiated when it came."""

    name: str
    request: int
    need_reply: bool
    payload: bytes
    fds: int
    features: int
    protocol: int
    when: float


class WatchedBackEnd(PlainBackEnd):
    """The plain back end with more on offer, which remembers what it is told."""

    offered = OFFERED & ~mask(F.LOG_ALL)
    protocol_offered = PROTOCOL_OFFERED & ~(1 << P.LOG_SHMFD | 1 << P.INFLIGHT_SHMFD)
    pairs = PAIRS

    def __init__(self, connection: Connection, sink: Callable[[bytes], None],
                 note: Callable[[str, str], None]) -> None:
        super().__init__(connection, sink, note)
        self.said: list[Said] = []
        self.kicks_seen: dict[int, int] = {}
        self.buffer_sizes: set[int] = set()
        self.bases: dict[int, int] = {}

    def handle(self, message: Message) -> None:
        """Remember, judge by the table, do."""
        self.said.append(Said(message.name, message.request, bool(message.flags & NEED_REPLY),
                              message.payload, len(message.fds), self.features, self.protocol,
                              time.monotonic()))
        self._judge(message)
        super().handle(message)

    def _judge(self, message: Message) -> None:
        spec = SPECS.get(message.request)
        if spec is None:
            self.note("conversation.known", f"request {message.request}, which does not exist")
            return
        size, fds = len(message.payload), len(message.fds)
        if not spec.payload.fewest <= size <= spec.payload.most:
            self.note("conversation.payload-size", f"{spec.name} with {size} bytes")
        if not spec.fds[0] <= fds <= spec.fds[1]:
            self.note("conversation.fds", f"{spec.name} with {fds} fds")
        if spec.gate is not None and not self.took(spec.gate):
            self.note("conversation.gated", f"{spec.name} without {spec.gate.name}")
        if message.flags & NEED_REPLY and not self.took(P.REPLY_ACK):
            self.note("conversation.need-reply", f"{spec.name} with NEED_REPLY, without REPLY_ACK")

    def make_ring(self, ring: RingState, desc: int, avail: int, used: int) -> DeviceRing:
        """A ring begins: where."""
        made = super().make_ring(ring, desc, avail, used)
        self.bases[ring.index] = ring.base
        if not made.packed and made.position != made.used_position:
            # Known front ends say 0 after a reconnect; the ring itself knows better.
            self.note("rings.base-and-used", f"ring {ring.index} begins at {ring.base:#x}, its "
                      f"used index is {made.used_position:#x}")
            made.position = made.used_position
        for gpa, n in ((desc, 16 * ring.size), (avail, 4), (used, 4)):
            try:
                self.memory.read(gpa, n)
            except Failed as error:
                self.note("rings.inside", f"ring {ring.index}: {error}")
        return made

    def kicked(self, fd: int) -> None:
        """Count it."""
        for ring in self.rings:
            if ring.kick == fd:
                self.kicks_seen[ring.index] = self.kicks_seen.get(ring.index, 0) + 1
        super().kicked(fd)

    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        """Remember the sizes of receive buffers."""
        if ring.index == 0:
            self.buffer_sizes |= {taken.room for taken, _ in used}
        super().finish(ring, device, used)


class Meeting:
    """A front end that came, served by us until ``close``. ``timeout``: seconds that it has for
    what it must do."""

    def __init__(self, connection: Connection, timeout: float,
                 kind: type[WatchedBackEnd] = WatchedBackEnd) -> None:
        self.timeout = timeout
        self.notes: dict[str, list[str]] = {}
        self.back_end = kind(connection, self._sink, self._note)
        self.sent_by_driver: list[bytes] = []
        self.ended = ""  # why the conversation is over

    def _note(self, rule: str, text: str) -> None:
        kept = self.notes.setdefault(rule, [])
        if len(kept) < 10 and text not in kept:
            kept.append(text)

    def _sink(self, frame: bytes) -> None:
        if len(self.sent_by_driver) < 1000:
            self.sent_by_driver.append(frame)

    @property
    def said(self) -> list[Said]:
        """What the front end said, in order."""
        return self.back_end.said

    @property
    def running(self) -> bool:
        """Both rings of the first pair are served and enabled."""
        return all(k in self.back_end.devices and self.back_end.rings[k].enabled for k in (0, 1))

    def serve(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Serve until it is so, for so long at most; -> whether it is so."""
        end = time.monotonic() + seconds
        while not self.ended and not until() and time.monotonic() < end:
            self._turn(min(0.02, max(0.0, end - time.monotonic())))
        return until()

    def _turn(self, seconds: float) -> None:
        poll = select.poll()
        back_end = self.back_end
        kicks = back_end.kicks
        for fd in (back_end.connection.fileno(), *kicks):
            poll.register(fd, select.POLLIN)
        if back_end.polls or not back_end.wants_kicks:
            seconds = 0.001
        ready = {fd for fd, _ in poll.poll(seconds * 1000)}
        for fd in ready & set(kicks):
            back_end.kicked(fd)
        try:
            if back_end.connection.fileno() in ready:
                while (message := back_end.connection.receive()) is not None:
                    back_end.handle(message)
            back_end.serve()
        except Closed as closed:
            self.ended = closed.reason
        except ProtocolError as error:
            self._note("conversation.broken", error.reason)
            self.ended = f"we hung up: {error.reason}"

    def deliver(self, sizes: Sequence[int]) -> int:
        """Give the driver a frame of each size; -> how many it had buffers for."""
        before = self.back_end.frames_out
        for k, size in enumerate(sizes):
            body = b"\x88\xb5" + b"byway" + bytes([k & 0xFF]) * (size - 21)
            self.back_end.deliver(BROADCAST + SOURCE + body)
            if k % 16 == 15:
                self.serve(0.01)
        self.serve(self.timeout, lambda: not self.back_end.waiting)
        return self.back_end.frames_out - before

    def names(self) -> Sequence[str]:
        """The requests by name, in order."""
        return [one.name for one in self.said]

    def close(self) -> None:
        """Hang up. Idempotent."""
        PlainConversation.close(self.back_end)
        self.back_end.devices.clear()
