# SPDX-License-Identifier: Apache-2.0
"""The driver's kernels against the device's over the same memory, and against a lying device."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.batch import FLOOD, ROWS, UNDECIDED
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.testing import plain_driver
from byway.testing.arena import Arena
from byway.testing.device import Device
from byway.testing.entries import guest_borrow, guest_give_back, guest_send
from byway.testing.kernels import driver_reap
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask
from byway.virtio.ring import RingError

EXAMPLES = 40 if INTERPRETED else 150
GPA, BUFFER = 0x1_0000_0000, 2048
SIZES = [1, 2, 8, 64, 256]
FEATURES = [0, mask(Feature.VERSION_1), mask(Feature.VERSION_1, Feature.EVENT_IDX)]


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    made = Region.create(DriverQueue.bytes_needed(SIZES[-1], BUFFER))
    yield made
    made.close()


class Both:
    """One virtqueue: our driver and our device, each with its own batch."""

    def __init__(self, region: Region, size: int, features: int, receive: bool) -> None:
        self.driver = DriverQueue(region, 0, GPA, size, BUFFER, receive)
        self.counters = alloc(COUNTERS, 1)
        self.driver.start(features, address_of(self.counters), 9000)
        d = self.driver
        self.device = Device([(GPA, region.address, region.size)], size, d.desc, d.avail, d.used,
                             features, call=self.driver.call)
        self.guest = Device([(0, 1 << 40, 1)], 1, 0, 0, 0, features)  # for its batch only
        if receive:
            self.driver.post_all()

    @property
    def error(self) -> int:
        return int(self.driver.record["error"][0])

    def send(self, frames: list[bytes]) -> int:
        self.guest.place(frames)
        return int(guest_send(self.driver.address, self.guest.batch.address,
                              address_of(self.guest.selected), len(frames)))

    def receive(self) -> list[bytes | Reason]:
        """One batch, given back."""
        n = int(guest_borrow(self.driver.address, self.guest.batch.address))
        got = [self.guest._content(row) for row in self.guest.batch.rows[:n]]
        if n:
            guest_give_back(self.driver.address, self.guest.batch.address)
        return got


@contextlib.contextmanager
def both(region: Region, size: int, features: int, receive: bool) -> Iterator[Both]:
    made = Both(region, size, features, receive)
    yield made
    made.driver.close()


@contextlib.contextmanager
def watched(b: Both, region: Region) -> Iterator[None]:
    """Interpreted: the driver touches its own memory and what it shares."""
    arena = Arena()
    b.guest.allow(arena)
    arena.allow("shared", region.address, region.size)
    for name in ("record", "_free", "_busy", "_one"):
        arena.allow_array(name, getattr(b.driver, name))
    arena.allow_array("counted", b.counters)
    with arena if INTERPRETED else contextlib.nullcontext():
        yield


def frame(seed: int, n: int) -> bytes:
    return bytes(np.random.default_rng(seed).integers(0, 256, n, np.uint8))


lengths = st.one_of(st.integers(14, BUFFER - 12), st.sampled_from([60, 128, 129, 1514]))
rounds = st.lists(st.lists(lengths, min_size=1, max_size=ROWS), min_size=1, max_size=5)


@settings(max_examples=EXAMPLES, deadline=None)
@given(size=st.sampled_from(SIZES), features=st.sampled_from(FEATURES), rounds=rounds)
def test_transmit(region: Region, size: int, features: int, rounds: list[list[int]]) -> None:
    """What fits the ring arrives whole and in order; the rest is counted; buffers come back."""
    with both(region, size, features, False) as b:
        for number, batch in enumerate(rounds):
            frames = [frame(number * 100 + k, n) for k, n in enumerate(batch)]
            sent = b.send(frames)
            assert sent == min(len(frames), size)
            assert b.device.take() == frames[:sent]
            assert (b.error, b.device.error) == (0, None)
        total = sum(min(len(batch), size) for batch in rounds)
        lost = sum(len(batch) for batch in rounds) - total
        assert int(b.counters["frames"][0]) == total
        assert drops_by_name(b.counters[0]) == ({"no_buffers": lost} if lost else {})
        driver_reap(b.driver.address)
        assert int(b.driver.record["nfree"][0]) == size


@settings(max_examples=EXAMPLES, deadline=None)
@given(size=st.sampled_from(SIZES), features=st.sampled_from(FEATURES), rounds=rounds)
def test_receive(region: Region, size: int, features: int, rounds: list[list[int]]) -> None:
    with both(region, size, features, True) as b:
        for number, batch in enumerate(rounds):
            frames = [frame(number * 100 + k, n) for k, n in enumerate(batch)]
            sent = b.device.deliver(frames)
            assert sent == min(len(frames), size)
            assert b.receive() == frames[:sent]
            assert b.receive() == []
            assert (b.error, b.device.error) == (0, None)


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(size=st.sampled_from(SIZES), rounds=st.lists(st.integers(1, 64), max_size=20),
       sleeps=st.lists(st.booleans(), min_size=20, max_size=20))
def test_kicks(region: Region, size: int, rounds: list[int], sleeps: list[bool]) -> None:
    """With EVENT_IDX: a kick exactly where the device's event was crossed (2.7.10)."""
    from byway.testing.kernels import device_sleep

    with both(region, size, FEATURES[2], False) as b:
        due, event, index = 0, 0, 0
        for n, asleep in zip(rounds, sleeps, strict=False):
            if asleep:
                device_sleep(b.device.address)
                event = index
            sent = b.send([bytes(60)] * n)
            due += plain_driver.crossed(event, index + sent, index)
            index += sent
            b.device.take()
        assert int(b.driver.record["kicks"][0]) == due
        assert (os.eventfd_read(b.driver.kick) if due else 0) == due


class TestLyingDevice:
    """What a device may claim in the used ring, and what the driver makes of it."""

    def claim(self, b: Both, entries: list[tuple[int, int]], idx: int | None = None) -> None:
        used = np.frombuffer(
            (plain_driver.ctypes.c_uint8 * (4 + 8 * b.driver.size)).from_address(b.driver.used),
            np.uint8)
        for k, (head, length) in enumerate(entries):
            used[4 + 8 * k : 12 + 8 * k] = np.frombuffer(
                plain_driver.struct.pack("<II", head, length), np.uint8)
        used[2:4] = np.frombuffer(
            plain_driver.struct.pack("<H", len(entries) if idx is None else idx), np.uint8)

    @pytest.mark.parametrize(("entries", "idx", "error", "rows"), [
        ([], 9, RingError.USED_JUMP, 0), ([], 65535, RingError.USED_JUMP, 0),
        ([(8, 72)], None, RingError.BAD_ID, 0), ([(0xFFFFFFFF, 72)], None, RingError.BAD_ID, 0),
        ([(3, 72), (3, 72)], None, RingError.BAD_ID, 1)])
    def test_the_ring_is_left_alone(self, region: Region, entries: list[tuple[int, int]],
                                    idx: int | None, error: RingError, rows: int) -> None:
        with both(region, 8, FEATURES[1], True) as b, watched(b, region):
            self.claim(b, entries, idx)
            assert len(b.receive()) == rows
            assert b.error == error

    def test_more_than_was_sent(self, region: Region) -> None:
        with both(region, 8, FEATURES[1], False) as b:
            b.send([bytes(60)] * 2)
            self.claim(b, [(7, 0), (6, 0), (5, 0)])
            driver_reap(b.driver.address)
            assert b.error == RingError.USED_JUMP

    @pytest.mark.parametrize("length", [0, 11, 25, BUFFER + 1, 0xFFFFFFFF])
    def test_a_length_that_cannot_be_drops_one_frame(self, region: Region, length: int) -> None:
        with both(region, 8, FEATURES[1], True) as b:
            self.claim(b, [(5, length), (6, 72)])
            got = b.receive()
            assert got[0] is Reason.BAD_LENGTH
            assert got[1] is not None
            assert len(got[1]) == 60
            assert b.error == 0

    def test_transmit_buffers_that_we_have_ourselves(self, region: Region) -> None:
        with both(region, 8, FEATURES[1], False) as b:
            b.send([bytes(60)] * 2)
            self.claim(b, [(0, 0), (1, 0)])  # the two sent are 7 and 6
            driver_reap(b.driver.address)
            assert b.error == RingError.BAD_ID

    def test_frames_longer_than_a_buffer(self, region: Region) -> None:
        with both(region, 8, FEATURES[1], False) as b:
            assert b.send([bytes(BUFFER), bytes(60)]) == 1
            assert drops_by_name(b.counters[0]) == {"over_mtu": 1}
            assert b.device.take() == [bytes(60)]


def test_rows_are_undecided(region: Region) -> None:
    with both(region, 8, FEATURES[1], True) as b:
        b.device.deliver([bytes(60)])
        n = int(guest_borrow(b.driver.address, b.guest.batch.address))
        assert b.guest.batch.rows["out"][:n].tolist() == [UNDECIDED]
        assert UNDECIDED < FLOOD
