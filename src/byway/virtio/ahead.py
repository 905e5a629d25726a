# SPDX-License-Identifier: Apache-2.0
"""Asking for the pages of buffers behind an IOMMU before they are needed.

Used by ports.dispatch, after each batch of a virtqueue whose memory table names a translation
cache. Uses the cache (iotlb) and the layouts of ring.py.

A guest that maps each buffer anew would have every frame wait for a question and its answer, or
lose it, where it is to receive it. So what is available in the ring is looked at AHEAD entries far:
every page of these chains that is not known is missed now (iotlb.note_miss). The queue's ``ahead``
says how far that went, so that an entry is looked at once; and, above the 16 bits of the position,
after how many large invalidations that was: each makes all of it worth another look.

Nothing is decided here. The guest may change all of it before the chain is really walked, which
checks everything again; what is wrong with a chain is therefore passed over in silence. Work is
bounded: CHAIN descriptors and PAGES pages of a chain, AHEAD entries a call.
VIRTIO 1.2: 2.7 (split), 2.8 (packed).
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld16_acq, ld16_once, ld64, ld64_acq, ld64_once, likely, shr64
from byway.virtio.iotlb import PAGE, PAGE_SHIFT, I, known, note_miss
from byway.virtio.memtab import M, translate
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
    vq_at,
)

AHEAD = 64
CHAIN = 24  # a frame of 64 KiB lies in 17 pages
PAGES = 24


@kernel
def ask_pages(iotlb, iova, length, write, left):
    """Miss the pages of [iova, iova + length) that are not known, ``left`` pages at the most;
    -> how many are left."""
    if length == 0:
        return left
    pages = ((iova & (PAGE - 1)) + length + PAGE - 1) >> PAGE_SHIFT
    page = shr64(iova, PAGE_SHIFT)
    for k in range(min(pages, left)):
        at = (page + k) << PAGE_SHIFT
        if known(iotlb, at, write) == 0:
            note_miss(iotlb, at, write)
    return left - min(pages, left)


@kernel
def ask_table(memtab, table, count, write):
    """Miss the pages of an indirect table and of what its entries name, as far as it is known."""
    iotlb = ld64(memtab + M.iotlb)
    count = min(count, CHAIN)
    left = ask_pages(iotlb, table, DESCRIPTOR * count, 0, PAGES)
    for i in range(count):
        at = translate(memtab, table + DESCRIPTOR * i, DESCRIPTOR, 0)
        if at == 0 or left == 0:
            return
        length = ld64_once(at + 8) & 0xFFFFFFFF
        left = ask_pages(iotlb, ld64_once(at), length, write, left)


@kernel
def ask_chain(queue, slot, write):
    """Miss what is not known of the chain whose first descriptor is in ``slot``; -> descriptors of
    the ring that it takes, as far as was looked."""
    q = vq_at(queue)
    iotlb = ld64(q.memtab + M.iotlb)
    left = PAGES
    for k in range(CHAIN):
        at = q.desc + DESCRIPTOR * slot
        iova = ld64_once(at)
        word = ld64_once(at + 8)
        length = word & 0xFFFFFFFF
        flags = (word >> 32) & 0xFFFF
        if q.packed != 0:
            flags = shr64(word, 48)
        if flags & INDIRECT != 0:
            ask_table(q.memtab, iova, length >> 4, write)
            return k + 1
        left = ask_pages(iotlb, iova, length, write, left)
        if flags & NEXT == 0:
            return k + 1
        slot = shr64(word, 48) if q.packed == 0 else slot + 1
        if q.packed != 0 and slot == q.size:
            slot = 0
        if slot >= q.size:
            return k + 1
    return CHAIN


@kernel
def split_ahead(queue, write, epoch):
    """look_ahead for a split ring."""
    q = vq_at(queue)
    n = (ld16_acq(q.avail + INDEX) - q.last_avail) & 0xFFFF
    seen = (q.ahead - q.last_avail) & 0xFFFF
    if n > q.size or seen > n or q.ahead >> 16 != epoch:
        seen = 0
    n = min(n, AHEAD)
    for k in range(seen, n):
        head = ld16_once(q.avail + ENTRIES + 2 * ((q.last_avail + k) & q.mask))
        if head < q.size:
            ask_chain(queue, head, write)
    if n > seen:
        q.ahead = (q.last_avail + n) & 0xFFFF | epoch << 16


@kernel
def packed_ahead(queue, write, epoch):
    """look_ahead for a packed ring."""
    q = vq_at(queue)
    first = q.last_avail & (WRAP - 1)
    wrap = q.last_avail & WRAP
    seen = (q.ahead & (WRAP - 1)) - first
    if q.ahead & WRAP != wrap:
        seen += q.size
    if seen < 0 or seen > AHEAD + CHAIN or seen > q.size or q.ahead >> 16 != epoch:
        seen = 0
    while seen < AHEAD and seen < q.size:
        slot = first + seen
        fresh = AVAIL if wrap != 0 else USED
        if slot >= q.size:
            slot -= q.size
            fresh ^= AVAIL | USED
        if shr64(ld64_acq(q.desc + DESCRIPTOR * slot + 8), 48) & (AVAIL | USED) != fresh:
            break
        seen += ask_chain(queue, slot, write)
    slot = first + seen
    if slot >= q.size:
        slot -= q.size
        wrap ^= WRAP
    q.ahead = slot | wrap | epoch << 16


@kernel
def look_ahead(queue, direction):
    """Ask for the pages of what is available next; ``direction`` as for the walk.

    Behind no IOMMU it does nothing. Two workers may be in it at once: they would ask twice.
    """
    q = vq_at(queue)
    iotlb = ld64(q.memtab + M.iotlb)
    if likely(iotlb == 0):
        return
    write = 1 if direction & WRITE != 0 else 0
    epoch = ld64_acq(iotlb + I.taken_away) & 0xFFFFFFFF
    if q.packed != 0:
        packed_ahead(queue, write, epoch)
    else:
        split_ahead(queue, write, epoch)
