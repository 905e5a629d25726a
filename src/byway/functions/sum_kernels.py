# SPDX-License-Identifier: Apache-2.0
"""Checksums kept right by what has changed (RFC 1624).

Used by the kernels that set fields; uses packet.checksum. The plain form is in nf/frame.py.

A *change* is what is to be added to a sum: the complement of the old words, and the new ones, of 16
or 32 bits each as they are loaded. Where the sender left the checksum to be completed, its field
holds the sum of the pseudo-header: addresses that change are added there, and all that will be
summed later is left alone.
"""

from byway.functions.parse_kernels import HAS_ICMP, HAS_UDP, SUM, sum_of
from byway.machine.jit import kernel
from byway.machine.mem import ld16, ld32, ld64, st16, unlikely
from byway.packet.batch import HEAD, R
from byway.packet.checksum import folded, sum_bytes
from byway.packet.layers import l3_of
from byway.packet.offload import NEEDS_CSUM, word_csum_offset, word_csum_start

_WORD = 0xFFFFFFFF


@kernel(inline=True)
def change16(old, new):
    """The change of one word of 16 bits."""
    return (old ^ 0xFFFF) + new


@kernel(inline=True)
def change32(old, new):
    """The change of one word of 32 bits."""
    return (old ^ _WORD) + new


@kernel
def taken(at, n):
    """The change when the n bytes there (a multiple of 4) become 0."""
    total = 0
    for k in range(0, n, 4):
        total += ld32(at + k) ^ _WORD
    return total


@kernel(inline=True)
def adjust(at, change):
    """A checksum after a change of what it covers."""
    st16(at, folded((ld16(at) ^ 0xFFFF) + change) ^ 0xFFFF)


@kernel
def is_partial(row, place):
    """Is it the checksum at ``place`` that the sender left to be completed?"""
    word = ld64(row + R.offload)
    return word & NEEDS_CSUM != 0 and word_csum_start(word) + word_csum_offset(word) == place


@kernel(inline=True)
def adjust_any(row, frame, place, change):
    """The transport's checksum, which is all there, after a change of what it covers."""
    at = ld64(row + R.head) + place
    if frame & HAS_UDP != 0:
        if ld16(at) == 0:  # it has none
            return
        adjust(at, change)
        if ld16(at) == 0:
            st16(at, 0xFFFF)
    else:
        adjust(at, change)


@kernel(inline=True)
def adjust_covered(row, frame, change):
    """The transport's checksum after a change of its header, or of what it holds."""
    place = sum_of(frame)
    if place != 0 and not is_partial(row, place):
        adjust_any(row, frame, place, change)


@kernel(inline=True)
def adjust_pseudo(row, frame, change):
    """The transport's checksum after a change of the addresses in IP."""
    place = sum_of(frame)
    if place == 0 or frame & HAS_ICMP != 0:
        return
    if unlikely(is_partial(row, place)):
        at = ld64(row + R.head) + place
        st16(at, folded(ld16(at) + change))
    else:
        adjust_any(row, frame, place, change)


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
        adjust_covered(row, place << SUM, change16(before, after))
