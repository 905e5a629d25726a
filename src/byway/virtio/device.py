# SPDX-License-Identifier: Apache-2.0
"""The device's side of a split virtqueue: take frames from a guest, deliver frames to it.

Used by ports (vhost-user). Uses the chain walk, notify and packet's batch.

Theory of operation
-------------------
``device_rx`` borrows: it reads the available ring, checks, and fills rows of a batch with frames
that still lie in guest memory. ``device_give_back`` returns those buffers in the same pass, with
one publication of the used index and at most one call. ``device_tx`` copies rows once into the
guest's receive buffers, likewise.

The common case, one descriptor that holds header and frame, is handled in the loop; everything
else goes through ``walk``. The guest is hostile: each shared word is loaded once, the used index
is our private copy, work is bounded by the batch. What is wrong with one chain drops one frame
(its buffer goes back, with length 0); what is wrong with the ring itself sets ``error``, and the
queue is not touched again.

One worker at a time may be in a queue (the plan gives rx queues an owner; port.py locks tx).
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.mem import (
    copy64, ld8_once, ld16_acq, ld16_once, ld64, ld64_once, likely, st16, st16_rel, st32, st64,
    unlikely,
)
from byway.machine.system import prefetch
from byway.packet.batch import (
    HEAD, MAX_CHAIN, MAX_FRAME, MIN_FRAME, NEEDS_CSUM, ROWS, SEGMENT, SEGMENTS, R, batch_at,
    copy_rest, set_dropped, set_row,
)
from byway.packet.counters import count_drops, count_frames
from byway.packet.reason import Reason
from byway.virtio.memtab import memtab_at, xlate
from byway.virtio.notify import call_driver
from byway.virtio.ring import ENTRIES, INDEX, WRITE, RingError, vq_at
from byway.virtio.walk import walk

_RUNT = int(Reason.RUNT)
_OVER_MTU = int(Reason.OVER_MTU)
SCRATCH = 2 * SEGMENTS  # segments that the batch's scratch has room for
_NO_BUFFERS = int(Reason.NO_BUFFERS)
_SMALL_BUFFER = int(Reason.SMALL_BUFFER)
_BAD_ADDRESS = int(Reason.BAD_ADDRESS)
_BAD_OFFLOAD = int(Reason.BAD_OFFLOAD)
_AVAIL_JUMP = int(RingError.AVAIL_JUMP)
_BAD_HEAD = int(RingError.BAD_HEAD)


@kernel
def available(queue, wanted):
    """How many entries there are to take; looks at the shared index only where what is known of
    is less than ``wanted``."""
    q = vq_at(queue)
    n = (q.avail_seen - q.last_avail) & 0xFFFF
    if n < wanted:
        q.avail_seen = ld16_acq(q.avail + INDEX)
        n = (q.avail_seen - q.last_avail) & 0xFFFF
        if unlikely(n > q.size):
            q.error = _AVAIL_JUMP
            return 0
    return n


@kernel
def total_bytes(segs, n):
    """Bytes of n segments together."""
    total = 0
    for k in range(n):
        total += ld64(segs + SEGMENT * k + 8)
    return total


@kernel
def byte_at(segs, offset):
    """The byte at ``offset`` of segments that hold more than that."""
    while offset >= ld64(segs + 8):
        offset -= ld64(segs + 8)
        segs += SEGMENT
    return ld8_once(ld64(segs) + offset)


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


@kernel
def borrow_chain(queue, batch, row, head, gpa, word):
    """Fill ``row`` from any chain (slow lane): header in any layout, frame in segments.

    ``gpa``, ``word``: the first descriptor as it was loaded.
    """
    q = vq_at(queue)
    b = batch_at(batch)
    segs = b.segs + SEGMENT * b.nsegs
    n = walk(queue, gpa, word, 0, segs)
    total = 0
    if n > 0:
        total = total_bytes(segs, n) - q.header
    if n < 0:
        set_dropped(row, -n, head)
    elif total < MIN_FRAME:
        set_dropped(row, _RUNT, head)
    elif total > MAX_FRAME:
        set_dropped(row, _OVER_MTU, head)
    elif byte_at(segs, 0) & NEEDS_CSUM != 0 or byte_at(segs, 1) != 0:
        set_dropped(row, _BAD_OFFLOAD, head)
    else:
        first = skip_bytes(segs, q.header)
        set_row(row, ld64(segs + SEGMENT * first), total, head, 0)
        if n - first > 1:
            st64(row + R.segs, segs + SEGMENT * first)
            st64(row + R.nsegs, n - first)
            b.nsegs += n


@kernel
def device_rx(queue, batch):
    """Borrow up to a batch of frames from the guest; -> rows filled.

    A row whose chain is unusable carries the drop reason; its buffer is given back like others.
    """
    q = vq_at(queue)
    b = batch_at(batch)
    n = min(available(queue, ROWS), ROWS)
    if n == 0:
        return 0
    last, mask, size, desc, avail = q.last_avail, q.mask, q.size, q.desc, q.avail + ENTRIES
    header, memtab, rows = q.header, q.memtab, b.rows
    m = memtab_at(memtab)
    gpa0, size0, delta0 = m.gpa[0], m.size[0], m.delta[0]
    b.nsegs = 0
    octets = 0
    dropped_rows = 0
    taken = 0
    while taken < n:
        head = ld16_once(avail + 2 * ((last + taken) & mask))
        if unlikely(head >= size):
            q.error = _BAD_HEAD
            break
        at = desc + 16 * head
        gpa = ld64_once(at)
        word = ld64_once(at + 8)  # len:32 flags:16 next:16
        length = word & 0xFFFFFFFF
        row = rows + 64 * taken
        if likely((word >> 32) & 0xFFFF == 0 and length >= header + MIN_FRAME
                  and length <= header + MAX_FRAME):
            offset = gpa - gpa0
            if likely(offset >= 0 and offset <= size0 - length):
                a = gpa + delta0
            else:
                a = xlate(memtab, gpa, length)
            if unlikely(a == 0):
                set_dropped(row, _BAD_ADDRESS, head)
                dropped_rows += 1
            else:
                prefetch(a)
                set_row(row, a + header, length - header, head, a)
                octets += length - header
        else:
            if b.nsegs > SEGMENTS - MAX_CHAIN:
                break  # no room for another chain: it waits for the next pass
            borrow_chain(queue, batch, row, head, gpa, word)
            octets += ld64(row + R.len)
            if ld64(row + R.len) == 0:
                dropped_rows += 1
        taken += 1
    q.last_avail = (last + taken) & 0xFFFF
    b.n = taken
    count_frames(q.counters, taken - dropped_rows, octets)
    return taken


@kernel
def device_give_back(queue, batch):
    """Return the buffers of all rows (in order), publish once, call at most once.

    The length is 0: a device writes nothing into what the guest sends (2.7.8).
    """
    q = vq_at(queue)
    b = batch_at(batch)
    n, rows = b.n, b.rows
    idx, used, mask = q.used_idx, q.used + ENTRIES, q.mask
    for k in range(n):
        st64(used + 8 * ((idx + k) & mask), ld64(rows + 64 * k + R.token))
    q.used_idx = (idx + n) & 0xFFFF
    st16_rel(q.used + INDEX, q.used_idx)
    call_driver(queue)


# ---------------------------------------------------------------- towards the guest
@kernel
def put_header(header, destination, buffers):
    """Write a virtio_net_hdr of ``header`` bytes: no offloads, ``buffers`` receive buffers."""
    st64(destination, 0)
    if header == 12:
        st32(destination + 8, buffers << 16)
    else:
        st16(destination + 8, 0)


@kernel
def plain_buffer(q, gpa, word, need):
    """Host address of a buffer that takes ``need`` bytes in one descriptor, or 0."""
    if unlikely((word >> 32) & 0xFFFF != WRITE or word & 0xFFFFFFFF < need):
        return 0
    m = memtab_at(q.memtab)
    offset = gpa - m.gpa[0]
    if likely(offset >= 0 and offset <= m.size[0] - need):
        return gpa + m.delta[0]
    return xlate(q.memtab, gpa, need)


@kernel
def deliver_plain(q, row, a, length):
    """Write header and frame to ``a``."""
    put_header(q.header, a, 1)
    a += q.header
    source = ld64(row + R.head)
    if length <= HEAD:
        copy_frame(a, source, length)
    else:
        copy64(a, source)
        copy64(a + 64, source + 64)
        copy_rest(row, a + HEAD)


@kernel
def device_tx(queue, batch, selected, n):
    """Copy the n rows listed at ``selected`` into receive buffers; -> frames delivered.

    Frames without a buffer are counted as dropped. One publication, at most one call.
    """
    q = vq_at(queue)
    room = available(queue, n)
    last, mask, size, desc, header = q.last_avail, q.mask, q.size, q.desc, q.header
    avail, used, idx, longest = q.avail + ENTRIES, q.used + ENTRIES, q.used_idx, q.max_frame
    taken = 0
    sent = 0
    octets = 0
    k = 0
    while k < n:
        row = ld64(selected + 8 * k)
        length = ld64(row + R.len)
        if unlikely(taken >= room):
            room = available(queue, taken + 1)
            if taken >= room:
                break
        head = ld16_once(avail + 2 * ((last + taken) & mask))
        if unlikely(head >= size):
            q.error = _BAD_HEAD
            break
        at = desc + 16 * head
        gpa = ld64_once(at)
        word = ld64_once(at + 8)
        reason = 0
        a = plain_buffer(q, gpa, word, length + header)
        if unlikely(length > longest):
            reason = _OVER_MTU
        elif likely(a != 0):
            deliver_plain(q, row, a, length)
            st64(used + 8 * ((idx + taken) & mask), head | (length + header) << 32)
            taken += 1
        else:
            slots, reason = deliver_chains(queue, batch, row, taken, head, gpa, word)
            taken += slots
            if reason == _NO_BUFFERS:
                break
        if likely(reason == 0):
            sent += 1
            octets += length
        else:
            count_drops(q.counters, reason, 1)
        k += 1
    if n > k:
        count_drops(q.counters, _NO_BUFFERS, n - k)
    if taken > 0:
        q.last_avail = (last + taken) & 0xFFFF
        q.used_idx = (idx + taken) & 0xFFFF
        st16_rel(q.used + INDEX, q.used_idx)
        count_frames(q.counters, sent, octets)
        call_driver(queue)
    return sent


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
    return at, done


@kernel
def scatter_row(row, header, segs, buffers):
    """Write header and frame into the segments of one or more chains."""
    length = ld64(row + R.len)
    head = ld64(row + R.head)
    put_header(header, head - header, buffers)  # in the row's room, private to the worker
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
        at, done = scatter(segs, at, done, ld64(source + SEGMENT * k) + cut, piece - cut)


@kernel
def refuse_chains(queue, taken, slots):
    """Give ``slots`` chains back with nothing in them: their used entries say length 0."""
    q = vq_at(queue)
    for k in range(slots):
        st32(q.used + ENTRIES + 8 * ((q.used_idx + taken + k) & q.mask) + 4, 0)


@kernel
def deliver_chains(queue, batch, row, taken, head, gpa, word):
    """Deliver one frame into a chain, or (MRG_RXBUF) into several; -> (ring slots, 0 or a reason).

    ``head``, ``gpa``, ``word``: the first chain's head and its descriptor as they were loaded. With
    a reason nothing was delivered; slots then counts chains that are given back empty. The used
    entries are written here and published by device_tx.
    """
    q = vq_at(queue)
    segs = batch_at(batch).scratch
    need = q.header + ld64(row + R.len)
    n = 0
    slots = 0
    while need > 0:
        if slots > 0:
            if q.merge == 0:
                return 0, _SMALL_BUFFER
            if n > SCRATCH - MAX_CHAIN:  # shreds: useless for any frame of this size
                refuse_chains(queue, taken, slots)
                return slots, _SMALL_BUFFER
            if available(queue, taken + slots + 1) <= taken + slots:
                return 0, _NO_BUFFERS
            head = ld16_once(q.avail + ENTRIES + 2 * ((q.last_avail + taken + slots) & q.mask))
            if head >= q.size:
                q.error = _BAD_HEAD
                return 0, _NO_BUFFERS
            gpa = ld64_once(q.desc + 16 * head)
            word = ld64_once(q.desc + 16 * head + 8)
        st64(q.used + ENTRIES + 8 * ((q.used_idx + taken + slots) & q.mask), head)
        added = walk(queue, gpa, word, WRITE, segs + SEGMENT * n)
        if added < 0:
            refuse_chains(queue, taken, slots + 1)
            return slots + 1, -added
        capacity = total_bytes(segs + SEGMENT * n, added)
        if capacity == 0:
            refuse_chains(queue, taken, slots + 1)
            return slots + 1, _SMALL_BUFFER
        filled = min(capacity, need)
        st32(q.used + ENTRIES + 8 * ((q.used_idx + taken + slots) & q.mask) + 4, filled)
        need -= filled
        n += added
        slots += 1
    scatter_row(row, q.header, segs, slots)
    return slots, 0
