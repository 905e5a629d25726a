# SPDX-License-Identifier: Apache-2.0
"""What the tests of translations stand on: a shared memory without memory, a clock by hand, and an
Iotlb between them."""

from collections.abc import Callable

from byway.testing.iotlb_kernels import iova_to_host, miss_iova
from byway.vhost.front_channel import INVALIDATE, UPDATE
from byway.vhost.iotlb import Iotlb
from byway.vhost.payloads import Iotlb as Translation
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


class World:
    """An Iotlb, its clock, and what it asked and settled."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.asked: list[tuple[int, int]] = []
        self.settled = 0
        self.answers = True
        self.iotlb = Iotlb(FakeMemory(), self._settle, self.clock.now)  # type: ignore[arg-type]
        self.iotlb.ask = self._ask
        self.iotlb.hear(-1, self.clock.later)

    def _settle(self) -> None:
        self.settled += 1

    def _ask(self, iova: int, permission: int) -> bool:
        self.asked.append((iova, permission))
        return self.answers

    def update(self, iova: int, size: int = PAGE, offset: int = 0, permission: int = 3) -> None:
        self.iotlb.take(Translation(iova, size, USER + offset, permission, UPDATE))

    def invalidate(self, iova: int, size: int = PAGE) -> None:
        self.iotlb.take(Translation(iova, size, 0, 0, INVALIDATE))

    def host(self, iova: int, n: int = 1, write: int = 0) -> int:
        return iova_to_host(self.iotlb.table, iova, n, write)

    def miss(self, iova: int, write: int = 0) -> int:
        return miss_iova(self.iotlb.table, iova, write)
