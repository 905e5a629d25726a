# SPDX-License-Identifier: Apache-2.0
"""Services done by Linux bridges in network namespaces: containers as firewalls, with nftables."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from byway.control.actions import AddService
from byway.control.model import ServiceConfig
from byway.machine.jit import INTERPRETED
from tests.peers import find_program
from tests.running import RunningSwitch, mac
from tests.system.engines.namespace import Namespace
from tests.system.peers.tapped import Tapped
from tests.system.peers.testpmd import PROGRAM, STARTED, Guest, VirtioUser
from tests.system.peers.veth import transfer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

INSIDE, OUTSIDE = "10.9.0.1", "10.9.0.2"
DATA = Random(4).randbytes((1 if INTERPRETED else 8) << 20)


class Firewall:
    """A bridge between two tap ports of the switch, in a namespace of its own."""

    def __init__(self, switch: RunningSwitch, name: str) -> None:
        self.name = name
        self.namespace = Namespace("fw")
        self.left, self.right = f"{name}-in", f"{name}-out"
        for port, device in ((self.left, "l0"), (self.right, "r0")):
            switch.add("tap", port, ifname=device, netns=self.namespace.name)
        self.run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        for device in ("l0", "r0"):
            self.run("ip", "link", "set", device, "master", "br0", "up")
        self.run("ip", "link", "set", "br0", "up")

    def run(self, *argv: str) -> str:
        return self.namespace.run(*argv)

    def nft(self, command: str) -> str:
        return self.run(find_program("nft"), command)

    @property
    def passed(self) -> int:
        """Frames that came in at the left."""
        found: Any = json.loads(self.run("ip", "-j", "-s", "link", "show", "l0"))
        return int(found[0]["stats64"]["rx"]["packets"])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def switch(own_folder: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(own_folder) as made:
        made.network()
        yield made


def announce(switch: RunningSwitch, names: tuple[str, ...], **options: Any) -> None:
    """Have a service that is done by these."""
    pairs = [{"left": f"{name}-in", "right": f"{name}-out"} for name in names]
    switch.apply([AddService(ServiceConfig.model_validate(
        {"name": "fw", "appliances": pairs, **options}))])


def laid(switch: RunningSwitch, stack: ExitStack, names: tuple[str, ...], **options: Any
         ) -> tuple[Tapped, Tapped, list[Firewall]]:
    """A station behind firewalls, one that is not, and the firewalls, all of which work."""
    announce(switch, names, **options)
    inside, outside = stack.enter_context(Tapped(INSIDE)), stack.enter_context(Tapped(OUTSIDE))
    firewalls = []
    for name in names:
        firewalls.append(Firewall(switch, name))
        stack.callback(firewalls[-1].namespace.close)
    switch.add("tap", "inside", **inside.port, mac=mac(1), services=("fw",))
    switch.add("tap", "outside", **outside.port, mac=mac(2))
    switch.until(lambda: working(switch) == len(names), 20)
    return inside, outside, firewalls


def working(switch: RunningSwitch) -> int:
    service, = switch.call(switch.engine.services)
    return sum(one["state"] == "up" for one in service["appliances"])


def learned(switch: RunningSwitch) -> dict[str, str]:
    return {row["mac"]: row["port"] for row in switch.call(switch.engine.fdb, None)
            if row["mac"] in (mac(1), mac(2))}


def test_stations_talk_through_a_firewall(switch: RunningSwitch, stack: ExitStack) -> None:
    inside, outside, (firewall,) = laid(switch, stack, ("fw1",))
    assert inside.ping(OUTSIDE) == outside.ping(INSIDE) == 5
    assert transfer(inside, outside, DATA) == DATA
    assert transfer(outside, inside, DATA) == DATA
    assert inside.checksum_errors() == outside.checksum_errors() == {}
    assert learned(switch) == {mac(1): "inside", mac(2): "outside"}
    assert firewall.passed > 10
    neighbours = firewall.run("bridge", "fdb", "show", "br", "br0")
    assert re.search(rf"{mac(1)} dev l0 master", neighbours)
    assert re.search(rf"{mac(2)} dev r0 master", neighbours)


def test_what_the_firewall_drops_does_not_arrive(switch: RunningSwitch, stack: ExitStack) -> None:
    inside, outside, (firewall,) = laid(switch, stack, ("fw1",))
    firewall.nft("add table bridge f; "
                 "add chain bridge f c { type filter hook forward priority 0; }; "
                 "add rule bridge f c ip protocol icmp icmp type echo-request iif r0 drop")
    assert inside.ping(OUTSIDE) == 5
    assert outside.ping(INSIDE, count=2, wait=2) == 0
    firewall.nft("flush chain bridge f c; add rule bridge f c drop")
    switch.until(lambda: working(switch) == 0, 20)
    assert inside.ping(OUTSIDE, count=2, wait=2) == 0, "nor do probes pass: the service blocks"
    firewall.nft("flush chain bridge f c")
    switch.until(lambda: working(switch) == 1, 20)
    assert inside.ping(OUTSIDE) == 5


def test_flows_go_on_through_another_firewall(switch: RunningSwitch, stack: ExitStack) -> None:
    inside, outside, firewalls = laid(switch, stack, ("fw1", "fw2"), down="bypass")
    for _ in range(8):
        assert transfer(inside, outside, b"x" * 1000) == b"x" * 1000
    assert all(one.passed > 0 for one in firewalls)
    firewalls[0].run("ip", "link", "set", "br0", "down")
    switch.until(lambda: working(switch) == 1, 20)
    before = firewalls[1].passed
    for _ in range(8):
        assert transfer(inside, outside, b"x" * 1000) == b"x" * 1000
    assert firewalls[1].passed >= before + 8
    firewalls[1].run("ip", "link", "set", "br0", "down")
    switch.until(lambda: working(switch) == 0, 20)
    assert inside.ping(OUTSIDE) == 5, "bypassed"
    service, = switch.call(switch.engine.services)
    assert service["bypassed"] >= 10


def test_a_virtual_machine_does_it(switch: RunningSwitch, stack: ExitStack, own_folder: Path,
                                   cpus: tuple[int, int]) -> None:
    """DPDK's testpmd between two virtio devices: it looks at nothing."""
    find_program(PROGRAM)
    announce(switch, ("vm",))
    switch.vhost("vm-in", "vm-out")
    ports = [VirtioUser(Path(switch.socket(name)), mac(8 + k))
             for k, name in enumerate(("vm-in", "vm-out"))]
    machine = stack.enter_context(Guest(own_folder, (ports[0], ports[1]), cpu=cpus[1]))
    machine.ready(60)
    machine.command("set fwd io", "Set io")
    machine.command("start", STARTED)
    inside, outside = stack.enter_context(Tapped(INSIDE)), stack.enter_context(Tapped(OUTSIDE))
    switch.add("tap", "inside", **inside.port, mac=mac(1), services=("fw",))
    switch.add("tap", "outside", **outside.port, mac=mac(2))
    switch.until(lambda: working(switch) == 1, 30)
    assert inside.ping(OUTSIDE) == outside.ping(INSIDE) == 5
    assert transfer(inside, outside, DATA) == DATA
    assert inside.checksum_errors() == outside.checksum_errors() == {}
    assert learned(switch) == {mac(1): "inside", mac(2): "outside"}
    assert switch.port("vm-in")["tx_frames"] > 10
    machine.stop()
    switch.until(lambda: working(switch) == 0, 20)
    assert inside.ping(OUTSIDE, count=1, wait=2) == 0, "it blocks"
