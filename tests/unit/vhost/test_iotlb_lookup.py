# SPDX-License-Identifier: Apache-2.0
"""Translations behind an IOMMU as kernels find them: pages, permissions, the cache and the list."""

import itertools
from collections.abc import Iterator

import pytest

from byway.machine.layout import address_of, alloc
from byway.packet.reason import Reason
from byway.testing.iotlb_kernels import bytes_at_iova, cache_place, miss_iova
from byway.virtio.iotlb import IOVA_LIMIT, PAGE, entry_of
from byway.virtio.memtab import MEMTAB
from tests.unit.vhost.fake_iommu import HOST, World

R, W, RW = 1, 2, 3
NO_TRANSLATION, BAD_ADDRESS = int(Reason.NO_TRANSLATION), int(Reason.BAD_ADDRESS)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.iotlb.close()
    made.iotlb.close()
    assert made.clock.timers == []


def test_a_piece_of_memory_ends_with_its_page(world: World) -> None:
    world.update(0x5000, 2 * PAGE)
    assert world.host(0x5000, PAGE) == HOST
    assert world.host(0x5FFF) == HOST + PAGE - 1
    assert world.host(0x5FFF, 2) == 0
    assert world.host(0x6000, PAGE) == HOST + PAGE
    assert bytes_at_iova(world.iotlb.table, 0x5001, 0) == PAGE - 1
    for outside in (0x4FFF, 0x7000, -1, -PAGE, 1 << 62, 0x5000 + IOVA_LIMIT):
        assert world.host(outside) == 0
        assert bytes_at_iova(world.iotlb.table, outside, 0) == 0


def test_permissions(world: World) -> None:
    for page, permission in enumerate((R, W, RW)):
        world.update(page * PAGE, permission=permission)
    assert [world.host(p * PAGE) != 0 for p in range(3)] == [True, False, True]
    assert [world.host(p * PAGE, write=1) != 0 for p in range(3)] == [False, True, True]


@pytest.mark.parametrize("n", [2, 128])
def test_pages_of_one_place_are_known_together(world: World, n: int) -> None:
    """As many as a chain may have: it would never be whole if each drove out the one before."""
    place = entry_of(0x12345, 0, 0)[0]
    every = (page for page in range(1 << 20, 1 << 25) if entry_of(page, 0, 0)[0] == place)
    pages = list(itertools.islice(every, n))
    for k, page in enumerate(pages):
        world.update(page * PAGE, offset=k * PAGE)
    assert [world.host(page * PAGE) != 0 for page in pages] == [False] * (n - 1) + [True]
    assert world.miss(pages[0] * PAGE) == NO_TRANSLATION
    world.iotlb.serve()
    assert [world.host(page * PAGE + 5) for page in pages] == [
        HOST + k * PAGE + 5 for k in range(n)]
    assert world.asked == []
    assert world.settled == 0  # nobody has seen a list before
    world.invalidate(pages[0] * PAGE)
    assert [world.host(page * PAGE) != 0 for page in pages] == [False] + [True] * (n - 1)


def test_permissions_of_pages_of_one_place(world: World) -> None:
    place = entry_of(0x12345, 0, 0)[0]
    every = (page for page in range(1 << 20, 1 << 25) if entry_of(page, 0, 0)[0] == place)
    pages = list(itertools.islice(every, 4))
    for permission, page in enumerate(pages[:3], 1):
        world.update(page * PAGE, permission=permission)
    world.update(pages[3] * PAGE)  # has the place
    world.miss(pages[2] * PAGE)
    world.iotlb.serve()
    assert [world.host(page * PAGE) != 0 for page in pages] == [True, False, True, True]
    assert [world.host(page * PAGE, write=1) != 0 for page in pages] == [False, True, True, True]


def test_a_list_is_changed_when_nobody_reads_it(world: World) -> None:
    """The next list is another array; the one before is written again when all workers have ended
    the pass in which they could see it."""
    world.update(0, 100 * PAGE)
    for number in range(1, 6):
        seen, content = world.iotlb._lists[1], world.iotlb._lists[1].copy()
        settled = world.settled
        world.update(50 * PAGE, offset=number * PAGE)
        assert world.host(50 * PAGE) == HOST + number * PAGE
        assert world.host(60 * PAGE) == HOST + 60 * PAGE
        assert world.iotlb._lists[1] is not seen
        assert (seen == content).all()
        assert world.settled == settled + (number > 1)  # before the other one was written


def test_what_comes_beside_the_list_leaves_it(world: World) -> None:
    world.update(0, 100 * PAGE)
    listed = world.iotlb._lists[1]
    for page in range(200, 300):
        world.update(page * PAGE, offset=page * PAGE)
        world.invalidate(page * PAGE)
    assert world.iotlb._lists[1] is listed
    assert world.host(5 * PAGE) == HOST + 5 * PAGE


def test_a_large_range_is_known_at_once(world: World) -> None:
    """A buffer is not to be missed first: the frame for it would be lost."""
    world.update(0, 1000 * PAGE)
    assert [world.host(page * PAGE) for page in (0, 500, 999)] == [
        HOST + page * PAGE for page in (0, 500, 999)]
    world.invalidate(500 * PAGE)
    assert [world.host(page * PAGE) != 0 for page in (0, 499, 500, 501, 999)] == [
        True, True, False, True, True]


@pytest.mark.parametrize("page", [0, 1, 4095, 4096, 0x12345, (1 << 39) - 1, 1 << 38, 0x5A5A5A5A5])
def test_kernel_and_control_thread_agree_on_places(page: int) -> None:
    assert cache_place(page) == entry_of(page, 0, 0)[0]


def test_the_ends_of_all_addresses(world: World) -> None:
    world.update(IOVA_LIMIT - PAGE)
    world.update(0, offset=PAGE)
    assert world.host(IOVA_LIMIT - 1) == HOST + PAGE - 1
    assert world.host(0) == HOST + PAGE
    assert world.miss(IOVA_LIMIT) == BAD_ADDRESS
    assert world.miss(-1) == BAD_ADDRESS


def test_a_table_without_iommu() -> None:
    plain = alloc(MEMTAB, 1)
    assert miss_iova(address_of(plain), 0x1000, 0) == BAD_ADDRESS
