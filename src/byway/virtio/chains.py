# SPDX-License-Identifier: Apache-2.0
"""Delivering one frame into any chain of receive buffers, or (MRG_RXBUF) into several.

Used by device_tx.py for what is not one plain descriptor, of both ring formats. Uses the walk.

A frame is delivered whole or not at all: first all its chains are walked into segments of host
memory, then header and frame are written over them, then they are listed as done. Chains that turn
out unusable are given back empty. VIRTIO 1.2, 5.1.6.3 (buffers), 5.1.6.4 (num_buffers).
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.mem import ld16_once, ld64, ld64_acq, ld64_once, shr64
from byway.machine.system import prefetch, prefetchw
from byway.packet.batch import HEAD, MAX_CHAIN, SEGMENT, R, batch_at
from byway.packet.offload import wire_length
from byway.packet.reason import Reason
from byway.virtio.borrow import LINE, total_bytes
from byway.virtio.device_rx import BAD_HEAD, available
from byway.virtio.dirty import log_write
from byway.virtio.net_header import put_header
from byway.virtio.publish import (
    BUFFER_TOKEN,
    BUFFER_WORD,
    MAX_MERGED,
    SCRATCH,
    add_done,
    clear_done,
)
from byway.virtio.ring import AVAIL, DESCRIPTOR, ENTRIES, USED, WRAP, WRITE, RingError, vq_at
from byway.virtio.walk import walk

_OVER_MTU = int(Reason.OVER_MTU)
_NO_BUFFERS = int(Reason.NO_BUFFERS)
_SMALL_BUFFER = int(Reason.SMALL_BUFFER)
_NO_TRANSLATION = int(Reason.NO_TRANSLATION)
AHEAD = 1024  # bytes of the next segment that are asked for
_ENDLESS = int(RingError.ENDLESS)


@kernel
def scatter(segs, at, done, source, n):
    """Copy n bytes into segments, from byte ``done`` of segment ``at`` on; -> (at, done) after.

    The caller knows that the segments have room.
    """
    while n > 0:
        piece = min(ld64(segs + SEGMENT * at + 8) - done, n)
        if piece > 0:
            copy_frame(ld64(segs + SEGMENT * at) + done, source, piece)
        source += piece
        n -= piece
        done += piece
        if done == ld64(segs + SEGMENT * at + 8):
            at += 1
            done = 0
            if n > 0:
                ask_for_next(segs + SEGMENT * at, n)
    return at, done


@kernel
def ask_for_next(seg, n):
    """Ask for the first lines of the segment after ``seg``, which is about to be filled, where the
    n bytes that are left reach so far: a processor asks ahead by itself only within a page."""
    length = ld64(seg + 8)
    if n > length:
        a = ld64(seg + SEGMENT)
        for k in range(0, min(ld64(seg + SEGMENT + 8), AHEAD), LINE):
            prefetchw(a + k)


@kernel
def scatter_row(row, header, segs, buffers):
    """Write header and frame into the segments of one or more chains."""
    length = ld64(row + R.len)
    head = ld64(row + R.head)
    put_header(header, head - header, buffers, row)  # in the row's room, private to the worker
    at, done = scatter(segs, 0, 0, head - header, header + min(length, HEAD))
    n = length - HEAD
    nsegs = ld64(row + R.nsegs)
    if n <= 0:
        return
    if nsegs == 0:
        scatter(segs, at, done, ld64(row + R.addr) + HEAD, n)
        return
    source = ld64(row + R.segs)
    skip = HEAD
    for k in range(nsegs):
        piece = ld64(source + SEGMENT * k + 8)
        cut = min(skip, piece)
        skip -= cut
        if k + 1 < nsegs:
            following = source + SEGMENT * (k + 1)
            for line in range(0, min(ld64(following + 8), AHEAD), LINE):
                prefetch(ld64(following) + line)
        at, done = scatter(segs, at, done, ld64(source + SEGMENT * k) + cut, piece - cut)


@kernel
def next_chain(queue, taken):
    """The chain after ``taken`` entries or slots; -> (token, -1: there is none; its first
    descriptor's two words; its slot)."""
    q = vq_at(queue)
    if q.packed == 0:
        if available(queue, taken + 1) <= taken:
            return -1, 0, 0, 0
        head = ld16_once(q.avail + ENTRIES + 2 * ((q.last_avail + taken) & q.mask))
        if head >= q.size:
            q.error = BAD_HEAD
            return -1, 0, 0, 0
        at = q.desc + DESCRIPTOR * head
        return head, ld64_once(at), ld64_once(at + 8), head
    if taken >= q.size:  # once around the ring
        return -1, 0, 0, 0
    slot, fresh = slot_after(queue, taken)
    at = q.desc + DESCRIPTOR * slot
    word = ld64_acq(at + 8)
    if shr64(word, 48) & (AVAIL | USED) != fresh:
        return -1, 0, 0, 0
    return (word >> 32) & 0xFFFF, ld64_once(at), word, slot


@kernel
def slot_after(queue, taken):
    """The slot ``taken`` after the position of a packed ring, at most once around it, and the flags
    of what is available there."""
    q = vq_at(queue)
    slot = (q.last_avail & (WRAP - 1)) + taken
    fresh = AVAIL if q.last_avail & WRAP != 0 else USED
    if slot >= q.size:
        slot -= q.size
        fresh ^= AVAIL | USED
    return slot, fresh


@kernel
def walked_token(queue, head):
    """The token of the chain that was walked last; -> (token, entries or slots that it took)."""
    q = vq_at(queue)
    if q.packed == 0:
        return head, 1
    return q.id | q.slots << 16, q.slots


@kernel
def refuse_chains(batch, done, n):
    """The n chains listed from ``done`` on are given back with nothing in them."""
    for k in range(n):
        clear_done(batch, done + k)


@kernel
def deliver_chains(queue, batch, row, buffer, taken, done):
    """Deliver one frame; -> (entries or slots taken, ``done`` after, 0 or a reason).

    ``buffer``: the BUFFER with the first chain's token and its descriptor as they were loaded.
    With a reason nothing was delivered; what was taken is given back empty.
    """
    q = vq_at(queue)
    segs = batch_at(batch).scratch
    need = q.header + ld64(row + R.len)
    if wire_length(row) > q.max_frame:
        return 0, done, _OVER_MTU
    token, gpa, word = ld64(buffer + BUFFER_TOKEN), ld64(buffer), ld64(buffer + BUFFER_WORD)
    slot = token
    if q.packed != 0:
        slot, _ = slot_after(queue, taken)
    places = 0
    n = 0
    chains = 0
    last = q.steps + SCRATCH
    while need > 0:
        if chains > 0:
            if q.merge == 0:
                return 0, done, _SMALL_BUFFER
            if n > SCRATCH - MAX_CHAIN or chains >= MAX_MERGED or q.steps > last:
                # Shreds: useless for any frame of this size.
                refuse_chains(batch, done, chains)
                return places, done + chains, _SMALL_BUFFER
            token, gpa, word, slot = next_chain(queue, taken + places)
            if token < 0:
                return 0, done, _NO_BUFFERS
        added = walk(queue, gpa, word, slot, WRITE, segs + SEGMENT * n)
        if q.error != 0 or -added == _NO_TRANSLATION:
            return 0, done, _NO_BUFFERS if q.error != 0 else _NO_TRANSLATION
        token, took = walked_token(queue, token)
        places += took
        if taken + places > q.size:
            q.error = _ENDLESS
            return 0, done, _NO_BUFFERS
        capacity = 0
        if added > 0:
            capacity = total_bytes(segs + SEGMENT * n, added)
        add_done(batch, done + chains, token, min(capacity, need), 0)
        chains += 1
        if capacity == 0:
            refuse_chains(batch, done, chains)
            return places, done + chains, -added if added < 0 else _SMALL_BUFFER
        need -= min(capacity, need)
        n += added
    scatter_row(row, q.header, segs, chains)
    if q.log != 0:
        log_segments(q.log, segs, n, q.header + ld64(row + R.len))
    return places, done + chains, 0


@kernel
def log_segments(log, segs, n, octets):
    """Note in the dirty log that the first ``octets`` bytes of n segments were written."""
    for k in range(n):
        piece = min(ld64(segs + SEGMENT * k + 8), octets)
        log_write(log, ld64(segs + SEGMENT * k), piece)
        octets -= piece
