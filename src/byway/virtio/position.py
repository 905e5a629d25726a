# SPDX-License-Identifier: Apache-2.0
"""Where a device goes on in a ring that another one served before: read from the ring itself.

Used by the vhost-user port when a front end starts a ring.

A front end that lost its back end knows no better than the ring. Of a split ring it is the used
index (VIRTIO 1.2, 2.7.8). A packed ring has none, and front ends such as QEMU then name the
position of the very first start. So Byway's device keeps its position where it may write: in the
word of its own event suppression structure (2.8.14), which says something to the driver only
together with the flag EVENT_AT_SLOT, and then it is the position as well. It is believed where the
ring does not contradict it: the descriptor before it has been used in its lap, or made available
again for the next one. A new ring holds zeros, and its front end is right.

It is not written for each batch: the driver looks at that line as well. What the ring says itself
is passed over from there on: descriptors that were used in their lap, or made available again for
the next one, which they can only be once they were used. That tells the position exactly while
each chain takes one slot (as drivers with indirect descriptors, and all of DPDK's, use the ring);
so the word is written after a batch with any longer chain, and every quarter of the ring. Only a
process that is killed between returning longer chains and writing the word leaves it behind.
"""

import ctypes

from byway.virtio.ring import DESCRIPTOR, EVENT_WORD, INDEX, PACKED_START, USED, WRAP

_FLAGS = 14  # of a packed descriptor


def used_index(used: int) -> int:
    """The used index in a split ring at host address ``used``."""
    return ctypes.c_uint16.from_address(used + INDEX).value


def packed_position(desc: int, used: int, size: int, base: int) -> int:
    """slot | WRAP of a packed ring of ``size`` descriptors, whose front end says ``base``.

    To be asked where a connection begins: later on, the front end has the position from us.
    """
    area = ctypes.c_uint32.from_address(used + EVENT_WORD).value  # with the flags: 0 in a new ring
    slot, wrap = base & (WRAP - 1), base & WRAP
    kept_slot, kept_wrap = area & (WRAP - 1), area & WRAP
    if kept_slot < size and (area != 0 or base == PACKED_START):
        before = (kept_slot - 1, kept_wrap) if kept_slot else (size - 1, kept_wrap ^ WRAP)
        if _was_used(desc, *before):
            slot, wrap = kept_slot, kept_wrap
    for _ in range(size):
        if not _was_used(desc, slot, wrap):
            break
        slot, wrap = (slot + 1, wrap) if slot + 1 < size else (0, wrap ^ WRAP)
    return slot | wrap


def _was_used(desc: int, slot: int, wrap: int) -> bool:
    """Was the descriptor used in the lap of ``wrap``, and perhaps made available for the next one
    since? Both have the USED flag of that lap (2.8.1)."""
    flags = ctypes.c_uint16.from_address(desc + DESCRIPTOR * slot + _FLAGS).value
    return bool(flags & USED) == bool(wrap)
