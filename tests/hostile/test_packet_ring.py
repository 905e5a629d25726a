# SPDX-License-Identifier: Apache-2.0
"""A packet ring that holds anything, as after a fault of the kernel's: whatever stands in a slot,
nothing outside of the ring is touched, each call ends, and no frame is longer than its slot.

Each case is a seed. Interpreted, every access is checked; compiled, the ring lies between
forbidden pages.
"""

import contextlib
import random

import pytest

from byway.machine.jit import INTERPRETED
from byway.packet.batch import BUFFER, HEAD_STRIDE, MAX_FRAME, ROWS, SCRATCH_BYTES
from byway.packet.reason import Reason
from byway.ports.af_packet_kernels import COPY, SLOT_HEADER, TPID_VALID, USER, VLAN_VALID
from byway.testing.arena import Arena
from byway.testing.packet_ring import TPACKET2_HDR, PacketRing

CASES = 100 if INTERPRETED else 1000
STEPS = 6


def length(rng: random.Random, size: int) -> int:
    return rng.choice([60, 60, 1514, size - 96, size - 95, size, 0, 11, 12, 13, 65536, 0x7FFFFFFF,
                       0xFFFFFFFF, rng.getrandbits(32)])


def slot(rng: random.Random, ring: PacketRing) -> None:
    """One slot, right in most of it, and perhaps something in the queue."""
    status = rng.choice([USER, USER, USER | VLAN_VALID, USER | VLAN_VALID | TPID_VALID,
                         USER | COPY, USER | COPY | VLAN_VALID, 0, 0xFFFFFFFF,
                         rng.getrandbits(32)])
    n = length(rng, ring.size)
    place = rng.choice([96, 96, 62, 61, 0, ring.size, 0xFFFF, rng.getrandbits(16)])
    described = TPACKET2_HDR.pack(
        status, rng.choice([n, n, n, n + 1 & 0xFFFFFFFF]), n, place, rng.getrandbits(16), 0, 0,
        rng.getrandbits(16), rng.choice([0x8100, 0x88A8, 0, rng.getrandbits(16)]))
    ring.write(described, rng.randbytes(rng.choice([0, 10, 60])), 86)
    if status & COPY and rng.random() < 0.8:
        with contextlib.suppress(BlockingIOError):
            ring.kernel.send(rng.randbytes(rng.choice([0, 1, 9, 10, 11, 22, 70, 3000])))


def watch(ring: PacketRing) -> Arena:
    """What the kernels may touch."""
    arena = Arena()
    batch = ring.batch.batch
    arena.allow("ring", int(ring.record["ring"][0]), ring.slots * ring.size, shared=True)
    for name in ("record", "rows"):
        arena.allow_array(name, getattr(batch, name))
    for name in ("record", "rx", "tx"):
        arena.allow_array(f"port's {name}", getattr(ring, name))
    arena.allow("heads", int(batch.record["heads"][0]), ROWS * HEAD_STRIDE)
    arena.allow("scratch", int(batch.record["scratch"][0]), SCRATCH_BYTES)
    arena.allow("buffers", int(batch.record["buffers"][0]), ROWS * BUFFER)
    return arena


@pytest.mark.parametrize("seed", range(CASES))
def test_a_ring_that_holds_anything(seed: int) -> None:
    rng = random.Random(seed)
    with PacketRing() as ring:
        arena = watch(ring)
        with arena if INTERPRETED else contextlib.nullcontext():
            for _ in range(STEPS):
                for _ in range(rng.choice([1, 3, 20])):
                    slot(rng, ring)
                arena.next_call()
                for got in ring.receive_all():
                    assert isinstance(got, Reason) or len(got[1]) <= MAX_FRAME + 4
                ring.waiting()
        seen = int(ring.rx["frames"][0])
        assert seen <= STEPS * ROWS
        # What a slot says of its frame is read once; the frame itself may be read again.
        assert [d for d in arena.doubles if d.offset % ring.size < SLOT_HEADER] == []
