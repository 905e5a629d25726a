# SPDX-License-Identifier: Apache-2.0
"""The address sanitizer and guarded memory: what they let pass, and what not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from byway.machine import mem, system
from byway.machine.layout import address_of
from byway.testing.arena import Arena, BadAccess
from byway.testing.guarded import PAGE, Guarded


@pytest.fixture
def area() -> np.ndarray:
    return np.zeros(256, np.uint8)


def touch(what: str, at: int, other: int) -> None:
    """One access of each kind, ``n`` bytes at ``at``; ``other`` is sound."""
    {
        "ld8": lambda: mem.ld8(at), "ld64_once": lambda: mem.ld64_once(at),
        "ld16be": lambda: mem.ld16be(at), "st32": lambda: mem.st32(at, 1),
        "st16_rel": lambda: mem.st16_rel(at, 1), "add64": lambda: mem.add64(at, 1),
        "cas64": lambda: mem.cas64(at, 0, 0), "memzero": lambda: mem.memzero(at, 8),
        "copy64 from": lambda: mem.copy64(other, at), "copy64 to": lambda: mem.copy64(at, other),
        "copyo8": lambda: mem.copyo8(other, at, 11), "copy_masked": lambda: mem.copy_masked(
            at, other, 64)}[what]()


SIZES = {"ld8": 1, "ld64_once": 8, "ld16be": 2, "st32": 4, "st16_rel": 2, "add64": 8, "cas64": 8,
         "memzero": 8, "copy64 from": 64, "copy64 to": 64, "copyo8": 11, "copy_masked": 64}


@pytest.mark.interpreted_only
@pytest.mark.parametrize("what", SIZES)
def test_every_kind_of_access_is_seen(area: np.ndarray, what: str) -> None:
    """The last place that is allowed, and one byte further; before the first one."""
    start, other, n = address_of(area) + 8, np.zeros(64, np.uint8), SIZES[what]
    arena = Arena()
    arena.allow("area", start, 100)
    arena.allow_array("other", other)
    with arena:
        touch(what, start + 100 - n, address_of(other))
        touch(what, start, address_of(other))
        for place in (start + 100 - n + 1, start - 1):
            with pytest.raises(BadAccess, match=r"area|no known memory"):
                touch(what, place, address_of(other))


@pytest.mark.interpreted_only
def test_nothing_is_seen_afterwards(area: np.ndarray) -> None:
    arena = Arena()
    with arena, pytest.raises(BadAccess):
        mem.ld8(address_of(area))
    assert mem.ld8(address_of(area)) == 0


@pytest.mark.interpreted_only
def test_arithmetic_is_no_access() -> None:
    with Arena() as arena:
        assert mem.mul64(3, 4) == 12
        mem.fence()
        system.prefetch(1)
    assert arena.accesses == 0


@pytest.mark.interpreted_only
def test_double_fetches(area: np.ndarray) -> None:
    arena, at = Arena(), address_of(area)
    arena.allow("ring", at, 100, shared=True)
    arena.allow("own", at + 100, 100)
    with arena:
        mem.ld64_once(at)
        mem.ld16_acq(at)  # polled
        mem.st16(at + 4, 9)
        mem.ld16_once(at + 8)
        mem.ld64(at + 100)
        mem.ld64(at + 100)
        assert arena.doubles == []
        mem.ld16_once(at + 7)
    assert [(d.name, d.offset, d.first, d.second) for d in arena.doubles] == [
        ("ring", 7, "ld64_once", "ld16_once"), ("ring", 8, "ld16_once", "ld16_once")]
    arena.doubles.clear()
    with arena:
        mem.ld8(at)
        arena.next_call()
        mem.ld8(at)
    assert arena.doubles == []


@pytest.mark.interpreted_only
def test_read_only_memory_and_what_is_written_to_files(area: np.ndarray) -> None:
    arena, at = Arena(), address_of(area)
    arena.allow("constant", at, 8, writable=False)
    with arena:
        assert mem.ld64(at) == 0
        with pytest.raises(BadAccess, match="constant, which is read-only"):
            mem.st8(at, 1)
        with pytest.raises(BadAccess, match="write of 8 bytes"):
            system.syscall3(system.SYS_WRITE, -1, at + 1, 8)
        assert system.syscall3(system.SYS_WRITE, -1, at, 8) < 0
        with pytest.raises(BadAccess, match="of 0 bytes"):
            mem.copy_masked(at, at, 0)


def test_ranges_do_not_overlap() -> None:
    arena = Arena()
    arena.allow("a", 1000, 100)
    arena.allow("b", 1100, 100)
    for start, size in ((1099, 1), (900, 101), (1199, 5), (900, 1000)):
        with pytest.raises(ValueError, match="overlaps"):
            arena.allow("c", start, size)
    assert arena.range_of(1100, 100) is not None
    assert arena.range_of(1050, 100) is None


def test_one_at_a_time() -> None:
    with Arena(), pytest.raises(RuntimeError, match="another Arena"):
        Arena().__enter__()


def test_guarded_memory() -> None:
    guarded = Guarded(100)
    assert guarded.size == PAGE
    guarded.view[:] = 7
    assert guarded.ending(10) == guarded.address + PAGE - 10
    guarded.close()
    guarded.close()


@pytest.mark.parametrize("place", ["address - 1", "address + g.size"])
def test_forbidden_pages(place: str) -> None:
    program = ("import ctypes\nfrom byway.testing.guarded import Guarded\ng = Guarded(4096)\n"
               f"ctypes.string_at(g.{place}, 1)\n")
    src = Path(__file__).resolve().parents[3] / "src"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(src)}, timeout=60)
    assert done.returncode == -11
