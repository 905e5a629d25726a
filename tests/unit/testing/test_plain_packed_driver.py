# SPDX-License-Identifier: Apache-2.0
"""The plain packed driver: what it writes, and that it catches devices that break rules."""

import struct

import numpy as np
import pytest

from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver, Position, passed
from byway.testing.plain_queue import (
    EVENT_IDX,
    GUEST_CSUM,
    GUEST_TSO4,
    HASH_REPORT,
    IN_ORDER,
    INDIRECT_DESC,
    MRG_RXBUF,
    RING_PACKED,
    VERSION_1,
    DeviceError,
)

FRAME = bytes(range(60))
PACKED = VERSION_1 | RING_PACKED


class LyingDevice:
    """A device written by hand, which may do anything; its position and wrap counter."""

    def __init__(self, features: int = 0, *, receive: bool = True, size: int = 5,
                 start: int = 0x8000, ids: tuple[int, ...] = ()) -> None:
        self.area = np.zeros(1 << 16, np.uint8)
        self.memory = PlainMemory([(0x1000, self.area.ctypes.data, self.area.size)])
        self.driver = PlainPackedDriver(self.memory, size, features | PACKED, receive=receive,
                                        start=start, ids=ids)
        self.slot, self.wrap = start & 0x7FFF, start >> 15

    def descriptor(self, slot: int) -> tuple[int, int, int, int]:
        """(addr, len, id, flags)."""
        return struct.unpack("<QIHH", self.memory.read(self.driver.desc + 16 * slot, 16))

    def put(self, name: int, length: int, data: bytes = b"", *, slots: int = 0,
            flags: int | None = None) -> None:
        """One used descriptor, ``data`` into the chain's pieces; moves on by its slots."""
        chain = self.driver.chains.get(name)
        for gpa, n in chain.places if chain and data else ():
            self.memory.write(gpa, data[:n])
            data = data[n:]
        if flags is None:
            flags = (0x8080 if self.wrap else 0) | (2 if length else 0)
        self.memory.write(self.driver.desc + 16 * self.slot,
                          struct.pack("<QIHH", 0xDEAD, length, name, flags))
        for _ in range(slots or (len(chain.descriptors) if chain else 1)):
            self.slot += 1
            if self.slot == self.driver.size:
                self.slot, self.wrap = 0, 1 - self.wrap


def header(buffers: int = 1, size: int = 12) -> bytes:
    return (bytes(10) + struct.pack("<H", buffers)).ljust(size, b"\0")


class TestWhatIsWritten:
    """2.8.6, 2.8.13, 2.8.21.1."""

    def test_a_chain_across_the_wrap(self) -> None:
        d = LyingDevice(receive=False, start=0x8003)
        name = d.driver.send(FRAME, Layout((12, 20)))
        assert d.descriptor(3)[3] == 0, "hidden until it is published"
        d.driver.publish()
        read = [d.descriptor(slot) for slot in (3, 4, 0)]
        assert [(n, flags) for _, n, _, flags in read] == [(12, 0x81), (20, 0x81), (40, 0x8000)]
        assert [i == name for _, _, i, _ in read] == [False, False, True]
        assert d.driver.next_avail == Position(1, 0, 5)
        assert d.driver.room == 2

    def test_receive_buffers_and_tables(self) -> None:
        d = LyingDevice(INDIRECT_DESC, size=2)
        d.driver.add(100, Layout((40,), direct=1))
        d.driver.add(50, Layout())
        d.driver.publish()
        table, length, _, flags = d.descriptor(0)
        assert (length, flags) == (32, 0x84)
        inside = [struct.unpack("<QIHH", d.memory.read(table + 16 * k, 16)) for k in range(2)]
        assert [(n, flags) for _, n, _, flags in inside] == [(40, 2), (60, 2)]
        assert d.descriptor(1)[3] == 0x82
        with pytest.raises(MemoryError, match="descriptors"):
            d.driver.add(50, Layout())

    def test_laps_and_ids(self) -> None:
        d = LyingDevice(receive=False, size=3, ids=(65535, 7, 900))
        seen = []
        for _ in range(7):
            name = d.driver.send(FRAME, Layout())
            d.driver.publish()
            seen.append((d.slot, *d.descriptor(d.slot)[2:]))
            d.put(name, 0)
            assert d.driver.reap() == [name]
        assert seen == [(0, 65535, 0x80), (1, 7, 0x80), (2, 900, 0x80), (0, 65535, 0x8000),
                        (1, 7, 0x8000), (2, 900, 0x8000), (0, 65535, 0x80)]

    @pytest.mark.parametrize("start", [0, 2, 4, 0x8000, 0x8002, 0x8004])
    def test_a_ring_begins_with_nothing_available_or_used(self, start: int) -> None:
        d = LyingDevice(receive=False, start=start)
        for slot in range(5):
            available, used = d.descriptor(slot)[3] >> 7 & 1, d.descriptor(slot)[3] >> 15
            lap = start >> 15 if slot >= start & 0x7FFF else 1 - (start >> 15)
            assert available == used != lap
        name = d.driver.send(FRAME, Layout())
        d.driver.publish()
        assert d.driver.reap() == []
        d.put(name, 0)
        assert d.driver.reap() == [name]


class TestUsed:
    def test_in_any_order(self) -> None:
        """2.8.6: the used descriptor of the first one done lies where the first one available."""
        d = LyingDevice(receive=False)
        first = d.driver.send(FRAME, Layout((12,)))
        second = d.driver.send(FRAME, Layout())
        d.driver.publish()
        d.put(second, 0)
        assert d.driver.reap() == [second]
        assert d.driver.room == 3
        third = d.driver.send(FRAME, Layout((12, 20)))
        d.driver.publish()
        assert d.driver.reap() == []
        d.put(first, 0)
        d.put(third, 0)
        assert d.driver.reap() == [first, third]

    def test_a_batch_in_order(self) -> None:
        """2.8.8: one used descriptor, in the first one's place, names the last."""
        d = LyingDevice(IN_ORDER, receive=False, start=0x8003)
        names = [d.driver.send(FRAME, Layout(cuts)) for cuts in ((), (12,), ())]
        d.driver.publish()
        d.put(names[2], 0, slots=4)
        assert d.driver.reap() == names
        assert d.driver.next_used == Position(2, 0, 5)
        d = LyingDevice(receive=False)
        names = [d.driver.send(FRAME, Layout()) for _ in range(2)]
        d.driver.publish()
        d.put(names[1], 0)
        assert d.driver.reap() == [names[1]], "without the feature it stands for itself"

    def test_a_length_counts_with_the_write_flag_only(self) -> None:
        d = LyingDevice()
        name = d.driver.add(100, Layout())
        d.driver.publish()
        d.put(name, 77, flags=0x8080)
        assert d.driver.receive_frames() == [None]

    @pytest.mark.parametrize("flags", [0x8000, 0x80, 0, 0x8081, 0x8084, 0x8180])
    def test_flags(self, flags: int) -> None:
        d = LyingDevice(receive=False)
        name = d.driver.send(FRAME, Layout())
        d.driver.publish()
        d.put(name, 0, flags=flags)
        with pytest.raises(DeviceError, match="of a used descriptor in the lap"):
            d.driver.reap()

    @pytest.mark.parametrize("name", [4 ^ 0xFFFF, 3, 9])
    def test_a_name_that_is_none(self, name: int) -> None:
        d = LyingDevice(receive=False)
        assert d.driver.send(FRAME, Layout((12,))) == 4
        d.driver.publish()
        d.put(name, 0)
        with pytest.raises(DeviceError, match="not the name of a chain"):
            d.driver.reap()

    def test_given_back_twice(self) -> None:
        d = LyingDevice(receive=False)
        names = [d.driver.send(FRAME, Layout()) for _ in range(2)]
        d.driver.publish()
        d.put(names[0], 0)
        d.put(names[0], 0)
        with pytest.raises(DeviceError, match="not the name of a chain"):
            d.driver.reap()

    def test_before_it_is_published(self) -> None:
        d = LyingDevice(receive=False)
        d.driver.send(FRAME, Layout())
        d.driver.publish()
        hidden = d.driver.send(FRAME, Layout())
        d.put(hidden, 0)
        with pytest.raises(DeviceError, match="not the name of a chain"):
            d.driver.reap()

    @pytest.mark.parametrize("slot", [1, 2])
    def test_a_slot_that_is_not_the_next(self, slot: int) -> None:
        d = LyingDevice(receive=False)
        name = d.driver.send(FRAME, Layout((12,)))
        d.driver.send(FRAME, Layout())
        d.driver.publish()
        d.put(name, 0)
        d.memory.write(d.driver.desc + 16 * slot, b"\1")
        with pytest.raises(DeviceError, match=rf"slot {slot}|of a used descriptor"):
            d.driver.reap()

    def test_a_readable_buffer(self) -> None:
        d = LyingDevice(receive=False)
        name = d.driver.send(FRAME, Layout())
        d.driver.publish()
        d.put(name, 0, b"\1")
        with pytest.raises(DeviceError, match="wrote into readable chain"):
            d.driver.reap()
        name = d.driver.send(FRAME, Layout())
        d.driver.publish()
        d.put(name, 1)
        with pytest.raises(DeviceError, match="that is readable"):
            d.driver.reap()


class TestFrames:
    def test_merged(self) -> None:
        d = LyingDevice(MRG_RXBUF)
        names = [d.driver.add(40, Layout((20,))) for _ in range(2)]
        d.driver.publish()
        d.put(names[0], 40, header(2) + FRAME[:28])
        d.put(names[1], 32, FRAME[28:])
        assert d.driver.receive_frames() == [FRAME]

    def test_a_full_buffer_may_be_skipped_in_order(self) -> None:
        d = LyingDevice(MRG_RXBUF | IN_ORDER)
        names = [d.driver.add(40, Layout()) for _ in range(2)]
        d.driver.publish()
        data = header(2) + FRAME
        d.memory.write(d.driver.chains[names[0]].places[0][0], data[:40])
        d.put(names[1], 32, data[40:], slots=2)
        assert d.driver.receive_frames() == [FRAME]

    @pytest.mark.parametrize("size", [12, 20])
    def test_headers_of_any_size(self, size: int) -> None:
        d = LyingDevice(HASH_REPORT * (size == 20))
        name = d.driver.add(100, Layout((5,)))
        d.driver.publish()
        d.put(name, size + 60, header(1, size) + FRAME)
        assert d.driver.receive_frames() == [FRAME]
        assert d.driver.headers == [header(1, size)]

    @pytest.mark.parametrize(("features", "fields", "sound"), [
        (0, (1, 0, 0, 0, 34, 16), False), (GUEST_CSUM, (1, 0, 0, 0, 34, 16), True),
        (GUEST_CSUM, (2, 0, 0, 0, 0, 0), True), (GUEST_CSUM, (4, 0, 0, 0, 0, 0), False),
        (GUEST_CSUM, (1, 0, 0, 0, 50, 16), False),
        (GUEST_CSUM, (1, 1, 54, 20, 34, 16), False),
        (GUEST_CSUM | GUEST_TSO4, (1, 1, 54, 20, 34, 16), True),
        (GUEST_CSUM | GUEST_TSO4, (0, 1, 54, 20, 0, 0), False),
        (GUEST_CSUM | GUEST_TSO4, (1, 1, 54, 0, 34, 16), False),
        (GUEST_CSUM | GUEST_TSO4, (1, 0x81, 54, 20, 34, 16), False),
        (GUEST_CSUM | GUEST_TSO4, (1, 4, 54, 20, 34, 16), False)])
    def test_offloads(self, features: int, fields: tuple[int, ...], sound: bool) -> None:
        """5.1.6.4.1: what was not negotiated must not come."""
        d = LyingDevice(features)
        name = d.driver.add(100, Layout())
        d.driver.publish()
        d.put(name, 72, struct.pack("<BBHHHHH", *fields, 1) + FRAME)
        if sound:
            assert d.driver.receive_frames() == [FRAME]
        else:
            with pytest.raises(DeviceError, match=r"chain \d: header"):
                d.driver.receive_frames()


class TestNotifications:
    def test_kicks(self) -> None:
        d = LyingDevice(EVENT_IDX, receive=False, start=0x8003)
        answers = []
        for word, flags in ((0, 0), (0x8004, 1), (0, 2), (0, 2), (0x8000, 2)):
            d.memory.write(d.driver.used, struct.pack("<HH", word, flags))
            d.driver.send(FRAME, Layout())
            answers.append(d.driver.publish())
        assert answers == [True, False, True, False, False], "only slot 0 of the lap with wrap 0"

    @pytest.mark.parametrize(("features", "word", "flags"), [
        (0, 0, 2), (EVENT_IDX, 0, 3), (EVENT_IDX, 0, 4), (EVENT_IDX, 5, 2)])
    def test_nonsense(self, features: int, word: int, flags: int) -> None:
        d = LyingDevice(features, receive=False)
        d.memory.write(d.driver.used, struct.pack("<HH", word, flags))
        with pytest.raises(DeviceError, match=r"asks for an event|event suppression says"):
            d.driver.publish()

    @pytest.mark.parametrize("features", [0, EVENT_IDX])
    def test_calls(self, features: int) -> None:
        d = LyingDevice(features, receive=False)
        names = [d.driver.send(FRAME, Layout()) for _ in range(5)]
        d.driver.publish()
        d.driver.ask_for_calls(after=1)
        due = [d.driver.call_is_due()]
        for name in names[:3]:
            d.put(name, 0)
            due.append(d.driver.call_is_due())
        assert due == ([False, False, True, False] if features else [False, True, True, True])
        d.driver.refuse_calls()
        d.put(names[3], 0)
        assert not d.driver.call_is_due()
        d.driver.ask_for_all_calls()
        d.put(names[4], 0)
        assert d.driver.call_is_due()
        assert d.driver.reap() == names

    def test_passed(self) -> None:
        old, new = Position(3, 1, 4), Position(1, 0, 4)
        assert passed(0x8003, old, new)
        assert passed(0, old, new)
        assert not passed(1, old, new)
        assert not passed(3, old, new), "another lap"
        assert not passed(0x8003, old, old)
        assert passed(2, Position(2, 0, 4), Position(2, 1, 4)), "a whole lap"
