# SPDX-License-Identifier: Apache-2.0
"""No byte outside of a received message is touched, whatever the message says."""

import ctypes
import random
import struct

import numpy as np
import pytest

from byway.machine.layout import address_of
from byway.packet.batch import MAX_CHAIN, SEGMENT
from byway.testing.arena import Arena
from byway.testing.frame_batch import FrameBatch
from byway.testing.offload_frames import ACK, PSH, Shape
from byway.testing.tunnel_kernels import ecn_combine, ecn_of, joined

pytestmark = pytest.mark.interpreted_only

SEEDS, CASES = 10, 60


def message(rng: random.Random, size: int) -> bytes:
    """Consecutive TCP segments behind tunnel headers, some bytes of them spoiled, cut somewhere."""
    version = rng.choice([4, 6])
    header = Shape(version).header_bytes
    payload = max(size - header, 0)
    made, sequence = b"", 1
    for k in range(rng.randrange(1, 8)):
        frame = Shape(version, sequence=sequence, ident=1 + k,
                      flags=rng.choice([ACK, ACK, ACK, ACK | PSH]),
                      payload=bytes([k]) * payload).build(complete=True)
        made += b"\x08\0\0\0\0\0\x64\0" + frame[:size].ljust(size, b"\0")
        sequence += payload
    spoiled = bytearray(made)
    for _ in range(rng.choice([0, 0, 1, 4])):
        at = rng.randrange(len(spoiled))
        # Lengths and header lengths above all: what leads elsewhere.
        at = rng.choice([at, 8 + 14, 8 + 16, 8 + 17, 8 + 18, 8 + 46, 8 + 66]) % len(spoiled)
        spoiled[at] = rng.getrandbits(8)
    cut = rng.randrange(9, len(spoiled) + 1) if rng.random() < 0.5 else len(spoiled)
    return bytes(spoiled[:cut])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_joining_stays_in_the_message(seed: int) -> None:
    rng = random.Random(seed)
    batch = FrameBatch()
    row, segs = address_of(batch.batch.rows), int(batch.batch.record["segs"][0])
    joins = 0
    for _ in range(CASES):
        size = rng.choice([14, 15, 54, 55, 74, 75, 100, 200])
        memory = np.frombuffer(bytearray(message(rng, size)), np.uint8)
        arena = Arena()
        arena.allow_array("message", memory)
        arena.allow("row", row, 64)
        arena.allow("segments", segs, SEGMENT * MAX_CHAIN)
        n = min(size, len(memory) - 8)
        with arena:
            count = joined(row, address_of(memory) + 8, n, size + 8, len(memory) - 8, segs)
        joins += count > 1
        if count > 1:
            first = address_of(memory)
            listed = ctypes.string_at(segs, SEGMENT * count)
            for at, length in struct.iter_unpack("=qq", listed):
                assert first <= at
                assert at + length <= first + len(memory)
                assert length > 0
    assert joins > 0


@pytest.mark.parametrize("seed", range(SEEDS))
def test_congestion_is_looked_for_in_the_frame_only(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(CASES):
        frame = bytearray(Shape(rng.choice([4, 6]), tags=(5,) * rng.randrange(4),
                                payload=bytes(20)).build())
        for _ in range(rng.choice([0, 1, 3])):
            frame[rng.randrange(len(frame))] = rng.getrandbits(8)
        n = rng.randrange(1, len(frame) + 1)
        memory = np.frombuffer(frame[:n], np.uint8)
        arena = Arena()
        arena.allow_array("frame", memory)
        with arena:
            ecn_of(address_of(memory), n)
            ecn_combine(address_of(memory), n, rng.randrange(4))
        assert arena.accesses > 0 or n < 16
