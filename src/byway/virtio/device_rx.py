# SPDX-License-Identifier: Apache-2.0
"""The device's side of a virtqueue, from the guest: borrow its frames, give them back.

Used by ports (vhost-user); device_tx.py is the other direction. Uses borrow.py and packet's batch.

Theory of operation (both files)
--------------------------------
``split_rx`` and ``packed_rx`` borrow: they read the ring, check, and fill further rows of a batch
with frames that still lie in guest memory. ``split_give_back`` and ``packed_give_back`` return
those buffers in the same pass. device_tx.py copies rows once into the guest's receive buffers.
Only what a ring looks like differs between the two formats; the frame in a chain is borrow.py's.

What costs is waiting for lines that another processor wrote last. So each function runs over the
batch in steps: read the entries, then the descriptors they name, then the frames those name, and
each step asks early for what the next one touches. (A packed ring has one line to wait for where a
split one has three: its descriptors say themselves whether they are available.)

The guest is hostile: each shared word is loaded once, positions are our private copies, work is
bounded by the batch and the ring. What is wrong with one chain drops one frame (its buffer goes
back, with length 0); what is wrong with the ring itself sets ``error``, and the queue is not
touched again.

Buffers are used in the order in which they were made available, and none is kept between two
passes: so IN_ORDER (2.7.9, 2.8.8) costs nothing, and after a crash everything that was not
published as used is simply taken again.

One worker at a time may be in a queue (the plan gives rx queues an owner; dispatch locks tx).
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    ld16_acq,
    ld16_once,
    ld64,
    ld64_acq,
    ld64_once,
    likely,
    shr64,
    st16_rel,
    st64,
    st64_rel,
    unlikely,
)
from byway.machine.system import prefetch, prefetchw
from byway.packet.batch import MAX_CHAIN, MAX_FRAME, MIN_FRAME, ROWS, SEGMENTS, R, batch_at
from byway.virtio.borrow import (
    MAX_OCTETS,
    borrow_chain,
    borrow_plain,
    find_plain,
    finish_borrowing,
)
from byway.virtio.dirty import log_write
from byway.virtio.memtab import memtab_at
from byway.virtio.publish import add_done, move_on, publish_packed
from byway.virtio.ring import (
    AVAIL,
    DESCRIPTOR,
    ENTRIES,
    INDEX,
    INDIRECT,
    NEXT,
    USED,
    WRAP,
    WRITE,
    RingError,
    vq_at,
)

_AVAIL_JUMP = int(RingError.AVAIL_JUMP)
BAD_HEAD = int(RingError.BAD_HEAD)
ONE_SLOT = 1 << 16  # a packed chain's token: id | slots << 16
NOT_PLAIN = NEXT | WRITE | INDIRECT


# ---------------------------------------------------------------- split
@kernel
def available(queue, wanted):
    """How many entries there are to take; looks at the shared index only where what is known of
    is less than ``wanted``."""
    q = vq_at(queue)
    n = (q.avail_seen - q.last_avail) & 0xFFFF
    if n < wanted:
        q.avail_seen = ld16_acq(q.avail + INDEX)
        n = (q.avail_seen - q.last_avail) & 0xFFFF
    if unlikely(n > q.size):  # or the index went back after it was read
        q.error = _AVAIL_JUMP
        return 0
    return n


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
def take_heads(queue, rows, n):
    """Read n available entries into the tokens of the rows at ``rows`` and have what they name
    brought near.

    Their used entries are written at once, with length 0, as a device writes nothing into what the
    guest sends (2.7.8): the driver sees them when split_give_back publishes them.
    -> n, or fewer where an entry names no descriptor.
    """
    q = vq_at(queue)
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
def split_rx(queue, batch):
    """Borrow frames from the guest, as far as the batch has room; -> rows filled.

    A row whose chain is unusable carries the drop reason; its buffer is given back like others.
    """
    q = vq_at(queue)
    b = batch_at(batch)
    room, most = ROWS - b.n, MAX_OCTETS - b.octets
    n = min(available(queue, room), room)
    if n == 0:
        return 0
    rows = b.rows + 64 * b.n
    n = take_heads(queue, rows, n)
    desc, header, memtab, offloads = q.desc, q.header, q.memtab, q.offloads
    m = memtab_at(memtab)
    gpa0, size0, delta0 = m.gpa[0], m.size[0], m.delta[0]
    taken = 0
    frames = 0
    octets = 0
    while taken < n and octets < most:
        row = rows + 64 * taken
        head = ld64(row + R.token)
        at = desc + DESCRIPTOR * head
        gpa = ld64_once(at)
        word = ld64_once(at + 8)  # len:32 flags:16 next:16
        length = (word & 0xFFFFFFFF) - header
        a = 0
        if likely((word >> 32) & 0xFFFF == 0 and length >= MIN_FRAME and length <= MAX_FRAME):
            a = find_plain(memtab, gpa0, size0, delta0, gpa, length + header, 0)
        if likely(a != 0):
            borrow_plain(row, a, header, length, offloads)
            octets += length
            frames += 1
        else:
            if b.nsegs > SEGMENTS - MAX_CHAIN:
                break  # no room for another chain: it waits for the next pass
            if not borrow_chain(queue, batch, row, gpa, word, head):
                break
            octets += ld64(row + R.len)
            frames += 1 if ld64(row + R.len) > 0 else 0
        taken += 1
    taken = finish_borrowing(queue, batch, taken, frames, octets)
    q.last_avail = (q.last_avail + taken) & 0xFFFF
    return taken


@kernel
def split_give_back(queue, n):
    """Return the n buffers last taken with one publication (the caller calls the driver)."""
    q = vq_at(queue)
    if unlikely(q.log != 0):
        for k in range(n):
            log_write(q.log, q.used + ENTRIES + 8 * ((q.used_idx + k) & q.mask), 8)
    q.used_idx = (q.used_idx + n) & 0xFFFF
    st16_rel(q.used + INDEX, q.used_idx)
    if unlikely(q.log != 0):
        log_write(q.log, q.used + INDEX, 2)


# ---------------------------------------------------------------- packed
@kernel
def own_slots(desc, size, slot, n):
    """Ask for n slots of a packed ring from ``slot`` on: to be read now and written as used soon,
    so that their lines change hands once. Four descriptors a line."""
    for k in range(0, min(n + 3, size), 4):
        ahead = slot + k
        if ahead >= size:
            ahead -= size
        prefetchw(desc + DESCRIPTOR * ahead)


@kernel
def packed_rx(queue, batch):
    """Borrow frames from the guest, as far as the batch has room; -> rows filled. As split_rx."""
    q = vq_at(queue)
    b = batch_at(batch)
    size, desc, header, memtab, offloads = q.size, q.desc, q.header, q.memtab, q.offloads
    slot = q.last_avail & (WRAP - 1)
    fresh = AVAIL if q.last_avail & WRAP != 0 else USED  # flags of what is available (2.8.1)
    if shr64(ld64_acq(desc + DESCRIPTOR * slot + 8), 48) & (AVAIL | USED) != fresh:
        return 0
    own_slots(desc, size, slot, q.likely)
    m = memtab_at(memtab)
    gpa0, size0, delta0 = m.gpa[0], m.size[0], m.delta[0]
    rows, room, most = b.rows + 64 * b.n, ROWS - b.n, MAX_OCTETS - b.octets
    taken = 0
    frames = 0
    octets = 0
    while taken < room and octets < most:
        at = desc + DESCRIPTOR * slot
        word = ld64_acq(at + 8)  # len:32 id:16 flags:16
        flags = shr64(word, 48)
        if flags & (AVAIL | USED) != fresh:
            break
        gpa = ld64_once(at)
        row = rows + 64 * taken
        length = (word & 0xFFFFFFFF) - header
        token = (word >> 32) & 0xFFFF | ONE_SLOT
        slots = 1
        a = 0
        if likely(flags & NOT_PLAIN == 0 and length >= MIN_FRAME and length <= MAX_FRAME):
            a = find_plain(memtab, gpa0, size0, delta0, gpa, length + header, 0)
        if likely(a != 0):
            borrow_plain(row, a, header, length, offloads)
            octets += length
            frames += 1
        else:
            if b.nsegs > SEGMENTS - MAX_CHAIN:
                break
            if not borrow_chain(queue, batch, row, gpa, word, slot) or q.error != 0:
                break
            octets += ld64(row + R.len)
            frames += 1 if ld64(row + R.len) > 0 else 0
            slots = q.slots
            token = q.id | slots << 16
        st64(row + R.token, token)
        taken += 1
        slot += slots
        if unlikely(slot >= size):
            slot -= size
            fresh ^= AVAIL | USED
    q.likely = taken
    kept = finish_borrowing(queue, batch, taken, frames, octets)
    for k in range(kept, taken):
        slot -= ld64(rows + 64 * k + R.token) >> 16
        if slot < 0:
            slot += size
            fresh ^= AVAIL | USED
    q.last_avail = slot | (WRAP if fresh == AVAIL else 0)
    return kept


@kernel
def give_back_in_order(queue, rows, n):
    """packed_give_back with IN_ORDER: one used descriptor, with the id of the last buffer, returns
    them all (2.8.8). They are all that was taken: the positions say how far that is."""
    q = vq_at(queue)
    slot = q.used_idx & (WRAP - 1)
    done = AVAIL | USED if q.used_idx & WRAP != 0 else 0
    at = q.desc + DESCRIPTOR * slot
    token = ld64(rows + 64 * (n - 1) + R.token)
    st64_rel(at + 8, (token & 0xFFFF) << 32 | done << 48)
    if unlikely(q.log != 0):
        log_write(q.log, at, DESCRIPTOR)
    passed = (q.last_avail & (WRAP - 1)) - slot
    move_on(queue, q.last_avail, passed if passed > 0 else passed + q.size, n)


@kernel
def packed_give_back(queue, batch, first, n):
    """Return the buffers of n rows from the first on (the caller calls the driver).

    Nothing was written into them: their used descriptors have length 0 and no WRITE flag. Each is
    one store, in the order of the ring, so that there is no moment at which a crash would leave
    the ring torn.
    """
    q = vq_at(queue)
    rows, size, desc, log = batch_at(batch).rows + 64 * first, q.size, q.desc, q.log
    if unlikely(n == 0):
        return
    if unlikely(q.inflight != 0):  # with the journal, as a delivery is published
        for k in range(n):
            add_done(batch, k, ld64(rows + 64 * k + R.token), 0, 0)
        publish_packed(queue, batch, n)
        return
    if q.in_order != 0:
        give_back_in_order(queue, rows, n)
        return
    slot = q.used_idx & (WRAP - 1)
    done = AVAIL | USED if q.used_idx & WRAP != 0 else 0
    passed = 0
    for k in range(n):
        token = ld64(rows + 64 * k + R.token)
        st64_rel(desc + DESCRIPTOR * slot + 8, (token & 0xFFFF) << 32 | done << 48)
        if unlikely(log != 0):
            log_write(log, desc + DESCRIPTOR * slot, DESCRIPTOR)
        passed += token >> 16
        slot += token >> 16
        if unlikely(slot >= size):
            slot -= size
            done ^= AVAIL | USED
    move_on(queue, slot | (WRAP if done != 0 else 0), passed, n)


# ---------------------------------------------------------------- either
@kernel
def device_near(queue):
    """Ask for what is looked at first; the caller has something else to do meanwhile."""
    q = vq_at(queue)
    if q.packed != 0:
        prefetch(q.desc + DESCRIPTOR * (q.last_avail & (WRAP - 1)))
    else:
        prefetch(q.avail + INDEX)


@kernel
def device_rx(queue, batch):
    """Borrow frames from the guest, after the rows that the batch has already, as far as there is
    room; -> rows filled."""
    if vq_at(queue).packed != 0:
        return packed_rx(queue, batch)
    return split_rx(queue, batch)


@kernel
def device_give_back(queue, batch, first, n):
    """Return what device_rx borrowed, in the same pass: n rows of the batch from the first on."""
    if vq_at(queue).packed != 0:
        packed_give_back(queue, batch, first, n)
    else:
        split_give_back(queue, n)
