# SPDX-License-Identifier: Apache-2.0
"""The ones' complement sum (RFC 1071) of any bytes at any address, and nothing beside them."""

from collections.abc import Iterator

import numpy as np
import pytest

from byway.machine.jit import INTERPRETED
from byway.testing.frames import checksum
from byway.testing.guarded import Guarded
from byway.testing.offload_kernels import complete_at, finished_sum, fold, ipv4_sum, sum_of, swap

LENGTHS = [*range(70), 127, 128, 1447, 1448, 4095, 4096]


@pytest.fixture(scope="module")
def memory() -> Iterator[Guarded]:
    made = Guarded(1 << 16)
    made.view[:] = np.random.default_rng(5).integers(0, 256, made.size)
    yield made
    made.close()


def wire(value: int) -> int:
    """A sum as it is loaded, in network byte order."""
    return value >> 8 | (value & 0xFF) << 8


def test_the_example_of_rfc_1071() -> None:
    """Section 3: 00 01 f2 03 f4 f5 f6 f7 sums to dd f2."""
    example = Guarded(1)
    example.view[-8:] = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]
    assert wire(sum_of(example.ending(8), 8)) == 0xDDF2
    example.close()


def test_a_sum_is_folded_with_all_its_carries() -> None:
    edges = (0, 1, 0x8000, 0xFFFE, 0xFFFF)
    for total in [a << 48 | b << 32 | c << 16 | d for a in (0, 1, 0x7FFF) for b in edges
                  for c in edges for d in edges]:
        wanted = total
        while wanted >> 16:
            wanted = (wanted & 0xFFFF) + (wanted >> 16)
        assert fold(total) == wanted, hex(total)


@pytest.mark.parametrize("n", LENGTHS)
def test_any_bytes(memory: Guarded, n: int) -> None:
    """Right before a forbidden page, and right behind one."""
    for at in (memory.ending(n), memory.address, memory.address + 3):
        start = at - memory.address
        expected = checksum(memory.view[start : start + n].tobytes()) ^ 0xFFFF
        assert wire(sum_of(at, n)) == expected


def test_sums_that_carry() -> None:
    """All bits set, as many as the longest frame has: each addition carries."""
    memory = Guarded(1 << 17)
    memory.view[:] = 0xFF
    n = 65535 if not INTERPRETED else 8191
    assert wire(sum_of(memory.ending(n), n)) == checksum(b"\xff" * n) ^ 0xFFFF
    memory.close()


@pytest.mark.parametrize(("total", "udp", "stored"), [
    (0, False, 0xFFFF), (0xFFFF, False, 0), (0xFFFF, True, 0xFFFF), (0x1FFFE, True, 0xFFFF),
    (0x10000, False, 0xFFFE), ((1 << 46) - 1, False, 0xC000), (0x1234, True, 0xEDCB)])
def test_what_is_stored(total: int, udp: bool, stored: int) -> None:
    """RFC 768: a UDP checksum of 0 is sent as all ones, since 0 means that there is none."""
    assert finished_sum(total, int(udp)) == stored


@pytest.mark.parametrize("n", [40, 41, 1500])
def test_a_checksum_completed(memory: Guarded, n: int) -> None:
    """The field's old value is part of the sum (VIRTIO 1.2, 5.1.6.2)."""
    at = memory.ending(n)
    for start, offset in ((14, 16), (0, 6), (n - 8, 6)):
        before = memory.view[-n:].tobytes()
        expected = checksum(before[start:])
        if expected == 0 and offset == 6:
            expected = 0xFFFF
        complete_at(at, start, offset, n)
        after = memory.view[-n:].tobytes()
        field = start + offset
        assert after == before[:field] + expected.to_bytes(2, "big") + before[field + 2 :]


def test_an_ipv4_header(memory: Guarded) -> None:
    """RFC 791, 3.1: the field counts as 0; what was in it does not matter."""
    for n in (20, 24, 60):
        at = memory.ending(n)
        before = memory.view[-n:].tobytes()
        ipv4_sum(at, n)
        after = memory.view[-n:].tobytes()
        assert after[:10] + after[12:] == before[:10] + before[12:]
        assert checksum(after) == 0


def test_swapping() -> None:
    assert [swap(n) for n in (0, 1, 0x1234, 0xFFFF)] == [0, 0x100, 0x3412, 0xFFFF]
