# SPDX-License-Identifier: Apache-2.0
"""What the standards ask of a router, in frames that scapy makes and reads."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from byway.packet.reason import Reason
from byway.switch.routing import Gateway, Router
from byway.testing.routed import SECOND, Outcome, Routed

GATE, GUEST, OTHER = "02:00:00:00:00:01", "02:00:00:00:01:00", "02:00:00:00:02:00"
MAC = 0x020000000001
PORT = 7
US4, US6, LINK = "10.0.0.1", "fd00:1::1", "fe80::ff:fe00:1"


@pytest.fixture
def routed() -> Routed:
    made = Routed([Gateway(1, 41, MAC, (f"{US4}/24", f"{US6}/64")),
                   Gateway(2, 42, MAC, ("10.0.1.1/24", "fd00:2::1/64"), 1300)],
                  [Router((1, 2), (("10.7.0.0/16", "10.0.1.2"), ("fd07::/16", "fd00:2::2")))])
    for address in ("10.0.1.2", "fd00:2::2"):
        made.know(2, address, 0x020000000200)
    return made


def passes(routed: Routed, packet: Packet, to: str = GATE, port: int = PORT) -> Outcome:
    """What becomes of a packet that a guest of network 1 sends to the gateway's MAC address."""
    return routed.send([bytes(Ether(dst=to, src=GUEST) / packet)], 1, port)[0]


def v4(**fields: object) -> IP:
    """From the guest to a station in the other network."""
    return IP(**{"src": "10.0.0.2", "dst": "10.0.1.2", **fields})


def v6(**fields: object) -> IPv6:
    return IPv6(**{"src": "fd00:1::2", "dst": "fd00:2::2", **fields})


def answer(routed: Routed, packet: Packet, to: str = GATE) -> Packet:
    """The frame that comes back to the guest, every checksum in it right."""
    found = passes(routed, packet, to)
    assert found.answer, found
    read = Ether(found.frame)
    assert (read.dst, read.src) == (GUEST, GATE)
    again = read.copy()
    for layer in (IP, ICMP):
        if again.haslayer(layer):
            again[layer].delfieldval("chksum")
    if again.haslayer(IPv6):
        again[IPv6].payload.delfieldval("cksum")
    assert bytes(again) == found.frame
    return read


# ---------------------------------------------------------------- forwarding
def test_rfc_1812_5_3_1_ttl_is_lowered_by_one(routed: Routed) -> None:
    found = passes(routed, v4(ttl=9, id=7) / UDP() / b"data")
    read = Ether(found.frame)
    assert (found.network, found.port) == (2, 42)
    assert (read.src, read.dst) == (GATE, OTHER)
    assert bytes(read[IP]) == bytes(v4(ttl=8, id=7) / UDP() / b"data")


def test_rfc_8200_3_hop_limit_is_lowered_by_one(routed: Routed) -> None:
    found = passes(routed, v6(hlim=9, fl=5, tc=3) / UDP() / b"data")
    assert bytes(Ether(found.frame)[IPv6]) == bytes(v6(hlim=8, fl=5, tc=3) / UDP() / b"data")


def test_rfc_1812_5_2_4_3_a_static_route_names_the_next_hop(routed: Routed) -> None:
    """The packet keeps its destination; only the MAC address is the next hop's."""
    for packet in (v4(dst="10.7.1.1") / UDP(), v6(dst="fd07::1") / UDP()):
        found = passes(routed, packet)
        assert (found.network, Ether(found.frame).dst) == (2, OTHER)
        assert Ether(found.frame)[1].dst == packet.dst


def test_rfc_1812_5_2_7_2_no_redirects_but_the_packet_goes_on(routed: Routed) -> None:
    """The next hop may be in the network that the packet came from."""
    routed.know(1, "10.0.0.3", 0x020000000200)
    found = passes(routed, v4(dst="10.0.0.3") / UDP())
    assert (found.network, found.port, found.answer) == (1, 41, False)


@pytest.mark.parametrize("changed", [
    {"version": 5}, {"version": 6}, {"ihl": 4}, {"ihl": 15}, {"chksum": 1}, {"len": 19},
    {"len": 100}])
def test_rfc_1812_5_2_2_header_validation(routed: Routed, changed: dict[str, int]) -> None:
    assert passes(routed, v4(**changed) / UDP()).drop == Reason.BAD_IP


@pytest.mark.parametrize("cut", range(14, 34))
def test_rfc_1812_5_2_2_packets_shorter_than_a_header(routed: Routed, cut: int) -> None:
    frame = bytes(Ether(dst=GATE, src=GUEST) / v4() / UDP())[:cut]
    assert routed.send([frame], 1, PORT)[0].drop == Reason.BAD_IP


def test_rfc_8200_3_payload_length(routed: Routed) -> None:
    assert passes(routed, v6(plen=9) / UDP()).drop == Reason.BAD_IP
    assert passes(routed, v6(version=4) / UDP()).drop == Reason.BAD_IP
    assert passes(routed, v6(plen=8) / UDP() / Raw(b"more than it says")).network == 2


@pytest.mark.parametrize("source", [
    "0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"])
def test_rfc_1812_5_3_7_sources_that_are_nobodys(routed: Routed, source: str) -> None:
    assert passes(routed, v4(src=source) / UDP()).drop == Reason.MARTIAN


@pytest.mark.parametrize("to", [
    "127.0.0.1", "0.0.0.0", "224.0.0.1", "239.1.1.1", "255.255.255.255", "10.0.1.255", "10.0.0.0"])
def test_rfc_1812_4_2_3_1_and_rfc_2644_groups_and_broadcasts_are_not_forwarded(
        routed: Routed, to: str) -> None:
    assert passes(routed, v4(dst=to) / UDP()).drop == Reason.MARTIAN


@pytest.mark.parametrize(("source", "to"), [
    ("::", "fd00:2::2"), ("::1", "fd00:2::2"), ("ff02::1", "fd00:2::2"), ("fd00:1::2", "::1"),
    ("fd00:1::2", "ff02::1"), ("fd00:1::2", "ff0e::1"), ("fd00:1::2", "fe80::9"),
    ("fd00:1::2", "::ffff:10.0.1.2"), ("::ffff:10.0.0.2", "fd00:2::2")])
def test_rfc_4291_2_5_addresses_that_are_not_routed(routed: Routed, source: str, to: str) -> None:
    assert passes(routed, v6(src=source, dst=to) / UDP()).drop == Reason.MARTIAN


def test_rfc_3927_2_7_link_local_ipv4_is_not_forwarded(routed: Routed) -> None:
    assert passes(routed, v4(dst="169.254.169.254") / UDP()).drop == Reason.MARTIAN


def test_rfc_4443_3_1_a_link_local_source_does_not_leave_its_link(routed: Routed) -> None:
    """Code 2, beyond scope of source address."""
    read = answer(routed, v6(src="fe80::2") / UDP())
    assert read[ICMPv6DestUnreach].code == 2
    assert (read[IPv6].src, read[IPv6].dst) == (LINK, "fe80::2")


@pytest.mark.parametrize(("option", "reason"), [
    (IPOption(b"\x83\x07\x04\x0a\0\1\2"), Reason.MARTIAN),
    (IPOption(b"\x89\x07\x04\x0a\0\1\2"), Reason.MARTIAN), (Raw(b"\x07\x01\0\0"), Reason.MARTIAN),
    (IPOption(b"\x94\x04\0\0"), None), (IPOption(b"\x07\x07\x04\0\0\0\0"), None)])
def test_rfc_7126_4_3_source_routes_are_refused_and_others_ignored(
        routed: Routed, option: IPOption, reason: Reason | None) -> None:
    found = passes(routed, v4(options=[option]) / UDP())
    assert found.drop == reason
    if reason is None:
        assert found.network == 2
        assert Ether(found.frame)[IP].chksum == IP(bytes(v4(ttl=63, options=[option])
                                                        / UDP())).chksum


def test_rfc_1812_5_2_1_fragments_go_on_as_they_are(routed: Routed) -> None:
    for fields in ({"flags": "MF"}, {"frag": 20}, {"flags": "MF", "frag": 3}):
        assert passes(routed, v4(**fields) / Raw(bytes(16))).network == 2
    assert passes(routed, v6() / IPv6ExtHdrFragment(offset=9) / Raw(bytes(16))).network == 2


# ---------------------------------------------------------------- errors
def test_rfc_792_time_exceeded(routed: Routed) -> None:
    """Type 11, code 0; the header and the first 8 bytes at least."""
    for ttl in (1, 0):
        packet = v4(ttl=ttl, id=3) / UDP(sport=5, dport=33434) / Raw(bytes(300))
        read = answer(routed, packet)
        assert (read[ICMP].type, read[ICMP].code) == (11, 0)
        assert (read[IP].src, read[IP].dst, read[IP].ttl) == (US4, "10.0.0.2", 64)
        assert bytes(read[ICMP])[8:] == bytes(packet)[:86]
    assert routed.counted == {"ttl_expired": 2}


def test_rfc_4443_3_3_time_exceeded(routed: Routed) -> None:
    packet = v6(hlim=1) / UDP(dport=33434) / Raw(bytes(300))
    read = answer(routed, packet)
    assert read[ICMPv6TimeExceeded].code == 0
    assert (read[IPv6].src, read[IPv6].dst) == (US6, "fd00:1::2")
    assert bytes(read[ICMPv6TimeExceeded])[8:] == bytes(packet)[:66]


def test_rfc_1812_5_3_1_ttl_does_not_matter_for_the_router_itself(routed: Routed) -> None:
    assert answer(routed, v4(dst=US4, ttl=1) / ICMP())[ICMP].type == 0
    assert answer(routed, v6(dst=US6, hlim=1) / ICMPv6EchoRequest()).haslayer(ICMPv6EchoReply)


def test_rfc_1812_5_2_7_1_network_unreachable(routed: Routed) -> None:
    read = answer(routed, v4(dst="192.0.2.1") / TCP())
    assert (read[ICMP].type, read[ICMP].code) == (3, 0)
    assert routed.counted == {"no_route": 1}


def test_rfc_4443_3_1_no_route(routed: Routed) -> None:
    assert answer(routed, v6(dst="2001:db8::1") / TCP())[ICMPv6DestUnreach].code == 0


def test_rfc_1191_4_the_mtu_is_in_the_error(routed: Routed) -> None:
    """... which is sent although the packet does not say "do not fragment": nobody fragments."""
    for flags in ("DF", 0):
        read = answer(routed, v4(flags=flags) / UDP() / Raw(bytes(1273)))
        assert (read[ICMP].type, read[ICMP].code, read[ICMP].nexthopmtu) == (3, 4, 1300)
    assert passes(routed, v4() / UDP() / Raw(bytes(1272))).network == 2
    assert routed.counted == {"over_mtu": 2}


def test_rfc_4443_3_2_packet_too_big(routed: Routed) -> None:
    assert answer(routed, v6() / UDP() / Raw(bytes(1253)))[ICMPv6PacketTooBig].mtu == 1300
    assert passes(routed, v6() / UDP() / Raw(bytes(1252))).network == 2


def test_rfc_1812_4_3_2_5_and_rfc_6864_fields_of_an_error(routed: Routed) -> None:
    """Precedence 6 (internetwork control); never a fragment, so no identification."""
    read = answer(routed, v4(ttl=1, tos=4) / UDP())
    assert (read[IP].tos, read[IP].id, read[IP].flags) == (0xC0, 0, "DF")


@pytest.mark.parametrize("packet", [
    v4(ttl=1) / ICMP(type=3), v4(ttl=1) / ICMP(type=11), v4(ttl=1) / ICMP(type=5),
    v4(ttl=1, frag=1) / Raw(bytes(8)), v4(ttl=1, proto=1) / Raw(b""),
    v6(hlim=1) / ICMPv6DestUnreach(), v6(hlim=1) / ICMPv6TimeExceeded(),
    v6(hlim=1) / IPv6ExtHdrHopByHop() / ICMPv6PacketTooBig(), v6(hlim=1, nh=58) / Raw(b""),
    v6(hlim=1) / IPv6ExtHdrFragment(offset=1, nh=58) / Raw(bytes(8))])
def test_rfc_1122_3_2_2_and_rfc_4443_2_4_no_errors_about_errors(
        routed: Routed, packet: Packet) -> None:
    assert passes(routed, packet).drop == Reason.TTL_EXPIRED


@pytest.mark.parametrize("packet", [
    v4(ttl=1) / ICMP(type=8), v4(ttl=1) / ICMP(type=13), v4(ttl=1, flags="MF") / Raw(bytes(8)),
    v6(hlim=1) / ICMPv6EchoRequest(), v6(hlim=1) / ICMPv6EchoReply(),
    v6(hlim=1) / IPv6ExtHdrFragment(offset=9, nh=17) / Raw(bytes(8))])
def test_errors_about_what_is_none(routed: Routed, packet: Packet) -> None:
    assert passes(routed, packet).answer


def test_rfc_4443_2_4_f_errors_are_limited(routed: Routed) -> None:
    """By port: 50 at once, then 100 a second; another port has its own limit."""
    packet = v4(ttl=1) / UDP()

    def sent(port: int, n: int) -> int:
        return sum(passes(routed, packet, port=port).answer for _ in range(n))

    assert sent(PORT, 60) == 50
    assert sent(PORT + 1, 1) == 1
    routed.now += SECOND // 4
    assert sent(PORT, 60) in range(20, 30)
    routed.now += 10 * SECOND
    assert sent(PORT, 60) == 50
    assert passes(routed, packet).drop == Reason.TTL_EXPIRED


def test_rfc_1122_3_2_2_1_and_rfc_4443_3_1_nobody_listens_at_the_router(routed: Routed) -> None:
    for packet in (UDP(dport=33434), TCP(dport=22)):
        read = answer(routed, v4(dst=US4) / packet)
        assert (read[ICMP].type, read[ICMP].code) == (3, 3)
        assert answer(routed, v6(dst=US6) / packet)[ICMPv6DestUnreach].code == 4
    assert answer(routed, v4(dst=US4, proto=47) / Raw(bytes(8)))[ICMP].code == 2


# ---------------------------------------------------------------- the gateway's own addresses
@pytest.mark.parametrize("to", [US4, "10.0.1.1"])
@pytest.mark.parametrize("size", [0, 1, 56, 1400])
def test_rfc_792_echo(routed: Routed, to: str, size: int) -> None:
    """The data comes back; source and destination are reversed."""
    data = (bytes(range(256)) * 6)[:size]
    read = answer(routed, v4(dst=to, id=5) / ICMP(id=3, seq=4) / Raw(data))
    assert (read[IP].src, read[IP].dst) == (to, "10.0.0.2")
    assert (read[ICMP].type, read[ICMP].id, read[ICMP].seq) == (0, 3, 4)


@pytest.mark.parametrize("to", [US6, "fd00:2::1", LINK])
def test_rfc_4443_4_2_echo(routed: Routed, to: str) -> None:
    read = answer(routed, v6(dst=to) / ICMPv6EchoRequest(id=3, seq=4, data=bytes(range(200)) * 5))
    assert (read[IPv6].src, read[IPv6].dst, read[IPv6].hlim) == (to, "fd00:1::2", 64)
    assert read[ICMPv6EchoReply].data == bytes(range(200)) * 5


def test_rfc_826_requests_are_answered(routed: Routed) -> None:
    """Swap hardware and protocol fields, put the local ones into the sender fields."""
    for to in ("ff:ff:ff:ff:ff:ff", GATE):
        read = answer(routed, ARP(hwsrc=GUEST, psrc="10.0.0.2", pdst=US4), to)
        assert (read[ARP].op, read[ARP].hwsrc, read[ARP].psrc) == (2, GATE, US4)
        assert (read[ARP].hwdst, read[ARP].pdst) == (GUEST, "10.0.0.2")
        assert len(read) == 60
    other = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=GUEST) / ARP(psrc="10.0.0.2", pdst="10.0.0.9"))
    assert routed.send([other], 1, PORT)[0] == Outcome(other, 1, PORT)


def test_rfc_5227_2_1_probes_for_our_address_are_answered(routed: Routed) -> None:
    """It is in use, and who probes shall know."""
    read = answer(routed, ARP(hwsrc=GUEST, psrc="0.0.0.0", pdst=US4), "ff:ff:ff:ff:ff:ff")
    assert (read[ARP].op, read[ARP].psrc) == (2, US4)


def nodes(address: str) -> tuple[str, str]:
    """The solicited-node group of an address (RFC 4291, 2.7.1): MAC and IP."""
    last = address.rpartition("::")[2].zfill(6)
    mac = "33:33:ff:" + ":".join(last[k : k + 2] for k in (0, 2, 4))
    return mac, f"ff02::1:ff{last[:2]}:{last[2:]}"


def test_rfc_4861_7_2_4_solicited_advertisement(routed: Routed) -> None:
    """To the solicitor, with S, O and R set and our link-layer address."""
    mac, group = nodes(US6)
    for to, address in ((mac, group), (GATE, US6)):
        read = answer(routed, v6(dst=address, hlim=255) / ICMPv6ND_NS(tgt=US6)
                      / ICMPv6NDOptSrcLLAddr(lladdr=GUEST), to)
        assert (read[IPv6].src, read[IPv6].dst, read[IPv6].hlim) == (US6, "fd00:1::2", 255)
        made = read[ICMPv6ND_NA]
        assert (made.R, made.S, made.O, made.tgt) == (1, 1, 1, US6)
        assert made[ICMPv6NDOptDstLLAddr].lladdr == GATE


def test_rfc_4861_7_2_4_who_wants_our_address_is_told_with_all_nodes(routed: Routed) -> None:
    mac, group = nodes(US6)
    found = passes(routed, v6(src="::", dst=group, hlim=255) / ICMPv6ND_NS(tgt=US6), mac)
    read = Ether(found.frame)
    assert found.answer
    assert (read.dst, read[IPv6].dst) == ("33:33:00:00:00:01", "ff02::1")
    assert (read[ICMPv6ND_NA].S, read[ICMPv6ND_NA].O) == (0, 1)


MAC_GROUP, GROUP = nodes(US6)


@pytest.mark.parametrize("packet", [
    v6(dst=GROUP, hlim=254) / ICMPv6ND_NS(tgt=US6),
    v6(dst=GROUP, hlim=255) / ICMPv6ND_NS(tgt=US6, cksum=1),
    v6(dst=GROUP, hlim=255) / ICMPv6ND_NS(tgt=US6, code=1),
    v6(dst=GROUP, hlim=255, plen=23) / ICMPv6ND_NS(tgt=US6),
    v6(dst=GROUP, hlim=255) / ICMPv6ND_NS(tgt=US6) / Raw(bytes(8)),
    v6(src="::", dst=US6, hlim=255) / ICMPv6ND_NS(tgt=US6),
    v6(src="::", dst=GROUP, hlim=255) / ICMPv6ND_NS(tgt=US6) / ICMPv6NDOptSrcLLAddr(lladdr=GUEST)])
def test_rfc_4861_7_1_1_invalid_solicitations(routed: Routed, packet: Packet) -> None:
    assert passes(routed, packet, MAC_GROUP).drop == Reason.BAD_IP


@pytest.mark.parametrize("packet", [
    ARP(hwsrc=GUEST, psrc=US4, pdst="10.0.0.9"), ARP(op=2, hwsrc=GUEST, psrc=US4, pdst=US4),
    v6(dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=US6, S=0),
    v6(src=US6, dst=nodes("fd00:1::9")[1], hlim=255) / ICMPv6ND_NS(tgt="fd00:1::9"),
    v6(src=LINK, dst="ff02::1", hlim=255) / ICMPv6ND_Redirect()])
def test_nobody_else_says_that_our_address_is_its_own(routed: Routed, packet: Packet) -> None:
    assert passes(routed, packet, "ff:ff:ff:ff:ff:ff").drop == Reason.SPOOFED_ARP


# ---------------------------------------------------------------- next hops that nobody knows
def test_rfc_1122_2_3_2_1_at_most_one_request_a_second(routed: Routed) -> None:
    packet = v4(dst="10.0.1.77") / UDP()
    found = passes(routed, packet)
    read = Ether(found.frame)
    assert (found.network, found.port, found.answer, found.drop) == (2, 42, False, None)
    assert (read.src, read.dst) == (GATE, "ff:ff:ff:ff:ff:ff")
    assert (read[ARP].op, read[ARP].hwsrc, read[ARP].psrc) == (1, GATE, "10.0.1.1")
    assert (read[ARP].hwdst, read[ARP].pdst) == ("00:00:00:00:00:00", "10.0.1.77")
    for port in (PORT, PORT + 1):
        assert passes(routed, packet, port=port).drop == Reason.NO_NEIGHBOUR
    assert passes(routed, v4(dst="10.0.1.78") / UDP()).network == 2
    routed.now += SECOND
    assert Ether(passes(routed, packet).frame)[ARP].pdst == "10.0.1.77"
    assert routed.counted == {"no_neighbour": 3}
    routed.know(2, "10.0.1.77", 0x020000000200)
    assert Ether(passes(routed, packet).frame).dst == OTHER


def test_rfc_4861_7_2_2_the_solicitation(routed: Routed) -> None:
    found = passes(routed, v6(dst="fd00:2::abcd:1234") / UDP())
    read = Ether(found.frame)
    assert (found.network, found.port) == (2, 42)
    assert bytes(read) == bytes(
        Ether(src=GATE, dst="33:33:ff:cd:12:34")
        / IPv6(src="fd00:2::1", dst="ff02::1:ffcd:1234", hlim=255)
        / ICMPv6ND_NS(tgt="fd00:2::abcd:1234") / ICMPv6NDOptSrcLLAddr(lladdr=GATE))
    assert passes(routed, v6(dst="fd00:2::abcd:1234") / UDP()).drop == Reason.NO_NEIGHBOUR
