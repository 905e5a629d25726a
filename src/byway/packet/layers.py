# SPDX-License-Identifier: Apache-2.0
"""Where the layers of a frame begin, read from its private head.

Used by offload.py, segment.py and flow.py; uses batch.py. VLAN tags (IEEE 802.1Q, two at the most),
IPv4 with options (RFC 791), IPv6 with extension headers (RFC 8200).

The sender wrote every byte: each length is checked against the bytes that are there, and a walk
over extension headers ends after as many as a head can hold.
"""

from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld16be, ld64
from byway.packet.batch import HEAD, R

VLAN, SERVICE_VLAN = 0x8100, 0x88A8
IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP, SCTP = 6, 17, 132
HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60
BROKEN = -1
HIDDEN = 255  # the protocol of a frame whose extension headers do not end in the head

# What ``layers`` answers: l3 | l4 << 8 | protocol << 16 | version << 24 | fragment << 28.
_FRAGMENT = 1 << 28


@formula
def l3_of(found):
    """Offset of what follows Ethernet and its VLAN tags."""
    return found & 0xFF


@formula
def l4_of(found):
    """Offset of what follows the IP header and its extension headers."""
    return found >> 8 & 0xFF


@formula
def protocol_of(found):
    """The protocol at l4 (IP's number), or HIDDEN."""
    return found >> 16 & 0xFF


@formula
def version_of(found):
    """4, 6, or 0 where the frame is not IP."""
    return found >> 24 & 0xF


@kernel
def is_fragment(found):
    """Is the frame a piece of a datagram? Then the protocol's header is not at l4, or not alone."""
    return found & _FRAGMENT != 0


@kernel
def ipv4_layers(head, n, l3):
    """As ``layers``, for IPv4 at ``l3``."""
    if l3 + 20 > n:
        return BROKEN
    first = ld8(head + l3)
    l4 = l3 + 4 * (first & 15)
    if first >> 4 != 4 or first & 15 < 5 or l4 > n:
        return BROKEN
    found = l3 | l4 << 8 | ld8(head + l3 + 9) << 16 | 4 << 24
    if ld16be(head + l3 + 6) & 0x3FFF != 0:  # more fragments, or an offset
        found |= _FRAGMENT
    return found


@kernel
def ipv6_layers(head, n, l3):
    """As ``layers``, for IPv6 at ``l3``."""
    if l3 + 40 > n or ld8(head + l3) >> 4 != 6:
        return BROKEN
    protocol = ld8(head + l3 + 6)
    l4 = l3 + 40
    fragment = 0
    for _ in range(HEAD // 8):
        if protocol != HOP_BY_HOP and protocol != ROUTING and protocol != OPTIONS \
                and protocol != FRAGMENT:
            break
        length = 8
        if l4 + 8 <= n:
            if protocol == FRAGMENT:
                fragment = _FRAGMENT
            else:
                length = 8 * (ld8(head + l4 + 1) + 1)
        if l4 + 8 > n or l4 + length > n:
            protocol = HIDDEN
            break
        protocol = ld8(head + l4)
        l4 += length
    return l3 | l4 << 8 | protocol << 16 | 6 << 24 | fragment


@kernel
def layers(row):
    """Where the layers of a row's frame begin: one word for the functions above, or BROKEN where
    its IP header is malformed. For a frame that is not IP only l3 is known, the rest is 0."""
    head = ld64(row + R.head)
    n = min(ld64(row + R.len), HEAD)
    l3 = 14
    if n < l3:
        return BROKEN
    kind = ld16be(head + 12)
    for _ in range(2):
        if (kind == VLAN or kind == SERVICE_VLAN) and l3 + 4 <= n:
            kind = ld16be(head + l3 + 2)
            l3 += 4
    if kind == IPV4:
        return ipv4_layers(head, n, l3)
    if kind == IPV6:
        return ipv6_layers(head, n, l3)
    return l3
