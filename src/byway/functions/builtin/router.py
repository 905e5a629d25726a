# SPDX-License-Identifier: Apache-2.0
"""``byway.router``: takes IPv4 and IPv6 packets on by a table of routes.

A built-in network function, written on the author's page (byway.nf) alone. Uses router_messages.py,
which makes what the router itself sends.

Theory of operation
-------------------
What is sent to the router's MAC address is routed: the longest prefix in ``routes`` that holds the
destination gives the number of a hop. Hop 0 is the destination itself; any other is found in
``hops`` and has the address of the next router. That address is looked up in ``neighbours``, which
is filled from outside, then among those heard by ARP or neighbour discovery. A neighbour that was
heard is where it was heard (its port); one that was told is where its MAC address is, in the
network at hand. Where nobody knows the neighbour, the packet becomes the request for its MAC
address, to everybody, and is lost (as RFC 1122, 2.3.2.2 allows but does not like).

The router answers ARP, neighbour solicitations and echo requests for its own addresses. ICMP errors
(RFC 792, RFC 4443) tell senders of packets whose time has run out, that fit no route, or are longer
than the MTU. None is sent about an ICMP error, about a fragment but the first, to what is no single
station's address, or more often than ``errors`` a second.

By the book: source-routed packets are not routed, nor loopback, link-local, multicast and reserved
addresses (RFC 1812, 5.2.2 and 5.3.7; RFC 4291, 2.5.6); an IPv4 header with a wrong checksum is
dropped. Routers make no fragments here: a packet over the MTU is answered in IPv4, too. Frames with
VLAN tags are not routed.
"""

from typing import Annotated

from byway import nf
from byway.functions.builtin.router_messages import (
    ECHO,
    ECHO6,
    EXPIRED,
    EXPIRED6,
    NO_ROUTE,
    NO_ROUTE6,
    PORT_UNREACHABLE,
    PORT_UNREACHABLE6,
    PROTOCOL_UNREACHABLE,
    TOO_BIG,
    TOO_BIG6,
    advertise,
    answer_arp,
    ask_arp,
    ask_nd,
    echo_reply,
    has_good_header,
    is_routable,
    is_routable6,
    link_layer_option,
    may_be_about,
    write_error,
    write_error6,
)

SOLICITATION, ADVERTISEMENT = 135, 136  # RFC 4861, 4.3 and 4.4
ARP_REQUEST, ARP_REPLY = 1, 2
ANY_SOURCE = nf.IPv6("::")
AT_HAND = 0  # the hop that is the destination itself


@nf.function
class Router:
    """Route IPv4 and IPv6 by prefix, with TTL, neighbours and ICMP errors."""

    mac: nf.Mac = nf.Mac("02:00:00:00:00:fe")
    address: nf.IPv4 = nf.IPv4("0.0.0.0")
    address6: nf.IPv6 = nf.IPv6("::")
    mtu: Annotated[int, nf.Range(576, 65535)] = 1500
    errors: Annotated[int, nf.Range(0, 1_000_000)] = 100  # ICMP errors a second
    heard_for: nf.Seconds = nf.Seconds(60)

    routes = nf.Lpm(key="ipv4", value="u32", capacity=65536)
    routes6 = nf.Lpm(key="ipv6", value="u32", capacity=65536)
    hops = nf.Map(key="u32", value={"via": "ipv4", "via6": "ipv6"}, capacity=1024)
    neighbours = nf.Map(key="ipv4", value="mac", capacity=16384)
    neighbours6 = nf.Map(key="ipv6", value="mac", capacity=16384)
    heard = nf.Map(key="ipv4", value={"mac": "mac", "port": "u32"}, capacity=16384,
                   age="heard_for")
    heard6 = nf.Map(key="ipv6", value={"mac": "mac", "port": "u32"}, capacity=16384,
                    age="heard_for")
    sent = nf.Bucket()

    routed = nf.Counter()
    expired = nf.Counter()
    no_route = nf.Counter()
    too_big = nf.Counter()
    asked = nf.Counter()

    def process(self, frame):
        if frame.has_vlan:
            return nf.PASS
        if frame.is_arp:
            return self.arp(frame)
        if frame.is_icmpv6 and frame.ip_ttl == 255 and frame.icmp_code == 0:
            if frame.icmp_type == SOLICITATION and self.is_asked_for(frame):
                return self.solicited(frame)
            if frame.icmp_type == ADVERTISEMENT and frame.eth_dst == self.mac:
                self.hear6(frame, target(frame), 2)
                return nf.DROP("to the router")
        if frame.eth_dst != self.mac:
            return nf.PASS
        if frame.is_ipv4:
            return self.ipv4(frame)
        if frame.is_ipv6:
            return self.ipv6(frame)
        return nf.DROP("not IP")

    # ------------------------------------------------------------ neighbours
    def arp(self, frame):
        """ARP for the router's address (RFC 826)."""
        if self.address == 0 or frame.arp_target_ip != self.address:
            return nf.PASS
        if frame.arp_sender_ip == self.address:
            return nf.PASS
        if frame.arp_sender_ip != 0 and frame.arp_sender_mac >> 40 & 1 == 0:
            self.heard.delete(frame.arp_sender_ip)
            entry = self.heard.make(frame.arp_sender_ip)
            entry.mac = frame.arp_sender_mac
            entry.port = frame.port
        if frame.arp_op == ARP_REQUEST:
            answer_arp(frame, self.mac, self.address)
            return nf.REPLY
        if frame.arp_op == ARP_REPLY and frame.eth_dst == self.mac:
            return nf.DROP("to the router")
        return nf.PASS

    def is_asked_for(self, frame):
        """Is a neighbour solicitation for the router's address?"""
        return (self.address6 != ANY_SOURCE
                and frame.l4_offset == frame.l3_offset + 40
                and target(frame) == self.address6)

    def solicited(self, frame):
        """A neighbour solicitation for the router's address (RFC 4861, 7.2.3 and 7.2.4)."""
        if frame.ipv6_src != ANY_SOURCE:
            self.hear6(frame, frame.ipv6_src, 1)
        advertise(frame, self.mac, self.address6)
        return nf.REPLY

    def hear6(self, frame, address, option):
        """Note what the link-layer option of neighbour discovery says of an address."""
        mac = link_layer_option(frame, option)
        if mac == 0 or mac >> 40 & 1 == 1:
            return
        self.heard6.delete(address)
        entry = self.heard6.make(address)
        entry.mac = mac
        entry.port = frame.port

    # ------------------------------------------------------------ packets
    def ipv4(self, frame):
        """An IPv4 packet to the router's MAC address."""
        if not has_good_header(frame):
            return nf.DROP("malformed")
        if not is_routable(frame):
            return nf.DROP("not to be routed")
        if frame.ipv4_dst == self.address:
            return self.local(frame)
        number = self.routes.lookup(frame.ipv4_dst)
        via = frame.ipv4_dst
        if number > AT_HAND:
            via = self.hops.find(number).via
        if number < 0 or via == 0:
            self.no_route.add()
            return self.error(frame, NO_ROUTE, 0)
        if frame.ip_ttl <= 1:
            self.expired.add()
            return self.error(frame, EXPIRED, 0)
        if frame.ipv4_length > self.mtu and not frame.is_gso:
            self.too_big.add()
            return self.error(frame, TOO_BIG, self.mtu)
        told = self.neighbours.get(via)
        if told != 0:
            return self.hand_on(frame, told, -1)
        entry = self.heard.find(via)
        if entry:
            return self.hand_on(frame, entry.mac, entry.port)
        self.asked.add()
        ask_arp(frame, self.mac, self.address, via)
        return nf.PASS

    def ipv6(self, frame):
        """An IPv6 packet to the router's MAC address."""
        if not is_routable6(frame):
            return nf.DROP("not to be routed")
        if frame.ipv6_dst == self.address6:
            return self.local6(frame)
        number = self.routes6.lookup(frame.ipv6_dst)
        via = frame.ipv6_dst
        if number > AT_HAND:
            via = self.hops.find(number).via6
        if number < 0 or via == ANY_SOURCE:
            self.no_route.add()
            return self.error6(frame, NO_ROUTE6, 0)
        if frame.ip_ttl <= 1:
            self.expired.add()
            return self.error6(frame, EXPIRED6, 0)
        if frame.length - frame.l3_offset > self.mtu and not frame.is_gso:
            self.too_big.add()
            return self.error6(frame, TOO_BIG6, self.mtu)
        told = self.neighbours6.get(via)
        if told != 0:
            return self.hand_on(frame, told, -1)
        entry = self.heard6.find(via)
        if entry:
            return self.hand_on(frame, entry.mac, entry.port)
        self.asked.add()
        ask_nd(frame, self.mac, self.address6, via)
        return nf.PASS

    def hand_on(self, frame, mac, port):
        """The packet goes to its next hop, with one hop less to live."""
        frame.ip_ttl = frame.ip_ttl - 1
        frame.eth_src = self.mac
        frame.eth_dst = mac
        self.routed.add()
        if port >= 0:
            return nf.REDIRECT(port)
        return nf.PASS

    # ------------------------------------------------------------ the router's own
    def local(self, frame):
        """An IPv4 packet to the router itself: echo requests are answered."""
        if frame.is_fragment:
            return nf.DROP("to the router")
        if frame.is_icmp:
            if frame.icmp_type != ECHO or frame.icmp_code != 0:
                return nf.DROP("to the router")
            echo_reply(frame, self.mac)
            return nf.REPLY
        if frame.is_tcp or frame.is_udp:
            return self.error(frame, PORT_UNREACHABLE, 0)
        return self.error(frame, PROTOCOL_UNREACHABLE, 0)

    def local6(self, frame):
        """As ``local``, for IPv6."""
        if frame.is_icmpv6 and not frame.is_fragment:
            if frame.icmp_type != ECHO6 or frame.icmp_code != 0:
                return nf.DROP("to the router")
            echo_reply(frame, self.mac)
            return nf.REPLY
        if frame.is_tcp or frame.is_udp:
            return self.error6(frame, PORT_UNREACHABLE6, 0)
        return nf.DROP("to the router")

    def error(self, frame, kind, word):
        """The packet becomes an ICMP error about itself, where there may be one."""
        if self.address == 0 or not may_be_about(frame):
            return nf.DROP("no error about it")
        if not self.sent.take(1, self.errors, self.errors):
            return nf.DROP("too many errors")
        write_error(frame, self.mac, self.address, kind, word)
        return nf.REPLY

    def error6(self, frame, kind, word):
        """As ``error``, for ICMPv6."""
        if self.address6 == ANY_SOURCE or not may_be_about(frame):
            return nf.DROP("no error about it")
        if not self.sent.take(1, self.errors, self.errors):
            return nf.DROP("too many errors")
        write_error6(frame, self.mac, self.address6, kind, word)
        return nf.REPLY


def target(frame):
    """The target of a neighbour message."""
    at = frame.l4_offset + 8
    return nf.wide(frame.u32(at) << 32 | frame.u32(at + 4),
                   frame.u32(at + 8) << 32 | frame.u32(at + 12))
