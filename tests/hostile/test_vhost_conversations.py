# SPDX-License-Identifier: Apache-2.0
"""Spoiled vhost-user conversations against the back end, seeded and reproducible.

BYWAY_HOSTILE_CONVERSATIONS: how many (24000). Each one may end in ProtocolError or Closed and in
nothing else, and leaves no file descriptor and no mapping behind; well-behaved front ends are
served in between.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from byway.machine import sigbus
from byway.machine.jit import INTERPRETED
from byway.testing.conversation import SEEDS, FileKind, tracked
from byway.testing.dialogue import MEMORY_NAME, Dialogue, End, Files
from byway.testing.spoiling import mutate
from byway.vhost.messages import Request

# Nearly all of what answers is no kernel: the other run has the most of them.
CONVERSATIONS = int(os.environ.get("BYWAY_HOSTILE_CONVERSATIONS", 4000 if INTERPRETED else 24000))
CHUNKS = 4


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    made = Files()
    yield made
    made.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapped_memories() -> int:
    return Path("/proc/self/maps").read_text().count(MEMORY_NAME)


def first_free_guard() -> int:
    slot = sigbus.add(1 << 40, 4096)
    sigbus.remove(slot)
    return slot


def held() -> tuple[int, int, int]:
    return open_files(), mapped_memories(), first_free_guard()


def gained(before: tuple[int, int, int]) -> tuple[int, ...]:
    """How much more is held now. It may be less: what other tests have left goes at any time."""
    return tuple(max(now - then, 0) for now, then in zip(held(), before, strict=True))


def behaves(files: Files) -> bool:
    """Every seed as it is: served from the first to the last message."""
    for seed in SEEDS:
        talk = Dialogue(files)
        talk.play(seed())
        good = talk.end is None and talk.target.attaches > 0
        talk.close()
        if not good:
            return False
    return True


def converse(files: Files, seed: int) -> End | None:
    """One spoiled conversation; some front ends do not wait, and some never read."""
    rng = random.Random(seed)
    steps = mutate(rng.choice(SEEDS)(), rng)
    talk = Dialogue(files)
    if rng.randrange(4):
        middle = rng.randrange(len(steps))
        talk.play(steps[:middle])
        files.scribble(rng)
        talk.loop.advance(rng.randrange(4))
        talk.play(steps[middle:] if talk.end is None else [])
    else:
        for step in steps:
            talk.write(step)
            if step.cut is not None:
                break
    talk.close()
    assert talk.loop.idle
    return talk.end


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_spoiled_conversations(files: Files, chunk: int) -> None:
    assert behaves(files)
    before = held()
    ends: Counter[End | None] = Counter()
    for seed in range(chunk, CONVERSATIONS, CHUNKS):
        ends[converse(files, seed)] += 1
        assert open_files() <= before[0], f"seed {seed} left file descriptors open"
        if seed // CHUNKS % 256 == 0:
            assert mapped_memories() <= before[1], f"a seed up to {seed} left memory mapped"
            assert behaves(files), f"after seed {seed} good front ends are not served"
    assert gained(before) == (0, 0, 0)
    assert behaves(files)
    # The spoiling is worth its name, and does not end everything at once.
    done = sum(ends.values())
    assert done < 100 or 0.2 < ends[End.ERROR] / done < 0.9


@pytest.mark.compiled_only
def test_memory_that_shrinks_in_the_middle() -> None:
    """Whoever touches what was cut off reads zeros, and the port's flag is up."""
    sigbus.install()
    before = held()
    faults = 0
    for seed in range(200):
        rng = random.Random(seed)
        own = Files()
        steps = rng.choice(SEEDS)()
        at = rng.randrange(len(steps))
        talk = Dialogue(own)
        talk.play(steps[:at])
        own.shrink(rng.choice((0, 4096, 0x8000)))
        talk.play(steps[at:])
        faults += talk.target.faulted
        talk.close()
        own.close()
    assert faults > 20
    assert gained(before) == (0, 0, 0)


@pytest.mark.compiled_only
@pytest.mark.parametrize("size", [0, 4096])
def test_an_in_flight_region_that_shrinks(size: int) -> None:
    """It is read where a ring starts, and reads as zeros: a region that was never used."""
    sigbus.install()
    before = held()
    own = Files()
    steps = tracked()
    given = next(i for i, s in enumerate(steps) if s.request == Request.SET_INFLIGHT_FD)
    steps[given] = replace(steps[given], files=(FileKind.LOG,))
    talk = Dialogue(own)
    talk.play(steps[: given + 1])
    os.ftruncate(own.get(FileKind.LOG), size)
    talk.play([s for s in steps[given + 1 :] if s.request != Request.SET_INFLIGHT_FD])
    assert talk.target.faulted
    assert talk.end is None, talk.reason
    talk.close()
    own.close()
    assert gained(before) == (0, 0, 0)
