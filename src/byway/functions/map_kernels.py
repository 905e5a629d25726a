# SPDX-License-Identifier: Apache-2.0
"""Maps as compiled functions use them: entries by key, in memory of a fixed size, which age out.

Used by map_methods.py (what functions call), map_control.py and map_memory.py, which makes the
memory. Uses machine. What maps
mean is said by nf.maps, which is the oracle.

Theory of operation
-------------------
The translated function stores a key at the beginning of the state's record (``key``, packed as
nf.keys says) and calls one of the methods, which it gives the key's hash (found out for a whole
batch, where that can be: translate/ahead.py). ``shape`` is a constant in its code: how many
words a key and an entry have, how entries lie in a bucket, whether they age. So the code of a
look-up has no loop and no variable in it that need not be there.

*Buckets.* A bucket holds 2 to 7 entries (``ways``): first their *tags* (7 bits of each one's hash;
bit 7: in use) and the count of those who *passed by*, 4 bytes together (of more than 3 ways: 8);
then their stamps, 32 bits each; then the entries: key words, value words. With up to three words an
entry's bucket is one cache line. An entry lies in its home bucket, or, where that is full, in one
of the WINDOW next. Each bucket counts the entries that passed it by on their way to a later one, so
a search ends at the first bucket that nobody passed by, and what is removed leaves nothing behind.
A count that reached 255 stays so: searches may look further than they must.

*Handles.* Entries never move, so a record is known by its address. A function may go on to use one
that it has deleted; so a place that lost its record to a frame is given to no other while that
frame is at work (``frame``, which its stamp keeps). Others never lose it then: time stands still.

*Capacity.* Buckets are as many as keep them at most so full (FULL) at capacity that a run of more
than WINDOW full ones, which would refuse an entry, is out of reach of chance (for 65,536 entries
below 1 in 10^9). Where entries do not age, capacity is exact: one more is refused. Where they do,
whoever finds no free place in a bucket takes that of an entry that has aged out. In large tables
nothing is scanned: nobody knows how many entries are still young, room is all that counts, and
there may be more of them than capacity says. Small tables (``strict``) are exact: when they are
full they are swept, but not before the oldest entry can have aged out, so at most once a tick.

*Ages* are counted in ticks of 2^20 ns, modulo 2^32 of them: control sweeps now and then
(map_control.py), or an entry that nobody asked for in 26 days would be young again. Time may go
back a little from one batch to the next: their workers looked at the clock before they waited.

*Hashes.* Keys of one word: multiply-shift with secret numbers (Dietzfelbinger et al. 1997); longer
ones are folded by NH first (Black et al. 1999), sums of products of halves to which secret numbers
were added. Who does not know them cannot choose keys that collide.

Threads: whoever calls holds the instance's lock.
"""

from byway.machine.formula import formula, logical
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    ctz64,
    ld8,
    ld32,
    ld64,
    likely,
    st8,
    st32,
    st64,
    unlikely,
    wadd64,
)
from byway.machine.system import prefetch
from byway.nf.keys import MOST_WORDS
from byway.nf.maps import MOST_FIELDS
from byway.nf.states import LONGEST, TICK_BITS

WINDOW = 64
ROOT = 0x6A09E667F3BCC909
LOW = 0xFFFFFFFF
TAGS, ONES, HIGHS = (1 << 56) - 1, 0x0001010101010101, 0x0080808080808080
MANY = 255  # passed by: or more
# A shape: words of a key | ways << 4 | bytes of an entry << 8 | bytes before the entries << 18 |
# cache lines of a bucket << 24 | bits of a value << 32 | AGED | USED.
AGED, USED = 1 << 40, 1 << 41  # entries age; use makes them young again

# key: of the entry that is asked for. seeds: secret numbers. buckets: address. count: entries,
# those too that have aged out and whose place nobody took. n: how many buckets an entry can be at
# home in. age: address of the word that has it, in nanoseconds (own_age, or a parameter). full: how
# often there was no room. strict: is capacity exact (below)? oldest: a tick before which no entry
# was made or used. frame: a number of the frame at work, odd, where it may delete records; -1: none
# did yet. spare: a record for whoever finds none.
MAP, map_at, M = record("map", [
    ("key", "<i8", (MOST_WORDS,)), ("seeds", "<i8", (2 + MOST_WORDS,)), "buckets", "count", "n",
    "age", "own_age", "capacity", "full", "strict", "oldest", "frame",
    ("spare", "<i8", (MOST_FIELDS,))])
KEY, SPARE = M.key, M.spare


# ---------------------------------------------------------------- search
@kernel(inline=True)
def key_hash(state, shape, key):
    """The hash of the key at ``key``: its first half is for the bucket, the 7 bits below for the
    tag."""
    x = ld64(key)
    if shape & 15 > 1:
        x = 0
        for k in range(shape & 15):
            x = wadd64(x, folded(ld64(key + 8 * k), ld64(state + M.seeds + 16 + 8 * k)))
    return stirred(x, ld64(state + M.seeds), ld64(state + M.seeds + 8))


@formula
def home_of(state, shape, h):
    """The address of the bucket that a hash is at home in. (Buckets begin with cache lines; told
    so, LLVM leaves out most of what takes a place apart.)"""
    number = logical(h, 32) * ld64(state + M.n) >> 32
    return (ld64(state + M.buckets) & ~63) + number * ((shape >> 24 & 255) << 6)


@formula
def passed_at(shape, bucket):
    """Where a bucket has the count of those who passed it by."""
    return bucket + 3 + (shape >> 4 & 4)


@formula
def stamp_at(shape, place):
    """Where the stamp of an entry is. A place is a bucket's address + the number of the way."""
    return (place & ~63) + 4 + (shape >> 4 & 4) + 4 * (place & 63)


@formula
def entry_at(shape, place):
    """Where an entry is."""
    return (place & ~63) + (shape >> 18 & 63) + (place & 63) * (shape >> 8 & 1023)


@formula
def value_at(shape, place):
    """Where an entry's value is."""
    return (place & ~63) + (shape >> 18 & 63) + (place & 63) * (shape >> 8 & 1023) + 8 * (
        shape & 15)


@formula
def ways_of(shape):
    """The highest bits of the tags of a bucket."""
    return HIGHS & (1 << 8 * (shape >> 4 & 15)) - 1


@formula
def tag_of(h):
    """The tag of a hash."""
    return h >> 25 & 127 | 128


@formula
def alike(tags, h, shape):
    """The highest bits of those tags of a bucket that are a hash's (and, rarely, of others behind
    one that is)."""
    x = (tags ^ (h >> 25 & 127 | 128) * ONES) & TAGS
    return x - ONES & ~x & HIGHS & (1 << 8 * (shape >> 4 & 15)) - 1


@formula
def folded(word, seed):
    """A word of a key as a product: of its halves, to which those of a secret number are added."""
    return ((word & LOW) + (seed & LOW) & LOW) * (logical(word, 32) + logical(seed, 32) & LOW)


@formula
def stirred(x, first, second):
    """A key's word or sum as hash, by two secret numbers."""
    x = (x ^ first) * second
    return (x ^ logical(x, 32)) * ROOT


@kernel(inline=True)
def place_in(state, shape, bucket, h):
    """-> the place in a bucket of the key that is asked for, 0: it is not there."""
    ways = alike(ld64(bucket), h, shape)
    while ways != 0:
        place = bucket + (ctz64(ways) >> 3)
        entry = entry_at(shape, place)
        different = ld64(entry) ^ ld64(state + M.key)
        for k in range(1, shape & 15):
            different |= ld64(entry + 8 * k) ^ ld64(state + M.key + 8 * k)
        if likely(different == 0):
            return place
        ways &= ways - 1
    return 0


@kernel
def further(state, shape, bucket, h):
    """As ``place_in``, in the buckets after one that somebody passed by."""
    for _ in range(WINDOW):
        bucket += (shape >> 24 & 255) << 6
        place = place_in(state, shape, bucket, h)
        if place != 0:
            return place
        if ld8(passed_at(shape, bucket)) == 0:
            return 0
    return 0


@kernel(inline=True)
def place_of(state, shape, h):
    """-> the place of the key that is asked for, young or not; 0: it is not there."""
    bucket = home_of(state, shape, h)
    place = place_in(state, shape, bucket, h)
    if unlikely(place == 0):
        if unlikely(ld8(passed_at(shape, bucket)) != 0):
            place = further(state, shape, bucket, h)
    return place


@formula
def ticks_since(now, stamp):
    """Ticks since a stamp, up to 2^32."""
    return (now >> TICK_BITS) - stamp & LOW


@formula
def age_at(now, stamp):
    """How old an entry with a stamp is, in ticks. Below 0: its worker's batch began after the one
    at hand, which had to wait for it."""
    return ((now >> TICK_BITS) - stamp & LOW ^ 1 << 31) - (1 << 31)


@kernel(inline=True)
def limit_of(state):
    """How old an entry may be, in ticks."""
    age = ld64(ld64(state + M.age)) + (1 << TICK_BITS) - 1 >> TICK_BITS
    if age < 1:
        age = 1
    elif age > LONGEST:
        age = LONGEST
    return age


@kernel(inline=True)
def young(state, shape, place, now):
    """Has an entry not aged out?"""
    if shape & AGED == 0:
        return True
    return age_at(now, ld32(stamp_at(shape, place))) < limit_of(state)


@kernel(inline=True)
def hash_of(state, shape):
    """The hash of the key that is asked for."""
    return key_hash(state, shape, state + M.key)


@kernel(inline=True)
def map_ask(state, shape):
    """Have the bucket of the key that is asked for come into the cache; -> the key's hash."""
    h = hash_of(state, shape)
    bucket = home_of(state, shape, h)
    prefetch(bucket)
    if shape >> 24 & 255 > 1:
        prefetch(bucket + 64)
    return h


@kernel(inline=True)
def found(state, shape, now, h):
    """-> the place of a young entry with the key that is asked for, whose hash is h, or 0."""
    place = place_of(state, shape, h)
    if place != 0 and unlikely(not young(state, shape, place, now)):
        place = 0
    return place


# ---------------------------------------------------------------- change
@kernel
def pass_by(state, shape, h, end, n):
    """Somebody passes by the buckets from home up to the one before ``end`` (n = -1: did, and is
    there no more)."""
    bucket = home_of(state, shape, h)
    while bucket < end:
        count = ld8(passed_at(shape, bucket))
        if count != MANY:
            st8(passed_at(shape, bucket), count + n)
        bucket += (shape >> 24 & 255) << 6


@kernel
def leave(state, shape, place):
    """An entry is there no more."""
    pass_by(state, shape, key_hash(state, shape, entry_at(shape, place)), place & ~63, -1)
    st8(place, 0)  # a way's tag is at bucket + way
    st64(state + M.count, ld64(state + M.count) - 1)


@kernel
def sweep(state, shape, now, first, n):
    """Remove the entries that have aged out of n buckets from number ``first`` on; -> how old the
    oldest is that is left, in ticks."""
    oldest = 0
    limit = limit_of(state)
    size = (shape >> 24 & 255) << 6
    bucket = ld64(state + M.buckets) + first * size
    for _ in range(n):
        for way in range(shape >> 4 & 15):
            if ld8(bucket + way) != 0:
                age = age_at(now, ld32(stamp_at(shape, bucket + way)))
                if age >= limit:
                    leave(state, shape, bucket + way)
                elif age > oldest:
                    oldest = age
        bucket += size
    return oldest


@kernel
def has_room(state, shape, now):
    """May there be one entry more?"""
    if ld64(state + M.count) < ld64(state + M.capacity):
        return True
    if shape & AGED != 0 and ld64(state + M.strict) == 0:
        return True
    if shape & AGED != 0 and ticks_since(now, ld64(state + M.oldest)) >= limit_of(state):
        oldest = sweep(state, shape, now, 0, ld64(state + M.n) + WINDOW)
        st64(state + M.oldest, (now >> TICK_BITS) - oldest)
    return ld64(state + M.count) < ld64(state + M.capacity)


@kernel(inline=True)
def free_in(state, shape, bucket):
    """-> a place of a bucket that nobody has, not even a record that this frame deleted; or 0."""
    ways = ~ld64(bucket) & ways_of(shape)
    while ways != 0:
        place = bucket + (ctz64(ways) >> 3)
        if likely(ld32(stamp_at(shape, place)) != ld64(state + M.frame)):
            return place
        ways &= ways - 1
    return 0


@kernel(inline=True)
def aged_in(state, shape, bucket, now):
    """-> the place of an entry of a bucket that has aged out; or 0."""
    place = 0
    for way in range(shape >> 4 & 15):
        if ld8(bucket + way) != 0 and not young(state, shape, bucket + way, now):
            place = bucket + way
    return place


@kernel
def place_for(state, shape, now, bucket):
    """-> a place for an entry that is at home in a bucket; 0: there is none. One that a record had
    which this frame deleted is better than none."""
    size = (shape >> 24 & 255) << 6
    for k in range(WINDOW + 1):
        place = free_in(state, shape, bucket + k * size)
        if place == 0:
            place = aged_in(state, shape, bucket + k * size, now)
            if place != 0:
                leave(state, shape, place)
        if place != 0:
            return place
    for k in range(WINDOW + 1):
        ways = ~ld64(bucket + k * size) & ways_of(shape)
        if ways != 0:
            return bucket + k * size + (ctz64(ways) >> 3)
    return 0


@kernel
def insert(state, shape, now, h, place):
    """An entry with the key that is asked for and zeros, at ``place`` where one is that has aged
    out, else (0) where there is room; -> where its value is, 0: nowhere."""
    if place == 0:
        if has_room(state, shape, now):
            place = place_for(state, shape, now, home_of(state, shape, h))
        if place == 0:
            st64(state + M.full, ld64(state + M.full) + 1)
            return 0
        pass_by(state, shape, h, place & ~63, 1)
        st8(place, tag_of(h))
        for k in range(shape & 15):
            st64(entry_at(shape, place) + 8 * k, ld64(state + M.key + 8 * k))
        st64(state + M.count, ld64(state + M.count) + 1)
    for k in range(shape & 15, (shape >> 8 & 1023) >> 3):
        st64(entry_at(shape, place) + 8 * k, 0)
    st32(stamp_at(shape, place), now >> TICK_BITS)
    return value_at(shape, place)


@kernel(inline=True)
def obtain(state, shape, now, h):
    """-> where the value of the key that is asked for (its hash: h) is, of a new entry where there
    was none; 0: there is no room."""
    place = place_of(state, shape, h)
    if likely(place != 0):
        if likely(young(state, shape, place, now)):
            if shape & USED != 0:
                st32(stamp_at(shape, place), now >> TICK_BITS)
            return value_at(shape, place)
    return insert(state, shape, now, h, place)


@formula
def cut(value, bits):
    """A number as a field of so many bits keeps it."""
    return value & (2 << bits - 1) - 1
