# SPDX-License-Identifier: Apache-2.0
"""The device's side: limits of a batch, buffers that do not fit, and sleeping beside a driver."""

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator

import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.batch import MAX_CHAIN, ROWS, SEGMENTS
from byway.packet.counters import COUNTERS
from byway.testing.arena import Arena
from byway.testing.device import Device
from byway.testing.entries import guest_send
from byway.testing.guarded import Guarded
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import (
    INDIRECT_DESC,
    MRG_RXBUF,
    RING_PACKED,
    VERSION_1,
    PlainQueue,
)
from byway.testing.ring_kernels import device_sleep, device_wake
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask
from byway.virtio.publish import MAX_MERGED, SCRATCH

# Milliseconds. A sender may be held up between publishing and kicking: see test_sharing.
KICK_COMES = 5000


@pytest.fixture(scope="module")
def memory() -> Iterator[Guarded]:
    made = Guarded(4 << 20)
    yield made
    made.close()


def pair(memory: Guarded, size: int, features: int, receive: bool,
         max_frame: int = 65535) -> tuple[PlainQueue, Device]:
    plain = PlainMemory([(0, memory.address, memory.size)])
    made = PlainPackedDriver if features & RING_PACKED else PlainDriver
    driver = made(plain, size, features, receive=receive)
    device = Device([(0, memory.address, memory.size)], size, plain.host(driver.desc),
                    plain.host(driver.avail), plain.host(driver.used), features,
                    max_frame=max_frame)
    return driver, device


@contextlib.contextmanager
def watched(device: Device, memory: Guarded) -> Iterator[None]:
    """Interpreted: the device touches its own memory and the guest's."""
    arena = Arena()
    device.allow(arena)
    arena.allow("guest", memory.address, memory.size)
    with arena if INTERPRETED else contextlib.nullcontext():
        yield


FRAME = bytes(range(60))
layouts = pytest.mark.parametrize("ring", [0, RING_PACKED], ids=["split", "packed"])


@layouts
class TestLimitsOfABatch:
    def test_at_most_rows(self, memory: Guarded, ring: int) -> None:
        driver, device = pair(memory, 256, VERSION_1 | ring, False)
        for k in range(200):
            driver.send(bytes([k]) * 60, Layout())
        driver.publish()
        for n in (ROWS, ROWS, ROWS, 200 - 3 * ROWS, 0):
            assert len(device.borrow()) == n
            device.give_back()

    def test_chains_wait_for_the_next_batch_where_segments_run_out(
            self, memory: Guarded, ring: int) -> None:
        """Frames of the longest chains: a batch takes as many as there is room for."""
        driver, device = pair(memory, 64, VERSION_1 | INDIRECT_DESC | ring, False)
        layout = Layout((1,) * (MAX_CHAIN - 1), 0)
        frames = [bytes([k]) * 200 for k in range(30)]
        for data in frames:
            driver.send(data, layout)
        driver.publish()
        got = device.borrow()
        assert SEGMENTS // MAX_CHAIN - 1 <= len(got) <= SEGMENTS // MAX_CHAIN + 1
        device.give_back()
        assert got + device.take() == frames
        assert len(driver.reap()) == 30


@layouts
class TestReceiveBuffers:
    def test_too_small_and_not_mergeable(self, memory: Guarded, ring: int) -> None:
        """The buffer stays; a smaller frame may still fit."""
        driver, device = pair(memory, 8, VERSION_1 | ring, True)
        driver.add(100, Layout((50,)))
        driver.publish()
        assert device.deliver([bytes(89), bytes([1]) * 88]) == 1
        assert device.drops == {"small_buffer": 1}
        assert driver.receive_frames() == [bytes([1]) * 88]

    @pytest.mark.parametrize("features", [0, VERSION_1, VERSION_1 | MRG_RXBUF])
    def test_exactly_enough(self, memory: Guarded, ring: int, features: int) -> None:
        features |= VERSION_1 if ring else 0  # there is no legacy packed ring
        driver, device = pair(memory, 8, features | ring, True)
        for room in (driver.header + 60, driver.header + 59, 4):
            driver.add(room, Layout(gap=8))
        driver.publish()
        merged = bool(features & MRG_RXBUF)
        assert device.deliver([FRAME, FRAME]) == 1 + merged
        assert driver.receive_frames() == [FRAME] * (1 + merged)

    def test_empty_buffers_go_back(self, memory: Guarded, ring: int) -> None:
        driver, device = pair(memory, 8, VERSION_1 | ring, True)
        driver.add(0, Layout())
        driver.add(100, Layout())
        driver.publish()
        assert device.deliver([bytes(60), bytes(60)]) == 1
        assert driver.receive_frames() == [None, bytes(60)]

    def test_shreds_are_given_back(self, memory: Guarded, ring: int) -> None:
        """Mergeable buffers of one byte each cannot make the device walk for ever."""
        driver, device = pair(memory, 4096, VERSION_1 | MRG_RXBUF | ring, True)
        for _ in range(4000):
            driver.add(1, Layout(gap=1))
        driver.publish()
        assert device.deliver([bytes(9000)]) == 0
        assert device.drops == {"small_buffer": 1}
        assert len(driver.take_used()) == MAX_MERGED

    def test_shreds_in_long_chains(self, memory: Guarded, ring: int) -> None:
        """As many segments as a delivery may have, and no more: they are private memory."""
        driver, device = pair(memory, 64, VERSION_1 | MRG_RXBUF | INDIRECT_DESC | ring, True)
        for _ in range(40):
            driver.add(127, Layout((1,) * 126, 0, gap=1))
        driver.publish()
        with watched(device, memory):
            assert device.deliver([bytes(5000)]) == 0
        assert device.drops == {"small_buffer": 1}
        assert len(driver.take_used()) == SCRATCH // 127
        with watched(device, memory):
            assert device.deliver([FRAME * 30]) == 1
        assert driver.receive_frames()[-1] == FRAME * 30

    def test_a_frame_that_is_too_long_for_the_port(self, memory: Guarded, ring: int) -> None:
        driver, device = pair(memory, 8, VERSION_1 | ring, True, max_frame=1522)
        for _ in range(3):
            driver.add(4000, Layout())
        driver.publish()
        frames = [bytes(1522), bytes(1523), bytes(60)]
        assert device.deliver(frames) == 2
        assert device.drops == {"over_mtu": 1}
        assert driver.receive_frames() == [frames[0], frames[2]]

    def test_merged_frames_take_what_they_need(self, memory: Guarded, ring: int) -> None:
        driver, device = pair(memory, 64, VERSION_1 | MRG_RXBUF | ring, True)
        for _ in range(20):
            driver.add(1000, Layout((300,)))
        driver.publish()
        frames = [bytes([k]) * n for k, n in enumerate((60, 988, 989, 9014, 1500))]
        assert device.deliver(frames, (1, 3)) == 5
        assert driver.receive_frames() == frames
        assert len(driver.chains) == 20 - (1 + 1 + 2 + 10 + 2)

    def test_not_enough_for_a_merged_frame(self, memory: Guarded, ring: int) -> None:
        """Nothing of it is published; its buffers are there for the next one."""
        driver, device = pair(memory, 8, VERSION_1 | MRG_RXBUF | ring, True)
        for _ in range(3):
            driver.add(1000, Layout())
        driver.publish()
        assert device.deliver([bytes(3000)]) == 0
        assert driver.take_used() == []
        assert device.deliver([bytes(2988)]) == 1
        assert driver.receive_frames() == [bytes(2988)]


@layouts
@pytest.mark.parametrize("features", [
    mask(Feature.VERSION_1), mask(Feature.VERSION_1, Feature.EVENT_IDX)])
def test_no_wake_up_is_lost(features: int, ring: int) -> None:
    """A driver thread sends bursts; the device sleeps whenever it finds nothing."""
    features |= ring
    region = Region.create(1 << 20)
    queue = DriverQueue(region, 0, 0, 16, 2048, False)
    counters = alloc(COUNTERS, 1)
    queue.start(features, address_of(counters), 1514)
    device = Device([(0, region.address, region.size)], 16, queue.desc, queue.avail, queue.used,
                    features)
    sender = Device([(0, 1 << 40, 1)], 1, 0, 0, 0, features)
    sender.place([bytes(60)] * 8)
    sent, total = [0], 2000 if INTERPRETED else 30000

    def send() -> None:
        while sent[0] < total:
            n = int(guest_send(queue.address, sender.batch.address,
                               address_of(sender.selected), 1 + sent[0] % 8))
            sent[0] += n
            if n == 0:
                time.sleep(0)

    thread = threading.Thread(target=send)
    thread.start()
    received, lost = 0, False
    poll = select.poll()
    poll.register(queue.kick, select.POLLIN)
    while thread.is_alive():
        received += len(device.take())
        if not device_sleep(device.address):
            if poll.poll(300):
                os.eventfd_read(queue.kick)
            elif thread.is_alive() and device_sleep(device.address) == 1:
                lost = lost or not poll.poll(KICK_COMES)  # asleep with frames in the ring
        device_wake(device.address)
    thread.join()
    received += len(device.take())
    assert received == sent[0] >= total
    assert not lost, "slept through a frame"
    queue.close()
    region.close()
