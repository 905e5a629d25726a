# SPDX-License-Identifier: Apache-2.0
"""Bytes taken out of a frame's head, or put in: VLAN tags, the outer headers of tunnels.

Used by switch (trunk, uplink); uses batch.py and offload.py.

Theory of operation
-------------------
A frame is its private head (HEAD bytes at R.head) and the rest, which lies where the sender left
it. R.head never moves: ``look`` fills it anew in each batch.

``strip`` changes a row in place: the head's bytes behind the gap move up, as many bytes of the rest
follow them into the head (read once, private from then on), and the rest begins later.

``insert`` cannot change the row, since a flooded frame goes to others without the new bytes. It
makes a copy of the row with a head of its own. What no longer fits into that head is still in the
first one, so the copy lies in segments: its own head, what is left of the first head, the rest.
A copy lives as long as its batch's delivery to one destination.

The work that a sender left to do (row.offload) moves along.
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64
from byway.packet.batch import HEAD, SEGMENT, R
from byway.packet.offload import NEEDS_CSUM, word_csum_start

_LAST_START = 0xFFFF  # csum_start has 16 bits


@kernel
def moved_offload(word, at, n):
    """The offload word of a frame that grew by ``n`` bytes (shrank, where n < 0) at ``at``.

    0 where what was left to do has gone with the bytes, or is out of a word's reach.
    """
    if word & NEEDS_CSUM == 0:
        return word
    start = word_csum_start(word)
    if n < 0 and start < at - n:
        return 0
    if start + n > _LAST_START:
        return 0
    return word + (n << 32)


# ---------------------------------------------------------------- out
@kernel
def fetch(row, destination, n):
    """Copy the ``n`` bytes that follow the head (there are as many)."""
    if ld64(row + R.nsegs) == 0:
        copy_frame(destination, ld64(row + R.addr) + HEAD, n)
        return
    segs = ld64(row + R.segs)
    skip = HEAD
    for k in range(ld64(row + R.nsegs)):
        piece = ld64(segs + SEGMENT * k + 8)
        cut = min(skip, piece)
        skip -= cut
        piece = min(piece - cut, n)
        if piece > 0:
            copy_frame(destination, ld64(segs + SEGMENT * k) + cut, piece)
            destination += piece
            n -= piece


@kernel
def begin_later(row, n):
    """The frame begins ``n`` bytes later in its sender's memory."""
    if ld64(row + R.nsegs) == 0:
        st64(row + R.addr, ld64(row + R.addr) + n)
        return
    segs = ld64(row + R.segs)
    for k in range(ld64(row + R.nsegs)):
        seg = segs + SEGMENT * k
        piece = min(ld64(seg + 8), n)
        st64(seg, ld64(seg) + piece)
        st64(seg + 8, ld64(seg + 8) - piece)
        n -= piece


@kernel
def strip(row, at, n):
    """Take ``n`` bytes at ``at`` out of a row's frame; both are in its head: at + n <= HEAD, and
    not behind the frame's end."""
    head = ld64(row + R.head)
    length = ld64(row + R.len)
    # Upwards by words, each read before anything is written there; a head has room behind it.
    for k in range(at, min(length, HEAD) - n, 8):
        st64(head + k, ld64(head + k + n))
    if length > HEAD:
        fetch(row, head + HEAD - n, min(n, length - HEAD))
    begin_later(row, n)
    st64(row + R.len, length - n)
    st64(row + R.offload, moved_offload(ld64(row + R.offload), at, -n))


@kernel
def shorten(row, n):
    """Leave only the first n bytes of a row's frame (it has as many)."""
    st64(row + R.len, n)
    for k in range(ld64(row + R.nsegs)):
        seg = ld64(row + R.segs) + SEGMENT * k
        piece = min(ld64(seg + 8), n)
        st64(seg + 8, piece)
        n -= piece


# ---------------------------------------------------------------- in
@kernel
def list_rest(row, seg):
    """Write down from ``seg`` on where the frame lies behind its head; -> behind the last one."""
    left = ld64(row + R.len) - HEAD
    if ld64(row + R.nsegs) == 0:
        st64(seg, ld64(row + R.addr) + HEAD)
        st64(seg + 8, left)
        return seg + SEGMENT
    source = ld64(row + R.segs)
    skip = HEAD
    for k in range(ld64(row + R.nsegs)):
        piece = ld64(source + SEGMENT * k + 8)
        cut = min(skip, piece)
        skip -= cut
        piece = min(piece - cut, left)
        if piece > 0:
            st64(seg, ld64(source + SEGMENT * k) + cut)
            st64(seg + 8, piece)
            seg += SEGMENT
            left -= piece
    return seg


@kernel
def insert(row, copy, seg, at, n):
    """Make ``copy`` the row's frame with ``n`` more bytes at ``at``, which the caller writes into
    the copy's head (at + n <= HEAD, at <= the frame's length).

    Its segments are written from ``seg`` on (BATCH.pieces: three a row, and as many as the row
    has); -> behind the last one.
    """
    head, own = ld64(row + R.head), ld64(copy + R.head)
    length = ld64(row + R.len)
    if at > 0:
        copy_frame(own, head, at)
    behind = min(min(length, HEAD) - at, HEAD - n - at)
    if behind > 0:
        copy_frame(own + at + n, head + at, behind)
    st64(copy + R.addr, own)
    st64(copy + R.len, length + n)
    st64(copy + R.out, ld64(row + R.out))
    st64(copy + R.nsegs, 0)
    st64(copy + R.offload, moved_offload(ld64(row + R.offload), at, n))
    if length + n <= HEAD:
        return seg
    st64(copy + R.segs, seg)
    first = seg
    st64(seg, own)
    st64(seg + 8, HEAD)
    st64(seg + SEGMENT, head + HEAD - n)
    st64(seg + SEGMENT + 8, min(length, HEAD) - (HEAD - n))
    seg += 2 * SEGMENT
    if length > HEAD:
        seg = list_rest(row, seg)
    st64(copy + R.nsegs, (seg - first) // SEGMENT)
    return seg
