# SPDX-License-Identifier: Apache-2.0
"""The memory of a virtqueue that we drive; its behaviour: tests/oracles/test_driver.py."""

import os

import pytest

from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.counters import COUNTERS
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask
from byway.virtio.ring import RingError


@pytest.mark.parametrize("size", [1, 256, 1024])
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
    for features in (mask(Feature.VERSION_1, Feature.EVENT_IDX), 0):
        queue.start(features, address_of(counters), 1514)
        row = queue.record[0]
        assert (row["header"], row["event_idx"]) == ((12, 1) if features else (10, 0))
        assert (row["nfree"], row["avail_idx"], row["used_seen"], row["error"]) == (8, 0, 0, 0)
        queue.post_all()
        assert (row["nfree"], row["avail_idx"]) == (0, 8)
        assert os.eventfd_read(queue.kick) == 1
    queue.close()
    queue.close()
    assert (queue.kick, queue.call) == (-1, -1)
    region.close()


def test_ring_errors_explain_themselves() -> None:
    assert [int(e) for e in RingError] == list(range(1, len(RingError) + 1))
    assert all(e.sentence for e in RingError)
