# SPDX-License-Identifier: Apache-2.0
"""Translations behind an IOMMU: what is taken and refused, questions, time, rings."""

import itertools
import os
from collections.abc import Iterator

import pytest

from byway.packet.reason import Reason
from byway.vhost.front_channel import INVALIDATE, MISS, UPDATE
from byway.vhost.iotlb import (
    FORGET_SECONDS,
    QUESTIONS,
    REFUSED_SECONDS,
    RETRY_SECONDS,
    RING_QUESTIONS,
    TRIES,
    touches,
)
from byway.vhost.messages import ProtocolError, Refused
from byway.vhost.payloads import Iotlb as Translation
from byway.virtio.iotlb import ENTRIES, IOVA_LIMIT, MAX_RANGES, PAGE, SLOTS, entry_of
from tests.unit.vhost.fake_iommu import HOST, MEMORY, USER, World

R, W, RW = 1, 2, 3
NO_TRANSLATION, BAD_ADDRESS = int(Reason.NO_TRANSLATION), int(Reason.BAD_ADDRESS)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.iotlb.close()
    made.iotlb.close()
    assert made.clock.timers == []


# ---------------------------------------------------------------- updates


@pytest.mark.parametrize(
    ("iova", "size", "user", "permission", "kind", "message"),
    [
        (0, 0, USER, RW, UPDATE, "empty"),
        (0, (1 << 64) - 1, USER, RW, UPDATE, "beyond"),
        (0, MEMORY + PAGE, USER, RW, UPDATE, "not shared"),
        (0, PAGE, USER - PAGE, RW, UPDATE, "not shared"),
        (0, PAGE, USER + MEMORY, RW, UPDATE, "not shared"),
        (0, PAGE, (1 << 64) - PAGE, RW, UPDATE, "not shared"),
        (0, 100, USER, RW, UPDATE, "no whole pages"),
        (1, PAGE, USER, RW, UPDATE, "no whole pages"),
        (0, PAGE, USER + 1, RW, UPDATE, "no whole pages"),
        (IOVA_LIMIT - PAGE, 2 * PAGE, USER, RW, UPDATE, "beyond"),
        (1 << 63, PAGE, USER, RW, UPDATE, "beyond"),
        (0, PAGE, USER, 0, UPDATE, "permission 0"),
        (0, PAGE, USER, 4, UPDATE, "permission 4"),
        (0, PAGE, USER, RW, MISS, "type 1"),
        (0, PAGE, USER, RW, 0, "type 0"),
        (0, PAGE, USER, RW, 255, "type 255"),
    ],
)
def test_what_is_refused(world: World, iova: int, size: int, user: int, permission: int,
                         kind: int, message: str) -> None:
    world.update(0x5000)
    with pytest.raises(Refused, match=message):
        world.iotlb.take(Translation(iova, size, user, permission, kind))
    assert len(world.iotlb) == 1
    assert world.host(0x5000) == HOST


@pytest.mark.parametrize("pages", [1, 16, 17, 200])
def test_an_update_replaces(world: World, pages: int) -> None:
    world.update(0, pages * PAGE)
    for page in range(pages):
        world.miss(page * PAGE)
    world.iotlb.serve()
    world.update(0, pages * PAGE, offset=pages * PAGE)
    for page in (0, pages - 1):
        assert world.host(page * PAGE) in (0, HOST + (pages + page) * PAGE)
        world.miss(page * PAGE)
    world.iotlb.serve()
    assert world.host((pages - 1) * PAGE) == HOST + (2 * pages - 1) * PAGE


@pytest.mark.parametrize(
    ("iova", "size", "left"),
    [(0x5000, PAGE, [True, False, True]), (0x5800, 1, [True, False, True]),
     (0x4FFF, 2, [False, False, True]), (0, (1 << 64) - 1, [False] * 3), (0, 0, [False] * 3),
     (0x5FFF, 2, [True, False, False]), (0x7000, 1 << 40, [True] * 3), (1 << 60, 5, [True] * 3),
     ((1 << 64) - 1, (1 << 64) - 1, [True] * 3)])
def test_invalidation(world: World, iova: int, size: int, left: list[bool]) -> None:
    world.update(0x4000, 3 * PAGE)
    world.invalidate(iova, size)
    assert [world.host(p) != 0 for p in (0x4000, 0x5000, 0x6000)] == left
    for page in (0x4000, 0x5000, 0x6000):
        world.miss(page)
    world.iotlb.serve()
    assert [world.host(p) != 0 for p in (0x4000, 0x5000, 0x6000)] == left
    assert world.settled == 1


def test_invalidation_reaches_what_was_forgotten(world: World) -> None:
    """A range that went for newer ones may still have pages in the cache."""
    place = entry_of(5, 0, 0)[0]
    world.update(5 * PAGE)
    others = range(ENTRIES, 8 * ENTRIES, 2)  # no neighbours
    elsewhere = (page for page in others if entry_of(page, 0, 0)[0] != place)
    for page in itertools.islice(elsewhere, MAX_RANGES):
        world.update(page * PAGE)
    assert len(world.iotlb) == MAX_RANGES
    assert world.iotlb.locate(5 * PAGE, 1) is None
    assert world.host(5 * PAGE) == HOST
    world.invalidate(5 * PAGE)
    assert world.host(5 * PAGE) == 0


# ---------------------------------------------------------------- questions


def test_a_miss_is_asked_once_and_answered(world: World) -> None:
    for _ in range(3):
        assert world.miss(0x5004, write=1) == NO_TRANSLATION
        world.iotlb.serve()
    assert world.asked == [(0x5000, W)]
    world.update(0x4000, 100 * PAGE)
    assert world.host(0x5004, write=1) == HOST + PAGE + 4
    assert not world.iotlb._slots.any()
    world.clock.advance(100)
    assert world.asked == [(0x5000, W)]


def test_the_wrong_permission_is_no_answer(world: World) -> None:
    world.update(0x5000, permission=R)
    assert world.miss(0x5000, write=1) == NO_TRANSLATION
    world.iotlb.serve()
    assert world.asked == [(0x5000, W)]
    world.update(0x5000, permission=R)
    assert world.miss(0x5000, write=1) == NO_TRANSLATION
    world.update(0x5000, permission=RW)
    assert world.host(0x5000, write=1) == HOST


def test_questions_are_repeated_and_end(world: World) -> None:
    """An address that nobody maps does not hold a virtqueue for ever."""
    world.miss(0x5000)
    world.iotlb.serve()
    for tries in range(1, TRIES + 1):
        assert len(world.asked) == tries
        assert world.miss(0x5000) == NO_TRANSLATION
        world.clock.advance(RETRY_SECONDS)
    assert world.miss(0x5000) == BAD_ADDRESS
    assert len(world.asked) == TRIES
    world.clock.advance(REFUSED_SECONDS + RETRY_SECONDS)
    assert world.miss(0x5000) == NO_TRANSLATION  # perhaps it is mapped now
    world.iotlb.serve()
    assert len(world.asked) == TRIES + 1


@pytest.mark.parametrize("mapped", [False, True])
def test_the_front_end_says_no(world: World, mapped: bool) -> None:
    for tries in range(1, TRIES + 1):
        assert world.miss(0x5000) == NO_TRANSLATION  # it may be mapped by now
        world.iotlb.serve()
        assert world.asked == [(0x5000, R)] * tries
        world.iotlb.refused(0x5000, R)
        world.iotlb.refused(0x9000, R)  # nobody waits for that
    assert world.miss(0x5000) == BAD_ADDRESS
    assert world.miss(0x5000, write=1) == NO_TRANSLATION  # another question
    if mapped:
        world.update(0x5000)
        assert world.host(0x5000) == HOST
        assert world.miss(0x5000) == NO_TRANSLATION
    world.clock.advance(REFUSED_SECONDS + RETRY_SECONDS)
    assert world.miss(0x5000) == NO_TRANSLATION


def test_an_answer_to_nobody_any_more_is_forgotten(world: World) -> None:
    """The guest had taken the page away when it was asked for, and mapped it again later."""
    for _ in range(3 * TRIES):
        world.miss(0x5000)
        world.iotlb.serve()
        world.iotlb.refused(0x5000, R)
        assert not world.iotlb._slots.any()
        world.clock.advance(FORGET_SECONDS + RETRY_SECONDS)
    assert world.clock.timers == []


def test_a_ring_is_asked_for_again_whatever_the_answer(world: World) -> None:
    assert world.iotlb.locate(0x5000, 16) is None
    world.iotlb.refused(0x5000, RW)
    world.clock.advance(RETRY_SECONDS)
    assert world.asked == [(0x5000, RW)] * 2


def test_a_question_that_could_not_be_asked_is_asked_later(world: World) -> None:
    world.answers = False
    world.miss(0x5000)
    world.iotlb.serve()
    world.answers = True
    world.clock.advance(RETRY_SECONDS)
    assert world.asked == [(0x5000, R)] * 2


def test_more_misses_than_slots(world: World) -> None:
    for page in range(3 * SLOTS):
        assert world.miss(page * PAGE) == NO_TRANSLATION
    world.iotlb.serve()
    assert len(world.asked) == SLOTS
    world.update(0, 3 * SLOTS * PAGE)
    for page in range(3 * SLOTS):
        world.miss(page * PAGE)
        world.iotlb.serve()
        assert world.host(page * PAGE) == HOST + page * PAGE


def test_the_alarm_rings_once_a_page(world: World) -> None:
    alarm = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        world.iotlb.hear(alarm, world.clock.later)
        for _ in range(5):
            world.miss(0x5000)
            world.miss(0x6000)
        assert os.eventfd_read(alarm) == 2
    finally:
        os.close(alarm)


# ---------------------------------------------------------------- rings


def test_a_ring_is_located_or_asked_for(world: World) -> None:
    assert world.iotlb.locate(0x5008, 0x1FF0) is None
    assert world.asked == [(0x5000, RW), (0x6000, RW)]
    world.update(0x5000)
    assert world.iotlb.locate(0x5008, 0x1FF0) is None
    assert world.iotlb.locate(0x5008, 16) == HOST + 8
    world.update(0x6000, offset=PAGE)
    assert world.iotlb.locate(0x5008, 0x1FF0) == HOST + 8
    assert len(world.asked) == 2
    world.clock.advance(100)
    assert len(world.asked) == 2


def test_a_ring_that_cannot_be_served(world: World) -> None:
    world.update(0x5000)
    world.update(0x6000, offset=5 * PAGE)
    with pytest.raises(ProtocolError, match="several pieces"):
        world.iotlb.locate(0x5008, 0x1FF0)
    for iova in (IOVA_LIMIT, (1 << 64) - 16):
        with pytest.raises(ProtocolError, match="beyond"):
            world.iotlb.locate(iova, 16)


def test_a_ring_may_need_a_permission(world: World) -> None:
    world.update(0x5000, permission=R)
    assert world.iotlb.locate(0x5000, 16) is None
    assert world.iotlb.locate(0x5000, 16, R) == HOST


def test_rings_ask_for_a_bounded_number_of_pages(world: World) -> None:
    for ring in range(30):
        assert world.iotlb.locate(ring << 40, 16 * 32768) is None
        assert len(world.asked) == min(RING_QUESTIONS * (ring + 1), QUESTIONS)
    for _ in range(TRIES):
        world.clock.advance(RETRY_SECONDS)
    assert len(world.asked) == TRIES * QUESTIONS
    world.clock.advance(1000)
    assert len(world.asked) == TRIES * QUESTIONS


@pytest.mark.parametrize(
    ("message", "answer"),
    [((0x5000, PAGE), True), ((0x4000, PAGE), False), ((0x6000, PAGE), False),
     ((0x5FFF, 1), True), ((0, 0), True), ((0x4FFF, 1), False), ((0x4FFF, 2), True)])
def test_touches(message: tuple[int, int], answer: bool) -> None:
    assert touches(Translation(*message, 0, 0, INVALIDATE), 0x5000, 16) == answer


# ---------------------------------------------------------------- the end


def test_nothing_is_left(world: World) -> None:
    world.update(0x5000)
    for iova in (0x6000, 0x7000):
        world.miss(iova)
    world.iotlb.serve()
    for _ in range(TRIES):
        world.miss(0x7000)
        world.iotlb.serve()
        world.iotlb.refused(0x7000, R)
    assert world.miss(0x7000) == BAD_ADDRESS
    world.asked.clear()
    world.iotlb.clear()
    assert world.host(0x5000) == 0
    assert world.iotlb.locate(0x5000, 8) is None
    assert world.miss(0x7000) == NO_TRANSLATION
    assert world.asked == [(0x5000, RW)]


def test_after_its_end_nobody_is_asked(world: World) -> None:
    world.miss(0x6000)
    world.iotlb.serve()
    world.iotlb.close()
    assert world.clock.timers == []
    world.miss(0x7000)
    world.iotlb.serve()
    world.clock.advance(100)
    assert world.asked == [(0x6000, R)]
