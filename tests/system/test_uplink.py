# SPDX-License-Identifier: Apache-2.0
"""Tunnels over one of the switch's own ports: Byway speaks Ethernet and IP itself, by a packet
socket or AF_XDP, and meets the Linux kernel's vxlan device and Open vSwitch. Its host's kernel has
no address there."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

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
from tests.system.peers.vxlan import OVERHEAD, KernelHost, OvsHost, PeerHost

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

OURS, THEIRS = Seat(BLUE, 1, "A"), Seat(BLUE, 2, "B")


class BywayHost:
    """Another Byway, with a container, whose tunnels go by sockets of its kernel."""

    def __init__(self, underlay: Underlay, here: str, folder: Path) -> None:
        self.namespace = underlay.join(2, "peer")
        self.mtu = underlay.mtu - OVERHEAD[underlay.family]
        with ExitStack() as stack:
            self.station = Container(THEIRS)
            stack.callback(self.station.close)
            (folder / "there").mkdir()
            text = toml([
                ("[switch]", {"name": "B", "api": str(folder / "there" / "api.sock")}),
                ("[underlay]", {"address": underlay.address(2)}),
                ("[[network]]", {"name": BLUE.name, "vni": BLUE.vni}),
                ("[[host]]", {"name": "A", "address": here, "networks": [BLUE.name]}),
                ("[[entry]]", {**OURS.entry(), "host": "A"}),
                ("[[port]]", self.station.port(folder / "there"))])
            switch = Switch(folder / "there", [], prefix=self.namespace.prefix, text=text)
            stack.callback(switch.stop)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


@dataclass
class Meeting:
    """A container at Byway's host and the station of the other one."""

    ours: Container
    theirs: Host
    switch: Switch
    peer: PeerHost | BywayHost
    own: str


@pytest.fixture(scope="module", params=[
    ("kernel", 4, 1500, "af-packet"), ("kernel", 6, 1500, "af-packet"),
    ("kernel", 4, 1500, "af-xdp"), ("ovs", 4, 1500, "af-packet"),
    ("byway", 4, 1500, "af-packet")],
    ids=lambda p: f"{p[0]}-ipv{p[1]}-{p[3]}")
def meeting(request: pytest.FixtureRequest) -> Iterator[Meeting]:
    what, family, mtu, kind = request.param
    find_program("iperf3")
    with short_folder() as folder, ExitStack() as stack:
        underlay = stack.enter_context(Underlay(mtu, family))
        here, there = underlay.address(1), underlay.address(2)
        peer: PeerHost | BywayHost
        if what == "kernel":
            peer = KernelHost(underlay, 2, BLUE.vni, THEIRS.mac, THEIRS.addresses,
                              {OURS.mac: here})
        elif what == "byway":
            peer = BywayHost(underlay, here, folder)
        else:
            peer = OvsHost(underlay, 2, BLUE.vni, THEIRS.mac, THEIRS.addresses, here, folder)
        stack.enter_context(peer)
        host = underlay.join(1, "byway")
        host.run("ip", "address", "flush", "dev", DEVICE)
        ours = Container(OURS)
        stack.callback(ours.close)
        text = toml([
            ("[switch]", {"name": "A", "api": str(folder / "api.sock")}),
            ("[underlay]", {"address": here, "uplink": "wire"}),
            ("[[network]]", {"name": "under", "mtu": mtu}),
            ("[[network]]", {"name": BLUE.name, "vni": BLUE.vni}),
            ("[[host]]", {"name": "B", "address": there, "networks": [BLUE.name]}),
            ("[[entry]]", {**THEIRS.entry(), "host": "B"}),
            ("[[port]]", {"name": "wire", "kind": kind, "network": "under", "ifname": DEVICE}),
            ("[[port]]", ours.port(folder))])
        switch = Switch(folder, [], prefix=host.prefix, text=text)
        stack.callback(switch.stop)
        made = Meeting(ours, peer.station, switch, peer, here)
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


@pytest.mark.parametrize("to", ["ipv4", "ipv6"])
def test_ping_with_the_longest_frames(meeting: Meeting, to: str) -> None:
    header = {"ipv4": 28, "ipv6": 48}[to]
    for station, seat in ((meeting.ours, THEIRS), (meeting.theirs, OURS)):
        address = getattr(seat, to)
        assert station.ping(address, 5) == 5
        assert station.ping(address, 5, f"-s {meeting.peer.mtu - header}") == 5


def test_the_uplink_itself_answers(meeting: Meeting) -> None:
    """The kernel of the other host finds it, and is answered."""
    assert Host("peer", meeting.peer.namespace.prefix).ping(meeting.own, 5) == 5


@pytest.mark.parametrize("reverse", ["", "-R"])
@pytest.mark.parametrize("to", ["ipv4", "ipv6"])
def test_tcp_both_ways(meeting: Meeting, to: str, reverse: str) -> None:
    for station, seat in ((meeting.ours, THEIRS), (meeting.theirs, OURS)):
        report = station.measure(getattr(seat, to), 1, reverse)
        assert report["end"]["sum_received"]["bits_per_second"] > 1e6
    assert errors(meeting.ours) == errors(meeting.theirs) == {}
    drops = meeting.switch.drops()
    assert not any(reason in counted for counted in drops.values()
                   for reason in ("bad_tunnel", "bad_offload", "too_big")), drops
