# SPDX-License-Identifier: Apache-2.0
"""The driver's side of a virtqueue: send frames to a device, receive frames from it.

Used by ports (virtio-user) and byway.testing (the fake guest). What a ring looks like, split or
packed, is driver_ring.py's; here are frames. Uses net_header and packet's batch.

Theory of operation
-------------------
Every buffer has the virtio header in front of the frame, in memory that the device shares
(VERSION_1: any layout, 5.1.6.2); a frame longer than a buffer takes a chain of several. The device
is not trusted either: what it says in the ring is checked against our own record, what it says in
a header is read once and checked, and a frame's head is copied out before anything looks at it.
What is wrong with a frame drops it; what is wrong with the ring sets ``error``, and the queue is
then left alone.

Transmit: free buffers go out and come back when the device has used them, looked for when there
are too few. Receive: all buffers are posted at the start, and again as soon as their frame was
delivered. ``driver_rx`` puts buffers on the list ``taken`` as it finds them used, and makes rows of
the list; a row's token says how far the list is used up then, and ``driver_give_back`` posts those
buffers again. With MRG_RXBUF a frame may take several buffers (5.1.6.4). While they are not all
used it stays on the list, and what comes behind it waits as well: they belong together in the
device's own word, so one that never sends the rest harms its own port only.
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.mem import fence, ld16_once, ld64, likely, shr64, st8, st64, unlikely
from byway.machine.system import prefetch
from byway.packet.batch import (
    HEAD,
    MAX_CHAIN,
    MAX_FRAME,
    MIN_FRAME,
    ROWS,
    SEGMENT,
    SEGMENTS,
    R,
    batch_at,
    copy_whole,
    set_dropped,
    set_row,
)
from byway.packet.counters import count_drops, count_frames
from byway.packet.offload import DATA_VALID, MALFORMED, NEEDS_CSUM, pieces_of, wire_length
from byway.packet.reason import Reason
from byway.virtio.borrow import MAX_OCTETS, MAX_PIECES
from byway.virtio.driver_notify import kick_device
from byway.virtio.driver_ring import BYTES, COUNT, choose, collect, following, post, publish
from byway.virtio.net_header import BUFFERS, put_header, read_offload
from byway.virtio.ring import NEXT, WRITE, driver_at

_OVER_MTU = int(Reason.OVER_MTU)
_NO_BUFFERS = int(Reason.NO_BUFFERS)
_SMALL_BUFFER = int(Reason.SMALL_BUFFER)
_BAD_LENGTH = int(Reason.BAD_LENGTH)
_BAD_OFFLOAD = int(Reason.BAD_OFFLOAD)


# ---------------------------------------------------------------- receive
@kernel(entry=True)
def driver_fill(queue, kick):
    """Post every receive buffer (once, when the queue starts); ``kick``: and tell the device."""
    d = driver_at(queue)
    for buffer in range(d.size):
        post(queue, buffer, buffer, buffer, d.buffer_size, WRITE)
    publish(queue, d.size, d.size, WRITE)
    if kick != 0:
        fence()
        kick_device(queue)
    return d.size


@kernel
def join(queue, batch, row, at, n):
    """Make a row of a frame in the n buffers on the list from ``at`` on; -> 0 or a reason."""
    d = driver_at(queue)
    b = batch_at(batch)
    segs = b.segs + SEGMENT * b.nsegs
    skip = d.header
    total = 0
    for k in range(n):
        word = ld64(d.taken + 8 * (at + k))
        length = shr64(word, 32)
        if length <= skip or length > d.buffer_size:
            return _BAD_LENGTH
        st64(segs + SEGMENT * k, d.buffers + (word & 0xFFFF) * d.buffer_size + skip)
        st64(segs + SEGMENT * k + 8, length - skip)
        total += length - skip
        skip = 0
    if total < MIN_FRAME or total > MAX_FRAME:
        return _BAD_LENGTH
    set_row(row, ld64(segs), total)
    if n > 1:
        st64(row + R.segs, segs)
        st64(row + R.nsegs, n)
        b.nsegs += n
    return 0


@kernel(inline=True)
def receive(queue, batch, row, at):
    """Make a row of the frame that begins with the list's entry ``at``; -> buffers that it takes.

    0 where not all of them were used yet, or the batch has no room for its segments.
    """
    d = driver_at(queue)
    word = ld64(d.taken + 8 * at)
    a = d.buffers + (word & 0xFFFF) * d.buffer_size
    length = shr64(word, 32)
    if unlikely(length < d.header or length > d.buffer_size):
        set_dropped(row, _BAD_LENGTH)
        return 1
    n = 1
    if d.merge != 0:
        n = ld16_once(a + BUFFERS)
        if unlikely(n == 0 or n > min(MAX_CHAIN, d.size)):
            set_dropped(row, _BAD_LENGTH)
            return 1
        if d.ntaken - at < n:
            collect(queue, at + n)
            if d.ntaken - at < n:
                return 0
    reason = 0
    if likely(n == 1 and length >= d.header + MIN_FRAME and length <= d.header + MAX_FRAME):
        set_row(row, a + d.header, length - d.header)
    elif batch_at(batch).nsegs > SEGMENTS - n:
        return 0
    else:
        reason = join(queue, batch, row, at, n)
    if d.offloads != 0 and reason == 0:
        offload = read_offload(a)
        if offload == MALFORMED:
            reason = _BAD_OFFLOAD
        else:
            st64(row + R.offload, offload)
            batch_at(batch).offloads |= offload
    if reason != 0:
        set_dropped(row, reason)
    return n


@kernel
def driver_rx(queue, batch):
    """Borrow up to a batch of received frames; -> rows filled (token: how far the list is used)."""
    d = driver_at(queue)
    b = batch_at(batch)
    b.nsegs = 0
    b.offloads = 0
    collect(queue, ROWS)
    for k in range(min(d.ntaken, ROWS)):
        prefetch(d.buffers + (ld64(d.taken + 8 * k) & 0xFFFF) * d.buffer_size)
    octets = 0
    good = 0
    n = 0
    done = 0
    pieces = 0
    while n < ROWS and octets < MAX_OCTETS and pieces < MAX_PIECES:
        if done == d.ntaken:
            if d.merge == 0:
                break
            collect(queue, done + ROWS - n)  # frames took more than a buffer each
            if done == d.ntaken:
                break
        row = b.rows + 64 * n
        took = receive(queue, batch, row, done)
        if took == 0:
            break
        done += took
        n += 1
        st64(row + R.token, done)
        length = ld64(row + R.len)
        octets += length
        pieces += pieces_of(ld64(row + R.offload), length)
        good += 1 if length > 0 else 0
    b.n = n
    count_frames(d.counters, good, octets)
    return n


@kernel
def driver_give_back(queue, batch):
    """Post the buffers of all rows again (the caller kicks)."""
    d = driver_at(queue)
    b = batch_at(batch)
    if b.n == 0:
        return
    done = ld64(b.rows + 64 * (b.n - 1) + R.token)
    taken = d.taken
    for k in range(done):
        post(queue, k, k, ld64(taken + 8 * k) & 0xFFFF, d.buffer_size, WRITE)
    publish(queue, done, done, WRITE)
    left = d.ntaken - done
    for k in range(left):
        st64(taken + 8 * k, ld64(taken + 8 * (done + k)))
    d.ntaken = left


# ---------------------------------------------------------------- transmit
@kernel
def reap(queue):
    """Take back transmit buffers that the device is done with."""
    d = driver_at(queue)
    top = d.nfree
    collect(queue, d.size)
    if d.in_order == 0:
        for k in range(d.ntaken):
            word = ld64(d.taken + 8 * k)
            buffer = word & 0xFFFF
            st64(d.free + 8 * top, buffer)
            top += 1
            for _ in range((word >> 16 & 0xFFFF) - 1):
                buffer = following(d.busy, buffer)
                st64(d.free + 8 * top, buffer)
                top += 1
    d.ntaken = 0


@kernel
def pour(queue, buffer, filled, source, n):
    """Copy n bytes into a chain, behind the first ``filled`` bytes of ``buffer``; -> (buffer,
    filled) after."""
    d = driver_at(queue)
    while n > 0:
        if filled == d.buffer_size:
            buffer = following(d.busy, buffer)
            filled = 0
        piece = min(n, d.buffer_size - filled)
        copy_frame(d.buffers + buffer * d.buffer_size + filled, source, piece)
        filled += piece
        source += piece
        n -= piece
    return buffer, filled


@kernel
def copy_long(queue, row, head):
    """Copy a frame into a chain of several buffers, behind its header."""
    d = driver_at(queue)
    length = ld64(row + R.len)
    buffer, filled = pour(queue, head, d.header, ld64(row + R.head), min(length, HEAD))
    nsegs = ld64(row + R.nsegs)
    if nsegs == 0:
        pour(queue, buffer, filled, ld64(row + R.addr) + HEAD, length - HEAD)
        return
    segs = ld64(row + R.segs)
    skip = HEAD
    for k in range(nsegs):
        a = ld64(segs + SEGMENT * k)
        piece = ld64(segs + SEGMENT * k + 8)
        cut = min(skip, piece)
        skip -= cut
        buffer, filled = pour(queue, buffer, filled, a + cut, piece - cut)


@kernel
def fill_chain(queue, row, n):
    """Copy a frame into n free buffers; -> the head of their chain."""
    d = driver_at(queue)
    head = choose(queue, n)
    a = d.buffers + head * d.buffer_size
    put_header(d.header, a, 0, row)
    word = ld64(row + R.offload)
    if unlikely(word & DATA_VALID != 0):
        st8(a, word & NEEDS_CSUM)  # 5.1.6.2: a driver does not set it
    if likely(n == 1):
        copy_whole(row, a + d.header)
    else:
        copy_long(queue, row, head)
    return head


@kernel
def driver_tx(queue, batch, selected, n):
    """Copy the n rows listed at ``selected`` into transmit buffers; -> frames sent.

    Frames without a buffer are counted as dropped. One publication; the caller kicks.
    """
    d = driver_at(queue)
    if d.nfree < n:
        reap(queue)
    header, each, longest = d.header, d.buffer_size, d.max_frame
    first = 0  # flags of the first descriptor
    sent = 0
    slots = 0
    octets = 0
    k = 0
    while k < n:
        row = ld64(selected + 8 * k)
        length = ld64(row + R.len)
        needed = 1
        if unlikely(header + length > each):
            needed = (header + length + each - 1) // each
        reason = 0
        if unlikely(length > longest and wire_length(row) > longest):
            reason = _OVER_MTU
        elif unlikely(needed > min(MAX_CHAIN, d.size)):
            reason = _SMALL_BUFFER
        if reason != 0:
            count_drops(d.counters, reason, 1)
            k += 1
            continue
        if unlikely(needed > d.nfree):
            reap(queue)
            if needed > d.nfree:
                break
        head = fill_chain(queue, row, needed)
        if sent == 0 and needed > 1:
            first = NEXT
        slots += post(queue, sent, slots, head, header + length, 0)
        sent += 1
        octets += length
        k += 1
    if n > k:
        count_drops(d.counters, _NO_BUFFERS, n - k)
    if sent > 0:
        publish(queue, sent, slots, first)
        count_frames(d.counters, sent, octets)
    return sent


# ---------------------------------------------------------------- go on elsewhere
@kernel(entry=True)
def driver_rewind(queue, heads, n, flags):
    """Post the n chains listed at ``heads`` again, in this order, from the used position on; -> 0.

    For a device that begins where the one before it ended (DriverQueue.resume): no chain is left
    out, and none that was used is in the ring.
    """
    d = driver_at(queue)
    d.avail_idx = d.used_seen
    d.kicked = d.used_seen
    first = 0
    slots = 0
    for k in range(n):
        head = ld64(heads + 8 * k)
        word = ld64(d.busy + 8 * head)
        total = word >> BYTES
        d.nfree += word & COUNT
        if k == 0 and word & COUNT > 1:
            first = NEXT
        slots += post(queue, k, slots, head, total, flags)
    publish(queue, n, slots, first | flags)
    return 0


@kernel(entry=True)
def driver_collect(queue, receives):
    """Collect all that the device used (``receives``: for driver_rx to find; else free); -> 0."""
    if receives != 0:
        collect(queue, driver_at(queue).size)
    else:
        reap(queue)
    return 0
