# SPDX-License-Identifier: Apache-2.0
"""The memory of a virtqueue that we drive, and how it goes from one device to the next; its
behaviour: tests/oracles/test_driver.py."""

import os

import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.counters import COUNTERS
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask
from byway.virtio.ring import MAX_SIZE, PACKED_START, RingError
from tests.driving import driven

MODERN = mask(Feature.VERSION_1)
PACKED = MODERN | mask(Feature.RING_PACKED)
EVENT, IN_ORDER = mask(Feature.EVENT_IDX), mask(Feature.IN_ORDER)
BOTH = pytest.mark.parametrize("features", [MODERN, PACKED], ids=["split", "packed"])


@pytest.mark.parametrize("size", [1, 3, 100, 256, 1024])
def test_it_fits_where_it_says(size: int) -> None:
    n = DriverQueue.bytes_needed(size, 2048)
    region = Region.create(2 * n)
    queue = DriverQueue(region, n, 1 << 32, size, 2048, True)
    assert queue.desc == region.address + n
    assert queue.buffers + size * 2048 <= region.address + 2 * n
    assert int(queue.record["gpa"][0]) - (1 << 32) == queue.buffers - region.address
    queue.close()
    region.close()


def test_starting_again_forgets_everything() -> None:
    region = Region.create(DriverQueue.bytes_needed(8, 2048))
    queue = DriverQueue(region, 0, 0, 8, 2048, True)
    counters = alloc(COUNTERS, 1)
    for features in (PACKED | EVENT, MODERN | EVENT | IN_ORDER, 0):
        queue.start(features, address_of(counters), 1514)
        row = queue.record[0]
        packed = int(features & PACKED == PACKED)
        start = PACKED_START if packed else 0
        assert (row["header"], row["event_idx"]) == ((12, 1) if features else (10, 0))
        assert (row["packed"], row["in_order"]) == (packed, int(bool(features & IN_ORDER)))
        assert (row["nfree"], row["ntaken"], row["error"]) == (8, 0, 0)
        assert (row["avail_idx"], row["used_seen"], row["kicked"]) == (start,) * 3
        assert queue.position() == start
        queue.post_all()
        assert row["nfree"] == 0
        assert int(row["avail_idx"]) & 0xFFFF == (0 if packed else 8)
        assert os.eventfd_read(queue.kick) == 1
    queue.close()
    queue.close()
    assert (queue.kick, queue.call) == (-1, -1)
    region.close()


@pytest.mark.parametrize("size", [0, -1, 32769])
def test_sizes_that_no_ring_has(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 32768 entries"), driven(size, PACKED, False):
        pass


@pytest.mark.parametrize("size", [3, 100, 32767])
def test_sizes_that_no_split_ring_has(size: int) -> None:
    with pytest.raises(ValueError, match="not a power of two"), \
            driven(size, MODERN, False, buffer=64):
        pass


@BOTH
def test_the_largest_ring(features: int) -> None:
    """32768 entries (fewer where kernels are interpreted), and all positions of it."""
    size = 1024 if INTERPRETED else MAX_SIZE
    with driven(size, features, True, buffer=256) as q:
        for k in range(0, size + 64, 64):
            frames = [k.to_bytes(4, "big") * 20] * 64
            assert q.device.deliver(frames) == 64
            assert q.receive() == frames
        assert q.error is None
        q.restart()
        assert len(q.device.take()) == size


class TestResume:
    """The next device finds what the one before it had not used, and nothing else."""

    @BOTH
    def test_half_a_batch_was_written(self, features: int) -> None:
        """Used entries that were never shown: of a packed ring they stand in the descriptors."""
        with driven(8, features, False) as q:
            frames = [bytes([k]) * 60 for k in range(6)]
            q.send(frames)
            taken = q.device.take(5)
            q.device.use(taken[:1])
            q.device.use(taken[1:4], publish=False)
            q.restart()
            assert q.free == 3
            assert [frame for _, frame in q.device.frames()] == frames[1:]
            q.reap()
            assert (q.free, q.error) == (8, None)

    @BOTH
    def test_out_of_order(self, features: int) -> None:
        """The third was used, the first and second were not: both are there for the next."""
        with driven(8, features, False) as q:
            frames = [bytes([k]) * n for k, n in enumerate([60, 5000, 60, 60])]
            q.send(frames)
            taken = q.device.take()
            q.device.use([taken[2]])
            q.restart()
            assert [frame for _, frame in q.device.frames()] == [*frames[:2], frames[3]]

    @BOTH
    def test_received_frames_are_kept(self, features: int) -> None:
        with driven(8, features, True) as q:
            q.device.deliver([b"a" * 60, b"b" * 60])
            q.restart()
            assert q.device.deliver([b"c" * 60]) == 1
            assert q.receive() == [b"a" * 60, b"b" * 60, b"c" * 60]
            assert (q.free, q.error) == (0, None)
            assert len(q.device.take()) == 8

    @BOTH
    def test_nothing_was_in_it(self, features: int) -> None:
        with driven(8, features, False) as q:
            base = q.queue.position()
            assert q.queue.resume() == base
            q.restart()
            assert q.device.frames() == []
            q.send([bytes(60)])
            assert len(q.device.frames()) == 1

    @BOTH
    @pytest.mark.parametrize("event", [0, EVENT])
    def test_what_the_dead_device_asked_for_does_not_count(self, features: int,
                                                           event: int) -> None:
        """It polled and refused kicks; the next one sleeps as it begins."""
        with driven(8, features | event, False) as q:
            q.device.refuse_kicks()
            q.send([bytes(60)])
            assert int(q.queue.record["kicks"][0]) == 0
            q.restart()
            q.send([bytes(60)])
            assert int(q.queue.record["kicks"][0]) == 1

    @BOTH
    def test_a_broken_queue(self, features: int) -> None:
        with driven(8, features, True) as q:
            q.queue.record["error"] = int(RingError.BAD_ID)
            with pytest.raises(ValueError, match="broke the ring"):
                q.queue.resume()


def test_ring_errors_explain_themselves() -> None:
    assert [int(e) for e in RingError] == list(range(1, len(RingError) + 1))
    assert all(e.sentence for e in RingError)
