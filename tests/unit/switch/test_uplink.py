# SPDX-License-Identifier: Apache-2.0
"""The uplink's own address: what is for it, what it answers, learns and drops. Frames by scapy."""

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from byway.packet.offload import DATA_VALID, GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM
from byway.packet.reason import Reason
from byway.testing.frame_batch import Unfinished
from tests.unit.switch.uplink_bed import (
    HOST,
    OTHER,
    OWN,
    OWN_MAC,
    TUNNEL,
    VNI,
    Answer,
    Bed,
    Inner,
    Left,
)

PEER_MAC = "02:00:00:00:00:09"
MAC = OWN_MAC.hex(":")
TEXT = {bytes_: ".".join(map(str, bytes_)) for bytes_ in (OWN[4], HOST[4], OTHER[4])} | {
    OWN[6]: "2001:db8::1", HOST[6]: "2001:db8::9", OTHER[6]: "2001:db8::a"}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def inner(length: int = 100, tos: int = 0) -> bytes:
    """A TCP frame as guests send it, complete."""
    payload = bytes(k * 3 & 0xFF for k in range(max(length - 54, 0)))
    return bytes(Ether(src="02:00:00:00:aa:01", dst="02:00:00:00:aa:02")
                 / IP(src="10.0.0.1", dst="10.0.0.2", tos=tos) / TCP() / Raw(payload))


def outer(version: int, inside: bytes = b"", *, source: bytes | None = None, vni: int = VNI,
          flags: int = 0x08, tos: int = 0, checksum: int | None = 0, port: int = 4789,
          to: bytes | None = None, mac: str = MAC) -> Packet:
    """A VXLAN packet to the uplink. ``checksum``: of UDP, None: the right one."""
    source, to = source or HOST[version], to or OWN[version]
    ip = IP(src=TEXT[source], dst=TEXT[to], tos=tos) if version == 4 else IPv6(
        src=TEXT[source], dst=TEXT[to], tc=tos)
    vxlan = struct.pack(">II", flags << 24, vni << 8)
    return Ether(src=PEER_MAC, dst=mac) / ip / UDP(sport=50000, dport=port, chksum=checksum) \
        / Raw(vxlan + (inside or inner()))


# ---------------------------------------------------------------- tunnels
@VERSIONS
@pytest.mark.parametrize("pieces", [1, 2, 5, 16])
@pytest.mark.parametrize("length", [14, 60, 70, 128, 129, 200, 1450])
def test_the_frame_inside(version: int, pieces: int, length: int) -> None:
    bed = Bed(version)
    inside = inner(length)[:length] if length < 54 else inner(length)
    assert bed.rx([bytes(outer(version, inside))], pieces) == [Inner(inside)]
    assert bed.counters[0]["frames"] == 1
    assert bed.counters[0]["bytes"] == len(inside)


@VERSIONS
def test_scapy_calls_it_vxlan(version: int) -> None:
    """The packets of these tests are what they are meant to be."""
    packet = Ether(bytes(outer(version)))
    assert (packet[VXLAN].vni, packet[VXLAN].flags.value) == (VNI, 8)
    assert packet[VXLAN].haslayer(TCP)


@VERSIONS
def test_reserved_bits_are_ignored(version: int) -> None:
    assert Bed(version).rx([bytes(outer(version, flags=0xFF))]) == [Inner(inner())]


@VERSIONS
def test_who_is_not_known(version: int) -> None:
    bed = Bed(version)
    assert bed.rx([bytes(outer(version, source=OTHER[version])),
                   bytes(outer(version, vni=VNI + 1)),
                   bytes(outer(version, vni=0)),
                   bytes(outer(version, flags=0))]) == [
        Reason.UNKNOWN_TUNNEL, Reason.UNKNOWN_VNI, Reason.UNKNOWN_VNI, Reason.BAD_TUNNEL]
    assert bed.counters[0]["frames"] == 0


@VERSIONS
def test_a_checksum_that_is_there_must_be_right(version: int) -> None:
    bed = Bed(version)
    for length in (60, 101, 1400):
        good = bytearray(bytes(outer(version, inner(length), checksum=None)))
        assert bed.rx([bytes(good)], 3) == [Inner(inner(length))]
        start = (34 if version == 4 else 54) + 16
        for at in (len(good) - 1, start + 2, start - 16):
            bad = good.copy()
            bad[at] ^= 0x40
            assert bed.rx([bytes(bad)], 3) == [Reason.BAD_TUNNEL]
            checked = bed.rx([(Unfinished(flags=DATA_VALID), bytes(bad))], 3)
            assert isinstance(checked[0], Inner), "the port's peer says that it is right"


@VERSIONS
def test_a_checksum_may_be_asked_for(version: int) -> None:
    bed = Bed(version, strict=True)
    good = bytes(outer(version, checksum=None))
    assert bed.rx([bytes(outer(version)), good, (Unfinished(flags=DATA_VALID), good)]) == [
        Reason.BAD_TUNNEL, Inner(inner()), Inner(inner())]


def test_a_wrong_ip_header() -> None:
    bed = Bed()
    good = bytes(outer(4))
    for at, value in ((14, 0x44), (14, 0x4F), (14, 0x55), (16, 0xFF), (20, 0x20), (21, 1), (24, 1)):
        bad = bytearray(good)
        bad[at] = value
        assert bed.rx([bytes(bad)]) == [Reason.BAD_TUNNEL], f"byte {at}"


def test_a_fragment_is_not_put_together() -> None:
    packet = outer(4)
    packet[IP].flags = "MF"
    last = outer(4)
    last[IP].frag = 100
    assert Bed().rx([bytes(packet), bytes(last)]) == [Reason.BAD_TUNNEL] * 2


def test_ip_options_are_stepped_over() -> None:
    packet = outer(4)
    packet[IP].options = [IPOption(b"\x01")] * 40
    assert Bed().rx([bytes(packet)]) == [Inner(inner())]


@VERSIONS
def test_lengths_that_do_not_fit(version: int) -> None:
    bed = Bed(version)
    good = bytes(outer(version))
    udp = 34 if version == 4 else 54
    for n in range(15, len(good)):
        assert bed.rx([good[:n]]) == [Reason.BAD_TUNNEL]
    for length in (0, 8, 16, 29, len(good) - udp + 1, 0xFFFF):
        bad = bytearray(good)
        bad[udp + 4 : udp + 6] = length.to_bytes(2, "big")
        assert bed.rx([bytes(bad)]) == [Reason.BAD_TUNNEL]


@VERSIONS
@pytest.mark.parametrize("pieces", [1, 4])
def test_what_follows_the_packet_is_no_part_of_it(version: int, pieces: int) -> None:
    assert Bed(version).rx([bytes(outer(version)) + bytes(50)], pieces) == [Inner(inner())]


@VERSIONS
@pytest.mark.parametrize(("outside", "inside", "expected"), [
    (0, 0, 0), (3, 0, None), (3, 2, 3), (3, 1, 3), (1, 2, 1), (2, 1, 1), (0, 2, 2), (1, 0, 0)])
def test_congestion(version: int, outside: int, inside: int, expected: int | None) -> None:
    """RFC 6040, figure 4."""
    wanted = Reason.CONGESTED if expected is None else Inner(inner(tos=expected))
    assert Bed(version).rx([bytes(outer(version, inner(tos=inside), tos=outside))]) == [wanted]


@VERSIONS
def test_work_left_to_do_is_the_inner_frames(version: int) -> None:
    """As the Linux kernel tunnels between interfaces of one machine: checksums and segments of the
    inner frame are left to do, and the words reach into it."""
    bed = Bed(version)
    start = (34 if version == 4 else 54) + 16
    large = inner(3000)
    todo = Unfinished(NEEDS_CSUM, GSO_TCPV4, 1400, start + 34, 16)
    assert bed.rx([(todo, bytes(outer(version, large)))]) == [
        Inner(large, Unfinished(NEEDS_CSUM, GSO_TCPV4, 1400, 34, 16))]
    assert bed.frames.batch.record["offloads"][0] != 0


@VERSIONS
def test_work_that_does_not_fit_the_inner_frame(version: int) -> None:
    start = (34 if version == 4 else 54) + 16
    for todo in (Unfinished(NEEDS_CSUM, 0, 0, start + 20, 16),
                 Unfinished(NEEDS_CSUM, GSO_TCPV4, 1, start + 34, 16)):
        assert Bed(version).rx([(todo, bytes(outer(version, inner(3000))))]) == [
            Reason.BAD_OFFLOAD]


@VERSIONS
def test_work_left_to_do_outside(version: int) -> None:
    """UDP's own checksum, which nobody needs any more; and datagrams in one, which is not cut."""
    udp = 34 if version == 4 else 54
    packet = bytearray(bytes(outer(version)))
    packet[udp + 6 : udp + 8] = b"\x12\x34"
    bed = Bed(version)
    assert bed.rx([(Unfinished(NEEDS_CSUM, 0, 0, udp, 6), bytes(packet))]) == [Inner(inner())]
    assert bed.rx([(Unfinished(NEEDS_CSUM, GSO_UDP_L4, 100, udp, 6), bytes(packet))]) == [
        Reason.BAD_TUNNEL]


def test_a_checksum_left_undone_is_recognised() -> None:
    """By ports whose frames come without a virtio header; the field holds the pseudo-header's."""
    frame = bytearray(inner(200))
    pseudo = sum(struct.unpack(">4H", frame[26:34])) + 6 + len(frame) - 34
    while pseudo >> 16:
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    frame[50:52] = pseudo.to_bytes(2, "big")
    bed = Bed()
    assert bed.rx([bytes(outer(4, bytes(frame)))]) == [
        Inner(bytes(frame), Unfinished(NEEDS_CSUM, 0, 0, 34, 16))]
    assert bed.frames.batch.record["offloads"][0] != 0, "delivering looks whether there is any"


# ---------------------------------------------------------------- not for us
@VERSIONS
def test_others_frames_are_left_to_the_switch(version: int) -> None:
    bed = Bed(version)
    given = [bytes(outer(version, mac="02:00:00:00:00:77")), b"\xff" * 60, b"\x02" * 5,
             bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="192.0.2.77"))]
    assert bed.rx(given) == [Left(frame) for frame in given]


def test_rows_of_another_origin_are_left_alone() -> None:
    """On a trunk the uplink is in one of its VLANs."""
    bed = Bed()
    bed.uplink.record["origin"] = 99
    assert bed.rx([bytes(outer(4))]) == [Left(bytes(outer(4)))]


@VERSIONS
def test_what_is_not_spoken_ends(version: int) -> None:
    bed = Bed(version)
    ip = IP(src=TEXT[HOST[4]], dst=TEXT[OWN[4]]) if version == 4 else IPv6(
        src=TEXT[HOST[6]], dst=TEXT[OWN[6]])
    ethernet = Ether(src=PEER_MAC, dst=MAC)
    given = [bytes(ethernet / ip / TCP()), bytes(outer(version, port=4790)),
             bytes(outer(version, to=OTHER[version])), bytes(ethernet / Raw(bytes(50))),
             bytes(ethernet / Dot1Q(vlan=5) / ip / UDP(dport=4789) / Raw(bytes(60)))]
    assert bed.rx(given) == [Reason.TO_UPLINK] * 5


# ---------------------------------------------------------------- questions
def test_an_arp_request_is_answered() -> None:
    bed = Bed()
    for destination in ("ff:ff:ff:ff:ff:ff", MAC):
        asked = Ether(src=PEER_MAC, dst=destination) / ARP(
            op=1, hwsrc=PEER_MAC, psrc=TEXT[HOST[4]], pdst=TEXT[OWN[4]])
        (answer,) = bed.rx([bytes(asked)])
        assert isinstance(answer, Answer)
        reply = Ether(answer.frame)
        assert (reply.dst, reply.src, len(answer.frame)) == (PEER_MAC, MAC, 60)
        assert (reply[ARP].op, reply[ARP].hwsrc, reply[ARP].psrc, reply[ARP].hwdst,
                reply[ARP].pdst) == (2, MAC, TEXT[OWN[4]], PEER_MAC, TEXT[HOST[4]])


def test_somebody_else_with_our_address_is_not_answered() -> None:
    """Gratuitous ARP, for whoever wants to hear it."""
    frame = bytes(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=PEER_MAC, psrc=TEXT[OWN[4]], pdst=TEXT[OWN[4]]))
    assert Bed().rx([frame]) == [Left(frame)]


def solicitation(source: str = "2001:db8::9", **changes: object) -> bytes:
    option = ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
    packet = Ether(src=PEER_MAC, dst="33:33:ff:00:00:01") / IPv6(
        src=source, dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::1")
    if source != "::":
        packet = packet / option
    for name, value in changes.items():
        setattr(packet[IPv6], name, value)
    return bytes(packet)


def test_a_solicitation_is_answered() -> None:
    (answer,) = Bed(6).rx([solicitation()])
    assert isinstance(answer, Answer)
    packet = Ether(answer.frame)
    rebuilt = Ether(answer.frame)
    del rebuilt[ICMPv6ND_NA].cksum
    assert bytes(rebuilt) == answer.frame, "scapy makes the same checksum"
    assert (packet.src, packet.dst, packet[IPv6].src, packet[IPv6].dst, packet[IPv6].hlim) == (
        MAC, PEER_MAC, "2001:db8::1", "2001:db8::9", 255)
    told = packet[ICMPv6ND_NA]
    assert (told.R, told.S, told.O, told.tgt) == (0, 1, 1, "2001:db8::1")
    assert packet[ICMPv6NDOptDstLLAddr].lladdr == MAC


def test_who_wants_our_address_is_told() -> None:
    (answer,) = Bed(6).rx([solicitation("::")])
    assert isinstance(answer, Answer)
    packet = Ether(answer.frame)
    assert (packet.dst, packet[IPv6].dst, packet[ICMPv6ND_NA].S) == (
        "33:33:00:00:00:01", "ff02::1", 0)


def test_a_solicitation_from_afar_is_not_believed() -> None:
    assert Bed(6).rx([solicitation(hlim=254)]) == [Left(solicitation(hlim=254))]


@pytest.mark.parametrize("size", [0, 56, 1000])
def test_ping(size: int) -> None:
    asked = bytes(Ether(src=PEER_MAC, dst=MAC) / IP(
        src="198.51.100.7", dst=TEXT[OWN[4]], ttl=7, id=77) / ICMP(id=5, seq=6) / Raw(
        (bytes(range(250)) * 4)[:size]))
    (answer,) = Bed().rx([asked], 3)
    assert isinstance(answer, Answer)
    wanted = bytes(Ether(dst=PEER_MAC, src=MAC) / IP(
        dst="198.51.100.7", src=TEXT[OWN[4]], ttl=64, id=77) / ICMP(type=0, id=5, seq=6) / Raw(
        (bytes(range(250)) * 4)[:size]))
    assert answer == Answer(wanted)


@pytest.mark.parametrize("size", [0, 56, 1000])
def test_ping6(size: int) -> None:
    data = (bytes(range(250)) * 4)[:size]
    asked = bytes(Ether(src=PEER_MAC, dst=MAC) / IPv6(src="2001:db8:7::7", dst="2001:db8::1")
                  / ICMPv6EchoRequest(id=5, seq=6, data=data))
    wanted = bytes(Ether(dst=PEER_MAC, src=MAC) / IPv6(dst="2001:db8:7::7", src="2001:db8::1")
                   / ICMPv6EchoReply(id=5, seq=6, data=data))
    (answer,) = Bed(6).rx([asked], 3)
    assert answer == Answer(wanted)


def test_what_a_ping_left_to_do_is_still_to_do() -> None:
    asked = bytearray(bytes(Ether(src=PEER_MAC, dst=MAC) / IP(
        src="198.51.100.7", dst=TEXT[OWN[4]]) / ICMP(id=5, seq=6) / Raw(bytes(40))))
    asked[36:38] = b"\0\0"
    todo = Unfinished(NEEDS_CSUM, 0, 0, 34, 2)
    (answer,) = Bed().rx([(todo, bytes(asked))])
    assert isinstance(answer, Answer)
    assert (answer.todo, answer.frame[34], answer.frame[36:38]) == (todo, 0, b"\0\0")


def test_a_ping_cut_off_is_not_answered() -> None:
    asked = Ether(src=PEER_MAC, dst=MAC) / IP(src="198.51.100.7", dst=TEXT[OWN[4]], len=24) / ICMP()
    assert Bed().rx([bytes(asked)]) == [Reason.BAD_TUNNEL]


def test_other_icmp_ends() -> None:
    ip = IP(src="198.51.100.7", dst=TEXT[OWN[4]])
    ip6 = IPv6(src="2001:db8:7::7", dst="2001:db8::1")
    ethernet = Ether(src=PEER_MAC, dst=MAC)
    assert Bed().rx([bytes(ethernet / ip / ICMP(type=0)), bytes(ethernet / ip / ICMP(code=1))]) \
        == [Reason.TO_UPLINK] * 2
    assert Bed(6).rx([bytes(ethernet / ip6 / ICMPv6EchoReply())]) == [Reason.TO_UPLINK]


# ---------------------------------------------------------------- neighbours
def reply(mac: str = PEER_MAC, ip: bytes = HOST[4], op: int = 2, to: str = MAC) -> bytes:
    return bytes(Ether(src=mac, dst=to) / ARP(op=op, hwsrc=mac, psrc=TEXT[ip], hwdst=MAC,
                                              pdst=TEXT[OWN[4]]))


def test_arp_teaches_where_next_hops_are() -> None:
    bed = Bed()
    bed.way()
    assert bed.uplink.neighbours() == {HOST[4]: None}
    assert bed.rx([reply(ip=OTHER[4])]) == [Reason.TO_UPLINK]
    assert bed.uplink.neighbours() == {HOST[4]: None}, "only who is wanted is learned"
    assert bed.rx([reply()]) == [Reason.TO_UPLINK]
    assert bed.uplink.neighbours() == {HOST[4]: bytes.fromhex("020000000009")}
    bed.rx([reply("02:00:00:00:00:0a", op=1, to="ff:ff:ff:ff:ff:ff")])
    assert bed.uplink.neighbours() == {HOST[4]: bytes.fromhex("02000000000a")}
    for group in ("ff:ff:ff:ff:ff:ff", "01:00:00:00:00:01", "00:00:00:00:00:00"):
        bed.rx([bytes(Ether(src=PEER_MAC, dst=MAC) / ARP(
            op=2, hwsrc=group, psrc=TEXT[HOST[4]], pdst=TEXT[OWN[4]]))])
    assert bed.uplink.neighbours() == {HOST[4]: bytes.fromhex("02000000000a")}


def test_advertisements_teach_where_next_hops_are() -> None:
    bed = Bed(6)
    bed.way()
    told = Ether(src=PEER_MAC, dst=MAC) / IPv6(src="2001:db8::9", dst="2001:db8::1", hlim=255) \
        / ICMPv6ND_NA(tgt="2001:db8::9", R=0, S=1)
    assert bed.rx([bytes(told)]) == [Reason.TO_UPLINK]
    assert bed.uplink.neighbours() == {HOST[6]: bytes.fromhex("020000000009")}
    bed.rx([bytes(told / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:0b"))])
    assert bed.uplink.neighbours() == {HOST[6]: bytes.fromhex("02000000000b")}
    bed.rx([solicitation()])
    assert bed.uplink.neighbours() == {HOST[6]: bytes.fromhex("020000000009")}
    away = told / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:0b")
    away[IPv6].hlim = 64
    bed.rx([bytes(away)])
    assert bed.uplink.neighbours() == {HOST[6]: bytes.fromhex("020000000009")}


def test_counters_of_a_host_may_be_nowhere() -> None:
    bed = Bed()
    bed.remotes.set(HOST[4], TUNNEL)
    assert bed.rx([bytes(outer(4))]) == [Inner(inner())]
    assert bed.counters[0]["frames"] == 0
