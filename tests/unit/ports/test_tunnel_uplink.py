# SPDX-License-Identifier: Apache-2.0
"""Packets to other hosts over an uplink: every field, as scapy reads it; and what cannot go."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.vxlan import VXLAN

from byway.machine.jit import INTERPRETED
from byway.packet.batch import ROWS
from byway.packet.counters import drops_by_name
from byway.packet.vxlan import FIRST_SOURCE, longest_inner
from tests.unit.switch.uplink_bed import HOST, OWN_MAC, VNI, Bed

VERSIONS = pytest.mark.parametrize("version", [4, 6])
HOP = bytes.fromhex("020000000009")
EXAMPLES = 30 if INTERPRETED else 150


def resolved(version: int, **changes: object) -> Bed:
    """An uplink that knows its next hop."""
    bed = Bed(version, **changes)
    bed.way()
    (hop,) = bed.uplink._hops.values()
    bed.uplink._records[hop.number]["mac"] = int.from_bytes(HOP, "big")
    return bed


def inner(length: int = 100, sport: int = 1000, tos: int = 0) -> bytes:
    frame = bytes(Ether(src="02:00:00:00:aa:01", dst="02:00:00:00:aa:02")
                  / IP(src="10.0.0.1", dst="10.0.0.2", tos=tos) / TCP(sport=sport))
    return frame + bytes(k * 3 & 0xFF for k in range(length - len(frame)))


@VERSIONS
def test_every_field(version: int) -> None:
    bed = resolved(version)
    (frame,) = bed.tx([inner(100)])
    packet = Ether(frame)
    ip = packet[IP] if version == 4 else packet[IPv6]
    assert (packet.dst, packet.src) == (HOP.hex(":"), OWN_MAC.hex(":"))
    if version == 4:
        assert (ip.src, ip.dst, ip.ttl, ip.tos, ip.id, ip.flags) == (
            "192.0.2.1", "192.0.2.9", 64, 0, 0, "DF")
        assert ip.len == len(frame) - 14
        del ip.chksum
        assert bytes(packet) == frame, "IP's checksum is right"
    else:
        assert (ip.src, ip.dst, ip.hlim, ip.tc, ip.fl) == ("2001:db8::1", "2001:db8::9", 64, 0, 0)
        assert ip.plen == len(frame) - 54
    assert (packet[UDP].dport, packet[UDP].chksum) == (4789, 0)
    assert packet[UDP].len == len(frame) - (34 if version == 4 else 54)
    assert packet[UDP].sport >= FIRST_SOURCE
    assert (packet[VXLAN].vni, packet[VXLAN].flags.value) == (VNI, 8)
    assert bytes(packet[VXLAN])[8:] == inner(100)
    assert (bed.counters[1]["frames"], bed.counters[1]["bytes"]) == (1, 100)


@settings(max_examples=EXAMPLES, deadline=None)
@given(version=st.sampled_from([4, 6]), lengths=st.lists(
    st.sampled_from([14, 60, 74, 78, 79, 128, 129, 1000, 1400]), min_size=1, max_size=8),
    pieces=st.integers(1, 16), sums=st.booleans(), tag=st.sampled_from([0, 7]))
def test_what_goes_in_comes_out(version: int, lengths: list[int], pieces: int, sums: bool,
                                tag: int) -> None:
    """Through the other direction, which checks all of it."""
    bed = resolved(version, sums=sums, tag=tag)
    given_frames = [inner(max(n, 54))[:n] for n in lengths]
    packets = bed.tx(given_frames, pieces=pieces)
    far = Bed(version, ip=HOST[version], mac=HOP)
    far.remotes.set(bed.uplink.own.ip, 0xC005)
    untagged = [packet[:12] + packet[16:] if tag else packet for packet in packets]
    for k, result in enumerate(far.rx(untagged, pieces)):
        assert (result.frame, result.network, result.tunnel) == (given_frames[k], 7, 0xC005)
        udp = 34 if version == 4 else 54
        assert (untagged[k][udp + 6 : udp + 8] != b"\0\0") == sums


def test_the_tag_of_the_uplink() -> None:
    (frame,) = resolved(4, tag=7).tx([inner()])
    assert Ether(frame)[Dot1Q].vlan == 7
    assert Ether(frame)[VXLAN].vni == VNI


@VERSIONS
@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
def test_congestion_is_told_outside(version: int, ecn: int) -> None:
    """The inner ECN bits, and nothing else of the inner header (RFC 6040, 4.1)."""
    packet = Ether(resolved(version).tx([inner(tos=0xB8 | ecn)])[0])
    assert (packet[IP].tos if version == 4 else packet[IPv6].tc) == ecn


def test_source_ports_spread_and_stay() -> None:
    bed = resolved(4)
    ports = [Ether(f)[UDP].sport for f in bed.tx([inner(sport=k) for k in range(ROWS)])]
    again = [Ether(f)[UDP].sport for f in bed.tx([inner(200, sport=k) for k in range(ROWS)])]
    assert ports == again
    assert len(set(ports)) > ROWS // 2
    assert min(ports) >= FIRST_SOURCE


def test_identifications_where_packets_may_be_cut() -> None:
    bed = resolved(4, dont_fragment=False)
    packets = [Ether(frame) for frame in bed.tx([inner()] * 3)]
    assert [packet[IP].id for packet in packets] == [0, 1, 2]
    assert not any(packet[IP].flags.DF for packet in packets)
    whole = [Ether(frame) for frame in resolved(4).tx([inner()] * 3)]
    assert [(packet[IP].id, packet[IP].flags) for packet in whole] == [(0, "DF")] * 3


@VERSIONS
def test_too_big(version: int) -> None:
    bed = resolved(version, mtu=1450)
    fits = longest_inner(1450, version)
    packets = bed.tx([inner(fits + 1), inner(fits), inner(fits + 1), inner(60)])
    assert [len(packet) for packet in packets] == [1464, len(packets[1])]
    assert drops_by_name(bed.counters[1]) == {"too_big": 2}
    assert bed.counters[1]["frames"] == 2


def test_the_next_hop_is_not_known() -> None:
    bed = Bed()
    bed.way()
    assert bed.tx([inner()] * 3) == []
    assert drops_by_name(bed.counters[1]) == {"no_neighbour": 3}


def test_a_whole_batch_in_many_pieces() -> None:
    bed = resolved(4)
    frames = [inner(200 + k) for k in range(ROWS)]
    assert [packet[50:] for packet in bed.tx(frames, pieces=16)] == frames
