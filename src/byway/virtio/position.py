# SPDX-License-Identifier: Apache-2.0
"""Where a device goes on in a ring that another one served before: read from the ring itself.

Used by the vhost-user port when a front end starts a ring.

A front end that lost its back end knows no better than the ring. Of a split ring it is the used
index (VIRTIO 1.2, 2.7.8). A packed ring has none, and front ends such as QEMU then name the
position of the very first start. So Byway's device keeps its position where it may write: in the
word of its own event suppression structure (2.8.14), which says something to the driver only
together with the flag EVENT_AT_SLOT, and then it is the position as well. It is believed where the
ring does not contradict it: the chain before it has been used in its lap, or made available again
for the next one. A new ring holds zeros, and its front end is right.

It is not written for each batch: the driver looks at that line as well. It is written after the
first batch, after one with any chain of several slots, and every quarter of the ring; so what is
not noted are chains of one slot, and they are passed over, for the ring says of each that it was
returned. A used descriptor has both flags of its lap. One that was made available again for the
next lap has the flags of one that lies inside a chain of the lap before, for of a chain only the
first descriptor is marked as used (2.8.6). But the driver makes descriptors available in order. So
of those that look like this, the ones with a used descriptor behind them were returned; and where
there is none, all or none were, and all means that the ring is full: the next one is available as
well.

With IN_ORDER one used descriptor returns many buffers (2.8.8), and the ring tells nothing: the
front end is to be believed. Only a process that is killed between returning longer chains and
writing the word leaves it behind.
"""

import ctypes

from byway.virtio.ring import (
    AVAIL,
    DESCRIPTOR,
    EVENT_WORD,
    INDEX,
    NEXT,
    PACKED_START,
    USED,
    WRAP,
)

_FLAGS = 14  # of a packed descriptor
_SLOT = WRAP - 1


def used_index(used: int) -> int:
    """The used index in a split ring at host address ``used``."""
    return ctypes.c_uint16.from_address(used + INDEX).value


def packed_position(desc: int, used: int, size: int, base: int) -> int:
    """slot | WRAP of a packed ring of ``size`` descriptors, whose front end says ``base``.

    To be asked where a connection begins: later on, the front end has the position from us.
    """
    area = ctypes.c_uint32.from_address(used + EVENT_WORD).value  # with the flags: 0 in a new ring
    position, kept = base, area & 0xFFFF
    if kept & _SLOT < size and (area != 0 or base == PACKED_START) and _follows(desc, size, kept):
        position = kept
    elif base != PACKED_START:  # a ring that begins there, and says nothing yet
        return base
    return _pass_over(desc, size, position)


def _follows(desc: int, size: int, position: int) -> bool:
    """Is what lies before the position a chain that was returned?"""
    following = 0
    for _ in range(size):
        position = _before(size, position)
        flags = _flags(desc, position)
        if _marked(flags, USED, position):
            return True
        if not _marked(flags, AVAIL, position) or flags & NEXT != following:
            return False
        following = NEXT  # the last of a chain has no such flag, all others but a used one do
    return False


def _pass_over(desc: int, size: int, position: int) -> int:
    """The position behind the chains of one slot that were returned from ``position`` on."""
    at = found = position
    for _ in range(size):
        flags = _flags(desc, at)
        if not _marked(flags, USED, at):
            if found == position and _marked(flags, AVAIL, at):  # a full ring, or nothing passed
                return at
            break
        following = _after(size, at)
        if _marked(flags, AVAIL, at):
            found = following
        at = following
    return found


def _flags(desc: int, position: int) -> int:
    at = desc + DESCRIPTOR * (position & _SLOT) + _FLAGS
    return ctypes.c_uint16.from_address(at).value


def _marked(flags: int, flag: int, position: int) -> bool:
    """Is the flag that of the position's lap? (2.8.1)"""
    return bool(flags & flag) == bool(position & WRAP)


def _after(size: int, position: int) -> int:
    slot = (position & _SLOT) + 1
    return slot | position & WRAP if slot < size else position & WRAP ^ WRAP


def _before(size: int, position: int) -> int:
    return position - 1 if position & _SLOT else size - 1 | position & WRAP ^ WRAP
