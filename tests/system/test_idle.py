# SPDX-License-Identifier: Apache-2.0
"""Idle costs nothing, and what comes after it comes at once."""

import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.peers.plain import PlainGuest, frame
from tests.system.peers.process import wait_until
from tests.system.peers.switch import Port, Switch

pytestmark = pytest.mark.system

PORTS = 64
SECONDS = 5.0
FRAMES = 100
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")


def asleep(switch: Switch) -> bool:
    """True when every worker blocks in the kernel."""
    return all(worker["asleep"] for worker in switch.client.workers())


def test_connected_idle_ports_cost_less_than_one_percent(folder: Path) -> None:
    ports = [Port(f"vm{n}", folder / f"vm{n}.sock") for n in range(PORTS)]
    with Switch(folder, ports) as switch, ExitStack() as guests:
        for port in ports:
            guests.enter_context(PlainGuest(port.socket))
        switch.wait_up()
        wait_until(lambda: asleep(switch), "the worker sleeps", 5)
        before, begin = switch.process.cpu_seconds(), time.monotonic()
        time.sleep(SECONDS)
        share = (switch.process.cpu_seconds() - before) / (time.monotonic() - begin)
        assert asleep(switch)
    print(f"{PORTS} connected idle ports: {100 * share:.2f} % of a CPU")
    assert share < 0.01


def test_the_first_frame_after_idle_comes_soon(folder: Path, cpus: tuple[int, int]) -> None:
    ports = [Port(name, folder / f"{name}.sock") for name in ("vm1", "vm2")]
    took = []
    with (
        Switch(folder, ports, workers=[cpus[0]]) as switch,
        PlainGuest(ports[0].socket) as sender,
        PlainGuest(ports[1].socket) as receiver,
    ):
        switch.wait_up()
        for _ in range(FRAMES):
            wait_until(lambda: asleep(switch), "the worker sleeps", 5)
            begin = time.perf_counter()
            sender.send(frame(MACS[1], MACS[0]))
            got = receiver.receive()
            took.append(1e6 * (time.perf_counter() - begin))
            assert got == frame(MACS[1], MACS[0])
        assert switch.drops() == {}
    median = statistics.median(took)
    print(f"the first frame after idle: median {median:.0f} us, worst {max(took):.0f} us")
    assert median < 5000  # 100 on an idle machine; noise is no failure
