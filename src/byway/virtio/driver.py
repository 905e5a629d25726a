# SPDX-License-Identifier: Apache-2.0
"""The driver's side of a split virtqueue: send frames to a device, receive frames from it.

Used by ports (virtio-user) and byway.testing (the fake guest).

Every buffer is one descriptor with the virtio header in front of the frame, in memory that the
device shares (VERSION_1: any layout, 5.1.6.2). The device is not trusted either: ids and lengths
in the used ring are checked against our own record of which buffers it has (``busy``), and a
frame's head is copied out before anything looks at it. What is wrong with the ring sets
``error``; the queue is then left alone.

Transmit: ids come from a private stack of free ones and go back when the device has used them.
Receive: all buffers are posted at the start and again as soon as their frame was delivered.
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    fence,
    ld16_acq,
    ld64,
    ld64_once,
    memzero,
    shr64,
    st16,
    st16_rel,
    st64,
    st64_rel,
    unlikely,
)
from byway.machine.system import prefetch
from byway.packet.batch import (
    MIN_FRAME,
    ROWS,
    R,
    batch_at,
    copy_whole,
    set_dropped,
    set_row,
)
from byway.packet.counters import count_drops, count_frames
from byway.packet.reason import Reason
from byway.virtio.notify import kick_device
from byway.virtio.ring import ENTRIES, INDEX, WRITE, D, RingError, driver_at

_OVER_MTU = int(Reason.OVER_MTU)
_NO_BUFFERS = int(Reason.NO_BUFFERS)
_BAD_LENGTH = int(Reason.BAD_LENGTH)
_USED_JUMP = int(RingError.USED_JUMP)
_BAD_ID = int(RingError.BAD_ID)


@kernel
def used_entries(queue):
    """How many entries the device used that were not looked at yet; checks the index."""
    d = driver_at(queue)
    n = (ld16_acq(d.used + INDEX) - d.used_seen) & 0xFFFF
    if unlikely(n > d.size - d.nfree):
        d.error = _USED_JUMP
        return 0
    return n


@kernel
def take_used(queue, k):
    """The k-th used entry after used_seen; -> (id, length), or (-1, 0) where it makes no sense."""
    d = driver_at(queue)
    word = ld64_once(d.used + ENTRIES + 8 * ((d.used_seen + k) & d.mask))  # id:32 len:32
    buffer = word & 0xFFFFFFFF
    if unlikely(buffer >= d.size):
        d.error = _BAD_ID
        return -1, 0
    if unlikely(ld64(d.busy + 8 * buffer) == 0):
        d.error = _BAD_ID
        return -1, 0
    st64(d.busy + 8 * buffer, 0)
    return buffer, shr64(word, 32)


@kernel
def post(queue, k, buffer, length, flags):
    """Write buffer's descriptor and its k-th entry after avail_idx (published by publish)."""
    d = driver_at(queue)
    at = d.desc + 16 * buffer
    st64(at, d.gpa + buffer * d.buffer_size)
    st64(at + 8, length | flags << 32)
    st16(d.avail + ENTRIES + 2 * ((d.avail_idx + k) & d.mask), buffer)
    st64(d.busy + 8 * buffer, 1)


@kernel
def publish(queue, n):
    """Make n posted entries available (the caller kicks)."""
    d = driver_at(queue)
    idx = (d.avail_idx + n) & 0xFFFF
    st16_rel(d.avail + INDEX, idx)
    st64_rel(queue + D.avail_idx, idx)  # after the ring's: see call_driver


@kernel(entry=True)
def driver_fill(queue, kick):
    """Post every receive buffer (once, when the queue starts); ``kick``: and tell the device."""
    d = driver_at(queue)
    for buffer in range(d.size):
        post(queue, buffer, buffer, d.buffer_size, WRITE)
    d.nfree = 0
    publish(queue, d.size)
    if kick != 0:
        fence()
        kick_device(queue)
    return d.size


@kernel
def driver_rx(queue, batch):
    """Borrow up to a batch of received frames; -> rows filled (token: the buffer)."""
    d = driver_at(queue)
    b = batch_at(batch)
    n = min(used_entries(queue), ROWS)
    rows, header = b.rows, d.header
    octets = 0
    bad = 0
    taken = 0
    while taken < n:
        buffer, length = take_used(queue, taken)
        if buffer < 0:
            break
        row = rows + 64 * taken
        st64(row + R.token, buffer)
        a = d.buffers + buffer * d.buffer_size
        if length < header + MIN_FRAME or length > d.buffer_size:
            set_dropped(row, _BAD_LENGTH)
            bad += 1
        else:
            prefetch(a + header)
            set_row(row, a + header, length - header)
            octets += length - header
        taken += 1
    d.used_seen = (d.used_seen + taken) & 0xFFFF
    b.n = taken
    b.nsegs = 0
    count_frames(d.counters, taken - bad, octets)
    return taken


@kernel
def driver_give_back(queue, batch):
    """Post the buffers of all rows again (the caller kicks)."""
    d = driver_at(queue)
    b = batch_at(batch)
    for k in range(b.n):
        post(queue, k, ld64(b.rows + 64 * k + R.token), d.buffer_size, WRITE)
    publish(queue, b.n)


@kernel
def reap(queue):
    """Take back transmit buffers that the device is done with."""
    d = driver_at(queue)
    n = used_entries(queue)
    taken = 0
    while taken < n:
        buffer, _ = take_used(queue, taken)
        if buffer < 0:
            break
        st64(d.free + 8 * d.nfree, buffer)
        d.nfree += 1
        taken += 1
    d.used_seen = (d.used_seen + taken) & 0xFFFF


@kernel
def driver_tx(queue, batch, selected, n):
    """Copy the n rows listed at ``selected`` into transmit buffers; -> frames sent.

    Frames without a buffer are counted as dropped. One publication; the caller kicks.
    """
    d = driver_at(queue)
    if d.nfree < n:
        reap(queue)
    header, longest = d.header, min(d.max_frame, d.buffer_size - d.header)
    sent = 0
    octets = 0
    k = 0
    while k < n and d.nfree > 0:
        row = ld64(selected + 8 * k)
        length = ld64(row + R.len)
        k += 1
        if length > longest:
            count_drops(d.counters, _OVER_MTU, 1)
            continue
        d.nfree -= 1
        buffer = ld64(d.free + 8 * d.nfree)
        a = d.buffers + buffer * d.buffer_size
        memzero(a, header)
        copy_whole(row, a + header)
        post(queue, sent, buffer, header + length, 0)
        sent += 1
        octets += length
    if n > k:
        count_drops(d.counters, _NO_BUFFERS, n - k)
    if sent > 0:
        publish(queue, sent)
        count_frames(d.counters, sent, octets)
    return sent
