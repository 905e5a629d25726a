# SPDX-License-Identifier: Apache-2.0
"""byway.router: every packet goes where a list of prefixes, read one by one, sends it; and what the
router answers is what scapy builds."""

import random
from functools import cache
from ipaddress import ip_address, ip_network

import pytest
from scapy.all import (
    ARP,
    ICMP,
    IP,
    Ether,
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    Raw,
)

from byway import nf
from byway.functions.builtin.router import Router
from byway.testing.builders import arp, icmp, icmp_error, icmpv6, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both, has_right_sums
from tests.frames_wanted import frames_wanted

MAC, GUEST = "02:00:00:00:00:fe", "02:00:00:00:00:01"
OWN, OWN6 = "10.0.0.254", "fd00::fe"
ROUTES = {"10.0.0.0/24": 0, "10.1.0.0/16": 1, "10.1.2.0/24": 2, "10.1.2.128/25": 0,
          "172.16.0.0/12": 3, "198.51.100.7/32": 2}
ROUTES6 = {"fd00::/64": 0, "fd01::/16": 1, "fd01:2::/32": 2, "fd01:2:3::/48": 0, "2001:db8::/32": 3}
HOPS = {1: ("10.0.0.1", "fd00::1"), 2: ("10.0.0.2", "fd00::2"), 3: ("0.0.0.0", "::")}
NEIGHBOURS = {"10.0.0.1": "02:00:00:00:01:01", "10.0.0.2": "02:00:00:00:01:02",
              "10.1.2.200": "02:00:00:00:01:03"}
NEIGHBOURS6 = {"fd00::1": "02:00:00:00:02:01", "fd00::2": "02:00:00:00:02:02",
               "fd01:2:3::9": "02:00:00:00:02:03"}


def router(**parameters: object) -> Both:
    """A router with the tables above."""
    both = Both(Router, mac=MAC, address=OWN, address6=OWN6, **parameters)
    both.put("routes", ROUTES.items())
    both.put("routes6", ROUTES6.items())
    both.put("hops", [(n, {"via": via, "via6": via6}) for n, (via, via6) in HOPS.items()])
    both.put("neighbours", NEIGHBOURS.items())
    both.put("neighbours6", NEIGHBOURS6.items())
    return both


def next_hop(destination: str) -> str | None:
    """To whom a packet is handed, by reading all prefixes; None: to nobody."""
    address = ip_address(destination)
    table = ROUTES if address.version == 4 else ROUTES6
    fitting = [ip_network(text) for text in table if address in ip_network(text)]
    if not fitting:
        return None
    hop = table[str(max(fitting, key=lambda one: one.prefixlen))]
    via = destination if hop == 0 else HOPS[hop][0 if address.version == 4 else 1]
    return via if int(ip_address(via)) else None


def sent(frame: bytes) -> Ether:
    """What a frame with these contents looks like when scapy builds it."""
    made = Ether(frame)
    for layer in (IP, ICMP):
        if layer in made:
            del made[layer].chksum
    return Ether(bytes(made))


# ---------------------------------------------------------------- on their way
V4 = ["10.0.0.9", "10.1.0.1", "10.1.2.3", "10.1.2.200", "172.16.5.5", "198.51.100.7", "192.0.2.1",
      OWN]
V6 = ["fd00::9", "fd01::1", "fd01:2::1", "fd01:2:3::9", "2001:db8::1", "2002::1", OWN6]


def test_packets_go_where_the_longest_prefix_says() -> None:
    both, chance = router(errors=1_000_000, mtu=1400), random.Random(1)
    seen = set()
    for _ in range(frames_wanted()):
        six = chance.random() < 0.5
        src, dst = ("fd00::5", chance.choice(V6)) if six else ("10.0.0.5", chance.choice(V4))
        frame = udp(src, dst, data=bytes(chance.choice([0, 100, 1450])), eth_dst=MAC,
                    ttl=chance.choice([0, 1, 2, 64, 255]), eth_src=GUEST)
        outcome = both.one(frame, now=10**9)
        kind, wanted = expected(frame, dst)
        seen.add((six, kind))
        assert outcome.verdict == (nf.PASS if kind in ("on", "ask") else nf.REPLY), kind
        if wanted is not None:
            assert outcome.frame == wanted, kind
        assert has_right_sums(outcome.frame)
    assert len(seen) == 12


@cache
def expected(frame: bytes, dst: str) -> tuple[str, bytes | None]:
    """What becomes of a UDP packet to the router, with scapy."""
    six = ":" in dst
    packet = Ether(frame)[IPv6 if six else IP]
    ttl = packet.hlim if six else packet.ttl
    via = next_hop(dst)
    mac = (NEIGHBOURS6 if six else NEIGHBOURS).get(via or "")
    if dst in (OWN, OWN6):
        return "own", error(frame, ICMPv6DestUnreach(code=4) if six else ICMP(type=3, code=3))
    if via is None:
        return "no route", error(frame, ICMPv6DestUnreach(code=0) if six else ICMP(type=3, code=0))
    if ttl <= 1:
        return "expired", error(frame, ICMPv6TimeExceeded() if six else ICMP(type=11, code=0))
    length = packet.plen + 40 if six else packet.len
    if length > 1400:
        return "too big", error(frame, ICMPv6PacketTooBig(mtu=1400) if six
                                else ICMP(type=3, code=4, nexthopmtu=1400))
    if mac is None:
        return "ask", None
    made = Ether(frame)
    made.src, made.dst = MAC, mac
    if six:
        made[IPv6].hlim -= 1
    else:
        made[IP].ttl -= 1
        del made[IP].chksum
    return "on", bytes(made)


def error(frame: bytes, about: Raw) -> bytes:
    """The error about a packet, by scapy: as much of it as there may be (RFC 1812, RFC 4443)."""
    packet = Ether(frame).payload
    if packet.version == 6:
        quoted = frame[14:14 + 40 + packet.plen][:1280 - 48]
        header = IPv6(src=OWN6, dst=packet.src, hlim=64)
    else:
        quoted = frame[14:14 + packet.len][:576 - 28]
        header = IP(src=OWN, dst=packet.src, ttl=64, tos=0xC0, id=0, flags="DF")
    return bytes(Ether(src=MAC, dst=GUEST) / header / about / Raw(quoted))


def test_no_error_is_sent_about_what_must_not_have_one() -> None:
    both = router()
    about = udp("192.0.2.9", "10.0.0.5")
    for frame in (icmp_error("10.0.0.5", about, eth_dst=MAC, ttl=1),
                  icmpv6("fd00::5", "fd01::1", 1, eth_dst=MAC, ttl=1),
                  icmpv6("fd00::5", "fd01::1", 137, eth_dst=MAC, ttl=1),
                  udp("10.0.0.5", "10.1.0.1", ttl=1, eth_dst=MAC, eth_src="03:00:00:00:00:01")):
        assert both.one(frame).verdict == nf.DROP("no error about it")
    assert both.one(icmp("10.0.0.5", "10.1.0.1", eth_dst=MAC, ttl=1)).verdict == nf.REPLY


def test_errors_are_limited() -> None:
    both = router(errors=3)
    frame = udp("10.0.0.5", "192.0.2.1", eth_dst=MAC)
    reasons = [one.reason for one in both.run([frame] * 5, now=1)]
    assert reasons == ["", "", "", "too many errors", "too many errors"]
    assert both.one(frame, now=10**9).verdict == nf.REPLY
    assert both.value("no_route") == 6


@pytest.mark.parametrize("src", ["127.0.0.1", "224.0.0.1", "0.0.0.0", "169.254.1.1",
                                 "255.255.255.255"])
def test_what_is_no_station_is_not_routed(src: str) -> None:
    both = router()
    assert both.one(udp(src, "10.1.0.1", eth_dst=MAC)).reason == "not to be routed"
    assert both.one(udp("10.0.0.5", src, eth_dst=MAC)).reason == "not to be routed"


@pytest.mark.parametrize("src", ["::", "::1", "fe80::1", "ff02::5"])
def test_what_is_no_station_is_not_routed_in_ipv6(src: str) -> None:
    both = router()
    assert both.one(udp(src, "fd01::1", eth_dst=MAC)).reason == "not to be routed"
    assert both.one(udp("fd00::5", src, eth_dst=MAC)).reason == "not to be routed"


def test_malformed_and_source_routed_packets_are_dropped() -> None:
    both = router()
    good = udp("10.0.0.5", "10.1.0.1", eth_dst=MAC)
    for at, value in ((24, good[24] ^ 1), (17, 19), (16, 255)):
        assert both.one(good[:at] + bytes([value]) + good[at + 1:]).reason == "malformed"
    for options in (b"\x83\x07\x04\x0a\0\0\x01\0", b"\x01\x89\x03\x04"):
        assert both.one(udp("10.0.0.5", "10.1.0.1", eth_dst=MAC, options=options)).reason \
            == "malformed"
    for options in (b"\x94\x04\0\0", b"\0\x83\0\0", b"\x01\x01\x44\0"):
        assert both.one(udp("10.0.0.5", "10.1.0.1", eth_dst=MAC, options=options)).reason == ""
    short = bytearray(udp("fd00::5", "fd01::1", eth_dst=MAC))
    short[18] = 1
    assert both.one(bytes(short)).reason == "not to be routed"
    assert both.one(arp(eth_dst=MAC)[:12] + b"\x12\x34" + bytes(46)).reason == "not IP"


def test_frames_to_others_pass_as_they_are() -> None:
    both = router()
    for frame in (udp(), udp("fd00::5", "fd01::1"), arp(), tcp(vlan=(5,), eth_dst=MAC)):
        outcome = both.one(frame)
        assert (outcome.verdict, outcome.frame) == (nf.PASS, frame)


# ---------------------------------------------------------------- neighbours
def test_arp_is_answered_and_heard() -> None:
    both = router()
    outcome = both.one(arp("10.0.0.5", OWN, sender_mac=GUEST, eth_src=GUEST), port=4)
    wanted = Ether(src=MAC, dst=GUEST) / ARP(
        op="is-at", hwsrc=MAC, psrc=OWN, hwdst=GUEST, pdst="10.0.0.5")
    assert (outcome.verdict, outcome.frame) == (nf.REPLY, bytes(wanted).ljust(60, b"\0"))
    packet = udp("10.0.0.9", "10.0.0.5", eth_dst=MAC)
    outcome = both.one(packet)
    assert outcome.verdict == nf.REDIRECT(4)
    assert outcome.frame[:12] == bytes.fromhex("020000000001 0200000000fe")
    assert both.one(packet, now=61 * 10**9).frame[12:14] == b"\x08\x06"  # forgotten: asked again


def test_an_unknown_neighbour_is_asked_for() -> None:
    both = router()
    outcome = both.one(udp("10.0.0.5", "10.0.0.9", data=bytes(500), eth_dst=MAC))
    wanted = Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op="who-has", hwsrc=MAC, psrc=OWN, hwdst="00:00:00:00:00:00", pdst="10.0.0.9")
    assert (outcome.verdict, outcome.frame) == (nf.PASS, bytes(wanted).ljust(60, b"\0"))
    reply = arp("10.0.0.9", OWN, op=2, sender_mac="02:00:00:00:00:09", eth_dst=MAC)
    assert both.one(reply, port=7).verdict == nf.DROP("to the router")
    assert both.one(udp("10.0.0.5", "10.0.0.9", eth_dst=MAC)).verdict == nf.REDIRECT(7)
    assert both.value("asked") == 1


def test_what_the_router_itself_says_and_groups_say_is_not_heard() -> None:
    both = router()
    own = arp(OWN, OWN, op=1)
    assert both.one(own).frame == own
    both.one(arp("10.0.0.9", OWN, sender_mac="03:00:00:00:00:09"))
    both.one(arp("0.0.0.0", OWN))
    assert both.one(udp("10.0.0.5", "10.0.0.9", eth_dst=MAC)).frame[12:14] == b"\x08\x06"


def test_neighbour_solicitations_are_answered_and_heard() -> None:
    both = router()
    question = Ether(src=GUEST, dst="33:33:ff:00:00:fe") / IPv6(
        src="fd00::5", dst="ff02::1:ff00:fe", hlim=255) / ICMPv6ND_NS(tgt=OWN6)
    wanted = Ether(src=MAC, dst=GUEST) / IPv6(src=OWN6, dst="fd00::5", hlim=255) / ICMPv6ND_NA(
        R=1, S=1, O=1, tgt=OWN6) / ICMPv6NDOptDstLLAddr(lladdr=MAC)
    outcome = both.one(bytes(question / ICMPv6NDOptSrcLLAddr(lladdr=GUEST)), port=4)
    assert (outcome.verdict, outcome.frame) == (nf.REPLY, bytes(wanted))
    assert both.one(udp("fd00::9", "fd00::5", eth_dst=MAC)).verdict == nf.REDIRECT(4)
    unknown = Ether(bytes(question))
    unknown[IPv6].src = "::"
    wanted = Ether(src=MAC, dst="33:33:00:00:00:01") / IPv6(src=OWN6, dst="ff02::1", hlim=255) \
        / ICMPv6ND_NA(R=1, S=0, O=1, tgt=OWN6) / ICMPv6NDOptDstLLAddr(lladdr=MAC)
    del unknown[ICMPv6ND_NS].cksum
    assert both.one(bytes(unknown)).frame == bytes(wanted)
    question[IPv6].hlim = 64  # from beyond a router
    far = bytes(question)
    assert both.one(far).frame == far


def test_an_unknown_neighbour_is_solicited() -> None:
    both = router()
    outcome = both.one(tcp("fd00::5", "fd00::12:3456", data=bytes(500), eth_dst=MAC))
    wanted = Ether(src=MAC, dst="33:33:ff:12:34:56") / IPv6(
        src=OWN6, dst="ff02::1:ff12:3456", hlim=255) / ICMPv6ND_NS(
        tgt="fd00::12:3456") / ICMPv6NDOptSrcLLAddr(lladdr=MAC)
    assert (outcome.verdict, outcome.frame) == (nf.PASS, bytes(wanted))
    answer = Ether(src="02:00:00:00:00:09", dst=MAC) / IPv6(
        src="fd00::12:3456", dst=OWN6, hlim=255) / ICMPv6ND_NA(
        tgt="fd00::12:3456") / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:09")
    assert both.one(bytes(answer), port=7).verdict == nf.DROP("to the router")
    assert both.one(tcp("fd00::5", "fd00::12:3456", eth_dst=MAC)).verdict == nf.REDIRECT(7)


# ---------------------------------------------------------------- the router's own
def test_pings_are_answered() -> None:
    both = router()
    outcome = both.one(icmp("10.0.0.5", OWN, eth_dst=MAC, eth_src=GUEST, ttl=9))
    made = Ether(icmp(OWN, "10.0.0.5", 0, eth_dst=GUEST, eth_src=MAC))
    assert (outcome.verdict, outcome.frame) == (nf.REPLY, bytes(made))
    outcome = both.one(icmpv6("fd00::5", OWN6, eth_dst=MAC, eth_src=GUEST))
    made = Ether(src=MAC, dst=GUEST) / IPv6(src=OWN6, dst="fd00::5", hlim=64) / ICMPv6EchoReply(
        id=1, seq=1, data=b"byway")
    assert outcome.frame == bytes(made)
    assert both.one(icmp("10.0.0.5", OWN, 13, eth_dst=MAC)).verdict == nf.DROP("to the router")


def test_without_an_address_of_its_own_it_sends_no_errors() -> None:
    both = Both(Router, mac=MAC)
    assert both.one(udp(eth_dst=MAC)).verdict == nf.DROP("no error about it")
    assert both.one(udp("fd00::1", "fd00::2", eth_dst=MAC)).verdict == nf.DROP("no error about it")


def test_any_frame_fares_the_same_both_ways() -> None:
    both = router()
    for k, frame in enumerate(generated(frames_wanted(), seed=8)):
        to = bytes.fromhex(MAC.replace(":", "")) if k % 2 else frame[:6]
        outcome = both.one(to + frame[6:], now=k * 10**6)
        assert outcome.fault is None
