# SPDX-License-Identifier: Apache-2.0
"""The device's side of a split virtqueue, from the guest: borrow its frames, give them back.

Used by ports (vhost-user); device_tx.py is the other direction. Uses the chain walk and packet's
batch.

Theory of operation (both files)
--------------------------------
``device_rx`` borrows: it reads the available ring, checks, and fills rows of a batch with frames
that still lie in guest memory. ``device_give_back`` returns those buffers in the same pass, with
one publication of the used index. ``device_tx`` copies rows once into the guest's receive buffers,
likewise.

What costs is waiting for lines that another processor wrote last. So each function runs over the
batch in steps: read the entries, then the descriptors they name, then the frames those name, and
each step asks early for what the next one touches.

The common case, one descriptor that holds header and frame, is handled in the loops; everything
else goes through ``walk``. The guest is hostile: each shared word is loaded once, the used index
is our private copy, work is bounded by the batch. What is wrong with one chain drops one frame
(its buffer goes back, with length 0); what is wrong with the ring itself sets ``error``, and the
queue is not touched again.

One worker at a time may be in a queue (the plan gives rx queues an owner; dispatch locks tx).
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    ld16_acq,
    ld16_once,
    ld64,
    ld64_once,
    likely,
    st16_rel,
    st64,
    unlikely,
)
from byway.machine.system import prefetch, prefetchw
from byway.packet.batch import (
    MAX_CHAIN,
    MAX_FRAME,
    MIN_FRAME,
    ROWS,
    SEGMENT,
    SEGMENTS,
    R,
    batch_at,
    set_dropped,
    set_row,
)
from byway.packet.counters import count_frames
from byway.packet.reason import Reason
from byway.virtio.memtab import memtab_at, xlate
from byway.virtio.ring import DESCRIPTOR, ENTRIES, INDEX, RingError, vq_at
from byway.virtio.walk import walk

_RUNT = int(Reason.RUNT)
_OVER_MTU = int(Reason.OVER_MTU)
_AVAIL_JUMP = int(RingError.AVAIL_JUMP)
LINE = 64  # bytes of a cache line
BAD_HEAD = int(RingError.BAD_HEAD)


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
def borrow_chain(queue, batch, row, gpa, word):
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
        set_dropped(row, -n)
    elif total < MIN_FRAME:
        set_dropped(row, _RUNT)
    elif total > MAX_FRAME:
        set_dropped(row, _OVER_MTU)
    else:
        first = skip_bytes(segs, q.header)
        set_row(row, ld64(segs + SEGMENT * first), total)
        if n - first > 1:
            st64(row + R.segs, segs + SEGMENT * first)
            st64(row + R.nsegs, n - first)
            b.nsegs += n


@kernel
def prefetch_ring(q, next_avail, next_used, n):
    """Ask for everything that the next n entries touch in the ring itself, all at once.

    Available entries, the descriptors that they probably name, and used entries lie in lines that
    the driver wrote last. Read one after the other they cost three waits; asked for together, one.
    """
    mask = q.mask
    avail, used, desc = q.avail + ENTRIES, q.used + ENTRIES, q.desc
    prefetch(avail + 2 * (next_avail & mask))
    prefetch(avail + 2 * ((next_avail + n - 1) & mask))
    head = q.likely_head
    for k in range(0, n, 4):  # four descriptors a line
        prefetch(desc + DESCRIPTOR * ((head + k) & mask))
    for k in range(0, n + 7, 8):  # eight used entries a line
        prefetchw(used + 8 * ((next_used + k) & mask))


@kernel
def take_heads(queue, batch, n):
    """Read n available entries into the rows' tokens and have what they name brought near.

    Their used entries are written at once, with length 0, as a device writes nothing into what the
    guest sends (2.7.8): the driver sees them when device_give_back publishes them.
    -> n, or fewer where an entry names no descriptor.
    """
    q = vq_at(queue)
    rows = batch_at(batch).rows
    last, mask, size, desc, avail = q.last_avail, q.mask, q.size, q.desc, q.avail + ENTRIES
    used, idx = q.used + ENTRIES, q.used_idx
    prefetch_ring(q, last, idx, n)
    head = 0
    for k in range(n):
        head = ld16_once(avail + 2 * ((last + k) & mask))
        if unlikely(head >= size):
            q.error = BAD_HEAD
            return k
        prefetch(desc + DESCRIPTOR * head)
        st64(rows + 64 * k + R.token, head)
        st64(used + 8 * ((idx + k) & mask), head)
    q.likely_head = head + 1
    return n


@kernel
def device_rx(queue, batch):
    """Borrow up to a batch of frames from the guest; -> rows filled.

    A row whose chain is unusable carries the drop reason; its buffer is given back like others.
    The virtio header is not looked at: without offloads negotiated it says nothing (5.1.6.2), and
    it mostly lies in a cache line of its own.
    """
    q = vq_at(queue)
    b = batch_at(batch)
    n = min(available(queue, ROWS), ROWS)
    if n == 0:
        return 0
    n = take_heads(queue, batch, n)
    desc, header, memtab, rows = q.desc, q.header, q.memtab, b.rows
    m = memtab_at(memtab)
    gpa0, size0, delta0 = m.gpa[0], m.size[0], m.delta[0]
    b.nsegs = 0
    octets = 0
    unusable = 0
    taken = 0
    while taken < n:
        row = rows + 64 * taken
        at = desc + DESCRIPTOR * ld64(row + R.token)
        gpa = ld64_once(at)
        word = ld64_once(at + 8)  # len:32 flags:16 next:16
        length = word & 0xFFFFFFFF
        a = 0
        if likely((word >> 32) & 0xFFFF == 0 and length >= header + MIN_FRAME
                  and length <= header + MAX_FRAME):
            offset = gpa - gpa0
            if likely(offset >= 0 and offset <= size0 - length):
                a = gpa + delta0
            else:
                a = xlate(memtab, gpa, length)
        if likely(a != 0):
            a += header
            length -= header
            prefetch(a)
            if length > LINE:
                prefetch(a + LINE)
            set_row(row, a, length)
            octets += length
        else:
            if b.nsegs > SEGMENTS - MAX_CHAIN:
                break  # no room for another chain: it waits for the next pass
            borrow_chain(queue, batch, row, gpa, word)
            octets += ld64(row + R.len)
            if ld64(row + R.len) == 0:
                unusable += 1
        taken += 1
    q.last_avail = (q.last_avail + taken) & 0xFFFF
    b.n = taken
    count_frames(q.counters, taken - unusable, octets)
    return taken


@kernel
def device_give_back(queue, batch):
    """Return the buffers of all rows with one publication (the caller calls the driver)."""
    q = vq_at(queue)
    q.used_idx = (q.used_idx + batch_at(batch).n) & 0xFFFF
    st16_rel(q.used + INDEX, q.used_idx)


@kernel
def device_near(queue):
    """Ask for what device_rx looks at first; the caller has something else to do meanwhile."""
    prefetch(vq_at(queue).avail + INDEX)
