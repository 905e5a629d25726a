# SPDX-License-Identifier: Apache-2.0
"""Checksums kept right by what has changed (RFC 1624).

Used by the kernels that set fields; uses packet.checksum. The plain form is in nf/frame.py.

A *change* is what is to be added to a sum: the complement of the old words, and the new ones, as
they are loaded. It is not folded; and it is 0 only where all bits were set before and none is now.
Where the sender left the checksum to be completed, its field holds the sum of the pseudo-header:
addresses that change are added there, and all that will be summed later is left alone.
"""

from byway.functions.parse_kernels import HAS_UDP, SUM, sum_of
from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import ld16, ld32, ld64, st16, st16be, st32be, unlikely
from byway.packet.batch import HEAD, R
from byway.packet.checksum import folded, sum_bytes
from byway.packet.layers import l3_of
from byway.packet.offload import NEEDS_CSUM, word_csum_offset, word_csum_start

_WORD = 0xFFFFFFFF
_FAR = 0x1FFFF  # more than two places in a frame can be apart


@formula
def change16(old, new):
    """The change of one word of 16 bits."""
    return (old ^ 0xFFFF) + new


@formula
def put16(at, value):
    """Store 16 bits in network byte order; -> the change."""
    old = ld16(at)
    st16be(at, value)
    return (old ^ 0xFFFF) + ld16(at)


@formula
def put32(at, value):
    """Store 32 bits in network byte order; -> the change."""
    old = ld32(at)
    st32be(at, value)
    return (old ^ _WORD) + ld32(at)


@kernel
def taken(at, n):
    """The change when the n bytes there (a multiple of 4) become 0."""
    total = 0
    for k in range(0, n, 4):
        total += ld32(at + k) ^ _WORD
    return folded(total)


@formula
def adjusted(field, change):
    """A checksum after a change of what it covers."""
    return folded((field ^ 0xFFFF) + change) ^ 0xFFFF


@formula
def adjust(at, change):
    """Have the checksum at ``at`` follow a change of what it covers."""
    st16(at, adjusted(ld16(at), change))
    return 0


@formula
def is_partial(word, place):
    """Is it (1, or 0) the checksum at ``place`` that the offload word leaves to be completed?"""
    apart = word_csum_start(word) + word_csum_offset(word) ^ place
    return word & NEEDS_CSUM & ~(apart + _FAR >> 17)


@kernel(inline=True)
def adjust_transport(row, frame, change, pseudo):
    """Have the transport's checksum follow a change of its header, or of what it holds, and another
    one, ``pseudo``, of the addresses in IP (which ICMP's does not cover: not for that)."""
    place = sum_of(frame)
    if place == 0:
        return
    at = ld64(row + R.head) + place
    field = ld16(at)
    word = ld64(row + R.offload)
    partial = 0
    if unlikely(word & NEEDS_CSUM != 0):
        partial = is_partial(word, place)
    if unlikely(partial != 0):
        if pseudo != 0:
            st16(at, folded(field + pseudo))
    elif frame & HAS_UDP == 0:
        st16(at, adjusted(field, change + pseudo))
    elif field != 0:  # UDP's sender made one
        field = adjusted(field, change + pseudo)
        st16(at, field if field != 0 else 0xFFFF)


# ---------------------------------------------------------------- a quoted packet
@kernel
def quoted_before(row, quoted):
    """To be called before a field of a quoted packet is set: what ``quoted_after`` is given."""
    if quoted == 0:
        return 0
    l3 = l3_of(quoted)
    return folded(sum_bytes(ld64(row + R.head) + l3, min(ld64(row + R.len), HEAD) - l3))


@kernel
def quoted_after(row, quoted, before):
    """The checksum of the ICMP message around a quoted packet in which something was set."""
    after = quoted_before(row, quoted)
    if after != before:
        place = l3_of(quoted) - 6  # the message's header of 8 bytes has it at 2
        adjust_transport(row, place << SUM, change16(before, after), 0)
