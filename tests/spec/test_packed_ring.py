# SPDX-License-Identifier: Apache-2.0
"""The packed virtqueue byte for byte (VIRTIO 1.2, section 2.8), by hand-written rings."""

import ctypes
from collections.abc import Iterator

import pytest

from byway.machine.regions import Region
from byway.testing.device import Device
from byway.testing.ring_kernels import device_sleep, device_wake
from byway.virtio import ring
from byway.virtio.features import Feature, mask

MODERN = mask(Feature.VERSION_1, Feature.RING_PACKED)
EVENT = MODERN | mask(Feature.EVENT_IDX)
DESC, DRIVER_EVENT, DEVICE_EVENT = 0x000, 0x100, 0x104
FIRST_LAP, SECOND_LAP = ring.WRAP, 0  # the positions of slot 0


def test_constants() -> None:
    """2.8.1: VIRTQ_DESC_F_AVAIL and USED; 2.8.3, 2.8.6, 2.8.7; 2.8.10: RING_EVENT_FLAGS_*."""
    assert (ring.AVAIL, ring.USED) == (1 << 7, 1 << 15)
    assert (ring.NEXT, ring.WRITE, ring.INDIRECT) == (1, 2, 4)
    assert (ring.EVENT_ENABLE, ring.EVENT_DISABLE, ring.EVENT_AT_SLOT) == (0, 1, 2)
    assert (ring.EVENT_WORD, ring.EVENT_FLAGS) == (0, 2)
    assert (ring.WRAP, ring.PACKED_START, ring.MAX_SIZE) == (1 << 15, 1 << 15, 1 << 15)


@pytest.mark.parametrize("size", [1, 3, 256, 32768])
@pytest.mark.parametrize("event", [False, True])
def test_sizes(size: int, event: bool) -> None:
    """2.8.10.1: both event suppression structures have 4 bytes, whatever was negotiated."""
    assert ring.avail_bytes(size, event, packed=True) == 4
    assert ring.used_bytes(size, event, packed=True) == 4


@pytest.fixture
def memory() -> Iterator[Region]:
    made = Region.create(0x4000)
    yield made
    made.close()


def put(memory: Region, at: int, text: str) -> None:
    data = bytes.fromhex(text)
    ctypes.memmove(memory.address + at, data, len(data))


def got(memory: Region, at: int, n: int) -> str:
    return ctypes.string_at(memory.address + at, n).hex(" ", 2)


def device(memory: Region, features: int = MODERN, size: int = 3,
           start: int = FIRST_LAP) -> Device:
    """The guest's memory begins at guest address 0x10000."""
    at = memory.address
    return Device([(0x10000, at, memory.size)], size, at + DESC, at + DRIVER_EVENT,
                  at + DEVICE_EVENT, features, start=start)


def position(device: Device) -> tuple[int, int]:
    """(available, used) position words."""
    return int(device.queue["last_avail"][0]), int(device.queue["used_idx"][0])


FRAME = bytes(range(0x40, 0x40 + 14))


class TestTransmitted:
    """Frames from the driver: readable buffers."""

    def test_the_first_lap(self, memory: Region) -> None:
        """2.8.13: le64 addr, le32 len, le16 id, le16 flags. 2.8.1: available are 0x0080 in the
        first lap, used 0x8080. 2.8.6: a chain is used by one descriptor in its first slot, with the
        id of its last; the slots behind it are passed over."""
        put(memory, DESC, "0010010000000000" "0c000000" "0000" "8100"  # 0: header, and on
                          "0011010000000000" "0e000000" "0700" "8000"  # 1: frame
                          "0020010000000000" "1a000000" "ff03" "8000")  # 2: both
        put(memory, 0x1100, FRAME.hex())
        put(memory, 0x2000, bytes(12).hex() + FRAME[::-1].hex())
        d = device(memory)
        assert d.take() == [FRAME, FRAME[::-1]]
        assert got(memory, DESC + 8, 8) == "0000 0000 0700 8080"
        assert got(memory, DESC + 16, 16) == "0011 0100 0000 0000 0e00 0000 0700 8000"
        assert got(memory, DESC + 40, 8) == "0000 0000 ff03 8080"
        assert position(d) == (SECOND_LAP, SECOND_LAP), "2.8.1: after the last slot it changes"

    def test_the_second_lap(self, memory: Region) -> None:
        """Available are 0x8000, used 0x0000; what is used of the lap before is not available."""
        put(memory, DESC, "0020010000000000" "1a000000" "0500" "0080"
                          "0000000000000000" "00000000" "0600" "8080"
                          "0000000000000000" "00000000" "0700" "8080")
        put(memory, 0x2000, bytes(12).hex() + FRAME.hex())
        d = device(memory, start=SECOND_LAP)
        assert d.take() == [FRAME]
        assert got(memory, DESC + 8, 8) == "0000 0000 0500 0000"
        assert position(d) == (1, 1)

    def test_a_chain_over_the_end(self, memory: Region) -> None:
        """2.8.21.1: its descriptors behind the end carry the flags of the next lap; the used
        descriptor has those of the lap of its slot."""
        put(memory, DESC, "0011010000000000" "0e000000" "0900" "0080"
                          "0000000000000000" "00000000" "0000" "8080"
                          "0010010000000000" "0c000000" "0000" "8100")
        put(memory, 0x1100, FRAME.hex())
        d = device(memory, start=2 | ring.WRAP)
        assert d.take() == [FRAME]
        assert got(memory, DESC + 40, 8) == "0000 0000 0900 8080"
        assert got(memory, DESC + 8, 8) == "0e00 0000 0900 0080"
        assert position(d) == (1, 1)

    def test_an_indirect_table(self, memory: Region) -> None:
        """2.8.7: the table's entries follow one another; only WRITE counts in their flags, and
        their ids say nothing. WRITE says nothing in the descriptor that refers to the table."""
        put(memory, DESC, "0030010000000000" "30000000" "0800" "8600")
        put(memory, 0x3000, "0010010000000000" "0c000000" "3333" "0000"
                            "0011010000000000" "07000000" "4444" "0580"
                            "0017010000000000" "07000000" "5555" "0100")
        put(memory, 0x1100, FRAME[:7].hex())
        put(memory, 0x1700, FRAME[7:].hex())
        d = device(memory, MODERN | mask(Feature.INDIRECT_DESC))
        assert d.take() == [FRAME]
        assert got(memory, DESC + 8, 8) == "0000 0000 0800 8080"
        assert position(d) == (1 | ring.WRAP, 1 | ring.WRAP)

    def test_a_batch_in_order(self, memory: Region) -> None:
        """2.8.8: one used descriptor, in the first one's slot, with the id of the last."""
        put(memory, DESC, "0020010000000000" "1a000000" "0100" "8000"
                          "0020010000000000" "1a000000" "0200" "8000")
        put(memory, 0x2000, bytes(12).hex() + FRAME.hex())
        d = device(memory, MODERN | mask(Feature.IN_ORDER))
        assert d.take() == [FRAME, FRAME]
        assert got(memory, DESC + 8, 8) == "0000 0000 0200 8080"
        assert got(memory, DESC + 16, 16) == "0020 0100 0000 0000 1a00 0000 0200 8000"
        assert position(d) == (2 | ring.WRAP, 2 | ring.WRAP)

    @pytest.mark.parametrize("flags", ["0000", "8080", "0080"])
    def test_nothing_is_available(self, memory: Region, flags: str) -> None:
        """2.8.1: in the first lap only AVAIL without USED is; a ring begins as zeros (2.8.13)."""
        put(memory, DESC, "0020010000000000" "1a000000" "0100" + flags)
        before = got(memory, 0, 0x200)
        d = device(memory)
        assert d.take() == []
        assert got(memory, 0, 0x200) == before
        assert position(d) == (FIRST_LAP, FIRST_LAP)


class TestReceived:
    """Frames to the driver: writable buffers."""

    def test_one_buffer(self, memory: Region) -> None:
        """2.8.3, 2.8.4: used with WRITE, and the number of bytes written."""
        put(memory, DESC, "0010010000000000" "00080000" "0300" "8200")
        put(memory, 0x1000, "a5" * 40)
        d = device(memory)
        assert d.deliver([FRAME]) == 1
        assert got(memory, DESC + 8, 8) == "1a00 0000 0300 8280"
        assert got(memory, 0x1000, 28) == \
            "0000 0000 0000 0000 0000 0100 4041 4243 4445 4647 4849 4a4b 4c4d a5a5"
        assert position(d) == (1 | ring.WRAP, 1 | ring.WRAP)

    def test_several_buffers(self, memory: Region) -> None:
        """2.8.9, 5.1.6.4: a frame over three buffers, the last of them in the next lap."""
        put(memory, DESC, "0030010000000000" "10000000" "0600" "0280"
                          "0010010000000000" "10000000" "0400" "8200"
                          "0020010000000000" "08000000" "0500" "8200")
        d = device(memory, MODERN | mask(Feature.MRG_RXBUF), start=1 | ring.WRAP)
        assert d.deliver([FRAME]) == 1
        assert [got(memory, DESC + 16 * k + 8, 8) for k in (1, 2, 0)] == [
            "1000 0000 0400 8280", "0800 0000 0500 8280", "0200 0000 0600 0200"]
        assert got(memory, 0x1000, 16) == "0000 0000 0000 0000 0000 0300 4041 4243"
        assert got(memory, 0x2000, 8) == "4445 4647 4849 4a4b"
        assert got(memory, 0x3000, 4) == "4c4d 0000"
        assert position(d) == (1, 1)

    def test_an_unusable_buffer(self, memory: Region) -> None:
        """2.8.3: without WRITE where nothing was written."""
        put(memory, DESC, "0010010000000000" "00080000" "0300" "8000")
        d = device(memory)
        assert d.deliver([FRAME]) == 0
        assert got(memory, DESC + 8, 8) == "0000 0000 0300 8080"


class TestEventSuppression:
    """2.8.14: le16 slot and wrap counter, le16 flags."""

    def test_with_event_idx(self, memory: Region) -> None:
        d = device(memory, EVENT, start=2 | ring.WRAP)
        device_sleep(d.address)
        assert got(memory, DRIVER_EVENT, 8) == "0000 0000 0280 0200"
        device_wake(d.address)
        assert got(memory, DEVICE_EVENT + 2, 2) == "0100"
        put(memory, DESC + 32, "0010010000000000" "1a000000" "0000" "8000")
        assert device_sleep(d.address) == 1
        d.take()
        assert device_sleep(d.address) == 0
        assert got(memory, DEVICE_EVENT, 4) == "0000 0200", "slot 0 of the next lap"

    def test_without(self, memory: Region) -> None:
        d = device(memory)
        device_wake(d.address)
        assert got(memory, DEVICE_EVENT, 4) == "0000 0100"
        device_sleep(d.address)
        assert got(memory, DEVICE_EVENT + 2, 2) == "0000"
