# SPDX-License-Identifier: Apache-2.0
"""vhost/backend_iommu.py: rings and memory behind a guest's IOMMU, and the back end's questions."""

from collections.abc import Callable

import pytest

from byway.testing.conversation import (
    FEATURES,
    MEMORY_SIZE,
    RING_SPACE,
    USER,
    FileKind,
    Step,
    iommu,
    region,
    ring_address,
)
from byway.testing.dialogue import OFFERED, PROTOCOL_OFFERED, Dialogue, End, Files, IdleTarget
from byway.vhost.backend import BackEnd
from byway.vhost.front_channel import INVALIDATE, MISS, UPDATE
from byway.vhost.messages import ProtocolFeature
from byway.vhost.payloads import Iotlb, pack_memory_table, unpack_u64
from byway.virtio.features import Feature, has, mask
from tests.unit.vhost.conversing import TABLE, TAKE_ALL, R, asked, ring_steps, state, u64

TRANSLATED = FEATURES | mask(Feature.ACCESS_PLATFORM)
CHANNEL = Step(R.SET_BACKEND_REQ_FD, files=(FileKind.CHANNEL,))
ALL = Iotlb(USER, MEMORY_SIZE, USER, 3, UPDATE)


def tell(translation: Iotlb) -> Step:
    return asked(Step(R.IOTLB_MSG, payload=translation.pack()))


def result(talk: Dialogue, translation: Iotlb) -> int:
    (reply,) = talk.say(tell(translation))
    return unpack_u64(reply.payload)


def begin(talk: Dialogue, *steps: Step) -> None:
    talk.asked()  # of an earlier conversation
    talk.play([TAKE_ALL, u64(R.SET_FEATURES, TRANSLATED), TABLE, *steps])
    assert talk.end is None, talk.reason


def test_iommu(talk: Dialogue) -> None:
    steps = iommu()
    talk.play(steps[:-3])
    assert talk.end is None, talk.reason
    assert talk.target.served == [0, 1]
    talk.play(steps[-3:])
    assert talk.end is None, talk.reason
    assert len(talk.back_end.iotlb) == 0


def test_nothing_of_it_without_a_loop() -> None:
    back_end = BackEnd(IdleTarget(), features=OFFERED, protocol_features=PROTOCOL_OFFERED)
    assert not has(back_end.offered, Feature.ACCESS_PLATFORM)
    assert not back_end.protocol_offered >> ProtocolFeature.BACKEND_REQ & 1
    back_end.close()


def test_a_ring_waits_for_its_translation(talk: Dialogue) -> None:
    begin(talk, CHANNEL, *ring_steps(0))
    ring = talk.back_end.rings[0]
    assert (talk.target.served, ring.ready, ring.waiting) == ([], False, True)
    questions = talk.asked()
    assert {(q.kind, q.permission) for q in questions} == {(MISS, 3)}
    assert {q.iova for q in questions} == {USER, USER + 0x2000, USER + 0x3000}
    assert result(talk, ALL) == 0
    assert (talk.target.served, ring.waiting) == ([0], False)
    assert ring.desc == talk.back_end.memory.user_to_host(ring_address(0).desc, 1)
    assert talk.back_end.memtab == talk.back_end.iotlb.table != talk.back_end.memory.table


def test_addresses_of_the_iommu_are_not_those_of_the_front_end(talk: Dialogue) -> None:
    begin(talk, CHANNEL, *ring_steps(0))
    swapped = Iotlb(USER, RING_SPACE, USER + RING_SPACE, 3, UPDATE)
    assert result(talk, swapped) == 0
    where = talk.back_end.memory.user_to_host(USER + RING_SPACE, 1)
    assert talk.back_end.rings[0].desc == where


def test_a_channel_that_comes_last(talk: Dialogue) -> None:
    begin(talk, *ring_steps(0))
    talk.loop.advance(10)
    assert talk.asked() == []
    talk.say(CHANNEL)
    assert len(talk.asked()) == 3, "the rings that wait ask now"


def test_questions_are_repeated(talk: Dialogue) -> None:
    begin(talk, CHANNEL, *ring_steps(0))
    assert len(talk.asked()) == 3
    talk.loop.advance(0.6)
    assert len(talk.asked()) == 3
    talk.loop.advance(60)
    assert len(talk.asked()) <= 6, "not for ever"


def test_another_channel(talk: Dialogue) -> None:
    begin(talk, CHANNEL, CHANNEL, *ring_steps(0))
    assert len(talk.loop.readers) == 2, "one channel, and the alarm of workers"
    assert len(talk.asked()) == 3


def test_an_invalidate_stops_the_rings_that_lie_there(talk: Dialogue) -> None:
    begin(talk, CHANNEL, tell(ALL), *ring_steps(0), *ring_steps(1))
    assert talk.target.served == [0, 1]
    talk.target.positions[1] = 77
    before = talk.target.settled
    assert result(talk, Iotlb(USER + RING_SPACE, 4096, 0, 0, INVALIDATE)) == 0
    assert talk.target.settled > before
    assert talk.target.served == [0]
    assert talk.back_end.rings[1].waiting
    assert talk.asked()[-1] == Iotlb(USER + RING_SPACE, 0, 0, 3, MISS)
    assert result(talk, Iotlb(USER + RING_SPACE, 4096, USER + RING_SPACE, 3, UPDATE)) == 0
    assert talk.target.served == [0, 1]
    assert talk.target.positions[1] == 77


def test_others_do_not_disturb_the_rings(talk: Dialogue) -> None:
    begin(talk, CHANNEL, tell(ALL), *ring_steps(0))
    before = talk.target.detaches, talk.target.settled
    for k in range(3):
        assert result(talk, Iotlb(USER + 0x20000 + 4096 * k, 4096, 0, 0, INVALIDATE)) == 0
        assert result(talk, Iotlb(USER + 0x20000 + 4096 * k, 4096, USER, 1, UPDATE)) == 0
    assert talk.target.detaches == before[0]
    assert talk.target.settled >= before[1] + 3


def test_a_ring_that_moves(talk: Dialogue) -> None:
    """An UPDATE may replace what was there."""
    begin(talk, CHANNEL, tell(ALL), *ring_steps(0))
    assert result(talk, Iotlb(USER, RING_SPACE, USER + RING_SPACE, 3, UPDATE)) == 0
    assert talk.back_end.rings[0].desc == talk.back_end.memory.user_to_host(USER + RING_SPACE, 1)


def test_rings_in_several_pieces(talk: Dialogue) -> None:
    begin(talk, CHANNEL, tell(Iotlb(USER, 4096, USER + 4096, 3, UPDATE)),
          tell(Iotlb(USER + 4096, MEMORY_SIZE - 4096, USER + 4096, 3, UPDATE)))
    steps = ring_steps(0, size=512)
    talk.play(steps)
    assert talk.end is End.ERROR
    assert "ring 0: the descriptor table: 0x2000 bytes at 0x7f0000000000 lie in several pieces" \
        in talk.reason


@pytest.mark.parametrize("translation", [
    Iotlb(USER, 4096, USER, 0, UPDATE), Iotlb(USER, 4096, USER, 4, UPDATE),
    Iotlb(USER, 0, USER, 3, UPDATE), Iotlb(USER, 4097, USER, 3, UPDATE),
    Iotlb(USER, MEMORY_SIZE + 4096, USER, 3, UPDATE), Iotlb(USER, 4096, 0, 3, UPDATE),
    Iotlb((1 << 64) - 4096, 4096, USER, 3, UPDATE), Iotlb(USER, (1 << 64) - 1, USER, 3, UPDATE),
    Iotlb(USER, 4096, USER, 3, MISS), Iotlb(USER, 4096, USER, 3, 4), Iotlb(USER, 1, USER, 3, 9)])
def test_translations_that_are_refused(talk: Dialogue, translation: Iotlb) -> None:
    begin(talk, CHANNEL, tell(ALL), *ring_steps(0))
    assert result(talk, translation) == 1
    assert (talk.end, talk.target.served) == (None, [0])


def test_another_memory_needs_other_translations(talk: Dialogue) -> None:
    begin(talk, CHANNEL, tell(ALL), *ring_steps(0))
    talk.asked()
    talk.say(Step(R.SET_MEM_TABLE, payload=pack_memory_table([region()]),
                  files=(FileKind.OTHER_MEMORY,)))
    assert (talk.target.served, talk.back_end.rings[0].waiting) == ([], True)
    assert len(talk.asked()) == 3
    assert result(talk, ALL) == 0
    assert talk.target.served == [0]


@pytest.mark.parametrize("kind", [FileKind.EVENT, FileKind.PIPE, FileKind.MEMORY])
def test_a_channel_that_is_none(talk: Dialogue, kind: FileKind) -> None:
    begin(talk)
    talk.say(Step(R.SET_BACKEND_REQ_FD, files=(kind,)))
    assert talk.end is End.ERROR
    assert "SET_BACKEND_REQ_FD: the channel for questions is no Unix stream socket" in talk.reason


def test_a_channel_whose_other_end_is_closed(talk: Dialogue) -> None:
    begin(talk, Step(R.SET_BACKEND_REQ_FD, files=(FileKind.CLOSED_SOCKET,)), *ring_steps(0))
    assert (talk.end, talk.back_end.rings[0].waiting) == (None, True)


def test_a_channel_that_nobody_reads(talk: Dialogue) -> None:
    begin(talk, CHANNEL, tell(ALL), *ring_steps(0))
    for _ in range(3000):
        talk.play([tell(Iotlb(USER, 4096, 0, 0, INVALIDATE)), tell(ALL)])
    assert (talk.end, talk.target.served) == (None, [0])


def test_nothing_is_left(new_talk: Callable[[], Dialogue], files: Files) -> None:
    talk = new_talk()
    begin(talk, CHANNEL, *ring_steps(0))
    assert not talk.loop.idle
    talk.hang_up()
    assert talk.loop.idle
    assert talk.end is End.CLOSED


def test_without_the_feature_addresses_are_the_front_ends(talk: Dialogue) -> None:
    begin(talk, CHANNEL, tell(ALL), *ring_steps(0))
    talk.say(state(R.GET_VRING_BASE, 0, 0))
    talk.play([u64(R.SET_FEATURES, FEATURES), *ring_steps(0)])
    assert talk.back_end.memtab == talk.back_end.memory.table
    assert talk.target.served == [0]
