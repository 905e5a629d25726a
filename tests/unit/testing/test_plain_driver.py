# SPDX-License-Identifier: Apache-2.0
"""The plain driver: its memory, its layouts, and that it catches devices that break rules."""

import struct

import numpy as np
import pytest

from byway.testing.plain_driver import (
    EVENT_IDX,
    INDIRECT_DESC,
    MRG_RXBUF,
    VERSION_1,
    DeviceError,
    Layout,
    PlainDriver,
    PlainMemory,
    crossed,
)

FRAME = bytes(range(60))


class LyingDevice:
    """A device written by hand, which may do anything."""

    def __init__(self, features: int = VERSION_1, *, receive: bool = True, size: int = 4,
                 start: int = 0) -> None:
        self.area = np.zeros(1 << 16, np.uint8)
        self.memory = PlainMemory([(0x1000, self.area.ctypes.data, self.area.size)])
        self.driver = PlainDriver(self.memory, size, features, receive=receive, start=start)
        self.used = start

    def put(self, head: int, length: int, data: bytes = b"") -> None:
        """One used entry, ``data`` into the chain's pieces."""
        at = self.driver.used + 4 + 8 * (self.used % self.driver.size)
        self.memory.write(at, struct.pack("<II", head, length))
        for gpa, n in self.driver.chains[head].places if data else ():
            self.memory.write(gpa, data[:n])
            data = data[n:]
        self.used = (self.used + 1) % 65536
        self.index(self.used)

    def index(self, value: int) -> None:
        self.memory.write(self.driver.used + 2, struct.pack("<H", value % 65536))


def header(buffers: int = 1) -> bytes:
    return bytes(10) + struct.pack("<H", buffers)


class TestReceive:
    def test_what_is_right(self) -> None:
        d = LyingDevice(start=65535)
        for room in (100, 80):
            d.driver.add(room, Layout((12,)))
        heads = list(d.driver.chains)
        d.driver.publish()
        for head in heads[::-1]:
            d.put(head, 72, header() + FRAME)
        assert d.driver.receive_frames() == [FRAME, FRAME]
        assert len(d.driver.free) == 4

    @pytest.mark.parametrize(("length", "data", "message"), [
        (101, b"", "used length 101 of a chain of 100 bytes"),
        (72, b"\x01" + header()[1:] + FRAME, "header 01"),
        (72, header(0) + FRAME, "num_buffers 0"), (72, header(2) + FRAME, "num_buffers 2"),
        (71, header() + FRAME, "beyond its used length 71"), (5, bytes(5), "do not hold a header")])
    def test_what_is_wrong(self, length: int, data: bytes, message: str) -> None:
        d = LyingDevice()
        head = d.driver.add(100, Layout())
        d.driver.publish()
        d.put(head, length, data)
        with pytest.raises(DeviceError, match=message):
            d.driver.receive_frames()

    def test_merged(self) -> None:
        d = LyingDevice(VERSION_1 | MRG_RXBUF)
        heads = [d.driver.add(40, Layout()) for _ in range(2)]
        d.driver.publish()
        d.put(heads[0], 40, header(2) + FRAME[:28])
        d.put(heads[1], 32, FRAME[28:])
        assert d.driver.receive_frames() == [FRAME]

    @pytest.mark.parametrize(("first", "rest", "message"), [
        (30, [32], "not full"), (40, [], "not all published together"), (40, [0], "is empty")])
    def test_merged_wrongly(self, first: int, rest: list[int], message: str) -> None:
        d = LyingDevice(VERSION_1 | MRG_RXBUF)
        heads = [d.driver.add(40, Layout()) for _ in range(2)]
        d.driver.publish()
        d.put(heads[0], first, (header(2) + FRAME)[:first])
        for n in rest:
            d.put(heads[1], n, FRAME[:n])
        with pytest.raises(DeviceError, match=message):
            d.driver.receive_frames()

    def test_an_empty_buffer(self) -> None:
        d = LyingDevice()
        head = d.driver.add(40, Layout())
        d.driver.publish()
        d.put(head, 0)
        assert d.driver.receive_frames() == [None]


class TestUsedRing:
    @pytest.mark.parametrize("index", [2, 65535, 5])
    def test_an_index_that_jumps(self, index: int) -> None:
        d = LyingDevice(receive=False)
        d.driver.send(FRAME, Layout())
        d.driver.publish()
        d.index(index)
        with pytest.raises(DeviceError, match="where 1 were available"):
            d.driver.reap()

    def test_a_head_that_is_none(self) -> None:
        d = LyingDevice(receive=False)
        head = d.driver.send(FRAME, Layout((12,)))
        d.driver.publish()
        d.put(1 - head if head < 2 else head - 1, 0)
        with pytest.raises(DeviceError, match="not the name of a chain"):
            d.driver.reap()

    def test_given_back_twice(self) -> None:
        d = LyingDevice(receive=False)
        heads = [d.driver.send(FRAME, Layout()) for _ in range(2)]
        d.driver.publish()
        d.put(heads[0], 0)
        d.put(heads[0], 0)
        with pytest.raises(DeviceError, match="not the name of a chain"):
            d.driver.reap()

    def test_a_readable_buffer(self) -> None:
        d = LyingDevice(receive=False)
        head = d.driver.send(FRAME, Layout())
        d.driver.publish()
        d.put(head, 0, b"\x01")
        with pytest.raises(DeviceError, match="wrote into readable chain"):
            d.driver.reap()
        head = d.driver.send(FRAME, Layout())
        d.driver.publish()
        d.put(head, 1)
        with pytest.raises(DeviceError, match="that is readable"):
            d.driver.reap()


class TestLayouts:
    @pytest.mark.parametrize(("layout", "taken", "sizes"), [
        (Layout(), 1, [72]), (Layout((12,)), 2, [12, 60]),
        (Layout((12, 0, 20)), 4, [12, 0, 20, 40]), (Layout((12, 20), direct=0), 1, [12, 20, 40]),
        (Layout((12, 20), direct=1), 2, [12, 20, 40]),
        (Layout((100,)), 1, [72]), (Layout((12,), direct=9), 2, [12, 60])])
    def test_pieces_and_descriptors(self, layout: Layout, taken: int, sizes: list[int]) -> None:
        d = LyingDevice(VERSION_1 | INDIRECT_DESC, receive=False)
        head = d.driver.send(FRAME, layout)
        chain = d.driver.chains[head]
        assert layout.sizes(72) == sizes == [n for _, n in chain.places]
        assert len(chain.descriptors) == taken == d.driver.descriptors_for(72, layout)
        assert d.driver.content(chain) == bytes(12) + FRAME

    def test_no_more_than_there_is(self) -> None:
        d = LyingDevice(receive=False)
        d.driver.send(FRAME, Layout((1, 1)))
        with pytest.raises(MemoryError, match="descriptors"):
            d.driver.send(FRAME, Layout((1,)))
        with pytest.raises(MemoryError, match="bytes left in region 0"):
            d.memory.take(1 << 16)


class TestMemory:
    def test_adjacent_regions_are_one_to_the_guest(self) -> None:
        first, second = np.zeros(64, np.uint8), np.zeros(64, np.uint8)
        memory = PlainMemory([(164, second.ctypes.data, 64), (100, first.ctypes.data, 64)])
        memory.write(160, bytes(range(1, 9)))
        assert (first[60:].tolist(), second[:4].tolist()) == ([1, 2, 3, 4], [5, 6, 7, 8])
        assert memory.read(160, 8) == bytes(range(1, 9))
        assert memory.take(60) == 100
        assert memory.take(10) == 160, "runs on into the next one"
        assert memory.take(4, 1, 1) == 170
        for gpa, n in ((99, 1), (227, 2), (1 << 40, 1)):
            with pytest.raises(ValueError, match="in no region"):
                memory.read(gpa, n)


class TestNotifications:
    def test_flags(self) -> None:
        d = LyingDevice(receive=False)
        d.driver.send(FRAME, Layout())
        assert d.driver.publish()
        d.memory.write(d.driver.used, b"\x01\x00")
        d.driver.send(FRAME, Layout())
        assert not d.driver.publish()
        assert not d.driver.call_is_due(), "nothing was used"
        d.put(next(iter(d.driver.chains)), 0)
        d.driver.refuse_calls()
        assert not d.driver.call_is_due()
        d.put(list(d.driver.chains)[1], 0)
        d.driver.ask_for_calls()
        assert d.driver.call_is_due()

    def test_events(self) -> None:
        d = LyingDevice(VERSION_1 | EVENT_IDX, receive=False, start=65534)
        d.memory.write(d.driver.used + 4 + 8 * 4, struct.pack("<H", 65535))
        answers = []
        for _ in range(3):
            d.driver.send(FRAME, Layout())
            answers.append(d.driver.publish())
        assert answers == [False, True, False], "65535 is passed by the second"
        d.driver.ask_for_calls(after=1)
        due = []
        for head in list(d.driver.chains):
            d.put(head, 0)
            due.append(d.driver.call_is_due())
        assert due == [False, True, False]

    def test_crossed(self) -> None:
        assert crossed(event=5, new=6, old=5)
        assert not crossed(event=6, new=6, old=5)
        assert not crossed(event=5, new=5, old=5)
        assert crossed(event=65535, new=1, old=65534)
