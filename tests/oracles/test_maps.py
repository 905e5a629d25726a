# SPDX-License-Identifier: Apache-2.0
"""Maps of network functions as kernels against the same in plain Python."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.functions.map_kernels import SPARE, WINDOW
from byway.functions.map_memory import MapMemory, map_of
from byway.functions.map_rows import field_bytes, offsets
from byway.functions.state_memory import WORD, Surroundings
from byway.functions.states import make
from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.machine.mem import ld8, ld16, ld32, ld64, st8, st16, st32, st64
from byway.nf.keys import Flow, signed
from byway.nf.maps import Map
from byway.nf.running import RUN, Run
from byway.nf.states import SECOND, TICK_BITS
from byway.testing.state_kernels import (
    ADD,
    DELETE,
    FIND,
    GET,
    HAS,
    MAKE,
    PEEK,
    SET,
    map_add_held,
    map_do,
    map_get_all,
    map_set_all,
)

LOCK = alloc(WORD, 1, 64)
FIELD = {1: (ld8, st8), 2: (ld16, st16), 4: (ld32, st32), 8: (ld64, st64)}
EXAMPLES = 60 if INTERPRETED else 300
WORDS = st.sampled_from([0, 1, 2, 255, 1 << 31, (1 << 63) - 1, -1, -(1 << 63), 0xFFFFFFFF])
FLOWS = st.sampled_from([Flow(), Flow(4, 1, 2, 3, 4, 6), Flow(4, 2, 1, 4, 3, 6),
                         Flow(6, 1, 2, 3, 4, 6), Flow(6, 1 << 127, 2, 3, 4, 17)])
KEYS: dict[tuple[str, ...], st.SearchStrategy[Any]] = {
    ("u8",): st.integers(0, 60),
    ("ipv4", "u16"): st.tuples(st.sampled_from([1, 2**32 - 1, 10 << 24]), st.integers(0, 9)),
    ("u64",): WORDS | st.integers(0, 30),
    ("u64", "u8"): st.tuples(WORDS, st.integers(0, 5)),
    ("ipv6",): st.builds(lambda high, low: high << 64 | low, st.integers(0, 3), st.integers(0, 5)),
    ("mac", "u16", "ipv6"): st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    ("flow", "u8"): st.tuples(FLOWS, st.integers(0, 6)),
}
NUMBERS = {"": "u32"}, {"": "u64"}, {"": "mac"}
RECORDS = {"a": "u8", "b": "u64"}, {"x": "ipv6", "y": "u16"}, {f"f{k}": "u32" for k in range(9)}, \
    {"a": "u8", "b": "ipv4", "c": "u16", "d": "mac", "e": "u8", "f": "ipv6"}


class Both:
    """A map as kernels, and as it is meant."""

    def __init__(self, plain: Map) -> None:
        self.run = Run(now=7 * SECOND)
        spec = plain.spec()
        RUN.set(self.run)
        self.plain = map_of(spec)
        around = Surroundings(address_of(LOCK), lambda name: 0, lambda: self.run.now)
        self.memory = MapMemory(spec, around, seed=9)
        self.places = offsets(self.memory.rows.fields)

    def do(self, what: int, key: Any, n: int = 0) -> int:
        """Call a kernel."""
        words = self.memory.rows.packing.words_of(self.plain.kept(key))
        self.memory.record["key"][0, : len(words)] = words
        return int(map_do(self.memory.address, self.run.now, self.memory.shape, what, n))

    def change(self, what: int, key: Any, n: int) -> None:
        """Set, add, make: one of them may be refused."""
        answer = self.do(what, key, n)
        if what == SET:
            assert answer == int(self.plain.set(key, n))
        elif what == ADD:
            assert answer == self.plain.add(key, n)
        else:
            self.records(self.plain.make(key), answer, n)
        assert self.memory.stats()["full"] == self.plain.full

    def records(self, record: Any, at: int, n: int) -> None:
        """Both records hold the same; write something into both."""
        assert bool(record) == (at != self.memory.address + SPARE)
        for name, kind in self.memory.rows.fields.items():
            place = at + self.places[name]
            if kind == "ipv6":
                assert getattr(record, name) == (ld64(place) & (1 << 64) - 1) << 64 | ld64(
                    place + 8) & (1 << 64) - 1
                setattr(record, name, n)
                st64(place, signed(getattr(record, name) >> 64))
                st64(place + 8, signed(getattr(record, name)))
            else:
                load, store = FIELD[field_bytes(kind)]
                assert getattr(record, name) == load(place)
                setattr(record, name, n)
                store(place, getattr(record, name))

    def step(self, what: int, key: Any, n: int) -> None:
        """Do the same to both."""
        if what in (SET, ADD, MAKE):
            self.change(what, key, n)
        elif what == GET:
            assert self.do(GET, key, n) == self.plain.get(key, n)
        elif what == HAS:
            assert self.do(HAS, key) == int(key in self.plain)
        elif what == DELETE:
            assert self.do(DELETE, key) == int(self.plain.delete(key))
        elif what == PEEK:
            self.records(self.plain.peek(key), self.do(PEEK, key), n)
        else:
            self.records(self.plain.find(key), self.do(FIND, key), n)

    def end(self) -> None:
        """What is in them is the same; and nobody passes by where nobody lies further on."""
        assert dict(self.memory.entries()) == dict(self.plain.entries())
        for key, _ in list(self.memory.entries()):
            assert self.do(DELETE, key) == 1
        self.memory.expire()
        self.run.now += 1 << 41
        self.memory.expire()
        assert self.memory.stats()["entries"] == 0
        assert not np.any(tags_and_counts(self.memory))


def tags_and_counts(memory: MapMemory) -> Any:
    """The first bytes of all buckets: those of tags, and of how many passed by."""
    octets = memory.buckets.view(np.uint8).reshape(memory.homes + WINDOW, -1)
    return octets[:, : 8 if memory.shape >> 4 & 4 else 4]


@st.composite
def maps(draw: st.DrawFn) -> tuple[Map, st.SearchStrategy[Any]]:
    """A map, and keys for it."""
    types, keys = draw(st.sampled_from(sorted(KEYS.items(), key=str)))
    fields = draw(st.sampled_from([*NUMBERS, *RECORDS]))
    value = fields.get("", fields)
    ages = draw(st.sampled_from([{}, {"age": 1.0}, {"idle": 0.5}]))
    return Map(types, value, draw(st.integers(1, 12)), **ages), keys


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_as_in_plain_python(data: st.DataObject) -> None:
    plain, keys = data.draw(maps())
    both = Both(plain)
    allowed = [GET, HAS, SET, ADD, DELETE] if plain.is_word else [FIND, MAKE, PEEK, HAS, DELETE]
    steps = data.draw(st.lists(st.tuples(
        st.sampled_from([*allowed, *allowed[:3], SET if plain.is_word else MAKE]), keys,
        WORDS | st.integers(0, 300), st.sampled_from([0, 0, 0, 1 << 19, SECOND // 3])),
        max_size=40))
    for what, key, n, passed in steps:
        both.run.now += passed
        both.step(what, key, n)
    both.end()


def memory_of(plain: Map, now: int = 0) -> MapMemory:
    """A map's memory, whose secret numbers are known."""
    around = Surroundings(address_of(LOCK), lambda name: 0, lambda: now)
    return MapMemory(plain.spec(), around, seed=5)


@pytest.mark.parametrize("fields", [{"": "u32"}, {"a": "u32", "b": "u32"},
                                    {"a": "ipv6", "b": "u8"}])
@pytest.mark.parametrize("keys", ["in a row", "far apart", "by chance"])
def test_capacity_is_a_promise(fields: dict[str, str], keys: str) -> None:
    n = 500 if INTERPRETED else 65536
    memory = memory_of(Map("u64", fields.get("", fields), n))
    wanted = {"in a row": np.arange(n), "far apart": np.arange(n) << 40,
              "by chance": np.random.default_rng(2).permutation(1 << 20)[:n]}[keys]
    words = alloc(WORD, n + 1, 64)
    words[:n], words[n] = wanted, -7
    arguments = memory.address, 0, memory.shape, address_of(words)
    assert map_set_all(*arguments, n) == n
    assert map_get_all(*arguments, n) == n
    assert map_set_all(*arguments, n + 1) == n  # one more is refused
    assert memory.stats()["full"] == 1
    assert map_get_all(*arguments, n) == n


@pytest.mark.parametrize(("types", "shifts"), [
    (("u64", "u64"), (58, 58)), (("u64", "u64"), (0, 32)), (("u64", "u64"), (32, 58)),
    (("ipv6", "ipv6"), (0, 58, 16, 40)), (("flow",), (0, 32, 48, 0, 16))])
def test_keys_with_a_pattern_are_as_good_as_others(types: tuple[str, ...],
                                                   shifts: tuple[int, ...]) -> None:
    """Keys whose words differ in a few bits, all combinations: a sender may choose them, and no
    hash that is a plain sum or product would tell them apart."""
    bits = {2: 6, 4: 3, 5: 2}[len(shifts)]
    n = (1 << bits) ** len(shifts)
    wanted = np.arange(n)
    words = alloc(WORD, n * len(shifts), 64).reshape(n, len(shifts))
    for k, shift in enumerate(shifts):
        words[:, k] = (wanted >> bits * k & (1 << bits) - 1) << shift
    memory = memory_of(Map(types, "u32", n))
    arguments = memory.address, 0, memory.shape, address_of(words)
    assert map_set_all(*arguments, n) == n
    assert map_get_all(*arguments, n) == n
    passed = tags_and_counts(memory)[:, -1]
    assert passed.max() < 30  # runs of full buckets are short


@pytest.mark.compiled_only
def test_control_and_a_worker_at_once() -> None:
    """What control puts, removes and reads meanwhile disturbs nothing of what a worker counts."""
    memory = memory_of(Map("u64", "u64", 3000))
    keys = alloc(WORD, 64, 64)
    keys[:] = np.arange(64) * 977
    rounds = 5000
    counting = threading.Thread(target=map_add_held, args=(
        address_of(LOCK), memory.address, 0, memory.shape, address_of(keys), 64, rounds))
    map_add_held(address_of(LOCK), memory.address, 0, memory.shape, address_of(keys), 64, 1)
    counting.start()
    turns = 0
    while counting.is_alive() or not turns:
        others = range(100_000 + 100 * (turns % 9), 100_100 + 100 * (turns % 9))
        for key in others:
            assert memory.put(key, key)
        seen = {row["key"]: row["value"] for row in memory.dump(5000)}
        assert all(seen[key] == key for key in others)
        assert all(1 <= seen[key] <= rounds + 1 for key in keys.tolist())
        for key in others:
            assert memory.remove(key)
        turns += 1
    counting.join()
    assert dict(memory.entries()) == dict.fromkeys(keys.tolist(), rounds + 1)


def test_entries_that_aged_out_make_room() -> None:
    """The same table takes full loads of new keys again and again, without anybody's sweep."""
    n = 200 if INTERPRETED else 20000
    memory = memory_of(Map("u64", "u32", n, age=1.0))
    words = alloc(WORD, n, 64)
    for turn in range(1, 6):
        words[:] = np.arange(n) + turn * n
        now = 2 * SECOND * turn
        assert map_set_all(memory.address, now, memory.shape, address_of(words), n) == n
        assert map_get_all(memory.address, now, memory.shape, address_of(words), n) == n
        assert map_get_all(memory.address, now + 2 * SECOND, memory.shape, address_of(words),
                           n) == 0
    assert memory.stats()["full"] == 0


def test_a_large_map_whose_entries_age_keeps_some_more() -> None:
    """Until capacity is to be exact: then as many, once the oldest have aged out."""
    n = 2000
    memory = memory_of(Map("u64", "u32", n, idle=1.0))
    words = alloc(WORD, 2 * n, 64)
    words[:] = np.arange(2 * n)
    state, keys = memory.address, address_of(words)
    assert map_set_all(state, SECOND, memory.shape, keys, n + 50) == n + 50
    memory.strict()
    assert map_set_all(state, SECOND, memory.shape, keys + 8 * (n + 50), 50) == 0
    now = SECOND + SECOND // 2
    assert map_set_all(state, now, memory.shape, keys, 100) == 100  # these are used again
    now = 2 * SECOND + SECOND // 100  # and the others are old
    assert map_set_all(state, now, memory.shape, keys + 8 * n, n) == n - 100
    assert memory.stats() == {"entries": n, "capacity": n, "full": 150,
                              "bytes": memory.buckets.nbytes}


@pytest.mark.parametrize("ages", [{}, {"age": 1.0}])
def test_keys_that_all_collide(ages: dict[str, float]) -> None:
    """The worst hash that there is: as many find room as a search looks at, and all are found."""
    memory = memory_of(Map("u64", "u32", 1000, **ages))
    memory.record["seeds"] = 0
    room = 3 * (WINDOW + 1)
    words = alloc(WORD, room + 10, 64)
    words[:] = np.arange(len(words))
    arguments = memory.address, SECOND, memory.shape, address_of(words)
    assert map_set_all(*arguments, len(words)) == room
    assert memory.stats()["full"] == 10
    assert map_get_all(*arguments, len(words)) == room
    for k in range(room):
        memory.record["key"][0, 0] = k
        assert map_do(memory.address, SECOND, memory.shape, DELETE, 0) == 1
    assert map_get_all(*arguments, len(words)) == 0
    assert map_set_all(*arguments, len(words)) == room


def test_an_age_that_is_a_parameter_can_change() -> None:
    parameter = alloc(WORD, 1, 64)
    parameter[0] = SECOND
    run = Run(now=5 * SECOND)
    memory = make(Map("u8", "u8", 4, idle="timeout").spec(), address_of(LOCK),
                  {"timeout": address_of(parameter)}.__getitem__, lambda: run.now)
    assert memory.put(1, 2)
    run.now += 2 * SECOND
    assert memory.dump() == []
    parameter[0] = 3 * SECOND
    assert memory.dump() == [{"key": 1, "value": 2}]
    assert memory.expire() == 0
    run.now += SECOND + SECOND // 100
    assert memory.expire() == 1


def test_a_tick_that_wraps() -> None:
    """Stamps have 32 bits: an entry made shortly before they wrap is young shortly after."""
    memory = memory_of(Map("u8", "u8", 4, age=1.0))
    words = alloc(WORD, 1, 64)
    wraps = 1 << 52
    arguments = memory.shape, address_of(words), 1
    assert map_set_all(memory.address, wraps - SECOND // 2, *arguments) == 1
    assert map_get_all(memory.address, wraps + SECOND // 4, *arguments) == 1
    assert map_get_all(memory.address, wraps + SECOND, *arguments) == 0


@pytest.mark.parametrize("ages", [{"age": 1.0}, {"idle": 1.0}])
def test_a_batch_that_waited_for_a_later_one(ages: dict[str, float]) -> None:
    """Its worker looked at the clock before it had to wait: what the other made is young."""
    both = Both(Map("u8", "u32", 4, **ages))
    both.run.now = 7 * SECOND >> TICK_BITS << TICK_BITS
    for passed in (0, -1, 1, -1, -(1 << TICK_BITS), SECOND // 2, -1):
        both.run.now += passed
        for what in (ADD, GET, HAS):
            both.step(what, 5, 1)
    both.end()


def test_from_outside() -> None:
    """As users see a map: text, JSON, all at once."""
    plain = Map(("ipv4", "u16"), {"packets": "u64", "via": "ipv6"}, 3)
    memory = memory_of(plain)
    rows = {"10.0.0.1,80": {"packets": 5, "via": "2001:db8::1"},
            "10.0.0.2,65535": {"packets": 18446744073709551615, "via": "::"}}
    shown = [{"key": key, "value": value} for key, value in rows.items()]
    assert memory.fill(rows)
    assert sorted(memory.dump(), key=str) == sorted(shown, key=str)
    many: dict[str, dict[str, int]] = {f"1.2.3.{k},1": {} for k in range(4)}
    assert not memory.fill(many)  # one has no room
    assert sorted(memory.dump(), key=str) == sorted(shown, key=str)
    assert memory.fill(dict(list(many.items())[:3]))
    assert memory.stats()["entries"] == 3
    assert len(memory.dump(limit=2)) == 2
    assert memory.remove("1.2.3.1,1") != memory.remove("1.2.3.1,1")
    memory.clear()
    assert memory.dump() == []
    assert memory.stats()["entries"] == 0
    assert memory.put([10 << 24, 9], {})
    assert memory.dump() == [{"key": "10.0.0.0,9", "value": {"packets": 0, "via": "::"}}]
    with pytest.raises(ValueError, match="a key of 1 part; write 2: ipv4,u16"):
        memory.put("10.0.0.1", {})
    with pytest.raises(ValueError, match=r'no bytes; write \{"packets": u64, "via": ipv6\}'):
        memory.put("10.0.0.1,1", {"bytes": 3})
    with pytest.raises(ValueError, match='"70000" is no u16; write a number from 0 to 65535'):
        memory.remove("10.0.0.1,70000")
    assert memory.record["count"][0] == 1
