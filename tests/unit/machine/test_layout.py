# SPDX-License-Identifier: Apache-2.0
"""Records: one description, read alike by name, by view and by offset."""

import ctypes

import numpy as np
import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc, record

THING, thing_at, T = record("thing", ["a", "size", ("small", "<u2"), ("many", "<i8", (3,))])


def test_sizes_are_whole_cache_lines() -> None:
    assert THING.itemsize == 64
    assert record("big", [("x", "u1", (65,))])[0].itemsize == 128
    assert record("exact", ["x"], size=8)[0].itemsize == 8


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="fields take 16 bytes, not 8"):
        record("two", ["a", "b"], size=8)


def test_offsets_say_where_fields_are() -> None:
    rows = alloc(THING, 2)
    rows[1]["size"], rows[1]["small"] = 77, 5
    at = address_of(rows) + 64
    assert ctypes.c_int64.from_address(at + T.size).value == 77
    assert ctypes.c_uint16.from_address(at + T.small).value == 5
    assert (T.a, T.size, T.small, T.many) == (0, 8, 16, 18)


@pytest.mark.parametrize("align", [64, 4096])
def test_memory_is_aligned_and_zero(align: int) -> None:
    rows = alloc(THING, 3, align)
    assert address_of(rows) % align == 0
    assert rows.view(np.uint8).any() == np.False_
    assert len(rows) == 3


@pytest.mark.skipif(not INTERPRETED, reason="compiled kernels see the record itself")
def test_interpreted_views_are_the_same_memory() -> None:
    rows = alloc(THING, 1)
    view = thing_at(address_of(rows))
    view.size = 1 << 40
    view.small = 0x12345  # stores truncate
    view.many[2] = 9
    assert (rows["size"][0], rows["small"][0], rows["many"][0, 2]) == (1 << 40, 0x2345, 9)
    assert (view.size, view.small, view.many[2]) == (1 << 40, 0x2345, 9)
