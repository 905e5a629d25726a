# SPDX-License-Identifier: Apache-2.0
"""A translation that is taken away, or replaced, between two looks of one chain walk.

The control thread changes the cache while workers read it; whatever a walk finds, no segment may
lie at an address that was not in the cache.
"""

import ctypes
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from byway.machine.dual import Watch
from byway.machine.layout import address_of, alloc
from byway.testing.device import Device
from byway.testing.guarded import PAGE, Guarded
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_queue import INDIRECT_DESC, VERSION_1
from byway.virtio.iotlb import IOTLB, READ, WRITE, entry_of, place_of
from byway.virtio.memtab import MEMTAB

pytestmark = pytest.mark.interpreted_only
PAGES = 16
FEATURES = VERSION_1 | INDIRECT_DESC


class Translated:
    """A memory whose pages a device finds in a translation cache only."""

    def __init__(self) -> None:
        self.memory = Guarded(PAGES * PAGE)
        self.table, self.iotlb = alloc(MEMTAB, 1), alloc(IOTLB, 1)
        self.table["iotlb"], self.iotlb["alarm"] = address_of(self.iotlb), -1
        self.entries = self.iotlb["entries"][0].view("u8")
        self.fill()

    def fill(self) -> None:
        """Every page is known."""
        for page in range(PAGES):
            place, word = entry_of(page, self.memory.address + page * PAGE, READ | WRITE)
            self.entries[place] = word

    def places(self) -> set[int]:
        """The addresses of the words."""
        start = address_of(self.iotlb) + int(IOTLB.fields["entries"][1])
        return {start + 8 * place_of(page) for page in range(PAGES)}


class Taker:
    """Empties the cache behind the ``nth`` look at it."""

    def __init__(self, translated: Translated, nth: int) -> None:
        self._entries, self._places = translated.entries, translated.places()
        self.left = nth

    def see(self, name: str, arguments: tuple[Any, ...]) -> None:
        """As Watch.see: before the operation is done."""
        if arguments and arguments[0] in self._places and name.startswith("ld64"):
            if self.left == 0:
                self._entries[:] = 0
            self.left -= 1


@pytest.fixture
def translated() -> Iterator[Translated]:
    made = Translated()
    yield made
    made.memory.close()


@pytest.mark.parametrize("receive", [False, True])
@pytest.mark.parametrize("layout", [Layout((12,)), Layout((12, 30, 10), direct=0)])
def test_a_walk_looks_once_at_each_page(translated: Translated, receive: bool,
                                        layout: Layout) -> None:
    memory = translated.memory
    for nth in range(60):
        translated.fill()
        plain = PlainMemory([(0, memory.address, memory.size)])
        driver = PlainDriver(plain, 4, FEATURES, receive=receive)
        device = Device([], 4, plain.host(driver.desc), plain.host(driver.avail),
                        plain.host(driver.used), FEATURES)
        device.queue["memtab"] = address_of(translated.table)
        if receive:
            driver.add(400, layout)
            device.place([bytes(300)])
        else:
            driver.send(bytes(300), layout)
        driver.publish()
        taker = Taker(translated, nth)
        Watch.see = taker.see
        try:
            if receive:
                device.deliver([bytes(300)])  # a store to address 0 would end the process
                found = []
            else:
                device.borrow()
                found = segments(device)
        finally:
            Watch.see = None
        assert all(memory.address <= at < memory.address + memory.size for at in found), nth
        if taker.left > 0:
            return  # it looked less often than that
    raise AssertionError("it looks too often")



def segments(device: Device) -> list[int]:
    """Where the pieces of the only row lie."""
    row = device.batch.rows[0]
    if not int(device.batch.record["n"][0]) or not int(row["len"]):
        return []
    listed = ctypes.string_at(int(row["segs"]), 16 * int(row["nsegs"])) if row["nsegs"] else b""
    return [int(row["addr"]), *(at for at, _ in struct.iter_unpack("=qq", listed))]


def test_a_table_over_two_pages(translated: Translated) -> None:
    """All pages are known, so nothing is missed, however the table lies: a frame, or a reason."""
    memory = translated.memory
    memory.view[:] = 0
    at, table = memory.address, 3 * PAGE - 8
    device = Device([], 4, at, at + 64, at + 128, FEATURES)
    device.queue["memtab"] = address_of(translated.table)
    elements = struct.pack("<QIHHQIHH", 4 * PAGE, 12, 1, 1, 4 * PAGE + 12, 60, 0, 0)
    ctypes.memmove(at, struct.pack("<QIHH", table, len(elements), 4, 0), 16)
    ctypes.memmove(at + table, elements, len(elements))
    ctypes.memmove(at + 64, struct.pack("<HHH", 0, 1, 0), 6)
    assert len(device.take()) == 1
    assert not translated.iotlb["slots"].any()
