# SPDX-License-Identifier: Apache-2.0
"""Byway's own address on an uplink: answers to ARP, neighbour discovery and ping, and what it
learns of its neighbours' MAC addresses.

Used by uplink.py; uses arp.py, nd.py and echo.py. Works on private heads; an answer takes its
question's place in the row. RFC 826, RFC 4861, RFC 792, RFC 4443.

Only next hops are learned, of which there are as many as control wants: nobody can fill a table.
As in any IPv4 or IPv6 network, who is on the link can claim to be a next hop; whom that may not
happen to encrypts the underlay.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    ld8,
    ld16be,
    ld32be,
    ld64,
    ld64be,
    shr64,
    st64,
)
from byway.packet.batch import R, origin_port
from byway.packet.nexthop import NEXT_HOP, heard
from byway.packet.tunnels import tunnel_of
from byway.switch.arp import (
    OPERATION,
    REPLY,
    REQUEST,
    SENDER_IP,
    SENDER_MAC,
    TARGET_IP,
    write_arp,
)
from byway.switch.echo import ECHO, ECHO6, echo_reply, echo_reply_ipv6
from byway.switch.nd import (
    ADVERTISEMENT,
    L4,
    OVERRIDE,
    SOLICITATION,
    SOURCE,
    SOURCE_LINK,
    TARGET,
    TARGET_LINK,
    advertise,
    is_valid,
    link_option,
)

# mac: of 48 bits. high, low: the own address (IPv4 as ::ffff:a.b.c.d), as loaded in network byte
# order. origin: the origin word of the rows to look at (packet.batch). udp_port: of VXLAN. strict:
# 1 where datagrams without a checksum are not taken. vnis, remotes: packet.tunnels. hops: a REMOTES
# table too, from the address of a next hop to its number. nexthops: NEXT_HOP by number.
UPLINK, uplink_at, K = record("uplink", [
    "mac", "high", "low", "origin", "udp_port", "strict", "vnis", "remotes", "hops", "nexthops"])

NEXT_HOP_SIZE = NEXT_HOP.itemsize
MAPPED = 0xFFFF << 32  # the low word of an IPv4 address without the address


@kernel
def is_own(uplink, high, low):
    """Is it our address?"""
    u = uplink_at(uplink)
    return u.low == low and u.high == high


@kernel
def learn_hop(uplink, high, low, mac, now):
    """Who has this address has this MAC address: note it where it is a next hop."""
    u = uplink_at(uplink)
    number = tunnel_of(u.hops, high, low)
    if number >= 0:
        heard(u.nexthops + NEXT_HOP_SIZE * number, mac, now)


@kernel
def answer(uplink, row):
    """What is in the row now goes back to where the question came from."""
    st64(row + R.out, origin_port(ld64(uplink + K.origin)))


# ---------------------------------------------------------------- ARP
@kernel
def arp_said(uplink, row, now):
    """An ARP message: learn from it, answer it where it asks for us; -> was it answered?"""
    u = uplink_at(uplink)
    head = ld64(row + R.head)
    sender, ip = shr64(ld64be(head + SENDER_MAC), 16), ld32be(head + SENDER_IP)
    operation = ld16be(head + OPERATION)
    if operation == REQUEST or operation == REPLY:
        learn_hop(uplink, 0, MAPPED | ip, sender, now)
    wanted = ld32be(head + TARGET_IP)
    if operation != REQUEST or not is_own(uplink, 0, MAPPED | wanted) or ip == wanted:
        return False
    write_arp(row, REPLY, shr64(ld64be(head + 6), 16), u.mac, wanted, sender, ip)
    answer(uplink, row)
    return True


# ---------------------------------------------------------------- neighbour discovery
@kernel
def nd_said(uplink, row, kind, now):
    """A solicitation or advertisement, as ``kind`` says: learn from it, answer it where it asks for
    us; -> was it answered?"""
    if not is_valid(row, kind):
        return False
    head = ld64(row + R.head)
    high, low = ld64be(head + TARGET), ld64be(head + TARGET + 8)
    if kind == ADVERTISEMENT:
        mac = link_option(head, TARGET_LINK)
        if mac == 0:  # it may be left out where only one was asked (4.4)
            mac = shr64(ld64be(head + 6), 16)
        learn_hop(uplink, high, low, mac, now)
        return False
    learn_hop(uplink, ld64be(head + SOURCE), ld64be(head + SOURCE + 8),
              link_option(head, SOURCE_LINK), now)
    if not is_own(uplink, high, low):
        return False
    advertise(row, ld64(uplink + K.mac), OVERRIDE)
    answer(uplink, row)
    return True


@kernel
def is_discovery(kind):
    """Is this ICMPv6 type one that ``nd_said`` looks at?"""
    return kind == SOLICITATION or kind == ADVERTISEMENT


# ---------------------------------------------------------------- ping
@kernel
def echo(uplink, row, l4):
    """Does the IPv4 packet to us, with its payload at ``l4``, ask for an echo? Then it becomes the
    reply; -> whether it does."""
    head = ld64(row + R.head)
    if ld8(head + l4) != ECHO or ld8(head + l4 + 1) != 0:
        return False
    echo_reply(row, ld64(uplink + K.mac), l4)
    answer(uplink, row)
    return True


@kernel
def echo6(uplink, row):
    """As ``echo``, for an IPv6 packet without extension headers."""
    head = ld64(row + R.head)
    if ld8(head + L4) != ECHO6 or ld8(head + L4 + 1) != 0:
        return False
    echo_reply_ipv6(row, ld64(uplink + K.mac))
    answer(uplink, row)
    return True
