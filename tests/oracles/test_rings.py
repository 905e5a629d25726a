# SPDX-License-Identifier: Apache-2.0
"""The device's side of a split virtqueue against the plain driver, over the same memory.

Guarded memory: a byte read or written outside ends the process (compiled) or the test
(interpreted, under an Arena, where double fetches are found as well).
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.packet.reason import Reason
from byway.testing.arena import Arena
from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.testing.plain_driver import (
    EVENT_IDX,
    INDIRECT_DESC,
    MRG_RXBUF,
    VERSION_1,
    Layout,
    PlainDriver,
    PlainMemory,
)

GPA = 0x4000_0000
FIRST, SECOND = 3 << 20, 1 << 20  # two regions, the second right behind the first for the guest
EXAMPLES = 60 if INTERPRETED else 150


@pytest.fixture(scope="module")
def regions() -> Iterator[list[tuple[int, int, int]]]:
    """Two pieces of guarded memory that the guest sees side by side, and one apart."""
    pieces = [Guarded(FIRST), Guarded(SECOND), Guarded(SECOND)]
    yield [(GPA, pieces[0].address, FIRST), (GPA + FIRST, pieces[1].address, SECOND),
           (7 << 32, pieces[2].address, SECOND)]
    for piece in pieces:
        piece.close()


@dataclass
class Pair:
    """A plain driver and our device on one virtqueue."""

    driver: PlainDriver
    device: Device
    arena: Arena

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Interpreted: every access of the device is looked at.

        What a driver sends is read once. Receive buffers are looked at ahead, and again if they
        turn out to be no single descriptor: what was read first is then forgotten.
        """
        if not INTERPRETED:
            yield
            return
        with self.arena:
            yield
        if not self.driver.receive:
            assert self.arena.doubles == []


def pair(regions: list[tuple[int, int, int]], size: int, features: int, start: int,
         receive: bool, call: int = -1) -> Pair:
    memory = PlainMemory(regions)
    driver = PlainDriver(memory, size, features, receive=receive, start=start)
    device = Device(regions, size, memory.host(driver.desc), memory.host(driver.avail),
                    memory.host(driver.used), features, start=start, call=call)
    arena = Arena()
    device.allow(arena)
    for _, host, n in regions:
        arena.allow(f"guest {host:#x}", host, n, shared=True)
    return Pair(driver, device, arena)


def frame(number: int, length: int) -> bytes:
    """A frame whose every byte depends on its number."""
    return bytes((number * 37 + k * 11 + (k >> 8)) & 0xFF for k in range(length))


sizes = st.sampled_from([1, 2, 4, 8, 32, 256, 32768])
starts = st.sampled_from([0, 1, 65530, 65535, 32767])
features = st.sampled_from([0, VERSION_1, VERSION_1 | MRG_RXBUF]).flatmap(
    lambda f: st.sampled_from([f, f | EVENT_IDX])).map(lambda f: f | INDIRECT_DESC)
layouts = st.builds(
    Layout,
    st.lists(st.one_of(st.sampled_from([0, 1, 2, 10, 11, 12, 13, 14, 26, 64, 128, 140]),
                       st.integers(0, 700)), max_size=6).map(tuple),
    st.one_of(st.none(), st.integers(0, 3)),
    st.sampled_from([0, 3]))
lengths = st.one_of(st.sampled_from([14, 60, 64, 116, 127, 128, 129, 192, 1500, 1514, 9014]),
                    st.integers(14, 2000))


class TestReceive:
    """Driver to device: what was sent is what is borrowed, and every buffer comes back once."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(size=sizes, start=starts, features=features,
           batches=st.lists(st.lists(st.tuples(lengths, layouts), min_size=1, max_size=12),
                            min_size=1, max_size=4))
    def test_any_layout(self, regions, size, start, features, batches) -> None:
        p = pair(regions, size, features, start, receive=False)
        for batch in batches:
            sent = []
            for number, (length, layout) in enumerate(batch):
                data = frame(number + len(batch), length)
                try:
                    p.driver.send(data, layout)
                except MemoryError:
                    break
                sent.append(data)
            heads = list(p.driver.chains)
            p.driver.publish()
            with p.watched():
                got = p.device.take()
            assert got == sent
            assert p.driver.reap() == heads
            assert p.device.error is None
        assert int(p.device.counters["frames"][0]) == p.driver.used_seen - start & 0xFFFF

    def test_a_full_ring_of_every_size(self, regions) -> None:
        for size in (1, 64, 128, 1024):
            p = pair(regions, size, VERSION_1, 65500, receive=False)
            sent = [frame(k, 60) for k in range(size)]
            for data in sent:
                p.driver.send(data, Layout())
            p.driver.publish()
            assert p.device.take() == sent
            assert len(p.driver.reap()) == size

    @pytest.mark.parametrize("header", [
        b"\x01" + bytes(11), b"\0\x01" + bytes(10), b"\xff" * 12, bytes(10) + b"\x07\0"])
    @pytest.mark.parametrize("layout", [Layout(), Layout((12,)), Layout((1, 3)), Layout((12,), 1)])
    def test_the_header_says_nothing_without_offloads(
            self, regions, header: bytes, layout: Layout) -> None:
        """5.1.6.2: all its fields hang on features that were not negotiated."""
        p = pair(regions, 8, VERSION_1 | INDIRECT_DESC, 0, receive=False)
        data = frame(1, 70)
        p.driver.send(data, layout, header)
        p.driver.publish()
        assert p.device.take() == [data]
        assert len(p.driver.reap()) == 1

    @pytest.mark.parametrize("total", [0, 1, 11, 12, 13, 25])
    def test_a_frame_that_is_too_short(self, regions, total) -> None:
        p = pair(regions, 8, VERSION_1, 0, receive=False)
        p.driver.add(total, Layout((1,)), bytes(total))
        p.driver.add(total, Layout(), bytes(total))
        p.driver.publish()
        assert p.device.take() == [Reason.RUNT, Reason.RUNT]
        assert len(p.driver.reap()) == 2

    @pytest.mark.parametrize("layout", [Layout(), Layout((12,)), Layout((12, 32768))])
    def test_the_longest_frame(self, regions, layout) -> None:
        p = pair(regions, 8, VERSION_1, 0, receive=False)
        data = frame(3, 65535)
        p.driver.send(data, layout)
        p.driver.send(data + b"x", layout)
        p.driver.publish()
        assert p.device.take() == [data, Reason.OVER_MTU]
        assert len(p.driver.reap()) == 2


class TestDeliver:
    """Device to driver: frames arrive whole and in order, or are counted; nothing else changes."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(size=sizes, start=starts, features=features,
           pieces=st.sampled_from([(1,), (2, 1), (5,), (16, 2, 1)]),
           posts=st.lists(st.tuples(st.one_of(st.integers(12, 400), st.just(1526),
                                              st.just(65547)), layouts), max_size=20),
           batches=st.lists(st.lists(lengths, min_size=1, max_size=12), min_size=1, max_size=3))
    def test_any_buffers(self, regions, size, start, features, pieces, posts, batches) -> None:
        p = pair(regions, size, features, start, receive=True)
        for room, layout in posts:
            with contextlib.suppress(MemoryError):
                p.driver.add(room, layout)
        p.driver.publish()
        frames = [[frame(10 * b + k, n) for k, n in enumerate(batch)]
                  for b, batch in enumerate(batches)]
        expected, dropped = model(p.driver, frames)
        sent = 0
        for batch in frames:
            p.device.place(batch, pieces)
            with p.watched():
                sent += p.device.deliver(batch, pieces)
        assert p.driver.receive_frames() == expected
        assert (sent, p.device.drops) == (len(expected), dropped)
        assert p.device.error is None


def model(driver: PlainDriver, batches: list[list[bytes]]) -> tuple[list[bytes], dict[str, int]]:
    """What a device does with frames and the receive buffers available, as simply as can be."""
    rooms = [chain.capacity for chain in driver.chains.values()]
    received, dropped = [], {"no_buffers": 0, "small_buffer": 0}
    for batch in batches:
        for k, data in enumerate(batch):
            need, used = driver.header + len(data), 0
            while need > 0 and used < len(rooms) and (used == 0 or driver.merge):
                need -= rooms[used]
                used += 1
            if need <= 0:
                received.append(data)
                del rooms[:used]
            elif rooms and not driver.merge:
                dropped["small_buffer"] += 1
            else:
                dropped["no_buffers"] += len(batch) - k
                break
    return received, {name: n for name, n in dropped.items() if n}


class TestNotifications:
    """Calls exactly when the specification says so (2.7.7, 2.7.10)."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(features=st.sampled_from([VERSION_1, VERSION_1 | EVENT_IDX]), start=starts,
           steps=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([None, 0, 1, 3, 70])),
                          min_size=1, max_size=12))
    def test_calls(self, regions, features, start, steps) -> None:
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        p = pair(regions, 8, features, start, receive=False, call=fd)
        p.device.queue["signalled"] = start
        p.device.queue["signalled_valid"] = 1
        due = 0
        for n, after in steps:
            if after is None:
                p.driver.refuse_calls()
            else:
                p.driver.ask_for_calls(after)
            for k in range(n):
                p.driver.send(frame(k, 60), Layout())
            p.driver.publish()
            p.device.take()
            due += p.driver.call_is_due()
            p.driver.reap()
        assert p.device.calls == due
        assert (os.eventfd_read(fd) if due else 0) == due
        os.close(fd)

    def test_the_first_call_after_a_start_is_always_made(self, regions) -> None:
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        p = pair(regions, 8, VERSION_1 | EVENT_IDX, 0, receive=False, call=fd)
        p.driver.ask_for_calls(5)
        p.driver.send(frame(0, 60), Layout())
        p.driver.publish()
        p.device.take()
        assert os.eventfd_read(fd) == 1
        os.close(fd)
