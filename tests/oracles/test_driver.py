# SPDX-License-Identifier: Apache-2.0
"""The driver's kernels against a plain device over the same memory: both formats, in and out of
order, one used entry each or one for many, devices that die and are replaced."""

import os
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.packet.batch import ROWS
from byway.packet.reason import Reason
from byway.testing.entries import guest_kick, guest_sleep, guest_wake
from byway.testing.plain_device import PlainDevice, Taken
from byway.virtio.features import Feature, mask
from tests.driving import BUFFER, Driven, driven

EXAMPLES = 40 if INTERPRETED else 200
MODERN = mask(Feature.VERSION_1)
PACKED = MODERN | mask(Feature.RING_PACKED)
EVENT, IN_ORDER, MERGE = (
    mask(f) for f in (Feature.EVENT_IDX, Feature.IN_ORDER, Feature.MRG_RXBUF))
SPLIT_SIZES, PACKED_SIZES = [1, 2, 8, 64, 256], [1, 2, 3, 5, 8, 63, 64, 100, 256]

rings = st.one_of(
    st.tuples(st.sampled_from(SPLIT_SIZES), st.sampled_from([0, MODERN])),
    st.tuples(st.sampled_from(SPLIT_SIZES), st.sampled_from([MODERN, MODERN | IN_ORDER])),
    st.tuples(st.sampled_from(PACKED_SIZES), st.sampled_from([PACKED, PACKED | IN_ORDER])))
lengths = st.one_of(st.integers(14, BUFFER - 12), st.sampled_from([60, 128, 129, 1514]))
long_lengths = st.one_of(lengths, st.integers(BUFFER - 12, 4 * BUFFER))
rounds = st.lists(st.lists(lengths, min_size=1, max_size=ROWS), min_size=1, max_size=5)
long_rounds = st.lists(st.lists(long_lengths, min_size=1, max_size=ROWS), min_size=1, max_size=5)


def frame(seed: int, n: int) -> bytes:
    return bytes(np.random.default_rng(seed).integers(0, 256, n, np.uint8))


def chunks(rng: random.Random, chains: list[Taken]) -> list[list[Taken]]:
    """Cut the list into pieces of random length."""
    pieces = []
    while chains:
        n = rng.randint(1, len(chains))
        pieces.append(chains[:n])
        chains = chains[n:]
    return pieces


def give_back(device: PlainDevice, rng: random.Random, chains: list[Taken]) -> None:
    """Use sent chains: shuffled, or in order with one entry for several now and then."""
    if not device.in_order:
        rng.shuffle(chains)
    for some in chunks(rng, chains):
        device.use(some, as_one=device.in_order and rng.random() < 0.5)


@settings(max_examples=EXAMPLES, deadline=None)
@given(ring=rings, rounds=long_rounds, seed=st.integers(0, 1000), pieces=st.integers(1, 4))
def test_transmit(ring: tuple[int, int], rounds: list[list[int]], seed: int, pieces: int) -> None:
    """What fits the ring arrives whole and in order; the rest is counted; buffers come back."""
    rng = random.Random(seed)
    size, features = ring
    with driven(size, features, False) as q:
        total = lost = impossible = 0
        held: list[Taken] = []
        for number, batch in enumerate(rounds):
            frames = [frame(number * 100 + k, n) for k, n in enumerate(batch)]
            before = Counter(q.drops)
            sent = q.send(frames, (pieces, 1))
            new = Counter(q.drops) - before
            possible = [f for f in frames if -(-(len(f) + q.device.header) // BUFFER) <= size]
            assert sent + new["no_buffers"] + new["small_buffer"] == len(frames)
            taken = q.device.take()
            data = [q.device.content(chain) for chain in taken]
            assert [d[q.device.header :] for d in data] == possible[:sent]
            assert all(d[: q.device.header] == bytes(q.device.header) for d in data)
            total, lost = total + sent, lost + new["no_buffers"]
            impossible += new["small_buffer"]
            held += taken
            keep = rng.randint(0, len(held))
            if not q.device.in_order:
                rng.shuffle(held)
            back, held = held[:keep], held[keep:]
            give_back(q.device, rng, back)
            assert q.error is None
        give_back(q.device, rng, held)
        q.reap()
        assert (q.free, q.error) == (size, None)
        assert int(q.counters["frames"][0]) == total
        assert Counter(q.drops) == +Counter(no_buffers=lost, small_buffer=impossible)


@settings(max_examples=EXAMPLES, deadline=None)
@given(ring=rings, rounds=rounds, seed=st.integers(0, 1000))
def test_receive(ring: tuple[int, int], rounds: list[list[int]], seed: int) -> None:
    """Frames arrive in the order in which the device uses buffers, whichever those are."""
    rng = random.Random(seed)
    size, features = ring
    with driven(size, features, True) as q:
        for number, batch in enumerate(rounds):
            frames = [frame(number * 100 + k, n) for k, n in enumerate(batch)]
            waiting = q.device.take()
            if not q.device.in_order:
                rng.shuffle(waiting)
            some = waiting[: len(frames)]
            for chain, data in zip(some, frames, strict=False):
                q.device.fill(chain, bytes(q.device.header) + data)
            lengths = [q.device.header + len(f) for f in frames[: len(some)]]
            q.device.use(some, lengths)
            assert q.receive() == frames[: len(some)]
            assert q.receive() == []
            assert q.error is None
            q.device.use([*q.device.held.values()])  # given back empty
            assert drain(q) == [Reason.BAD_LENGTH] * (size - len(some))


def drain(q: Driven) -> list[object]:
    """Everything that waits."""
    got: list[object] = []
    while some := q.receive():
        got += some
    return got


@settings(max_examples=EXAMPLES, deadline=None)
@given(size=st.sampled_from([2, 8, 64]), features=st.sampled_from(
    [MODERN, PACKED, MODERN | IN_ORDER, PACKED | IN_ORDER]),
    rounds=long_rounds, as_one=st.booleans())
def test_merged(size: int, features: int, rounds: list[list[int]], as_one: bool) -> None:
    """Frames over several buffers; in order perhaps one used entry for all of them (2.7.9)."""
    as_one = as_one and bool(features & IN_ORDER)
    with driven(size, features | MERGE, True) as q:
        for number, batch in enumerate(rounds):
            frames = [frame(number * 100 + k, n) for k, n in enumerate(batch)]
            n = q.device.deliver(frames, as_one=as_one)
            assert drain(q) == frames[:n]
            assert (q.error, q.receive()) == (None, [])


@pytest.mark.parametrize("features", [MODERN, MODERN | EVENT, PACKED, PACKED | EVENT])
@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(size=st.sampled_from([1, 2, 8, 64]), seed=st.integers(0, 1000))
def test_kicks(features: int, size: int, seed: int) -> None:
    """A kick exactly where the device asked for one (2.7.10, 2.8.10), laps of a small ring too."""
    rng = random.Random(seed)
    with driven(size, features, False) as q:
        for _ in range(30):
            wish = rng.choice(["ask", "ask later", "refuse", ""])
            if wish == "refuse":
                q.device.refuse_kicks()
            elif wish:
                q.device.ask_for_kicks(rng.randrange(2 * size) if wish == "ask later" else 0)
            before = int(q.queue.record["kicks"][0])
            q.send([bytes(60)] * rng.randint(1, min(2 * size, ROWS)))
            due = q.device.kick_is_due()
            assert int(q.queue.record["kicks"][0]) == before + due
            q.device.frames()
        kicks = int(q.queue.record["kicks"][0])
        assert (os.eventfd_read(q.queue.kick) if kicks else 0) == kicks


@pytest.mark.parametrize("features", [MODERN, MODERN | EVENT, PACKED, PACKED | EVENT])
@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(size=st.sampled_from([1, 2, 8, 64]), seed=st.integers(0, 1000))
def test_calls(features: int, size: int, seed: int) -> None:
    """Asleep it wants a call for the next used buffer, and sees what was used already; awake it
    wants none (EVENT_IDX in a split ring: once in 65536)."""
    rng = random.Random(seed)
    with driven(size, features, True) as q:
        for _ in range(30):
            q.device.call_is_wanted()
            if rng.random() < 0.5:
                assert guest_sleep(q.queue.address) == 0
                assert q.device.deliver([bytes(60)]) == 1
                assert q.device.call_is_wanted()
                assert guest_sleep(q.queue.address) == 1
            else:
                guest_wake(q.queue.address)
                assert q.device.deliver([bytes(60)] * rng.randint(1, size)) > 0
                if not features & EVENT or features & PACKED == PACKED:
                    assert not q.device.call_is_wanted()
            drain(q)
            assert q.error is None


def numbered(numbers: list[int]) -> list[bytes]:
    return [number.to_bytes(4, "big") * (15 + number % 400) for number in numbers]


@settings(max_examples=EXAMPLES, deadline=None)
@given(ring=rings, seed=st.integers(0, 100_000))
def test_devices_die(ring: tuple[int, int], seed: int) -> None:
    """Sent frames: each device takes some, gives some back, writes a batch that it never shows, and
    is replaced. Every frame comes back once, and whoever takes over finds the others in order."""
    rng = random.Random(seed)
    size, features = ring
    with driven(size, features, False) as q:
        outstanding: list[int] = []
        for life in range(8):
            sent = list(range(1000 * life, 1000 * life + rng.randint(1, ROWS)))
            n = q.send(numbered(sent))
            # A frame over several buffers may not fit where a shorter one would: all that follow
            # it are counted as well.
            outstanding += sent[:n]
            taken = q.device.take(rng.randint(0, size))
            order = taken[:]
            if not q.device.in_order:
                rng.shuffle(order)
            done = order[: rng.randint(0, len(order))]
            content = {c.name: q.device.content(c)[q.device.header :] for c in done}
            back = [int.from_bytes(content[c.name][:4], "big") for c in done]
            give_back(q.device, rng, done[:])
            unseen = [c for c in order if c not in done][: rng.randint(0, size)]
            q.device.use(unseen, publish=False)
            outstanding = [number for number in outstanding if number not in back]
            q.restart()
            waiting = [q.device.content(c) for c in q.device.take()]
            assert [w[q.device.header :] for w in waiting] == numbered(outstanding)
            if rng.random() < 0.5:
                q.device = q.new_device(q.queue.position())
            else:
                q.device.use([*q.device.held.values()])
                outstanding = []
            assert q.error is None


@settings(max_examples=EXAMPLES, deadline=None)
@given(ring=rings, merge=st.booleans(), seed=st.integers(0, 100_000))
def test_devices_die_while_we_receive(ring: tuple[int, int], merge: bool, seed: int) -> None:
    """What a device showed before it died is received, what it did not show is not, and the next
    one has every other buffer."""
    rng = random.Random(seed)
    size, features = ring
    features |= MERGE if merge and features & MODERN else 0
    with driven(size, features, True) as q:
        number = 0
        for _ in range(8):
            expected = []
            for _ in range(rng.randint(0, 5)):
                number += 1
                data = numbered([number])[0] * rng.choice([1, 1, 3])
                if q.device.deliver([data]):
                    expected.append(data)
                if rng.random() < 0.3:
                    assert drain(q) == expected
                    expected = []
            held = [*q.device.held.values()] + q.device.take(rng.randint(0, 3))
            lost = list({c.name: c for c in held}.values())[: rng.randint(0, 3)]
            for chain in lost:
                q.device.fill(chain, bytes([0xEE]) * 100)
            q.device.use(lost, [100] * len(lost), publish=False)
            q.restart()
            assert drain(q) == expected
            assert len(q.device.take()) == size
            q.restart()
            assert q.error is None


def test_the_kick_of_more_than_a_lap() -> None:
    """Two laps between two looks at what the device wants: it is told, though the ring's position
    is the same again (another worker may have published on the queue meanwhile)."""
    for features in (PACKED, PACKED | EVENT):
        with driven(1, features, False) as q:
            kick, q.queue.record["kick"] = q.queue.kick, -1
            q.send([bytes(60)])
            q.device.frames()
            q.send([bytes(60)])
            q.device.frames()
            q.queue.record["kick"] = kick
            q.device.ask_for_kicks()
            assert int(q.queue.record["avail_idx"][0]) & 0xFFFF == 1 << 15
            guest_kick(q.queue.address)
            assert os.eventfd_read(kick) == 1
