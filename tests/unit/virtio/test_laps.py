# SPDX-License-Identifier: Apache-2.0
"""Calls where more than a lap of the ring was used since the driver was last told.

A worker delivers several times for one batch (segments that it cuts, frames spread over many
buffers) and calls once; the driver may run on another CPU and recycle its buffers meanwhile.
"""

from collections.abc import Iterator

import pytest

from byway.machine.layout import address_of
from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import EVENT_IDX, RING_PACKED, VERSION_1
from byway.testing.ring_kernels import device_call, device_fill

SIZE = 4


@pytest.fixture
def memory() -> Iterator[Guarded]:
    made = Guarded(1 << 18)
    yield made
    made.close()


@pytest.mark.parametrize("packed", [0, RING_PACKED], ids=["split", "packed"])
@pytest.mark.parametrize("before", range(1, 3 * SIZE + 1))
@pytest.mark.parametrize("asleep", range(1, SIZE + 1))
def test_a_driver_that_slept_is_called(memory: Guarded, packed: int, before: int,
                                       asleep: int) -> None:
    """It takes ``before`` frames as they come, asks for a call, and ``asleep`` more come."""
    plain = PlainMemory([(0, memory.address, memory.size)])
    made = PlainPackedDriver if packed else PlainDriver
    driver = made(plain, SIZE, VERSION_1 | EVENT_IDX | packed, receive=True)
    device = Device([(0, memory.address, memory.size)], SIZE, plain.host(driver.desc),
                    plain.host(driver.avail), plain.host(driver.used),
                    VERSION_1 | EVENT_IDX | packed)
    with open("/dev/null", "wb", buffering=0) as sink:
        device.queue["call"] = sink.fileno()

        def fill(frames: int) -> None:
            for _ in range(frames):
                device.place([bytes(60)])
                assert device_fill(device.address, device.batch.address,
                                   address_of(device.selected), 1) == 1

        for _ in range(SIZE):
            driver.add(72, Layout())
        driver.publish()
        driver.ask_for_calls()
        fill(1)
        device_call(device.address)
        assert device.calls == 1, "the first one is always told"
        for _ in range(before):  # polling, on another CPU
            assert len(driver.receive_frames()) == 1
            driver.add(72, Layout())
            driver.publish()
            fill(1)
        assert len(driver.receive_frames()) == 1
        driver.add(72, Layout())
        driver.publish()
        driver.ask_for_calls()
        fill(asleep)
        device_call(device.address)
        assert device.calls == 2, "it waits for what was used since it asked"


@pytest.mark.parametrize("start", [*range(SIZE), *(k | 1 << 15 for k in range(SIZE))])
@pytest.mark.parametrize("slept", range(1, SIZE + 1))
def test_the_first_event_of_a_ring_that_goes_on(memory: Guarded, start: int, slept: int) -> None:
    """It was looked at once, at its start, anywhere in the ring; then ``slept`` frames come."""
    plain = PlainMemory([(0, memory.address, memory.size)])
    features = VERSION_1 | EVENT_IDX | RING_PACKED
    driver = PlainPackedDriver(plain, SIZE, features, receive=True, start=start)
    device = Device([(0, memory.address, memory.size)], SIZE, plain.host(driver.desc),
                    plain.host(driver.avail), plain.host(driver.used), features, start=start)
    with open("/dev/null", "wb", buffering=0) as sink:
        device.queue["call"] = sink.fileno()
        device_call(device.address)
        told = device.calls
        for _ in range(SIZE):
            driver.add(72, Layout())
        driver.publish()
        driver.ask_for_calls()
        device.place([bytes(60)] * slept)
        assert device_fill(device.address, device.batch.address,
                           address_of(device.selected), slept) == slept
        device_call(device.address)
        assert device.calls == told + 1
