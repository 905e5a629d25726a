# SPDX-License-Identifier: Apache-2.0
"""What the router (router.py) sends itself: ARP, neighbour discovery, echo replies, ICMP errors;
and which packets it may route or send errors about.

Written on the author's page: plain functions of a frame, compiled into the router.

A frame that is answered with REPLY has its MAC addresses swapped afterwards: the router's own is
written as its destination here.
"""

from byway import nf

ECHO, ECHO_REPLY = 8, 0
ECHO6, ECHO6_REPLY = 128, 129
ICMP, ICMPV6 = 1, 58
# Errors as type << 8 | code (RFC 792; RFC 4443, 3).
NO_ROUTE, PROTOCOL_UNREACHABLE, PORT_UNREACHABLE, TOO_BIG = 0x300, 0x302, 0x303, 0x304
EXPIRED = 0xB00
NO_ROUTE6, PORT_UNREACHABLE6, TOO_BIG6, EXPIRED6 = 0x100, 0x104, 0x200, 0x300
REDIRECT6 = 137
TTL = 64
ND_TTL = 255
MOST, MOST6 = 576, 1280  # bytes of an error's packet (RFC 1812, 4.3.2.3; RFC 4443, 2.4 (c))
BROADCAST = 0xFFFFFFFFFFFF
LOOSE_ROUTE, STRICT_ROUTE = 131, 137  # IPv4's options
OVERRIDE = 0xE0000000  # of an advertisement: router, solicited, override
ARP_FRAME, ND_FRAME = 60, 86  # bytes


# ---------------------------------------------------------------- which packets
def has_good_header(frame):
    """Is an IPv4 header's checksum right, its length in the frame, and no source route in it?"""
    l3 = frame.l3_offset
    end = frame.l4_offset
    if frame.ipv4_length < end - l3 or l3 + frame.ipv4_length > frame.length:
        return False
    total = 0
    for at in range(l3, end, 2):
        total += frame.u16(at)
    total = (total >> 16) + (total & 0xFFFF)
    total = (total >> 16) + (total & 0xFFFF)
    if total != 0xFFFF:
        return False
    at = l3 + 20
    while at < end:
        option = frame.u8(at)
        if option == LOOSE_ROUTE or option == STRICT_ROUTE:
            return False
        if option == 0:
            return True
        if option == 1:
            at += 1
        else:
            at += max(frame.u8(at + 1), 2)
    return True


def is_station(address):
    """Is an IPv4 address one station's, and to be routed?"""
    first = address >> 24
    return first != 0 and first != 127 and first < 224 and address >> 16 != 0xA9FE


def is_routable(frame):
    """May an IPv4 packet be routed, by its addresses?"""
    return is_station(frame.ipv4_src) and is_station(frame.ipv4_dst)


def is_station6(first, rest):
    """As ``is_station``, for IPv6: by its first 32 bits, and whether others are set but the last
    few: loopback, unspecified, link-local and multicast are not."""
    return (first != 0 or rest) and first >> 24 != 0xFF and first >> 22 != 0x3FA


def is_routable6(frame):
    """May an IPv6 packet be routed, by its addresses and its length?"""
    l3 = frame.l3_offset
    if l3 + 40 + frame.u16(l3 + 4) > frame.length and not frame.is_gso:
        return False
    rest = frame.u32(l3 + 12) | frame.u32(l3 + 16) | frame.u32(l3 + 20) >> 1 != 0
    rest_dst = frame.u32(l3 + 28) | frame.u32(l3 + 32) | frame.u32(l3 + 36) >> 1 != 0
    return is_station6(frame.u32(l3 + 8), rest) and is_station6(frame.u32(l3 + 24), rest_dst)


def may_be_about(frame):
    """May an error be about the packet? Not about errors, nor about a fragment but the first."""
    if frame.is_fragment and not frame.is_first_fragment:
        return False
    if frame.eth_src >> 40 & 1 == 1:
        return False
    if frame.is_icmp:
        kind = frame.icmp_type
        return kind == ECHO or kind == ECHO_REPLY or kind > 12
    if frame.is_icmpv6:
        return frame.icmp_type >= ECHO6 and frame.icmp_type != REDIRECT6
    # Where the protocol's header does not show, nobody knows: for these two only.
    return frame.ip_protocol != ICMP and frame.ip_protocol != ICMPV6


# ---------------------------------------------------------------- neighbours
def answer_arp(frame, mac, address):
    """An ARP request becomes its reply (RFC 826)."""
    frame.arp_op = 2
    frame.arp_target_mac = frame.arp_sender_mac
    frame.arp_target_ip = frame.arp_sender_ip
    frame.arp_sender_mac = mac
    frame.arp_sender_ip = address
    frame.eth_dst = mac


def ask_arp(frame, mac, address, wanted):
    """The frame becomes the ARP request for an address, to all."""
    frame.resize(ARP_FRAME)
    frame.eth_dst = BROADCAST
    frame.eth_src = mac
    frame.set_u32(12, 0x08060001)
    frame.set_u32(16, 0x08000604)
    frame.set_u16(20, 1)
    set_mac(frame, 22, mac)
    frame.set_u32(28, address)
    set_mac(frame, 32, 0)
    frame.set_u32(38, wanted)
    clear(frame, 42, ARP_FRAME)
    frame.fix()


def ask_nd(frame, mac, address, wanted):
    """The frame becomes the neighbour solicitation for an address (RFC 4861, 4.3), to its group."""
    last = nf.low(wanted) & 0xFFFFFF
    frame.resize(ND_FRAME)
    frame.eth_dst = 0x3333FF000000 | last
    frame.eth_src = mac
    nd_header(frame, address)
    frame.set_u32(38, 0xFF020000)
    frame.set_u32(42, 0)
    frame.set_u32(46, 1)
    frame.set_u32(50, 0xFF000000 | last)
    frame.set_u32(54, 135 << 24)
    frame.set_u32(58, 0)
    set_address6(frame, 62, wanted)
    frame.set_u16(78, 0x0101)
    set_mac(frame, 80, mac)
    frame.fix()


def advertise(frame, mac, address):
    """A neighbour solicitation becomes the advertisement of an address (RFC 4861, 4.4)."""
    asker_is_known = frame.ipv6_src != 0
    frame.swap_ip()
    frame.resize(ND_FRAME)
    nd_header(frame, address)
    flags = OVERRIDE
    frame.eth_dst = mac
    if not asker_is_known:
        flags = OVERRIDE & ~0x40000000
        frame.eth_src = 0x333300000001
        frame.set_u32(38, 0xFF020000)
        frame.set_u32(42, 0)
        frame.set_u32(46, 0)
        frame.set_u32(50, 1)
    frame.set_u32(54, 136 << 24)
    frame.set_u32(58, flags)
    set_address6(frame, 62, address)
    frame.set_u16(78, 0x0201)
    set_mac(frame, 80, mac)
    frame.fix()


def nd_header(frame, source):
    """Ethernet's type and the IPv6 header of a neighbour message of 32 bytes, but its target."""
    frame.set_u16(12, 0x86DD)
    frame.set_u32(14, 0x60000000)
    frame.set_u32(18, 32 << 16 | ICMPV6 << 8 | ND_TTL)
    set_address6(frame, 22, source)


def link_layer_option(frame, kind):
    """The MAC address in the option of that type (1: of the source, 2: of the target) of a
    neighbour message; 0: there is none. Only the first few options are looked at."""
    at = frame.l4_offset + 24
    for _ in range(4):
        length = 8 * frame.u8(at + 1)
        if length == 0 or at + length > min(frame.length, 128):
            return 0
        if frame.u8(at) == kind:
            return frame.u16(at + 2) << 32 | frame.u32(at + 4)
        at += length
    return 0


# ---------------------------------------------------------------- ICMP
def echo_reply(frame, mac):
    """An echo request becomes its reply."""
    frame.swap_ip()
    frame.ip_ttl = TTL
    frame.icmp_type = ECHO_REPLY if frame.is_icmp else ECHO6_REPLY
    frame.eth_dst = mac


def write_error(frame, mac, address, kind, word):
    """An IPv4 packet becomes the ICMP error about itself, from ``address``. ``kind``: type << 8 |
    code; ``word``: the second of ICMP's header."""
    l3 = frame.l3_offset
    target = frame.ipv4_src
    quoted = min(frame.ipv4_length, MOST - 28)
    if frame.is_gso:
        quoted = min(frame.length - l3, MOST - 28)
    frame.replace_l3(0, 28)
    frame.resize(l3 + 28 + quoted)
    frame.set_u32(l3, 0x45C00000 | 28 + quoted)
    frame.set_u32(l3 + 4, 0x4000)
    frame.set_u32(l3 + 8, TTL << 24 | ICMP << 16)
    frame.set_u32(l3 + 12, address)
    frame.set_u32(l3 + 16, target)
    frame.set_u32(l3 + 20, kind << 16)
    frame.set_u32(l3 + 24, word)
    frame.eth_dst = mac
    frame.fix()


def write_error6(frame, mac, address, kind, word):
    """As ``write_error``, for IPv6."""
    l3 = frame.l3_offset
    target = frame.ipv6_src
    quoted = min(40 + frame.u16(l3 + 4), MOST6 - 48)
    if frame.is_gso:
        quoted = min(frame.length - l3, MOST6 - 48)
    frame.replace_l3(0, 48)
    frame.resize(l3 + 48 + quoted)
    frame.set_u32(l3, 0x60000000)
    frame.set_u32(l3 + 4, 8 + quoted << 16 | ICMPV6 << 8 | TTL)
    set_address6(frame, l3 + 8, address)
    set_address6(frame, l3 + 24, target)
    frame.set_u32(l3 + 40, kind << 16)
    frame.set_u32(l3 + 44, word)
    frame.eth_dst = mac
    frame.fix()


# ---------------------------------------------------------------- bytes
def set_mac(frame, at, mac):
    """Write a MAC address."""
    frame.set_u16(at, mac >> 32)
    frame.set_u32(at + 2, mac & 0xFFFFFFFF)


def set_address6(frame, at, address):
    """Write an IPv6 address."""
    frame.set_u32(at, nf.high(address) >> 32 & 0xFFFFFFFF)
    frame.set_u32(at + 4, nf.high(address) & 0xFFFFFFFF)
    frame.set_u32(at + 8, nf.low(address) >> 32 & 0xFFFFFFFF)
    frame.set_u32(at + 12, nf.low(address) & 0xFFFFFFFF)


def clear(frame, begin, end):
    """Write zeros: nothing of the packet that was there goes out."""
    for at in range(begin, end):
        frame.set_u8(at, 0)
