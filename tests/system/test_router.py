# SPDX-License-Identifier: Apache-2.0
"""Routing between networks, judged by the Linux kernel's own stacks at taps in namespaces: on one
host, and between two whose networks tunnels join. Nobody is told where anybody is: the router asks.
"""

import ipaddress
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from byway.control.actions import AddGroup, AddRouter
from byway.control.model import GroupConfig, RouterConfig, RuleConfig, StaticRoute
from byway.machine.jit import INTERPRETED
from byway.worker.units import compile_all
from tests.peers import find_program
from tests.running import RunningSwitch
from tests.system.overlay.bed import toml
from tests.system.overlay.underlay import Underlay
from tests.system.peers.kernel import BUSYBOX
from tests.system.peers.process import Process, wait_until
from tests.system.peers.switch import Switch
from tests.system.peers.tapped import Tapped
from tests.system.peers.veth import transfer

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

DATA = Random(4).randbytes((1 if INTERPRETED else 8) << 20)
SMALLEST = len(DATA) / 1448  # frames, were each as long as the MTU allows
SMALL = 1300  # the MTU of the green network, which its station does not know of


class Station(Tapped):
    """In 10.9.K.0/24 and fd09:K::/64, its gateway the first address of both."""

    def __init__(self, subnet: int, number: int = 2) -> None:
        super().__init__(f"10.9.{subnet}.{number}")
        self.subnet = subnet
        self.address6 = str(ipaddress.ip_address(f"fd09:{subnet}::{number}"))

    @property
    def port(self) -> dict[str, Any]:
        return {"ifname": self.device, "netns": self.name,
                "address": (f"{self.address}/24", f"{self.address6}/64"),
                "routes": ({"to": "0.0.0.0/0", "via": f"10.9.{self.subnet}.1"},
                           {"to": "::/0", "via": f"fd09:{self.subnet}::1"})}

    def hops(self, to: str, six: bool = False) -> list[str]:
        """What traceroute says: addresses on the way."""
        program = "traceroute6" if six else "traceroute"
        text = self.run(str(BUSYBOX), program, "-n", "-q", "1", "-w", "5", "-m", "5", to)
        return re.findall(r"^\s*\d+\s+(\S+)", text, re.M)


@pytest.fixture
def switch(folder: Path) -> Iterator[RunningSwitch]:
    compile_all()  # else adding the first port may wait for the compiler
    with RunningSwitch(folder) as made:
        for number, (name, mtu) in enumerate((("blue", 1500), ("red", 1500), ("green", SMALL))):
            made.network(name, mtu=mtu, gateway=(f"10.9.{number}.1/24", f"fd09:{number}::1/64"))
        made.apply([AddRouter(RouterConfig(name="r", networks=("blue", "red", "green"), routes=(
            StaticRoute(to="10.77.0.0/16", via="10.9.1.2"),
            StaticRoute(to="fd77::/16", via="fd09:1::2"))))])
        yield made


@pytest.fixture
def blue(switch: RunningSwitch) -> Iterator[Station]:
    with Station(0) as made:
        switch.add("tap", "b", "blue", **made.port)
        yield made


@pytest.fixture
def red(switch: RunningSwitch) -> Iterator[Station]:
    with Station(1) as made:
        switch.add("tap", "r", "red", **made.port)
        yield made


@pytest.fixture
def green(switch: RunningSwitch) -> Iterator[Station]:
    with Station(2) as made:
        switch.add("tap", "g", "green", **made.port)
        yield made


def test_ping(switch: RunningSwitch, blue: Station, red: Station) -> None:
    """To the gateways, and through the router to one that has never spoken; both versions."""
    for to in ("10.9.0.1", "10.9.1.1", "fd09:0::1", "fd09:1::1"):
        assert blue.ping(to, 3, size=1400) == 3
    for to in (red.address, red.address6):
        blue.ping(to, 2, size=56, wait=2)  # the first is lost: its place is taken by the question
        assert blue.ping(to, size=1400) == 5
    assert {"no_neighbour", "no_destination"} >= set(switch.drops()["b"])


def test_traceroute(blue: Station, red: Station) -> None:
    blue.ping(red.address, 2, wait=2)
    blue.ping(red.address6, 2, wait=2)
    assert blue.hops(red.address) == ["10.9.0.1", red.address]
    assert blue.hops(red.address6, six=True) == ["fd09::1", red.address6]


def test_tcp(switch: RunningSwitch, blue: Station, red: Station) -> None:
    """Whole large frames pass the router, and nobody counts a wrong checksum."""
    assert transfer(blue, red, DATA) == DATA
    assert transfer(red, blue, DATA) == DATA
    assert blue.checksum_errors() == red.checksum_errors() == {}
    assert switch.port("b")["rx_frames"] < SMALLEST / 4


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_iperf3(blue: Station, red: Station, folder: Path, six: bool, reverse: bool) -> None:
    """A second of TCP each way, in both versions."""
    program = find_program("iperf3")
    server = Process("iperf3", ["ip", "netns", "exec", red.name, program, "-s", "-1",
                                "--forceflush"], folder / "iperf3.log")
    try:
        server.expect("Server listening", 20)
        report = json.loads(blue.run(program, "-J", "-t", "1", "-c",
                                     red.address6 if six else red.address,
                                     *(["-R"] if reverse else [])))
    finally:
        server.stop()
    assert report["end"]["sum_received"]["bytes"] > 1 << 17


@pytest.mark.parametrize("six", [False, True])
def test_path_mtu(switch: RunningSwitch, blue: Station, green: Station, six: bool) -> None:
    """A network with a smaller MTU on the way: the sender is told, and TCP finds its size."""
    to = green.address6 if six else green.address
    blue.ping(to, 2, size=56, wait=2)
    green.run("ip", "link", "set", "eth0", "mtu", "1500")
    assert blue.ping(to, 3, size=SMALL - 28 - 20 * six) == 3
    assert blue.ping(to, 1, size=SMALL - 27 - 20 * six, wait=2) in (0, 1)
    assert f"mtu {SMALL}" in blue.run("ip", "route", "get", to)
    assert switch.drops()["b"]["over_mtu"] == 1
    assert transfer(blue, green, DATA) == DATA


def test_security_groups_on_the_way(switch: RunningSwitch, blue: Station) -> None:
    """What is routed to a port passes its groups as what was switched does; and the errors that
    its own packets cause at the router are no strangers."""
    switch.apply([AddGroup(GroupConfig(name="quiet", rules=(
        RuleConfig(direction="egress"),
        RuleConfig(direction="ingress", protocol="icmp", remote="10.9.0.0/24"))))])
    with Station(1) as red:
        switch.add("tap", "r", "red", **red.port, ips=(red.address, red.address6),
                   security_groups=("quiet",))
        blue.ping(red.address, 2, wait=2)
        assert blue.ping(red.address) == 5
        assert blue.ping(red.address6, 2, size=56, wait=2) == 0
        assert switch.port("r")["drops"]["not_allowed"] >= 1
        red.ping(blue.address6, 2, size=56, wait=2)  # the first may be lost to the question
        assert red.ping(blue.address6, 5, size=56) == 5
        assert red.hops(blue.address) == ["10.9.1.1", blue.address]
        assert red.hops(blue.address6, six=True) == ["fd09:1::1", blue.address6]
        assert transfer(red, blue, DATA) == DATA


# ---------------------------------------------------------------- two hosts
NETWORKS = [{"name": name, "vni": 100 + k, "gateway": [f"10.9.{k}.1/24", f"fd09:{k}::1/64"]}
            for k, name in enumerate(("blue", "red"))]


@pytest.fixture
def hosts(folder: Path) -> Iterator[tuple[list[Switch], list[Station]]]:
    """A station of the blue network on one host, of the red one on the other."""
    with ExitStack() as stack:
        underlay = stack.enter_context(Underlay(9000))
        stations = [stack.enter_context(Station(k)) for k in (0, 1)]
        switches = []
        for k, station in enumerate(stations):
            (folder / "AB"[k]).mkdir()
            port = {**station.port, "name": "station", "kind": "tap", "network": ("blue", "red")[k]}
            text = toml([
                ("[switch]", {"name": "AB"[k], "api": str(folder / "AB"[k] / "api.sock")}),
                ("[underlay]", {"address": underlay.address(1 + k)}),
                *(("[[network]]", network) for network in NETWORKS),
                ("[[host]]", {"name": "BA"[k], "address": underlay.address(2 - k),
                              "networks": ["blue", "red"]}),
                ("[[router]]", {"name": "r", "networks": ["blue", "red"]}),
                ("[[port]]", port)])
            host = underlay.join(1 + k, f"host{'AB'[k]}")
            switches.append(Switch(folder / "AB"[k], [], prefix=host.prefix, text=text))
            stack.callback(switches[-1].stop)
        for switch in switches:
            switch.wait_up()
        yield switches, stations


def test_between_hosts(hosts: tuple[list[Switch], list[Station]]) -> None:
    """Each host routes what its own stations send; the other one's answers find their way."""
    switches, (blue, red) = hosts
    for station, other in ((blue, red), (red, blue)):
        for to in (other.address, other.address6):
            wait_until(lambda s=station, t=to: s.ping(t, 1, size=56, wait=2) == 1,
                       f"{to} is there", 20)
            assert station.ping(to, size=1400) == 5
    assert blue.hops(red.address) == ["10.9.0.1", red.address]
    assert red.hops(blue.address6, six=True) == ["fd09:1::1", blue.address6]
    for source, to in ((blue, red), (red, blue)):
        assert transfer(source, to, DATA) == DATA
    for switch in switches:
        assert set(switch.drops()["station"]) <= {"ttl_expired", "no_neighbour", "no_destination"}
