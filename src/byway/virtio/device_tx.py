# SPDX-License-Identifier: Apache-2.0
"""The device's side of a split virtqueue, towards the guest: deliver frames into its buffers.

Used by ports (vhost-user). The theory of operation stands in device_rx.py.
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.mem import (
    copy64,
    ld16_once,
    ld64,
    ld64_once,
    likely,
    st16,
    st16_rel,
    st32,
    st64,
    st64_rel,
    unlikely,
)
from byway.machine.system import prefetch, prefetchw
from byway.packet.batch import HEAD, MAX_CHAIN, SEGMENT, SEGMENTS, R, batch_at, copy_rest
from byway.packet.counters import count_drops, count_frames
from byway.packet.reason import Reason
from byway.virtio.device_rx import BAD_HEAD, LINE, available, prefetch_ring, total_bytes
from byway.virtio.memtab import memtab_at, xlate
from byway.virtio.ring import DESCRIPTOR, ENTRIES, INDEX, WRITE, Q, vq_at
from byway.virtio.walk import walk

_OVER_MTU = int(Reason.OVER_MTU)
_NO_BUFFERS = int(Reason.NO_BUFFERS)
_SMALL_BUFFER = int(Reason.SMALL_BUFFER)
SCRATCH = 2 * SEGMENTS  # segments that the batch's scratch has room for
# A receive buffer about to be filled: host address (or the descriptor's own address), descriptor
# head, second word of the descriptor. They lie in the batch's scratch.
BUFFER, BUFFER_HEAD, BUFFER_WORD = 24, 8, 16
MAX_MERGED = 128  # buffers that one frame is spread over: bounds the walks of a hostile ring


@kernel
def put_header(header, destination, buffers):
    """Write a virtio_net_hdr of ``header`` bytes: no offloads, ``buffers`` receive buffers."""
    st64(destination, 0)
    if header == 12:
        st32(destination + 8, buffers << 16)
    else:
        st16(destination + 8, 0)


@kernel(inline=True)
def deliver_plain(row, a, header, length):
    """Write header and frame to ``a``."""
    put_header(header, a, 1)
    a += header
    source = ld64(row + R.head)
    if length <= HEAD:
        copy_frame(a, source, length)
    else:
        copy64(a, source)
        copy64(a + LINE, source + LINE)
        copy_rest(row, a + HEAD)


@kernel
def read_heads(queue, batch, n, taken):
    """Read n available entries after ``taken`` into BUFFERs; -> n, or fewer at a bad one."""
    q = vq_at(queue)
    buffers = batch_at(batch).scratch
    next_avail = q.last_avail + taken
    mask, size, desc, avail = q.mask, q.size, q.desc, q.avail + ENTRIES
    prefetch_ring(q, next_avail, q.used_idx + taken, n)
    head = 0
    for k in range(n):
        head = ld16_once(avail + 2 * ((next_avail + k) & mask))
        if unlikely(head >= size):
            q.error = BAD_HEAD
            return k
        prefetch(desc + DESCRIPTOR * head)
        st64(buffers + BUFFER * k + BUFFER_HEAD, head)
    q.likely_head = head + 1
    return n


@kernel
def prepare_plain(queue, batch, selected, n, taken):
    """Find the buffers of up to n rows, as far as each is one descriptor that the frame fits.

    Buffers go to the batch's scratch, and the lines that will be written are asked for all at
    once: they are in another processor's cache, and waiting for them one by one is what delivering
    costs. -> how many buffers; where fewer than n, and the queue is sound, the next BUFFER holds
    the descriptor of one that is not plain. (Entries after that one are read again later; nothing
    was done with them.)
    """
    n = read_heads(queue, batch, n, taken)
    q = vq_at(queue)
    buffers = batch_at(batch).scratch
    desc, header, memtab, longest = q.desc, q.header, q.memtab, q.max_frame
    m = memtab_at(memtab)
    gpa0, size0, delta0 = m.gpa[0], m.size[0], m.delta[0]
    for k in range(n):
        at = desc + DESCRIPTOR * ld64(buffers + BUFFER * k + BUFFER_HEAD)
        gpa = ld64_once(at)
        word = ld64_once(at + 8)  # len:32 flags:16 next:16
        length = ld64(ld64(selected + 8 * k) + R.len)
        need = length + header
        a = 0
        if likely((word >> 32) & 0xFFFF == WRITE and word & 0xFFFFFFFF >= need
                  and length <= longest):
            offset = gpa - gpa0
            if likely(offset >= 0 and offset <= size0 - need):
                a = gpa + delta0
            else:
                a = xlate(memtab, gpa, need)
        if unlikely(a == 0):
            st64(buffers + BUFFER * k, gpa)
            st64(buffers + BUFFER * k + BUFFER_WORD, word)
            return k
        prefetchw(a)
        prefetchw(a + header)
        if length > LINE:
            prefetchw(a + header + LINE)
        st64(buffers + BUFFER * k, a)
    return n


@kernel
def fill_plain(queue, batch, selected, n, taken):
    """Write n frames into the buffers that prepare_plain found; -> their bytes."""
    q = vq_at(queue)
    buffers = batch_at(batch).scratch
    idx, used, mask, header = q.used_idx + taken, q.used + ENTRIES, q.mask, q.header
    octets = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        length = ld64(row + R.len)
        deliver_plain(row, ld64(buffers + BUFFER * k), header, length)
        st64(used + 8 * ((idx + k) & mask),
             ld64(buffers + BUFFER * k + BUFFER_HEAD) | (length + header) << 32)
        octets += length
    return octets


@kernel
def fill_chains(queue, batch, row, k, taken):
    """Deliver one frame into what BUFFER k begins; -> (ring slots, 0 or a reason)."""
    buffer = batch_at(batch).scratch + BUFFER * k
    head = ld64(buffer + BUFFER_HEAD)
    return deliver_chains(queue, batch, row, taken, head, ld64(buffer), ld64(buffer + BUFFER_WORD))


@kernel
def device_tx(queue, batch, selected, n):
    """Copy the n rows listed at ``selected`` into receive buffers; -> frames delivered.

    Frames without a buffer are counted as dropped. One publication; the caller calls the driver.
    """
    q = vq_at(queue)
    room = available(queue, n)
    taken = 0
    sent = 0
    octets = 0
    k = 0
    while k < n and q.error == 0:
        if unlikely(taken >= room):
            room = available(queue, taken + 1)
            if taken >= room:
                break
        wanted = min(n - k, room - taken)
        plain = prepare_plain(queue, batch, selected + 8 * k, wanted, taken)
        octets += fill_plain(queue, batch, selected + 8 * k, plain, taken)
        taken += plain
        sent += plain
        k += plain
        if unlikely(plain < wanted and q.error == 0):
            row = ld64(selected + 8 * k)
            slots, reason = fill_chains(queue, batch, row, plain, taken)
            taken += slots
            if reason == _NO_BUFFERS:
                break
            if reason == 0:
                sent += 1
                octets += ld64(row + R.len)
            else:
                count_drops(q.counters, reason, 1)
            k += 1
    if n > k:
        count_drops(q.counters, _NO_BUFFERS, n - k)
    if taken > 0:
        q.last_avail = (q.last_avail + taken) & 0xFFFF
        idx = (q.used_idx + taken) & 0xFFFF
        st16_rel(q.used + INDEX, idx)
        st64_rel(queue + Q.used_idx, idx)  # after the ring's: see call_driver
        count_frames(q.counters, sent, octets)
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
    if ld64(row + R.len) > q.max_frame:
        return 0, _OVER_MTU
    n = 0
    slots = 0
    while need > 0:
        if slots > 0:
            if q.merge == 0:
                return 0, _SMALL_BUFFER
            if n > SCRATCH - MAX_CHAIN or slots >= MAX_MERGED:
                # Shreds: useless for any frame of this size.
                refuse_chains(queue, taken, slots)
                return slots, _SMALL_BUFFER
            if available(queue, taken + slots + 1) <= taken + slots:
                return 0, _NO_BUFFERS
            head = ld16_once(q.avail + ENTRIES + 2 * ((q.last_avail + taken + slots) & q.mask))
            if head >= q.size:
                q.error = BAD_HEAD
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
