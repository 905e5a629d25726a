# SPDX-License-Identifier: Apache-2.0
"""The gateway's part in neighbour discovery (RFC 4861), and its replies to ICMPv6 echo requests.

Used by router.py; uses gateway.py.

Solicitations for our addresses are answered where they come from, as ARP requests are; a
solicitation from the unspecified address (somebody wants an address of ours for itself, RFC 4862,
5.4) is answered to all nodes (RFC 4861, 7.2.4). Before a message is believed, hop limit, checksum,
lengths and options are checked (7.1.1, 7.1.2).

Limits: a message that does not fit into a head (74 bytes behind the IPv6 header) or has extension
headers is nothing that we answer, and nothing that we ask for. Echo requests with extension headers
are not answered.
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
    st64,
    st64be,
)
from byway.packet.batch import HEAD, R, batch_at, dropped
from byway.packet.checksum import finished, folded, sum_bytes, swapped
from byway.packet.offload import NEEDS_CSUM
from byway.packet.reason import Reason
from byway.switch.gateway import (
    IPV6,
    L3,
    TTL,
    echo_type,
    is_own,
    own_mac,
    replace,
    set_macs,
)

_BAD_IP = int(Reason.BAD_IP)
_SPOOFED_ARP = int(Reason.SPOOFED_ARP)

ICMPV6 = 58
ECHO6, ECHO6_REPLY = 128, 129
SOLICITATION, ADVERTISEMENT = 135, 136
SOLICITED, OVERRIDE, IS_ROUTER = 0x40, 0x20, 0x80
ND_TTL = 255
SOURCE, DESTINATION = L3 + 8, L3 + 24  # in the frame
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
ROUTER_SOLICITATION, REDIRECT = 133, 137  # the first and the last of discovery's messages


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


# ---------------------------------------------------------------- writing
@kernel
def write_message(row, gateway, kind, flags, high, low):
    """The row becomes a message of neighbour discovery about a target, our MAC address its option.
    What is missing is said by ``send_message``."""
    head = ld64(row + R.head)
    mac = own_mac(gateway)
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
def write_solicitation(row, gateway, source, high, low):
    """The row becomes a neighbour solicitation for an address, from our own ADDRESS ``source``
    (RFC 4861, 7.2.2)."""
    write_message(row, gateway, SOLICITATION, 0, high, low)
    node = low & ~NODES_MASK
    send_message(row, NODES_MAC | node, ld64(source), ld64(source + 8), NODES_HIGH,
                 NODES_LOW | node)


@kernel
def advertise(row, batch, gateway):
    """The solicitation in the row becomes the answer to it (RFC 4861, 7.2.4)."""
    head = ld64(row + R.head)
    asker = shr64(ld64be(head + 6), 16)
    high, low = ld64be(head + SOURCE), ld64be(head + SOURCE + 8)
    own_high, own_low = ld64be(head + TARGET), ld64be(head + TARGET + 8)
    flags = IS_ROUTER | OVERRIDE
    if high == 0 and low == 0:
        asker, high, low = ALL_NODES_MAC, ALL_NODES_HIGH, ALL_NODES_LOW
    else:
        flags |= SOLICITED
    write_message(row, gateway, ADVERTISEMENT, flags, own_high, own_low)
    send_message(row, asker, own_high, own_low, high, low)
    st64(row + R.out, batch_at(batch).origin)


# ---------------------------------------------------------------- hearing
@kernel
def nd_heard(row, batch, gateway, tunnelled, serves):
    """An untagged IPv6 frame to a group or to the gateway: answer it if it solicits us; -> is the
    row decided?"""
    kind = icmpv6_type(row)
    if kind < ROUTER_SOLICITATION or kind > REDIRECT:
        return False
    head = ld64(row + R.head)
    if not tunnelled and is_own(gateway, ld64be(head + SOURCE), ld64be(head + SOURCE + 8)):
        st64(row + R.out, dropped(_SPOOFED_ARP))
        return True
    if (kind != SOLICITATION and kind != ADVERTISEMENT) or ld64(row + R.len) < ND_FRAME \
            or not is_own(gateway, ld64be(head + TARGET), ld64be(head + TARGET + 8)):
        return False
    if kind == ADVERTISEMENT:
        st64(row + R.out, dropped(_SPOOFED_ARP))
        return True
    if not serves:
        return False
    if is_valid(row, kind):
        advertise(row, batch, gateway)
    else:
        st64(row + R.out, dropped(_BAD_IP))
    return True


# ---------------------------------------------------------------- echo
@kernel
def echo_reply_ipv6(row, batch, gateway):
    """The ICMPv6 echo request in the row becomes the reply (RFC 4443, 4.2). The pseudo-header's sum
    stays what it was, whichever way round its addresses are."""
    head = ld64(row + R.head)
    set_macs(head, shr64(ld64be(head + 6), 16), own_mac(gateway))
    for k in range(2):
        source, destination = ld64(head + SOURCE + 8 * k), ld64(head + DESTINATION + 8 * k)
        st64(head + SOURCE + 8 * k, destination)
        st64(head + DESTINATION + 8 * k, source)
    st8(head + L3 + 7, TTL)
    echo_type(row, head + L4, ECHO6_REPLY)
    st64(row + R.out, batch_at(batch).origin)
