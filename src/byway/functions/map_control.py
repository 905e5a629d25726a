# SPDX-License-Identifier: Apache-2.0
"""What control does to states while functions use them: each call holds the instance's lock.

Used by map_memory.py and states.py. Uses map_kernels.py.

Nothing here takes long: what is a lot (a copy of a map, a sweep) is done in portions.
"""

from byway.functions.apply import hold
from byway.functions.map_kernels import M, found, obtain, sweep
from byway.functions.map_methods import map_delete
from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64, st64_rel


@kernel
def take_key(state, shape, given):
    """The key that is asked for is the one at ``given``."""
    for k in range(shape & 15):
        st64(state + M.key + 8 * k, ld64(given + 8 * k))


@kernel(entry=True)
def map_put(lock, state, now, shape, given):
    """Put key and value at ``given`` (as in an entry); -> 0: there was no room."""
    hold(lock)
    take_key(state, shape, given)
    at = obtain(state, shape, now)
    if at != 0:
        for k in range((shape >> 8 & 1023) - 8 * (shape & 15) >> 3):
            st64(at + 8 * k, ld64(given + 8 * (shape & 15) + 8 * k))
    st64_rel(lock, 0)
    return 1 if at != 0 else 0


@kernel(entry=True)
def map_knows(lock, state, now, shape, given):
    """Is there an entry with the key at ``given``?"""
    hold(lock)
    take_key(state, shape, given)
    place = found(state, shape, now)
    st64_rel(lock, 0)
    return 1 if place != 0 else 0


@kernel(entry=True)
def map_remove(lock, state, now, shape, given):
    """Remove the entry with the key at ``given``; -> 0: there was none."""
    hold(lock)
    take_key(state, shape, given)
    there = map_delete(state, now, shape)
    st64_rel(lock, 0)
    return 1 if there else 0


@kernel(entry=True)
def map_sweep(lock, state, now, shape, first, n):
    """Remove the entries that have aged out of n buckets from number ``first`` on; -> how many."""
    hold(lock)
    before = ld64(state + M.count)
    sweep(state, shape, now, first, n)
    removed = before - ld64(state + M.count)
    st64_rel(lock, 0)
    return removed


@kernel(entry=True)
def copy_words(lock, destination, source, n):
    """Copy n words that nobody changes meanwhile."""
    hold(lock)
    for k in range(n):
        st64(destination + 8 * k, ld64(source + 8 * k))
    st64_rel(lock, 0)
    return 0


ENTRIES = (map_put, map_knows, map_remove, map_sweep, copy_words)
