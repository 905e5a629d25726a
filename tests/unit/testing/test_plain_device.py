# SPDX-License-Identifier: Apache-2.0
"""The plain device: what it finds wrong with a driver, and that plain drivers please it."""

import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guarded import Guarded
from byway.testing.plain_device import (
    DriverError,
    PlainDevice,
    PlainPackedDevice,
    PlainSplitDevice,
    plain_device,
)
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import (
    EVENT_IDX,
    IN_ORDER,
    MRG_RXBUF,
    RING_PACKED,
    VERSION_1,
)
from tests.running import RunningSwitch

PACKED = VERSION_1 | RING_PACKED
DESC, AVAIL, USED, BUFFERS = 0x1000, 0x2000, 0x3000, 0x4000
PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "test-a-driver.md"


@pytest.fixture
def memory() -> Iterator[PlainMemory]:
    area = Guarded(1 << 16)
    yield PlainMemory([(0, area.address, area.size)])
    area.close()


def made(memory: PlainMemory, features: int, size: int = 4) -> PlainDevice:
    return plain_device(memory, size, features, DESC, AVAIL, USED)


def split(memory: PlainMemory, index: int, entries: list[int],
          table: list[tuple[int, int, int, int]]) -> None:
    """A table of (address, bytes, flags, next), and an available ring."""
    memory.write(DESC, b"".join(struct.pack("<QIHH", *d) for d in table))
    memory.write(AVAIL, struct.pack(f"<HH{len(entries)}H", 0, index, *entries))


def packed(memory: PlainMemory, *descriptors: tuple[int, int, int, int]) -> None:
    """Descriptors (address, bytes, id, flags)."""
    memory.write(DESC, b"".join(struct.pack("<QIHH", *d) for d in descriptors))


class TestSplit:
    def test_what_is_right(self, memory: PlainMemory) -> None:
        split(memory, 1, [2], [(0, 0, 0, 0), (BUFFERS + 8, 20, 2, 0), (BUFFERS, 8, 1, 1)])
        memory.write(BUFFERS, b"12345678")
        device = made(memory, VERSION_1)
        chain, = device.take()
        assert (chain.name, chain.descriptors, chain.capacity) == (2, 2, 20)
        assert device.content(chain) == b"12345678"
        assert device.fill(chain, b"x" * 30) == 20
        device.use([chain], [20])
        assert memory.read(USED, 12).hex() == "00000100" "02000000" "14000000"

    @pytest.mark.parametrize(("index", "entries", "table", "message"), [
        (5, [0], [], "5 chains available"),
        (1, [4], [], "leaves the table"),
        (1, [0], [(BUFFERS, 8, 1, 0)], "loops"),
        (1, [0], [(BUFFERS, 8, 1, 7)], "leaves the table"),
        (1, [0], [(BUFFERS, 8, 3, 1), (BUFFERS, 8, 0, 0)], "readable descriptor behind"),
        (2, [0, 0], [(BUFFERS, 8, 0, 0)], "made available while the device had it"),
        (1, [0], [(BUFFERS, 0, 0, 0)], "empty descriptor"),
        (1, [0], [(BUFFERS, 16, 4, 0)], "an indirect descriptor")])
    def test_what_is_wrong(self, memory: PlainMemory, index: int, entries: list[int],
                           table: list[tuple[int, int, int, int]], message: str) -> None:
        split(memory, index, entries, table)
        with pytest.raises(DriverError, match=message):
            made(memory, VERSION_1).take()

    def test_out_of_order(self, memory: PlainMemory) -> None:
        table = [(BUFFERS, 8, 0, 0)] * 4
        split(memory, 2, [0, 2], table)
        made(memory, VERSION_1).take()
        with pytest.raises(DriverError, match="descriptor 2 where 1 is next"):
            made(memory, VERSION_1 | IN_ORDER).take()

    def test_memory_that_is_not_there(self, memory: PlainMemory) -> None:
        split(memory, 1, [0], [(1 << 20, 8, 0, 0)])
        with pytest.raises(ValueError, match="in no region"):
            made(memory, VERSION_1).take()


class TestPacked:
    def test_what_is_right(self, memory: PlainMemory) -> None:
        packed(memory, (BUFFERS, 8, 9, 0x81), (BUFFERS + 8, 20, 9, 0x82))
        device = made(memory, PACKED)
        chain, = device.take()
        assert (chain.name, chain.descriptors, chain.capacity) == (9, 2, 20)
        device.use([chain], [5])
        assert memory.read(DESC + 8, 8).hex() == "05000000" "0900" "8280"
        assert device.take() == []

    @pytest.mark.parametrize(("descriptors", "message"), [
        ([(BUFFERS, 8, 0, 0x81)], "slot 1, in a chain, is not available"),
        ([(BUFFERS, 8, 0, 0x81), (BUFFERS, 8, 0, 0x8000)], "slot 1, in a chain, is not available"),
        ([(BUFFERS, 8, 0, 0x83), (BUFFERS, 8, 0, 0x80)], "readable descriptor behind"),
        ([(BUFFERS, 8, 5, 0x80)] * 2, "made available while the device had it"),
        ([(BUFFERS, 8, 0, 0x88)], "flags 0x88"),
        ([(BUFFERS, 8, 0, 0x84)], "an indirect descriptor")])
    def test_what_is_wrong(self, memory: PlainMemory,
                           descriptors: list[tuple[int, int, int, int]], message: str) -> None:
        packed(memory, *descriptors)
        with pytest.raises(DriverError, match=message):
            made(memory, PACKED).take()

    @pytest.mark.parametrize("flags", [0, 0x8000, 0x8080])
    def test_what_is_not_available(self, memory: PlainMemory, flags: int) -> None:
        packed(memory, (BUFFERS, 8, 0, flags))
        assert made(memory, PACKED).take() == []

    def test_where_it_begins(self, memory: PlainMemory) -> None:
        """A base of slot 3 in the second lap: AVAIL clear, USED set."""
        packed(memory, *[(BUFFERS, 8, 0, 0x8080)] * 3, (BUFFERS, 8, 7, 0x8000))
        device = plain_device(memory, 4, PACKED, DESC, AVAIL, USED, 3)
        assert [chain.name for chain in device.take()] == [7]


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | EVENT_IDX, PACKED, PACKED | EVENT_IDX,
                                      VERSION_1 | IN_ORDER, PACKED | IN_ORDER])
def test_it_and_the_plain_drivers_agree(memory: PlainMemory, features: int) -> None:
    """Each holds the other to the specification: frames both ways, several times around."""
    for receive in (False, True):
        kind = PlainPackedDriver if features & RING_PACKED else PlainDriver
        driver = kind(memory, 8, features, receive=receive)
        device = plain_device(memory, 8, features, driver.desc, driver.avail, driver.used)
        assert isinstance(device, PlainPackedDevice if features & RING_PACKED
                          else PlainSplitDevice)
        for k in range(20):
            frame = bytes([k]) * 60
            device.ask_for_kicks()
            driver.ask_for_calls()
            if receive:
                driver.add(200, Layout((12,)))
                assert driver.publish()
                assert device.kick_is_due()
                assert device.deliver([frame]) == 1
                assert driver.receive_frames() == [frame]
            else:
                driver.send(frame, Layout((12,)))
                assert driver.publish()
                assert device.frames() == [(bytes(12), frame)]
                assert len(driver.reap()) == 1
            assert device.call_is_wanted()


def test_a_frame_that_is_merged(memory: PlainMemory) -> None:
    driver = PlainDriver(memory, 8, VERSION_1 | MRG_RXBUF, receive=True)
    device = plain_device(memory, 8, VERSION_1 | MRG_RXBUF, driver.desc, driver.avail, driver.used)
    for _ in range(3):
        driver.add(40, Layout())
    driver.publish()
    assert device.deliver([bytes(80), bytes(60)]) == 1
    assert driver.receive_frames() == [bytes(80)]


def test_the_manual(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page on testing drivers does what it says."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec(compile("".join(blocks), str(PAGE), "exec"), names)
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.add("vhost-user", "vm1", queues=2)
        switch.vhost("vm2")
        with switch.guest("vm2", 2) as other:
            greeting = threading.Thread(target=names["greet"], args=(switch.socket("vm1"),))
            greeting.start()
            assert other.receive_until(1)[0][14:19] == b"hello"
            assert other.send([ethernet(BROADCAST, other.mac, TEST_ETHERTYPE, b"welcome")]) == 1
            greeting.join(10.0)
    assert "welcome" in capsys.readouterr().out
