# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at any point: no address is given out twice, and no answer is forgotten.

First one process, killed before each of its writes in turn: what the next process finds is the
state after the last call that was answered, or the one after the call that was not. Then several
processes at once, killed at random: whoever was told an address has it alone.
"""

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from byway.ipam import Pools
from tests.killing import run_killed

Step = Callable[[Pools], object]
POOL = "s/10.0.0.0/29"
PART = "s/fd00::/64/fd00::10-fd00::20"


def both(pools: Pools) -> list[str]:
    """Two addresses, or none."""
    with pools.transaction():
        return [pools.request_address(POOL, owner="d"), pools.request_address(PART, owner="d")]


STEPS: tuple[Step, ...] = (
    lambda pools: pools.request_pool("s", "10.0.0.0/29"),
    lambda pools: pools.request_pool("s", "fd00::/64", "fd00::10-fd00::20"),
    lambda pools: pools.request_gateway(POOL),
    lambda pools: pools.request_address(POOL, owner="a"),
    lambda pools: pools.request_address(POOL, "10.0.0.6", owner="b"),
    lambda pools: pools.release_owner("s", "a"),
    lambda pools: pools.request_address(POOL, owner="c"),
    both,
    lambda pools: pools.release_address(POOL, "10.0.0.6"),
    lambda pools: pools.request_address(POOL, owner="e"),
    lambda pools: pools.release_pool(PART),
    lambda pools: pools.request_pool("t"),
)


def state(pools: Pools) -> list[object]:
    """All that a file has."""
    return [(pool, pools.gateway(pool.id), pools.addresses(pool.id)) for pool in pools.pools()]


def states(path: Path) -> list[list[object]]:
    """What a file has before the first step, and after each."""
    with Pools(path) as pools:
        found = [state(pools)]
        for step in STEPS:
            step(pools)
            found.append(state(pools))
    return found


def work(path: Path, answers: int) -> None:
    """All steps, one byte for each that was answered."""
    with Pools(path) as pools:
        for step in STEPS:
            step(pools)
            os.write(answers, b".")


def killed_before_write(path: Path, k: int) -> tuple[bool, int]:
    """-> (whether there was a write k, how many steps were answered before it)."""
    reader, writer = os.pipe()
    try:
        came_so_far = run_killed(lambda: work(path, writer), k)
        os.close(writer)
        return came_so_far, len(os.read(reader, len(STEPS) + 1))
    finally:
        os.close(reader)


@pytest.mark.compiled_only
@pytest.mark.timeout(900)
def test_killed_before_every_write(tmp_path: Path) -> None:
    expected = states(tmp_path / "expected.db")
    k, alive, hit = 0, False, set()
    while not alive:
        path = tmp_path / f"{k}" / "ipam.db"
        came_so_far, answered = killed_before_write(path, k)
        alive = not came_so_far
        with Pools(path) as pools:
            assert pools.store.rows("PRAGMA integrity_check") == [("ok",)]
            found = state(pools)
            assert found in expected[answered:answered + 2], (k, answered)
            # The caller asks again for what it heard no answer to, and gets on from there.
            done = expected.index(found, answered)
            hit.add((answered, done - answered))
            for step in STEPS[done:]:
                step(pools)
            assert state(pools) == expected[-1]
        shutil.rmtree(path.parent)
        k += 1
    # Every step was met undone, and done without an answer.
    assert hit >= {(step, more) for step in range(len(STEPS)) for more in (0, 1)}
    assert k > 5 * len(STEPS)


@pytest.mark.parametrize("killed_at", [3, 8])
def test_asked_again_the_same_owner_gets_the_same_address(tmp_path: Path, killed_at: int) -> None:
    """Of a call that was killed after its commit the owner is known: nothing is lost either."""
    path = tmp_path / "ipam.db"
    with Pools(path) as pools:
        pool, _ = pools.request_pool("s", "10.0.0.0/29")
    k, given = 0, []
    while run_killed(lambda: given_to(path, pool, "c1"), killed_at + k):
        with Pools(path) as pools:
            given += [one.address for one in pools.owned("s", "c1")]
        k += 1
    assert set(given) <= {"10.0.0.1/29"}
    assert given


def given_to(path: Path, pool: str, owner: str) -> None:
    """One request."""
    with Pools(path) as pools:
        pools.request_address(pool, owner=owner)


CHILDREN, KILLS = 4, 40


def take_and_give_back(path: Path, pool: str, name: str, answers: int) -> None:
    """For ever: take an address, say so, and give every second one back, having said so."""
    with Pools(path, timeout=60.0) as pools:
        number = 0
        while True:
            owner = f"{name}-{number}"
            address = pools.request_address(pool, owner=owner)
            os.write(answers, f"+{owner} {address}\n".encode())
            if number % 2:
                os.write(answers, f"-{owner} {address}\n".encode())
                pools.release_owner("s", owner)
            number += 1


def test_killed_at_random(tmp_path: Path) -> None:
    path = tmp_path / "ipam.db"
    with Pools(path) as pools:
        pool, _ = pools.request_pool("s", "10.0.0.0/22")
    dice = random.Random(4)
    reader, writer = os.pipe()
    said = os.fdopen(reader, "r")
    children: list[int] = []
    lines: list[str] = []
    try:
        for kill in range(KILLS):
            while len(children) < CHILDREN:
                children.append(start(path, pool, f"p{kill}.{len(children)}", writer))
            lines += [said.readline() for _ in range(dice.randrange(1, 20))]
            victim = children.pop(dice.randrange(len(children)))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(writer)
    lines += said.readlines()
    said.close()
    check(path, pool, lines)


def start(path: Path, pool: str, name: str, answers: int) -> int:
    """Fork one that takes addresses."""
    child = os.fork()
    if child == 0:
        try:
            take_and_give_back(path, pool, name, answers)
        finally:
            os._exit(1)
    return child


def check(path: Path, pool: str, lines: list[str]) -> None:
    """Whoever was told an address, and did not begin to give it back, has it alone."""
    told, gone = {}, set()
    for line in lines:
        owner, address = line[1:].split()
        if line[0] == "+":
            told[owner] = address
        else:
            gone.add(owner)
    kept = {owner: address for owner, address in told.items() if owner not in gone}
    assert len(kept) > KILLS
    assert [a for a, count in Counter(kept.values()).items() if count > 1] == []
    with Pools(path) as pools:
        held = {one.owner: one.address for one in pools.addresses(pool)}
    assert {owner: held.get(owner) for owner in kept} == kept
    assert len(set(held.values())) == len(held)
