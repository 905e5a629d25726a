# SPDX-License-Identifier: Apache-2.0
"""Copies and memory tables against bytes and lists."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.testing.guarded import Guarded
from byway.testing.iotlb_kernels import bytes_at_iova, iova_to_host
from byway.testing.kernels import (
    copy_bytes,
    copy_bytes_masked,
    copy_bytes_portable,
    zero_bytes,
)
from byway.virtio.memtab import MAX_REGIONS, MEMTAB, fill

EXAMPLES = 60 if INTERPRETED else 300
ALL_LENGTHS = [*range(1, 200), 255, 256, 257, 511, 513, 1500, 1514, 1526, 4000]


@pytest.fixture(scope="module")
def areas() -> Iterator[tuple[Guarded, Guarded]]:
    """Source and destination between forbidden pages."""
    source, destination = Guarded(8192), Guarded(8192)
    source.view[:] = np.random.default_rng(1).integers(0, 256, source.size)
    yield source, destination
    source.close()
    destination.close()


@pytest.mark.parametrize(("copy", "longest"), [
    (copy_bytes, 1 << 16), (copy_bytes_portable, 1 << 16), (copy_bytes_masked, 64)])
def test_copies_touch_what_they_shall(areas: tuple[Guarded, Guarded], copy: Callable[..., Any],
                                      longest: int) -> None:
    """All lengths, both ends at every place in a cache line, and right before a forbidden page."""
    source, destination = areas
    for n in (n for n in ALL_LENGTHS if n <= longest):
        for shift in (0, 1, 7, 31, 63) if INTERPRETED else range(64):
            places = [(source.address + shift, destination.address + (shift * 5 & 63)),
                      (source.ending(n), destination.ending(n)),
                      (source.ending(n + shift), destination.ending(n) - shift)]
            for a, b in places:
                destination.view[:] = 0x5A
                copy(b, a, n)
                at = b - destination.address
                got = destination.view
                assert got[at : at + n].tobytes() == ctypes.string_at(a, n)
                assert (got[:at] == 0x5A).all()
                assert (got[at + n :] == 0x5A).all()
                if shift > 8 and n > 64:
                    break


@pytest.mark.parametrize("n", [1, 2, 10, 12, 63, 64, 4096])
def test_memzero(areas: tuple[Guarded, Guarded], n: int) -> None:
    _, destination = areas
    destination.view[:] = 0xFF
    zero_bytes(destination.ending(n), n)
    assert not destination.view[-n:].any()
    assert (destination.view[:-n] == 0xFF).all()


Region = tuple[int, int, int]  # gpa, size, host
regions = st.lists(
    st.tuples(st.integers(1, 1 << 20), st.one_of(st.just(0), st.integers(0, 1 << 20)),
              st.integers(1 << 20, 1 << 46)), max_size=MAX_REGIONS, min_size=0)
interesting = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 1 << 26),
    st.sampled_from([-1, 0, 1, -(1 << 63), (1 << 63) - 1, 1 << 62, -(1 << 62)]))


@settings(max_examples=EXAMPLES, deadline=None)
@given(shapes=regions, base=st.sampled_from([0, 1, 1 << 32, (1 << 62) - (130 << 20)]),
       address=interesting, edge=st.integers(0, 2 * MAX_REGIONS), off=st.integers(-20, 20),
       n=st.one_of(st.integers(1, 4096), st.integers(1, (1 << 32) - 1), st.just(1)))
def test_the_table_finds_what_lies_in_one_region(
        shapes: list[Region], base: int, address: int, edge: int, off: int, n: int) -> None:
    """Regions with and without gaps, in any order; addresses anywhere and at their edges."""
    table, made, at = alloc(MEMTAB, 1), [], base
    for size, gap, host in shapes:
        made.append((at, size, host))
        at += size + gap
    fill(table[0], made[::-1])
    edges = [e for gpa, size, _ in made for e in (gpa, gpa + size)]
    for gpa in (address, edges[edge % len(edges)] + off if edges else off):
        inside = [(host + gpa - start, start + size - gpa) for start, size, host in made
                  if start <= gpa < start + size]
        whole = [a for a, left in inside if n <= left]
        for write in (0, 1):  # regions permit everything
            assert iova_to_host(address_of(table), gpa, n, write) == (whole[0] if whole else 0)
            assert bytes_at_iova(address_of(table), gpa, write) == (
                inside[0][1] if inside else 0)


def test_the_largest_region_comes_first() -> None:
    """Kernels look at it before they loop."""
    table = alloc(MEMTAB, 1)
    fill(table[0], [(0, 10, 100), (50, 30, 500), (20, 20, 300)])
    assert table["size"][0, :3].tolist() == [30, 20, 10]
    assert table["delta"][0, :3].tolist() == [450, 280, 100]


@pytest.mark.parametrize(("shape", "message"), [
    ([(0, 1, 1)] * 65, "at most 64"), ([(0, 0, 1)], "out of range"), ([(-1, 5, 1)], "out of range"),
    ([((1 << 62) - 4, 5, 1)], "out of range")])
def test_tables_that_are_refused(shape: list[Region], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill(alloc(MEMTAB, 1)[0], shape)
