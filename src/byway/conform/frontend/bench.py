# SPDX-License-Identifier: Apache-2.0
"""What the checks of a front end work with: its visits, each made once and looked at by many.

Used by the checks of front ends. A front end cannot be told what to do; so the bench takes what
comes, in three visits: it is served and given frames; it is hung up on and expected again; it is
given nonsense and expected again.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from byway.conform.backend.bench import Door
from byway.conform.frontend.meeting import Meeting, WatchedBackEnd
from byway.conform.outcome import Failed, Gone, NotApplicable
from byway.vhost.connection import Connection

FRAMES = 200  # given to the driver on a visit
IDLE = 0.3  # seconds in which a driver shows what it does by itself


class FrontBench:
    """One front end under test. ``timeout``: seconds within which it has to come, to start,
    and to take or give what it is asked for."""

    def __init__(self, path: str, *, server: bool = True, timeout: float = 10.0,
                 seed: int = 1) -> None:
        self.timeout, self.seed = timeout, seed
        self._door = Door(path, server, timeout)
        self._visits: dict[str, Meeting | Failed] = {}
        self._current: Meeting | None = None
        self.facts: dict[str, int] = {}  # what was counted on the way
        self.left_at: dict[int, int] = {}  # where the rings were when we hung up

    # ------------------------------------------------------------ visits
    def _come(self, kind: type[WatchedBackEnd] = WatchedBackEnd) -> Meeting:
        if self._current is not None:
            self._current.close()
            self._current = None
        end = time.monotonic() + self.timeout
        reason = "nobody came"
        while time.monotonic() < end:
            try:
                sock = self._door.open(end - time.monotonic())
            except OSError as error:
                reason, sock = str(error), None
                time.sleep(0.05)
            if sock is not None:
                sock.setblocking(False)
                self._current = Meeting(Connection(sock), self.timeout, kind)
                return self._current
        raise Gone(f"no front end at {self._door.path} within {self.timeout:g} s: {reason}")

    def visit(self, name: str) -> Meeting:
        """A visit, made when it is first asked for: "first", "again" or "nonsense"."""
        if name not in self._visits:
            try:
                self._visits[name] = getattr(self, f"_{name}")()
            except Failed as error:
                self._visits[name] = error
        found = self._visits[name]
        if isinstance(found, Failed):
            raise type(found)(str(found))
        return found

    @property
    def first(self) -> Meeting:
        """The first visit."""
        return self.visit("first")

    def _first(self) -> Meeting:
        meeting = self._come()
        if not self._started(meeting):
            self.facts["started"] = 0
            return meeting
        self.facts["started"] = 1
        meeting.serve(self.timeout, lambda: self._posted(meeting) > 0)
        meeting.serve(IDLE)
        self._frames(meeting)
        self._suppressed(meeting)
        return meeting

    def _started(self, meeting: Meeting) -> bool:
        return meeting.serve(self.timeout, lambda: meeting.running)

    def _frames(self, meeting: Meeting) -> None:
        """Frames of all sizes, and how many buffers the driver gave for them."""
        self.facts["buffers"] = self._posted(meeting)
        self.facts["delivered"] = meeting.deliver(self.sizes(2 * FRAMES))
        meeting.serve(self.timeout, lambda: 2 * self._posted(meeting) >= self.facts["buffers"])
        self.facts["buffers after"] = self._posted(meeting)
        meeting.serve(IDLE)

    @staticmethod
    def _posted(meeting: Meeting) -> int:
        """The receive buffers that wait for frames."""
        device = meeting.back_end.devices.get(0)
        return device.posted() if device else 0

    def sizes(self, count: int) -> list[int]:
        """Bytes of so many frames: the same for the same seed."""
        rng = random.Random(f"{self.seed} {count}")
        return [rng.choice((60, 1514, rng.randrange(60, 1515))) for _ in range(count)]

    def _suppressed(self, meeting: Meeting) -> None:
        """Kicks that come though the device asked for none."""
        meeting.back_end.wants_kicks = False
        for device in meeting.back_end.devices.values():
            device.want_kicks(False)
        meeting.serve(0.05)
        meeting.back_end.kicks_seen.clear()
        before = meeting.back_end.frames_in
        meeting.deliver(self.sizes(FRAMES // 2))
        meeting.serve(IDLE)
        self.facts["quiet kicks"] = sum(meeting.back_end.kicks_seen.values())
        self.facts["quiet frames"] = meeting.back_end.frames_in - before + FRAMES // 2
        meeting.back_end.wants_kicks = True

    def _again(self) -> Meeting:
        first = self.first
        self.left_at = {k: d.used_position for k, d in first.back_end.devices.items()}
        meeting = self._come()
        if self._started(meeting):
            self.facts["delivered again"] = meeting.deliver(self.sizes(FRAMES))
        return meeting

    def _nonsense(self) -> Meeting:
        """A reply that nobody asked for, of a request that does not exist."""
        self.visit("again")
        assert self._current
        self._current.back_end.connection.send(0x7FFF, 4, bytes(8))
        self._current.serve(IDLE)
        meeting = self._come()
        self._started(meeting)
        return meeting

    # ------------------------------------------------------------ for the runner
    @contextmanager
    def check(self) -> Iterator[None]:
        """Around each check: visits outlive it."""
        yield

    def probe(self) -> None:
        """A front end is not asked between checks: it comes by itself."""

    def need_start(self, meeting: Meeting) -> None:
        """NotApplicable where the front end never started its rings."""
        if not meeting.running and not meeting.back_end.bases:
            raise NotApplicable("it never started its rings")

    def close(self) -> None:
        """Hang up, and stop listening."""
        if self._current is not None:
            self._current.close()
        self._door.close()
