# SPDX-License-Identifier: Apache-2.0
"""Counters, arrays, token buckets, prefixes, chance and hashes, as compiled functions use them.

Used by translated functions; the memory is made by states.py. Uses map_kernels.py, packet. What
they mean is said by nf.states, nf.maps and nf.calls, which are the oracles.

A counter's address is that of its word, an array's that of its first word. Prefixes cut the space
of addresses into intervals, which stand sorted; an address is looked for by binary search among
those that begin with its first bits (``index``, by the bits above ``shift``): mostly one or two.

Threads: whoever calls holds the instance's lock.
"""

from byway.functions.map_kernels import M, cut, obtain
from byway.functions.parse_kernels import HAS_PORTS, IS_FRAGMENT
from byway.machine.formula import formula, logical
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    ld32,
    ld32be,
    ld64,
    ld64be,
    likely,
    mul64,
    shr64,
    st64,
    wadd64,
)
from byway.nf.states import MOST_RATE, MOST_TOKENS, SECOND
from byway.packet.batch import R
from byway.packet.layers import l3_of, l4_of, protocol_of, version_of

GOLDEN, ROOT = -0x61C8864680B583EB, 0x6A09E667F3BCC909
LOW = 0xFFFFFFFF
SIGN = -(1 << 63)
MAPPED = 0xFFFF << 32
SHORT = 1 << 20  # ns: times MOST_RATE is below 2^60
BUCKET_WORDS = 2  # of a token bucket: billionths of a token that are missing, since when

# index: uint32[], the number of the interval that holds the first address with these first bits,
# and of the last interval. intervals: of IPv4, first address << 1 | is there a value, value; of
# IPv6, first address (high, low; their first bits turned round), is there a value, value.
PREFIXES, prefixes_at, P = record("prefixes", ["index", "intervals", "shift"])
INTERVAL4, INTERVAL6 = 16, 32


# ---------------------------------------------------------------- counters and arrays
@kernel(inline=True)
def counter_add(state, n):
    """Count n more."""
    st64(state, wadd64(ld64(state), n))


@formula
def array_get(state, index):
    """What is at a place (0 <= index < size)."""
    return ld64(state + 8 * index)


@kernel(inline=True)
def array_set(state, shape, index, value):
    """Put a number of ``shape`` bits at a place (0 <= index < size)."""
    st64(state + 8 * index, cut(value, shape))


# ---------------------------------------------------------------- token buckets
@kernel
def refilled(missing, elapsed, rate):
    """What is missing in a bucket after ``elapsed`` ns more."""
    gained = 0
    if likely(elapsed < SHORT):
        gained = elapsed * rate
    elif rate > 0:
        gained = missing
        if elapsed <= missing // rate:
            gained = elapsed * rate
    return max(0, missing - gained)


@kernel
def bucket_take(state, now, n, rate, burst):
    """Take n tokens of a bucket that gets ``rate`` a second and holds ``burst``; -> are there so
    many?"""
    missing = ld64(state)
    elapsed = now - ld64(state + 8)
    if elapsed > 0:
        missing = refilled(missing, elapsed, min(max(0, rate), MOST_RATE))
        st64(state + 8, now)
    enough = False
    if n <= MOST_TOKENS:
        wanted = missing + max(0, n) * SECOND
        enough = wanted <= min(max(0, burst), MOST_TOKENS) * SECOND
        if enough:
            missing = wanted
    st64(state, missing)
    return enough


@kernel(inline=True)
def buckets_take(state, now, shape, h, n, rate, burst):
    """As ``bucket_take``, of the bucket under the key; False where there is no room for one."""
    at = obtain(state, shape, now, h)
    enough = False
    if likely(at != 0):
        enough = bucket_take(at, now, n, rate, burst)
    return enough


# ---------------------------------------------------------------- prefixes
@kernel(inline=True)
def lpm_get4(state, ip, default):
    """The value of the longest prefix of an IPv4 address, or ``default``."""
    key = (ip & LOW) << 1 | 1
    index = ld64(state + P.index) + ((ip & LOW) >> ld64(state + P.shift) << 2)
    first = ld32(index)
    n = ld32(index + 4) - first + 1
    at = ld64(state + P.intervals) + INTERVAL4 * first
    while n > 1:  # the interval that is sought is among the n from ``at`` on
        half = n >> 1
        middle = at + INTERVAL4 * half
        if ld64(middle) <= key:
            at = middle
        n -= half
    value = default
    if ld64(at) & 1 != 0:
        value = ld64(at + 8)
    return value


@kernel
def lpm_get6(state, high, low, default):
    """The value of the longest prefix of an IPv6 address, or ``default``."""
    key_high, key_low = high ^ SIGN, low ^ SIGN
    index = ld64(state + P.index) + 4 * shr64(high, ld64(state + P.shift))
    first = ld32(index)
    n = ld32(index + 4) - first + 1
    at = ld64(state + P.intervals) + INTERVAL6 * first
    while n > 1:
        half = n >> 1
        middle = at + INTERVAL6 * half
        begins = ld64(middle)
        if begins < key_high or (begins == key_high and ld64(middle + 8) <= key_low):
            at = middle
        n -= half
    value = default
    if ld64(at + 16) != 0:
        value = ld64(at + 24)
    return value


# ---------------------------------------------------------------- chance and hashes
@kernel(inline=True)
def draw(cell, n):
    """A number from 0 to n - 1, of the generator whose state is at ``cell``."""
    x = wadd64(ld64(cell), GOLDEN)
    st64(cell, x)
    x = mul64(x ^ shr64(x, 32), ROOT)
    x = mul64(x ^ shr64(x, 29), GOLDEN)
    x ^= shr64(x, 32)
    drawn = 0
    if n > 0:
        drawn = shr64(mul64(shr64(x, 32), n), 32)
        if n > 1 << 32:
            drawn = shr64(x, 1) % n
    return drawn


@formula
def hash_more(h, word):
    """The hash so far (0 at first), and a number more."""
    h = (h ^ word) * GOLDEN
    return h ^ logical(h, 32)


@kernel(inline=True)
def hash_wide(h, high, low):
    """... and a wide number more: one that fits into a word counts as a word."""
    if high != 0:
        h = hash_more(h, high)
    return hash_more(h, low)


@formula
def hash_end(h):
    """The hash, of 32 bits."""
    return logical(h * ROOT, 32)


# ---------------------------------------------------------------- flows
@kernel(inline=True)
def put_flow(state, at, row, frame):
    """Store the flow of a row's frame (``frame``: its word) as FLOW_WORDS words of the key that is
    asked for, from word ``at`` on (nf.keys.flow_words)."""
    key = state + M.key + 8 * at
    version, ip = version_of(frame), ld64(row + R.head) + l3_of(frame)
    last = version << 40 | protocol_of(frame) << 32
    if frame & HAS_PORTS != 0 and frame & IS_FRAGMENT == 0:
        last |= ld32be(ld64(row + R.head) + l4_of(frame))
    if likely(version == 4):
        st64(key, 0)
        st64(key + 8, MAPPED | ld32be(ip + 12))
        st64(key + 16, 0)
        st64(key + 24, MAPPED | ld32be(ip + 16))
    elif version == 6:
        for k in range(0, 32, 8):
            st64(key + k, ld64be(ip + 8 + k))
    else:
        last = 0
        for k in range(0, 32, 8):
            st64(key + k, 0)
    st64(key + 32, last)
