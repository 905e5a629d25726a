# SPDX-License-Identifier: Apache-2.0
"""ARP and neighbour discovery as the responder has them: RFC 826, 3927, 4861, 4862, 5227, 5798.

Messages are made and read by scapy, which knows nothing of ours.
"""

import ipaddress
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.responder import Responder
from byway.testing.guarding_kernels import respond
from tests.staging import Outcome, Place, mapped

ASKER, OWNER = "02:00:00:00:00:01", "02:00:00:00:00:02"
ALL = "ff:ff:ff:ff:ff:ff"
OWN_PORT, OTHER_PORT = 1, 2


def number(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


class Answering(Place):
    """A place with a responder, where OWNER has 10.0.0.2 and fd00::2."""

    def __init__(self) -> None:
        super().__init__()
        self.responder = Responder(self.population)
        for ip in ("10.0.0.2", "fd00::2"):
            self.population.set_ip(self.number, mapped(ip), number(OWNER))

    def ask(self, message: Ether, origin: int = OWN_PORT) -> Outcome:
        frame = bytes(message)
        outcome, = self.run(respond, self.responder, [frame.ljust(60, b"\0")], origin)
        return outcome


@pytest.fixture
def place() -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def arp(target: str = "10.0.0.2", sender: str = "10.0.0.1", to: str = ALL, **fields: object
        ) -> Ether:
    return Ether(src=ASKER, dst=to) / ARP(
        **{"op": 1, "hwsrc": ASKER, "psrc": sender, "hwdst": "00:00:00:00:00:00", "pdst": target,
           **fields})


def solicit(target: str = "fd00::2", source: str = "fd00::1", option: bool = True,
            to: str | None = None, hop: int = 255, mac: str = ASKER) -> Ether:
    low = int(ipaddress.ip_address(target)) & 0xFFFFFF
    group = str(ipaddress.ip_address(int(ipaddress.ip_address("ff02::1:ff00:0")) | low))
    message = Ether(src=mac, dst=to or "33:33:ff:" + low.to_bytes(3, "big").hex(":"))
    message /= IPv6(src=source, dst=target if to else group, hlim=hop) / ICMPv6ND_NS(tgt=target)
    return message / ICMPv6NDOptSrcLLAddr(lladdr=mac) if option else message


# ---------------------------------------------------------------- ARP
def test_the_reply(place: Answering) -> None:
    """RFC 826, Packet Reception: swap hardware and protocol fields, op ares_op$REPLY, to whom
    asked; at that port and no other."""
    outcome = place.ask(arp())
    assert outcome.out == OWN_PORT
    assert len(outcome.frame) == 60
    reply = Ether(outcome.frame)
    assert (reply.dst, reply.src, reply.type) == (ASKER, OWNER, 0x0806)
    assert bytes(reply[ARP])[:8] == bytes.fromhex("0001 0800 06 04 0002")
    assert (reply.hwsrc, reply.psrc, reply.hwdst, reply.pdst) == (
        OWNER, "10.0.0.2", ASKER, "10.0.0.1")
    assert outcome.frame[42:] == bytes(18), "padding"
    assert place.responder.statistics() == {"arp": 1, "nd": 0, "unknown": 0, "own": 0}


def test_what_nobody_is_known_to_have_is_asked_on(place: Answering) -> None:
    request = arp("10.0.0.3")
    outcome = place.ask(request)
    assert (outcome.out, outcome.reason) == (None, None)
    assert outcome.frame == bytes(request).ljust(60, b"\0")
    assert place.responder.statistics()["unknown"] == 1


def test_another_network_is_another_world(place: Answering) -> None:
    place.population.set_ip(place.number + 1, mapped("10.0.0.9"), number(OWNER))
    assert place.ask(arp("10.0.0.9")).out is None


def test_a_probe_is_answered_where_somebody_else_has_the_address(place: Answering) -> None:
    """RFC 5227, 2.1.1: sender IP 0; any reply says that the address is taken."""
    reply = Ether(place.ask(arp(sender="0.0.0.0")).frame)
    assert (reply.op, reply.hwsrc, reply.psrc, reply.pdst) == (2, OWNER, "10.0.0.2", "0.0.0.0")


def test_the_owners_own_probe_is_not_answered(place: Answering) -> None:
    """RFC 5227, 2.1.1: a reply would make it give up its own address."""
    place.population.set_ip(place.number, mapped("10.0.0.1"), number(ASKER))
    assert place.ask(arp("10.0.0.1", sender="0.0.0.0")).out is None
    assert place.responder.statistics()["own"] == 1


def test_a_virtual_routers_own_port_is_not_answered(place: Answering) -> None:
    """RFC 5798, 7.3: the address belongs to the virtual MAC, which this port has as well."""
    virtual = 0x00005E000101
    place.population.set_ip(place.number, mapped("10.0.0.100"), virtual)
    place.learn(virtual, OWN_PORT)
    assert place.ask(arp("10.0.0.100", sender="0.0.0.0")).out is None
    assert place.ask(arp("10.0.0.100"), origin=OTHER_PORT).out == OTHER_PORT
    place.learn(virtual, OTHER_PORT)  # the other router is master now
    assert place.ask(arp("10.0.0.100")).out == OWN_PORT


def test_an_announcement_is_not_answered(place: Answering) -> None:
    """RFC 5227, 2.3: sender and target IP are the same, op request; RFC 5944, 4.6: or reply."""
    assert place.ask(arp("10.0.0.2", sender="10.0.0.2")).out is None
    assert place.ask(arp("10.0.0.2", sender="10.0.0.2", op=2)).out is None
    assert place.ask(arp("10.0.0.2", op=2)).out is None


def test_a_unicast_request_asks_its_target_alone(place: Answering) -> None:
    """RFC 1122, 2.3.2.1 (unicast poll): is this station still there?"""
    assert place.ask(arp(to=OWNER)).out is None


def test_link_local_addresses_defend_themselves(place: Answering) -> None:
    """RFC 3927, 2.5: their ARP replies are broadcast, so that conflicts show."""
    place.population.set_ip(place.number, mapped("169.254.7.7"), number(OWNER))
    assert place.ask(arp("169.254.7.7")).out is None


@pytest.mark.parametrize("fields", [
    {"hwtype": 6}, {"ptype": 0x86DD}, {"hwlen": 8}, {"plen": 16}, {"op": 3}, {"op": 8}, {"op": 0}])
def test_other_hardware_protocols_and_operations(place: Answering, fields: dict[str, int]) -> None:
    """RFC 826: "?Do I have the hardware type", "?Do I speak the protocol", and their lengths."""
    assert place.ask(arp(**fields)).out is None


def test_a_short_message_is_none(place: Answering) -> None:
    frame = bytes(arp())[:41]
    outcome, = place.run(respond, place.responder, [frame])
    assert outcome == Outcome(None, None, frame)


def test_tagged_messages_are_of_another_segment(place: Answering) -> None:
    message = arp()
    tagged = Ether(src=ASKER, dst=ALL) / Dot1Q(vlan=7) / message[ARP]
    assert place.ask(tagged).out is None


@pytest.mark.parametrize("ip", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
def test_addresses_that_are_no_stations(place: Answering, ip: str) -> None:
    """RFC 1122, 3.2.1.3."""
    place.population.set_ip(place.number, mapped(ip), number(OWNER))
    assert place.ask(arp(ip)).out is None


def test_what_came_out_of_a_tunnel_is_not_answered(place: Answering) -> None:
    assert place.ask(arp(), origin=FIRST_TUNNEL).out is None
    assert place.ask(solicit(), origin=FIRST_TUNNEL).out is None


# ---------------------------------------------------------------- neighbour discovery
def test_the_advertisement(place: Answering) -> None:
    """RFC 4861, 7.2.4 and 4.4: to who solicited, S and O set, target link-layer address; 4.4: hop
    limit 255."""
    outcome = place.ask(solicit())
    assert outcome.out == OWN_PORT
    reply = Ether(outcome.frame)
    assert (reply.dst, reply.src) == (ASKER, OWNER)
    ip, message = reply[IPv6], reply[ICMPv6ND_NA]
    assert (ip.src, ip.dst, ip.hlim, ip.plen, ip.nh) == ("fd00::2", "fd00::1", 255, 32, 58)
    assert (message.R, message.S, message.O, message.tgt) == (0, 1, 1, "fd00::2")
    assert reply[ICMPv6NDOptDstLLAddr].lladdr == OWNER
    assert len(outcome.frame) == 14 + 40 + 32
    check = Ether(outcome.frame)
    del check[ICMPv6ND_NA].cksum
    assert bytes(check) == outcome.frame, "the checksum is scapy's"
    assert place.responder.statistics() == {"arp": 0, "nd": 1, "unknown": 0, "own": 0}


def test_a_solicitation_without_option(place: Answering) -> None:
    """RFC 4861, 4.3: the option may be left out; then the frame says who asked."""
    assert Ether(place.ask(solicit(option=False)).frame).dst == ASKER


def test_duplicate_address_detection_by_somebody_else(place: Answering) -> None:
    """RFC 4861, 7.2.4: source unspecified: to all nodes, S clear; RFC 4862, 5.4.4."""
    reply = Ether(place.ask(solicit(source="::", option=False)).frame)
    assert (reply.dst, reply[IPv6].dst) == ("33:33:00:00:00:01", "ff02::1")
    assert (reply[ICMPv6ND_NA].S, reply[ICMPv6ND_NA].O) == (0, 1)


def test_the_owners_own_detection_is_not_answered(place: Answering) -> None:
    """RFC 4862, 5.4.4: an advertisement would make it give up its own address."""
    assert place.ask(solicit(source="::", option=False, mac=OWNER)).out is None
    assert place.responder.statistics()["own"] == 1


NONCE = Raw(bytes.fromhex("0e01 112233445566"))


def test_enhanced_detection(place: Answering) -> None:
    """RFC 7527, 4.1: a nonce in the solicitation, which changes nothing for who is asked."""
    probe = solicit(source="::", option=False)
    reply = Ether(place.ask(probe / NONCE).frame)
    assert (reply[IPv6].dst, reply[ICMPv6ND_NA].S, reply[ICMPv6ND_NA].tgt) == (
        "ff02::1", 0, "fd00::2")
    own = solicit(source="::", option=False, mac=OWNER)
    outcome = place.ask(own / NONCE)
    assert (outcome.out, outcome.frame) == (None, bytes(own / NONCE)), "4.2: its owner's, as it is"


def test_a_unicast_solicitation_asks_its_target_alone(place: Answering) -> None:
    """RFC 4861, 7.3.3: neighbour unreachability detection."""
    assert place.ask(solicit(to=OWNER)).out is None


def test_link_local_targets_answer_themselves(place: Answering) -> None:
    """RFC 4861, 7.2.5: who says R=0 for a router takes away its neighbours' default route."""
    place.population.set_ip(place.number, mapped("fe80::2"), number(OWNER))
    assert place.ask(solicit("fe80::2")).out is None


@pytest.mark.parametrize("target", ["ff02::1", "::1", "::ffff:10.0.0.2", "::"])
def test_targets_that_are_no_stations(place: Answering, target: str) -> None:
    """RFC 4861, 7.1.1: no multicast; RFC 4291, 2.5: neither loopback nor IPv4 in disguise."""
    place.population.set_ip(place.number, mapped(target), number(OWNER))
    assert place.ask(solicit(target)).out is None


def test_the_hop_limit_is_255(place: Answering) -> None:
    """RFC 4861, 7.1.1: else it may have come through a router."""
    assert place.ask(solicit(hop=254)).out is None


def test_the_code_is_0(place: Answering) -> None:
    """RFC 4861, 7.1.1."""
    message = solicit()
    message[ICMPv6ND_NS].code = 1
    assert place.ask(message).out is None


def test_the_checksum_is_right(place: Answering) -> None:
    """RFC 4861, 7.1.1; one that its sender left to do is (VIRTIO 1.2, 5.1.6.2)."""
    message = solicit()
    message[ICMPv6ND_NS].cksum = 0x1234
    assert place.ask(message).out is None
    outcome, = place.run(respond, place.responder, [bytes(message)], offload=1)
    assert outcome.out == OWN_PORT


def test_detection_is_sent_to_the_solicited_nodes(place: Answering) -> None:
    """RFC 4861, 7.1.1: source unspecified: destination a solicited-node address, and no option."""
    wrong_group, option = solicit(source="::", option=False), solicit(source="::")
    wrong_group[IPv6].dst = "ff02::1"
    assert place.ask(wrong_group).out is None
    assert place.ask(option).out is None


@pytest.mark.parametrize("options", [
    "0100 020000000001", "0103 020000000001", "0101 020000000001 0e00 000000000000", "0101"])
def test_options_are_whole(place: Answering, options: str) -> None:
    """RFC 4861, 7.1.1: their length is greater than zero (4.6), and they end in the message."""
    message = Ether(src=ASKER, dst="33:33:ff:00:00:02") / IPv6(
        src="fd00::1", dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt="fd00::2") / bytes.fromhex(
            options)
    assert place.ask(message).out is None


def test_a_message_that_is_cut_off(place: Answering) -> None:
    whole = bytes(solicit())
    for n in range(14, len(whole)):
        outcome, = place.run(respond, place.responder, [whole[:n]])
        assert outcome == Outcome(None, None, whole[:n])


def test_extension_headers_are_not_answered(place: Answering) -> None:
    message = solicit()
    hidden = Ether(src=ASKER, dst="33:33:ff:00:00:02") / IPv6(
        src="fd00::1", dst="ff02::1:ff00:2", hlim=255) / IPv6ExtHdrHopByHop() / message[ICMPv6ND_NS]
    assert place.ask(hidden).out is None


def test_other_frames_are_left_alone(place: Answering) -> None:
    for message in (Ether(src=ASKER, dst=ALL) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(),
                    Ether(src=ASKER, dst=OWNER) / IPv6(src="fd00::1", dst="fd00::2") / UDP(),
                    Ether(src=ASKER, dst=ALL, type=0x8035) / bytes(28)):
        assert place.ask(message).out is None
