# SPDX-License-Identifier: Apache-2.0
"""What the tests of translations stand on: a shared memory without memory, and a clock by hand."""

from collections.abc import Callable

from byway.virtio.iotlb import PAGE

USER, HOST, MEMORY = 0x7000_0000_0000, 0x7FFF_1000_0000, 4096 * PAGE


class FakeMemory:
    """One region of MEMORY bytes at user address USER and host address HOST."""

    def user_to_host(self, user: int, n: int) -> int | None:
        if 0 <= user - USER <= MEMORY - n:
            return HOST + user - USER
        return None


class FakeTimer:
    """A call that is due at ``when``."""

    def __init__(self, clock: "FakeClock", when: float, call: Callable[[], None]) -> None:
        self.clock, self.when, self.call = clock, when, call

    def cancel(self) -> None:
        self.clock.timers.remove(self)


class FakeClock:
    """Time that passes on request; ``later`` is an event loop's call_later."""

    def __init__(self) -> None:
        self.time = 0.0
        self.timers: list[FakeTimer] = []

    def now(self) -> float:
        return self.time

    def later(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(self, self.time + seconds, call))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while due := [t for t in self.timers if t.when <= end]:
            timer = min(due, key=lambda t: t.when)
            self.timers.remove(timer)
            self.time = timer.when
            timer.call()
        self.time = end
