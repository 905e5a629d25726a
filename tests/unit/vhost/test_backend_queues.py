# SPDX-License-Identifier: Apache-2.0
"""Several queue pairs, rings that are enabled all the time, and what a reconnect finds."""

from collections.abc import Callable

import pytest

from byway.testing.conversation import (
    SEEDS,
    USER,
    Step,
    multiqueue,
    region,
)
from byway.testing.dialogue import Dialogue
from byway.vhost.messages import SPECS, Reply, Request
from byway.vhost.payloads import VringAddress, VringState, unpack_u64
from tests.unit.vhost.conversing import TAKE_ALL, R, ring_file, start, state

GETTERS = (R.GET_FEATURES, R.GET_PROTOCOL_FEATURES, R.GET_QUEUE_NUM, R.GET_MAX_MEM_SLOTS)


def small_ring(index: int) -> list[Step]:
    """A ring of 16 entries, all rings in the same place."""
    address = VringAddress(index, 0, USER, USER + 0x800, USER + 0x400)
    return [state(R.SET_VRING_NUM, index, 16), state(R.SET_VRING_BASE, index, 0),
            Step(R.SET_VRING_ADDR, payload=address.pack()),
            ring_file(R.SET_VRING_CALL, index, given=False),
            ring_file(R.SET_VRING_KICK, index, given=False)]


def test_multiqueue(talk: Dialogue) -> None:
    steps = multiqueue()
    talk.play(steps[:-8])
    assert talk.end is None, talk.reason
    assert talk.target.served == list(range(8))
    assert all(ring.enabled for ring in talk.back_end.rings)
    replies = talk.play(steps[-8:])
    assert [VringState.unpack(m.payload) for m in replies] == [VringState(i, i) for i in range(8)]


def test_as_many_pairs_as_there_can_be(new_talk: Callable[..., Dialogue]) -> None:
    talk = new_talk(queue_pairs=32)
    start(talk)
    for index in range(64):
        talk.play(small_ring(index))
    assert talk.end is None, talk.reason
    assert talk.target.served == list(range(64))
    talk.say(state(R.SET_VRING_NUM, 64, 16))
    assert "ring 64 of a device that has 64" in talk.reason


def test_an_enable_storm(new_talk: Callable[..., Dialogue]) -> None:
    """Rings that nobody serves yet may be enabled as often as one likes, at nobody's cost."""
    talk = new_talk(queue_pairs=32)
    start(talk)
    before = talk.target.detaches
    for k in range(2000):
        talk.say(state(R.SET_VRING_ENABLE, k % 64, k // 64 % 2))
    assert (talk.end, talk.target.detaches) == (None, before)
    assert [r.enabled for r in talk.back_end.rings] == [k < 16 for k in range(64)]
    talk.play(small_ring(0))
    before = talk.target.detaches
    for k in range(100):
        talk.say(state(R.SET_VRING_ENABLE, 0, k % 2))
        talk.say(state(R.SET_VRING_ENABLE, 0, k % 2))
    assert talk.target.detaches - before <= 100
    assert (talk.target.served, talk.back_end.rings[0].enabled) == ([0], True)


def test_disabled_rings_stay_so_when_another_pair_sets_features(talk: Dialogue) -> None:
    """QEMU sends SET_FEATURES for every pair, rings of others running."""
    talk.play(multiqueue()[:-8])
    talk.say(state(R.SET_VRING_ENABLE, 4, 0))
    features = next(s for s in multiqueue() if s.request == Request.SET_FEATURES)
    before = talk.target.detaches
    talk.say(features)
    assert talk.target.detaches == before
    assert [r.index for r in talk.back_end.rings if not r.enabled] == [4]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reconnect_finds_what_was_offered(new_talk: Callable[..., Dialogue],
                                            seed: Callable[[], list[Step]]) -> None:
    """QEMU refuses a back end that has lost a feature which the guest uses."""
    fresh = new_talk()
    fresh.say(TAKE_ALL)
    offered = [unpack_u64(fresh.get(request)) for request in GETTERS]
    talk = new_talk()
    talk.play(seed())
    talk.say(TAKE_ALL)
    assert [unpack_u64(talk.get(request)) for request in GETTERS] == offered
    talk.hang_up()
    again = new_talk()
    again.say(TAKE_ALL)
    assert [unpack_u64(again.get(request)) for request in GETTERS] == offered


def test_every_reply_with_data_comes_alone(talk: Dialogue) -> None:
    """One reply to each request that has one, whatever was set up before."""
    start(talk, 0)
    payloads = {R.GET_VRING_BASE: bytes(8), R.GET_CONFIG: bytes(12), R.GET_INFLIGHT_FD: (
        bytes(16) + b"\2\0\0\1" + bytes(4))}
    for spec in SPECS.values():
        if spec.served and spec.reply is Reply.DATA and spec.number != R.SET_LOG_BASE:
            replies = talk.say(Step(spec.number, payload=payloads.get(spec.number, b"")))
            assert [m.request for m in replies] == [spec.number], talk.reason
    assert region() in talk.back_end.memory.regions
