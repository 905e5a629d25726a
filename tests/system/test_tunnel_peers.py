# SPDX-License-Identifier: Apache-2.0
"""Tunnels to hosts that are not Byway's: the Linux kernel's vxlan device (IPv4 and IPv6 underlay,
MTU 1450 and 9000) and Open vSwitch. Ping with full frames, TCP both ways, whole and intact."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.peers import find_program
from tests.system.conftest import short_folder
from tests.system.engines.station import Host
from tests.system.overlay.bed import BLUE, Seat, toml
from tests.system.overlay.stations import Container
from tests.system.overlay.underlay import DEVICE, Underlay
from tests.system.peers.kernel import checksum_errors
from tests.system.peers.process import Process
from tests.system.peers.switch import Switch
from tests.system.peers.vxlan import KernelHost, OvsHost, PeerHost, finish

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

OURS, THEIRS = Seat(BLUE, 1, "A"), Seat(BLUE, 2, "B")


@dataclass
class Meeting:
    """A container at Byway's host and the station of the other one."""

    ours: Container
    theirs: Host
    switch: Switch
    peer: PeerHost
    family: int

    @property
    def mtu(self) -> int:
        return self.peer.mtu

    def totals(self) -> tuple[int, int]:
        """(frames, bytes) that went out to the container."""
        port = self.switch.ports()[self.ours.name]
        return port["tx_frames"], port["tx_bytes"]


@pytest.fixture(scope="module", params=[
    ("kernel", 4, 1500), ("kernel", 6, 1500), ("kernel", 4, 9050), ("kernel", 6, 9070),
    ("ovs", 4, 1500), ("ovs", 4, 9050)], ids=lambda p: f"{p[0]}-ipv{p[1]}-{p[2]}")
def meeting(request: pytest.FixtureRequest) -> Iterator[Meeting]:
    what, family, mtu = request.param
    find_program("iperf3")
    with short_folder() as folder, ExitStack() as stack:
        underlay = stack.enter_context(Underlay(mtu, family))
        here, there = underlay.address(1), underlay.address(2)
        peer: PeerHost
        if what == "kernel":
            peer = KernelHost(underlay, 2, BLUE.vni, THEIRS.mac, THEIRS.addresses,
                              {OURS.mac: here})
        else:
            peer = OvsHost(underlay, 2, BLUE.vni, THEIRS.mac, THEIRS.addresses, here, folder)
        stack.enter_context(peer)
        ours = Container(OURS)
        stack.callback(ours.close)
        text = toml([
            ("[switch]", {"name": "A", "api": str(folder / "api.sock")}),
            ("[underlay]", {"address": here}),
            ("[[network]]", {"name": BLUE.name, "vni": BLUE.vni}),
            ("[[host]]", {"name": "B", "address": there, "networks": [BLUE.name]}),
            ("[[entry]]", {**THEIRS.entry(), "host": "B"}),
            ("[[port]]", ours.port(folder))])
        host = underlay.join(1, "byway")
        if what == "ovs":
            finish(host, DEVICE)
        switch = Switch(folder, [], prefix=host.prefix, text=text)
        stack.callback(switch.stop)
        made = Meeting(ours, peer.station, switch, peer, family)
        for k, station in enumerate((made.ours, made.theirs)):
            argv = [*station.prefix, find_program("iperf3"), "-s", "--forceflush"]
            server = Process("iperf3", argv, folder / f"iperf3-{k}.log")
            stack.callback(server.stop)
            server.expect("Server listening", 10)
        made.ours.reach(THEIRS.ipv4)
        yield made


def errors(station: Host) -> dict[str, int]:
    """What its kernel counted of wrong checksums."""
    names = ("snmp", "netstat", "snmp6")
    return checksum_errors("\n".join(station.run(f"cat /proc/net/{name}") for name in names))


def lost(switch: Switch) -> dict[str, dict[str, int]]:
    """The drops of ports and hosts, but for what was said before anybody was there."""
    return {name: left for name, drops in switch.drops().items()
            if (left := {k: n for k, n in drops.items() if k not in ("no_destination",)})}


@pytest.mark.parametrize("to", ["ipv4", "ipv6"])
def test_ping_with_the_longest_frames(meeting: Meeting, to: str) -> None:
    """Not one more byte would pass: the MTU is what the underlay leaves."""
    header = {"ipv4": 28, "ipv6": 48}[to]
    assert f"mtu {meeting.mtu}" in meeting.ours.run("ip link show dev eth0")
    for station, seat in ((meeting.ours, THEIRS), (meeting.theirs, OURS)):
        address = getattr(seat, to)
        assert station.ping(address, 5) == 5
        assert station.ping(address, 5, f"-s {meeting.mtu - header}") == 5


@pytest.mark.parametrize("reverse", ["", "-R"])
@pytest.mark.parametrize("to", ["ipv4", "ipv6"])
def test_tcp_both_ways(meeting: Meeting, to: str, reverse: str) -> None:
    for station, seat in ((meeting.ours, THEIRS), (meeting.theirs, OURS)):
        report = station.measure(getattr(seat, to), 1, reverse)
        assert report["end"]["sum_received"]["bits_per_second"] > 1e6
    assert errors(meeting.ours) == errors(meeting.theirs) == {}
    assert lost(meeting.switch) == {}


def test_large_frames_arrive_whole(meeting: Meeting) -> None:
    """TCP from the other host reaches the container in frames that are many segments long, where
    the other host sends many at once."""
    before = meeting.totals()
    meeting.theirs.measure(OURS.ipv4, 1)
    frames, octets = (b - a for a, b in zip(before, meeting.totals(), strict=True))
    if isinstance(meeting.peer, KernelHost):
        assert octets / frames > 2 * meeting.mtu
    else:
        assert octets / frames > 500
