# SPDX-License-Identifier: Apache-2.0
"""The Internet checksum (RFC 1071): a ones' complement sum of 16-bit words.

Used by segment.py and by the router in switch; uses machine only.

The sum does not depend on the byte order (RFC 1071, 2 (B)), so words are added as they are loaded
and the result is stored as it is; only numbers that do not come from the frame are ``swapped``.
Sums are kept unfolded in an int64, which has room for all words of any frame.
"""

from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import fold16, ld8, ld16, ld32, shr64, st16
from byway.machine.words import ld64_of


@kernel
def sum_bytes(address, n):
    """The sum over n bytes, not folded; an odd last byte counts as the first of two."""
    total = 0
    words = n >> 3
    for k in range(words):
        word = ld64_of(address, k)
        total += (word & 0xFFFFFFFF) + shr64(word, 32)
    at = address + 8 * words
    if n & 4 != 0:
        total += ld32(at)
        at += 4
    if n & 2 != 0:
        total += ld16(at)
        at += 2
    if n & 1 != 0:
        total += ld8(at)
    return total


@formula
def folded(total):
    """A sum of non-negative numbers as 16 bits."""
    return fold16(total)


@formula
def swapped(number):
    """A number of 16 bits as it would be loaded from a frame."""
    return (number & 0xFF) << 8 | (number >> 8 & 0xFF)


@kernel
def finished(total, udp):
    """What is stored for a sum: its complement; in UDP 0 means no checksum, so it is 0xFFFF there
    (RFC 768)."""
    value = folded(total) ^ 0xFFFF
    if value == 0 and udp:
        return 0xFFFF
    return value


@kernel
def complete(frame, start, offset, n):
    """Store the checksum over [start, n) of the frame of n bytes at ``frame`` at start + offset,
    where its sender left the pseudo-header's sum (VIRTIO 1.2, 5.1.6.2).

    Which protocol it is, only the place of the field tells: UDP has it at 6.
    """
    st16(frame + start + offset, finished(sum_bytes(frame + start, n - start), offset == 6))


@kernel
def ipv4_checksum(header, n):
    """Set the checksum of the IPv4 header of n bytes (RFC 791, 3.1)."""
    st16(header + 10, 0)
    st16(header + 10, finished(sum_bytes(header, n), False))


@kernel
def adjusted(field, old, new):
    """The checksum in ``field`` after a word that it covers has changed (RFC 1624, 3, equation 3).

    All of 16 bits, as they are loaded from the frame.
    """
    return folded((field ^ 0xFFFF) + (old ^ 0xFFFF) + new) ^ 0xFFFF
