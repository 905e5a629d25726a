# SPDX-License-Identifier: Apache-2.0
"""A plain driver and our device on one virtqueue of either format, and any such virtqueue.

Used by test_rings.py and test_ring_offloads.py.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.testing.arena import Arena
from byway.testing.device import Device
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import (
    EVENT_IDX,
    HASH_REPORT,
    IN_ORDER,
    INDIRECT_DESC,
    MRG_RXBUF,
    RING_PACKED,
    VERSION_1,
    PlainQueue,
)

GPA = 0x4000_0000
FIRST, SECOND = 3 << 20, 1 << 20  # two regions, the second right behind the first for the guest
LOG = (GPA + FIRST + SECOND) // 4096 // 8  # bytes of a dirty log that knows both
EXAMPLES = 60 if INTERPRETED else 150
SPLIT, PACKED = VERSION_1, VERSION_1 | RING_PACKED
FORMATS = [SPLIT, PACKED]


@dataclass
class Pair:
    """A plain driver and our device on one virtqueue."""

    driver: PlainQueue
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


@dataclass(frozen=True)
class Setup:
    """A virtqueue as negotiated. ``start``: any 16-bit number; a packed ring's position follows."""

    size: int
    features: int = VERSION_1
    start: int = 0
    ids: tuple[int, ...] = field(default=(), repr=False)

    @property
    def position(self) -> int:
        """Where both sides begin: an index, or slot | wrap."""
        if self.features & RING_PACKED:
            return (self.start & 0x7FFF) % self.size | (~self.start & 0x8000)
        return self.start


def pair(regions: list[tuple[int, int, int]], setup: Setup, receive: bool, call: int = -1,
         log: int = 0) -> Pair:
    memory = PlainMemory(regions)
    for region in range(len(regions)):  # pages of any number
        memory.take(4096 * (setup.start % 8), 1, region)
    driver: PlainQueue
    if setup.features & RING_PACKED:
        driver = PlainPackedDriver(memory, setup.size, setup.features, receive=receive,
                                   start=setup.position, ids=setup.ids)
    else:
        driver = PlainDriver(memory, setup.size, setup.features, receive=receive,
                             start=setup.position)
    device = Device(regions, setup.size, memory.host(driver.desc), memory.host(driver.avail),
                    memory.host(driver.used), setup.features, start=setup.position, call=call,
                    log=log)
    assert device.queue["header"][0] == driver.header
    arena = Arena()
    device.allow(arena)
    for _, host, n in regions:
        arena.allow(f"guest {host:#x}", host, n, shared=True)
    return Pair(driver, device, arena)


def frame(number: int, length: int) -> bytes:
    """A frame whose every byte depends on its number."""
    return bytes((number * 37 + k * 11 + (k >> 8)) & 0xFF for k in range(length))


starts = st.sampled_from([0, 1, 2, 6, 99, 65530, 65535, 32767, 32768])
base = st.sampled_from([0, VERSION_1, VERSION_1 | MRG_RXBUF, PACKED, PACKED | MRG_RXBUF])
extras = st.lists(st.sampled_from([EVENT_IDX, IN_ORDER]), unique=True).map(sum)


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    """Both formats, with any features; packed: any size, and ids that are not the slot."""
    features = draw(base) | draw(extras) | INDIRECT_DESC
    if features & VERSION_1 and draw(st.integers(0, 4)) == 0:
        features |= HASH_REPORT
    if not features & RING_PACKED:
        return Setup(draw(st.sampled_from([1, 2, 4, 8, 32, 256, 32768])), features, draw(starts))
    size = draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 32, 100, 255, 32768]))
    ids: tuple[int, ...] = ()
    if size <= 255 and draw(st.booleans()):
        ids = tuple((k * 40503 + 7) & 0xFFFF for k in range(size))
    return Setup(size, features, draw(starts), ids)


layouts = st.builds(
    Layout,
    st.lists(st.one_of(st.sampled_from([0, 1, 2, 10, 11, 12, 13, 14, 20, 26, 64, 128, 140]),
                       st.integers(0, 700)), max_size=6).map(tuple),
    st.one_of(st.none(), st.integers(0, 3)),
    st.sampled_from([0, 3]))
lengths = st.one_of(st.sampled_from([14, 60, 64, 116, 127, 128, 129, 192, 1500, 1514, 9014]),
                    st.integers(14, 2000))


def pages(regions: list[tuple[int, int, int]]) -> dict[int, bytes]:
    """The guest's first two regions, page by page."""
    memory = PlainMemory(regions)
    return {page: memory.read(4096 * page, 4096)
            for gpa, _, n in regions[:2] for page in range(gpa // 4096, (gpa + n) // 4096)}


def check_log(device: Device, before: dict[int, bytes], after: dict[int, bytes]) -> None:
    """Every page that changed is named, and none that is not the guest's."""
    changed = {page for page in before if before[page] != after[page]}
    assert changed <= device.dirty <= set(before)


def model(driver: PlainQueue, batches: list[list[bytes]]) -> tuple[list[bytes], dict[str, int]]:
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
