# SPDX-License-Identifier: Apache-2.0
"""When a notification is due, against counting; the re-check when a side goes to sleep."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.testing import plain_driver, plain_packed_driver
from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import EVENT_IDX, RING_PACKED, VERSION_1, PlainQueue
from byway.testing.ring_kernels import device_sleep, device_wake, has_crossed, has_crossed_slot

EXAMPLES = 100 if INTERPRETED else 500
SPLIT, PACKED = VERSION_1, VERSION_1 | RING_PACKED
words = st.one_of(st.integers(0, 65535), st.sampled_from([0, 1, 32767, 32768, 65534, 65535]))


@pytest.fixture
def memory() -> Iterator[Guarded]:
    made = Guarded(1 << 16)
    yield made
    made.close()


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


positions = st.integers(1, 40).flatmap(lambda size: st.tuples(
    st.just(size), st.integers(0, size - 1), st.integers(0, 1)))


@settings(max_examples=EXAMPLES, deadline=None)
@given(old=positions, steps=st.integers(1, 40), event=st.integers(-3, 43))
def test_crossed_slot_counts_one_by_one(old: tuple[int, int, int], steps: int, event: int) -> None:
    """2.8.10, for events around the way, and ways of one slot to a whole lap."""
    size, slot, wrap = old
    start = plain_packed_driver.Position(slot, wrap, size)
    end = start.after(min(steps, size))
    at = start.after((event if event <= size else size) % (2 * size)).word
    assert bool(has_crossed_slot(size, at, end.word, start.word)) == \
        plain_packed_driver.passed(at, start, end)


def pair(area: Guarded, features: int, *, receive: bool = False, start: int | None = None,
         call: int = -1) -> tuple[PlainQueue, Device]:
    """A plain driver and a device on a ring of 8 entries."""
    plain = PlainMemory([(0, area.address, area.size)])
    packed = features & RING_PACKED
    made = PlainPackedDriver if packed else PlainDriver
    start = (0x8000 if packed else 0) if start is None else start
    driver = made(plain, 8, features, receive=receive, start=start)
    return driver, Device([(0, area.address, area.size)], 8, plain.host(driver.desc),
                          plain.host(driver.avail), plain.host(driver.used), features,
                          start=start, call=call)


@pytest.mark.parametrize("events", [0, EVENT_IDX])
@pytest.mark.parametrize(("layout", "start"), [
    (SPLIT, 0), (SPLIT, 65535), (PACKED, 0x8000), (PACKED, 0x8007), (PACKED, 3)])
def test_a_device_that_sleeps_is_kicked(memory: Guarded, layout: int, events: int,
                                        start: int) -> None:
    """Asleep: the driver is told to kick, and what came in between is seen. Awake: no kicks."""
    driver, device = pair(memory, layout | events, start=start)
    for _ in range(12):
        assert device_sleep(device.address) == 0
        driver.send(bytes(60), Layout())
        assert driver.publish(), "asleep, so a kick is due"
        assert device_sleep(device.address) == 1, "too late to sleep: there is work"
        device_wake(device.address)
        assert device.take() == [bytes(60)]
        driver.reap()
        driver.send(bytes(60), Layout())
        # Split with EVENT_IDX: a stale event is a refusal, once the index has passed it.
        assert not driver.publish(), "awake: not needed"
        assert device.take() == [bytes(60)]
        driver.reap()


@pytest.mark.parametrize("features", [SPLIT, PACKED])
def test_no_call_without_an_event_fd(memory: Guarded, features: int) -> None:
    driver, device = pair(memory, features)
    driver.send(bytes(60), Layout())
    driver.publish()
    assert device.take() == [bytes(60)]
    assert device.calls == 0


@pytest.mark.parametrize("features", [SPLIT, PACKED])
def test_a_call_counter_that_is_full_blocks_nobody(memory: Guarded, features: int) -> None:
    """A non-blocking event fd at its maximum: the write fails, the device goes on."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    os.eventfd_write(fd, 2**64 - 2)
    driver, device = pair(memory, features, call=fd)
    driver.send(bytes(60), Layout())
    driver.publish()
    assert device.take() == [bytes(60)]
    assert (device.calls, len(driver.reap())) == (1, 1)
    os.close(fd)


@pytest.mark.parametrize("features", [SPLIT, PACKED])
def test_nothing_used_nothing_called(memory: Guarded, features: int) -> None:
    """A destination without buffers is not interrupted for what it did not get."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    driver, device = pair(memory, features, receive=True, call=fd)
    driver.add(100, Layout())
    driver.publish()
    for _ in range(3):
        device.deliver([bytes(60)])
    assert device.calls == os.eventfd_read(fd) == 1
    os.close(fd)
