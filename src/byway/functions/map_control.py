# SPDX-License-Identifier: Apache-2.0
"""What control does to states while functions use them: each call holds the instance's lock.

Used by map_memory.py and states.py. Uses map_kernels.py.

Nothing here takes long: what is a lot (a copy of a map, many rows, a sweep) is done in portions.
Rows lie one behind the other, each a key and a value as in an entry; ``marks``, a word for each,
say which are meant, and then what became of them.
"""

from byway.functions.map_kernels import M, found, hash_of, obtain, sweep
from byway.functions.map_methods import map_delete
from byway.machine.jit import kernel
from byway.machine.lock import acquire
from byway.machine.mem import ld64, st64, st64_rel

NEW, KNOWN, PUT, REFUSED = 0, 1, 2, 3  # marks of rows


@kernel
def take_key(state, shape, given):
    """The key that is asked for is the one at ``given``."""
    for k in range(shape & 15):
        st64(state + M.key + 8 * k, ld64(given + 8 * k))


@kernel(entry=True)
def map_find_rows(lock, state, now, shape, given, marks, which, n):
    """Mark each of n rows that is marked ``which``: is there an entry with its key (KNOWN), or none
    (NEW)?"""
    acquire(lock)
    for k in range(n):
        if ld64(marks + 8 * k) == which:
            take_key(state, shape, given + k * (shape >> 8 & 1023))
            place = found(state, shape, now, hash_of(state, shape))
            st64(marks + 8 * k, KNOWN if place != 0 else NEW)
    st64_rel(lock, 0)
    return 0


@kernel(entry=True)
def map_put_rows(lock, state, now, shape, given, marks, which, n):
    """Put each of n rows that is marked ``which``, and mark it: it is there (PUT), or there was no
    room (REFUSED)."""
    acquire(lock)
    for k in range(n):
        if ld64(marks + 8 * k) == which:
            row = given + k * (shape >> 8 & 1023)
            take_key(state, shape, row)
            at = obtain(state, shape, now, hash_of(state, shape))
            if at != 0:
                for word in range((shape >> 8 & 1023) - 8 * (shape & 15) >> 3):
                    st64(at + 8 * word, ld64(row + 8 * (shape & 15) + 8 * word))
            st64(marks + 8 * k, PUT if at != 0 else REFUSED)
    st64_rel(lock, 0)
    return 0


@kernel(entry=True)
def map_remove_rows(lock, state, now, shape, given, marks, which, n):
    """Remove the entry of each of n rows that is marked ``which``, and mark it: there was one
    (KNOWN), or none (NEW)."""
    acquire(lock)
    for k in range(n):
        if ld64(marks + 8 * k) == which:
            take_key(state, shape, given + k * (shape >> 8 & 1023))
            there = map_delete(state, now, shape, hash_of(state, shape))
            st64(marks + 8 * k, KNOWN if there else NEW)
    st64_rel(lock, 0)
    return 0


@kernel(entry=True)
def map_sweep(lock, state, now, shape, first, n):
    """Remove the entries that have aged out of n buckets from number ``first`` on; -> how many."""
    acquire(lock)
    before = ld64(state + M.count)
    sweep(state, shape, now, first, n)
    removed = before - ld64(state + M.count)
    st64_rel(lock, 0)
    return removed


@kernel(entry=True)
def copy_words(lock, destination, source, n):
    """Copy n words that nobody changes meanwhile."""
    acquire(lock)
    for k in range(n):
        st64(destination + 8 * k, ld64(source + 8 * k))
    st64_rel(lock, 0)
    return 0


ENTRIES = (map_find_rows, map_put_rows, map_remove_rows, map_sweep, copy_words)
