# SPDX-License-Identifier: Apache-2.0
"""The Docker plugin's file under SIGKILL at every write: what was answered is kept, and
nothing is given twice, or half forgotten.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from byway_docker.model import Endpoint, Network, Published, Subnet
from byway_docker.state import State
from tests.killing import run_killed

Step = Callable[[State], object]
NET = Network("a" * 20, "docker-aaaaaaaaaaaa", True, None, None, "host",
              (Subnet("s", "10.0.0.0/29", "10.0.0.1/29"),), ())
ONE = Endpoint("b" * 20, NET.id, "02:00:00:00:00:01", "10.0.0.2/29", "")
TWO = Endpoint("c" * 20, NET.id, "02:00:00:00:00:02", "10.0.0.3/29", "")
PORT = (Published("tcp", "", 8080, 80),)
POOL = "s/10.0.0.0/29"

STEPS: tuple[Step, ...] = (
    lambda state: state.change(lambda pools: pools.request_pool("s", "10.0.0.0/29")),
    lambda state: state.change(lambda pools: pools.request_gateway(POOL)),
    lambda state: state.add_network(NET),
    lambda state: state.change(lambda pools: pools.request_address(POOL, owner=ONE.mac)),
    lambda state: state.add_endpoint(ONE),
    lambda state: state.set_endpoint(replace(ONE, sandbox="/run/sandbox")),
    lambda state: state.publish(ONE.id, PORT),
    lambda state: state.add_endpoint(TWO),  # takes its address itself
    lambda state: state.remove_endpoint(ONE.id, release=True),
    lambda state: state.gone(ONE.port, ONE.interface),
    lambda state: state.remove_network(NET.id),
    lambda state: state.change(lambda pools: pools.release_pool(POOL)),
)


def seen(state: State) -> Any:
    """All that a file has."""
    held = state.change(lambda pools: [
        (pool.id, pools.gateway(pool.id), pools.addresses(pool.id)) for pool in pools.pools()])
    return held, state.networks(), state.endpoints(), state.left_overs()


class InPlace(Executor):
    """Carries out what it is given at once: it is the main thread that is watched, and killed."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def one_step(path: Path, step: Step) -> None:
    """What the process that is killed does."""
    state = State(str(path), InPlace())
    step(state)
    state.close()


def look(path: Path) -> Any:
    """What the next process finds in the file."""
    state = State(str(path), InPlace())
    try:
        return seen(state)
    finally:
        state.close()


@pytest.mark.compiled_only
@pytest.mark.timeout(900)
def test_killed_before_every_write_of_every_step(tmp_path: Path) -> None:
    path, before = tmp_path / "docker.db", tmp_path / "before.db"
    found = look(path)
    for step in STEPS:
        shutil.copy(path, before)
        one_step(path, step)
        expected = (found, look(path))
        assert expected[0] != expected[1]
        k, hit = 0, set()
        while True:
            shutil.copy(before, path)
            path.with_name("docker.db-journal").unlink(missing_ok=True)
            was_killed = run_killed(partial(one_step, path, step), k)
            found = look(path)
            assert found in expected, k
            hit.add(expected.index(found))
            if not was_killed:
                break
            k += 1
        assert hit == {0, 1}  # it was met undone, and done without an answer
        assert found == expected[1]
