# SPDX-License-Identifier: Apache-2.0
"""The forwarding database as control sees it; its behaviour: tests/oracles/test_forwarding.py."""

import pytest

from byway.switch.fdb import GOLDEN, WAYS, Fdb, mac_text
from byway.testing.kernels import learn_address, look_up

MAC = 0x0200_0000_0001


def learn(fdb: Fdb, mac: int, port: int, now: int) -> None:
    learn_address(fdb.address, mac << 16, port, now)


def test_learn_move_age_forget() -> None:
    fdb = Fdb(8)
    learn(fdb, MAC, 3, now=10)
    learn(fdb, MAC, 3, now=12)
    assert fdb.entries() == [(MAC, 3, 12)]
    learn(fdb, MAC, 4, now=13)
    assert fdb.entries() == [(MAC, 4, 13)]
    assert look_up(fdb.address, MAC << 16) == 4
    assert fdb.expire(13) == 0
    assert fdb.expire(14) == 1
    learn(fdb, MAC, 4, now=20)
    learn(fdb, MAC + 1, 5, now=20)
    assert fdb.forget(4) == 1
    assert fdb.forget(-1) == 1
    assert fdb.statistics() == {
        "count": 0, "learned": 3, "moved": 1, "evicted": 0, "refused": 0, "expired": 1}


@pytest.mark.parametrize("port", [0, 65533])
def test_any_port_number(port: int) -> None:
    fdb = Fdb(8)
    learn(fdb, (1 << 47) - 2, port, now=1)
    assert look_up(fdb.address, (1 << 47) - 2 << 16) == port


@pytest.mark.parametrize(("limit", "buckets"), [(1, 16), (64, 16), (65, 32), (8192, 2048)])
def test_room_for_twice_the_limit(limit: int, buckets: int) -> None:
    fdb = Fdb(limit)
    assert int(fdb.record["buckets"][0]) == buckets
    assert buckets * WAYS >= 2 * limit


def test_seeds_are_secret() -> None:
    assert Fdb(8).record["seed"][0] != Fdb(8).record["seed"][0]


def test_refused_where_all_are_smaller() -> None:
    """A full table of equals: who has nothing to replace gets nothing, and it is counted."""
    fdb = Fdb(4, seed=1)
    for k in range(4):
        learn(fdb, MAC + k, k, now=1)
    for k in range(4):
        learn(fdb, MAC + 100 + k, k, now=2)
    assert fdb.statistics()["evicted"] == 4
    learn(fdb, MAC + 200, 9, now=3)
    assert len(fdb) == 4


def bucket(fdb: Fdb, mac: int) -> int:
    """Where an address belongs (who knows the seed can tell)."""
    row = fdb.record[0]
    return (((mac << 16) ^ int(row["seed"])) * GOLDEN % (1 << 64)) >> int(row["shift"])


def test_a_full_bucket() -> None:
    """With room in the table: the largest port makes way, and replaces nobody smaller."""
    fdb = Fdb(100, seed=3)
    macs = [m for m in range(MAC, MAC + 5000) if bucket(fdb, m) == 7][: WAYS + 2]
    others = [m for m in range(MAC, MAC + 5000) if bucket(fdb, m) != 7][:20]
    for now, mac in enumerate(macs[:WAYS]):
        learn(fdb, mac, 1, now)
    for mac in others:
        learn(fdb, mac, 2, now=50)
    learned = len(fdb)
    learn(fdb, macs[WAYS], 2, now=60)
    assert look_up(fdb.address, macs[WAYS] << 16) == -1
    assert (fdb.statistics()["refused"], len(fdb)) == (1, learned)
    learn(fdb, macs[WAYS + 1], 3, now=61)
    assert look_up(fdb.address, macs[WAYS + 1] << 16) == 3
    assert look_up(fdb.address, macs[0] << 16) == -1, "the oldest one"
    assert (fdb.statistics()["evicted"], len(fdb)) == (1, learned)


def test_text() -> None:
    assert mac_text(MAC) == "02:00:00:00:00:01"
