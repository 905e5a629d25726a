# SPDX-License-Identifier: Apache-2.0
"""A guest behind an IOMMU: frames over pages that lie anywhere, are not known yet, or are taken
away, through the device's kernels, against the plain drivers."""

import contextlib
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.packet.reason import Reason
from byway.testing.arena import Arena
from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.testing.plain_driver import PlainDriver
from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_packed_driver import PlainPackedDriver
from byway.testing.plain_queue import (
    INDIRECT_DESC,
    MRG_RXBUF,
    RING_PACKED,
    VERSION_1,
    PlainQueue,
)
from byway.vhost.front_channel import INVALIDATE, UPDATE
from byway.vhost.iotlb import REFUSED_SECONDS, RETRY_SECONDS, TRIES, Iotlb
from byway.vhost.payloads import Iotlb as Translation
from byway.virtio.iotlb import PAGE
from tests.unit.vhost.fake_iommu import USER, FakeClock

IOVA = 0xFFFF_0000_0000  # the last 4 GiB of 48 bits, as Linux gives them out
PAGES, RINGS = 512, 8  # the first RINGS pages lie in one piece
EXAMPLES = 12 if INTERPRETED else 30
FORMATS = [VERSION_1, VERSION_1 | MRG_RXBUF, VERSION_1 | RING_PACKED,
           VERSION_1 | RING_PACKED | MRG_RXBUF]


@pytest.fixture(scope="module")
def memory() -> Iterator[Guarded]:
    made = Guarded(PAGES * PAGE)
    yield made
    made.close()


class Scattered(PlainMemory):
    """Pages of a guest's memory in any order, one after the other by their IOVAs."""

    def __init__(self, memory: Guarded, order: list[int]) -> None:
        super().__init__([(IOVA, memory.address, memory.size)])
        self.order = order

    def _pieces(self, gpa: int, n: int) -> list[tuple[int, int]]:
        pieces = []
        while n > 0:
            page, offset = divmod(gpa - IOVA, PAGE)
            piece = min(n, PAGE - offset)
            pieces.append((self.regions[0][1] + self.order[page] * PAGE + offset, piece))
            gpa, n = gpa + piece, n - piece
        return pieces


class Shared:
    """What vhost.memory knows of it."""

    def __init__(self, memory: Guarded) -> None:
        self.memory = memory

    def user_to_host(self, user: int, n: int) -> int | None:
        offset = user - USER
        return self.memory.address + offset if 0 <= offset <= self.memory.size - n else None


class World:
    """Driver, device, translations, and a front end that answers when it is told to."""

    def __init__(self, memory: Guarded, features: int, receive: bool, seed: int = 0) -> None:
        order = list(range(RINGS, PAGES))
        random.Random(seed).shuffle(order)
        self.memory = Scattered(memory, [*range(RINGS), *order])
        self.clock = FakeClock()
        self.asked: list[tuple[int, int]] = []
        self.iotlb = Iotlb(Shared(memory), lambda: None, self.clock.now)  # type: ignore[arg-type]
        self.iotlb.ask = lambda iova, permission: self.asked.append((iova, permission)) is None
        self.iotlb.hear(-1, self.clock.later)
        self.driver: PlainQueue = (PlainPackedDriver if features & RING_PACKED else PlainDriver)(
            self.memory, 64, features | INDIRECT_DESC, receive=receive)
        driver = self.driver
        self.device = Device([], 64, self.memory.host(driver.desc), self.memory.host(driver.avail),
                             self.memory.host(driver.used), features | INDIRECT_DESC)
        self.device.queue["memtab"] = self.iotlb.table
        self.arena = Arena()
        self.device.allow(self.arena)
        self.arena.allow("guest", memory.address, memory.size, shared=True)
        for name, array in (("cache", self.iotlb._record), ("IOMMU's table", self.iotlb._table),
                            *zip(("one list", "other list"), self.iotlb._lists, strict=True)):
            self.arena.allow_array(name, array)

    def watched(self) -> contextlib.AbstractContextManager[object]:
        return self.arena if INTERPRETED else contextlib.nullcontext()

    def map(self, iova: int, permission: int, pages: int = 1) -> None:
        """The front end sends translations, a page at a time."""
        for k in range(pages):
            host = self.memory.order[(iova - IOVA) // PAGE + k]
            self.iotlb.take(Translation(
                iova + k * PAGE, PAGE, USER + host * PAGE, permission, UPDATE))

    def answer(self) -> int:
        """The control thread asks, the front end answers; -> how many questions there were."""
        self.iotlb.serve()
        asked, self.asked = self.asked, []
        for iova, permission in asked:
            self.map(iova, permission)
        return len(asked)

    def forget(self, chance: random.Random) -> None:
        """The guest takes some pages out of its IOMMU."""
        first = chance.randrange(RINGS, PAGES)
        self.iotlb.take(Translation(
            IOVA + first * PAGE, chance.randrange(1, 200) * PAGE, 0, 0, INVALIDATE))


def frame(number: int, length: int) -> bytes:
    return bytes((number * 37 + k * 11 + (k >> 8)) & 0xFF for k in range(length))


layouts = st.builds(Layout, st.lists(st.integers(0, 3000), max_size=5).map(tuple),
                    st.one_of(st.none(), st.integers(0, 2)), st.sampled_from([0, 5000]))
frames = st.lists(st.tuples(st.sampled_from([60, 1514, 5000, 9014, 20_000]), layouts),
                  min_size=1, max_size=10)


@pytest.mark.parametrize("features", FORMATS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(frames, st.integers(0, 1 << 20))
def test_what_a_guest_sends(memory: Guarded, features: int,
                            batch: list[tuple[int, Layout]], seed: int) -> None:
    """Each frame comes whole, in order, once; it waits in the ring for its pages."""
    world, chance = World(memory, features, False, seed), random.Random(seed)
    sent = []
    for number, (length, layout) in enumerate(batch):
        with contextlib.suppress(MemoryError):
            world.driver.send(frame(number, length), layout)
            sent.append(frame(number, length))
    world.driver.publish()
    got: list[bytes | Reason] = []
    for _ in range(40 * len(sent)):
        with world.watched():
            got += world.device.take()
        if len(got) >= len(sent):
            break
        assert world.answer() > 0
        if chance.random() < 0.05:
            world.forget(chance)
    assert got == sent
    assert len(world.driver.reap()) == len(sent)
    assert world.device.error is None


@pytest.mark.parametrize("features", FORMATS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(frames, st.integers(0, 1 << 20))
def test_what_a_guest_receives(memory: Guarded, features: int,
                               batch: list[tuple[int, Layout]], seed: int) -> None:
    """A frame whose buffers are not known is dropped and counted; the buffers stay, and the next
    frame goes into them when they are."""
    world, chance = World(memory, features, True, seed), random.Random(seed)
    room = 0
    for length, layout in batch:
        with contextlib.suppress(MemoryError):
            world.driver.add(length + 12, layout)
            room += 1
    world.driver.publish()
    sent, dropped = [], 0
    for number in range(40 * room):
        data = frame(number, 60 if features & MRG_RXBUF == 0 else chance.choice([60, 1514, 6000]))
        before = dict(world.device.drops)
        with world.watched():
            delivered = world.device.deliver([data])
        if delivered:
            sent.append(data)
            continue
        (reason,) = {k for k, v in world.device.drops.items() if v != before.get(k, 0)}
        if reason != Reason.NO_TRANSLATION.name.lower():
            assert reason == "no_buffers"
            break
        dropped += 1
        assert world.answer() > 0
        if chance.random() < 0.05:
            world.forget(chance)
    assert dropped > 0
    assert [data for data in world.driver.receive_frames() if data is not None] == sent
    assert world.device.error is None


@pytest.mark.parametrize("features", FORMATS)
def test_permissions_are_kept(memory: Guarded, features: int) -> None:
    """What a guest lets us read we do not write, and the other way round."""
    for receive, wrong in ((False, 2), (True, 1)):
        world = World(memory, features, receive)
        name = (world.driver.add(2000, Layout()) if receive
                else world.driver.send(frame(1, 60), Layout()))
        world.driver.publish()
        world.map(IOVA, wrong, PAGES)
        before = world.driver.content(world.driver.chains[name])
        for _ in range(3):
            assert world.device.deliver([frame(2, 60)]) == 0 if receive else True
            assert receive or world.device.take() == []
            world.iotlb.serve()
        assert {permission for _, permission in world.asked} == {3 - wrong}
        assert world.driver.content(world.driver.chains[name]) == before
        world.map(IOVA, 3, PAGES)
        assert world.device.deliver([frame(2, 60)]) == 1 if receive else True
        assert receive or world.device.take() == [frame(1, 60)]


@pytest.mark.parametrize("features", FORMATS)
def test_an_address_that_nobody_maps_holds_nothing_up(memory: Guarded, features: int) -> None:
    """The chain is dropped when the front end has said nothing for long enough."""
    world = World(memory, features, False)
    for number in range(3):
        world.driver.send(frame(number, 5000), Layout((), None, 3000))
    world.driver.publish()
    world.map(IOVA, 3, PAGES)
    chain = world.driver.chains[world.driver.outstanding()[1]]
    bad = chain.places[0][0] // PAGE * PAGE + PAGE
    world.iotlb.take(Translation(bad, PAGE, 0, 0, INVALIDATE))
    assert world.device.take() == [frame(0, 5000)]
    for _ in range(TRIES):
        world.iotlb.serve()
        assert world.device.take() == []
        world.clock.advance(RETRY_SECONDS)
    assert world.asked == [(bad, 1)] * TRIES
    assert world.device.take() == [Reason.BAD_ADDRESS, frame(2, 5000)]
    assert len(world.driver.reap()) == 3
    world.clock.advance(REFUSED_SECONDS + RETRY_SECONDS)
    assert world.clock.timers == []
