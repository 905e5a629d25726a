# SPDX-License-Identifier: Apache-2.0
"""The connection table by itself: finding, room, ageing, forgetting, and what a seed hides."""

import threading
from collections import Counter

import numpy as np
import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.switch.connections import (
    MAX_ENTRIES,
    SEEK,
    WAYS,
    ConnectionTable,
)
from byway.testing.groups_kernels import (
    bucket_number,
    table_find,
    table_insert,
    table_remove,
    table_storm,
)

STATE, SECONDS, HZ = 3, 10, 100


def table(capacity: int = 100, seed: int | None = 1) -> ConnectionTable:
    return ConnectionTable(capacity, {STATE: SECONDS}, HZ, seed)


class Keys:
    """Keys by number, one at a time."""

    def __init__(self) -> None:
        self.seek = alloc(SEEK, 1, 64)
        self.address = address_of(self.seek)

    def at(self, number: int, zone: int = 1, v6: bool = False) -> int:
        self.seek["guest_low"], self.seek["remote_low"] = 0xFFFF0A000001, 0xFFFF0B000000 + number
        self.seek["guest_high"] = self.seek["remote_high"] = -number if v6 else 0
        self.seek["flow"] = 80 | zone << 32 | 6 << 48 | v6 << 56
        return self.address


@pytest.fixture
def keys() -> Keys:
    return Keys()


def fill(made: ConnectionTable, keys: Keys, numbers: range, zone: int = 1, now: int = 0) -> int:
    """Insert connections; -> how many there was room for."""
    return sum(table_insert(made.address, keys.at(k, zone), STATE, now, 7) != 0 for k in numbers)


@pytest.mark.parametrize("v6", [False, True])
def test_insert_find_remove(keys: Keys, v6: bool) -> None:
    made = table()
    assert table_find(made.address, keys.at(1, v6=v6)) == 0
    entry = table_insert(made.address, keys.at(1, v6=v6), STATE, 5, 7)
    assert table_find(made.address, keys.at(1, v6=v6)) == entry != 0
    assert table_find(made.address, keys.at(2, v6=v6)) == 0
    assert table_find(made.address, keys.at(1, zone=2, v6=v6)) == 0
    assert table_find(made.address, keys.at(1, v6=not v6)) == 0
    assert (len(made), int(made.counts[1])) == (1, 1)
    assert table_remove(made.address, entry) == 1
    assert table_remove(made.address, entry) == 0, "once"
    assert table_find(made.address, keys.at(1, v6=v6)) == 0
    assert (len(made), int(made.counts[1])) == (0, 0)


def test_every_word_of_a_key_counts(keys: Keys) -> None:
    made = table()
    table_insert(made.address, keys.at(1, v6=True), STATE, 0, 7)
    for name in ("guest_high", "guest_low", "remote_high", "remote_low", "flow"):
        for bit in (0, 31, 32, 55):
            keys.at(1, v6=True)
            keys.seek[name] ^= 1 << bit
            assert table_find(made.address, keys.address) == 0, (name, bit)


def test_all_entries_can_be_used_again_and_again(keys: Keys) -> None:
    made = table(100)
    for turn in range(3):
        assert fill(made, keys, range(1000 * turn, 1000 * turn + 100)) == 100
        assert fill(made, keys, range(9000, 9005)) == 0
        assert made.forget(-1) == 100
    assert int(made.record["full"][0]) == 15
    assert int(made.record["fresh"][0]) == 100


def test_a_full_bucket_refuses_and_loses_nothing(keys: Keys) -> None:
    made = table(100)
    mine = bucket_number(made.address, keys.at(0))
    same = [k for k in range(4000) if bucket_number(made.address, keys.at(k)) == mine][: WAYS + 1]
    for k in same[:WAYS]:
        assert table_insert(made.address, keys.at(k), STATE, 0, 7)
    assert table_insert(made.address, keys.at(same[WAYS]), STATE, 0, 7) == 0
    assert (len(made), int(made.counts[1]), int(made.record["full"][0])) == (WAYS, WAYS, 1)
    assert table_remove(made.address, table_find(made.address, keys.at(same[3])))
    assert table_insert(made.address, keys.at(same[WAYS]), STATE, 0, 7)


def test_ageing(keys: Keys) -> None:
    made = table()
    fill(made, keys, range(3), now=0)
    fill(made, keys, range(3, 5), now=500)
    assert made.expire(SECONDS * HZ) == 0, "not older than its time"
    assert made.expire(SECONDS * HZ + 1) == 3
    assert len(made) == 2
    assert made.expire(500 + SECONDS * HZ + 1) == 2


def test_ageing_in_portions(keys: Keys) -> None:
    made = table()
    fill(made, keys, range(50))
    assert [made.expire(9999, portion=20) for _ in range(4)] == [20, 20, 10, 0]


def test_forget_a_zone(keys: Keys) -> None:
    made = table()
    fill(made, keys, range(5), zone=1)
    fill(made, keys, range(7), zone=65535)
    assert made.forget(2) == 0
    assert made.forget(1) == 5
    assert made.counts[65535] == len(made) == 7
    assert len(made.used()) == 7


def test_a_table_of_no_use() -> None:
    with pytest.raises(ValueError, match="0 entries"):
        table(0)
    with pytest.raises(ValueError, match="1 to 67108864"):
        table(MAX_ENTRIES + 1)


def test_memory_of_an_entry() -> None:
    """64 bytes and 32 of the index, and the counts of zones."""
    made = table(1 << 16)
    assert made.memory == (1 << 16) * 96 + 64 + made.counts.nbytes


def test_keys_spread_over_the_buckets(keys: Keys) -> None:
    """Neighbours, as a scan makes them: whatever the secret numbers, they spread as by chance."""
    buckets = 4 * 4096 // WAYS
    for seed in range(2 if INTERPRETED else 50):
        made = table(4096, seed)
        used = Counter(bucket_number(made.address, keys.at(k)) for k in range(4096))
        assert len(used) == pytest.approx(buckets * (1 - np.exp(-4096 / buckets)), rel=0.05)
        assert max(used.values()) <= 12


def test_collisions_of_one_switch_are_none_of_another(keys: Keys) -> None:
    """Who found keys that share a bucket has found nothing about a table with another seed."""
    first, second = table(4096, seed=None), table(4096, seed=None)
    mine = bucket_number(first.address, keys.at(0))
    same = [k for k in range(60000) if bucket_number(first.address, keys.at(k)) == mine]
    assert len(same) > WAYS
    others = Counter(bucket_number(second.address, keys.at(k)) for k in same)
    assert max(others.values()) < WAYS / 2
    assert first.record["keys"][0].tolist() != second.record["keys"][0].tolist()


@pytest.mark.compiled_only
def test_workers_at_once() -> None:
    """Four threads insert, find and remove the same keys: nothing is lost, nothing stays."""
    made = table(64)
    failed = []

    def work(seed: int) -> None:
        seek = alloc(SEEK, 1, 64)
        failed.append(table_storm(made.address, address_of(seek), seed, 150_000, STATE))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [0, 0, 0, 0], "an entry was found that has another key"
    assert len(made) == len(made.used()) == int(made.counts[1])
    made.forget(-1)
    assert (len(made), int(made.counts[1])) == (0, 0)
    assert not np.any(made.index), "no word names an entry that is not there"
    keys = Keys()
    assert fill(made, keys, range(64)) == 64, "all entries are free again"
