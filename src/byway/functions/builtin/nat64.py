# SPDX-License-Identifier: Apache-2.0
"""``byway.nat64``: stateless translation between IPv6 and IPv4 (RFC 7915, RFC 6052, RFC 7757).

A built-in network function, written on the author's page (byway.nf) alone. Uses nat64_icmp.py for
what differs between ICMP and ICMPv6.

Theory of operation
-------------------
Each IPv4 address has an IPv6 address: the /96 prefix, then its 32 bits (RFC 6052, 2.2); or the one
that ``pairs4`` says, and ``pairs6`` turned round (RFC 7757), both filled from outside. IPv6 packets
for the prefix become IPv4; IPv4 packets for the addresses that IPv6 hosts have (``hosts``, and
those in ``pairs4``) become IPv6. Nothing is remembered but that, so any number of switches do the
same.

The header is replaced, and the transport's checksum follows the change of addresses. Only ICMP's is
made anew, which covers a pseudo-header in IPv6; so ICMP does not go through in fragments, as RFC
7915, 1.2 has it. Of an ICMP error the header of the quoted packet is translated, too; the
transport's checksum in there is left alone. IPv6's extension headers but the fragment header and
IPv4's options end here; what a source route leads on is dropped.

Time to live is not counted down: whoever routes the result does. Nor is anything cut: a result over
the MTU of its way meets a router, whose ICMP error comes back translated.
"""

from byway import nf
from byway.functions.builtin.nat64_icmp import (
    ECHO6,
    ECHO6_REPLY,
    NOTHING,
    ONE_TO_ONE,
    icmp4_of,
    icmp6_of,
    mtu4_of,
    mtu6_of,
    word4_of,
    word6_of,
)

ICMP, ICMPV6 = 1, 58
IPV4, IPV6 = 0x0800, 0x86DD
ROUTING, FRAGMENT, OPTIONS, HIDDEN = 43, 44, 60, 255
HEADER4, HEADER6, ICMP_HEADER = 20, 40, 8
SMALL = 1260  # an IPv4 packet up to here may be fragmented on its way (RFC 7915, 5.1)
LEAST_MTU6 = 1280
LOOSE_ROUTE, STRICT_ROUTE = 131, 137


@nf.function
class Nat64:
    """Translate between IPv6 hosts and IPv4 by prefix."""

    prefix: nf.IPv6 = nf.IPv6("64:ff9b::")  # a /96: the last 32 bits are the IPv4 address
    hosts: nf.Prefix4 = nf.Prefix4("192.0.2.0/24")  # IPv4 addresses of IPv6 hosts

    pairs6 = nf.Map(key="ipv6", value="ipv4", capacity=16384)
    pairs4 = nf.Map(key="ipv4", value={"ip": "ipv6"}, capacity=16384)

    to_ipv4 = nf.Counter()
    to_ipv6 = nf.Counter()

    def process(self, frame):
        """Translate what is for the other side."""
        if frame.is_ipv6:
            if self.is_embedded(frame.ipv6_dst):
                return self.ipv6(frame)
        elif frame.is_ipv4:
            if frame.ipv4_dst in self.hosts or frame.ipv4_dst in self.pairs4:
                return self.ipv4(frame)
        return nf.PASS

    # ------------------------------------------------------------ addresses
    def is_embedded(self, address):
        """Is an IPv6 address one of the prefix?"""
        return (nf.high(address) == nf.high(self.prefix)
                and nf.low(address) >> 32 == nf.low(self.prefix) >> 32)

    def address4(self, address):
        """The IPv4 address of an IPv6 address; 0: it has none."""
        known = self.pairs6.get(address)
        if known == 0 and self.is_embedded(address):
            known = nf.low(address) & 0xFFFFFFFF
        return known

    def address6(self, address):
        """The IPv6 address of an IPv4 address."""
        pair = self.pairs4.find(address)
        if pair:
            return pair.ip
        return nf.wide(nf.high(self.prefix), nf.low(self.prefix) | address)

    # ------------------------------------------------------------ from IPv6 to IPv4
    def ipv6(self, frame):
        """An IPv6 packet becomes IPv4 (RFC 7915, 5)."""
        if frame.ip_protocol == HIDDEN or is_routed(frame):
            return nf.DROP("extension headers")
        src = self.address4(frame.ipv6_src)
        dst = self.address4(frame.ipv6_dst)
        if src == 0 or dst == 0:
            return nf.DROP("address without IPv4")
        if frame.ip_protocol == ICMP:
            return nf.DROP("protocol")
        if frame.ip_protocol == ICMPV6:
            return self.icmp6(frame, src, dst)
        l3 = frame.l3_offset
        first = frame.u32(l3) >> 20 & 0xFF
        hops = frame.ip_ttl
        protocol = frame.ip_protocol
        number = 0
        offset = 0
        fragment = frame.is_fragment
        if fragment:
            at = fragment_header(frame)
            number = frame.u16(at + 6)
            offset = frame.u16(at + 2) >> 3 | (frame.u16(at + 2) & 1) << 13
        if not frame.replace_l3(frame.l4_offset - l3, HEADER4, IPV4):
            return nf.DROP("cannot be translated")
        if not fragment:
            offset = 0x4000
            if frame.length - l3 <= SMALL and not frame.is_gso:
                offset = 0
                number = nf.random(0x10000)
        self.header4(frame, l3, first, frame.length - l3, number, offset, hops << 8 | protocol)
        frame.ipv4_src = src
        frame.ipv4_dst = dst
        self.to_ipv4.add()
        return nf.PASS

    def header4(self, frame, at, traffic, length, number, offset, last):
        """Write an IPv4 header but its addresses, with the checksum of this much."""
        frame.set_u32(at, 0x45000000 | traffic << 16 | length & 0xFFFF)
        frame.set_u32(at + 4, number << 16 | offset)
        frame.set_u16(at + 8, last)
        total = 0
        for k in range(0, HEADER4, 2):
            total += frame.u16(at + k)
        total = (total >> 16) + (total & 0xFFFF)
        total = (total >> 16) + (total & 0xFFFF)
        frame.set_u16(at + 10, total ^ 0xFFFF)

    def icmp6(self, frame, src, dst):
        """An ICMPv6 message becomes ICMP (RFC 7915, 5.2)."""
        if frame.is_fragment or not frame.is_icmpv6:
            return nf.DROP("ICMP in fragments")
        said = icmp4_of(frame.icmp_type, frame.icmp_code)
        if said == NOTHING:
            return nf.DROP("ICMP without a counterpart")
        l3 = frame.l3_offset
        first = frame.u32(l3) >> 20 & 0xFF
        hops = frame.ip_ttl
        outer = frame.l4_offset - l3
        if said & ONE_TO_ONE:
            rest = frame.u32(frame.l4_offset + 4)
            if not frame.replace_l3(outer + ICMP_HEADER, HEADER4 + ICMP_HEADER, IPV4):
                return nf.DROP("cannot be translated")
        else:
            rest = word4_of(frame.icmp_type, frame.icmp_code, frame.u32(frame.l4_offset + 4))
            if rest < 0:
                return nf.DROP("ICMP without a counterpart")
            if frame.icmp_type == 2:
                rest = mtu4_of(frame.icmp_mtu)
            if not self.quoted6(frame, outer):
                return nf.DROP("quotes what has no IPv4")
        self.header4(frame, l3, first, frame.length - l3, nf.random(0x10000), 0, hops << 8 | ICMP)
        frame.ipv4_src = src
        frame.ipv4_dst = dst
        frame.set_u16(l3 + HEADER4, said & 0xFFFF)
        frame.set_u32(l3 + HEADER4 + 4, rest)
        frame.fix()
        self.to_ipv4.add()
        return nf.PASS

    def quoted6(self, frame, outer):
        """Make room for the headers of an ICMP error, and write the one of the quoted packet; ->
        could it be done?"""
        l3 = frame.l3_offset
        at = frame.l4_offset + ICMP_HEADER
        if not frame.quoted.is_ipv6:
            return False
        src = self.address4(frame.quoted.ipv6_src)
        dst = self.address4(frame.quoted.ipv6_dst)
        protocol = frame.quoted.ip_protocol
        if src == 0 or dst == 0 or protocol == HIDDEN or frame.quoted.is_fragment:
            return False
        first = frame.u32(at) >> 20 & 0xFF
        inner = frame.quoted.l4_offset - at
        length = frame.u16(at + 4) + HEADER6 - inner + HEADER4
        hops = frame.quoted.ip_ttl
        kind = frame.quoted.icmp_type
        is_icmp = frame.quoted.is_icmpv6
        if not frame.replace_l3(outer + ICMP_HEADER + inner, HEADER4 + ICMP_HEADER + HEADER4, IPV4):
            return False
        at = l3 + HEADER4 + ICMP_HEADER
        if protocol == ICMPV6:
            protocol = ICMP
            if is_icmp and kind == ECHO6:
                frame.set_u8(at + HEADER4, 8)
            elif is_icmp and kind == ECHO6_REPLY:
                frame.set_u8(at + HEADER4, 0)
        frame.set_u32(at + 12, src)
        frame.set_u32(at + 16, dst)
        self.header4(frame, at, first, length, 0, 0x4000, hops << 8 | protocol)
        return True

    # ------------------------------------------------------------ from IPv4 to IPv6
    def ipv4(self, frame):
        """An IPv4 packet becomes IPv6 (RFC 7915, 4)."""
        if has_source_route(frame):
            return nf.DROP("source route")
        if frame.ip_protocol == ICMP:
            return self.icmp4(frame)
        if frame.ip_protocol in (0, ROUTING, FRAGMENT, ICMPV6, OPTIONS):
            return nf.DROP("protocol")
        l3 = frame.l3_offset
        if frame.is_udp and frame.u16(frame.l4_offset + 6) == 0:
            if frame.is_fragment:
                return nf.DROP("UDP fragment without checksum")
        traffic = frame.u8(l3 + 1)
        hops = frame.ip_ttl
        protocol = frame.ip_protocol
        src = self.address6(frame.ipv4_src)
        dst = self.address6(frame.ipv4_dst)
        number = frame.ipv4_id
        offset = frame.u16(l3 + 6)
        bare = frame.is_udp and frame.u16(frame.l4_offset + 6) == 0
        size = HEADER6
        if frame.is_fragment:
            size = HEADER6 + 8
        if not frame.replace_l3(frame.l4_offset - l3, size, IPV6):
            return nf.DROP("cannot be translated")
        frame.set_u32(l3, 0x60000000 | traffic << 20)
        frame.set_u16(l3 + 4, frame.length - l3 - HEADER6)
        if size > HEADER6:
            frame.set_u16(l3 + 40, protocol << 8)
            frame.set_u16(l3 + 42, (offset & 0x1FFF) << 3 | offset >> 13 & 1)
            frame.set_u32(l3 + 44, number)
            protocol = FRAGMENT
        frame.set_u16(l3 + 6, protocol << 8 | hops)
        frame.ipv6_src = src
        frame.ipv6_dst = dst
        if bare:
            frame.fix()
        self.to_ipv6.add()
        return nf.PASS

    def icmp4(self, frame):
        """An ICMP message becomes ICMPv6 (RFC 7915, 4.2)."""
        if frame.is_fragment or not frame.is_icmp:
            return nf.DROP("ICMP in fragments")
        said = icmp6_of(frame.icmp_type, frame.icmp_code)
        if said == NOTHING:
            return nf.DROP("ICMP without a counterpart")
        l3 = frame.l3_offset
        traffic = frame.u8(l3 + 1)
        hops = frame.ip_ttl
        outer = frame.l4_offset - l3
        src = self.address6(frame.ipv4_src)
        dst = self.address6(frame.ipv4_dst)
        rest = frame.u32(frame.l4_offset + 4)
        if said & ONE_TO_ONE:
            if not frame.replace_l3(outer + ICMP_HEADER, HEADER6 + ICMP_HEADER, IPV6):
                return nf.DROP("cannot be translated")
        else:
            rest = word6_of(frame.icmp_type, frame.icmp_code, rest)
            if rest < 0:
                return nf.DROP("ICMP without a counterpart")
            if said >> 8 & 0xFF == 2:
                rest = mtu6_of(frame.icmp_mtu)
            if not self.quoted4(frame, outer):
                return nf.DROP("quotes what is not IPv4")
            if frame.length > l3 + LEAST_MTU6:
                frame.resize(l3 + LEAST_MTU6)
        frame.set_u32(l3, 0x60000000 | traffic << 20)
        frame.set_u16(l3 + 4, frame.length - l3 - HEADER6)
        frame.set_u16(l3 + 6, ICMPV6 << 8 | hops)
        frame.ipv6_src = src
        frame.ipv6_dst = dst
        frame.set_u16(l3 + HEADER6, said & 0xFFFF)
        frame.set_u32(l3 + HEADER6 + 4, rest)
        frame.fix()
        self.to_ipv6.add()
        return nf.PASS

    def quoted4(self, frame, outer):
        """As ``quoted6``, for IPv6."""
        l3 = frame.l3_offset
        at = frame.l4_offset + ICMP_HEADER
        if not frame.quoted.is_ipv4 or frame.quoted.is_fragment:
            return False
        inner = frame.quoted.l4_offset - at
        traffic = frame.u8(at + 1)
        length = frame.u16(at + 2) - inner
        hops = frame.quoted.ip_ttl
        protocol = frame.quoted.ip_protocol
        src = self.address6(frame.quoted.ipv4_src)
        dst = self.address6(frame.quoted.ipv4_dst)
        kind = frame.quoted.icmp_type
        is_icmp = frame.quoted.is_icmp
        if not frame.replace_l3(outer + ICMP_HEADER + inner, HEADER6 + ICMP_HEADER + HEADER6, IPV6):
            return False
        at = l3 + HEADER6 + ICMP_HEADER
        if protocol == ICMP:
            protocol = ICMPV6
            if is_icmp and kind == 8:
                frame.set_u8(at + HEADER6, ECHO6)
            elif is_icmp and kind == 0:
                frame.set_u8(at + HEADER6, ECHO6_REPLY)
        frame.set_u32(at, 0x60000000 | traffic << 20)
        frame.set_u32(at + 4, (length & 0xFFFF) << 16 | protocol << 8 | hops)
        write6(frame, at + 8, src)
        write6(frame, at + 24, dst)
        return True


# ---------------------------------------------------------------- bytes
def write6(frame, at, address):
    """Write an IPv6 address, as bytes."""
    frame.set_u32(at, nf.high(address) >> 32 & 0xFFFFFFFF)
    frame.set_u32(at + 4, nf.high(address) & 0xFFFFFFFF)
    frame.set_u32(at + 8, nf.low(address) >> 32 & 0xFFFFFFFF)
    frame.set_u32(at + 12, nf.low(address) & 0xFFFFFFFF)


def is_routed(frame):
    """Has an IPv6 packet a routing header that leads it on (RFC 8200, 4.4)?"""
    at = frame.l3_offset + HEADER6
    kind = frame.u8(frame.l3_offset + 6)
    while at < frame.l4_offset:
        if kind == ROUTING and frame.u8(at + 3) > 0:
            return True
        size = 8
        if kind != FRAGMENT:
            size = 8 * (frame.u8(at + 1) + 1)
        kind = frame.u8(at)
        at += size
    return False


def fragment_header(frame):
    """Where the fragment header of an IPv6 fragment begins."""
    at = frame.l3_offset + HEADER6
    kind = frame.u8(frame.l3_offset + 6)
    while at < frame.l4_offset and kind != FRAGMENT:
        kind = frame.u8(at)
        at += 8 * (frame.u8(at + 1) + 1)
    return at


def has_source_route(frame):
    """Has an IPv4 packet a source route that leads it on (RFC 791, 3.1)?"""
    at = frame.l3_offset + HEADER4
    end = frame.l4_offset
    while at < end:
        option = frame.u8(at)
        if option == LOOSE_ROUTE or option == STRICT_ROUTE:
            return frame.u8(at + 2) <= frame.u8(at + 1)
        if option == 0:
            return False
        if option == 1:
            at += 1
        else:
            at += max(frame.u8(at + 1), 2)
    return False
