# SPDX-License-Identifier: Apache-2.0
"""Loads, stores, atomics and wrapping arithmetic: the same numbers compiled and interpreted."""

import struct

import numpy as np
import pytest

from byway.machine.layout import address_of
from byway.testing.kernels import (
    LOADS,
    STORES,
    checksum,
    every_atomic,
    every_load,
    every_store,
    yield_and_count,
)

BITS = [0, 1, 0x8000_0000_0000_0000, 0x0102_0304_0506_0708, 0xFFFF_FFFF_FFFF_FFFF,
        0x7FFF_FFFF_8000_00FF]


def signed(value: int) -> int:
    return struct.unpack("<q", struct.pack("<Q", value & (1 << 64) - 1))[0]


@pytest.mark.parametrize("bits", BITS)
def test_loads_are_zero_extended(bits: int) -> None:
    """8, 16 and 32 bits give numbers >= 0; 64 bits give the pattern as a signed number."""
    source = np.array([bits], np.uint64)
    results = np.zeros(LOADS, np.int64)
    assert every_load(address_of(source), address_of(results)) == LOADS
    raw = struct.pack("<Q", bits)
    little = [int.from_bytes(raw[:n], "little") for n in (1, 2, 4)]
    big = [int.from_bytes(raw[:n], "big") for n in (2, 4)]
    zeros = (bits & -bits).bit_length() - 1 if bits else 64
    assert results.tolist() == [
        *little, signed(bits), *big, signed(int.from_bytes(raw, "big")),
        *little, signed(bits), *little[1:], signed(bits), zeros]


@pytest.mark.parametrize("bits", BITS)
def test_stores_truncate(bits: int) -> None:
    results = np.full(STORES, -1, np.int64)
    assert every_store(signed(bits), address_of(results)) == STORES
    little = struct.pack("<Q", bits)
    written = [little[:n] for n in (1, 2, 4, 8)] + [little[:n][::-1] for n in (2, 4, 8)] \
        + [little[:n] for n in (1, 2, 4, 8, 2, 4, 8)]
    assert results.tobytes() == b"".join(w + b"\xff" * (8 - len(w)) for w in written)


@pytest.mark.parametrize(("start", "expected", "value"), [
    (5, 7, 7), (5, 7, 9), (-1, 3, 1), ((1 << 63) - 1, 2, 1), (0, -5, -(1 << 63)),
    (1, (1 << 62) + 3, (1 << 62) + 5)])
def test_atomics_wrap(start: int, expected: int, value: int) -> None:
    cell, results = np.array([start], np.int64), np.zeros(6, np.int64)
    assert every_atomic(address_of(cell), expected, value, address_of(results)) == 6
    assert results.tolist() == [
        start,  # add64 gives what was there
        signed(start + value),  # xchg64
        value,  # cas64
        signed(expected * value), signed(expected + value),
        signed((value & (1 << 64) - 1) >> (expected & 63))]
    assert cell[0] == (-1 if value == expected else value)


def test_the_time_stamp_counter_runs() -> None:
    assert yield_and_count(10) > 0


@pytest.mark.parametrize(("octets", "expected"), [
    (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C)])
def test_crc32c(octets: bytes, expected: int) -> None:
    """The examples of RFC 3720, B.4."""
    source = np.frombuffer(octets, np.uint8)
    ones = 0xFFFFFFFF
    assert checksum(ones, address_of(source), len(octets) // 8) ^ ones == expected
