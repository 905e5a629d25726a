# SPDX-License-Identifier: Apache-2.0
"""Which port the MAC addresses of each network are behind: one table for all networks.

Used by population.py, which grows it; ip_table.py has the same shape. Uses machine only.

Theory of operation
-------------------
A bucket is one cache line: six keys (MAC << 16 | network; 0: free), their six port numbers of 16
bits, and a word of *state*. An address lies in its home bucket or, where that is full, in one of
the next. Each bucket counts the entries that passed it by on their way to a later one, so a search
ends at the first bucket that nobody passed by, and what is removed leaves nothing behind.

Cost. Nearly every search touches one line, and finds its place in it without a branch on what
lies where. Dense lines count: 100,000 entries take 2 MiB, which is what a processor's second cache
holds, and ``near`` asks for the lines of a whole batch before the first of them is searched.

Threads. The control thread writes, workers read at any moment, nobody waits. The high half of the
state is a version, raised before each change of the bucket. An entry's port is stored before its
key, and what is removed loses its key only; so who finds a key, and after it the version from
before, has read the port that belongs to it. Else it searches again (the slot was freed and filled
in between). A port that replaces another is a single store. Tables never move: a larger one is made
beside them (population.py).

Limits. An entry lies at most PROBES buckets from home; where all of those are full the table must
grow. A secret seed keeps a guest from choosing addresses that share a bucket.
"""

from typing import Any

import numpy as np

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    fence,
    ld16_acq,
    ld32,
    ld32_acq,
    ld64,
    ld64_once,
    likely,
    mul64,
    shr64,
    st16_rel,
    st32_once,
    st64_rel,
    unlikely,
)
from byway.machine.system import prefetch

WAYS = 6
BUCKET = 64
PORTS, STATE = 8 * WAYS, 10 * WAYS  # offsets in a bucket: keys, port numbers, state
NETWORK_MASK = 0xFFFF
PASSED_MASK = 0xFFFF  # of the state: how many passed by; above it the version
VERSION = 0x10000
PROBES = 16
TRIES = 64  # a bucket that changes so often while it is searched does not exist
GOLDEN = -0x61C8864680B583EB
ROOT = 0x6A09E667F3BCC909

# buckets: address of the first. shift: 64 - log2 of how many. mask: their number - 1.
TABLE, table_at, T = record("table", ["buckets", "shift", "mask", "seed"])


@kernel
def mac_home(table, wanted):
    """The number of the bucket that ``wanted`` (MAC << 16 | network) belongs to."""
    t = table_at(table)
    x = mul64(wanted ^ t.seed, GOLDEN)
    return shr64(mul64(x ^ shr64(x, 32), ROOT), t.shift)


@kernel
def mac_near(table, wanted):
    """``wanted`` will be searched for soon."""
    prefetch(ld64(table + T.buckets) + mac_home(table, wanted) * BUCKET)


@kernel
def mac_slot(bucket, wanted):
    """-> where in its bucket a key is, from 1 on; 0: it is not there."""
    found = 0
    for j in range(WAYS):
        if ld64_once(bucket + 8 * j) == wanted:
            found = j + 1
    return found


@kernel
def mac_search(table, wanted):
    """-> the port that ``wanted`` (MAC << 16 | network) is behind, or -1."""
    if unlikely(wanted == 0):  # a guest may ask for it, and it is the mark of what is free
        return -1
    t = table_at(table)
    buckets, mask = t.buckets, t.mask
    k = mac_home(table, wanted)
    tries = 0
    probes = 0
    while probes <= PROBES:
        bucket = buckets + k * BUCKET
        state = ld32_acq(bucket + STATE)
        slot = mac_slot(bucket, wanted)
        if likely(slot != 0):
            port = ld16_acq(bucket + PORTS + 2 * slot - 2)
            if likely(ld32_acq(bucket + STATE) == state):
                return port
            tries += 1
            if tries > TRIES:
                return -1
        else:
            if state & PASSED_MASK == 0:
                return -1
            k = (k + 1) & mask
            probes += 1
    return -1


# ---------------------------------------------------------------- the control thread's
@kernel
def mac_find(table, wanted):
    """-> the number of the bucket that ``wanted`` lies in, or -1."""
    if wanted == 0:
        return -1
    t = table_at(table)
    k = mac_home(table, wanted)
    for _ in range(PROBES + 1):
        bucket = t.buckets + k * BUCKET
        if mac_slot(bucket, wanted) != 0:
            return k
        if ld32(bucket + STATE) & PASSED_MASK == 0:
            return -1
        k = (k + 1) & t.mask
    return -1


@kernel
def mac_pass(table, wanted, end, count):
    """Add ``count`` to those who passed by the buckets from home up to the one before ``end``."""
    t = table_at(table)
    k = mac_home(table, wanted)
    while k != end:
        state = t.buckets + k * BUCKET + STATE
        st32_once(state, ld32(state) + count)
        k = (k + 1) & t.mask


@kernel
def mac_change(bucket):
    """The bucket is about to change."""
    st32_once(bucket + STATE, ld32(bucket + STATE) + VERSION)
    fence()


@kernel
def mac_insert(table, wanted, port):
    """Put an entry that is not there yet into the table; -> False where there is no room."""
    t = table_at(table)
    k = mac_home(table, wanted)
    for _ in range(PROBES + 1):
        bucket = t.buckets + k * BUCKET
        slot = mac_slot(bucket, 0)
        if slot != 0:
            mac_pass(table, wanted, k, 1)  # before it is there: nobody's search ends too early
            mac_change(bucket)
            st16_rel(bucket + PORTS + 2 * slot - 2, port)
            st64_rel(bucket + 8 * slot - 8, wanted)
            return True
        k = (k + 1) & t.mask
    return False


@kernel
def mac_remove(table, wanted, k):
    """Free the slot of ``wanted``, which lies in bucket number ``k``."""
    bucket = ld64(table + T.buckets) + k * BUCKET
    mac_change(bucket)
    st64_rel(bucket + 8 * mac_slot(bucket, wanted) - 8, 0)
    mac_pass(table, wanted, k, -1)


@kernel(entry=True)
def mac_put(table, wanted, port):
    """``wanted`` is behind ``port`` now; -> 1 new, 0 replaced, -1 there is no room.

    0 (MAC address zero of network 0) cannot be in the table: nothing happens, and 0 is the answer.
    """
    if wanted == 0:
        return 0
    k = mac_find(table, wanted)
    if k < 0:
        return 1 if mac_insert(table, wanted, port) else -1
    bucket = ld64(table + T.buckets) + k * BUCKET
    st16_rel(bucket + PORTS + 2 * mac_slot(bucket, wanted) - 2, port)
    return 0


@kernel(entry=True)
def mac_get(table, wanted):
    """-> the port of ``wanted``, or -1."""
    return mac_search(table, wanted)


@kernel(entry=True)
def mac_take(table, wanted, port):
    """Remove ``wanted`` if it is behind ``port`` (-1: any); -> how many were removed."""
    k = mac_find(table, wanted)
    if k < 0 or (port >= 0 and mac_search(table, wanted) != port):
        return 0
    mac_remove(table, wanted, k)
    return 1


@kernel(entry=True)
def mac_copy(table, larger):
    """Put all entries into another table; -> how many, -1 where it has no room for all."""
    t = table_at(table)
    copied = 0
    for k in range(t.mask + 1):
        bucket = t.buckets + k * BUCKET
        for slot in range(1, WAYS + 1):
            wanted = ld64(bucket + 8 * slot - 8)
            if wanted != 0:
                if not mac_insert(larger, wanted, ld16_acq(bucket + PORTS + 2 * slot - 2)):
                    return -1
                copied += 1
    return copied


def mac_entries(buckets: Any) -> Any:
    """The buckets as bytes -> their entries as rows of key and port, in the order of the table."""
    keys = buckets.view("<i8").reshape(-1, BUCKET // 8)[:, :WAYS]
    ports = buckets.view("<u2").reshape(-1, BUCKET // 2)[:, PORTS // 2 : STATE // 2]
    return np.stack([keys[keys != 0], ports[keys != 0].astype(np.int64)], axis=1)


ENTRIES = (mac_put, mac_get, mac_take, mac_copy)
