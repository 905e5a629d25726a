# SPDX-License-Identifier: Apache-2.0
"""The methods of maps, as translated functions call them.

Used by states.py (KINDS). Uses map_kernels.py, which explains maps. ``shape`` is a constant in the
code that calls; the key that is asked for was stored before.
"""

from byway.functions.map_kernels import (
    LOW,
    USED,
    M,
    cut,
    found,
    leave,
    obtain,
    place_of,
    stamp_at,
    value_at,
    young,
)
from byway.machine.jit import kernel
from byway.machine.mem import ld64, likely, st32, st64, unlikely, wadd64
from byway.nf.states import TICK_BITS


@kernel(inline=True)
def map_get(state, now, shape, h, default):
    """The number under the key, or ``default``."""
    place = found(state, shape, now, h)
    value = default
    if place != 0:
        value = ld64(value_at(shape, place))
    return value


@kernel(inline=True)
def map_has(state, now, shape, h):
    """Is there an entry with the key?"""
    return found(state, shape, now, h) != 0


@kernel(inline=True)
def map_set(state, now, shape, h, value):
    """Put a number under the key; -> False: there was no room."""
    at = obtain(state, shape, now, h)
    if likely(at != 0):
        st64(at, cut(value, shape >> 32 & 127))
    return at != 0


@kernel(inline=True)
def map_add(state, now, shape, h, n):
    """Add to the number under the key; -> the sum, or n where there was no room."""
    at = obtain(state, shape, now, h)
    total = cut(n, shape >> 32 & 127)
    if likely(at != 0):
        total = cut(wadd64(ld64(at), n), shape >> 32 & 127)
        st64(at, total)
    return total


@kernel(inline=True)
def removed(state, now, shape, place):
    """Remove what is at a place (0: nothing); -> was there something young?"""
    there = False
    if place != 0:
        there = young(state, shape, place, now)
        leave(state, shape, place)
    return there


@kernel
def map_delete(state, now, shape, h):
    """Remove what is under the key; -> was there something young?"""
    place = place_of(state, shape, h)
    return removed(state, now, shape, place)


@kernel
def map_bury(state, now, shape, h):
    """As ``map_delete``, of records: whoever has it may go on to use it while this frame is at work
    (next_frame), and nobody else gets its place."""
    place = place_of(state, shape, h)
    there = removed(state, now, shape, place)
    if place != 0:
        st32(stamp_at(shape, place), ld64(state + M.frame))
    return there


@kernel(inline=True)
def next_frame(state):
    """Another frame is at work: records that were deleted are nobody's any more."""
    st64(state + M.frame, ld64(state + M.frame) + 2 & LOW)


@kernel
def spare_record(state, shape):
    """-> the record of whoever finds none: zeros."""
    for k in range((shape >> 8 & 1023) - 8 * (shape & 15) >> 3):
        st64(state + M.spare + 8 * k, 0)
    return state + M.spare


@kernel(inline=True)
def map_find(state, now, shape, h):
    """The record under the key, or the spare one."""
    place = found(state, shape, now, h)
    if likely(place != 0):
        if shape & USED != 0:
            st32(stamp_at(shape, place), now >> TICK_BITS)
        return value_at(shape, place)
    return spare_record(state, shape)


@kernel(inline=True)
def map_peek(state, now, shape, h):
    """As ``map_find``; it does not count as use."""
    place = found(state, shape, now, h)
    if likely(place != 0):
        return value_at(shape, place)
    return spare_record(state, shape)


@kernel(inline=True)
def map_make(state, now, shape, h):
    """The record under the key, a new one where there is none, or the spare one where there is no
    room."""
    at = obtain(state, shape, now, h)
    if unlikely(at == 0):
        at = spare_record(state, shape)
    return at
