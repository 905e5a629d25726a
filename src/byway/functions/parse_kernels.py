# SPDX-License-Identifier: Apache-2.0
"""Where the headers of a frame begin: one word, which all that reads or sets a header goes by.

Used by chains (once a frame, and again where a function has changed the frame's shape) and by the
kernels of fields.py; uses packet.layers. The plain form is nf/layers.py.

The word: l3 | l4 << 8 | IP's protocol << 16 | version << 24, as packet.layers has it; then a bit
for each header that is there, whole, in the frame's head; then where the transport's checksum
stands (0: nowhere), and where Ethernet begins (not at 0 for what a tunnel carries). A word of 0 is
a frame without headers: whatever is read of it is 0. As most frames are TCP or UDP over IP
without anything else, their words are constants; of IPv4's LLVM makes use behind.
"""

from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld16, ld16be, ld64, ld64be, likely, shr64
from byway.packet.batch import HEAD, R
from byway.packet.layers import (
    FRAGMENT,
    IPV4,
    IPV6,
    SERVICE_VLAN,
    TCP,
    UDP,
    VLAN,
    ipv4_layers,
    ipv6_layers,
    l3_of,
    l4_of,
    protocol_of,
    version_of,
)

ARP = 0x0806
ICMP, ICMPV6 = 1, 58
VXLAN_PORT = 4789
# Bits of the word, by number (IS, HAS: of version, of each header) and as a mask. TCP: at least the
# first 8 bytes of its header (less than all only in what an ICMP error quotes), WHOLE_TCP: 20. OUT:
# the frame is on its way out.
IP_BIT, FRAGMENT_BIT, LATER_BIT = 26, 28, 29
TCP_BIT, UDP_BIT, ICMP_BIT, ICMPV6_BIT, ARP_BIT, VLAN_BIT = 30, 31, 32, 33, 34, 35
ETHERNET_BIT, WHOLE_TCP_BIT, OUT_BIT, IPV4_BIT = 36, 37, 38, 39
SUM, L2 = 40, 48  # shifts: where the checksum and Ethernet are
IPV6_BIT = 56
IS_IP, IS_IPV4, IS_IPV6 = 1 << IP_BIT, 1 << IPV4_BIT, 1 << IPV6_BIT
IS_FRAGMENT, IS_LATER = 1 << FRAGMENT_BIT, 1 << LATER_BIT
HAS_TCP, HAS_UDP = 1 << TCP_BIT, 1 << UDP_BIT
HAS_ICMP, HAS_ICMPV6 = 1 << ICMP_BIT, 1 << ICMPV6_BIT
HAS_ARP, HAS_VLAN, HAS_ETHERNET = 1 << ARP_BIT, 1 << VLAN_BIT, 1 << ETHERNET_BIT
HAS_WHOLE_TCP = 1 << WHOLE_TCP_BIT
OUT = 1 << OUT_BIT
HAS_PORTS = HAS_TCP | HAS_UDP
# Layers of an ICMP message: types whose rest quotes a packet, by bit.
_ERRORS = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 11 | 1 << 12
_ERRORS6 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4
_ARP_HEAD = 0x000108000604  # Ethernet, IPv4, and how long their addresses are

_PLAIN = HAS_ETHERNET | IS_IPV4 | 4 << 24 | 34 << 8 | 14
_PLAIN_TCP = _PLAIN | HAS_TCP | HAS_WHOLE_TCP | TCP << 16 | (34 + 16) << SUM
_PLAIN_UDP = _PLAIN | HAS_UDP | UDP << 16 | (34 + 6) << SUM
_PLAIN_BYTES = 54
_PLAIN6 = HAS_ETHERNET | IS_IPV6 | 6 << 24 | 54 << 8 | 14
_PLAIN6_TCP = _PLAIN6 | HAS_TCP | HAS_WHOLE_TCP | TCP << 16 | (54 + 16) << SUM
_PLAIN6_UDP = _PLAIN6 | HAS_UDP | UDP << 16 | (54 + 6) << SUM
_PLAIN6_BYTES = 74
_IPV4_LE, _IPV6_LE, _FRAGMENT_LE = 0x0008, 0xDD86, 0xFF3F  # as they are loaded
_PLACE = 0xFFFF


@formula
def l2_of(frame):
    """Where Ethernet's header begins."""
    return frame >> L2 & 0xFF


@formula
def sum_of(frame):
    """Where the transport's checksum stands, 0: nowhere."""
    return frame >> SUM & 0xFF


@formula
def if_bit(frame, bit):
    """All bits where a word has this one, else none."""
    return 0 - (frame >> bit & 1)


@kernel
def later_fragment(head, found):
    """The word of an IPv6 packet that is a fragment, but not the first: what is behind the fragment
    header is no header. Others' as they are."""
    l3 = l3_of(found)
    at = l3 + 40
    protocol = ld8(head + l3 + 6)
    for _ in range(HEAD // 8):
        if protocol == FRAGMENT:
            break
        protocol = ld8(head + at)
        at += 8 * (ld8(head + at + 1) + 1)
    if ld16be(head + at + 2) & 0xFFF8 == 0:
        return found
    return found & ~(_PLACE << 8) | (at + 8) << 8 | ld8(head + at) << 16 | IS_LATER


@kernel
def with_transport(head, n, found, quoted):
    """The word with the header at l4 in it, if there is one. ``quoted`` (not 0): of TCP 8 bytes are
    enough."""
    if found & IS_FRAGMENT != 0:
        if version_of(found) == 6:
            found = later_fragment(head, found)
        elif ld16be(head + l3_of(found) + 6) & 0x1FFF != 0:
            found |= IS_LATER
    l4, protocol, version = l4_of(found), protocol_of(found), version_of(found)
    found |= IS_IPV4 if version == 4 else IS_IPV6
    if found & IS_LATER != 0 or n - l4 < 8:
        return found
    if protocol == TCP:
        if n - l4 >= 20:
            return found | HAS_TCP | HAS_WHOLE_TCP | (l4 + 16) << SUM
        return found | HAS_TCP if quoted != 0 else found
    if protocol == UDP:
        return found | HAS_UDP | (l4 + 6) << SUM
    if protocol == ICMP and version == 4:
        return found | HAS_ICMP | (l4 + 2) << SUM
    if protocol == ICMPV6 and version == 6:
        return found | HAS_ICMPV6 | (l4 + 2) << SUM
    return found


@kernel
def parse_ethernet(head, n, l2):
    """The word of an Ethernet frame at ``l2`` in a head of n bytes."""
    l3 = l2 + 14
    if l3 > n:
        return 0
    found = HAS_ETHERNET | l2 << L2
    kind = ld16be(head + l2 + 12)
    for _ in range(2):
        if (kind == VLAN or kind == SERVICE_VLAN) and l3 + 4 <= n:
            found |= HAS_VLAN
            kind = ld16be(head + l3 + 2)
            l3 += 4
    layers = -1
    if kind == IPV4:
        layers = ipv4_layers(head, n, l3)
    elif kind == IPV6:
        layers = ipv6_layers(head, n, l3)
    elif kind == ARP and l3 + 28 <= n and shr64(ld64be(head + l3), 16) == _ARP_HEAD:
        found |= HAS_ARP
    if layers < 0:
        return found | l3
    return found | with_transport(head, n, layers, 0)


@kernel
def parse_any(row):
    """As ``parse``, for any frame."""
    head, n = ld64(row + R.head), ld64(row + R.len)
    if ld16(head + 12) == _IPV6_LE and ld8(head + 14) >> 4 == 6 and n >= _PLAIN6_BYTES:
        protocol = ld8(head + 20)
        if protocol == TCP:
            return _PLAIN6_TCP
        if protocol == UDP:
            return _PLAIN6_UDP
    return parse_ethernet(head, min(n, HEAD), 0)


@kernel(inline=True)
def parse(row):
    """The word of a row's frame, which comes in."""
    head = ld64(row + R.head)
    if likely(ld16(head + 12) == _IPV4_LE and ld8(head + 14) == 0x45
              and ld64(row + R.len) >= _PLAIN_BYTES and ld16(head + 20) & _FRAGMENT_LE == 0):
        protocol = ld8(head + 23)
        if protocol == TCP:
            return _PLAIN_TCP
        if protocol == UDP:
            return _PLAIN_UDP
    return parse_any(row)


@kernel(inline=True)
def parse_out(row):
    """The word of a row's frame, which goes out."""
    return parse(row) | OUT


@kernel
def parse_again(row, frame):
    """The word of a row whose frame has changed its shape; ``frame``: the word before."""
    return parse_any(row) | frame & OUT


# ---------------------------------------------------------------- headers in headers
@kernel
def vxlan_at(row, frame):
    """Where the VXLAN header stands in the head, 0: there is none (RFC 7348)."""
    if frame & HAS_UDP == 0:
        return 0
    head, l4 = ld64(row + R.head), l4_of(frame)
    n = min(ld64(row + R.len), HEAD)
    if l4 + 16 > n or ld16be(head + l4 + 2) != VXLAN_PORT or ld8(head + l4 + 8) & 0x08 == 0:
        return 0
    return l4 + 8


@kernel
def parse_inner(row, frame):
    """The word of the frame in a VXLAN packet, 0: there is none."""
    at = vxlan_at(row, frame)
    if at == 0:
        return 0
    return parse_ethernet(ld64(row + R.head), min(ld64(row + R.len), HEAD), at + 8)


@kernel
def parse_quoted(row, frame):
    """The word of the packet that an ICMP or ICMPv6 error quotes, 0: there is none."""
    head, l4 = ld64(row + R.head), l4_of(frame)
    n = min(ld64(row + R.len), HEAD)
    layers = -1
    if frame & HAS_ICMP != 0:
        kind = ld8(head + l4)
        if kind < 16 and _ERRORS >> kind & 1 != 0:
            layers = ipv4_layers(head, n, l4 + 8)
    elif frame & HAS_ICMPV6 != 0:
        kind = ld8(head + l4)
        if kind < 16 and _ERRORS6 >> kind & 1 != 0:
            layers = ipv6_layers(head, n, l4 + 8)
    if layers < 0:
        return 0
    return with_transport(head, n, layers, 1)
