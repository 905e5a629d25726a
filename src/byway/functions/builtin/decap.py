# SPDX-License-Identifier: Apache-2.0
"""``byway.decap``: takes frames and packets out of VXLAN, Geneve and GRE.

A built-in network function, written on the author's page (byway.nf) alone.

Theory of operation
-------------------
What is taken out goes on in place of the frame that it came in. VXLAN (RFC 7348), Geneve (RFC
8926), NVGRE (RFC 7637) and ERSPAN type II carry Ethernet frames: all before the inner one goes. GRE
(RFC 2784, RFC 2890) and Geneve may carry bare IPv4 and IPv6 packets, too: those keep the outer
Ethernet header.

Everything was written by a stranger. Each header is read only where the frame has it, within the
first 128 bytes; what is malformed is dropped with its reason. What must not be forwarded is
not: a Geneve option marked critical (nobody here knows any), a control frame, GRE with bits that
RFC 2784 reserves, a wrong GRE checksum. Fragments of the outer packet are not put together, and a
large UDP frame that is to be cut would be many tunnelled ones: both are dropped where they are
meant for this end.
"""

from typing import Annotated, Literal

from byway import nf

ETHERNET, IPV4, IPV6 = 0x6558, 0x0800, 0x86DD  # protocol types
ERSPAN = 0x88BE
GRE = 47
# GRE's flags (RFC 2784, 2.1; RFC 2890, 2); bits 1 to 5 of the first word but for key and sequence.
CHECKSUM, KEY, SEQUENCE, RESERVED, VERSION = 0x8000, 0x2000, 0x1000, 0x4C00, 7
HEADERS = 128  # bytes of a frame that are looked at
# What a header may be instead of the place where its payload begins.
SHORT, MALFORMED, CRITICAL, CONTROL = -1, -2, -3, -4


@nf.function
class Decap:
    """Take frames out of VXLAN, Geneve and GRE tunnels that end here."""

    kind: Literal["any", "vxlan", "geneve", "gre"] = "any"
    local: nf.IPv4 = nf.IPv4("0.0.0.0")  # outer destination addresses; of zeros: any
    local6: nf.IPv6 = nf.IPv6("::")
    vni: Annotated[int, nf.Range(-1, 0xFFFFFFFF)] = -1  # only this VNI or GRE key; -1: all
    vxlan_port: Annotated[int, nf.Range(1, 65535)] = 4789
    geneve_port: Annotated[int, nf.Range(1, 65535)] = 6081
    to: nf.Port = nf.Port()  # what was inside goes to this port; without one, to where its MAC says
    budget = 17_000  # rounds: the checksum of 65,535 bytes, four at a time

    taken_out = nf.Counter()

    def process(self, frame):
        if not frame.is_ip or not self.is_for_us(frame):
            return nf.PASS
        tunnel = self.tunnel_of(frame)
        if tunnel == 0:
            return nf.PASS
        if frame.is_fragment:
            return nf.DROP("fragment of a tunnel's packet")
        if frame.is_gso:
            return nf.DROP("several tunnelled frames in one")
        at = frame.l4_offset + (0 if tunnel == GRE else 8)
        end = packet_end(frame)
        inside = SHORT
        protocol = ETHERNET
        vni = 0
        if tunnel == GRE:
            inside = gre_payload(frame, at, end)
            protocol = frame.u16(at + 2)
            vni = gre_key(frame, at)
        elif tunnel == self.vxlan_port:
            inside = vxlan_payload(frame, at, end)
            vni = frame.u32(at + 4) >> 8
        else:
            inside = geneve_payload(frame, at, end)
            protocol = frame.u16(at + 2)
            vni = frame.u32(at + 4) >> 8
        if inside == SHORT:
            return nf.DROP("cut short")
        if inside == MALFORMED:
            return nf.DROP("malformed")
        if inside == CRITICAL:
            return nf.DROP("unknown critical option")
        if inside == CONTROL:
            return nf.DROP("control frame")
        if self.vni >= 0 and vni != self.vni:
            return nf.PASS
        return self.take_out(frame, inside, protocol, end)

    def is_for_us(self, frame):
        """Is the outer packet for this end?"""
        if frame.is_ipv4:
            return self.local == 0 or frame.ipv4_dst == self.local
        return self.local6 == 0 or frame.ipv6_dst == self.local6

    def tunnel_of(self, frame):
        """GRE, a UDP port of VXLAN or Geneve, or 0: no tunnel that is ended here."""
        if frame.ip_protocol == GRE and (self.kind == "any" or self.kind == "gre"):
            return GRE
        if frame.is_udp:
            port = frame.l4_dst
            if port == self.vxlan_port and (self.kind == "any" or self.kind == "vxlan"):
                return port
            if port == self.geneve_port and (self.kind == "any" or self.kind == "geneve"):
                return port
        return 0

    def take_out(self, frame, inside, protocol, end):
        """What lies from ``inside`` to ``end`` becomes the frame."""
        done = False
        if protocol == ERSPAN:
            inside += 8  # its own header (type II)
        if protocol == ETHERNET or protocol == ERSPAN:
            if inside + 14 > end:
                return nf.DROP("cut short")
            if end < frame.length:
                frame.resize(end)
            done = frame.decapsulate(inside)
        elif protocol == IPV4 or protocol == IPV6:
            if inside + (20 if protocol == IPV4 else 40) > end:
                return nf.DROP("cut short")
            done = frame.replace_l3(inside - frame.l3_offset, 0, protocol)
        else:
            return nf.PASS
        if not done:
            return nf.DROP("headers too long")
        self.taken_out.add()
        if self.to >= 0:
            return nf.REDIRECT(self.to)
        return nf.PASS


def vxlan_payload(frame, at, end):
    """Where the frame in VXLAN begins, its header at ``at`` (RFC 7348, 5)."""
    if at + 8 > HEADERS or at + 8 > end:
        return SHORT
    if frame.u8(at) & 0x08 == 0:
        return MALFORMED
    return at + 8


def geneve_payload(frame, at, end):
    """Where the payload of Geneve begins, its header at ``at`` (RFC 8926, 3.4)."""
    if at + 8 > HEADERS or at + 8 > end:
        return SHORT
    first = frame.u16(at)
    if first >> 14 != 0:
        return MALFORMED
    if first & 0x40 != 0:
        return CRITICAL
    if first & 0x80 != 0:
        return CONTROL
    return at + 8 + 4 * (first >> 8 & 0x3F)


def gre_payload(frame, at, end):
    """Where the payload of GRE begins, its header at ``at``; a checksum is checked."""
    if at + 4 > HEADERS or at + 4 > end:
        return SHORT
    flags = frame.u16(at)
    if flags & (RESERVED | VERSION) != 0:
        return MALFORMED
    length = 4
    if flags & CHECKSUM != 0:
        length += 4
    if flags & KEY != 0:
        length += 4
    if flags & SEQUENCE != 0:
        length += 4
    if at + length > HEADERS or at + length > end:
        return SHORT
    if flags & CHECKSUM != 0 and packet_sum(frame, at, end) != 0xFFFF:
        return MALFORMED
    return at + length


def gre_key(frame, at):
    """GRE's key; of NVGRE (RFC 7637, 3.2) the upper 24 bits, its VSID. 0 where there is none."""
    flags = frame.u16(at)
    if flags & KEY == 0:
        return 0
    key = frame.u32(at + (8 if flags & CHECKSUM != 0 else 4))
    return key >> 8 if frame.u16(at + 2) == ETHERNET else key


def packet_end(frame):
    """Where the outer packet ends: what is behind it is padding."""
    l3 = frame.l3_offset
    length = frame.ipv4_length if frame.is_ipv4 else 40 + frame.u16(l3 + 4)
    return min(frame.length, l3 + length)


def packet_sum(frame, at, end):
    """The sum of GRE's header and payload, 0xFFFF where its checksum is right (RFC 1071)."""
    length = end - at
    first = at - frame.payload_offset
    total = 0
    for i in range(length // 4):
        word = frame.payload.u32(first + 4 * i)
        total += (word >> 16) + (word & 0xFFFF)
    for i in range(length & ~3, length):
        total += frame.payload.u8(first + i) << (8 if i & 1 == 0 else 0)
    total = (total >> 16) + (total & 0xFFFF)
    total = (total >> 16) + (total & 0xFFFF)
    return (total >> 16) + (total & 0xFFFF)
