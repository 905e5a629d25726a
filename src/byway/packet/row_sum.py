# SPDX-License-Identifier: Apache-2.0
"""The checksum's sum over a frame that lies in pieces.

Used by switch (a tunnel's outer checksum on the way in) and ports (on the way out); uses
checksum.py. What follows the head is read from the sender's memory, which may change: then the
checksum is wrong, as if the frame had been damaged on its way, and nothing else.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64
from byway.packet.batch import HEAD, SEGMENT, R
from byway.packet.checksum import folded, sum_bytes, swapped


@kernel
def with_piece(total, done, address, n):
    """A sum over ``done`` bytes, and n more at ``address``. Behind an odd number of bytes all
    words are the other way round (RFC 1071, 2 (B))."""
    piece = sum_bytes(address, n)
    if done & 1 != 0:
        piece = swapped(folded(piece))
    return total + piece


@kernel
def sum_row(row, start, n):
    """The sum over the n bytes from ``start`` on of a row's frame; start <= HEAD, and the frame is
    as long. Not folded."""
    head = ld64(row + R.head)
    done = min(n, HEAD - start)
    total = sum_bytes(head + start, done)
    if n == done:
        return total
    if ld64(row + R.nsegs) == 0:
        return with_piece(total, done, ld64(row + R.addr) + HEAD, n - done)
    segs = ld64(row + R.segs)
    skip = HEAD
    for k in range(ld64(row + R.nsegs)):
        piece = ld64(segs + SEGMENT * k + 8)
        cut = min(skip, piece)
        skip -= cut
        piece = min(piece - cut, n - done)
        if piece > 0:
            total = with_piece(total, done, ld64(segs + SEGMENT * k) + cut, piece)
            done += piece
    return total
