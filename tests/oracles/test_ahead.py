# SPDX-License-Identifier: Apache-2.0
"""Pages that are asked for before they are needed, against the chains of the plain drivers."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.testing.guarded import Guarded
from byway.testing.iotlb_kernels import ask_ahead
from byway.testing.plain_memory import Layout
from byway.virtio.ahead import AHEAD, CHAIN, PAGES
from byway.virtio.iotlb import MAX_RANGES, PAGE
from byway.virtio.ring import WRITE
from tests.oracles.test_behind_iommu import FORMATS, IOVA, World, frame
from tests.oracles.test_behind_iommu import PAGES as MEMORY_PAGES

EXAMPLES = 10 if INTERPRETED else 30
layouts = st.builds(Layout, st.lists(st.integers(0, 3000), max_size=5).map(tuple),
                    st.one_of(st.none(), st.just(0)), st.sampled_from([0, 5000]))


@pytest.fixture(scope="module")
def memory() -> Iterator[Guarded]:
    made = Guarded(MEMORY_PAGES * PAGE)
    yield made
    made.close()


def pages_of(world: World) -> set[int]:
    """The pages of all buffers that the driver has made available."""
    return {page for name in world.driver.outstanding()
            for iova, n in world.driver.chains[name].places if n
            for page in range(iova // PAGE, (iova + n - 1) // PAGE + 1)}


def ahead(world: World) -> int:
    """Look ahead and answer what was asked, until nothing is; -> how many questions."""
    asked = 0
    direction = WRITE if world.driver.receive else 0
    while True:
        with world.watched():
            ask_ahead(world.device.address, direction)
        world.iotlb.serve()
        if not world.asked:
            return asked
        for iova, _ in world.asked:  # tables and buffers may share a page
            world.map(iova, 3)
        asked += len(world.asked)
        world.asked.clear()


def fill(world: World, chains: list[tuple[int, Layout]]) -> None:
    for number, (length, layout) in enumerate(chains):
        try:
            if world.driver.receive:
                world.driver.add(length + 12, layout)
            else:
                world.driver.send(frame(number, length), layout)
        except MemoryError:
            break
    world.driver.publish()


@pytest.mark.parametrize("receive", [False, True], ids=["sends", "receives"])
@pytest.mark.parametrize("features", FORMATS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([60, 1514, 5000]), layouts), max_size=12),
       st.integers(0, 1 << 20))
def test_every_page_is_known_before_it_is_needed(
        memory: Guarded, features: int, receive: bool, chains: list[tuple[int, Layout]],
        seed: int) -> None:
    """Nothing waits and nothing is lost afterwards; nothing else is asked for."""
    world = World(memory, features, receive, seed)
    fill(world, chains)
    wanted = pages_of(world)
    direct = all(layout.direct is None for _, layout in chains)
    ahead(world)
    # A table that was not known is looked at once more only when its chain is needed.
    world.device.queue["ahead"] = -1
    ahead(world)
    known = {(iova - IOVA) // PAGE + IOVA // PAGE for iova in (
        i.start + k * PAGE for i in world.iotlb._intervals.all()
        for k in range((i.end - i.start) // PAGE))}
    assert wanted <= known
    if direct:
        assert known == wanted
    if receive:
        count = len(world.driver.outstanding())
        assert count == 0 or world.device.deliver([frame(1, 60)]) == 1
    else:
        assert len(world.device.take()) == len(world.driver.reap())
        assert world.driver.outstanding() == []


@pytest.mark.parametrize("features", FORMATS)
def test_an_entry_is_looked_at_once(memory: Guarded, features: int) -> None:
    """Until much is taken away from the IOMMU."""
    world = World(memory, features, True)
    fill(world, [(1514, Layout())] * 40)
    assert ahead(world) == len(pages_of(world))
    page = min(pages_of(world)) * PAGE
    world.iotlb._intervals.remove(page, page + PAGE)
    world.iotlb._drop(page, page + PAGE)
    assert ahead(world) == 0
    world.iotlb.clear()
    assert ahead(world) == len(pages_of(world))


@pytest.mark.parametrize("features", FORMATS)
def test_not_more_than_so_far(memory: Guarded, features: int) -> None:
    world = World(memory, features, False)
    fill(world, [(60, Layout((), None, PAGE))] * 64)  # a page or two each
    ask_ahead(world.device.address, 0)
    world.iotlb.serve()
    assert 0 < len(world.asked) <= min(2 * AHEAD, 256)


@pytest.mark.parametrize("features", FORMATS)
@pytest.mark.parametrize("seed", range(3 if INTERPRETED else 20))
def test_a_ring_of_nonsense(memory: Guarded, features: int, seed: int) -> None:
    """Any descriptors, indices and positions: it ends, within the memory that it may touch."""
    chance = random.Random(seed)
    world = World(memory, features, bool(seed & 1))
    fill(world, [(1514, Layout())] * 8)
    world.map(IOVA, 3, MEMORY_PAGES)
    assert len(world.iotlb) <= MAX_RANGES
    for _ in range(20):
        for part, n in ((world.driver.desc, 16 * 64), (world.driver.avail, 4)):
            at = part + chance.randrange(n - 3)
            world.memory.write(at, chance.choice([b"\xff\xff\xff\xff", chance.randbytes(4)]))
        world.device.queue["ahead"] = chance.randrange(-(1 << 63), 1 << 63)
        with world.watched():
            ask_ahead(world.device.address, chance.choice([0, WRITE]))
        assert world.device.error is None
        world.iotlb.clear()
        world.map(IOVA, 3, 64)


def test_the_bounds_fit_the_longest_frame() -> None:
    assert PAGES * PAGE > 65536 + 2 * PAGE
    assert CHAIN <= AHEAD
