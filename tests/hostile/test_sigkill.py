# SPDX-License-Identifier: Apache-2.0
"""A process that runs the device's machine code is killed: the next one finds every buffer.

tests/oracles cuts the interpreted kernels after each store, one after the other; here the compiled
ones are cut wherever the signal meets them. A child plays the device on memory shared with this
process, which plays a strict driver. So that the signal comes in the middle of a burst, and not
when the scheduler finds time for it, the child's own timer kills it. BYWAY_KILLS: how many (60,
shared by the variants).
"""

import os
import random
import signal
from collections.abc import Callable

import pytest

from byway.machine.jit import prepare
from byway.machine.layout import address_of
from byway.machine.regions import Region
from byway.testing.device import Device
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import (
    EVENT_IDX,
    IN_ORDER,
    MRG_RXBUF,
    RING_PACKED,
    VERSION_1,
    PlainQueue,
)
from byway.testing.ring_kernels import device_borrow, device_deliver, device_return
from byway.vhost import recovery
from byway.vhost.inflight import part_bytes
from byway.vhost.ring import Ring
from byway.virtio.repair import REPAIR_ENTRIES
from byway.virtio.ring import PACKED_START

pytestmark = pytest.mark.compiled_only

KILLS = int(os.environ.get("BYWAY_KILLS", "60"))
GPA, SIZE = 0x1000_0000, 2048
PART = part_bytes(SIZE, True)
SPLIT, PACKED = VERSION_1 | MRG_RXBUF | EVENT_IDX, VERSION_1 | MRG_RXBUF | RING_PACKED | EVENT_IDX
VARIANTS = (SPLIT, PACKED, PACKED | IN_ORDER)
NAMES = ("split", "packed", "in order")
BURST_SECONDS = 120e-6  # what a child needs for all buffers, about
LAYOUTS = (Layout(), Layout((20,)), Layout((10, 20)))
BUFFER = 40
FRAMES = [bytes([k]) * 100 for k in range(1, 65)]  # three buffers each: less to copy than to note
Arm = Callable[[], None]


@pytest.fixture(scope="module", autouse=True)
def ready() -> None:
    """A child has no time to compile."""
    prepare((*REPAIR_ENTRIES, device_borrow, device_deliver, device_return))


class World:
    """Memory that both processes have: the guest's, and the in-flight region."""

    def __init__(self, features: int, receive: bool) -> None:
        self.features, self.packed = features, bool(features & RING_PACKED)
        size = 1 << 23
        self.shared = Region.create(size, "byway-sigkill")
        self.part = self.shared.address + size - PART
        self.regions = [(GPA, self.shared.address, size - PART)]
        guest = PlainMemory(self.regions)
        make = PlainPackedDriver if self.packed else PlainDriver
        self.driver: PlainQueue = make(guest, SIZE, features, receive=receive)
        self.device = self.begin()

    def begin(self) -> Device:
        """A back end takes the ring up."""
        ring = Ring(0)
        ring.size, ring.packed, ring.ready = SIZE, self.packed, True
        ring.base = PACKED_START if self.packed else 0
        host = self.driver.memory.host
        ring.desc, ring.avail, ring.used = (
            host(getattr(self.driver, name)) for name in ("desc", "avail", "used"))
        problem = recovery.start(self.part, SIZE, ring, 0)
        assert problem == ""
        if not self.packed:
            ring.base = int.from_bytes(
                self.driver.memory.read(self.driver.used + 2, 2), "little")  # type: ignore[attr-defined]
        self.device = Device(self.regions, SIZE, ring.desc, ring.avail, ring.used, self.features,
                             start=ring.base)
        self.device.queue["inflight"] = self.part if self.packed else 0
        return self.device


def killed(world: World, burst: Callable[[Device, Arm], None], seconds: float) -> None:
    """A child recovers, begins its burst, and is killed so much later (or has ended by then)."""

    def arm() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))

    child = os.fork()
    if child == 0:
        status = 1
        try:
            device = world.begin()
            world.shared.view[::4096] |= 0  # no page is to be waited for in the burst
            burst(device, arm)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0


def deliver(device: Device, arm: Arm = lambda: None) -> None:
    """Deliver until there is no buffer left for a frame."""
    device.place(FRAMES)
    arguments = (device.address, device.batch.address, address_of(device.selected), len(FRAMES))
    arm()
    while device_deliver(*arguments):
        pass


@pytest.mark.parametrize("features", VARIANTS, ids=NAMES)
def test_while_it_delivers(features: int) -> None:
    rng = random.Random(features)
    world = World(features, True)
    driver = world.driver
    posted = returned = 0

    for _ in range(KILLS // 6):
        while driver.room >= 3:
            driver.add(BUFFER, LAYOUTS[posted % 3])
            posted += 1
        driver.publish()
        killed(world, deliver, rng.random() * BURST_SECONDS)
        world.begin()  # what the next one does first
        frames = driver.receive_frames()
        assert all(frame in FRAMES for frame in frames)
        returned += 3 * len(frames)
        assert len(driver.outstanding()) == posted - returned
    deliver(world.begin())
    returned += 3 * len(driver.receive_frames())
    assert len(driver.outstanding()) == posted - returned < 3
    world.shared.close()


@pytest.mark.parametrize("features", VARIANTS, ids=NAMES)
def test_while_it_takes(features: int) -> None:
    rng = random.Random(features)
    world = World(features, False)
    driver = world.driver
    sent = back = 0

    def take(device: Device, arm: Arm) -> None:
        arm()
        while device_borrow(device.address, device.batch.address):
            device_return(device.address, device.batch.address)

    for _ in range(KILLS // 6):
        while driver.room >= 3:
            driver.send(sent.to_bytes(4, "little") * 100, LAYOUTS[sent % 3])
            sent += 1
        driver.publish()
        killed(world, take, rng.random() * BURST_SECONDS)
        world.begin()
        back += len(driver.reap())
        assert len(driver.outstanding()) == sent - back
    world.begin().take()
    back += len(driver.reap())
    assert (back, driver.outstanding()) == (sent, [])
    world.shared.close()
