# SPDX-License-Identifier: Apache-2.0
"""What kernels read and set of a frame is what the plain frame does: over generated frames, whole,
damaged and cut, in one piece and in several, with and without something left to do on them."""

import random

from byway.testing.generated import generated
from tests.frames_wanted import frames_wanted
from tests.oracles.field_pair import Pair, undone_for

STEPS = 6


def test_reading_and_changing_any_frame() -> None:
    rng = random.Random(6)
    pair = Pair(bytes(60), undone_for(bytes(60), rng))
    for number, data in enumerate(generated(frames_wanted(), seed=11)):
        undone = undone_for(data, rng)
        pair.place(data, undone, pieces=rng.choice((1, 1, 2, 3)), out=rng.random() < 0.2,
                   mtu=rng.choice((1500, 1500, 9000)))
        did = []
        try:
            pair.check()
            for _ in range(STEPS):
                did.append(pair.step(rng))
                pair.check_bytes()
            pair.check()
        except AssertionError as error:
            raise AssertionError(f"frame {number}, {data.hex()}, {undone}, {did}") from error
