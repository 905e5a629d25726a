# SPDX-License-Identifier: Apache-2.0
"""Which packets a router looks at any further: headers, lengths, sources.

Used by router.py; uses packet. RFC 791, RFC 1812, 5.2.2 and 5.3.7; RFC 8200, RFC 4291.

The sender wrote every byte, and what is not read here from the head is not believed later. Lengths
and IPv4's checksum in a frame that is to be cut into segments are not looked at: they are made with
the segments (packet.offload).
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld16be, ld32be, ld64, likely, unlikely
from byway.packet.batch import R
from byway.packet.checksum import folded, sum_bytes
from byway.packet.offload import wire_length, word_gso
from byway.packet.reason import Reason
from byway.switch.arp import L3
from byway.switch.nd import L4

_BAD_IP = int(Reason.BAD_IP)
_MARTIAN = int(Reason.MARTIAN)

LOOSE_ROUTE, STRICT_ROUTE = 131, 137  # IPv4 options: source routes
NO_OPTION, END_OF_OPTIONS = 1, 0
LINK_LOCAL = 0xA9FE  # 169.254/16


@kernel
def options_fit(ip, size):
    """Are an IPv4 header's options well-formed, and none of them a source route (RFC 7126, 4.3 and
    4.4)?"""
    at = 20
    good = True
    for _ in range(40):
        if at >= size or not good:
            break
        kind = ld8(ip + at)
        if kind == END_OF_OPTIONS:
            break
        if kind == NO_OPTION:
            at += 1
        else:
            length = ld8(ip + at + 1) if at + 1 < size else 0
            good = length >= 2 and at + length <= size and kind != LOOSE_ROUTE \
                and kind != STRICT_ROUTE
            at += length
    return good


@kernel
def checked_ipv4(row):
    """-> 0, or the reason why an IPv4 packet is not looked at any further (RFC 1812, 5.2.2)."""
    head = ld64(row + R.head)
    length = ld64(row + R.len)
    if length < L3 + 20:
        return _BAD_IP
    ip = head + L3
    size = 4 * (ld8(ip) & 15)
    if ld8(ip) >> 4 != 4 or size < 20 or L3 + size > length:
        return _BAD_IP
    if likely(word_gso(ld64(row + R.offload)) == 0):  # else neither is made yet
        total = ld16be(ip + 2)
        if total < size or L3 + total > length or folded(sum_bytes(ip, size)) != 0xFFFF:
            return _BAD_IP
    source = ld32be(ip + 12)
    first = source >> 24
    if first == 0 or first == 127 or first >= 224 or source >> 16 == LINK_LOCAL:
        return _MARTIAN  # RFC 1812, 5.3.7; RFC 3927, 2.7
    if unlikely(size > 20) and not options_fit(ip, size):
        return _MARTIAN
    return 0


@kernel
def checked_ipv6(row):
    """As ``checked_ipv4``, for IPv6 (RFC 8200, 3; RFC 4291, 2.5 and 2.7)."""
    head = ld64(row + R.head)
    length = ld64(row + R.len)
    ip = head + L3
    if length < L4 or ld8(ip) >> 4 != 6:
        return _BAD_IP
    if word_gso(ld64(row + R.offload)) == 0 and L4 + ld16be(ip + 4) > length:
        return _BAD_IP
    # ::, ::1 and what stands for IPv4 addresses; groups.
    if ld64(ip + 8) == 0 or ld64(ip + 24) == 0 or ld8(ip + 8) == 0xFF or ld8(ip + 24) == 0xFF:
        return _MARTIAN
    return 0


@kernel
def packet_length(row, ip, version):
    """Bytes of the longest IP packet that the row makes on the wire."""
    if unlikely(word_gso(ld64(row + R.offload)) != 0):
        return wire_length(row) - L3
    if version == 4:
        return ld16be(ip + 2)
    return 40 + ld16be(ip + 4)
