# SPDX-License-Identifier: Apache-2.0
"""The device's side of both kinds of virtqueue against the plain drivers, over the same memory.

Guarded memory: a byte read or written outside ends the process (compiled) or the test
(interpreted, under an Arena, where double fetches are found as well).
"""

import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.packet.reason import Reason
from byway.testing.plain_memory import Layout
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import (
    EVENT_IDX,
    IN_ORDER,
    INDIRECT_DESC,
    MRG_RXBUF,
    RING_PACKED,
)
from tests.oracles.rings import (
    EXAMPLES,
    FORMATS,
    LOG,
    PACKED,
    SPLIT,
    Setup,
    check_log,
    frame,
    layouts,
    lengths,
    model,
    pages,
    pair,
    setups,
    starts,
)


class TestReceive:
    """Driver to device: what was sent is what is borrowed, and every buffer comes back once."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(setup=setups(), logged=st.booleans(), batches=st.lists(
        st.lists(st.tuples(lengths, layouts), min_size=1, max_size=12), min_size=1, max_size=4))
    def test_any_layout(self, regions, setup, logged, batches) -> None:
        p = pair(regions, setup, receive=False, log=LOG * logged)
        total = 0
        for batch in batches:
            sent = []
            for number, (length, layout) in enumerate(batch):
                data = frame(number + len(batch), length)
                try:
                    p.driver.send(data, layout)
                except MemoryError:
                    break
                sent.append(data)
            names = list(p.driver.chains)
            p.driver.publish()
            before = pages(regions) if logged else {}
            with p.watched():
                got = p.device.take()
            if logged:
                check_log(p.device, before, pages(regions))
            assert got == sent
            assert p.driver.reap() == names
            assert p.device.error is None
            total += len(sent)
        assert int(p.device.counters["frames"][0]) == total

    @pytest.mark.parametrize(("features", "sizes"), [
        (SPLIT, (1, 64, 128, 1024)), (PACKED, (1, 3, 5, 63, 64, 65, 100, 129, 1000)),
        (PACKED | IN_ORDER, (1, 3, 5, 63, 64, 65, 100, 129, 1000))])
    def test_a_full_ring_of_every_size(self, regions, features, sizes) -> None:
        for size in sizes:
            p = pair(regions, Setup(size, features, 65500), receive=False)
            for lap in range(3):
                sent = [frame(k + lap, 60) for k in range(size)]
                for data in sent:
                    p.driver.send(data, Layout())
                p.driver.publish()
                assert p.device.take() == sent
                assert len(p.driver.reap()) == size

    @pytest.mark.parametrize("size", [3, 5, 7, 100])
    @pytest.mark.parametrize("features", [PACKED, PACKED | IN_ORDER])
    def test_chains_over_the_end_of_the_ring(self, regions, features, size) -> None:
        """From each slot and in each lap, chains of each length."""
        p = pair(regions, Setup(size, features), receive=False)
        for lap in range(2 * size if size < 10 else 60):
            pieces = 1 + lap % min(size, 9)
            data = frame(lap, 60 + lap)
            p.driver.send(data, Layout((5,) * (pieces - 1)))
            p.driver.publish()
            with p.watched():
                assert p.device.take() == [data]
            assert len(p.driver.reap()) == 1
            assert int(p.device.queue["used_idx"][0]) == p.driver.next_used.word

    def test_in_order_one_used_descriptor_returns_a_batch(self, regions) -> None:
        """2.8.8: the other slots stay as the driver wrote them."""
        p = pair(regions, Setup(7, PACKED | IN_ORDER, 5), receive=False)
        for cuts in ((), (12,), (3, 9), ()):
            p.driver.send(frame(1, 60), Layout(cuts))
        p.driver.publish()
        before = p.driver.memory.read(p.driver.desc, 16 * 7)
        assert len(p.device.take()) == 4
        after = p.driver.memory.read(p.driver.desc, 16 * 7)
        changed = [k for k in range(7) if before[16 * k : 16 * k + 16] != after[16 * k :][:16]]
        assert changed == [5]
        assert len(p.driver.reap()) == 4

    @pytest.mark.parametrize("features", FORMATS)
    @pytest.mark.parametrize("header", [
        b"\x01" + bytes(11), b"\0\x01" + bytes(10), b"\xff" * 12, bytes(10) + b"\x07\0"])
    @pytest.mark.parametrize("layout", [Layout(), Layout((12,)), Layout((1, 3)), Layout((12,), 1)])
    def test_the_header_says_nothing_without_offloads(
            self, regions, features: int, header: bytes, layout: Layout) -> None:
        """5.1.6.2: all its fields hang on features that were not negotiated."""
        p = pair(regions, Setup(8, features | INDIRECT_DESC), receive=False)
        data = frame(1, 70)
        p.driver.send(data, layout, header)
        p.driver.publish()
        assert p.device.take() == [data]
        assert len(p.driver.reap()) == 1

    @pytest.mark.parametrize("features", FORMATS)
    @pytest.mark.parametrize("total", [0, 1, 11, 12, 13, 25])
    def test_a_frame_that_is_too_short(self, regions, features, total) -> None:
        p = pair(regions, Setup(8, features), receive=False)
        p.driver.add(total, Layout((1,)), bytes(total))
        p.driver.add(total, Layout(), bytes(total))
        p.driver.publish()
        assert p.device.take() == [Reason.RUNT, Reason.RUNT]
        assert len(p.driver.reap()) == 2

    @pytest.mark.parametrize("features", FORMATS)
    @pytest.mark.parametrize("layout", [Layout(), Layout((12,)), Layout((12, 32768))])
    def test_the_longest_frame(self, regions, features, layout) -> None:
        """65535 bytes of IP behind an Ethernet header with two tags."""
        p = pair(regions, Setup(8, features), receive=False)
        data = frame(3, 65535 + 22)
        p.driver.send(data, layout)
        p.driver.send(data + b"x", layout)
        p.driver.publish()
        assert p.device.take() == [data, Reason.OVER_MTU]
        assert len(p.driver.reap()) == 2


class TestDeliver:
    """Device to driver: frames arrive whole and in order, or are counted; nothing else changes."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(setup=setups(), logged=st.booleans(),
           pieces=st.sampled_from([(1,), (2, 1), (5,), (16, 2, 1)]),
           posts=st.lists(st.tuples(st.one_of(st.integers(20, 400), st.just(1526),
                                              st.just(65547)), layouts), max_size=20),
           batches=st.lists(st.lists(lengths, min_size=1, max_size=12), min_size=1, max_size=3))
    def test_any_buffers(self, regions, setup, logged, pieces, posts, batches) -> None:
        p = pair(regions, setup, receive=True, log=LOG * logged)
        for room, layout in posts:
            with contextlib.suppress(MemoryError):
                p.driver.add(room, layout)
        p.driver.publish()
        frames = [[frame(10 * b + k, n) for k, n in enumerate(batch)]
                  for b, batch in enumerate(batches)]
        expected, dropped = model(p.driver, frames)
        before = pages(regions) if logged else {}
        sent = 0
        for batch in frames:
            p.device.place(batch, pieces)
            with p.watched():
                sent += p.device.deliver(batch, pieces)
        if logged:
            check_log(p.device, before, pages(regions))
        assert p.driver.receive_frames() == expected
        assert (sent, p.device.drops) == (len(expected), dropped)
        assert p.device.error is None

    @pytest.mark.parametrize("features", [PACKED, PACKED | IN_ORDER, SPLIT, SPLIT | IN_ORDER])
    def test_frames_over_many_buffers_and_laps(self, regions, features) -> None:
        """Merged frames of 1 to 5 buffers, of 1 to 3 descriptors each, round and round."""
        size = 23 if features & RING_PACKED else 32
        p = pair(regions, Setup(size, features | MRG_RXBUF, 20), receive=True)
        for lap in range(40):
            with contextlib.suppress(MemoryError):
                for k in range(100):
                    p.driver.add(100, Layout((30, 50)[: (k + lap) % 3]))
            p.driver.publish()
            frames = [frame(lap + k, 60 + 97 * (lap + k) % 420) for k in range(3)]
            expected, _ = model(p.driver, [frames])
            assert p.device.deliver(frames, (1, 3)) == len(expected) > 0
            assert p.driver.receive_frames() == expected


class TestNotifications:
    """Calls exactly when the specification says so (2.7.7, 2.7.10, 2.8.10)."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(setup=st.builds(
               Setup, st.just(8), st.sampled_from([SPLIT, SPLIT | EVENT_IDX]), starts)
           | st.builds(Setup, st.sampled_from([3, 6, 7, 8, 100]),
                       st.sampled_from([PACKED, PACKED | EVENT_IDX, PACKED | EVENT_IDX | IN_ORDER]),
                       starts),
           steps=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([None, -1, 0, 1, 3, 7, 70])),
                          min_size=1, max_size=12))
    def test_calls(self, regions, setup, steps) -> None:
        """``steps``: how many frames, and after how many a call is wanted (-1: after each)."""
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        p = pair(regions, setup, receive=False, call=fd)
        p.device.queue["signalled"] = setup.position
        p.device.queue["signalled_valid"] = 1
        due = 0
        for n, after in steps:
            if after is None:
                p.driver.refuse_calls()
            elif after < 0 and isinstance(p.driver, PlainPackedDriver):
                p.driver.ask_for_all_calls()
            else:
                p.driver.ask_for_calls(max(after, 0) % (2 * setup.size))
            for k in range(min(n, setup.size)):
                p.driver.send(frame(k, 60), Layout((20,)[: k % 2 if n <= 3 < setup.size else 0]))
            p.driver.publish()
            p.device.take()
            due += p.driver.call_is_due()
            p.driver.reap()
        assert p.device.calls == due
        assert (os.eventfd_read(fd) if due else 0) == due
        os.close(fd)

    @pytest.mark.parametrize("features", FORMATS)
    def test_the_first_call_after_a_start_is_always_made(self, regions, features) -> None:
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        p = pair(regions, Setup(8, features | EVENT_IDX), receive=False, call=fd)
        p.driver.ask_for_calls(5)
        p.driver.send(frame(0, 60), Layout())
        p.driver.publish()
        p.device.take()
        assert os.eventfd_read(fd) == 1
        os.close(fd)
