# SPDX-License-Identifier: Apache-2.0
"""Who is late breaks no rule, and does not get away with breaking one; uses conform's own checks.

Nobody waits here: a peer is late by turns, and a clock goes on where somebody sleeps.
"""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from byway.conform.backend import migration, queues
from byway.conform.backend.bench import Bench
from byway.conform.backend.migration import PAGE, DirtyLog
from byway.conform.backend.traffic import Traffic
from byway.conform.backend.transport import not_served, unknown_request
from byway.conform.device import DeviceRing
from byway.conform.memory import GuestMemory
from byway.conform.outcome import Failed, HungUp
from byway.conform.ring import crossed
from byway.vhost.connection import Message
from byway.vhost.messages import REPLY, VERSION, Request
from byway.virtio.features import Feature, mask


class LateWire:
    """A wire whose peer looks when it is spoken to for the second time. It answers what it serves
    of a request that is ``wrong``, and hangs up on others."""

    def __init__(self, *wrong: Request) -> None:
        self.wrong = wrong
        self.sent: list[int] = []

    def send(self, request: int, flags: int = VERSION) -> None:
        self.sent.append(request)

    def quiet(self) -> None:
        """Nothing comes as yet."""

    def receive(self, seconds: float = 10.0) -> Message | None:
        if len(self.sent) < 2:
            return None
        if self.sent[0] not in (*self.wrong, Request.GET_FEATURES):
            raise HungUp("it hung up")
        return Message(self.sent.pop(0), VERSION | REPLY, bytes(8))

    def get_u64(self, request: int) -> None:
        self.send(request)
        self.receive()


def meeting(wire: LateWire) -> Bench:
    """A bench with a peer at the other end of the wire."""
    return cast(Bench, SimpleNamespace(connect=lambda: wire, negotiated=lambda: wire))


def test_a_peer_may_hang_up_on_an_unknown_request_when_it_gets_to_it() -> None:
    assert unknown_request(meeting(LateWire())) == "it hung up"


def test_a_late_answer_is_an_answer() -> None:
    with pytest.raises(Failed, match="a strange request was answered"):
        not_served(meeting(LateWire(Request.GET_PROTOCOL_FEATURES)), REPLY, "a strange request")
    assert not_served(meeting(LateWire()), REPLY, "a strange request") == "it hung up"


class LateMisses:
    """A session behind an IOMMU, whose back end asks when it has been listened to twice."""

    def __init__(self, bench: Bench) -> None:
        ring = SimpleNamespace(notify=lambda: None, poll=lambda: True)
        self.session = SimpleNamespace(run=lambda: None, send=lambda frame: None,
                                       flush=lambda: None, tx=ring)
        self.traffic = SimpleNamespace(frame=lambda: b"")
        self.turns = 0

    def answer(self, seconds: float) -> int:
        self.turns += 1
        return int(self.turns > 2)


def test_a_miss_may_be_reported_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "Translated", LateMisses)
    seen = queues.missed(cast(Bench, SimpleNamespace(timeout=60.0)))
    assert seen == "1 misses answered, the chain was used"


class Clock:
    """Stands in for the module ``time``; ``then`` happens as soon as somebody sleeps."""

    def __init__(self, then: Any = lambda: None) -> None:
        self.now, self.then = 0.0, then

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.then()


def test_a_page_may_be_marked_after_what_was_written_is_seen(
        monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SimpleNamespace(keep=lambda log: None, timeout=0.1)
    log = DirtyLog(cast(Traffic, SimpleNamespace(bench=bench)))
    try:
        clock = Clock()
        monkeypatch.setattr(migration, "time", clock)
        assert log.missing([(3 * PAGE, 8)]) == [3 * PAGE]
        assert clock.now > bench.timeout
        clock.then = lambda: log.map.__setitem__(0, 1 << 3)
        assert log.missing([(3 * PAGE, 8)]) == []
    finally:
        log.close()


def test_no_kick_is_wanted_of_a_driver_that_looks_late() -> None:
    """The device has taken the chain already that the driver made available just now."""
    memory = GuestMemory.make()
    try:
        desc, avail, used = (memory.take(1024) for _ in range(3))
        for position in (0, 1, 0x7FFF, 0x8000, 0xFFFF):
            ring = DeviceRing(memory, 0, 64, mask(Feature.EVENT_IDX), position, desc, avail, used,
                              lambda rule, text: None)
            ring.want_kicks(False)
            event = memory.get16(used + 4 + 8 * ring.size)
            for old in (position - 1, position):
                assert not crossed(event, old + 1, old)
    finally:
        memory.close()
