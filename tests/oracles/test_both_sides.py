# SPDX-License-Identifier: Apache-2.0
"""Our driver and our device over the same memory: both ring formats, every feature that changes
what they do. (Each against a plain peer: test_driver.py, test_rings.py.)"""

import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.packet.batch import ROWS
from byway.packet.reason import Reason
from byway.testing.device import Device
from byway.testing.entries import guest_sleep, guest_wake
from byway.testing.ring_kernels import device_sleep, device_wake
from byway.virtio.features import Feature, mask
from tests.driving import BUFFER, GPA, Driven

EXAMPLES = 30 if INTERPRETED else 150
MODERN = mask(Feature.VERSION_1)
PACKED = MODERN | mask(Feature.RING_PACKED)
EVENT, IN_ORDER, MERGE = (
    mask(f) for f in (Feature.EVENT_IDX, Feature.IN_ORDER, Feature.MRG_RXBUF))

rings = st.one_of(
    st.tuples(st.sampled_from([1, 2, 8, 64, 256]), st.sampled_from([0, MODERN])),
    st.tuples(st.sampled_from([1, 3, 8, 100, 256]), st.just(PACKED)))
extras = st.lists(st.sampled_from([EVENT, IN_ORDER]), unique=True).map(sum)
lengths = st.one_of(st.integers(14, BUFFER - 12), st.sampled_from([60, 128, 129, 1514, 4000, 9000]))
rounds = st.lists(st.lists(lengths, min_size=1, max_size=ROWS), min_size=1, max_size=5)


class Both(Driven):
    """Our device in the plain one's place: ``ours``."""

    def __init__(self, size: int, features: int, receive: bool) -> None:
        super().__init__(size, features, receive)
        self.ours = self.our_device()

    def our_device(self, start: int | None = None) -> Device:
        """A device of ours that begins at ``start``."""
        q = self.queue
        return Device([(GPA, self.region.address, self.region.size)], self.size, q.desc, q.avail,
                      q.used, self.features, call=q.call, max_frame=9000, start=start)

    def is_sound(self) -> bool:
        return (self.error, self.ours.error) == (None, None)


@contextlib.contextmanager
def both(ring: tuple[int, int], extra: int, receive: bool) -> Iterator[Both]:
    size, features = ring
    made = Both(size, features | (extra if features & MODERN else 0), receive)
    try:
        yield made
    finally:
        made.close()


def numbered(number: int, batch: list[int]) -> list[bytes]:
    return [bytes([number & 0xFF, k]) + os.urandom(n - 2) for k, n in enumerate(batch)]


@settings(max_examples=EXAMPLES, deadline=None)
@given(ring=rings, extra=extras, rounds=rounds, restarts=st.booleans())
def test_sent(ring: tuple[int, int], extra: int, rounds: list[list[int]], restarts: bool) -> None:
    """What fits the ring arrives whole and in order; devices come and go."""
    with both(ring, extra, False) as b:
        for number, batch in enumerate(rounds):
            frames = numbered(number, batch)
            sent = b.send(frames)
            fit = [f for f in frames if -(-(len(f) + 12) // BUFFER) <= b.size]
            expected = fit[:sent]
            if restarts:
                assert b.ours.borrow() == expected
                b.ours = b.our_device(b.queue.resume())
            assert b.ours.take() == expected
            assert b.is_sound()
        b.reap()
        assert b.free == b.size


@settings(max_examples=EXAMPLES, deadline=None)
@given(ring=rings, extra=extras, merge=st.booleans(), rounds=rounds, restarts=st.booleans())
def test_received(ring: tuple[int, int], extra: int, merge: bool, rounds: list[list[int]],
                  restarts: bool) -> None:
    """Frames that are longer than a buffer only where buffers can be merged."""
    extra |= MERGE if merge else 0
    with both(ring, extra, True) as b:
        merges = bool(b.features & MERGE)
        for number, batch in enumerate(rounds):
            frames = numbered(number, batch if merges else [min(n, BUFFER - 12) for n in batch])
            delivered = b.ours.deliver(frames)
            if restarts:
                b.ours = b.our_device(b.queue.resume())
            got: list[bytes | Reason] = []
            while some := b.receive():
                got += some
            assert len(got) == delivered
            assert [f for f in frames if f in got] == got
            if sum(-(-(len(f) + 12) // BUFFER) for f in frames) <= b.size:
                assert got == frames
            assert b.is_sound()
        assert b.free == 0


@pytest.mark.parametrize("features", [MODERN, MODERN | EVENT, PACKED, PACKED | EVENT])
def test_kicks_and_calls(features: int) -> None:
    """A device that sleeps is kicked once, one that polls is not; and the other way round."""
    with both((8, features), 0, False) as b:
        assert device_sleep(b.ours.address) == 0
        for kicks in (1, 1, 1):
            b.send([bytes(60)])
            assert int(b.queue.record["kicks"][0]) == kicks
            b.ours.take()
            device_wake(b.ours.address)
        assert device_sleep(b.ours.address) == 0
        b.send([bytes(60)])
        assert int(b.queue.record["kicks"][0]) == 2
        assert device_sleep(b.ours.address) == 1
    with both((8, features), 0, True) as b:
        b.ours.deliver([bytes(60)])  # nobody knows yet what the driver was told
        b.receive()
        calls = b.ours.calls
        guest_wake(b.queue.address)
        b.ours.deliver([bytes(60)])
        b.receive()
        assert b.ours.calls == calls
        assert guest_sleep(b.queue.address) == 0
        b.ours.deliver([bytes(60)])
        assert b.ours.calls == calls + 1
        assert guest_sleep(b.queue.address) == 1
