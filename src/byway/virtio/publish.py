# SPDX-License-Identifier: Apache-2.0
"""Telling the driver which buffers were filled: the end of a delivery, in both ring formats.

Used by device_tx.py, chains.py and device_rx.py, which list what is done in the batch's scratch;
also says how that scratch is divided.

VIRTIO 1.2: 2.7.8 (used ring), 2.8.9 (used descriptors: the first one's flags last, so that the
driver sees all buffers of a frame or none).
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, st16_once, st16_rel, st64, st64_once, st64_rel, unlikely
from byway.packet.batch import ROWS, SCRATCH_BYTES, SEGMENT, SEGMENTS, batch_at
from byway.virtio.dirty import log_write
from byway.virtio.inflight import journal_begin, journal_commit
from byway.virtio.ring import (
    AVAIL,
    DESCRIPTOR,
    ENTRIES,
    EVENT_WORD,
    INDEX,
    USED,
    WRAP,
    WRITE,
    Q,
    RingError,
    vq_at,
)

_ENDLESS = int(RingError.ENDLESS)

# The batch's scratch. First, segments of the frame that chains are filled for.
SCRATCH = 2 * SEGMENTS
# Then a BUFFER for each row: host address (or a descriptor's address), token (split: head; packed:
# id | slots << 16), second word of the descriptor.
BUFFERS_AT = SCRATCH * SEGMENT
BUFFER, BUFFER_TOKEN, BUFFER_WORD = 24, 8, 16
# Then what is done: token, bytes written, and where (0: noted in the log already).
DONE_AT = BUFFERS_AT + BUFFER * (ROWS + 1)
DONE, DONE_LENGTH, DONE_ADDRESS = 24, 8, 16
MAX_MERGED = 128  # buffers that one frame is spread over: bounds the walks of a hostile ring
MAX_DONE = (SCRATCH_BYTES - DONE_AT) // DONE - MAX_MERGED - ROWS


@kernel
def buffers_at(batch):
    """Where the batch's BUFFERs are."""
    return batch_at(batch).scratch + BUFFERS_AT


@kernel
def add_done(batch, k, token, length, address):
    """List a buffer as the k-th that is done, with ``length`` bytes written at ``address``."""
    at = batch_at(batch).scratch + DONE_AT + DONE * k
    st64(at, token)
    st64(at + DONE_LENGTH, length)
    st64(at + DONE_ADDRESS, address)


@kernel
def clear_done(batch, k):
    """Nothing was written into the k-th buffer that is done."""
    st64(batch_at(batch).scratch + DONE_AT + DONE * k + DONE_LENGTH, 0)


@kernel
def log_done(queue, batch, n):
    """Note in the dirty log what was written into n buffers."""
    list_at = batch_at(batch).scratch + DONE_AT
    log = vq_at(queue).log
    for k in range(n):
        at = list_at + DONE * k
        if ld64(at + DONE_ADDRESS) != 0:
            log_write(log, ld64(at + DONE_ADDRESS), ld64(at + DONE_LENGTH))


@kernel
def publish_split(queue, batch, n):
    """Write n used entries, then the used index."""
    q = vq_at(queue)
    list_at = batch_at(batch).scratch + DONE_AT
    idx, used, mask = q.used_idx, q.used + ENTRIES, q.mask
    for k in range(n):
        at = list_at + DONE * k
        st64(used + 8 * ((idx + k) & mask), ld64(at) | ld64(at + DONE_LENGTH) << 32)
    if unlikely(q.log != 0):
        for k in range(n):
            log_write(q.log, used + 8 * ((idx + k) & mask), 8)
    idx = (idx + n) & 0xFFFF
    q.last_avail = (q.last_avail + n) & 0xFFFF
    st16_rel(q.used + INDEX, idx)
    if unlikely(q.log != 0):
        log_write(q.log, q.used + INDEX, 2)
    st64_rel(queue + Q.used_idx, idx)  # after the ring's: see call_driver


@kernel
def slots_done(batch, n):
    """Slots that n buffers take of a packed ring."""
    list_at = batch_at(batch).scratch + DONE_AT
    slots = 0
    for k in range(n):
        slots += ld64(list_at + DONE * k) >> 16
    return slots


@kernel
def move_on(queue, position, passed, chains):
    """``passed`` slots of a packed ring, those of ``chains`` chains, were returned, up to
    ``position``. After the ring's own stores: see call_driver.

    The position is kept in the ring for the next back end (position.py), but a line that the
    driver looks at is not written for each batch: chains of one slot can be told from the ring.
    """
    q = vq_at(queue)
    q.used_idx = position
    q.unkept += passed
    if unlikely(passed != chains or q.unkept >= q.size >> 2):
        q.unkept = 0
        if q.in_order == 0 and q.inflight == 0:
            st16_once(q.used + EVENT_WORD, position)
            if q.log != 0:
                log_write(q.log, q.used, 2)
    st64_rel(queue + Q.published, position | ((q.published >> 16) + passed) << 16)


@kernel
def publish_packed(queue, batch, n):
    """Write n used descriptors, the first one last."""
    q = vq_at(queue)
    list_at = batch_at(batch).scratch + DONE_AT
    slots = 0
    if unlikely(q.inflight != 0):
        slots = slots_done(batch, n)
        if slots > q.size:  # a guest that changed its chains while they were walked
            q.error = _ENDLESS
            return
        journal_begin(queue, slots)
    size, desc, log = q.size, q.desc, q.log
    slot = q.used_idx & (WRAP - 1)
    done = AVAIL | USED if q.used_idx & WRAP != 0 else 0
    first = desc + DESCRIPTOR * slot + 8
    first_word = 0
    passed = 0
    for k in range(n):
        at = list_at + DONE * k
        token, length = ld64(at), ld64(at + DONE_LENGTH)
        flags = done | WRITE if length > 0 else done
        word = length | (token & 0xFFFF) << 32 | flags << 48
        if k == 0:
            first_word = word
        else:
            st64_once(desc + DESCRIPTOR * slot + 8, word)
        if unlikely(log != 0):
            log_write(log, desc + DESCRIPTOR * slot, DESCRIPTOR)
        passed += token >> 16
        slot += token >> 16
        if unlikely(slot >= size):
            slot -= size
            done ^= AVAIL | USED
    st64_rel(first, first_word)
    if unlikely(log != 0):
        log_write(log, first - 8, DESCRIPTOR)
    move_on(queue, slot | (WRAP if done != 0 else 0), passed, n)
    q.last_avail = q.used_idx
    if unlikely(q.inflight != 0):
        journal_commit(queue, slots)


@kernel
def publish_done(queue, batch, n):
    """Publish the n > 0 buffers listed, in their order."""
    q = vq_at(queue)
    if unlikely(q.log != 0):
        log_done(queue, batch, n)
    if q.packed != 0:
        publish_packed(queue, batch, n)
    else:
        publish_split(queue, batch, n)
