# SPDX-License-Identifier: Apache-2.0
"""Idle costs nothing: connected ports without traffic are not polled."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from byway.machine.regions import Region
from byway.vhost import FrontEnd
from byway.virtio.features import Feature, mask
from tests.system.peers.switch import Port, Switch

pytestmark = pytest.mark.system

PORTS = 64
SECONDS = 5.0
SIZE = 256  # entries of a ring
AVAIL, USED, RING = 4096, 8192, 16384  # where the parts of a ring lie, and one ring's room


class IdleGuest:
    """A guest whose driver has started both rings and never uses them."""

    def __init__(self, path: Path) -> None:
        self.memory = Region.create(2 * RING)
        self.events = [os.eventfd(0) for _ in range(4)]
        self.front = FrontEnd.connect(str(path))
        self.front.negotiate(mask(Feature.VERSION_1, Feature.EVENT_IDX))
        self.front.set_memory([self.memory], [0])
        for index in range(2):
            desc = self.memory.address + index * RING
            kick, call = self.events[2 * index : 2 * index + 2]
            self.front.start_ring(index, SIZE, 0, desc, desc + AVAIL, desc + USED, kick, call)
            self.front.enable_ring(index, True)

    def close(self) -> None:
        """Hang up and let go of everything."""
        self.front.close()
        self.memory.close()
        for event in self.events:
            os.close(event)


def test_connected_idle_ports_cost_less_than_one_percent(folder: Path) -> None:
    ports = [Port(f"vm{n}", folder / f"vm{n}.sock") for n in range(PORTS)]
    with Switch(folder, ports) as switch, ExitStack() as guests:
        for port in ports:
            guests.callback(IdleGuest(port.socket).close)
        switch.wait_up()
        time.sleep(1)  # the last kick is slept on
        before, begin = switch.process.cpu_seconds(), time.monotonic()
        time.sleep(SECONDS)
        share = (switch.process.cpu_seconds() - before) / (time.monotonic() - begin)
        assert all(worker["asleep"] for worker in switch.client.workers())
    print(f"{PORTS} connected idle ports: {100 * share:.2f} % of a CPU")
    assert share < 0.01
