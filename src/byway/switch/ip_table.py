# SPDX-License-Identifier: Apache-2.0
"""Which MAC address the IP addresses of each network belong to: one table for all networks.

Used by population.py, which grows it. Uses machine, and from mac_table.py, which explains buckets,
states and threads, the record.

An entry's address is stored before its owner, and what is removed loses its owner only.

IPv4 addresses are kept as IPv6 ones (::ffff:a.b.c.d, RFC 4291 2.5.5.2). A bucket is two cache
lines: five times high half, low half and owner (MAC << 16 | network; 0: free), then the state.
"""

from typing import Any

from byway.machine.jit import kernel
from byway.machine.mem import (
    fence,
    ld64,
    ld64_acq,
    ld64_once,
    likely,
    mul64,
    shr64,
    st64_once,
    st64_rel,
    wadd64,
)
from byway.machine.system import prefetch
from byway.switch.mac_table import GOLDEN, NETWORK_MASK, PROBES, ROOT, TRIES, T, table_at

WAYS = 5
SLOT = 24  # high, low, owner
LOW, OWNER = 8, 16
LINE = 64
BUCKET = 2 * LINE
STATE = SLOT * WAYS
PASSED_MASK = 0xFFFFFFFF
VERSION = 1 << 32


@kernel
def ip_home(table, network, high, low):
    """The number of the bucket that an address belongs to."""
    t = table_at(table)
    x = wadd64(mul64(high ^ t.seed, GOLDEN), mul64(low, ROOT))
    x = mul64(x ^ shr64(x, 32) ^ network << 24, GOLDEN)
    return shr64(mul64(x ^ shr64(x, 29), ROOT), t.shift)


@kernel
def ip_near(table, network, high, low):
    """The address will be searched for soon."""
    bucket = ld64(table + T.buckets) + ip_home(table, network, high, low) * BUCKET
    prefetch(bucket)
    prefetch(bucket + LINE)


@kernel
def ip_slot(bucket, network, high, low):
    """-> the slot of an address in a bucket, 0: it is not there."""
    for j in range(WAYS):
        slot = bucket + SLOT * j
        owner = ld64_acq(slot + OWNER)
        if ld64_once(slot + LOW) == low and ld64_once(slot) == high \
                and owner & NETWORK_MASK == network and owner != 0:
            return slot
    return 0


@kernel
def ip_free(bucket):
    """-> a free slot of a bucket, 0: there is none."""
    for j in range(WAYS):
        if ld64(bucket + SLOT * j + OWNER) == 0:
            return bucket + SLOT * j
    return 0


@kernel
def ip_search(table, network, high, low):
    """-> the owner of an address (MAC << 16 | network), 0: it is not known."""
    t = table_at(table)
    k = ip_home(table, network, high, low)
    tries = 0
    probes = 0
    while probes <= PROBES:
        bucket = t.buckets + k * BUCKET
        state = ld64_acq(bucket + STATE)
        slot = ip_slot(bucket, network, high, low)
        if likely(slot != 0):
            owner = ld64_acq(slot + OWNER)
            if likely(ld64_acq(bucket + STATE) == state):
                return owner
            tries += 1
            if tries > TRIES:
                return 0
        else:
            if state & PASSED_MASK == 0:
                return 0
            k = (k + 1) & t.mask
            probes += 1
    return 0


# ---------------------------------------------------------------- the control thread's
@kernel
def ip_find(table, network, high, low):
    """-> the number of the bucket that an address lies in, or -1."""
    t = table_at(table)
    k = ip_home(table, network, high, low)
    for _ in range(PROBES + 1):
        bucket = t.buckets + k * BUCKET
        if ip_slot(bucket, network, high, low) != 0:
            return k
        if ld64(bucket + STATE) & PASSED_MASK == 0:
            return -1
        k = (k + 1) & t.mask
    return -1


@kernel
def ip_pass(table, home, end, count):
    """Add ``count`` to those who passed by the buckets from ``home`` to the one before ``end``."""
    t = table_at(table)
    k = home
    while k != end:
        state = t.buckets + k * BUCKET + STATE
        st64_once(state, ld64(state) + count)
        k = (k + 1) & t.mask


@kernel
def ip_change(bucket):
    """The bucket is about to change."""
    st64_once(bucket + STATE, wadd64(ld64(bucket + STATE), VERSION))
    fence()


@kernel
def ip_insert(table, high, low, owner):
    """Put an entry that is not there yet into the table; -> False where there is no room."""
    t = table_at(table)
    home = ip_home(table, owner & NETWORK_MASK, high, low)
    k = home
    for _ in range(PROBES + 1):
        bucket = t.buckets + k * BUCKET
        slot = ip_free(bucket)
        if slot != 0:
            ip_pass(table, home, k, 1)  # before it is there: nobody's search ends too early
            ip_change(bucket)
            st64_rel(slot, high)
            st64_rel(slot + LOW, low)
            st64_rel(slot + OWNER, owner)
            return True
        k = (k + 1) & t.mask
    return False


@kernel
def ip_remove(table, slot, k):
    """Free a slot of bucket number ``k``."""
    high, low, owner = ld64(slot), ld64(slot + LOW), ld64(slot + OWNER)
    ip_change(ld64(table + T.buckets) + k * BUCKET)
    st64_rel(slot + OWNER, 0)
    ip_pass(table, ip_home(table, owner & NETWORK_MASK, high, low), k, -1)


@kernel(entry=True)
def ip_put(table, high, low, owner):
    """The address belongs to ``owner`` now; -> 1 new, 0 replaced, -1 there is no room."""
    network = owner & NETWORK_MASK
    k = ip_find(table, network, high, low)
    if k < 0:
        return 1 if ip_insert(table, high, low, owner) else -1
    slot = ip_slot(ld64(table + T.buckets) + k * BUCKET, network, high, low)
    st64_rel(slot + OWNER, owner)
    return 0


@kernel(entry=True)
def ip_get(table, network, high, low):
    """-> the owner of an address, 0: it is not known."""
    return ip_search(table, network, high, low)


@kernel(entry=True)
def ip_take(table, high, low, network, mac):
    """Remove an address if it belongs to ``mac`` (-1: whomever); -> how many were removed."""
    k = ip_find(table, network, high, low)
    if k < 0:
        return 0
    slot = ip_slot(ld64(table + T.buckets) + k * BUCKET, network, high, low)
    if mac >= 0 and shr64(ld64(slot + OWNER), 16) != mac:
        return 0
    ip_remove(table, slot, k)
    return 1


@kernel(entry=True)
def ip_copy(table, larger):
    """Put all entries into another table; -> how many, -1 where it has no room for all."""
    t = table_at(table)
    copied = 0
    for k in range(t.mask + 1):
        for j in range(WAYS):
            slot = t.buckets + k * BUCKET + SLOT * j
            owner = ld64(slot + OWNER)
            if owner != 0:
                if not ip_insert(larger, ld64(slot), ld64(slot + LOW), owner):
                    return -1
                copied += 1
    return copied


def ip_entries(buckets: Any) -> Any:
    """The buckets as bytes -> their entries as rows of high, low, owner, in the table's order."""
    slots = buckets.view("<i8").reshape(-1, BUCKET // 8)[:, : SLOT * WAYS // 8].reshape(-1, 3)
    return slots[slots[:, OWNER // 8] != 0]


ENTRIES = (ip_put, ip_get, ip_take, ip_copy)
