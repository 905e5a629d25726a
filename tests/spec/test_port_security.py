# SPDX-License-Identifier: Apache-2.0
"""Port security against the specifications of what it guards, and the known ways around it.

RFC 826, 5227 (ARP), 2131, 8415 (DHCP), 4861, 4862 (neighbour discovery), 6105, 7112, 7113 (RA
guard), 6980 (fragments), 3590 (multicast reports). Frames are made by scapy.
"""

from collections.abc import Iterator, Sequence

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from byway.packet.offload import GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM, offload_word
from byway.packet.reason import Reason
from byway.switch.port_security import PortSecurity
from byway.testing.guarding_kernels import secure
from tests.staging import Place

MAC, VIRTUAL, OTHER = "02:00:00:00:00:01", "00:00:5e:00:01:01", "02:00:00:00:00:02"
ALL = "ff:ff:ff:ff:ff:ff"
IP4, IP6, LINK = "10.0.0.1", "fd00::1", "fe80::ff:fe00:1"


def number(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


PAIRS = [(number(MAC), IP4), (number(MAC), IP6), (number(MAC), "10.9.0.0/16"),
         (number(VIRTUAL), "10.0.0.100"), (number(MAC), "fd01::/64")]


class Guarded(Place):
    """A port that may use PAIRS, with and without trust."""

    def __init__(self) -> None:
        super().__init__()
        self.port = PortSecurity(PAIRS)
        self.trusted = PortSecurity(PAIRS, ("dhcp", "ra"))

    def verdict(self, packet: Packet | bytes, trusted: bool = False) -> Reason | None:
        """Why a frame is dropped, None where it passes, unchanged."""
        frame = bytes(packet)
        port = self.trusted if trusted else self.port
        outcome, = self.run(secure, port, [frame])
        assert outcome.out is None
        assert outcome.frame == frame
        return outcome.reason


@pytest.fixture(scope="module")
def place() -> Iterator[Guarded]:
    made = Guarded()
    yield made
    made.close()


def ether(source: str = MAC, to: str = OTHER) -> Ether:
    return Ether(src=source, dst=to)


def v6(source: str = IP6, to: str = "fd00::2", **fields: int) -> IPv6:
    return IPv6(src=source, dst=to, **fields)


# ---------------------------------------------------------------- MAC and IP
@pytest.mark.parametrize(("packet", "reason"), [
    (ether() / IP(src=IP4) / UDP(), None),
    (ether() / IP(src="10.9.200.3") / TCP(), None),
    (ether(VIRTUAL) / IP(src="10.0.0.100") / TCP(), None),
    (ether() / v6() / TCP(), None),
    (ether() / v6("fd01::77") / TCP(), None),
    (ether() / v6(LINK) / UDP(), None),
    (ether() / Raw(b"x" * 46), None),
    (ether(OTHER) / IP(src=IP4) / UDP(), Reason.SPOOFED_MAC),
    (ether(OTHER) / Raw(b"x" * 46), Reason.SPOOFED_MAC),
    (ether() / IP(src="10.0.0.2") / UDP(), Reason.SPOOFED_IP),
    (ether() / IP(src="10.8.255.255") / UDP(), Reason.SPOOFED_IP),
    (ether() / IP(src="10.0.0.100") / UDP(), Reason.SPOOFED_IP),
    (ether(VIRTUAL) / IP(src=IP4) / UDP(), Reason.SPOOFED_IP),
    (ether() / IP(src="0.0.0.0") / TCP(), Reason.SPOOFED_IP),
    (ether() / v6("fd00::2") / TCP(), Reason.SPOOFED_IP),
    (ether() / v6("fd02::1") / TCP(), Reason.SPOOFED_IP),
    (ether() / v6("fe80::1") / TCP(), Reason.SPOOFED_IP),
    (ether(VIRTUAL) / v6(LINK) / TCP(), Reason.SPOOFED_IP),
    (ether() / v6("::") / UDP(), Reason.SPOOFED_IP),
    (ether() / v6("::ffff:10.0.0.1") / UDP(), Reason.SPOOFED_IP)])
def test_sources(place: Guarded, packet: Packet, reason: Reason | None) -> None:
    assert place.verdict(packet) == reason
    tagged = Ether(src=packet.src, dst=packet.dst, type=0x88A8) / Dot1AD(vlan=5) / Dot1Q(
        vlan=6, type=packet.type) / packet.payload
    assert place.verdict(tagged) == reason, "tags hide nothing"


def test_what_passed_before_opens_no_door(place: Guarded) -> None:
    """Each frame is judged by itself, whatever came before it, on this port or on another."""
    good, same_low = ether() / v6() / TCP(), ether() / v6("fd02::1") / TCP()
    nobody = Ether(src="00:00:00:00:00:00", dst=OTHER) / IP(src="0.0.0.0") / TCP()
    frames = [bytes(p) for p in (nobody, good, same_low, good, ether() / IP(src="10.0.0.2"), good)]
    assert [o.reason for o in place.run(secure, place.port, frames)] == [
        Reason.SPOOFED_MAC, None, Reason.SPOOFED_IP, None, Reason.SPOOFED_IP, None]
    other = PortSecurity([(number(OTHER), IP6)])
    assert [o.reason for o in place.run(secure, other, [bytes(good)])] == [Reason.SPOOFED_MAC]


def test_headers_that_are_none(place: Guarded) -> None:
    good = bytes(ether() / IP(src=IP4) / UDP())
    for n in range(14, 34):
        assert place.verdict(good[:n]) == Reason.SPOOFED_IP
    assert place.verdict(good[:14] + b"\x65" + good[15:]) == Reason.SPOOFED_IP
    assert place.verdict(good[:14] + b"\x44" + good[15:]) == Reason.SPOOFED_IP
    good = bytes(ether() / v6() / TCP())
    for n in range(14, 54):
        assert place.verdict(good[:n]) == Reason.SPOOFED_IP
    assert place.verdict(good[:14] + b"\x45" + good[15:]) == Reason.SPOOFED_IP


def test_runts_are_others_business(place: Guarded) -> None:
    assert place.verdict(bytes.fromhex("0202")) is None


# ---------------------------------------------------------------- ARP
def arp(sender: str = MAC, ip: str = IP4, target: str = "10.0.0.2", source: str = MAC,
        **fields: int) -> Packet:
    return ether(source, ALL) / ARP(**{"op": 1, **fields}, hwsrc=sender, psrc=ip, pdst=target)


@pytest.mark.parametrize(("packet", "reason"), [
    (arp(), None),
    (arp(op=2), None),
    (arp(target=IP4), None),
    (arp(VIRTUAL, "10.0.0.100", source=VIRTUAL), None),
    (arp(VIRTUAL, "10.0.0.100"), None),  # the port has either address
    (arp(ip="10.0.0.2"), Reason.SPOOFED_ARP),
    (arp(ip="10.0.0.2", op=2), Reason.SPOOFED_ARP),
    (arp(OTHER), Reason.SPOOFED_ARP),
    (arp(ip="10.0.0.100"), Reason.SPOOFED_ARP),
    (arp(source=OTHER), Reason.SPOOFED_MAC),
    (arp(hwtype=6), Reason.SPOOFED_ARP),
    (arp(hwlen=8), Reason.SPOOFED_ARP),
    (arp(plen=16), Reason.SPOOFED_ARP),
    (Raw(bytes(arp())[:41]), Reason.SPOOFED_ARP)])
def test_arp_speaks_for_its_sender(place: Guarded, packet: Packet, reason: Reason | None) -> None:
    """RFC 826: whoever hears it believes sender hardware and protocol address."""
    assert place.verdict(packet) == reason


@pytest.mark.parametrize(("packet", "reason"), [
    (arp(ip="0.0.0.0", target=IP4), None),
    (arp(ip="0.0.0.0", target="10.9.1.1"), None),
    (arp(ip="0.0.0.0", target="10.0.0.2"), Reason.SPOOFED_ARP),
    (arp(OTHER, ip="0.0.0.0", target=IP4), Reason.SPOOFED_ARP),
    (arp(ip="0.0.0.0", target=IP4, op=2), Reason.SPOOFED_ARP)])
def test_probes_are_for_ones_own_address(
        place: Guarded, packet: Packet, reason: Reason | None) -> None:
    """RFC 5227, 2.1.1: a probe for somebody's address makes him give it up while he probes."""
    assert place.verdict(packet) == reason


# ---------------------------------------------------------------- DHCP
def dhcp4(source: str, sport: int, dport: int, op: int = 1) -> Packet:
    return ether(to=ALL) / IP(src=source, dst="255.255.255.255") / UDP(
        sport=sport, dport=dport) / BOOTP(op=op) / DHCP(options=["end"])


def dhcp6(sport: int, dport: int) -> Packet:
    return ether(to="33:33:00:01:00:02") / v6(LINK, "ff02::1:2") / UDP(
        sport=sport, dport=dport) / Raw(b"\1\0\0\0")


@pytest.mark.parametrize(("packet", "reason"), [
    (dhcp4("0.0.0.0", 68, 67), None),  # RFC 2131, 4.1: before it has an address
    (dhcp4(IP4, 68, 67), None),
    (dhcp4("0.0.0.0", 68, 68), Reason.DHCP_SERVER),
    (dhcp4("0.0.0.0", 1234, 67), Reason.SPOOFED_IP),
    (dhcp4("10.0.0.2", 68, 67), Reason.SPOOFED_IP),
    (dhcp4(IP4, 67, 68, 2), Reason.DHCP_SERVER),
    (dhcp4(IP4, 67, 67, 2), Reason.DHCP_SERVER),  # to a relay agent
    (dhcp4(IP4, 9999, 68, 2), Reason.DHCP_SERVER),  # clients look at their own port only
    (dhcp6(546, 547), None),
    (dhcp6(547, 546), Reason.DHCP_SERVER),
    (dhcp6(9999, 546), Reason.DHCP_SERVER),
    (dhcp6(547, 547), Reason.DHCP_SERVER)])
def test_dhcp(place: Guarded, packet: Packet, reason: Reason | None) -> None:
    """RFC 2131, 4.1; RFC 8415, 7.2: servers and clients by their ports."""
    assert place.verdict(packet) == reason
    assert place.verdict(packet, trusted=True) == (
        None if reason == Reason.DHCP_SERVER and packet.payload.src != "0.0.0.0" else
        Reason.SPOOFED_IP if reason == Reason.DHCP_SERVER else reason)


def test_fragments_of_a_servers_answer(place: Guarded) -> None:
    """The first fragment has the ports, as its 8 bytes at least are the UDP header."""
    answer = IP(src=IP4, dst="10.0.0.2") / UDP(sport=67, dport=68) / Raw(b"x" * 100)
    pieces = [ether() / piece for piece in fragment(answer, fragsize=8)]
    assert [place.verdict(p) for p in pieces[:3]] == [Reason.DHCP_SERVER, None, None]
    spoofed = ether() / IP(src="10.0.0.2", frag=10) / Raw(b"x" * 8)
    assert place.verdict(spoofed) == Reason.SPOOFED_IP
    options = ether() / IP(src=IP4, options=b"\1" * 40) / UDP(sport=67, dport=68)
    assert place.verdict(options) == Reason.DHCP_SERVER
    assert place.verdict(bytes(ether() / IP(src=IP4) / UDP())[:36]) == Reason.HIDDEN_HEADER


# ---------------------------------------------------------------- neighbour discovery
def ns(source: str = IP6, target: str = "fd00::2", option: str | None = MAC) -> Packet:
    message = ether(to="33:33:ff:00:00:02") / v6(source, "ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(
        tgt=target)
    return message / ICMPv6NDOptSrcLLAddr(lladdr=option) if option else message


def na(target: str = IP6, option: str | None = MAC, source: str = IP6) -> Packet:
    message = ether() / v6(source, "ff02::1", hlim=255) / ICMPv6ND_NA(tgt=target)
    return message / ICMPv6NDOptDstLLAddr(lladdr=option) if option else message


def rs(source: str, option: str | None) -> Packet:
    message = ether() / v6(source, "ff02::2", hlim=255) / ICMPv6ND_RS()
    return message / ICMPv6NDOptSrcLLAddr(lladdr=option) if option else message


@pytest.mark.parametrize(("packet", "reason"), [
    (ns(), None), (ns(option=None), None), (ns(LINK, "fe80::2"), None),
    (ns("::", IP6, None), None),  # RFC 4862, 5.4.2
    (ns("::", LINK, None), None),
    (ns("::", "fd01::99", None), None),
    (ns("::", "fd00::2", None), Reason.SPOOFED_ARP),  # 5.4.3: its owner would give it up
    (ns("fd00::3"), Reason.SPOOFED_ARP),
    (ns(option=OTHER), Reason.SPOOFED_ARP),
    (ns(option=VIRTUAL), Reason.SPOOFED_ARP),
    (ns("fd00::3", option=None), Reason.SPOOFED_ARP),
    (na(), None), (na(option=None), None), (na("fd01::5"), None), (na(LINK, source=LINK), None),
    (na("fd00::2"), Reason.SPOOFED_ARP),
    (na(option=OTHER), Reason.SPOOFED_ARP),
    (na(source="fd00::2"), Reason.SPOOFED_IP),
    (rs(LINK, MAC), None), (rs("::", None), None),
    (rs(LINK, OTHER), Reason.SPOOFED_ARP), (rs("::", OTHER), Reason.SPOOFED_ARP),
    (rs("fe80::2", None), Reason.SPOOFED_ARP)])
def test_neighbour_discovery_speaks_for_its_sender(
        place: Guarded, packet: Packet, reason: Reason | None) -> None:
    """RFC 4861, 7.2.3 and 7.2.5: what neighbours learn from it."""
    assert place.verdict(packet) == reason


@pytest.mark.parametrize("options", [
    "01 00 020000000001", "01 02 020000000001", "01", "0e 01 000000000000 01 00",
    "01 01 020000000001 01 01 020000000002", "01 01 020000000002 01 01 020000000001",
    "01 01 000000000000"])
def test_options_are_whole_and_say_one_thing(place: Guarded, options: str) -> None:
    """RFC 4861, 4.6: a length of 0 ends the message."""
    message = ether() / v6(to="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt="fd00::2") / Raw(
        bytes.fromhex(options))
    assert place.verdict(message) == Reason.SPOOFED_ARP


def test_a_message_that_is_cut_off(place: Guarded) -> None:
    whole = bytes(ns())
    for n in range(58, len(whole)):
        assert place.verdict(whole[:n]) == Reason.SPOOFED_ARP
    assert place.verdict(whole + b"\0" * 20) is None, "padding behind it is no option"
    for length in range(24):
        short = ether() / v6("::", hlim=255, plen=length) / ICMPv6ND_NS(tgt=IP6)
        assert place.verdict(short) == (Reason.SPOOFED_ARP if length >= 4 else
                                        Reason.HIDDEN_HEADER), "shorter than its own fields"
    long = ether() / v6(hlim=255) / ICMPv6ND_NS(tgt="fd00::2") / Raw(b"\x0e\1" + bytes(70))
    assert place.verdict(long) == Reason.SPOOFED_ARP, "longer than the head"


def test_multicast_reports_from_nobody(place: Guarded) -> None:
    """RFC 3590, 4: before there is a link-local address."""
    report = ether() / v6("::", "ff02::16", hlim=1) / IPv6ExtHdrHopByHop(
        options=[RouterAlert()]) / ICMPv6MLReport2()
    assert place.verdict(report) is None
    assert place.verdict(ether() / v6("::") / ICMPv6EchoRequest()) == Reason.SPOOFED_IP


# ---------------------------------------------------------------- RA guard
RA = ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="fd07::", prefixlen=64)


def ra(*between: Packet) -> Packet:
    packet = ether(to="33:33:00:00:00:01") / v6(LINK, "ff02::1", hlim=255)
    for header in between:
        packet /= header
    return packet / RA


@pytest.mark.parametrize("between", [
    [], [IPv6ExtHdrHopByHop()], [IPv6ExtHdrDestOpt()], [IPv6ExtHdrRouting(addresses=["::1"])],
    [IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()],
    [IPv6ExtHdrFragment(m=0, offset=0)], [IPv6ExtHdrFragment(m=1, offset=0)]])
def test_router_advertisements(place: Guarded, between: Sequence[Packet]) -> None:
    """RFC 6105; RFC 7113, 3: extension headers and first fragments hide none."""
    assert place.verdict(ra(*between)) == Reason.ROUTER_ADVERT
    assert place.verdict(ra(*between), trusted=True) is None


@pytest.mark.parametrize(("kind", "header"), [
    (51, b"\x3a\4" + bytes(22)), (135, b"\x3a\1" + bytes(14)), (139, b"\x3a\0" + bytes(6)),
    (140, b"\x3a\2" + bytes(22))])
def test_all_extension_headers_are_known(place: Guarded, kind: int, header: bytes) -> None:
    """RFC 7045, 4: authentication, mobility, HIP, Shim6, each of its own length."""
    hidden = ether() / v6(LINK, nh=kind) / Raw(header) / RA
    assert place.verdict(hidden) == Reason.ROUTER_ADVERT


@pytest.mark.parametrize(("protocol", "message"), [
    (58, bytes(ICMPv6ND_RA())), (58, bytes(ICMPv6ND_NA(tgt="fd00::2"))),
    (17, bytes(UDP(sport=547, dport=546)) + bytes(8))])
def test_padding_stands_for_nothing(place: Guarded, protocol: int, message: bytes) -> None:
    """The first fragment ends with an extension header, and the message is in the second, of which
    only the source is looked at. Behind the first packet's end stands what may be said (RFC 2464,
    3; RFC 8200, 4.5: the payload length says what belongs to the fragment)."""
    first = ether() / v6(LINK, "ff02::1", hlim=255) / IPv6ExtHdrFragment(m=1, nh=60) / Raw(
        bytes([protocol, 0, 1, 4, 0, 0, 0, 0]))
    for padding in (b"", b"\x80" + bytes(45), b"\x80\0\0", bytes(4)):
        padded = bytes(first) + padding
        assert place.verdict(padded) == Reason.HIDDEN_HEADER
        assert place.verdict(padded, trusted=True) == Reason.HIDDEN_HEADER
    second = ether() / v6(LINK, "ff02::1", hlim=255) / IPv6ExtHdrFragment(
        offset=1, nh=60) / Raw(message)
    assert place.verdict(second) is None, "without the first it is nothing"


def test_padding_behind_ipv4(place: Guarded) -> None:
    """A packet of UDP that ends before its ports, one that ends before its header does."""
    for length, reason in ((19, Reason.SPOOFED_IP), (20, Reason.HIDDEN_HEADER),
                           (23, Reason.HIDDEN_HEADER), (24, None), (28, None)):
        short = ether() / IP(src=IP4, len=length, flags="MF") / UDP(sport=9, dport=9)
        assert place.verdict(bytes(short) + bytes(18)) == reason


@pytest.mark.parametrize("packet", [
    ether() / IP(src=IP4, len=0) / TCP() / Raw(bytes(3000)),
    ether() / IP(src=IP4, len=0) / UDP(sport=9, dport=9) / Raw(bytes(3000)),
    ether() / v6(plen=0) / UDP(sport=9, dport=9) / Raw(bytes(3000))])
def test_what_is_to_be_cut_says_no_length(place: Guarded, packet: Packet) -> None:
    """Senders of large frames leave 0 there, or what does not fit."""
    large = GSO_TCPV4 if TCP in packet else GSO_UDP_L4
    word = offload_word(NEEDS_CSUM | large << 8 | 1000 << 32 | 34 << 48, 6)
    outcome, = place.run(secure, place.port, [bytes(packet)], offload=word)
    assert outcome.reason is None


def test_a_long_chain_of_headers(place: Guarded) -> None:
    """RFC 7112: the whole chain is in the first fragment; RFC 7113, 3: else it is dropped."""
    long = [IPv6ExtHdrDestOpt() for _ in range(8)]
    assert place.verdict(ra(*long)) == Reason.ROUTER_ADVERT, "it ends in the head"
    assert place.verdict(ra(*long, IPv6ExtHdrDestOpt())) == Reason.HIDDEN_HEADER
    assert place.verdict(ra(*long, IPv6ExtHdrDestOpt()), trusted=True) == Reason.HIDDEN_HEADER
    first = ether() / v6(LINK) / IPv6ExtHdrFragment(m=1, nh=60) / Raw(b"\x3a\1" + bytes(6))
    assert place.verdict(first) == Reason.HIDDEN_HEADER, "the protocol is in the next fragment"
    udp = ether() / v6() / IPv6ExtHdrFragment(m=1, nh=17)
    assert place.verdict(udp) == Reason.HIDDEN_HEADER
    huge = ether() / v6(LINK, nh=60) / Raw(b"\x3a\xff" + bytes(200))
    assert place.verdict(huge) == Reason.HIDDEN_HEADER


def test_later_fragments_have_a_source(place: Guarded) -> None:
    piece = IPv6ExtHdrFragment(offset=5, m=0, nh=58) / Raw(bytes(RA))
    assert place.verdict(ether() / v6() / piece) is None
    assert place.verdict(ether() / v6("fd00::2") / piece) == Reason.SPOOFED_IP
    assert place.verdict(ether() / v6("::") / piece) == Reason.SPOOFED_IP


@pytest.mark.parametrize("packet", [
    ether() / Dot1Q() / Dot1Q() / Dot1Q() / IP(src=IP4) / UDP(),
    Ether(src=MAC, dst=OTHER, type=0x9100) / Dot1Q() / IP(src=IP4) / UDP(),
    Ether(src=MAC, dst=OTHER, type=60) / LLC() / SNAP(OUI=0, code=0x86DD) / RA,
    Ether(src=MAC, dst=OTHER, type=60) / LLC() / SNAP(OUI=0xF8, code=0x0806) / ARP(),
    ether() / Dot1Q(vlan=0, type=60) / LLC() / SNAP(OUI=0, code=0x0800) / IP()])
def test_known_ways_around(place: Guarded, packet: Packet) -> None:
    """VLAN 0 and LLC/SNAP headers that some stations take off (CVE-2021-27853 and on)."""
    assert place.verdict(packet) == Reason.HIDDEN_HEADER


def test_other_llc_frames_are_left_alone(place: Guarded) -> None:
    bridge = Ether(src=MAC, dst="01:80:c2:00:00:10", type=38) / LLC(dsap=0x42, ssap=0x42, ctrl=3)
    assert place.verdict(bridge / Raw(bytes(35))) is None
    vendor = Ether(src=MAC, dst=OTHER, type=60) / LLC() / SNAP(OUI=0x00000C, code=0x2000)
    assert place.verdict(vendor / Raw(bytes(30))) is None
