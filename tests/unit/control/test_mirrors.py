# SPDX-License-Identifier: Apache-2.0
"""What a mirror shows of ports whose frames are of several networks, or go on into another one."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from byway.control.actions import AddNetwork, AddRouter
from byway.control.model import NetworkConfig, RouterConfig
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from tests.running import RunningSwitch, mac
from tests.unit.control.test_policy import Yard

GATEWAY = "02:62:77:00:00:00"


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        made.network("watch")
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def hello(guest: Guest, tag: int = 0, to: bytes = BROADCAST) -> bytes:
    """A frame, with a VLAN tag or without."""
    plain = ethernet(to, guest.mac, TEST_ETHERTYPE, b"hello" * 10)
    return plain[:12] + b"\x81\0" + tag.to_bytes(2, "big") + plain[12:] if tag else plain


def test_what_is_routed(switch: RunningSwitch, stack: ExitStack) -> None:
    """A port's mirror gets what it sends to other networks, as it goes on; and who has no mirror
    gets none by a router's."""
    switch.apply([
        AddNetwork(NetworkConfig(name="red", gateway=("10.0.0.1/24",), gateway_mac=GATEWAY)),
        AddNetwork(NetworkConfig(name="green", gateway=("10.0.1.1/24",), gateway_mac=GATEWAY)),
        AddRouter(RouterConfig(name="r", networks=("red", "green")))])
    yard = Yard(switch, stack, eye={"network": "watch"},
                a={"network": "red", "ips": ["10.0.0.5"], "mirror": {"to": "eye"}},
                b={"network": "green", "ips": ["10.0.1.5"]})
    there, back = (bytes(Ether(src=mac(n), dst=GATEWAY) / IP(src=source, dst=to) / UDP() / Raw(
        bytes(50))) for n, source, to in ((2, "10.0.0.5", "10.0.1.5"), (3, "10.0.1.5", "10.0.0.5")))
    local = hello(yard["a"])
    got = yard.send("a", there, local, there)
    routed = got["b"][0]
    assert (Ether(routed).src, Ether(routed).dst, Ether(routed)[IP].ttl) == (GATEWAY, mac(3), 63)
    assert got == {"b": [routed, routed], "eye": [routed, local, routed]}
    got = yard.send("b", back)
    assert got["eye"] == got["a"], "what is sent to it"
    yard.change("a", mirror={"to": "eye", "direction": "tx"})
    assert yard.send("a", there) == {"b": [routed]}
    yard.change("a", mirror=None)
    assert yard.send("a", there) == {"b": [routed]}


@pytest.mark.parametrize("direction", ["rx", "tx", "both"])
def test_the_networks_of_a_trunk(switch: RunningSwitch, stack: ExitStack, direction: str) -> None:
    """All of them: what comes in shows without its tag, what goes out with it."""
    for name in ("blue", "green"):
        switch.network(name)
    yard = Yard(switch, stack, eye={"network": "watch"}, blue={"network": "blue"},
                trunk={"network": "green", "vlans": {"10": "blue"},
                       "mirror": {"to": "eye", "direction": direction}}, green={"network": "green"})
    trunk = yard["trunk"]
    sent, plain = [hello(trunk), hello(trunk, 10), hello(trunk)], hello(trunk)
    assert yard.send("trunk", *sent) == {"green": [plain] * 2, "blue": [plain]} | (
        {"eye": [plain] * 3} if direction != "tx" else {})
    for name, tag in (("green", 0), ("blue", 10)):
        question = hello(yard[name], to=trunk.mac)
        there = hello(yard[name], tag, trunk.mac)
        assert yard.send(name, question) == {"trunk": [there]} | (
            {"eye": [there]} if direction != "rx" else {})
