# SPDX-License-Identifier: Apache-2.0
"""The device's side of a virtqueue, towards the guest: deliver frames into its buffers.

Used by ports (vhost-user). The theory of operation stands in device_rx.py; buffers that are not one
plain descriptor are chains.py's.

A delivery goes in runs: find the plain buffers of as many frames as possible (``split_buffers``,
``packed_buffers``), fill them all, list them as done; then one frame that needs more than that, by
``deliver_chains``; and so on. What is done is published at the end (``publish_done``): the driver
sees the buffers of a frame that was spread over several all at once (5.1.6.3.1).
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.mem import (
    copy64,
    ld16_once,
    ld64,
    ld64_acq,
    ld64_once,
    likely,
    shr64,
    st64,
    unlikely,
)
from byway.machine.system import prefetch, prefetchw
from byway.packet.batch import HEAD, R, copy_rest
from byway.packet.counters import count_drops, count_frames
from byway.packet.reason import Reason
from byway.virtio.borrow import LINE, find_plain
from byway.virtio.chains import deliver_chains
from byway.virtio.device_rx import (
    BAD_HEAD,
    NOT_PLAIN,
    ONE_SLOT,
    available,
    own_slots,
    prefetch_ring,
)
from byway.virtio.memtab import memtab_at
from byway.virtio.net_header import put_header
from byway.virtio.publish import (
    BUFFER,
    BUFFER_TOKEN,
    BUFFER_WORD,
    MAX_DONE,
    add_done,
    buffers_at,
    publish_done,
)
from byway.virtio.ring import AVAIL, DESCRIPTOR, ENTRIES, USED, WRAP, WRITE, vq_at

_NO_BUFFERS = int(Reason.NO_BUFFERS)
_NO_TRANSLATION = int(Reason.NO_TRANSLATION)
# Descriptors that one delivery walks, however little there is in them: a guest whose buffers are
# shreds shall not make the others wait.
MAX_STEPS = 8192


@kernel(inline=True)
def write_plain(row, a, header, length):
    """Write header and frame to ``a``."""
    put_header(header, a, 1, row)
    a += header
    source = ld64(row + R.head)
    if length <= HEAD:
        copy_frame(a, source, length)
    else:
        copy64(a, source)
        copy64(a + LINE, source + LINE)
        copy_rest(row, a + HEAD)


@kernel(inline=True)
def ask_for(a, header, length):
    """Have the lines brought near that a delivery writes first."""
    prefetchw(a)
    prefetchw(a + header)
    if length > LINE:
        prefetchw(a + header + LINE)


@kernel
def read_heads(queue, batch, n, taken):
    """Read n available entries after ``taken`` into BUFFERs; -> n, or fewer at a bad one."""
    q = vq_at(queue)
    buffers = buffers_at(batch)
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
        st64(buffers + BUFFER * k + BUFFER_TOKEN, head)
    q.likely_head = head + 1
    return n


@kernel
def split_buffers(queue, batch, selected, n, taken):
    """Find the buffers of up to n rows, as far as each is one descriptor that the frame fits.

    The lines that will be written are asked for all at once: they are in another processor's
    cache, and waiting for them one by one is what delivering costs. -> how many buffers; where
    fewer than n, and the queue is sound, the next BUFFER holds the descriptor of one that is not
    plain. (Entries after that one are read again later; nothing was done with them.)
    """
    n = read_heads(queue, batch, n, taken)
    q = vq_at(queue)
    buffers = buffers_at(batch)
    desc, header, memtab, longest = q.desc, q.header, q.memtab, q.max_frame
    m = memtab_at(memtab)
    gpa0, size0, delta0 = m.gpa[0], m.size[0], m.delta[0]
    for k in range(n):
        buffer = buffers + BUFFER * k
        at = desc + DESCRIPTOR * ld64(buffer + BUFFER_TOKEN)
        gpa = ld64_once(at)
        word = ld64_once(at + 8)  # len:32 flags:16 next:16
        length = ld64(ld64(selected + 8 * k) + R.len)
        a = 0
        if likely((word >> 32) & 0xFFFF == WRITE and word & 0xFFFFFFFF >= length + header
                  and length <= longest):
            a = find_plain(memtab, gpa0, size0, delta0, gpa, length + header, WRITE)
        if unlikely(a == 0):
            st64(buffer, gpa)
            st64(buffer + BUFFER_WORD, word)
            return k
        ask_for(a, header, length)
        st64(buffer, a)
    return n


@kernel
def packed_buffers(queue, batch, selected, n, taken):
    """As split_buffers; fewer than n also where the ring has no more. Then the next BUFFER's word
    is 0, which no available descriptor's is."""
    q = vq_at(queue)
    buffers = buffers_at(batch)
    size, desc, header, memtab, longest = q.size, q.desc, q.header, q.memtab, q.max_frame
    slot = (q.last_avail & (WRAP - 1)) + taken
    fresh = AVAIL if q.last_avail & WRAP != 0 else USED
    if slot >= size:
        slot -= size
        fresh ^= AVAIL | USED
    room = min(n, size - taken)
    own_slots(desc, size, slot, room)
    m = memtab_at(memtab)
    gpa0, size0, delta0 = m.gpa[0], m.size[0], m.delta[0]
    for k in range(room):
        buffer = buffers + BUFFER * k
        at = desc + DESCRIPTOR * slot
        word = ld64_acq(at + 8)  # len:32 id:16 flags:16
        flags = shr64(word, 48)
        if unlikely(flags & (AVAIL | USED) != fresh):
            st64(buffer + BUFFER_WORD, 0)
            return k
        gpa = ld64_once(at)
        length = ld64(ld64(selected + 8 * k) + R.len)
        a = 0
        if likely(flags & NOT_PLAIN == WRITE and word & 0xFFFFFFFF >= length + header
                  and length <= longest):
            a = find_plain(memtab, gpa0, size0, delta0, gpa, length + header, WRITE)
        st64(buffer + BUFFER_TOKEN, (word >> 32) & 0xFFFF | ONE_SLOT)
        if unlikely(a == 0):
            st64(buffer, gpa)
            st64(buffer + BUFFER_WORD, word)
            return k
        ask_for(a, header, length)
        st64(buffer, a)
        slot += 1
        if unlikely(slot == size):
            slot = 0
            fresh ^= AVAIL | USED
    if room < n:  # once around the ring
        st64(buffers + BUFFER * room + BUFFER_WORD, 0)
    return room


@kernel
def fill_plain(queue, batch, selected, n, done):
    """Write n frames into the buffers that were found; -> their bytes.

    They are listed after the ``done`` ones.
    """
    buffers = buffers_at(batch)
    header = vq_at(queue).header
    octets = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        buffer = buffers + BUFFER * k
        length = ld64(row + R.len)
        write_plain(row, ld64(buffer), header, length)
        add_done(batch, done + k, ld64(buffer + BUFFER_TOKEN), length + header, ld64(buffer))
        octets += length
    return octets


@kernel
def find_buffers(queue, batch, selected, n, taken):
    """split_buffers or packed_buffers; -> (how many plain ones, whether there is one more)."""
    if vq_at(queue).packed != 0:
        found = packed_buffers(queue, batch, selected, n, taken)
        more = found < n and ld64(buffers_at(batch) + BUFFER * found + BUFFER_WORD) != 0
        return found, more
    room = min(n, available(queue, taken + n) - taken)
    found = 0
    if room > 0:
        found = split_buffers(queue, batch, selected, room, taken)
    return found, found < room


@kernel
def device_tx(queue, batch, selected, n):
    """Copy the n rows listed at ``selected`` into receive buffers; -> frames delivered.

    Frames without a buffer are counted as dropped. The caller calls the driver.
    """
    q = vq_at(queue)
    taken = 0  # entries of a split ring, slots of a packed one, since the last publication
    done = 0
    sent = 0
    octets = 0
    k = 0
    reason = _NO_BUFFERS
    q.steps = 0
    while k < n and q.error == 0 and q.steps < MAX_STEPS:
        found, more = find_buffers(queue, batch, selected + 8 * k, n - k, taken)
        octets += fill_plain(queue, batch, selected + 8 * k, found, done)
        taken += found
        done += found
        sent += found
        k += found
        if k == n or not more or q.error != 0:
            break
        row = ld64(selected + 8 * k)
        places, done, reason = deliver_chains(
            queue, batch, row, buffers_at(batch) + BUFFER * found, taken, done)
        taken += places
        if reason == _NO_BUFFERS or reason == _NO_TRANSLATION:
            break
        if reason == 0:
            sent += 1
            octets += ld64(row + R.len)
        else:
            count_drops(q.counters, reason, 1)
        reason = _NO_BUFFERS
        k += 1
        if done > MAX_DONE:
            publish_done(queue, batch, done)
            taken = 0
            done = 0
    if n > k:
        count_drops(q.counters, reason, n - k)
    if done > 0:
        publish_done(queue, batch, done)
    count_frames(q.counters, sent, octets)
    return sent
