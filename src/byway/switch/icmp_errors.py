# SPDX-License-Identifier: Apache-2.0
"""ICMP and ICMPv6 errors of the gateway: the row of a packet that cannot go on becomes the error.

Used by router.py; uses gateway.py, nd.py, router_limits.py.

Theory of operation
-------------------
The error goes back by the port that the packet came from, to the MAC address that it came from:
whatever source address it claims, nobody else gets the error. Where another frame takes the place
of one that is dropped, the drop is counted here (BATCH.counters).

No error is sent (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7; RFC 4443, 2.4 (e)) about an ICMP error or a
redirect, about a fragment other than the first, about what was sent to a group, or from an address
that is not one station's (router.py has dropped both before), nor where the headers do not show
which of these it is. How many are sent is limited (router_limits.py).

Limits: the packet is quoted as far as it fits into a head together with the error's headers: 86
bytes in IPv4, 66 in IPv6. That is more than RFC 792 asks for, and enough to tell a TCP, UDP or echo
flow; RFC 1812 and RFC 4443 would have more of it.
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16be,
    ld32,
    ld32be,
    ld64,
    ld64be,
    shr64,
    st8,
    st16,
    st16be,
    st32,
    st32be,
    st64,
    st64be,
)
from byway.packet.batch import HEAD, ROOM, R, batch_at, dropped
from byway.packet.checksum import finished, ipv4_checksum, sum_bytes
from byway.packet.counters import count_drops
from byway.packet.layers import (
    HIDDEN,
    ipv6_layers,
    is_fragment,
    l4_of,
    protocol_of,
)
from byway.packet.offload import word_gso
from byway.switch.arp import L3, replace, set_macs
from byway.switch.echo import TTL
from byway.switch.gateway import own_mac, speaks_from
from byway.switch.nd import ICMPV6, REDIRECT, icmpv6_sum
from byway.switch.router_limits import may_send_error
from byway.switch.routes import MAPPED

ICMP = 1
# Types (RFC 792; RFC 4443, 3). An error is asked for as type << 8 | code.
UNREACHABLE, TIME_EXCEEDED = 3, 11
NET_UNREACHABLE, PROTOCOL_UNREACHABLE, PORT_UNREACHABLE, TOO_BIG = 0x300, 0x302, 0x303, 0x304
EXPIRED = 0xB00
NO_ROUTE6, BEYOND_SCOPE6, PORT_UNREACHABLE6, TOO_BIG6, EXPIRED6 = 0x100, 0x102, 0x104, 0x200, 0x300
FIRST_QUERY6 = 128  # the types below are errors
ERRORS = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 11 | 1 << 12  # ICMP's, by type

HEADER, HEADER6 = L3 + 28, L3 + 48  # bytes in front of the quotation
INTERNETWORK_CONTROL = 0xC0  # type of service (RFC 1812, 4.3.2.5)
DONT_FRAGMENT = 0x4000


@kernel
def may_be_about(head, n):
    """Is an IPv4 packet one that errors may be about?"""
    if ld16be(head + L3 + 6) & 0x1FFF != 0:
        return False
    if ld8(head + L3 + 9) != ICMP:
        return True
    l4 = L3 + 4 * (ld8(head + L3) & 15)
    if l4 >= n:
        return False
    kind = ld8(head + l4)
    return kind > 31 or ERRORS >> kind & 1 == 0


@kernel
def may_be_about_ipv6(head, n):
    """Is an IPv6 packet one that errors may be about?"""
    found = ipv6_layers(head, n, L3)
    if found < 0 or protocol_of(found) == HIDDEN:
        return False
    if protocol_of(found) != ICMPV6:
        return True
    l4 = l4_of(found)
    if l4 >= n or is_fragment(found):
        return False
    kind = ld8(head + l4)
    return kind >= FIRST_QUERY6 and kind != REDIRECT


@kernel
def quoted(row, head, header, length):
    """Move as much of the packet, of ``length`` bytes, as fits behind ``header`` bytes there; -> as
    how many bytes that is."""
    n = min(ld64(row + R.len), HEAD) - L3
    n = min(n, HEAD - header)
    if word_gso(ld64(row + R.offload)) == 0:
        n = min(n, length)  # not the frame's padding
    copy_frame(head - ROOM, head + L3, n)
    copy_frame(head + header, head - ROOM, n)
    return n


@kernel
def write_error(row, source, error, word):
    """The row becomes an ICMP error from the own ADDRESS ``source``; ``word``: its second."""
    head = ld64(row + R.head)
    ip = head + L3
    target = ld32(ip + 12)
    n = quoted(row, head, HEADER, ld16be(ip + 2))
    st32be(ip, 0x45 << 24 | INTERNETWORK_CONTROL << 16 | (28 + n))
    st32be(ip + 4, DONT_FRAGMENT)
    st32be(ip + 8, TTL << 24 | ICMP << 16)
    st32be(ip + 12, ld64(source + 8))
    st32(ip + 16, target)
    ipv4_checksum(ip, 20)
    st32be(ip + 20, error << 16)
    st32be(ip + 24, word)
    st16(ip + 22, finished(sum_bytes(ip + 20, 8 + n), False))
    replace(row, HEADER + n)


@kernel
def write_error_ipv6(row, source, error, word):
    """As ``write_error``, for ICMPv6."""
    head = ld64(row + R.head)
    ip = head + L3
    high, low = ld64(ip + 8), ld64(ip + 16)
    n = quoted(row, head, HEADER6, 40 + ld16be(ip + 4))
    st32be(ip, 6 << 28)
    st16be(ip + 4, 8 + n)
    st8(ip + 6, ICMPV6)
    st8(ip + 7, TTL)
    st64be(ip + 8, ld64(source))
    st64be(ip + 16, ld64(source + 8))
    st64(ip + 24, high)
    st64(ip + 32, low)
    st32be(ip + 40, error << 16)
    st32be(ip + 44, word)
    st16(ip + 42, finished(icmpv6_sum(ip, 8 + n), False))
    replace(row, HEADER6 + n)


@kernel
def send_error(row, batch, router, gateway, error, word, reason):
    """Drop the packet in the row for ``reason`` and send an error about it, if one may be sent."""
    head = ld64(row + R.head)
    n = min(ld64(row + R.len), HEAD)
    st64(row + R.out, dropped(reason))
    version = ld8(head + L3) >> 4
    high = 0
    low = MAPPED | ld32be(head + L3 + 12)
    if version == 6:
        high = ld64be(head + L3 + 8)
        low = ld64be(head + L3 + 16)
        if not may_be_about_ipv6(head, n):
            return
    elif not may_be_about(head, n):
        return
    source = speaks_from(gateway, high, low)
    if source == 0 or not may_send_error(router, batch):
        return
    b = batch_at(batch)
    count_drops(b.counters, reason, 1)
    set_macs(head, shr64(ld64be(head + 6), 16), own_mac(gateway))
    if version == 6:
        write_error_ipv6(row, source, error, word)
    else:
        write_error(row, source, error, word)
    st64(row + R.out, b.origin)
