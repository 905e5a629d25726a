# SPDX-License-Identifier: Apache-2.0
"""The forwarding database of one network: which MAC address is behind which port.

Used by decide.py (learn, lookup), worker (the table's address) and control (ageing, listing).

Theory of operation
-------------------
Buckets of 8 words, one cache line each; a word is MAC (48 bits) << 16 | port + 1, and 0 is free.
An entry is always written with one 64-bit compare-and-swap, so readers on other threads see the
old entry or the new one. Ages lie in an array of their own and are written only when the coarse
clock has moved: a steady flow dirties no line.

Limits. A network may hold ``limit`` entries; the table has twice the slots, so buckets rarely
fill. When there is no room, an entry of the port that has most of them (among 16 buckets from the
home bucket on) makes way, the oldest of those; a port that has as many entries as anybody only
replaces its own. So a port that invents addresses throws out its own inventions, and nobody
else's. A secret seed keeps a guest from choosing addresses that share a bucket.

Threads: learn and lookup on any worker, expire and forget on the control thread, all without a
lock. Two workers that learn the same new address in the same moment may make two entries; the
older one ages out.
"""

import secrets
from typing import Any

import numpy as np

from byway.machine.dual import signed
from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import (
    add64,
    cas64,
    ld64,
    ld64_once,
    likely,
    mul64,
    shr64,
    st64,
    st64_once,
    unlikely,
)

WAYS = 8
BUCKET = 8 * WAYS
PORT_MASK = 0xFFFF
MAX_PORTS = 0xFFFE
FIRST_TUNNEL = 0xC000  # port numbers from here on are tunnels, remote hosts
EVICTION_BUCKETS = 16
GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio, as int64: multiplicative hashing
SAME, NEW, ELSEWHERE = 0, 1, 2  # what learning an address changed
CLOCK_SHIFT = 26  # ages count 2^26 ticks of the time stamp counter (some 25 ms)

FDB, fdb_at, F = record("fdb", [
    "words", "ages", "shift", "seed", "limit", "per_port", "buckets",
    "count", "learned", "moved", "evicted", "refused", "expired"])


@kernel
def home(fdb, key):
    """The address of the bucket that ``key`` (MAC << 16) belongs to."""
    f = fdb_at(fdb)
    return f.words + shr64(mul64(key ^ f.seed, GOLDEN), f.shift) * BUCKET


@kernel
def lookup(fdb, key):
    """-> the port behind ``key`` (MAC << 16), or -1."""
    bucket = home(fdb, key)
    for j in range(WAYS):
        word = ld64_once(bucket + 8 * j)
        if likely((word ^ key) & ~PORT_MASK == 0 and word != 0):
            return (word & PORT_MASK) - 1
    return -1


@kernel
def remove_word(fdb, at, word):
    """Free the slot at ``at`` if it still holds ``word``; -> True where it did."""
    f = fdb_at(fdb)
    if cas64(at, word, 0) != word:
        return False
    add64(f.per_port + 8 * ((word & PORT_MASK) - 1), -1)
    add64(fdb + F.count, -1)
    return True


@kernel
def make_room(fdb, bucket, buckets, port):
    """Take one entry out of ``buckets`` buckets from ``bucket`` on, fairly; -> whether it did."""
    f = fdb_at(fdb)
    end = f.words + f.buckets * BUCKET
    best_at = 0
    best_word = 0
    best_share = 0
    best_age = 0
    own = ld64_once(f.per_port + 8 * port)  # who has no more than we is left alone
    at = bucket
    for _ in range(buckets * WAYS):
        word = ld64_once(at)
        if word != 0:
            owner = (word & PORT_MASK) - 1
            share = ld64_once(f.per_port + 8 * owner)
            age = ld64_once(f.ages + (at - f.words))
            if (owner == port or share > own) and (
                    best_at == 0 or share > best_share or (share == best_share and age < best_age)):
                best_at = at
                best_word = word
                best_share = share
                best_age = age
        at += 8
        if at == end:
            at = f.words
    if best_at == 0:
        return False
    if remove_word(fdb, best_at, best_word):
        add64(fdb + F.evicted, 1)
    return True


@kernel
def insert(fdb, bucket, key, port, now):
    """Put a new entry into a free slot of its bucket; -> True where there was one."""
    f = fdb_at(fdb)
    for j in range(WAYS):
        at = bucket + 8 * j
        if ld64_once(at) == 0:
            st64_once(f.ages + (at - f.words), now)  # before the entry can be seen
            if cas64(at, 0, key | (port + 1)) == 0:
                add64(f.per_port + 8 * port, 1)
                add64(fdb + F.count, 1)
                add64(fdb + F.learned, 1)
                return True
    return False


@kernel
def learn_new(fdb, bucket, key, port, now):
    """An address that is not in its bucket (slow lane of learn); -> NEW, or SAME: no room."""
    f = fdb_at(fdb)
    if ld64_once(fdb + F.count) >= f.limit:
        if not make_room(fdb, bucket, min(EVICTION_BUCKETS, f.buckets), port):
            add64(fdb + F.refused, 1)
            return SAME
    if insert(fdb, bucket, key, port, now):
        return NEW
    if make_room(fdb, bucket, 1, port) and insert(fdb, bucket, key, port, now):
        return NEW
    add64(fdb + F.refused, 1)
    return SAME


@kernel
def learn(fdb, key, port, now):
    """``key`` (MAC << 16) was seen as a source on ``port`` at coarse time ``now``; -> what that
    changed: SAME (nothing), NEW, ELSEWHERE (it was behind another port)."""
    f = fdb_at(fdb)
    changed = SAME
    bucket = home(fdb, key)
    for j in range(WAYS):
        at = bucket + 8 * j
        word = ld64_once(at)
        if likely((word ^ key) & ~PORT_MASK == 0 and word != 0):
            if unlikely(word & PORT_MASK != port + 1):
                if cas64(at, word, key | (port + 1)) == word:
                    add64(f.per_port + 8 * ((word & PORT_MASK) - 1), -1)
                    add64(f.per_port + 8 * port, 1)
                    add64(fdb + F.moved, 1)
                    changed = ELSEWHERE
            age = f.ages + (at - f.words)
            if unlikely(ld64(age) != now):
                st64_once(age, now)
            return changed
    return learn_new(fdb, bucket, key, port, now)


@kernel(entry=True)
def fdb_expire(fdb, oldest):
    """Remove entries not seen since coarse time ``oldest``; -> how many."""
    f = fdb_at(fdb)
    removed = 0
    for k in range(f.buckets * WAYS):
        word = ld64_once(f.words + 8 * k)
        if word != 0 and ld64_once(f.ages + 8 * k) < oldest:
            if remove_word(fdb, f.words + 8 * k, word):
                removed += 1
    st64(fdb + F.expired, ld64(fdb + F.expired) + removed)
    return removed


@kernel(entry=True)
def fdb_forget(fdb, port):
    """Remove the entries of ``port`` (-1: all); -> how many."""
    f = fdb_at(fdb)
    removed = 0
    for k in range(f.buckets * WAYS):
        word = ld64_once(f.words + 8 * k)
        if word != 0 and (port < 0 or (word & PORT_MASK) - 1 == port):
            if remove_word(fdb, f.words + 8 * k, word):
                removed += 1
    return removed


@kernel(entry=True)
def fdb_forget_mac(fdb, key):
    """Remove the entry of ``key`` (MAC << 16); -> 1 where there was one."""
    bucket = home(fdb, key)
    removed = 0
    for j in range(WAYS):
        word = ld64_once(bucket + 8 * j)
        if (word ^ key) & ~PORT_MASK == 0 and word != 0 and remove_word(fdb, bucket + 8 * j, word):
            removed = 1
    return removed


class Fdb:
    """The memory of one table, and Python's view of it."""

    def __init__(self, limit: int = 8192, seed: int | None = None) -> None:
        buckets = max(EVICTION_BUCKETS, 1 << (-(-2 * limit // WAYS) - 1).bit_length())
        self._words = alloc(np.dtype("<i8"), buckets * WAYS)
        self._ages = alloc(np.dtype("<i8"), buckets * WAYS)
        self._per_port = alloc(np.dtype("<i8"), MAX_PORTS + 1)
        self.record = alloc(FDB, 1)
        row = self.record[0]
        row["words"], row["ages"] = address_of(self._words), address_of(self._ages)
        row["per_port"], row["limit"], row["buckets"] = address_of(self._per_port), limit, buckets
        row["shift"] = 64 - (buckets.bit_length() - 1)
        row["seed"] = (secrets.randbits(47) if seed is None else seed) << 16
        self.address = address_of(self.record)

    def __len__(self) -> int:
        return int(self.record["count"][0])

    def entries(self) -> list[tuple[int, int, int]]:
        """(MAC as a 48-bit number, port, coarse time last seen), by MAC."""
        used = np.flatnonzero(self._words)
        return sorted(
            (int(self._words[k]) >> 16 & (1 << 48) - 1, (int(self._words[k]) & PORT_MASK) - 1,
             int(self._ages[k]))
            for k in used if self._words[k])

    def statistics(self) -> dict[str, int]:
        """Counters: count, learned, moved, evicted, refused, expired."""
        names = ("count", "learned", "moved", "evicted", "refused", "expired")
        return {n: int(self.record[n][0]) for n in names}

    def expire(self, oldest: int) -> int:
        """Remove entries not seen since coarse time ``oldest``; -> how many."""
        return int(fdb_expire(self.address, oldest))

    def forget(self, port: int) -> int:
        """Remove the entries of a port (-1: all); -> how many."""
        if port >= 0 and not self._per_port[port]:
            return 0
        return int(fdb_forget(self.address, port))

    def forget_mac(self, mac: int) -> bool:
        """Remove what was learned of an address (a 48-bit number); -> whether there was any."""
        return bool(fdb_forget_mac(self.address, signed(mac << 16)))


def mac_text(mac: int) -> str:
    """02:00:00:00:00:01"""
    return mac.to_bytes(6, "big").hex(":")


ENTRIES: tuple[Any, ...] = (fdb_expire, fdb_forget, fdb_forget_mac)
