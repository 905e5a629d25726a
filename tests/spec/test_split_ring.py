# SPDX-License-Identifier: Apache-2.0
"""The split virtqueue byte for byte (VIRTIO 1.2, section 2.7), by hand-written rings."""

import ctypes
from collections.abc import Iterator
from contextlib import closing

import pytest

from byway.machine.layout import address_of, alloc
from byway.machine.mem import st16, st32
from byway.machine.regions import Region
from byway.packet.counters import COUNTERS
from byway.testing.device import Device
from byway.testing.entries import guest_sleep, guest_wake
from byway.testing.ring_kernels import device_sleep, device_wake
from byway.virtio import ring
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask

MODERN = mask(Feature.VERSION_1)
EVENT = mask(Feature.VERSION_1, Feature.EVENT_IDX)
DESC, AVAIL, USED, BUFFERS = 0x000, 0x100, 0x200, 0x1000


def test_constants() -> None:
    """2.7.5: VIRTQ_DESC_F_*; 2.7.6: VIRTQ_AVAIL_F_NO_INTERRUPT; 2.7.8: VIRTQ_USED_F_NO_NOTIFY."""
    assert (ring.NEXT, ring.WRITE, ring.INDIRECT) == (1, 2, 4)
    assert ring.AVAIL_NO_INTERRUPT == ring.USED_NO_NOTIFY == 1
    assert (ring.DESCRIPTOR, ring.INDEX, ring.ENTRIES, ring.MAX_SIZE) == (16, 2, 4, 32768)


@pytest.mark.parametrize(("size", "avail", "used"), [
    (1, 8, 14), (2, 10, 22), (256, 518, 2054), (1024, 2054, 8198), (32768, 65542, 262150)])
def test_sizes(size: int, avail: int, used: int) -> None:
    """2.7: 6 + 2 * size and 6 + 8 * size; without EVENT_IDX the last word may not be there."""
    assert (ring.avail_bytes(size, True), ring.used_bytes(size, True)) == (avail, used)
    assert (ring.avail_bytes(size, False), ring.used_bytes(size, False)) == (avail - 2, used - 2)


@pytest.mark.parametrize("size", [1, 8, 256, 32768])
def test_alignment(size: int) -> None:
    """2.7: descriptor table 16, available ring 2, used ring 4."""
    desc, avail, used, buffers = DriverQueue.parts(size)
    assert (desc % 16, avail % 2, used % 4) == (0, 0, 0)
    assert avail >= desc + 16 * size
    assert used >= avail + ring.avail_bytes(size, True)
    assert buffers >= used + ring.used_bytes(size, True)


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


def device(memory: Region, features: int, size: int = 4) -> Device:
    """The guest's memory begins at guest address 0x10000."""
    at = memory.address
    return Device([(0x10000, at, memory.size)], size, at + DESC, at + AVAIL, at + USED, features)


FRAME = bytes(range(0x40, 0x40 + 14))


def test_a_transmitted_frame(memory: Region) -> None:
    """2.7.5: le64 addr, le32 len, le16 flags, le16 next. 2.7.8: le32 id, le32 len; len is 0."""
    put(memory, DESC, "0010010000000000" "0c000000" "0100" "0200"  # 0: header, then 2
                      "0000000000000000" "00000000" "0000" "0000"
                      "0011010000000000" "0e000000" "0000" "0000"  # 2: frame
                      "0020010000000000" "1a000000" "0000" "0000")  # 3: header and frame
    put(memory, AVAIL, "0000" "0200" "0000" "0300" "ffff" "ffff")
    put(memory, 0x1100, FRAME.hex())
    put(memory, 0x2000, bytes(12).hex() + FRAME[::-1].hex())
    assert device(memory, MODERN).take() == [FRAME, FRAME[::-1]]
    assert got(memory, USED, 24) == \
        "0000 0200 0000 0000 0000 0000 0300 0000 0000 0000 0000 0000"


def test_an_indirect_table(memory: Region) -> None:
    """2.7.5.3: the table's descriptors are linked by next, from entry 0 on."""
    put(memory, DESC + 16, "0030010000000000" "30000000" "0400" "0000")
    put(memory, 0x3000, "0010010000000000" "0c000000" "0100" "0200"
                        "0017010000000000" "07000000" "0000" "0000"
                        "0011010000000000" "07000000" "0100" "0100")
    put(memory, AVAIL, "0000" "0100" "0100")
    put(memory, 0x1100, FRAME[:7].hex())
    put(memory, 0x1700, FRAME[7:].hex())
    assert device(memory, MODERN | mask(Feature.INDIRECT_DESC)).take() == [FRAME]
    assert got(memory, USED, 12) == "0000 0100 0100 0000 0000 0000"


def test_a_received_frame(memory: Region) -> None:
    """2.7.8: len is the number of bytes written, the header's among them."""
    put(memory, DESC + 32, "0010010000000000" "00080000" "0200" "0000")
    put(memory, AVAIL, "0000" "0100" "0200")
    put(memory, 0x1000, "a5" * 40)
    assert device(memory, MODERN).deliver([FRAME]) == 1
    assert got(memory, USED, 12) == "0000 0100 0200 0000 1a00 0000"
    assert got(memory, 0x1000, 28) == \
        "0000 0000 0000 0000 0000 0100 4041 4243 4445 4647 4849 4a4b 4c4d a5a5"


def test_where_the_device_writes_what_it_wants_to_be_told(memory: Region) -> None:
    """2.7.10: avail_event follows the used ring's entries; flags are then left at 0."""
    d = device(memory, EVENT)
    put(memory, AVAIL, "0000" "0100" "0000")
    put(memory, DESC, "0010010000000000" "1a000000" "0000" "0000")
    d.take()
    assert device_sleep(d.address) == 0
    device_wake(d.address)
    assert got(memory, USED, 40) == "0000 0100" + " 0000" * 16 + " 0100 0000"
    d = device(memory, MODERN)
    device_wake(d.address)
    assert got(memory, USED, 2) == "0100"
    device_sleep(d.address)
    assert got(memory, USED, 2) == "0000"


COUNTING = alloc(COUNTERS, 1)


def driver(memory: Region, features: int, receive: bool) -> DriverQueue:
    made = DriverQueue(memory, 0, 0x10000, 4, 0x800, receive)
    made.start(features, address_of(COUNTING), 1514)
    return made


def test_what_a_driver_posts(memory: Region) -> None:
    """2.7.13: descriptors, then entries, then the index."""
    with closing(driver(memory, MODERN, True)) as queue:
        queue.post_all()
        assert got(memory, 0, 32) == ("0010 0100 0000 0000 0008 0000 0200 0000 "
                                      "0018 0100 0000 0000 0008 0000 0200 0000")
        assert got(memory, queue.avail - memory.address, 12) == \
            "0000 0400 0000 0100 0200 0300"


def test_where_the_driver_writes_what_it_wants_to_be_told(memory: Region) -> None:
    """2.7.7: used_event follows the available ring's entries."""
    with closing(driver(memory, EVENT, True)) as queue:
        st16(queue.used + 2, 2)
        for k in range(2):
            st32(queue.used + 4 + 8 * k, k)
        queue.record["used_seen"] = 2
        assert guest_sleep(queue.address) == 0
        assert got(memory, queue.avail - memory.address, 14) == \
            "0000 0000 0000 0000 0000 0000 0200"
    with closing(driver(memory, MODERN, True)) as queue:
        guest_wake(queue.address)
        assert got(memory, queue.avail - memory.address, 2) == "0100"
        guest_sleep(queue.address)
        assert got(memory, queue.avail - memory.address, 2) == "0000"
