# SPDX-License-Identifier: Apache-2.0
"""What a tunnel looks like on the underlay: scapy reads the outer headers, with the options of
[underlay] and without (RFC 7348, 5; RFC 6040)."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from byway.machine.netns import inside
from byway.packet.vxlan import FIRST_SOURCE
from byway.ports.underlay_sockets import SOURCES
from tests.system.conftest import short_folder
from tests.system.overlay import capture
from tests.system.overlay.bed import BLUE, Seat, toml
from tests.system.overlay.stations import Container
from tests.system.overlay.underlay import DEVICE, Underlay
from tests.system.peers.process import wait_until
from tests.system.peers.switch import Switch
from tests.system.peers.vxlan import finish

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

OURS, THEIRS = Seat(BLUE, 1, "A"), Seat(BLUE, 2, "B")
FLOWS = 40
CE = 3


@contextmanager
def one_sided(family: int, **options: Any) -> Iterator[tuple[Underlay, Container]]:
    """A host with a container, and another one where nobody listens; what leaves the host is
    complete."""
    with short_folder() as folder, ExitStack() as stack:
        underlay = stack.enter_context(Underlay(1500, family))
        underlay.join(2, "other")
        ours = Container(OURS)
        stack.callback(ours.close)
        host = underlay.join(1, "byway")
        finish(host, DEVICE)
        text = toml([
            ("[switch]", {"name": "A", "api": str(folder / "api.sock")}),
            ("[underlay]", {"address": underlay.address(1), **options}),
            ("[[network]]", {"name": BLUE.name, "vni": BLUE.vni, "learning": False}),
            ("[[host]]", {"name": "B", "address": underlay.address(2), "networks": [BLUE.name]}),
            ("[[entry]]", {**THEIRS.entry(), "host": "B"}),
            ("[[port]]", ours.port(folder))])
        switch = Switch(folder, [], prefix=host.prefix, text=text)
        stack.callback(switch.stop)
        yield underlay, ours


def flows(underlay: Underlay, ours: Container, tos: int = 0) -> list[Any]:
    """Two datagrams of each of many flows; -> the outer frames in which they left."""
    with capture.of(underlay) as seen:
        for k in range(FLOWS):
            made = inside(ours.namespace.name,
                          lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with made:
                made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
                for _ in range(2):
                    made.sendto(b"flow %d" % k, (THEIRS.ipv4, 5000 + k))
        wait_until(lambda: len(of_flows(underlay, seen)) >= 2 * FLOWS, "all have left", 10)
    return of_flows(underlay, seen)


def of_flows(underlay: Underlay, seen: capture.Seen) -> list[Any]:
    """The outer frames of the flows' datagrams, of what was captured so far."""
    frames = [made for _, frame in list(seen.frames)
              if IP in (made := Ether(frame)) or IPv6 in made]
    # The other host's answers (ICMP: nobody listens) quote them.
    return [one for one in frames if one.payload.src == underlay.address(1) and VXLAN in one
            and UDP in one[VXLAN].payload and 5000 <= one[VXLAN].payload[UDP].dport < 5000 + FLOWS]


def sound(frame: Any) -> bool:
    """Are the outer lengths and checksums what scapy makes of the same packet?"""
    again = frame.copy()
    outer = again[IP] if IP in frame and frame.payload.name == "IP" else again[IPv6]
    if outer.name == "IP":
        del outer.chksum, outer.len
    else:
        del outer.plen
    del again[UDP].len, again[UDP].chksum
    return bytes(again) == bytes(frame)


@pytest.mark.parametrize("family", [4, 6])
def test_the_outer_headers(family: int) -> None:
    with one_sided(family) as (underlay, ours):
        sent = flows(underlay, ours)
        assert len(sent) == 2 * FLOWS
        ports: dict[int, set[int]] = {}
        for frame in sent:
            outer = frame.payload
            assert (outer.src, outer.dst) == (underlay.address(1), underlay.address(2))
            if family == 4:
                assert (outer.ttl, outer.flags, outer.tos) == (64, "DF", 0)
            else:
                assert (outer.hlim, outer.tc) == (64, 0)
            assert frame[UDP].dport == 4789
            assert frame[UDP].chksum != 0
            assert sound(frame)
            assert bytes(frame[VXLAN])[:8] == b"\x08\0\0\0" + BLUE.vni.to_bytes(3, "big") + b"\0"
            inner = frame[VXLAN].payload
            assert (inner.src, inner.dst) == (OURS.mac, THEIRS.mac)
            ports.setdefault(inner[UDP].dport, set()).add(frame[UDP].sport)
        assert all(len(found) == 1 for found in ports.values()), "a flow keeps its source port"
        used = set.union(*ports.values())
        assert SOURCES / 2 < len(used) <= SOURCES
        assert min(used) >= FIRST_SOURCE
        told = flows(underlay, ours, CE)
        fields = {frame.payload.tos if family == 4 else frame.payload.tc for frame in told}
        assert fields == {CE}


def test_what_can_be_asked_for() -> None:
    with one_sided(4, ttl=17, dont_fragment=False, checksum="no") as (underlay, ours):
        sent = flows(underlay, ours)
        assert len(sent) == 2 * FLOWS
        assert {(one.payload.ttl, str(one.payload.flags), one[UDP].chksum) for one in sent} == {
            (17, "", 0)}
    with one_sided(6, ttl=1, checksum="no") as (underlay, ours):
        sent = flows(underlay, ours)
        assert {(one.payload.hlim, one[UDP].chksum) for one in sent} == {(1, 0)}
