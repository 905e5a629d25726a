# SPDX-License-Identifier: Apache-2.0
"""testing/conversation.py: seeds are whole; spoiling.py: what it does can be repeated."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from byway.testing.conversation import SEEDS, FileKind, Step
from byway.testing.spoiling import mutate
from byway.vhost.messages import NEED_REPLY, SPECS, VERSION


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_keep_to_the_table(seed: Callable[[], list[Step]]) -> None:
    for step in seed():
        spec = SPECS[step.request]
        assert spec.served
        assert step.flags & ~NEED_REPLY == VERSION
        assert spec.payload.fewest <= len(step.payload) <= spec.payload.most
        assert spec.fds[0] <= len(step.files) <= spec.fds[1]
        assert set(step.files) <= {FileKind.EVENT, FileKind.MEMORY, FileKind.LOG,
                                   FileKind.RETURNED, FileKind.CHANNEL}
        assert (step.declared, step.cut) == (None, None)


def test_seeds_use_every_request_that_is_served() -> None:
    used = {step.request for seed in SEEDS for step in seed()}
    served = {spec.number for spec in SPECS.values() if spec.served}
    assert {r.name for r in served - used} == set()


def test_the_same_seed_spoils_the_same_way() -> None:
    for number in range(50):
        first, second = (mutate(SEEDS[number % len(SEEDS)](), random.Random(number)) for _ in "ab")
        assert first == second


def test_spoiling_finds_every_way() -> None:
    """Of each kind of lie there is one among a few hundred conversations."""
    ways: set[str] = set()
    for number in range(400):
        steps = SEEDS[number % len(SEEDS)]()
        spoiled = mutate(steps, random.Random(number))
        if len(spoiled) != len(steps):
            ways.add("longer" if len(spoiled) > len(steps) else "shorter")
            continue
        for old, new in zip(steps, spoiled, strict=True):
            for name in ("request", "flags", "payload", "files", "declared", "cut"):
                if replace(old, **{name: getattr(new, name)}) == new != old:
                    ways.add(name)
    assert ways == {"request", "flags", "payload", "files", "declared", "cut", "longer", "shorter"}
