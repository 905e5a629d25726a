# SPDX-License-Identifier: Apache-2.0
"""vhost/ring.py and backend_rings.py: packed rings, and the positions of both formats."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from byway.testing.conversation import (
    FEATURES,
    MEMORY_SIZE,
    PACKED_FEATURES,
    USER,
    Step,
    packed,
    ring_address,
)
from byway.testing.dialogue import Dialogue, End
from byway.vhost.messages import Request
from byway.vhost.payloads import VringState
from byway.virtio.ring import PACKED_START, WRAP
from tests.unit.vhost.conversing import TABLE, TAKE_ALL, R, ring_steps, start, state, u64


def base_of(talk: Dialogue, index: int) -> int:
    return VringState.unpack(talk.get(R.GET_VRING_BASE, VringState(index, 0).pack())).num


def test_packed(talk: Dialogue) -> None:
    steps = packed()
    talk.play(steps[:-4])
    assert talk.end is None, talk.reason
    rings = talk.back_end.rings[:2]
    assert [(r.ready, r.packed, r.size) for r in rings] == [(True, True, 250)] * 2
    assert [r.base for r in rings] == [PACKED_START, 7], "the used position, where it was given"
    for ring in rings:
        where = ring_address(ring.index)
        assert (ring.avail - ring.desc, ring.used - ring.desc) == (
            where.avail - where.desc, where.used - where.desc)
    talk.target.positions.update({0: 249 | WRAP, 1: 3})
    *_, one, two = talk.play(steps[-4:])
    assert VringState.unpack(one.payload) == VringState(0, 0x80F980F9)
    assert VringState.unpack(two.payload) == VringState(1, 0x00030003)


@pytest.mark.parametrize("size", [1, 3, 250, 255, 256, 32767, 32768])
def test_any_size(talk: Dialogue, size: int) -> None:
    talk.play([TAKE_ALL, u64(R.SET_FEATURES, PACKED_FEATURES), TABLE])
    talk.play(ring_steps(0, size, 0x8000))
    if 16 * size <= MEMORY_SIZE:
        assert talk.target.served == [0]
    else:
        assert f"the descriptor ring ({16 * size} bytes" in talk.reason


@pytest.mark.parametrize("size", [0, 32769, 1 << 31])
def test_sizes_that_no_ring_has(talk: Dialogue, size: int) -> None:
    start(talk, 0, features=PACKED_FEATURES, base=0x8000)
    talk.say(state(R.SET_VRING_NUM, 0, size))
    assert f"ring 0 of {size} entries, which is not from 1 to 32768" in talk.reason


def test_a_size_may_come_before_the_features(talk: Dialogue) -> None:
    talk.play([*ring_steps(0, 250, 0x8000), TABLE])
    assert talk.end is None
    talk.say(u64(R.SET_FEATURES, PACKED_FEATURES))
    assert talk.target.served == [0]


def test_such_a_size_fits_no_split_ring(talk: Dialogue) -> None:
    talk.play([*ring_steps(0, 250), TABLE])
    assert talk.end is None
    talk.say(u64(R.SET_FEATURES, FEATURES))
    assert talk.reason == "SET_FEATURES: ring 0 of 250 entries, no power of two; it is a split ring"


@pytest.mark.parametrize(("word", "goes_on"), [
    (0x8000, 0x8000), (0x0007, 0x0007), (0x80008000, 0x8000), (0x00050009, 5),
    (0x80050009, 0x8005), (0x80FF00FF, 0x80FF), (0, 0)])
def test_base_of_a_packed_ring(talk: Dialogue, word: int, goes_on: int) -> None:
    start(talk, 0, features=PACKED_FEATURES, base=word)
    assert talk.target.positions[0] == goes_on
    assert base_of(talk, 0) == goes_on | goes_on << 16


@pytest.mark.parametrize("word", [0x100, 0x8100, 0x7FFF, 0x01008000, 0xFFFF8000, 0x0001FFFF])
def test_slots_beyond_the_ring(talk: Dialogue, word: int) -> None:
    talk.play([TAKE_ALL, u64(R.SET_FEATURES, PACKED_FEATURES), TABLE])
    talk.play(ring_steps(0, 256, word))
    assert talk.end is End.ERROR
    assert re.search("ring 0 of 256 entries starts at slot", talk.reason)


def test_a_ring_made_smaller_than_its_position(talk: Dialogue) -> None:
    start(talk, 0, features=PACKED_FEATURES, base=0x8000 | 200)
    talk.say(state(R.SET_VRING_NUM, 0, 100))
    assert "ring 0 of 100 entries starts at slot 200" in talk.reason


@pytest.mark.parametrize(("features", "begins"), [(FEATURES, 0), (PACKED_FEATURES, PACKED_START)])
def test_a_ring_whose_base_nobody_gave(talk: Dialogue, features: int, begins: int) -> None:
    talk.play([TAKE_ALL, u64(R.SET_FEATURES, features), TABLE])
    steps = ring_steps(0)
    del steps[1]
    talk.play(steps)
    assert talk.target.positions == {0: begins}


def test_a_driver_of_the_other_format(talk: Dialogue) -> None:
    """A position in a ring of one format says nothing in one of the other."""
    start(talk, 0, base=300)
    talk.say(state(R.GET_VRING_BASE, 0, 0))
    talk.say(u64(R.SET_FEATURES, PACKED_FEATURES))
    assert base_of(talk, 0) == 0x80008000
    talk.say(u64(R.SET_FEATURES, FEATURES))
    assert base_of(talk, 0) == 0


def test_a_split_index_is_no_word_of_32_bits(new_talk: Callable[[], Dialogue]) -> None:
    talk = new_talk()
    talk.play([u64(R.SET_FEATURES, FEATURES), state(R.SET_VRING_BASE, 0, 0x10000)])
    assert "no 16-bit index" in talk.reason
    talk = new_talk()
    talk.play([*ring_steps(0, base=0x10000), TABLE])
    assert talk.end is None
    talk.say(u64(R.SET_FEATURES, FEATURES))
    assert "SET_FEATURES: ring 0 starts at 0x10000, no 16-bit index" in talk.reason


@pytest.mark.parametrize(("part", "at", "says"), [
    ("desc", USER + 8, "the descriptor ring at user address .* aligned to 16"),
    ("avail", USER + 2, "the driver event suppression at .* aligned to 4"),
    ("used", USER + 1, "the device event suppression at .* aligned to 4"),
    ("avail", USER + MEMORY_SIZE - 2, "the driver event suppression [(]4 bytes"),
    ("used", USER - 1, "the device event suppression [(]4 bytes"),
    ("desc", USER + MEMORY_SIZE - 4080, "the descriptor ring [(]4096 bytes")])
def test_parts_of_a_packed_ring(talk: Dialogue, part: str, at: int, says: str) -> None:
    start(talk, 0, features=PACKED_FEATURES, base=0x8000)
    address = replace(ring_address(0), **{part: at})
    talk.say(Step(Request.SET_VRING_ADDR, payload=address.pack()))
    assert talk.end is End.ERROR
    assert re.search(says, talk.reason), talk.reason
