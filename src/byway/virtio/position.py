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

A process that was killed after it had returned buffers, and before it noted that, leaves used
descriptors from there on: they are passed over (one slot each, as drivers with indirect descriptors
use the ring).
"""

import ctypes

from byway.virtio.ring import AVAIL, DESCRIPTOR, EVENT_WORD, INDEX, PACKED_START, USED, WRAP

_FLAGS = 14  # of a packed descriptor


def used_index(used: int) -> int:
    """The used index in a split ring at host address ``used``."""
    return ctypes.c_uint16.from_address(used + INDEX).value


def packed_position(desc: int, used: int, size: int, base: int) -> int:
    """slot | WRAP of a packed ring of ``size`` descriptors, whose front end says ``base``.

    To be asked where a connection begins: later on, the front end has the position from us.
    """
    area = ctypes.c_uint32.from_address(used + EVENT_WORD).value  # with the flags: 0 in a new ring
    kept = area & 0xFFFF
    slot, wrap = kept & (WRAP - 1), kept & WRAP
    if kept == base or slot >= size or (area == 0 and base != PACKED_START):
        return base
    before, its_wrap = (slot - 1, wrap) if slot else (size - 1, wrap ^ WRAP)
    if not (_is_used(desc, before, its_wrap) or _is_available(desc, before, its_wrap ^ WRAP)):
        return base
    for _ in range(size):
        if not _is_used(desc, slot, wrap):
            break
        slot, wrap = (slot + 1, wrap) if slot + 1 < size else (0, wrap ^ WRAP)
    return slot | wrap


def _is_used(desc: int, slot: int, wrap: int) -> bool:
    """Was the descriptor used in the lap of ``wrap``? (2.8.1)"""
    return _state(desc, slot) == ((AVAIL | USED) if wrap else 0)


def _is_available(desc: int, slot: int, wrap: int) -> bool:
    """Is the descriptor available in the lap of ``wrap``?"""
    return _state(desc, slot) == (AVAIL if wrap else USED)


def _state(desc: int, slot: int) -> int:
    flags = ctypes.c_uint16.from_address(desc + DESCRIPTOR * slot + _FLAGS).value
    return flags & (AVAIL | USED)
