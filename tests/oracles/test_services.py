# SPDX-License-Identifier: Apache-2.0
"""The way of frames through services, against a few lines that say what it should be."""

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from byway.machine.layout import address_of, alloc
from byway.packet.batch import RETURNED_TX, ROWS, origin_word
from byway.packet.counters import COUNTERS
from byway.switch.service import LEFT, RIGHT
from byway.switch.service_memory import Back, Homes, Service, Steps
from byway.testing.builders import arp, icmp, tcp, udp
from byway.testing.generated import generated
from byway.testing.service_kernels import service_in, service_out, service_return
from tests.frames_wanted import frames_wanted
from tests.staging import Place

NETWORK, PORTS, SERVICES, APPLIANCES = 5, 5, 3, 3
End = Literal["arrives", "dropped"]


@functools.cache
def service_of(number: int) -> Service:
    return Service(str(number))


def mac(port: int) -> str:
    return f"02:00:00:00:00:{port + 1:02x}"


def left(service: int, appliance: int) -> int:
    return 100 + 20 * service + 2 * appliance


@dataclass
class Wanted:
    """Who has what, and what works."""

    services: list[list[int]]
    working: list[list[int]]
    bypass: list[bool]

    def way(self, source: int, target: int) -> tuple[list[tuple[int, int]], End]:
        """The services that a frame passes, each with the side that it goes in at; and its end."""
        passed: list[tuple[int, int]] = []
        for service in self.services[source]:
            if service in self.services[target]:
                break
            if self.working[service]:
                passed.append((service, LEFT))
            elif not self.bypass[service]:
                return passed, "dropped"
        for service in reversed(self.services[target]):
            if service in self.services[source]:
                continue
            if self.working[service]:
                passed.append((service, RIGHT))
            elif not self.bypass[service]:
                return passed, "dropped"
        return passed, "arrives"


class Real(Place):
    """The same as records, and frames that are led through it."""

    def __init__(self) -> None:
        super().__init__(NETWORK)
        self.origins = alloc(np.dtype("<i8"), ROWS)
        self.batch.record["origins"] = address_of(self.origins)
        self.counters = alloc(COUNTERS, 1)
        self.listed = alloc(np.dtype("<i8"), ROWS)

    def have(self, wanted: Wanted) -> None:
        self.homes = Homes(seed=1)
        self.services = [service_of(k) for k in range(SERVICES)]
        for k, service in enumerate(self.services):
            service.choose(bypass=wanted.bypass[k], addresses=False)
            service.spread([(f"{k}/{one}", left(k, one), left(k, one) + 1)
                            for one in wanted.working[k]])
        self.steps: list[Steps | None] = []
        for port, had in enumerate(wanted.services):
            steps = Steps(self.homes, NETWORK, port, [self.services[k] for k in had])
            if had:
                self.homes.settle_in(steps, [int(mac(port).replace(":", ""), 16)])
            self.steps.append(steps if had else None)
            self.learn(int(mac(port).replace(":", ""), 16), port)

    def way(self, frame: bytes, source: int, target: int
            ) -> tuple[list[tuple[int, int]], End, list[int]]:
        """As Wanted.way; and the appliances."""
        passed: list[tuple[int, int]] = []
        who: list[int] = []
        steps = self.steps[source]
        out, origin, returned = None, source, 0
        if steps:
            outcome, = self.run(service_in, steps, [frame], source)
            if outcome.reason:
                return passed, "dropped", who
            out = outcome.out
        while True:
            if out is None:
                out = self._for(frame, target, origin, returned)
                if out is None or out < 0:
                    return passed, "arrives" if out is None else "dropped", who
            if out == target:
                assert returned
                return passed, "arrives", who
            service, appliance = divmod(out - 100, 20)
            side = appliance % 2
            passed.append((service, side))
            who.append(appliance // 2)
            out, origin, returned, dropped = self._back(frame, service, out ^ 1, 1 - side)
            if dropped:
                return passed, "dropped", who

    def _for(self, frame: bytes, target: int, origin: int, returned: int) -> int | None:
        """A frame is delivered to a port: None: it arrives, or the appliance's port, or -1."""
        steps = self.steps[target]
        if steps is None:
            return None
        self.run(lambda *_: 0, self.homes, [frame], origin)
        batch = self.batch.record[0]
        batch["returned"], batch["nclones"] = returned, 0
        self.listed[0] = address_of(self.batch.rows)
        kept = service_out(steps.address, self.batch.address, address_of(self.listed), 1,
                           address_of(self.counters))
        if kept:
            return None
        return int(self.batch.clones[0]["out"]) if int(batch["nclones"]) else -1

    def _back(self, frame: bytes, service: int, port: int, side: int
              ) -> tuple[int | None, int, int, bool]:
        back = Back(self.homes, self.services[service], side, NETWORK, port)
        self.origins[0] = origin_word(NETWORK, port)
        outcome, = self.run(service_return, back, [frame], port)
        word = int(self.origins[0])
        return outcome.out, word & 0xFFFF, word & RETURNED_TX, outcome.reason is not None


@pytest.fixture
def real() -> Iterator[Real]:
    made = Real()
    yield made
    made.close()


def pair(chance: random.Random, source: int, target: int) -> tuple[bytes, bytes]:
    """A frame between two ports, and one of the other direction of its flow."""
    macs = {"eth_src": mac(source), "eth_dst": mac(target)}
    turned = {"eth_src": mac(target), "eth_dst": mac(source)}
    one, other = chance.sample(("10.0.0.1", "10.0.0.2", "10.1.0.3"), 2)
    sport, dport = chance.randrange(65536), chance.randrange(65536)
    kind = chance.randrange(5)
    if kind == 0:
        return tcp(one, other, sport, dport, **macs), tcp(other, one, dport, sport, **turned)
    if kind == 1:
        return udp(one, other, sport, dport, **macs), udp(other, one, dport, sport, **turned)
    if kind == 2:
        six, seven = f"fd00::{sport:x}", f"fd00::{dport:x}"
        return tcp(six, seven, 1, 2, **macs), tcp(seven, six, 2, 1, **turned)
    if kind == 3:
        return icmp(one, other, **macs), icmp(other, one, **turned)
    return arp(one, other, **macs), arp(other, one, 2, **turned)


def test_every_frame_passes_what_it_should(real: Real) -> None:
    chance = random.Random(11)
    ends = set()
    for _ in range(frames_wanted() // 40):
        wanted = Wanted(
            [chance.sample(range(SERVICES), chance.choice((0, 0, 1, 2, 3))) for _ in range(PORTS)],
            [[k for k in range(APPLIANCES) if chance.random() < 0.6] for _ in range(SERVICES)],
            [chance.random() < 0.5 for _ in range(SERVICES)])
        real.have(wanted)
        for _ in range(20):
            source, target = chance.sample(range(PORTS), 2)
            there, back = pair(chance, source, target)
            passed, end, who = real.way(there, source, target)
            assert (passed, end) == wanted.way(source, target), wanted
            assert {(service, one) for (service, _), one in zip(passed, who, strict=True)} <= {
                (service, one) for service in range(SERVICES) for one in wanted.working[service]}
            again, ended, by = real.way(back, target, source)
            assert (again, ended) == wanted.way(target, source), wanted
            if end == ended == "arrives" and len(set(wanted.services[source])) < 2:
                both = dict(zip([s for s, _ in again], by, strict=True))
                assert all(both.get(s, one) == one for (s, _), one in zip(passed, who, strict=True))
            ends.add((end, len(passed)))
    assert len(ends) > 5, "all of it happened"


def test_any_frame_ends_somewhere_and_teaches_nothing(real: Real) -> None:
    """Frames cut in every header, at each of the three places."""
    real.have(Wanted([[0, 1], [2], [1, 0], [], []], [[0, 1], [1], []], [False, False, True]))
    known = real.fdb.entries()
    allowed = {None, *range(PORTS), *(left(s, a) + side for s, a in ((0, 0), (0, 1), (1, 1))
                                      for side in (LEFT, RIGHT))}
    for frame in generated(frames_wanted() // 2, seed=8):
        for cut in (frame, bytes.fromhex(mac(2).replace(":", "")) + frame[6:],
                    frame[:6] + bytes.fromhex(mac(0).replace(":", "")) + frame[12:]):
            found, = real.run(service_in, real.steps[0], [cut], 0)
            assert found.out in allowed
            for service, port in ((0, left(0, 1)), (1, left(1, 1) + 1)):
                out, origin, _, dropped = real._back(cut, service, port, port % 2)
                assert out in allowed
                assert dropped or origin < PORTS or origin == port
            assert real._for(cut, 2, 3, 0) in allowed | {-1}
    assert real.fdb.entries() == known
