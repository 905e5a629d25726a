# SPDX-License-Identifier: Apache-2.0
"""The loops of a recovery: what the in-flight region of a killed back end tells, put right.

Used by vhost.recovery, whose theory of operation says in which order and why. They are kernels
because a region may have 32768 entries and a device 64 rings, and the control thread has other
ports to care for. The entries are read from a private copy; every number in it is checked here
before it leads anywhere. Each store is one step of that theory: what was put right so far may
be found by the next one, if this process is killed as well.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    ld8,
    ld16,
    ld16_once,
    ld32,
    ld64,
    st8,
    st16_rel,
    st32_rel,
    st64,
    st64_rel,
)
from byway.virtio.dirty import log_write
from byway.virtio.inflight import (
    ADDRESS_AT,
    BUFFER_AT,
    FREE_AT,
    LAST_BATCH_HEAD_AT,
    PACKED_ENTRIES_AT,
    PACKED_ENTRY,
    PACKED_NEXT_AT,
    POSITIONS_AT,
    SPLIT_ENTRIES_AT,
    SPLIT_ENTRY,
    SPLIT_NEXT_AT,
    SPLIT_USED_AT,
    free_word,
    positions_word,
)
from byway.virtio.ring import AVAIL, DESCRIPTOR, ENTRIES, INDEX, USED, WRAP

LAST_AT, NUM_AT = 4, 6  # of a packed entry

# part: the ring's part of the region (host address). entries: a private copy of its ``number``
# entries. size, desc, avail, used: the ring's. log: a LOG record or 0. position: where the ring
# goes on (slot | WRAP; split: used index). committed: whether an update is committed or rolled
# back. free: the first free entry. first, count: the last batch of a split ring, of which the
# region does not know yet. heads: address of int64[nheads], entries said to be in flight, in the
# order in which they were taken. known: address of a byte for each entry, 1 where its state is
# known. order, tails: room for int64[number] each: the entries of all chains one after the other
# (``total``), and the last one of each of ``chains``. bad, led: what an error is about.
REPAIR, repair_at, REPAIR_AT = record("repair", [
    "part", "entries", "number", "size", "desc", "avail", "used", "log", "position", "committed",
    "free", "first", "count", "heads", "nheads", "known", "order", "total", "tails", "chains",
    "bad", "led"], size=256)
SOUND, ASTRAY, UNEVEN = 0, 1, 2


# ---------------------------------------------------------------- packed


@kernel
def next_free(r, at):
    """Mark the free entries; the list ends outside of the table, or, where it was being put in
    order, at an entry that it came by before."""
    while at < r.number and ld8(r.known + at) == 0:
        st8(r.known + at, 1)
        at = ld16(r.entries + PACKED_ENTRY * at + PACKED_NEXT_AT)


@kernel(entry=True)
def gather_chains(repair):
    """List the entries of all chains in flight; -> SOUND, ASTRAY (a chain leads where it cannot)
    or UNEVEN (it is shorter or longer than it says, or than the ring has room for)."""
    r = repair_at(repair)
    next_free(r, r.free)
    total = 0
    chains = 0
    for k in range(r.nheads):
        head = ld64(r.heads + 8 * k)
        if ld8(r.known + head) != 0:
            continue
        num = ld16(r.entries + PACKED_ENTRY * head + NUM_AT)
        at = head
        last = -1
        for _ in range(num):
            if at >= r.number or ld8(r.known + at) != 0:
                r.bad, r.led = head, at
                return ASTRAY
            st8(r.known + at, 1)
            st64(r.order + 8 * total, at)
            total += 1
            last = at
            at = ld16(r.entries + PACKED_ENTRY * at + PACKED_NEXT_AT)
        if last != ld16(r.entries + PACKED_ENTRY * head + LAST_AT) or total > r.size:
            r.bad, r.led = head, num
            return UNEVEN
        st64(r.tails + 8 * chains, last)
        st64(r.heads + 8 * chains, head)
        chains += 1
    r.total, r.chains = total, chains
    return SOUND


@kernel
def put_back(r):
    """Write the chains' descriptors into the slots from the position on, available."""
    slot, wrap = r.position & (WRAP - 1), r.position & WRAP
    for k in range(r.total):
        entry = r.entries + PACKED_ENTRY * ld64(r.order + 8 * k)
        buffer = ld64(entry + BUFFER_AT)  # id:16 flags:16 len:32
        flags = (buffer >> 16 & 0xFFFF) & ~(AVAIL | USED) | (AVAIL if wrap != 0 else USED)
        at = r.desc + DESCRIPTOR * slot
        st64_rel(at, ld64(entry + ADDRESS_AT))
        st64_rel(at + 8, ld32(entry + BUFFER_AT + 4) | (buffer & 0xFFFF) << 32 | flags << 48)
        if r.log != 0:
            log_write(r.log, at, DESCRIPTOR)
        slot += 1
        if slot == r.size:
            slot = 0
            wrap ^= WRAP


@kernel
def settle_update(r):
    """Commit or roll back: in the order in which each half alone says what both will."""
    if r.committed != 0:
        st32_rel(r.part + FREE_AT, free_word(r.free, r.free))
        st64_rel(r.part + POSITIONS_AT, positions_word(r.position, r.position))
    else:
        st64_rel(r.part + POSITIONS_AT, positions_word(r.position, r.position))
        st32_rel(r.part + FREE_AT, free_word(r.free, r.free))


@kernel
def free_all(r):
    """Nothing is in flight: free all entries at once, then put their list in order."""
    entries = r.part + PACKED_ENTRIES_AT
    first = r.free
    for k in range(r.chains - 1, -1, -1):
        st16_rel(entries + PACKED_ENTRY * ld64(r.tails + 8 * k) + PACKED_NEXT_AT, first)
        first = ld64(r.heads + 8 * k)
    st32_rel(r.part + FREE_AT, free_word(first, first))
    for i in range(r.number):
        if ld8(r.entries + PACKED_ENTRY * i) != 0:
            st8(entries + PACKED_ENTRY * i, 0)
    for k in range(r.chains):
        tail = ld64(r.tails + 8 * k)
        st16_rel(entries + PACKED_ENTRY * tail + PACKED_NEXT_AT, tail + 1)
    for i in range(r.number):
        if ld16(r.entries + PACKED_ENTRY * i + PACKED_NEXT_AT) != i + 1:
            st16_rel(entries + PACKED_ENTRY * i + PACKED_NEXT_AT, i + 1)
    st32_rel(r.part + FREE_AT, free_word(0, 0))


@kernel(entry=True)
def repair_packed(repair):
    """Put back what was in flight; afterwards nothing is."""
    r = repair_at(repair)
    put_back(r)
    settle_update(r)
    free_all(r)
    return 0


# ---------------------------------------------------------------- split


@kernel(entry=True)
def repair_last_batch(repair):
    """What was in the last batch (``count`` entries from ``first`` on) is not in flight.

    -> SOUND, or ASTRAY where it leads out of the table; then nothing was changed.
    """
    r = repair_at(repair)
    at = r.first
    for _ in range(r.count):
        if at >= r.number:
            r.led = at
            return ASTRAY
        st8(r.known + at, 1)
        at = ld16(r.entries + SPLIT_ENTRY * at + SPLIT_NEXT_AT)
    for i in range(r.number):
        if ld8(r.known + i) != 0:
            st8(r.part + SPLIT_ENTRIES_AT + SPLIT_ENTRY * i, 0)
    st16_rel(r.part + SPLIT_USED_AT, r.position)
    return SOUND


@kernel
def in_order(r):
    """Are the heads in flight those that come next in the avail ring?"""
    for k in range(r.nheads):
        slot = r.position + k & r.size - 1
        if ld16_once(r.avail + ENTRIES + 2 * slot) != ld64(r.heads + 8 * k):
            return False
    return True


@kernel
def return_empty(r):
    """Return the heads in flight with nothing in them, as one batch."""
    last = r.first
    for k in range(r.nheads):
        head = ld64(r.heads + 8 * k)
        at = r.used + ENTRIES + 8 * (r.position + k & r.size - 1)
        st64_rel(at, head)
        if r.log != 0:
            log_write(r.log, at, 8)
        st16_rel(r.part + SPLIT_ENTRIES_AT + SPLIT_ENTRY * head + SPLIT_NEXT_AT, last)
        last = head
    st16_rel(r.part + LAST_BATCH_HEAD_AT, last)
    r.position = r.position + r.nheads & 0xFFFF
    st16_rel(r.used + INDEX, r.position)
    if r.log != 0:
        log_write(r.log, r.used + INDEX, 2)


@kernel(entry=True)
def repair_split(repair):
    """Return what nobody would look at again; -> the position, with nothing in flight."""
    r = repair_at(repair)
    if not in_order(r):
        return_empty(r)
    for k in range(r.nheads - 1, -1, -1):  # what is left of them is always the beginning
        st8(r.part + SPLIT_ENTRIES_AT + SPLIT_ENTRY * ld64(r.heads + 8 * k), 0)
    st16_rel(r.part + SPLIT_USED_AT, r.position)
    return r.position


# What a switch compiles before it needs it.
REPAIR_ENTRIES = (gather_chains, repair_packed, repair_last_batch, repair_split)
