# SPDX-License-Identifier: Apache-2.0
"""The forwarding database against a dict, decisions and delivery against plain functions."""

import threading
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import FLOOD, ROWS, UNDECIDED, Batch
from byway.packet.counters import drops_by_name
from byway.packet.reason import Reason
from byway.ports.record import Kind
from byway.switch.fdb import EVICTION_BUCKETS, WAYS, Fdb
from byway.switch.network import NETWORK
from byway.testing.kernels import (
    decide_batch,
    deliver_batch,
    learn_address,
    learn_many,
    look_up,
)
from byway.testing.plans import plan_of
from byway.testing.records import PortRecords
from byway.testing.ring_kernels import look_at
from byway.worker.deliver import SORT_BYTES
from byway.worker.plan import Plan

EXAMPLES = 40 if INTERPRETED else 200


def learn(fdb: Fdb, mac: int, port: int, now: int = 1) -> None:
    learn_address(fdb.address, signed(mac << 16), port, now)


def lookup(fdb: Fdb, mac: int) -> int:
    return int(look_up(fdb.address, signed(mac << 16)))


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


macs = st.one_of(st.integers(1, 40), st.integers(1, (1 << 48) - 1))


class TestForwardingDatabase:
    """A dict, as long as there is room; fair, where there is none."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(steps=st.lists(st.one_of(
        st.tuples(st.just("learn"), macs, st.integers(0, 5)),
        st.tuples(st.just("look"), macs, st.just(0)),
        st.tuples(st.just("forget"), st.integers(-1, 5), st.just(0)),
        st.tuples(st.just("expire"), st.integers(0, 60), st.just(0))), max_size=60),
        seed=st.integers(0, (1 << 47) - 1))
    def test_like_a_dict(self, steps: list[tuple[str, int, int]], seed: int) -> None:
        fdb, model = Fdb(256, seed), dict[int, tuple[int, int]]()
        for now, (what, value, port) in enumerate(steps):
            if what == "learn":
                learn(fdb, value, port, now)
                model[value] = (port, now)
            elif what == "look":
                assert lookup(fdb, value) == model.get(value, (-1, 0))[0]
            elif what == "forget":
                gone = [m for m, (p, _) in model.items() if value in (-1, p)]
                assert fdb.forget(value) == len(gone)
                model = {m: v for m, v in model.items() if m not in gone}
            else:
                gone = [m for m, (_, seen) in model.items() if seen < value]
                assert fdb.expire(value) == len(gone)
                model = {m: v for m, v in model.items() if m not in gone}
            assert fdb.entries() == sorted((m, p, t) for m, (p, t) in model.items())
            assert len(fdb) == len(model)

    @settings(max_examples=EXAMPLES // 4, deadline=None)
    @given(limit=st.integers(1, 100), seed=st.integers(0, (1 << 47) - 1),
           learned=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 3)), max_size=300))
    def test_counts_and_limit_hold(self, limit: int, seed: int,
                                   learned: list[tuple[int, int]]) -> None:
        fdb = Fdb(limit, seed)
        for now, (mac, port) in enumerate(learned):
            learn(fdb, mac, port, now)
            assert len(fdb) <= limit
        entries = fdb.entries()
        assert len({mac for mac, _, _ in entries}) == len(entries) == len(fdb)
        assert {p: n for p, n in enumerate(fdb._per_port[:4].tolist()) if n} == Counter(
            port for _, port, _ in entries)
        s = fdb.statistics()
        assert s["learned"] - s["evicted"] - s["expired"] == s["count"]
        last = dict(learned)
        assert all(last[mac] == port for mac, port, _ in entries)

    def test_who_invents_addresses_throws_out_its_own(self) -> None:
        """A flood of sources behind one port leaves the others' entries alone."""
        limit = WAYS * EVICTION_BUCKETS // 2  # all buckets are looked at: the property is exact
        fdb = Fdb(limit, seed=12345)
        quiet = {0x020000000000 + k: 1 + k % 3 for k in range(12)}
        for mac, port in quiet.items():
            learn(fdb, mac, port)
        for k in range(500):
            learn(fdb, 0x060000000000 + k * 7919, 0, now=2 + k)
        assert len(fdb) <= limit
        assert {mac: lookup(fdb, mac) for mac in quiet} == quiet

    def test_a_newcomer_gets_in_at_the_expense_of_the_largest(self) -> None:
        limit = WAYS * EVICTION_BUCKETS // 2
        fdb = Fdb(limit, seed=99)
        for k in range(limit + 50):
            learn(fdb, 0x060000000000 + k, 0, now=k)
        learn(fdb, 0x020000000001, 1, now=1000)
        assert lookup(fdb, 0x020000000001) == 1

    def test_the_oldest_of_the_largest_makes_way(self) -> None:
        limit = WAYS * EVICTION_BUCKETS // 2
        fdb = Fdb(limit, seed=4711)
        ages = np.random.default_rng(5).permutation(limit - 4).tolist()
        for k, age in enumerate(ages):
            learn(fdb, 0x060000000000 + k, 0, now=100 + age)
        for k in range(4):
            learn(fdb, 0x020000000000 + k, 1, now=k)  # older, but few
        for k in range(5):
            learn(fdb, 0x0A0000000000 + k, 2, now=5000 + k)
        assert fdb.statistics()["evicted"] == 5
        gone = {ages.index(age) for age in range(5)}
        assert {k for k in range(len(ages)) if lookup(fdb, 0x060000000000 + k) < 0} == gone

    def test_equal_shares_replace_their_own(self) -> None:
        limit = 16
        fdb = Fdb(limit, seed=7)
        for k in range(8):
            learn(fdb, 0x020000000000 + k, 1, now=1)  # older
            learn(fdb, 0x060000000000 + k, 2, now=2)
        for k in range(8, 40):
            learn(fdb, 0x060000000000 + k, 2, now=3 + k)
        assert Counter(port for _, port, _ in fdb.entries()) == {1: 8, 2: 8}


@pytest.mark.parametrize("limit", [64, 1000])
def test_workers_learn_side_by_side(limit: int) -> None:
    """Three threads learn overlapping addresses while entries expire and are forgotten."""
    fdb = Fdb(limit, seed=17)
    rounds = 500 if INTERPRETED else 200_000
    threads = [threading.Thread(target=learn_many, args=(
        fdb.address, 0x020000000000 + 100 * port, 300, port, rounds)) for port in range(3)]
    for thread in threads:
        thread.start()
    removed = 0
    while any(thread.is_alive() for thread in threads):
        removed += fdb.expire(rounds // 2) + fdb.forget(1)
    for thread in threads:
        thread.join()
    entries = fdb.entries()
    assert len(fdb) == len(entries) <= limit + len(threads)
    assert fdb._per_port[:3].tolist() == [
        sum(port == p for _, port, _ in entries) for p in range(3)]
    s = fdb.statistics()
    assert s["learned"] - s["evicted"] - removed == s["count"]


# ---------------------------------------------------------------- decide
PORTS = 4


def naive_decision(frame: bytes, port: int, longest: int, table: dict[bytes, int]) -> int:
    """What becomes of a frame, from its bytes alone; learns into ``table``."""
    tags, at = 0, 12
    while tags < 2 and frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        tags, at = tags + 1, at + 4
    if len(frame) > longest and len(frame) > longest + 4 * tags:
        return -1 - Reason.OVER_MTU
    if len(frame) < 14:
        return -1 - Reason.RUNT
    destination, source = frame[:6], frame[6:12]
    if source[0] & 1 or source == bytes(6):
        return -1 - Reason.BAD_SOURCE
    table[source] = port
    if destination[:5] == b"\x01\x80\xc2\0\0" and destination[5] < 16:
        return -1 - Reason.RESERVED
    if destination[0] & 1 or destination not in table:
        return FLOOD
    return -1 - Reason.SAME_PORT if table[destination] == port else table[destination]


addresses = st.sampled_from([
    bytes(6), b"\xff" * 6, b"\x01\x80\xc2\0\0\0", b"\x01\x80\xc2\0\0\x0f", b"\x01\x80\xc2\0\0\x10",
    b"\x01\0\x5e\0\0\1", *(b"\x02\0\0\0\0" + bytes([k]) for k in range(1, 6)),
    b"\xfe\xff\xff\xff\xff\xff", b"\0\0\0\0\0\1"])
kinds = st.sampled_from([b"\x08\0", b"\x81\0\0\5\x08\0", b"\x88\xa8\0\5\x81\0\0\5\x08\0",
                         b"\x81\0" * 6])
frames = st.builds(lambda d, s, k, n: (d + s + k).ljust(n, b"x")[:n], addresses, addresses, kinds,
                   st.one_of(st.sampled_from([13, 14, 60, 114, 115, 118, 119, 122, 123]),
                             st.integers(14, 130)))


@settings(max_examples=EXAMPLES, deadline=None)
@given(batches=st.lists(st.tuples(st.integers(0, PORTS - 1),
                                  st.lists(st.tuples(frames, st.booleans()), max_size=12)),
                        max_size=6))
def test_decisions(batches: list[tuple[int, list[tuple[bytes, bool]]]]) -> None:
    fdb, batch, network = Fdb(64, 1), Batch(), alloc(NETWORK, 1)
    network["fdb"], network["max_frame"] = fdb.address, 114
    table: dict[bytes, int] = {}
    for port, made in batches:
        expected = []
        keep = []
        for k, (frame, dropped) in enumerate(made):
            data = np.frombuffer(frame, np.uint8).copy()
            keep.append(data)
            row = batch.rows[k]
            row["addr"], row["len"] = address_of(data), len(frame)
            row["out"] = -1 - Reason.BAD_ADDRESS if dropped else UNDECIDED
            row["nsegs"] = 0
            expected.append(-1 - Reason.BAD_ADDRESS if dropped
                            else naive_decision(frame, port, 114, table))
        batch.record["n"] = len(made)
        look_at(batch.address)
        decide_batch(batch.address, address_of(network), port)
        assert batch.rows["out"][: len(made)].tolist() == expected
        assert {mac.to_bytes(6, "big"): p for mac, p, _ in fdb.entries()} == table


# ---------------------------------------------------------------- deliver
@dataclass
class Sinks:
    """Ports of kind null, which count: what each was given is seen by its counters."""

    def __post_init__(self) -> None:
        self.records = [PortRecords(Kind.NULL, k) for k in range(PORTS)]

    def plan(self, up: list[bool], members: list[int]) -> Plan:
        ports = {k: self.records[k].address for k in range(PORTS) if up[k]}
        return plan_of(ports, {0: members})


outs = st.one_of(st.integers(0, PORTS - 1), st.just(FLOOD), st.just(-1 - Reason.RUNT),
                 st.just(-1 - Reason.SAME_PORT))


@settings(max_examples=EXAMPLES, deadline=None)
@given(own=st.integers(0, PORTS - 1), up=st.lists(st.booleans(), min_size=PORTS, max_size=PORTS),
       members=st.sampled_from([[0, 1, 2, 3], [0, 1], [1, 2, 3], [3]]),
       decided=st.one_of(
           st.lists(outs, max_size=ROWS),
           st.lists(st.integers(0, PORTS - 1), max_size=ROWS),
           st.lists(st.just(FLOOD), max_size=9)))
def test_delivery_is_a_sum_over_destinations(
        own: int, up: list[bool], members: list[int], decided: list[int]) -> None:
    """Every frame is given to each of its destinations once, or counted once as a drop."""
    sinks, batch = Sinks(), Batch()
    plan = sinks.plan(up, members)
    sort = alloc(np.dtype("u1"), SORT_BYTES)
    given_to, dropped = [0] * PORTS, Counter[str]()
    for k, out in enumerate(decided):
        batch.rows[k]["out"], batch.rows[k]["len"] = out, 1 << k % 40
        others = [m for m in members if m != own]
        targets = [out] if out >= 0 else others if out == FLOOD else []
        reached = [t for t in targets if up[t]]
        for target in reached:
            given_to[target] += 1 << k % 40
        if out < FLOOD:
            dropped[Reason(-1 - out).name.lower()] += 1
        elif not targets:
            dropped["no_destination"] += 1
        elif not reached:
            dropped["port_down"] += 1
    batch.record["n"] = len(decided)
    deliver_batch(plan.address, sinks.records[own].rx_address, batch.address, address_of(sort))
    assert [int(s.sent[0]["bytes"]) for s in sinks.records] == given_to
    assert drops_by_name(sinks.records[own].received[0]) == dict(dropped)
    assert not plan._groups[:PORTS].any(), "left as it was found"


@pytest.mark.parametrize("runs", [1, 5, 64])
def test_many_destinations_in_one_batch(runs: int) -> None:
    sinks, batch = Sinks(), Batch()
    plan = sinks.plan([True] * PORTS, [0, 1, 2, 3])
    sort = alloc(np.dtype("u1"), SORT_BYTES)
    outs = [(k // runs) % PORTS for k in range(ROWS)]
    batch.rows["out"][:], batch.rows["len"][:] = outs, 1
    batch.record["n"] = ROWS
    deliver_batch(plan.address, sinks.records[0].rx_address, batch.address, address_of(sort))
    assert [int(s.sent[0]["frames"]) for s in sinks.records] == [
        outs.count(k) for k in range(PORTS)]
