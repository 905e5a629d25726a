# SPDX-License-Identifier: Apache-2.0
"""A device that does anything to a driver: whatever it writes, the driver touches its own memory
and what it shares only, ends each call, and gives no frame that cannot be.

Each case is a seed. Interpreted, every access is checked; compiled, there are more of them.
"""

import random
import struct

import pytest

from byway.machine.jit import INTERPRETED
from byway.packet.batch import MAX_FRAME, MIN_FRAME, ROWS
from byway.packet.reason import Reason
from byway.virtio.features import Feature, mask
from tests.driving import Driven, driven

CASES = 300 if INTERPRETED else 1500
STEPS = 12
MODERN = mask(Feature.VERSION_1)
PACKED = mask(Feature.RING_PACKED)
MORE = [mask(Feature.IN_ORDER), mask(Feature.MRG_RXBUF), mask(Feature.EVENT_IDX),
        mask(Feature.GUEST_CSUM, Feature.GUEST_TSO4)]


def number(rng: random.Random, size: int) -> int:
    """A name, index or length: mostly plausible."""
    return rng.choice([rng.randrange(size), rng.randrange(size), size, size + 1, 0xFFFF,
                       rng.getrandbits(16)])


def length(rng: random.Random) -> int:
    return rng.choice([72, 72, 72, 256, 12, 11, 0, 257, 0xFFFFFFFF, rng.getrandbits(32)])


def used_entry(rng: random.Random, q: Driven) -> None:
    """A used entry or descriptor, right in most of it."""
    held = [*q.device.held.values()] or [None]
    chain = rng.choice(held)
    name = chain.name if chain and rng.random() < 0.8 else number(rng, q.size)
    if q.features & PACKED:
        flags = rng.choice([0x8082, 0x0002, 0x8080, 0x0080, 0x8000, rng.getrandbits(16)])
        slot = rng.choice([int(q.queue.record["used_seen"][0]) & 0x7FFF, rng.randrange(q.size)])
        q.device.memory.write(q.device.desc + 16 * slot + 8,
                              struct.pack("<IHH", length(rng), name & 0xFFFF, flags))
        return
    index = int.from_bytes(q.memory.read(q.device.used + 2, 2), "little")
    q.device.memory.write(q.device.used + 4 + 8 * (index % q.size),
                          struct.pack("<II", name, length(rng)))
    q.device._put(q.device.used + 2, index + rng.choice([1, 1, 1, 0, 2, 9, 0x8000]))


def header(rng: random.Random, q: Driven) -> None:
    """What a buffer begins with, num_buffers above all."""
    at = q.gpa(q.queue.buffers) + 256 * rng.randrange(q.size)
    buffers = rng.choice([0, 1, 1, 2, 3, 129, 0xFFFF])
    q.memory.write(at, rng.randbytes(10) if rng.random() < 0.3 else bytes(10))
    q.memory.write(at + 10, struct.pack("<H", buffers))


def honest(rng: random.Random, q: Driven) -> None:
    """What a device should do, as far as it still can."""
    try:
        chains = q.device.take(rng.randint(0, 4))
    except (AssertionError, ValueError):
        return  # the ring is not what the driver wrote
    q.device.use(chains, [72 if q.receiving else 0] * len(chains))


def scribble(rng: random.Random, q: Driven) -> None:
    """Anywhere in the rings."""
    end = q.queue.buffers - q.queue.desc
    q.memory.write(q.device.desc + rng.randrange(end - 8), rng.randbytes(rng.randint(1, 8)))


def act(rng: random.Random, q: Driven) -> None:
    """One thing that the device does, then one that the driver does."""
    for _ in range(rng.randint(1, 3)):
        rng.choice([used_entry, used_entry, header, honest, scribble])(rng, q)
    if not q.receiving:
        frames = [bytes(rng.choice([60, 60, 250, 1000])) for _ in range(rng.randint(1, 9))]
        assert 0 <= q.send(frames) <= len(frames)
        return
    got = q.receive()
    assert len(got) <= ROWS
    for frame in got:
        assert isinstance(frame, Reason) or MIN_FRAME <= len(frame) <= MAX_FRAME
        assert frame is not Reason.OVER_MTU


@pytest.mark.parametrize("receive", [True, False], ids=["receive", "send"])
@pytest.mark.parametrize("packed", [0, PACKED], ids=["split", "packed"])
def test_whatever_a_device_does(packed: int, receive: bool) -> None:
    for seed in range(CASES):
        rng = random.Random(seed)
        features = MODERN | packed | sum(f for f in MORE if rng.random() < 0.4)
        size = rng.choice([1, 2, 8, 64] if not packed else [1, 3, 8, 60])
        with driven(size, features, receive, buffer=256) as q, q.watched():
            for _ in range(STEPS):
                act(rng, q)
                free, taken = q.free, int(q.queue.record["ntaken"][0])
                assert 0 <= taken <= free <= size, f"seed {seed}"
                if q.error is not None:
                    break
