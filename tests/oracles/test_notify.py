# SPDX-License-Identifier: Apache-2.0
"""When a notification is due, against counting; the re-check when a side goes to sleep."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.testing import plain_driver
from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.testing.plain_driver import EVENT_IDX, VERSION_1, Layout, PlainDriver, PlainMemory
from byway.testing.ring_kernels import device_sleep, device_wake, has_crossed

EXAMPLES = 100 if INTERPRETED else 500
words = st.one_of(st.integers(0, 65535), st.sampled_from([0, 1, 32767, 32768, 65534, 65535]))


@settings(max_examples=EXAMPLES, deadline=None)
@given(old=words, steps=st.one_of(st.integers(0, 300), st.sampled_from([0, 1, 32768])),
       offset=st.integers(-3, 303), event=words)
def test_crossed_counts_one_by_one(old: int, steps: int, offset: int, event: int) -> None:
    """2.7.10, for events around the way and anywhere."""
    new = (old + steps) & 0xFFFF
    for e in ((old + offset) & 0xFFFF, event):
        assert bool(has_crossed(e, new, old)) == plain_driver.crossed(e, new, old)


@settings(max_examples=EXAMPLES, deadline=None)
@given(old=words, new=words, event=words)
def test_crossed_is_the_formula(old: int, new: int, event: int) -> None:
    """vring_need_event of 2.7.10, in 16-bit arithmetic."""
    formula = (new - event - 1) % 65536 < (new - old) % 65536
    assert bool(has_crossed(event, new, old)) == formula


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | EVENT_IDX])
@pytest.mark.parametrize("start", [0, 65535])
def test_a_device_that_sleeps_is_kicked(features: int, start: int) -> None:
    """Asleep: the driver is told to kick, and what came in between is seen. Awake: no kicks."""
    memory = Guarded(1 << 16)
    regions = [(0, memory.address, memory.size)]
    plain = PlainMemory(regions)
    driver = PlainDriver(plain, 8, features, receive=False, start=start)
    device = Device(regions, 8, plain.host(driver.desc), plain.host(driver.avail),
                    plain.host(driver.used), features, start=start)
    for _ in range(12):
        assert device_sleep(device.address) == 0
        driver.send(bytes(60), Layout())
        assert driver.publish(), "asleep, so a kick is due"
        assert device_sleep(device.address) == 1, "too late to sleep: there is work"
        device_wake(device.address)
        assert device.take() == [bytes(60)]
        driver.reap()
        driver.send(bytes(60), Layout())
        # With EVENT_IDX a stale event is a refusal, once the index has passed it.
        assert not driver.publish(), "awake: not needed"
        assert device.take() == [bytes(60)]
        driver.reap()
    memory.close()


def test_no_call_without_an_event_fd() -> None:
    memory = Guarded(1 << 16)
    plain = PlainMemory([(0, memory.address, memory.size)])
    driver = PlainDriver(plain, 8, VERSION_1, receive=False)
    device = Device([(0, memory.address, memory.size)], 8, plain.host(driver.desc),
                    plain.host(driver.avail), plain.host(driver.used), VERSION_1, call=-1)
    driver.send(bytes(60), Layout())
    driver.publish()
    assert device.take() == [bytes(60)]
    assert device.calls == 0
    memory.close()


def test_a_call_counter_that_is_full_blocks_nobody() -> None:
    """A non-blocking event fd at its maximum: the write fails, the device goes on."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    os.eventfd_write(fd, 2**64 - 2)
    memory = Guarded(1 << 16)
    plain = PlainMemory([(0, memory.address, memory.size)])
    driver = PlainDriver(plain, 8, VERSION_1, receive=False)
    device = Device([(0, memory.address, memory.size)], 8, plain.host(driver.desc),
                    plain.host(driver.avail), plain.host(driver.used), VERSION_1, call=fd)
    driver.send(bytes(60), Layout())
    driver.publish()
    assert device.take() == [bytes(60)]
    assert (device.calls, len(driver.reap())) == (1, 1)
    os.close(fd)
    memory.close()


def test_nothing_used_nothing_called() -> None:
    """A destination without buffers is not interrupted for what it did not get."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    memory = Guarded(1 << 16)
    plain = PlainMemory([(0, memory.address, memory.size)])
    driver = PlainDriver(plain, 8, VERSION_1, receive=True)
    device = Device([(0, memory.address, memory.size)], 8, plain.host(driver.desc),
                    plain.host(driver.avail), plain.host(driver.used), VERSION_1, call=fd)
    driver.add(100, Layout())
    driver.publish()
    for _ in range(3):
        device.deliver([bytes(60)])
    assert device.calls == os.eventfd_read(fd) == 1
    os.close(fd)
    memory.close()
