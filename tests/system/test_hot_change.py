# SPDX-License-Identifier: Apache-2.0
"""Ports come and go while two guests run at full speed: no frame between them is lost."""

from pathlib import Path

import pytest

from tests.system.peers.switch import Port, Switch
from tests.system.peers.testpmd import BURST, Guest, VirtioUser, balanced

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("dpdk")]

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
BURSTS = 8
EXTRA = 50


@pytest.mark.parametrize("network", ["blue", "green"], ids=["same-network", "other-network"])
def test_fifty_ports_come_and_go(folder: Path, cpus: tuple[int, int], network: str) -> None:
    ports = [Port("vm1", folder / "vm1.sock"), Port("vm2", folder / "vm2.sock")]
    ports.append(Port("bystander", folder / "bystander.sock", network="green"))
    extra = [Port(f"x{n}", folder / f"x{n}.sock", network=network) for n in range(EXTRA)]
    users = tuple(VirtioUser(p.socket, m) for p, m in zip(ports[:2], MACS, strict=True))
    with (
        Switch(folder, ports, workers=[cpus[0]]) as switch,
        Guest(folder, (users[0], users[1]), cpu=cpus[1]) as guest,
    ):
        guest.ready()
        switch.wait_up("vm1", "vm2")
        guest.ping_pong(BURSTS)
        begin = guest.stats()
        for port in extra:
            switch.client.add_port(port.body())
        there = set(switch.ports())
        for port in extra:
            switch.client.remove_port(port.name)
        gone = set(switch.ports())
        stats = guest.drain()
        counted = switch.ports()
        assert switch.drops() == {}
    assert there - gone == {port.name for port in extra}
    assert gone == {"vm1", "vm2", "bystander"}
    assert balanced(stats), "each frame sent by one guest arrived at the other"
    for name, before, after in zip(("vm1", "vm2"), begin, stats, strict=True):
        assert after.rx - before.rx > 100 * BURSTS * BURST, "they ran all the time"
        assert counted[name]["rx_frames"] == after.tx
        assert counted[name]["tx_frames"] == after.rx
