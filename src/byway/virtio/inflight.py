# SPDX-License-Identifier: Apache-2.0
"""The in-flight region of a virtqueue: its layout, and what the device notes in it.

Used by the kernels that publish used buffers of packed rings; vhost.inflight makes the region, and
vhost.recovery reads it after a back end was killed, and puts right what it tells. Source of the
layouts: QEMU, docs/interop/vhost-user.rst, "Inflight I/O tracking".

Theory of operation
-------------------
Byway's device works in order and holds nothing between passes, so there is one position: what lies
before it was returned, what lies behind is the driver's or is still to be taken. A frame whose
buffers were not returned when the process was killed is simply taken (or its buffers are filled)
again.

A *split* ring needs no notes. Its used index is the position, and one store moves it over a whole
batch. The entries of the region stay empty.

A *packed* ring has no index, and returning buffers overwrites the descriptors that described them.
A batch is published by n stores into n descriptors; the first descriptor is written last, and the
driver, which looks at that one only, sees nothing before. A process that is killed among them
leaves descriptors that are not what the driver wrote, before the position has moved. So:

    journal_begin     copies the slots that the batch covers into the region's entries, as chains
                      that were taken; then notes where the position will be
    (publication)     used descriptors, the first one last
    journal_commit    notes that it happened: the entries are free, the position is the new one

Whoever reads the region later decides by the descriptor at the old position: if it is still
available, the chains of the entries were not returned (*roll back*); otherwise all were (*commit*).

Each step becomes valid by one store, and stores become visible in their order (x86-64 keeps it;
release stores keep the compiler from changing it). Between two batches all entries are free, in
the order of their numbers; so entry k always belongs to the k-th slot of the batch, and the list of
free ones needs no upkeep.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64_once, shr64, st32_rel, st64_rel
from byway.virtio.ring import DESCRIPTOR, NEXT, WRAP, vq_at

VERSION = 1
ALIGNMENT = 64  # each queue's part begins at a multiple of it
# Both formats: features u64 @0, version u16 @8, desc_num u16 @10.
FEATURES_AT, VERSION_AT, NUMBER_AT = 0, 8, 10
# Split: last_batch_head u16 @12, used_idx u16 @14, entries @16 of
# {inflight u8 @0, next u16 @6, counter u64 @8}.
LAST_BATCH_HEAD_AT, SPLIT_USED_AT, SPLIT_ENTRIES_AT, SPLIT_ENTRY = 12, 14, 16, 16
SPLIT_NEXT_AT = 6
# Packed: free_head u16 @12, old_free_head u16 @14 (FREE: one word of both), used_idx u16 @16,
# old_used_idx u16 @18, used_wrap u8 @20, old_used_wrap u8 @21 (POSITIONS: one word of the four and
# of padding), entries @32 of {inflight u8 @0, next u16 @2, last u16 @4, num u16 @6, counter u64 @8,
# id u16 @16, flags u16 @18, len u32 @20, addr u64 @24}.
FREE_AT, POSITIONS_AT, PACKED_ENTRIES_AT, PACKED_ENTRY = 12, 16, 32, 32
PACKED_NEXT_AT, COUNTER_AT, BUFFER_AT, ADDRESS_AT = 2, 8, 16, 24
IN_FLIGHT = 1

_SLOT = WRAP - 1


@kernel
def positions_word(old, new):
    """The word of POSITIONS for two positions (slot | WRAP)."""
    slots = (new & _SLOT) | (old & _SLOT) << 16
    return slots | (new >> 15 & 1) << 32 | (old >> 15 & 1) << 40


@kernel
def free_word(head, old_head):
    """The word of FREE for two heads of the list of free entries."""
    return head | old_head << 16


@kernel
def journal_begin(queue, slots):
    """Note that the chains in the next ``slots`` slots of a packed ring are being returned.

    ``slots``: at most the ring's size; from the position (used_idx) on. Before the first store
    into the ring.
    """
    q = vq_at(queue)
    region, size, desc = q.inflight, q.size, q.desc
    old = q.used_idx
    slot = old & _SLOT
    wrap = old & WRAP
    head = 0  # the entry of the chain's first descriptor
    for k in range(slots):
        buffer = ld64_once(desc + DESCRIPTOR * slot + 8)
        entry = region + PACKED_ENTRIES_AT + PACKED_ENTRY * k
        st64_rel(entry + ADDRESS_AT, ld64_once(desc + DESCRIPTOR * slot))
        st64_rel(entry + BUFFER_AT, shr64(buffer, 32) | buffer << 32)
        st64_rel(entry, k + 1 << 16)
        if shr64(buffer, 48) & NEXT == 0 or k == slots - 1:
            at = region + PACKED_ENTRIES_AT + PACKED_ENTRY * head
            st64_rel(at + COUNTER_AT, head)
            st64_rel(at, IN_FLIGHT | (head + 1) << 16 | k << 32 | (k + 1 - head) << 48)
            head = k + 1
        slot += 1
        if slot >= size:
            slot = 0
            wrap ^= WRAP
    st32_rel(region + FREE_AT, free_word(slots, slots))  # taken
    st32_rel(region + FREE_AT, free_word(0, slots))  # being returned
    st64_rel(region + POSITIONS_AT, positions_word(old, slot | wrap))


@kernel
def journal_commit(queue, slots):
    """Note that those ``slots`` were returned; used_idx is the new position. After the last store
    into the ring."""
    q = vq_at(queue)
    region = q.inflight
    for k in range(slots):
        st64_rel(region + PACKED_ENTRIES_AT + PACKED_ENTRY * k, k + 1 << 16)
    st32_rel(region + FREE_AT, free_word(0, 0))
    st64_rel(region + POSITIONS_AT, positions_word(q.used_idx, q.used_idx))
