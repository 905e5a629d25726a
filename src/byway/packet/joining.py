# SPDX-License-Identifier: Apache-2.0
"""Consecutive TCP segments of one flow become one large frame, as a receiving NIC would do (LRO).

    count = joinable(first, n, stride, rest)      # segments that go together, 1: none do
    join(row, first, n, stride, count, last, segs)
    if goes_on(row, other):                       # where the next lot begins with the same flow
        append(row, other)

Used by ports where segments come several in one piece of private memory (tunnels); uses checksum.py
and offload.py. Sources: RFC 791, RFC 8200, RFC 9293; what may be joined is what Linux joins
(net/ipv4/tcp_offload.c: same headers, in order).

Theory of operation
-------------------
The segments lie at equal distances (``stride``), each behind 8 bytes of a tunnel's header, which
must be the same for all: ``first`` is the address of the first frame, of n bytes as all but the
last, which may be shorter. Nothing is copied: the row lists the first frame
whole, then the payloads of the others. Its IP header gets the new length, and its checksum field
the sum of the pseudo-header, with NEEDS_CSUM: whoever takes large frames goes on from there, for
all others the frame is cut again (segment.py).

Whoever gets NEEDS_CSUM takes the payload for good. So a segment is joined only after its checksums,
IP's and TCP's, were found right. One that is damaged stays a frame of its own and is found out
where its way ends.

Joined are plain frames: no VLAN tag, no IP options or extension headers, no fragments, no flags but
ACK, PSH and ECE, and a payload. PSH ends a frame, as does a segment that is shorter than the first.

A large frame may have come in two lots, as UDP carries less than a large frame has once each of its
segments is encapsulated. So the first row of a lot is held against the last one of the lot before.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld16, ld16be, ld32, ld32be, ld64, likely, st8, st16, st16be, st64
from byway.packet.batch import HEAD, MAX_CHAIN, SEGMENT, R, set_row
from byway.packet.checksum import folded, ipv4_checksum, sum_bytes, swapped
from byway.packet.layers import IPV4, IPV6, TCP
from byway.packet.offload import (
    GSO_TCPV4,
    GSO_TCPV6,
    NEEDS_CSUM,
    TCP_CHECKSUM,
    word_csum_start,
    word_gso,
    word_gso_size,
)

_ETHERNET, _IPV4_L4, _IPV6_L4 = 14, 34, 54
_TCP_HEADER = 20
_ACK, _PSH, _ECE = 0x10, 0x08, 0x40
_DONT_FRAGMENT, _FRAGMENT = 0x4000, 0x3FFF
TUNNEL_HEADER = 8
_LONGEST = 0xFFFF  # what fits into IP's length field


@kernel
def tcp_header(frame, n):
    """-> where TCP begins | where the payload does << 8 in the frame of n bytes at ``frame``; 0
    where it is nothing to be joined."""
    l4 = 0
    if n > _IPV4_L4 + _TCP_HEADER and ld16be(frame + 12) == IPV4 and ld8(frame + 14) == 0x45:
        if ld8(frame + 23) == TCP and ld16be(frame + 20) & _FRAGMENT == 0 \
                and ld16be(frame + 16) == n - _ETHERNET:
            l4 = _IPV4_L4
    elif n > _IPV6_L4 + _TCP_HEADER and ld16be(frame + 12) == IPV6 and ld8(frame + 14) >> 4 == 6:
        if ld8(frame + 20) == TCP and ld16be(frame + 18) == n - _IPV6_L4:
            l4 = _IPV6_L4
    if l4 == 0:
        return 0
    header = l4 + 4 * (ld8(frame + l4 + 12) >> 4)
    flags = ld8(frame + l4 + 13)
    if header < l4 + _TCP_HEADER or header >= n or header > HEAD or flags & _ACK == 0 \
            or flags & ~(_ACK | _PSH | _ECE) != 0:
        return 0
    return l4 | header << 8


@kernel
def pseudo_sum(frame, l4, length):
    """The sum of the pseudo-header of ``length`` bytes of TCP."""
    total = swapped(TCP) + swapped(length)
    if l4 == _IPV4_L4:
        return total + sum_bytes(frame + 26, 8)
    return total + sum_bytes(frame + 22, 32)


@kernel
def intact(frame, n, l4):
    """Are the checksums of a TCP segment right?"""
    if l4 == _IPV4_L4 and folded(sum_bytes(frame + _ETHERNET, 20)) != 0xFFFF:
        return False
    return folded(pseudo_sum(frame, l4, n - l4) + sum_bytes(frame + l4, n - l4)) == 0xFFFF


@kernel
def same_ip(first, frame, l4, k):
    """Do the headers up to TCP's say the same in the k-th frame behind the first?"""
    if ld64(first) != ld64(frame) or ld64(first + 6) != ld64(frame + 6):  # up to the type
        return False
    if l4 == _IPV4_L4:
        word = ld16be(first + 20)
        ident = (ld16be(first + 18) + k) & 0xFFFF
        return ld16(first + 14) == ld16(frame + 14) and word == ld16be(frame + 20) \
            and ld16(first + 22) == ld16(frame + 22) and ld64(first + 26) == ld64(frame + 26) \
            and (word & _DONT_FRAGMENT != 0 or ident == ld16be(frame + 18))
    return ld32(first + 14) == ld32(frame + 14) and ld16(first + 20) == ld16(frame + 20) \
        and ld64(first + 22) == ld64(frame + 22) and ld64(first + 30) == ld64(frame + 30) \
        and ld64(first + 38) == ld64(frame + 38) and ld64(first + 46) == ld64(frame + 46)


@kernel
def follows(first, frame, found, n, k):
    """Does the k-th frame behind the first go on where the one before it ends? ``found``: what
    tcp_header says of both; n: bytes of the first."""
    l4, header = found & 0xFF, found >> 8
    a, b = first + l4, frame + l4
    if ld32(a) != ld32(b) or ld32(a + 8) != ld32(b + 8) or ld16(a + 14) != ld16(b + 14):
        return False  # ports, what is acknowledged, window
    if ld8(a + 12) != ld8(b + 12) or (ld8(a + 13) ^ ld8(b + 13)) & ~_PSH != 0:
        return False
    if ld32be(b + 4) != (ld32be(a + 4) + k * (n - header)) & 0xFFFFFFFF:
        return False
    for at in range(_TCP_HEADER, header - l4, 4):
        if ld32(a + at) != ld32(b + at):
            return False
    return same_ip(first, frame, l4, k)


@kernel
def joinable(first, n, stride, rest):
    """How many frames from ``first`` on are to be joined, 1: it stays alone.

    ``rest``: bytes from its start to the end of the last frame that there is; every ``stride``
    bytes one begins.
    """
    found = tcp_header(first, n)
    if found == 0 or rest <= stride:
        return 1
    l4 = found & 0xFF
    count = 1
    length = n - _ETHERNET
    at = stride
    while at < rest and count < MAX_CHAIN and ld8(first + at - stride + l4 + 13) & _PSH == 0:
        frame = first + at
        here = min(n, rest - at)
        length += here - (found >> 8)
        if tcp_header(frame, here) != found or length > _LONGEST \
                or ld64(first - TUNNEL_HEADER) != ld64(frame - TUNNEL_HEADER) \
                or not follows(first, frame, found, n, count):
            break
        if count == 1 and not intact(first, n, l4):
            break
        if not intact(frame, here, l4):
            break
        count += 1
        at += stride
        if here < n:
            break
    return count


@kernel
def put_lengths(first, l4, length, flags):
    """Make the headers at ``first`` those of a frame of so many bytes, with these flags as well."""
    st8(first + l4 + 13, flags | ld8(first + l4 + 13))
    if likely(l4 == _IPV4_L4):
        st16be(first + 16, length - _ETHERNET)
        ipv4_checksum(first + _ETHERNET, 20)
    else:
        st16be(first + 18, length - _IPV6_L4)
    st16(first + l4 + TCP_CHECKSUM, folded(pseudo_sum(first, l4, length - l4)))


@kernel
def join(row, first, n, stride, count, last, segs):
    """Make one frame in ``row`` of ``count`` frames, the last of which has ``last`` bytes; its
    segments are listed at ``segs``."""
    found = tcp_header(first, n)
    l4, header = found & 0xFF, found >> 8
    st64(segs, first)
    st64(segs + 8, n)
    length = n
    for k in range(1, count):
        piece = (last if k == count - 1 else n) - header
        st64(segs + SEGMENT * k, first + stride * k + header)
        st64(segs + SEGMENT * k + 8, piece)
        length += piece
    put_lengths(first, l4, length, ld8(first + stride * (count - 1) + l4 + 13))
    gso = GSO_TCPV4 if l4 == _IPV4_L4 else GSO_TCPV6
    set_row(row, first, length)
    st64(row + R.segs, segs)
    st64(row + R.nsegs, count)
    st64(row + R.offload,
         NEEDS_CSUM | gso << 8 | (n - header) << 16 | l4 << 32 | TCP_CHECKSUM << 48)


@kernel
def goes_on(row, other):
    """Does the frame of one row, joined or plain, go on where the joined one of another ends? The
    segments of both, where they have any, are listed one behind the other."""
    word = ld64(row + R.offload)
    if word_gso(word) == 0:
        return False
    first, frame = ld64(row + R.addr), ld64(other + R.addr)
    n, count = ld64(other + R.len), ld64(row + R.nsegs)
    l4, size = word_csum_start(word), word_gso_size(word)
    header = l4 + 4 * (ld8(first + l4 + 12) >> 4)
    found = l4 | header << 8
    if ld64(row + R.len) != header + size * count or ld8(first + l4 + 13) & _PSH != 0 \
            or ld64(row + R.len) + n - header - _ETHERNET > _LONGEST \
            or count + max(ld64(other + R.nsegs), 1) > MAX_CHAIN:
        return False
    if ld64(other + R.offload) != word:
        if ld64(other + R.offload) != 0 or n > header + size or tcp_header(frame, n) != found:
            return False
    if ld64(first - TUNNEL_HEADER) != ld64(frame - TUNNEL_HEADER) \
            or not follows(first, frame, found, header + size, count):
        return False
    return ld64(other + R.offload) == word or intact(frame, n, l4)


@kernel
def append(row, other):
    """Make one frame of two, in ``row``; -> segments that were added to its list."""
    word = ld64(row + R.offload)
    first, frame = ld64(row + R.addr), ld64(other + R.addr)
    l4, count = word_csum_start(word), ld64(row + R.nsegs)
    header = l4 + 4 * (ld8(first + l4 + 12) >> 4)
    segs = ld64(row + R.segs) + SEGMENT * count
    piece = ld64(other + R.len)
    more = ld64(other + R.nsegs)
    length = ld64(row + R.len) + piece - header
    if more > 0:
        piece = ld64(segs + 8)  # the first of the other's list, a whole frame
    st64(segs, frame + header)
    st64(segs + 8, piece - header)
    put_lengths(first, l4, length, ld8(frame + l4 + 13))
    st64(row + R.len, length)
    st64(row + R.nsegs, count + max(more, 1))
    return 1 if more == 0 else 0
