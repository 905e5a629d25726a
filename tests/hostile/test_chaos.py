# SPDX-License-Identifier: Apache-2.0
"""Neighbours that do whatever they like, in any order, while two guests exchange at full speed.

Actions come from a seed (BYWAY_CHAOS_SEED, BYWAY_CHAOS_ACTIONS); a failure names it.
"""

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from byway.control.problem import EngineError
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest, GuestError
from byway.vhost.connection import Closed
from byway.vhost.messages import ProtocolError
from byway.virtio.features import Feature, mask
from tests.exchanging import both, exchanging, introduce
from tests.running import RunningSwitch, mac

pytestmark = pytest.mark.compiled_only

SEED = int(os.environ.get("BYWAY_CHAOS_SEED", "20263"))
ACTIONS = int(os.environ.get("BYWAY_CHAOS_ACTIONS", "400"))
PORTS = [f"x{k}" for k in range(6)]
FEATURES = (0, mask(Feature.EVENT_IDX), mask(Feature.MRG_RXBUF, Feature.INDIRECT_DESC))
# What a peer that was hung up on gets to see.
OVER = (OSError, ProtocolError, Closed, GuestError, ValueError)


class Chaos:
    """Ports x0 to x5 in a network of their own, and guests on some of them."""

    def __init__(self, switch: RunningSwitch, seed: int) -> None:
        self.switch = switch
        self.chance = random.Random(seed)
        self.guests: dict[str, Guest] = {}
        self.log: list[str] = []
        self.acts: list[tuple[int, Callable[[str], None]]] = [
            (4, self.add), (1, self.remove), (9, self.connect), (2, self.hang_up), (10, self.send),
            (3, self.stop_and_start), (3, self.toggle), (2, self.set_mtu), (2, self.change_call),
            (1, self.garbage), (2, self.scribble), (1, self.kick)]

    def act(self) -> None:
        """One action, on one port."""
        weights = [weight for weight, _ in self.acts]
        _, act = self.chance.choices(self.acts, weights)[0]
        name = self.chance.choice(PORTS)
        self.log.append(f"{act.__name__} {name}")
        try:
            act(name)
        except OVER as error:
            self.log[-1] += f" ({type(error).__name__})"
            self.hang_up(name)
        except EngineError as error:
            self.log[-1] += f" ({error.problem})"

    def add(self, name: str) -> None:
        kind = self.chance.choice(["vhost-user"] * 5 + ["null"])
        self.switch.add(kind, name, "wild")

    def remove(self, name: str) -> None:
        self.switch.remove(name)
        self.hang_up(name)

    def connect(self, name: str) -> None:
        self.hang_up(name)
        if os.path.exists(self.switch.socket(name)):
            self.guests[name] = Guest.connect(
                self.switch.socket(name), mac(16 + PORTS.index(name)), timeout=2.0,
                size=self.chance.choice((4, 64, 256)), features=self.chance.choice(FEATURES))

    def hang_up(self, name: str) -> None:
        if name in self.guests:
            self.guests.pop(name).close()

    def send(self, name: str) -> None:
        if guest := self.guests.get(name):
            guest.receive()
            to = [BROADCAST, *(g.mac for g in self.guests.values())]
            guest.send([ethernet(self.chance.choice(to), guest.mac, TEST_ETHERTYPE,
                                 bytes(self.chance.randrange(1500))) for _ in range(20)])

    def stop_and_start(self, name: str) -> None:
        if guest := self.guests.get(name):
            index = self.chance.randrange(2)
            base = guest.front.stop_ring(index)
            self.send(self.chance.choice(PORTS))
            queue = (guest.rx_queue, guest.tx_queue)[index]
            guest.front.start_ring(index, queue.size, base, queue.desc, queue.avail, queue.used,
                                   self.chance.choice([-1, queue.kick]), queue.call)

    def toggle(self, name: str) -> None:
        if guest := self.guests.get(name):
            guest.front.enable_ring(self.chance.randrange(2), self.chance.random() < 0.5)

    def set_mtu(self, name: str) -> None:
        if guest := self.guests.get(name):
            guest.front.set_mtu(self.chance.choice((68, 1000, 1500, 9000)))

    def change_call(self, name: str) -> None:
        if guest := self.guests.get(name):
            guest.front.set_call(0, self.chance.choice((-1, guest.rx_queue.call)))

    def garbage(self, name: str) -> None:
        if os.path.exists(self.switch.socket(name)):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(self.switch.socket(name))
                raw.sendall(self.chance.randbytes(self.chance.randrange(100)))

    def scribble(self, name: str) -> None:
        """Anything anywhere in the rings."""
        if guest := self.guests.get(name):
            queue = self.chance.choice((guest.rx_queue, guest.tx_queue))
            for _ in range(10):
                part = self.chance.choice((queue.desc, queue.avail, queue.used))
                at = part - guest.region.address + self.chance.randrange(64)
                guest.region.view[at] = self.chance.randrange(256)
            self.kick(name)

    def kick(self, name: str) -> None:
        if guest := self.guests.get(name):
            os.eventfd_write(guest.tx_queue.kick, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_chaos_next_door(tmp_path: Path, workers: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:workers]
    files = len(os.listdir("/proc/self/fd"))
    with RunningSwitch(tmp_path, workers=cpus) as switch:
        switch.network()
        switch.network("wild")
        switch.vhost("vm1", "vm2")
        chaos = Chaos(switch, SEED + workers)
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            introduce(one, two)
            try:
                with exchanging(both(one, two)):
                    for _ in range(ACTIONS):
                        chaos.act()
                    for name in PORTS:
                        chaos.hang_up(name)
            except AssertionError as error:
                raise AssertionError(f"seed {chaos.log[-5:]}") from error
            for name in ("vm1", "vm2"):
                assert switch.port(name)["drops"] == {}
        for name in {p["name"] for p in switch.call(switch.engine.ports)}:
            switch.remove(name)
    assert len(os.listdir("/proc/self/fd")) <= files + 1
    done = {line.split()[0] for line in chaos.log if not line.endswith(")")}
    assert done == {act.__name__ for _, act in chaos.acts}
