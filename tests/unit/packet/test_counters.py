# SPDX-License-Identifier: Apache-2.0
"""Counters and drop reasons: each reason has room, a sentence and a remedy."""

from byway.machine.layout import address_of, alloc
from byway.packet.counters import COUNTERS, C, count_drops, count_frames, drops_by_name
from byway.packet.reason import REASONS, Reason


def test_counting() -> None:
    counters = alloc(COUNTERS, 2)
    at = address_of(counters)
    count_frames(at, 3, 1000)
    count_frames(at, 1, 60)
    count_drops(at, int(Reason.RUNT), 2)
    count_drops(at, int(Reason.RUNT), 5)
    count_drops(at + COUNTERS.itemsize, int(Reason.BAD_CHAIN), 1)
    assert (counters["frames"].tolist(), counters["bytes"].tolist()) == ([4, 0], [1060, 0])
    assert drops_by_name(counters[0]) == {"runt": 7}
    assert drops_by_name(counters[0], counters[1]) == {"runt": 7, "bad_chain": 1}


def test_there_is_room_for_every_reason() -> None:
    assert max(Reason) < REASONS
    assert C.drops + 8 * REASONS <= COUNTERS.itemsize
    assert len({int(reason) for reason in Reason}) == len(Reason)


def test_every_reason_says_what_and_what_to_do() -> None:
    for reason in Reason:
        assert reason.sentence.endswith(".")
        assert reason.fix.endswith(".")
        assert Reason(int(reason)) is reason
