# SPDX-License-Identifier: Apache-2.0
"""Neighbour discovery for IPv6 (RFC 4861): valid messages, and messages in the place of others.

Used by the responder and the router; uses arp.py for what any frame has. Works on private heads.

Before a message is believed, hop limit, checksum, lengths and options are checked (7.1.1, 7.1.2).

Limits: a message that does not fit into a head (74 bytes behind the IPv6 header), has extension
headers or VLAN tags is nothing that Byway answers or believes.
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16be,
    ld64,
    ld64be,
    shr64,
    st8,
    st16,
    st16be,
    st32be,
    st64be,
)
from byway.packet.batch import HEAD, R
from byway.packet.checksum import finished, folded, sum_bytes, swapped
from byway.packet.layers import IPV6
from byway.packet.offload import NEEDS_CSUM
from byway.switch.arp import L3, replace, set_macs

ICMPV6 = 58
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
SOLICITATION, ADVERTISEMENT, REDIRECT = 135, 136, 137
SOLICITED, OVERRIDE, IS_ROUTER = 0x40, 0x20, 0x80
ND_TTL = 255
SOURCE, DESTINATION = L3 + 8, L3 + 24  # in an untagged frame
L4 = L3 + 40
TARGET = L4 + 8
ND_BYTES = 24  # a message without options
ND_FRAME = L4 + ND_BYTES
LINK_OPTION = 8  # type, length, MAC
SOURCE_LINK, TARGET_LINK = 1, 2
ALL_NODES_HIGH, ALL_NODES_LOW = -0xFE << 48, 1  # ff02::1
ALL_NODES_MAC = 0x333300000001
NODES_HIGH, NODES_LOW = -0xFE << 48, 0x1FF000000  # ff02::1:ff00:0
NODES_MASK = -1 << 24  # the rest is the target's last three bytes
NODES_MAC = 0x3333FF000000


@kernel
def icmpv6_sum(ip, length):
    """The sum of the pseudo-header and ``length`` bytes behind the IPv6 header (RFC 8200, 8.1)."""
    return swapped(ICMPV6) + swapped(length) + sum_bytes(ip + 8, 32) + sum_bytes(ip + 40, length)


@kernel
def icmpv6_type(row):
    """-> the type of an untagged ICMPv6 message without extension headers, -1 where it is none."""
    head = ld64(row + R.head)
    if ld64(row + R.len) < L4 + 8 or ld16be(head + 12) != IPV6 or ld8(head + L3) >> 4 != 6 \
            or ld8(head + L3 + 6) != ICMPV6:
        return -1
    return ld8(head + L4)


@kernel
def options_end(head, end, unspecified):
    """Do the options of a message end where it ends, none of them empty, and none a source
    link-layer address from the unspecified address? (RFC 4861, 7.1.1)"""
    at = ND_FRAME
    good = True
    for _ in range(HEAD // 8):
        if at >= end or not good:
            break
        length = 8 * ld8(head + at + 1)
        good = length > 0 and not (unspecified and ld8(head + at) == SOURCE_LINK)
        at += length
    return good and at == end


@kernel
def link_option(head, kind):
    """-> the MAC address (48 bits) in the first option of type ``kind`` of a valid message, 0:
    there is none."""
    end = L4 + ld16be(head + L3 + 4)
    at = ND_FRAME
    for _ in range(HEAD // 8):
        if at >= end:
            break
        if ld8(head + at) == kind:
            return ld64be(head + at) & 0xFFFFFFFFFFFF
        at += 8 * ld8(head + at + 1)
    return 0


@kernel
def is_valid(row, kind):
    """May a solicitation or advertisement be believed? (RFC 4861, 7.1.1 and 7.1.2)"""
    head = ld64(row + R.head)
    ip = head + L3
    length = ld16be(ip + 4)
    end = L4 + length
    if length < ND_BYTES or end > min(ld64(row + R.len), HEAD) or ld8(ip + 7) != ND_TTL \
            or ld8(head + L4 + 1) != 0 or ld8(head + TARGET) == 0xFF:
        return False
    unspecified = ld64(head + SOURCE) == 0 and ld64(head + SOURCE + 8) == 0
    if kind == SOLICITATION and unspecified and (
            ld64be(head + DESTINATION) != NODES_HIGH
            or ld64be(head + DESTINATION + 8) & NODES_MASK != NODES_LOW):
        return False
    if kind == ADVERTISEMENT and ld8(head + DESTINATION) == 0xFF \
            and ld8(head + L4 + 4) & SOLICITED != 0:
        return False
    if not options_end(head, end, kind == SOLICITATION and unspecified):
        return False
    return ld64(row + R.offload) & NEEDS_CSUM != 0 or folded(icmpv6_sum(ip, length)) == 0xFFFF


@kernel
def write_message(row, mac, kind, flags, high, low):
    """The row becomes a message of neighbour discovery about a target, with ``mac`` (48 bits) as
    source and option. What is missing is said by ``send_message``."""
    head = ld64(row + R.head)
    set_macs(head, 0, mac)
    st16be(head + 12, IPV6)
    st32be(head + L3, 6 << 28)
    st16be(head + L3 + 4, ND_BYTES + LINK_OPTION)
    st8(head + L3 + 6, ICMPV6)
    st8(head + L3 + 7, ND_TTL)
    st32be(head + L4, kind << 24)
    st32be(head + L4 + 4, flags << 24)
    st64be(head + TARGET, high)
    st64be(head + TARGET + 8, low)
    option = SOURCE_LINK if kind == SOLICITATION else TARGET_LINK
    st16be(head + ND_FRAME, option << 8 | 1)
    st16be(head + ND_FRAME + 2, mac >> 32)
    st32be(head + ND_FRAME + 4, mac)
    replace(row, ND_FRAME + LINK_OPTION)


@kernel
def send_message(row, mac, source_high, source_low, high, low):
    """Write to whom a message goes (a MAC of 48 bits, an address) and from which address; sum."""
    head = ld64(row + R.head)
    set_macs(head, mac, shr64(ld64be(head + 6), 16))
    st64be(head + SOURCE, source_high)
    st64be(head + SOURCE + 8, source_low)
    st64be(head + DESTINATION, high)
    st64be(head + DESTINATION + 8, low)
    st16(head + L4 + 2, finished(icmpv6_sum(head + L3, ND_BYTES + LINK_OPTION), False))


@kernel
def advertise(row, mac, flags):
    """The solicitation in the row becomes the answer to it (RFC 4861, 7.2.4): its target is at
    ``mac``. Who solicits from the unspecified address wants the target for itself (RFC 4862, 5.4):
    all nodes are told."""
    head = ld64(row + R.head)
    asker = shr64(ld64be(head + 6), 16)
    high, low = ld64be(head + SOURCE), ld64be(head + SOURCE + 8)
    own_high, own_low = ld64be(head + TARGET), ld64be(head + TARGET + 8)
    if high == 0 and low == 0:
        asker, high, low = ALL_NODES_MAC, ALL_NODES_HIGH, ALL_NODES_LOW
    else:
        flags |= SOLICITED
    write_message(row, mac, ADVERTISEMENT, flags, own_high, own_low)
    send_message(row, asker, own_high, own_low, high, low)
