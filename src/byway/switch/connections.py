# SPDX-License-Identifier: Apache-2.0
"""The connection table: who talks to whom, for all ports of a switch, in memory of a fixed size.

Used by groups.py (the stage) and control (ageing, listing, ports that go).

Theory of operation
-------------------
Each port is a *zone*: a connection between two guests of one switch has an entry for either port.
An entry is one cache line: the guest's address and the remote one, ports (or what stands for them:
groups_keys.py), zone and protocol; then its state, when it was last seen, and which rules allowed
it. Both directions have the same key, because it is said from the guest's point of view.

Entries are found by an index: buckets of 8 words, a cache line each; a word is 31 bits of the
key's hash << 32 | number of the entry, 0 is free. There are four words for each entry, so that one
of several thousand entries at a full table finds its bucket full (it is refused then). A frame
costs two cache lines, whatever the table's size; both are fetched ahead for a whole batch
(``near``, ``nearer``).

The hash is multilinear: a sum of products of the key's 32-bit words with secret 64-bit numbers.
Whoever does not know the numbers cannot choose keys with the same sum but by chance (Dietzfelbinger
1996; Lemire, Kaser 2014). Keys in a row, as a scan makes them, have sums at equal distances; so the
sum is stirred, or with unlucky numbers they would fall into few buckets.

Memory: 64 bytes an entry, 32 for its index words. What was never used is never touched.

Threads. Any worker finds, inserts, removes and changes entries, the control thread expires and
lists them, all without a lock. An entry's state word is changed by compare-and-swap only. It holds
how often the entry was used: a state that belongs to an earlier use is never changed, and a key
counts as equal only where the use was the same before and after it was compared. Entries that are
free are on a stack whose head counts its changes. Two workers that insert the same key in one
moment make two entries; the one that is not found ages out.
"""

import random
import secrets
from collections.abc import Iterable
from typing import Any

import numpy as np

from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import (
    add64,
    cas64,
    ld64,
    ld64_acq,
    ld64_once,
    likely,
    mul64,
    shr64,
    st64,
    st64_once,
    st64_rel,
    unlikely,
    wadd64,
)
from byway.machine.system import prefetch

WAYS = 8
BUCKET = 8 * WAYS
ENTRY_BYTES = 64
WORDS_EACH = 4  # index words for each entry
MAX_ENTRIES = 1 << 26
ZONES = 1 << 16
TRIES = 64  # of a compare-and-swap that others disturb
LOW = 0xFFFFFFFF
TAG = 0x7FFFFFFF
KEYS = 12  # secret numbers
# Odd numbers with bits all over: the 64-bit fractions of the golden ratio and of the root of 2.
STIR_ONCE, STIR_TWICE = -0x61C8864680B583EB, 0x6A09E667F3BCC909
STATE_BITS, FLAG_BITS = 4, 12
USE = STATE_BITS + FLAG_BITS  # where the count of uses begins in a state word
STATE = (1 << STATE_BITS) - 1
FREE = 0  # the state of an entry that is not in use

# index, entries: addresses. shift: of a hash, for the number of its bucket. capacity: entries.
# fresh: entries that were ever used. free: the stack's head, changes << 32 | number. counts:
# int64[ZONES], entries by zone. fair: what a zone may always have; over: entries that zones have
# beyond that, of which there may be ``shared``. timeouts: coarse ticks, by
# state. full: insertions that found no room in their bucket, or none at all.
TABLE, table_at, T = record("connection_table", [
    "index", "entries", "shift", "capacity", "fresh", "free", "counts", "count", "fair", "shared",
    "over", "full", ("keys", "<i8", (KEYS,)), ("timeouts", "<i8", (1 << STATE_BITS,))])
# high, low: an address as ld64be loads it, IPv4 as ::ffff:a.b.c.d. flow: see groups_keys.py (the
# zone in bits 32 to 47). state: uses << USE | flags << STATE_BITS | state. seen: coarse time of the
# last frame. valid: which rules allowed it (groups_rules.py). A free entry's first word: the number
# of the next one.
ENTRY, entry_at, E = record("connection", [
    "guest_high", "guest_low", "remote_high", "remote_low", "flow", "state", "seen", "valid"])
# What is looked for: a key as in an entry, its hash, the entry that may be it (0: none), and what
# to do with the frame (groups_keys.py).
SEEK, seek_at, S = record("connection_seek", [
    "guest_high", "guest_low", "remote_high", "remote_low", "flow", "hash", "entry", "what"])
V6 = 1 << 56  # in ``flow``: of IPv6


@kernel(inline=True)
def term(table, k, word):
    """A 32-bit word times secret number ``k``."""
    return mul64(ld64(table + T.keys + 8 * k), word)


@kernel(inline=True)
def hash_of(table, key):
    """The hash of the key at ``key`` (an ENTRY or a SEEK)."""
    flow = ld64(key + E.flow)
    guest, remote = ld64(key + E.guest_low), ld64(key + E.remote_low)
    h = wadd64(wadd64(ld64(table + T.keys), term(table, 1, guest & LOW)),
               wadd64(term(table, 2, remote & LOW),
                      wadd64(term(table, 3, flow & LOW), term(table, 4, shr64(flow, 32)))))
    if unlikely(flow & V6 != 0):
        high, far = ld64(key + E.guest_high), ld64(key + E.remote_high)
        h = wadd64(h, wadd64(wadd64(term(table, 5, shr64(guest, 32)), term(table, 6, high & LOW)),
                             term(table, 7, shr64(high, 32))))
        h = wadd64(h, wadd64(wadd64(term(table, 8, shr64(remote, 32)), term(table, 9, far & LOW)),
                             term(table, 10, shr64(far, 32))))
    h = mul64(h ^ shr64(h, 32), STIR_ONCE)
    h = mul64(h ^ shr64(h, 29), STIR_TWICE)
    return h ^ shr64(h, 32)


@kernel(inline=True)
def bucket_of(table, h):
    """The address of the bucket of a hash."""
    return ld64(table + T.index) + shr64(h, ld64(table + T.shift)) * BUCKET


@kernel(inline=True)
def near(table, seek):
    """Hash a key, and fetch the bucket where its entry would be."""
    h = hash_of(table, seek)
    st64(seek + S.hash, h)
    prefetch(bucket_of(table, h))


@kernel(inline=True)
def nearer(table, seek):
    """Note the first entry that may have the key, and fetch it; 0 where there is none."""
    h = ld64(seek + S.hash)
    bucket = bucket_of(table, h)
    tag = h & TAG
    entry = 0
    for j in range(WAYS):
        word = ld64_once(bucket + 8 * j)
        if word >> 32 == tag and word != 0:
            entry = ld64(table + T.entries) + (word & LOW) * ENTRY_BYTES
            prefetch(entry)
            break
    st64(seek + S.entry, entry)


@kernel(inline=True)
def same(entry, seek):
    """-> the state word of an entry in use with the key sought, or 0."""
    state = ld64_acq(entry + E.state)
    if unlikely(state & STATE == FREE):
        return 0
    different = (ld64_acq(entry + E.flow) ^ ld64(seek + S.flow)) \
        | (ld64_acq(entry + E.guest_low) ^ ld64(seek + S.guest_low)) \
        | (ld64_acq(entry + E.remote_low) ^ ld64(seek + S.remote_low)) \
        | (ld64_acq(entry + E.guest_high) ^ ld64(seek + S.guest_high)) \
        | (ld64_acq(entry + E.remote_high) ^ ld64(seek + S.remote_high))
    again = ld64_acq(entry + E.state)
    if likely(different == 0 and again >> USE == state >> USE and again & STATE != FREE):
        return again
    return 0


@kernel
def find(table, seek):
    """The entry with the key sought (its hash was noted by ``near``); -> its address, or 0."""
    h = ld64(seek + S.hash)
    bucket = bucket_of(table, h)
    for j in range(WAYS):
        word = ld64_once(bucket + 8 * j)
        if word >> 32 == h & TAG and word != 0:
            entry = ld64(table + T.entries) + (word & LOW) * ENTRY_BYTES
            if same(entry, seek) != 0:
                return entry
    return 0


@kernel
def take_free(table):
    """-> the number of an entry that nobody uses, now the caller's; 0 where there is none."""
    entries = ld64(table + T.entries)
    for _ in range(TRIES):
        head = ld64_acq(table + T.free)
        number = head & LOW
        if number == 0:
            break
        following = ld64_once(entries + number * ENTRY_BYTES)  # nonsense where others were faster
        if cas64(table + T.free, head, ((head >> 32) + 1 & TAG) << 32 | following & LOW) == head:
            return number
    if ld64_once(table + T.fresh) >= ld64(table + T.capacity):
        return 0
    number = add64(table + T.fresh, 1) + 1
    if number > ld64(table + T.capacity):
        add64(table + T.fresh, -1)
        return 0
    return number


@kernel
def put_free(table, number):
    """Nobody uses an entry any more."""
    at = ld64(table + T.entries) + number * ENTRY_BYTES
    done = False
    while not done:  # somebody's compare-and-swap succeeds in every round
        head = ld64_acq(table + T.free)
        st64_once(at, head & LOW)
        done = cas64(table + T.free, head, ((head >> 32) + 1 & TAG) << 32 | number) == head


@kernel
def zone_of(flow):
    """The zone (port number) of a key's ``flow``."""
    return flow >> 32 & 0xFFFF


@kernel
def count_zone(table, zone):
    """A zone has one entry more."""
    add64(table + T.count, 1)
    if add64(ld64(table + T.counts) + 8 * zone, 1) >= ld64_once(table + T.fair):
        add64(table + T.over, 1)


@kernel
def uncount_zone(table, zone):
    """A zone has one entry less."""
    add64(table + T.count, -1)
    if add64(ld64(table + T.counts) + 8 * zone, -1) > ld64_once(table + T.fair):
        add64(table + T.over, -1)


@kernel
def insert(table, seek, state, now, valid):
    """Make an entry of the key sought (hashed by ``near``), in ``state`` (with its flags); -> its
    address, or 0 where there is no room."""
    number = take_free(table)
    if number == 0:
        add64(table + T.full, 1)
        return 0
    entry = ld64(table + T.entries) + number * ENTRY_BYTES
    use = ld64_once(entry + E.state) >> USE << USE
    for k in range(0, E.state, 8):
        st64_once(entry + k, ld64(seek + k))
    st64_once(entry + E.seen, now)
    st64_once(entry + E.valid, valid)
    st64_rel(entry + E.state, use | state)
    h = ld64(seek + S.hash)
    bucket = bucket_of(table, h)
    for j in range(WAYS):
        if ld64_once(bucket + 8 * j) == 0:
            if cas64(bucket + 8 * j, 0, (h & TAG) << 32 | number) == 0:
                count_zone(table, zone_of(ld64(seek + S.flow)))
                if unlikely(ld64_acq(entry + E.state) >> USE != use >> USE):
                    st64_rel(bucket + 8 * j, 0)  # the zone was forgotten in this moment
                return entry
    st64_rel(entry + E.state, use + (1 << USE))
    put_free(table, number)
    add64(table + T.full, 1)
    return 0


@kernel
def remove(table, entry, state):
    """Free an entry if its state word still is ``state``; -> True where this call did it."""
    freed = (state >> USE) + 1 << USE
    if state & STATE == FREE or cas64(entry + E.state, state, freed) != state:
        return False
    number = entry - ld64(table + T.entries) >> 6
    h = hash_of(table, entry)
    word = (h & TAG) << 32 | number
    bucket = bucket_of(table, h)
    for j in range(WAYS):
        if ld64_once(bucket + 8 * j) == word:
            st64_rel(bucket + 8 * j, 0)  # nobody else changes the word of an entry
    uncount_zone(table, zone_of(ld64(entry + E.flow)))
    put_free(table, number)
    return True


@kernel(inline=True)
def expired(table, state, age):
    """Has an entry in this state aged out, ``age`` coarse ticks after its last frame?"""
    return age > ld64(table + T.timeouts + 8 * (state & STATE))


@kernel
def may_open(table, zone, limit):
    """May a zone have one more entry, of ``limit`` that it may have at all?

    Half of a table is divided among the zones: so much each always may have. The other half is for
    whoever is first.
    """
    count = ld64_once(ld64(table + T.counts) + 8 * zone)
    return count < limit and (count < ld64_once(table + T.fair)
                              or ld64_once(table + T.over) < ld64(table + T.shared))


@kernel(entry=True)
def connections_expire(table, first, n, now):
    """Remove what has aged out at coarse time ``now`` of n entries from number ``first`` on; -> how
    many."""
    removed = 0
    end = min(first + n - 1, ld64_once(table + T.fresh))
    for number in range(max(first, 1), end + 1):
        entry = ld64(table + T.entries) + number * ENTRY_BYTES
        state = ld64_acq(entry + E.state)
        if state & STATE != FREE and expired(table, state, now - ld64_once(entry + E.seen)):
            if remove(table, entry, state):
                removed += 1
    return removed


@kernel(entry=True)
def connections_forget(table, zone):
    """Remove the entries of a zone (-1: all); -> how many."""
    removed = 0
    for number in range(1, ld64_once(table + T.fresh) + 1):
        entry = ld64(table + T.entries) + number * ENTRY_BYTES
        state = ld64_acq(entry + E.state)
        if state & STATE != FREE and (zone < 0 or zone_of(ld64_once(entry + E.flow)) == zone):
            if remove(table, entry, state):
                removed += 1
    return removed


class ConnectionTable:
    """The memory of one table. ``address``: of its record, which never moves."""

    def __init__(self, capacity: int, timeouts: dict[int, float], hz: float,
                 seed: int | None = None) -> None:
        """``capacity``: entries, at most MAX_ENTRIES. ``timeouts``: seconds by state. ``hz``:
        coarse ticks a second. ``seed``: for tests; else the secret numbers are nobody's to know."""
        if not 1 <= capacity <= MAX_ENTRIES:
            raise ValueError(f"a connection table of {capacity} entries; 1 to {MAX_ENTRIES}")
        buckets = 1 << max(4, (-(-WORDS_EACH * capacity // WAYS) - 1).bit_length())
        self.index = alloc(np.dtype("<i8"), buckets * WAYS)
        self.entries = alloc(ENTRY, capacity + 1)  # number 0 is nobody's
        self.counts = alloc(np.dtype("<i8"), ZONES)
        self.record = alloc(TABLE, 1)
        row = self.record[0]
        row["index"], row["entries"] = address_of(self.index), address_of(self.entries)
        row["counts"], row["capacity"] = address_of(self.counts), capacity
        row["fair"] = row["shared"] = capacity
        row["shift"] = 64 - (buckets.bit_length() - 1)
        draw = secrets.SystemRandom() if seed is None else random.Random(seed)
        row["keys"] = [draw.getrandbits(64) - (1 << 63) for _ in range(KEYS)]
        for state, seconds in timeouts.items():
            row["timeouts"][state] = max(1, round(seconds * hz))
        self.capacity = capacity
        self.address = address_of(self.record)
        self._next = 1

    def __len__(self) -> int:
        return int(self.record["count"][0])

    @property
    def memory(self) -> int:
        """Bytes that the table takes at the most."""
        return int(self.entries.nbytes + self.index.nbytes + self.counts.nbytes)

    def share(self, zones: Iterable[int]) -> None:
        """These zones divide the table. To be called when there are others, and now and then: what
        workers do in the same moment is not counted."""
        found = np.array(list(zones), np.int64)
        fair = self.capacity // (2 * max(1, len(found)))
        self.record["fair"], self.record["shared"] = fair, self.capacity - fair * len(found)
        self.record["over"] = np.maximum(self.counts[found] - fair, 0).sum()

    def expire(self, now: int, portion: int = 1 << 17) -> int:
        """Remove what has aged out at coarse time ``now``, of the next ``portion`` entries (some
        milliseconds); -> how many. Pauses no worker."""
        used = int(self.record["fresh"][0])
        if not used:  # nor is any machine code, where there are no security groups
            return 0
        if self._next > used:
            self._next = 1
        removed = int(connections_expire(self.address, self._next, portion, now))
        self._next += portion
        return removed

    def forget(self, zone: int) -> int:
        """Remove the entries of a zone (-1: all); -> how many. Pauses no worker."""
        if zone >= 0 and not self.counts[zone]:
            return 0
        return int(connections_forget(self.address, zone))

    def used(self) -> Any:
        """A copy of the entries that are in use, as an array of ENTRY."""
        entries = self.entries[1 : int(self.record["fresh"][0]) + 1]
        copied = entries[entries["state"] & STATE != FREE]
        return copied[copied["state"] & STATE != FREE]  # a worker may have freed some meanwhile


ENTRIES: tuple[Any, ...] = (connections_expire, connections_forget)
