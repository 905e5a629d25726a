# SPDX-License-Identifier: Apache-2.0
"""State of network functions as tests and benchmarks call it: entries of int64 arguments.

See the function that each one calls. A key is stored by the caller (MapMemory.record["key"]).
"""

from byway.functions.event_kernels import event_begin, event_bytes, event_end, event_number
from byway.functions.fields import parse
from byway.functions.map_kernels import KEY, hash_of
from byway.functions.map_memory import map_shape
from byway.functions.map_methods import (
    map_add,
    map_delete,
    map_find,
    map_get,
    map_has,
    map_make,
    map_peek,
    map_set,
)
from byway.functions.states_kernels import (
    array_get,
    array_set,
    bucket_take,
    buckets_take,
    counter_add,
    draw,
    hash_end,
    hash_more,
    hash_wide,
    lpm_get4,
    lpm_get6,
    put_flow,
)
from byway.machine.jit import kernel
from byway.machine.lock import acquire
from byway.machine.mem import ld64, st64, st64_rel
from byway.machine.system import pause, rdtsc
from byway.nf.keys import FLOW_WORDS

GET, HAS, SET, ADD, DELETE, FIND, PEEK, MAKE = range(8)


@kernel(entry=True)
def map_do(state, now, shape, what, n):
    """Call one of a map's methods (constants above) with ``n``."""
    answer = 0
    if what == GET:
        answer = map_get(state, now, shape, hash_of(state, shape), n)
    elif what == HAS:
        answer = 1 if map_has(state, now, shape, hash_of(state, shape)) else 0
    elif what == SET:
        answer = 1 if map_set(state, now, shape, hash_of(state, shape), n) else 0
    elif what == ADD:
        answer = map_add(state, now, shape, hash_of(state, shape), n)
    elif what == DELETE:
        answer = 1 if map_delete(state, now, shape, hash_of(state, shape)) else 0
    elif what == FIND:
        answer = map_find(state, now, shape, hash_of(state, shape))
    elif what == PEEK:
        answer = map_peek(state, now, shape, hash_of(state, shape))
    else:
        answer = map_make(state, now, shape, hash_of(state, shape))
    return answer


@kernel(entry=True)
def map_set_all(state, now, shape, keys, n):
    """Set the n keys at ``keys`` to their places; -> how many found room."""
    done = 0
    for k in range(n):
        for word in range(shape & 15):
            st64(state + KEY + 8 * word, ld64(keys + 8 * ((shape & 15) * k + word)))
        if map_set(state, now, shape, hash_of(state, shape), k):
            done += 1
    return done


@kernel(entry=True)
def map_get_all(state, now, shape, keys, n):
    """Get them again; -> how many have their place as value."""
    right = 0
    for k in range(n):
        for word in range(shape & 15):
            st64(state + KEY + 8 * word, ld64(keys + 8 * ((shape & 15) * k + word)))
        if map_get(state, now, shape, hash_of(state, shape), -1) == k:
            right += 1
    return right


@kernel(entry=True)
def map_add_held(lock, state, now, shape, keys, n, rounds):
    """As a worker does, batch by batch: hold the lock, and add 1 to the number of each key."""
    for _ in range(rounds):
        acquire(lock)
        for k in range(n):
            st64(state + KEY, ld64(keys + 8 * k))
            map_add(state, now, shape, hash_of(state, shape), 1)
        st64_rel(lock, 0)
        for _ in range(100):  # what a worker does without the lock
            pause()
    return 0


# As translated code has them: constants.
NUMBER, AGED_NUMBER = map_shape(1, 1, 32), map_shape(1, 1, 32, aged=True)
FLOW_RECORD = map_shape(FLOW_WORDS, 2, aged=True, used=True)


@kernel(entry=True)
def ticks_of_get(state, now, keys, n):
    """Ticks of the time stamp counter that n look-ups take, of numbers that do not age; ``keys``:
    a word each, and one to spare."""
    total = 0
    began = rdtsc()
    for k in range(n):
        st64(state + KEY, ld64(keys + 8 * k))
        total += map_get(state, now, NUMBER, hash_of(state, NUMBER), 0)
    st64(keys + 8 * n, total)  # it is used
    return rdtsc() - began


@kernel(entry=True)
def ticks_of_add(state, now, keys, n):
    """As ``ticks_of_get``, to add 1 to numbers that age."""
    total = 0
    began = rdtsc()
    for k in range(n):
        st64(state + KEY, ld64(keys + 8 * k))
        total += map_add(state, now, AGED_NUMBER, hash_of(state, AGED_NUMBER), 1)
    st64(keys + 8 * n, total)  # it is used
    return rdtsc() - began


@kernel(entry=True)
def ticks_of_make(state, now, keys, n):
    """As ``ticks_of_get``, to count in the records of flows; ``keys``: FLOW_WORDS each."""
    began = rdtsc()
    for k in range(n):
        for word in range(FLOW_WORDS):
            st64(state + KEY + 8 * word, ld64(keys + 8 * (FLOW_WORDS * k + word)))
        record = map_make(state, now, FLOW_RECORD, hash_of(state, FLOW_RECORD))
        st64(record, ld64(record) + 1)
    return rdtsc() - began


@kernel(entry=True)
def ticks_of_lookup(state, keys, n):
    """As ``ticks_of_get``, for the prefixes of IPv4 addresses."""
    total = 0
    began = rdtsc()
    for k in range(n):
        total += lpm_get4(state, ld64(keys + 8 * k), 0)
    st64(keys + 8 * n, total)  # it is used
    return rdtsc() - began


@kernel(entry=True)
def do_take(state, now, n, rate, burst):
    """See ``bucket_take``."""
    return 1 if bucket_take(state, now, n, rate, burst) else 0


@kernel(entry=True)
def do_take_keyed(state, now, shape, n, rate, burst):
    """See ``buckets_take``."""
    return 1 if buckets_take(state, now, shape, hash_of(state, shape), n, rate, burst) else 0


@kernel(entry=True)
def do_lookup(state, wide, high, low, default):
    """See ``lpm_get4`` and ``lpm_get6``."""
    return lpm_get6(state, high, low, default) if wide != 0 else lpm_get4(state, low, default)


@kernel(entry=True)
def do_words(state, index, value, bits):
    """Add to the counter at ``state``, set a place of the array there; -> what is there then."""
    counter_add(state, value)
    array_set(state, bits, index, value)
    return array_get(state, index)


@kernel(entry=True)
def do_draw(cell, n):
    """See ``draw``."""
    return draw(cell, n)


@kernel(entry=True)
def do_hash(word, high, low):
    """The hash of a number and a wide number."""
    return hash_end(hash_wide(hash_more(0, word), high, low))


@kernel(entry=True)
def do_put_flow(state, at, row):
    """See ``put_flow``."""
    put_flow(state, at, row, parse(row))
    return 0


@kernel(entry=True)
def do_emit(state, now, value, bits, row, most, skip, n):
    """An event of a number and bytes."""
    at = event_begin(state, now)
    event_number(at, value, bits)
    event_bytes(at + 8, most, row, skip, n)
    event_end(state, at)
    return 0
