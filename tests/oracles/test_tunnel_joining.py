# SPDX-License-Identifier: Apache-2.0
"""What comes out of a tunnel is what went in: whatever flows are mixed, however they are spread
over messages, frames that were joined are cut again into just those that were sent."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of
from byway.packet.batch import ROWS
from byway.packet.reason import Reason
from byway.testing.finishing import content
from byway.testing.offload_frames import ACK, FIN, PSH, UDP, Shape
from byway.testing.offload_kernels import begin, following
from tests.unit.ports.tunnel_bench import HEADER, Bench

SEEDS = 8 if INTERPRETED else 40
FRAMES = 120


@pytest.fixture(scope="module", params=["127.0.0.1", "::1"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(request.param)
    yield made
    made.close()


@dataclass
class Flow:
    """A TCP or UDP flow that goes on."""

    rng: random.Random
    shape: Shape = field(default_factory=Shape)

    def frame(self) -> bytes:
        """Its next frame: mostly a full segment, mostly with the flags of the one before."""
        size = self.rng.choice([1000, 1000, 1000, 1000, 1000, 10, 0, 1001])
        flags = self.rng.choice([ACK] * 8 + [ACK | PSH, ACK | FIN, 0])
        shape = replace(self.shape, flags=flags, payload=self.rng.randbytes(size))
        made = bytearray(shape.build(complete=True))
        self.shape = replace(self.shape, sequence=shape.sequence + size, ident=shape.ident + 1)
        if self.rng.random() < 0.03:  # lost, or damaged
            self.shape = replace(self.shape, sequence=shape.sequence + 2 * size)
        if self.rng.random() < 0.03:
            made[self.rng.randrange(14, len(made))] ^= 1 << self.rng.randrange(8)
        return bytes(made)


def frames_of(rng: random.Random) -> list[bytes]:
    """Frames of a few flows, in runs."""
    flows = [Flow(rng, Shape(rng.choice([4, 4, 6]), protocol=rng.choice([6, 6, UDP]) if k else 6,
                             ports=(1000 + k, 80), dont_fragment=rng.random() < 0.5,
                             tags=(7,) if k and rng.random() < 0.2 else ()))
             for k in range(rng.randrange(1, 4))]
    made: list[bytes] = []
    while len(made) < FRAMES:
        flow = rng.choice(flows)
        made += [flow.frame() for _ in range(rng.randrange(1, 30))]
    return made


def told(rng: random.Random, bench: Bench, frames: list[bytes]) -> None:
    """Send them in messages, each of frames of one length and perhaps a shorter one."""
    k = 0
    while k < len(frames):
        most, n = rng.choice([1, 3, 60]), len(frames[k])
        lot = [frames[k]]
        k += 1
        while k < len(frames) and len(lot) < most and len(frames[k]) <= n and len(lot[-1]) == n:
            lot.append(frames[k])
            k += 1
        bench.tell(b"".join(HEADER + one for one in lot), size=n + 8 if len(lot) > 1 else 0)


def taken(bench: Bench) -> tuple[list[bytes], int]:
    """(the frames that come out, cut where they were joined; rows)."""
    made: list[bytes] = []
    count = 0
    while rows := bench.receive():
        count += len(rows)
        for k, row in enumerate(rows):
            assert not isinstance(row, Reason)
            todo, data = row
            if todo.gso_type == 0:
                made.append(data)
                continue
            at = address_of(bench.frames.batch.rows) + 64 * k
            assert begin(bench.finisher.address, at, 0) == 0
            while n := int(following(bench.finisher.address)):
                made += [content(one) for one in bench.finisher.rows[:n]]
        assert len(rows) <= ROWS
    return made, count


@pytest.mark.parametrize("seed", range(SEEDS))
def test_frames_come_out_as_they_went_in(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    frames = frames_of(rng)
    told(rng, bench, frames)
    got, rows = taken(bench)
    assert got == frames
    assert rows < len(frames)
