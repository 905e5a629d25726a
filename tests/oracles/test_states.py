# SPDX-License-Identifier: Apache-2.0
"""State of network functions but maps, as kernels against the same in plain Python."""

import ipaddress
import os
import random
import select
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.functions.event_memory import EventMemory, event_fields
from byway.functions.map_kernels import MAP
from byway.functions.state_memory import WORD
from byway.functions.states import KINDS, make
from byway.functions.table_memory import BucketsMemory, LpmMemory
from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.nf import calls
from byway.nf.events import Event
from byway.nf.frame import Frame
from byway.nf.keys import BITS, flow_words, signed
from byway.nf.maps import Buckets, Lpm
from byway.nf.running import RUN, Run
from byway.nf.states import SECOND, Array, Bucket, Counter
from byway.packet.batch import UNDECIDED, Batch
from byway.testing.builders import tcp, udp
from byway.testing.generated import generated
from byway.testing.state_kernels import (
    do_draw,
    do_emit,
    do_hash,
    do_lookup,
    do_put_flow,
    do_take,
    do_take_keyed,
    do_words,
)

LOCK = alloc(WORD, 1, 64)
EXAMPLES = 50 if INTERPRETED else 300
NUMBERS = st.sampled_from([0, 1, 2, -1, (1 << 63) - 1, -(1 << 63), 1 << 32]) | st.integers(
    -(1 << 63), (1 << 63) - 1)


def memory(state: Any, run: Run | None = None) -> Any:
    """The memory of a declared state."""
    return make(state.spec(), address_of(LOCK), lambda name: 0, lambda: run.now if run else 0)


# ---------------------------------------------------------------- counters and arrays
@settings(max_examples=EXAMPLES, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 4), NUMBERS), max_size=20),
       kind=st.sampled_from([kind for kind in BITS if kind != "ipv6"]))
def test_counters_and_arrays(steps: list[tuple[int, int]], kind: str) -> None:
    """A counter's word is an array's first: both are tried on one piece of memory."""
    counter, array = Counter(), Array(kind, size=6)
    words = memory(Array("u64", size=6))
    for index, number in steps:
        counter.add(number)
        array[index + 1] = number
        bits = KINDS[Array].shape(array)
        assert do_words(words.address, index + 1, number, bits) == array[index + 1]
        assert words.words[0] == counter.value


def test_arrays_and_counters_from_outside() -> None:
    array = memory(Array("u8", size=300))
    assert array.put("7", b"abc")
    assert array.put(299, 255)
    assert array.dump() == [{"key": 7, "value": 97}, {"key": 8, "value": 98},
                            {"key": 9, "value": 99}, {"key": 299, "value": 255}]
    assert array.remove(8)
    assert not array.remove(8)
    with pytest.raises(ValueError, match="there is no place 300; write places from 0 to 299"):
        array.put(298, [1, 2, 3])
    with pytest.raises(ValueError, match="256 is no u8; write a number from 0 to 255"):
        array.put(0, 256)
    array.clear()
    assert array.dump() == []
    counter = memory(Counter())
    assert counter.put("value", -1)
    assert counter.dump() == [{"key": "value", "value": (1 << 64) - 1}]
    counter.remove("value")
    assert counter.stats() == {"value": 0}


# ---------------------------------------------------------------- token buckets
RATES = st.sampled_from([0, 1, 3, 1000, 10**9, 10**11, 1 << 40, 1 << 50, -1])
STEPS = st.lists(st.tuples(
    st.sampled_from([0, 1, 1000, 10**6, 1 << 20, (1 << 20) - 1, SECOND // 3, 100 * SECOND,
                     1 << 61]),
    st.sampled_from([0, 1, 64, 1500, 12000, 1 << 30, (1 << 30) + 1, -1])), max_size=30)


@settings(max_examples=EXAMPLES, deadline=None)
@given(steps=STEPS, rate=RATES, burst=st.sampled_from([0, 1, 5, 1500, 10**6, 1 << 30, 1 << 40, -1]))
def test_token_buckets(steps: list[tuple[int, int]], rate: int, burst: int) -> None:
    run = Run(now=SECOND)
    RUN.set(run)
    plain, taken = Bucket(), memory(Bucket())
    for passed, n in steps:
        run.now = min(run.now + passed, (1 << 62) - 1)
        assert do_take(taken.address, run.now, n, rate, burst) == int(plain.take(n, rate, burst))


def test_the_rate_of_a_token_bucket() -> None:
    """Over ten seconds there pass the burst and ten seconds of the rate."""
    taken = memory(Bucket())
    passed = sum(int(do_take(taken.address, SECOND + k * 10**7, 1, 50, 20)) for k in range(1001))
    assert passed == 20 + 10 * 50


@settings(max_examples=EXAMPLES, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1000, SECOND // 4, SECOND]),
                                st.integers(0, 3)), max_size=40))
def test_token_buckets_by_key(steps: list[tuple[int, int, int]]) -> None:
    run = Run(now=SECOND)
    RUN.set(run)
    plain = Buckets("u8", 6, idle=0.9)
    taken = memory(plain, run)
    assert isinstance(taken, BucketsMemory)
    for key, passed, n in steps:
        run.now += passed
        taken.record["key"][0, 0] = key
        assert do_take_keyed(taken.address, run.now, taken.shape, n, 2, 4) == int(
            plain.take(key, n, 2, 4))
    with pytest.raises(ValueError, match="cannot be put"):
        taken.put(1, {})


# ---------------------------------------------------------------- prefixes
@st.composite
def prefixes(draw: st.DrawFn, width: int) -> list[tuple[int, int]]:
    """(address, bits), many of them within each other."""
    made: list[tuple[int, int]] = []
    for _ in range(draw(st.integers(0, 14))):
        bits = draw(st.integers(0, width))
        address = draw(st.sampled_from(made))[0] if made and draw(st.booleans()) else draw(
            st.integers(0, (1 << width) - 1))
        made.append((address >> width - bits << width - bits, bits))
    return made


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(data=st.data(), key=st.sampled_from(["ipv4", "ipv6"]))
def test_longest_prefix(data: st.DataObject, key: str) -> None:
    width = BITS[key]
    plain = Lpm("u64" if key == "ipv6" else "u32", capacity=10, key=key)
    table = memory(plain)
    assert isinstance(table, LpmMemory)
    wanted = data.draw(prefixes(width))
    for k, prefix in enumerate(wanted):
        assert table.put(prefix, k) == plain.put(prefix, k)
    for prefix in wanted[::3]:
        assert table.remove(prefix) == plain.remove(prefix)
    edges = [first + d for first, bits in wanted for d in (-1, 0, 1, (1 << width - bits) - 1,
                                                           1 << width - bits)]
    others = data.draw(st.lists(st.integers(0, (1 << width) - 1), max_size=10))
    for address in [a % (1 << width) for a in edges] + others + [0, (1 << width) - 1]:
        halves = signed(address >> 64), signed(address)
        assert do_lookup(table.address, key == "ipv6", *halves, -9) == plain.lookup(address, -9)
    assert table.stats()["full"] == plain.full


def test_prefixes_from_outside() -> None:
    table = memory(Lpm("ipv4", capacity=3))
    rows = {"0.0.0.0/0": "10.0.0.1", "10.1.0.0/16": "10.0.0.2"}
    assert table.fill(rows)
    assert table.dump() == [{"key": key, "value": value} for key, value in rows.items()]
    assert do_lookup(table.address, 0, 0, int(ipaddress.IPv4Address("10.1.2.3")), -1) == (
        10 << 24) + 2
    with pytest.raises(ValueError, match=r"is no ipv4 prefix: .* write 10\.1\.0\.0/16"):
        table.put("10.1.0.1/16", "10.0.0.3")
    with pytest.raises(ValueError, match="is no ipv4"):
        table.fill({"10.0.0.0/8": "10.0.0.3", "11.0.0.0/8": "x"})
    assert len(table.dump()) == 2  # as before
    assert table.put_all({"10.1.0.0/16": "1.1.1.1", "11.0.0.0/8": "2.2.2.2"}) == []
    assert table.dump()[1] == {"key": "10.1.0.0/16", "value": "1.1.1.1"}
    table.clear()
    assert do_lookup(table.address, 0, 0, 10 << 24, -1) == -1


# ---------------------------------------------------------------- chance, hashes, flows
@settings(max_examples=EXAMPLES, deadline=None)
@given(start=NUMBERS, limits=st.lists(NUMBERS, min_size=1, max_size=10))
def test_chance(start: int, limits: list[int]) -> None:
    cell = np.array([start], WORD)
    RUN.set(Run(random=start))
    for n in limits:
        number = calls.random(n)
        assert do_draw(address_of(cell), n) == number
        assert 0 <= number < max(1, n)


def test_chance_is_fair() -> None:
    RUN.set(Run(random=1))
    counts = np.bincount([calls.random(6) for _ in range(12000)], minlength=6)
    assert len(counts) == 6
    assert counts.min() > 1800


@settings(max_examples=EXAMPLES, deadline=None)
@given(word=NUMBERS, wide=st.integers(0, (1 << 128) - 1) | st.integers(0, 1 << 66))
def test_hashes(word: int, wide: int) -> None:
    assert do_hash(word, calls.high(wide), calls.low(wide)) == calls.hash(word, wide)
    assert calls.wide(calls.high(wide), calls.low(wide)) == wide


def test_a_hash_is_the_same_for_ever() -> None:
    assert calls.hash(1, 2) == 1041766494


def test_flows_are_keys() -> None:
    """What a kernel stores is what plain Python's frame.flow is in words."""
    batch, state = Batch(), alloc(MAP, 1, 64)
    row, head = batch.rows[0], np.zeros(65536, np.uint8)
    seen = set()
    for data in [tcp("10.0.0.1", "10.0.0.2", 1, 2), udp("fe80::1", "fe80::2", 3, 4),
                 *generated(200 if INTERPRETED else 2000, seed=4)]:
        head[: len(data)] = np.frombuffer(data, np.uint8)
        row["addr"], row["len"], row["out"] = address_of(head), len(data), UNDECIDED
        place = int(row["head"]) - int(batch.record["heads"][0])
        batch._heads.view(np.uint8)[place : place + 128] = head[:128]
        do_put_flow(address_of(state), 1, address_of(batch.rows))
        flow = Frame(data).flow
        assert state["key"][0, 1:6].tolist() == list(flow_words(flow)), data.hex()
        seen.add(flow.version)
    assert seen == {0, 4, 6}


# ---------------------------------------------------------------- events
FIELDS = {"n": "u16", "head": "bytes:200"}


def emitted(ring: EventMemory, now: int, n: int, row: int, skip: int, length: int) -> None:
    """Emit an event of FIELDS."""
    assert event_fields(ring.fields) == {"n": 0, "head": 8}
    do_emit(ring.address, now, n, 16, row, 200, skip, length)


def test_events() -> None:
    """What was emitted arrives, in order, as bytes and numbers; what has no room is counted."""
    draw = random.Random(6)
    batch = Batch()
    data = draw.randbytes(900)
    pieces = [np.frombuffer(data[a:b], np.uint8).copy() for a, b in ((0, 100), (100, 260),
                                                                     (260, 900))]
    whole = np.frombuffer(data, np.uint8).copy()
    segments = np.array([[address_of(p), len(p)] for p in pieces], WORD)
    batch._heads.view(np.uint8)[128 : 256] = whole[:128]
    batch.rows["head"][1] = batch.rows["head"][0]
    for k, nsegs in enumerate((0, 3)):
        batch.rows["addr"][k], batch.rows["len"][k] = address_of(whole), len(data)
        batch.rows["segs"][k], batch.rows["nsegs"][k] = address_of(segments), nsegs
    plain = Event(capacity=5, **FIELDS)
    ring = memory(plain)
    assert isinstance(ring, EventMemory)
    for turn in range(80):
        for k in range(draw.randrange(8)):
            now, n = draw.randrange(1 << 40), draw.randrange(1 << 20)
            skip, length = draw.randrange(950), draw.choice((900, 900, 1000, 300))
            RUN.set(Run(now=now))
            plain.emit(n=n, head=data[skip:length])
            emitted(ring, now, n, address_of(batch.rows[k % 2 :]), skip, length)
        assert ring.stats()["lost"] == plain.lost
        if turn % 3:
            assert ring.take() == plain.take()
    ring.close()


def test_whoever_waits_for_events_is_woken() -> None:
    batch = Batch()
    batch.rows["len"] = 14
    ring = memory(Event(capacity=300, **FIELDS))
    row = address_of(batch.rows)
    assert not select.select([ring.fd], [], [], 0)[0]
    for k in range(300):
        emitted(ring, k, k, row, 0, 14)
    assert select.select([ring.fd], [], [], 0)[0]
    assert [event["n"] for event in ring.take()] == list(range(256))
    assert select.select([ring.fd], [], [], 0)[0]  # there are more
    assert ring.shown(ring.take()[0]) == {"time": 256, "n": 256, "head": 28 * "0"}
    assert not select.select([ring.fd], [], [], 0)[0]
    emitted(ring, 5, 5, row, 0, 14)
    assert os.eventfd_read(ring.fd) == 1
    ring.clear()
    assert ring.take() == []
    ring.close()


def test_an_event_with_all_kinds_of_fields() -> None:
    fields = {"src": "ipv4", "mac": "mac", "far": "ipv6", "n": "u64"}
    assert event_fields(fields) == {"src": 0, "mac": 8, "far": 16, "n": 32}
    ring = memory(Event(**fields))
    far = ipaddress.IPv6Address("2001:db8::ff")
    ring._slots[:6] = [1, 10 << 24, 2, signed(int(far) >> 64), signed(int(far)), -1]
    ring.record["head"] = 1
    event = ring.take()[0]
    assert event == {"time": 1, "src": 10 << 24, "mac": 2, "far": int(far), "n": -1}
    assert ring.shown(event) == {"time": 1, "src": "10.0.0.0", "mac": "00:00:00:00:00:02",
                                 "far": "2001:db8::ff", "n": (1 << 64) - 1}
    ring.close()
