# SPDX-License-Identifier: Apache-2.0
"""Frames by name and generated ones: scapy reads them, and finds their checksums right."""

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from byway.packet.pcapfile import write_frame, write_header
from byway.testing import builders, generated

PLAIN = {
    "tcp": builders.tcp(data=b"x" * 40),
    "tcp with options": builders.tcp(tcp_options=b"\1" * 8, options=b"\1" * 4, data=b"odd"),
    "tcp over ipv6": builders.tcp("fd00::1", "fd00::2", data=b"x" * 40),
    "udp": builders.udp(data=b"x" * 41),
    "udp over ipv6": builders.udp("fd00::1", "fd00::2", extensions=((60, bytes(7)),),
                                  data=b"y" * 33),
    "icmp": builders.icmp(data=b"x" * 31),
    "icmpv6": builders.icmpv6(data=b"x" * 31),
    "icmp error": builders.icmp_error("10.0.0.9", builders.tcp(data=b"z" * 20)),
    "icmpv6 error": builders.icmp_error("fd00::9", builders.udp("fd00::1", "fd00::2"), 2, 0, 1280),
    "arp": builders.arp(),
    "vlan": builders.tcp(vlan=(5, 6), data=b"x" * 40),
    "vxlan": builders.vxlan(builders.tcp(data=b"x" * 40), vni=7),
    "gre": builders.gre(builders.tcp(data=b"x" * 40), key=5),
}


@pytest.mark.parametrize("name", PLAIN)
def test_scapy_would_send_the_same_bytes(name: str) -> None:
    frame = PLAIN[name]
    assert bytes(_afresh(Ether(frame))) == frame


def _afresh(packet: Packet) -> Packet:
    """The packet without its lengths and checksums: scapy makes them anew."""
    layer = packet
    while layer:
        layer.raw_packet_cache = None
        for field in ("chksum", "len", "plen", "cksum"):
            if field in layer.fields and not (isinstance(layer, GRE)):
                del layer.fields[field]
        layer = layer.payload
    return packet


def test_every_part_is_where_it_was_asked_for() -> None:
    one, other = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
    frame = Ether(builders.tcp("10.1.2.3", "10.4.5.6", 7, 8, "SA", b"data", seq=9, ack=10,
                               window=11, vlan=(5,), ttl=3, dscp=46, ecn=1, ident=12,
                               eth_src=one, eth_dst=other))
    ip, tcp = frame[IP], frame[TCP]
    assert (frame.src, frame.dst, frame[Dot1Q].vlan) == (one, other, 5)
    assert (ip.src, ip.dst, ip.ttl, ip.tos, ip.id) == ("10.1.2.3", "10.4.5.6", 3, 46 << 2 | 1, 12)
    assert (tcp.sport, tcp.dport, str(tcp.flags), tcp.seq, tcp.ack, tcp.window) \
        == (7, 8, "SA", 9, 10, 11)
    assert bytes(tcp.payload)[:4] == b"data"
    udp = Ether(builders.udp("fd00::3", "fd00::4", 5, 6, b"abc", ttl=9))
    assert (udp[IPv6].src, udp[IPv6].hlim, udp[UDP].sport, bytes(udp[UDP].payload)[:3]) \
        == ("fd00::3", 9, 5, b"abc")
    assert Ether(builders.icmp(kind=3, code=4))[ICMP].code == 4
    assert Ether(builders.icmpv6(number=77))[ICMPv6EchoRequest].id == 77
    arp = Ether(builders.arp("10.0.0.5", "10.0.0.6"))
    assert (arp.dst, arp[ARP].psrc, arp[ARP].pdst) == ("ff:ff:ff:ff:ff:ff", "10.0.0.5", "10.0.0.6")
    assert Ether(builders.arp(op=2)).dst == builders.ETH_DST
    vxlan = Ether(builders.vxlan(builders.udp(), vni=0x123456))
    assert vxlan[VXLAN].vni == 0x123456
    assert Ether(builders.gre(builders.udp(), key=5))[GRE].key == 5


def test_errors_quote_and_pieces_are_pieces() -> None:
    error = Ether(builders.icmp_error("fd00::9", builders.udp("fd00::1", "fd00::2"), 2, 0, 1280))
    assert (error[ICMPv6PacketTooBig].mtu, error[IPv6].dst) == (1280, "fd00::1")
    piece = Ether(builders.ip("fd00::1", "fd00::2", 17, bytes(16), fragment=(64, True)))
    assert (piece[IPv6ExtHdrFragment].offset, piece[IPv6ExtHdrFragment].m) == (8, 1)
    piece = Ether(builders.ip("10.0.0.1", "10.0.0.2", 17, bytes(16), fragment=(64, True)))
    assert (piece[IP].frag, int(piece[IP].flags)) == (8, 1)


def test_addresses_of_two_versions_are_no_packet() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1 and fd00::1 are not of the same IP version"):
        builders.tcp("10.0.0.1", "fd00::1")


def test_frames_of_a_capture(tmp_path: Path) -> None:
    frames = [builders.tcp(), builders.arp()]
    with (tmp_path / "a.pcap").open("wb") as file:
        write_header(file)
        for frame in frames:
            write_frame(file, frame, 1.0)
    assert builders.from_pcap(tmp_path / "a.pcap") == frames


# ---------------------------------------------------------------- generated


def test_generated_frames_are_those_of_the_seed() -> None:
    assert generated.generated(300, 5) == generated.generated(300, 5)
    assert generated.generated(300, 5) != generated.generated(300, 6)


def test_generated_frames_are_cut_in_every_header() -> None:
    frames = generated.generated(9000)
    assert min(map(len, frames)) == generated.MIN_FRAME
    lengths = {len(frame) for frame in frames}
    assert set(range(14, 120)) <= lengths


def test_generated_frames_are_of_every_shape() -> None:
    frames = [Ether(frame) for frame in generated.generated(3000)[::3]]
    for layer in (ARP, IP, IPv6, TCP, UDP, ICMP, VXLAN, GRE, Dot1Q):
        assert sum(layer in frame for frame in frames) > 5, layer
