# SPDX-License-Identifier: Apache-2.0
"""Byway's device, killed after any store into memory: its driver misses no buffer and no frame.

The real kernels of both ring formats (interpreted), strict plain drivers, and the recovery that a
back end makes when it comes back. A frame that was being sent may be sent twice; one that was being
delivered may be lost, as frames may. A buffer comes back once, and merged frames come whole.
"""

from collections.abc import Iterator

import pytest

from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import (
    IN_ORDER,
    INDIRECT_DESC,
    MRG_RXBUF,
    RING_PACKED,
    VERSION_1,
    PlainQueue,
)
from byway.vhost import recovery
from byway.vhost.inflight import part_bytes
from byway.vhost.ring import Ring
from byway.virtio.ring import PACKED_START, WRAP
from tests.oracles.inflight import Killed, Room, cut

pytestmark = pytest.mark.interpreted_only

GPA, SIZE = 0x1000_0000, 1 << 18
SPLIT, PACKED = VERSION_1 | MRG_RXBUF, VERSION_1 | MRG_RXBUF | RING_PACKED
LAYOUTS = (Layout(), Layout((200,)), Layout((100, 200)), Layout((300,), direct=0))


@pytest.fixture(scope="module")
def memory() -> Iterator[Guarded]:
    made = Guarded(SIZE)
    yield made
    made.close()


class World:
    """A driver, its in-flight region, and one device after the other."""

    def __init__(self, memory: Guarded, features: int, receive: bool, start: int) -> None:
        self.regions = [(GPA, memory.address, SIZE)]
        guest = PlainMemory(self.regions)
        features |= INDIRECT_DESC
        self.features, self.packed = features, bool(features & RING_PACKED)
        self.size = 11 if self.packed else 16
        self.driver: PlainQueue = (
            PlainPackedDriver(guest, self.size, features, receive=receive, start=start)
            if self.packed else
            PlainDriver(guest, self.size, features, receive=receive, start=start))
        self.part = Room(part_bytes(self.size, self.packed))
        self.start = start
        self.device = self.begin()

    def begin(self) -> Device:
        """A back end takes the ring up."""
        ring = Ring(0)
        ring.size, ring.packed, ring.base, ring.ready = self.size, self.packed, self.start, True
        host = self.driver.memory.host
        ring.desc, ring.avail, ring.used = (
            host(getattr(self.driver, name)) for name in ("desc", "avail", "used"))
        assert recovery.start(self.part.address, self.size, ring, 0) == ""
        base = ring.base if self.packed else int.from_bytes(
            self.driver.memory.read(self.driver.used + 2, 2), "little")  # type: ignore[attr-defined]
        self.device = Device(self.regions, self.size, ring.desc, ring.avail, ring.used,
                             self.features, start=base)
        self.device.queue["inflight"] = self.part.address if self.packed else 0
        return self.device


def post(world: World) -> int:
    """Make as many receive buffers available as there is room for; -> how many."""
    driver, n = world.driver, 0
    while True:
        layout = LAYOUTS[n % len(LAYOUTS)]
        if driver.room < driver.descriptors_for(400, layout):
            driver.publish()
            return n
        driver.add(400, layout)
        n += 1


FRAMES = [bytes([k]) * 900 for k in range(1, 4)]  # three buffers each


def receiving(memory: Guarded, features: int, start: int, after: int) -> bool:
    """-> whether the device lived shorter than it had to do."""
    world = World(memory, features, True, start)
    posted = post(world)
    killed = False
    got: list[bytes | None] = []
    try:
        with cut(after):
            for frame in FRAMES:
                world.device.deliver([frame])
            world.device.deliver([FRAMES[0]] * 3)
    except Killed:
        killed = True
    world.begin()  # the driver looks at more than it may, were it asked before
    got += world.driver.receive_frames()
    for _ in range(3):
        posted += post(world)
        while world.device.deliver(FRAMES):
            pass
        got += world.driver.receive_frames()
    assert None not in got
    assert all(frame in FRAMES for frame in got)
    # What is left is too little for a frame, and belongs to the device.
    assert len(world.driver.outstanding()) == posted - 3 * len(got)
    assert len(world.driver.outstanding()) < 3
    assert len(got) >= 6
    return killed


def sending(memory: Guarded, features: int, start: int, after: int) -> bool:
    """-> whether the device lived shorter than it had to do."""
    world = World(memory, features, False, start)
    seen: list[object] = []
    sent = []

    def send(n: int) -> None:
        for k in range(n):
            layout = LAYOUTS[k % len(LAYOUTS)]
            frame = len(sent).to_bytes(2, "little") * 60
            if world.driver.room >= world.driver.descriptors_for(len(frame) + 12, layout):
                world.driver.send(frame, layout)
                sent.append(frame)
        world.driver.publish()

    killed = False
    send(5)
    back = 0
    try:
        with cut(after):
            while found := world.device.borrow():
                seen += found
                world.device.give_back()
        back += len(world.driver.reap())
    except Killed:
        killed = True
    send(3)
    world.begin()
    back += len(world.driver.reap())
    for _ in range(4):
        seen += world.device.take()
        back += len(world.driver.reap())
        send(4)
    seen += world.device.take()
    back += len(world.driver.reap())
    assert [frame for frame in sent if frame not in seen] == []
    assert (back, world.driver.outstanding()) == (len(sent), [])
    return killed


@pytest.mark.parametrize("play", [receiving, sending])
@pytest.mark.parametrize(("features", "start"), [
    (SPLIT, 0), (SPLIT, 0xFFFE), (SPLIT | IN_ORDER, 3), (PACKED, PACKED_START), (PACKED, 9),
    (PACKED, WRAP | 7), (PACKED | IN_ORDER, 5)])
def test_killed_after_every_store(memory: Guarded, play: object, features: int,
                                  start: int) -> None:
    after = 0
    while play(memory, features, start, after):  # type: ignore[operator]
        after += 1
    assert after > 20
