# SPDX-License-Identifier: Apache-2.0
"""Borrowing one frame from a guest: a chain of its virtqueue becomes a row of the batch.

Used by device_rx.py for both ring formats. Uses the chain walk and packet's batch.

One descriptor that holds header and frame is the common case (``find_plain``, ``borrow_plain``,
inlined into the loops of device_rx.py); ``borrow_chain`` takes everything else. Where the driver
may leave checksums and segments to us, the virtio header is read too: it mostly lies in a cache
line of its own, so it is asked for first and read when the whole batch is there.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, likely, st64, unlikely
from byway.machine.system import prefetch
from byway.packet.batch import (
    MAX_FRAME,
    MIN_FRAME,
    ROOM,
    SEGMENT,
    R,
    batch_at,
    copy_segments,
    set_dropped,
    set_row,
)
from byway.packet.counters import count_frames
from byway.packet.offload import DATA_VALID, MALFORMED, pieces_of
from byway.packet.reason import Reason
from byway.virtio.memtab import translate
from byway.virtio.net_header import read_offload
from byway.virtio.ring import vq_at
from byway.virtio.walk import walk

_RUNT = int(Reason.RUNT)
_OVER_MTU = int(Reason.OVER_MTU)
_BAD_OFFLOAD = int(Reason.BAD_OFFLOAD)
_NO_TRANSLATION = int(Reason.NO_TRANSLATION)
LINE = 64  # bytes of a cache line
# What a batch takes, at the most: bytes (and the frame that goes beyond), and frames after large
# ones are cut (unless the first of a queue makes more). It bounds what one guest makes the others
# wait, whatever it sends and to however many ports.
MAX_OCTETS = 512 << 10
MAX_PIECES = 1024


@kernel
def total_bytes(segs, n):
    """Bytes of n segments together."""
    total = 0
    for k in range(n):
        total += ld64(segs + SEGMENT * k + 8)
    return total


@kernel
def skip_bytes(segs, n):
    """Cut n bytes off the front of segments that hold more; -> segments used up."""
    first = 0
    while n >= ld64(segs + SEGMENT * first + 8):
        n -= ld64(segs + SEGMENT * first + 8)
        first += 1
    at = segs + SEGMENT * first
    st64(at, ld64(at) + n)
    st64(at + 8, ld64(at + 8) - n)
    return first


@kernel(inline=True)
def find_plain(memtab, gpa0, size0, delta0, gpa, n, write):
    """The host address of guest [gpa, gpa + n), 0 where it is in no one memory region.

    ``gpa0``, ``size0``, ``delta0``: the first region of the table, the largest. ``write``: as
    memtab.translate.
    """
    offset = gpa - gpa0
    if likely(offset >= 0 and offset <= size0 - n):
        return gpa + delta0
    return translate(memtab, gpa, n, write)


@kernel(inline=True)
def borrow_plain(row, a, header, length, offloads):
    """A row whose header and frame lie at ``a``, ``length`` bytes of frame."""
    prefetch(a + header)
    if length > LINE:
        prefetch(a + header + LINE)
    set_row(row, a + header, length)
    if offloads != 0:
        prefetch(a)
        st64(row + R.offload, a)  # where the header lies, until finish_borrowing has read it


@kernel
def borrow_chain(queue, batch, row, gpa, word, slot):
    """Fill ``row`` from any chain (slow lane): header in any layout, frame in segments.

    ``gpa``, ``word``: the first descriptor as it was loaded from ``slot``. -> False where the chain
    is to stay in the ring, because its addresses are not known yet.
    """
    q = vq_at(queue)
    b = batch_at(batch)
    segs = b.segs + SEGMENT * b.nsegs
    n = walk(queue, gpa, word, slot, 0, segs)
    total = 0
    if n > 0:
        total = total_bytes(segs, n) - q.header
    if n < 0:
        if -n == _NO_TRANSLATION:
            return False
        set_dropped(row, -n)
    elif total < MIN_FRAME:
        set_dropped(row, _RUNT)
    elif total > MAX_FRAME:
        set_dropped(row, _OVER_MTU)
    else:
        # The header may be in pieces: it is read from a copy in the row's private room.
        room = ld64(row + R.head) - ROOM
        copy_segments(segs, n, room, q.header)
        first = skip_bytes(segs, q.header)
        set_row(row, ld64(segs + SEGMENT * first), total)
        if q.offloads != 0:
            st64(row + R.offload, room)
        if n - first > 1:
            st64(row + R.segs, segs + SEGMENT * first)
            st64(row + R.nsegs, n - first)
            b.nsegs += n
    return True


@kernel
def read_headers(batch, rows, n):
    """Read the virtio headers of the n rows at ``rows``; -> how many are work for one pass."""
    b = batch_at(batch)
    pieces = b.made
    for k in range(n):
        row = rows + 64 * k
        if ld64(row + R.len) == 0:
            continue
        word = read_offload(ld64(row + R.offload))
        if word == MALFORMED:
            set_dropped(row, _BAD_OFFLOAD)
            continue
        word &= ~DATA_VALID  # for devices to say (5.1.6.2.1)
        pieces += pieces_of(word, ld64(row + R.len))
        if unlikely(pieces > MAX_PIECES and k > 0):
            return k
        b.made = pieces
        st64(row + R.offload, word)
        b.offloads |= word
    return n


@kernel
def finish_borrowing(queue, batch, n, frames, octets):
    """n more rows are filled, ``frames`` of them with frames of ``octets`` bytes together: read
    their headers where that is of use, count; -> rows to be kept, the others stay in the ring."""
    q = vq_at(queue)
    b = batch_at(batch)
    if q.offloads != 0:
        rows = b.rows + 64 * b.n
        n = read_headers(batch, rows, n)
        frames = 0
        octets = 0
        for k in range(n):
            length = ld64(rows + 64 * k + R.len)
            octets += length
            frames += 1 if length > 0 else 0
    b.n += n
    b.octets += octets
    count_frames(q.counters, frames, octets)
    return n
