# SPDX-License-Identifier: Apache-2.0
"""An event loop that runs when it is told to, with a clock of its own.

Used by the dialogues and by tests of whatever needs a loop; it has of asyncio's what byway.vhost
needs. Nothing waits: ``run`` calls whoever can go on now, ``advance`` lets time pass.
"""

import select
from collections.abc import Callable


class Timer:
    """A call that is due at ``when``."""

    def __init__(self, loop: "ManualLoop", when: float, callback: Callable[[], None]) -> None:
        self._loop, self.when, self.callback = loop, when, callback

    def cancel(self) -> None:
        """It is not to ring. Idempotent."""
        if self in self._loop.timers:
            self._loop.timers.remove(self)


class ManualLoop:
    """Readers and writers by file descriptor, and timers."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], object]] = {}
        self.writers: dict[int, Callable[[], object]] = {}
        self.timers: list[Timer] = []
        self._now = 0.0

    @property
    def idle(self) -> bool:
        """Whether nobody wants anything of it any more."""
        return not (self.readers or self.writers or self.timers)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Call it whenever ``fd`` can be read."""
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> bool:
        """No longer; -> whether it was wanted."""
        return self.readers.pop(fd, None) is not None

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        """Call it whenever ``fd`` can be written."""
        self.writers[fd] = callback

    def remove_writer(self, fd: int) -> bool:
        """No longer; -> whether it was wanted."""
        return self.writers.pop(fd, None) is not None

    def time(self) -> float:
        """Seconds that have been let pass."""
        return self._now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call it once, so much later."""
        self.timers.append(Timer(self, self._now + seconds, callback))
        return self.timers[-1]

    def run(self) -> int:
        """Call everybody whose descriptor is ready, once; -> how many."""
        if not self.readers and not self.writers:
            return 0
        readable, writable, _ = select.select(list(self.readers), list(self.writers), [], 0)
        calls = [self.readers[fd] for fd in readable] + [self.writers[fd] for fd in writable]
        for call in calls:
            call()
        return len(calls)

    def advance(self, seconds: float) -> None:
        """Let time pass: timers ring in their order."""
        end = self._now + seconds
        while due := [t for t in self.timers if t.when <= end]:
            timer = min(due, key=lambda t: t.when)
            self.timers.remove(timer)
            self._now = timer.when
            timer.callback()
        self._now = end
