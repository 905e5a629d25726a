# SPDX-License-Identifier: Apache-2.0
"""Hostile virtqueues: no crash, no hang, no access outside memory, every frame accounted for.

Each run is a process of its own, so that a crash is a failure of this test and names its case:
HostileRings(seed).run(case). BYWAY_HOSTILE_RINGS says how many compiled cases there are.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = int(os.environ.get("BYWAY_HOSTILE_RINGS", "100000"))
WATCHED = 2000  # cases that are run interpreted as well, under an Arena
SEED = 20261
REASONS = {"bad_address", "bad_chain", "bad_direction", "long_chain"}


def run(tmp_path: Path, what: str, *arguments: object, interpreted: bool,
        seconds: float) -> dict[str, Any]:
    """What ring_sweep printed; fails with the number of the case where it crashed or hung."""
    progress = tmp_path / "progress"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1" if interpreted else "0",
                   "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.hostile.ring_sweep", what,
               *map(str, arguments), str(progress)]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                              timeout=seconds)
    except subprocess.TimeoutExpired:
        pytest.fail(f"HostileRings({arguments[0]}) hangs in case {_case(progress)}")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        pytest.fail(f"HostileRings({arguments[0]}).run({_case(progress)}) ends with {name}\n"
                    + done.stderr[-2000:])
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _case(progress: Path) -> int:
    return int(np.fromfile(progress, np.int64)[0])


@pytest.mark.compiled_only
@pytest.mark.timeout(300)
def test_compiled_kernels_survive_every_ring(tmp_path: Path) -> None:
    """... and do exactly what the interpreted ones do, whose every access is watched."""
    compiled = run(tmp_path, "sweep", SEED, 0, CASES, WATCHED, interpreted=False, seconds=240)
    assert sum(compiled["errors"].values()) == CASES
    check_variety(compiled)
    watched = run(tmp_path, "sweep", SEED, 0, WATCHED, WATCHED, interpreted=True, seconds=120)
    different = [k for k, pair in enumerate(zip(watched["digests"], compiled["digests"],
                                                strict=True)) if pair[0] != pair[1]]
    assert different == []


@pytest.mark.interpreted_only
def test_interpreted_kernels_stay_in_their_memory(tmp_path: Path) -> None:
    check_variety(run(tmp_path, "sweep", SEED + 1, 0, 1000, 1000, interpreted=True, seconds=120))


def check_variety(result: dict[str, Any]) -> None:
    """The cases reach what they are made for: every reason, every error, and plain success."""
    for direction in ("from", "to"):
        assert {f"{direction} {reason}" for reason in REASONS} <= set(result["drops"])
    assert {"from runt", "from over_mtu", "to small_buffer", "to no_buffers"} <= set(
        result["drops"])
    assert {"", "AVAIL_JUMP", "BAD_HEAD"} <= set(result["errors"])
    total = sum(result["errors"].values())
    assert min(result["moved"]) > total / 8


@pytest.mark.compiled_only
@pytest.mark.timeout(120)
def test_rings_that_change_while_they_are_read(tmp_path: Path) -> None:
    """A thread of the guest writes descriptors and indices as fast as it can."""
    result = run(tmp_path, "change", SEED, 6, interpreted=False, seconds=90)
    assert result["passes"] > 100
    assert result["moved"] > 100
    assert result["broken"] > 10
