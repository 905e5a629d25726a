# SPDX-License-Identifier: Apache-2.0
"""Hostile offloads: headers and virtio_net_hdr that lie, of frames that are to be finished.

No crash, no hang, no access outside the frame and our own buffers, nothing of the sender's read
twice, and what is sent on is never longer or more than was checked. Each run is a process of its
own; a failure names its case: offload_sweep.Sweep(SEED).run(case).
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
CASES = int(os.environ.get("BYWAY_HOSTILE_OFFLOADS", "20000"))
WATCHED = 1000  # cases that are run interpreted as well, under an Arena
SEED = 20262


def run(tmp_path: Path, seed: int, count: int, compared: int, interpreted: bool) -> dict[str, Any]:
    """What offload_sweep printed; fails with the number of the case where it crashed or hung."""
    progress = tmp_path / "progress"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1" if interpreted else "0",
                   "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.hostile.offload_sweep",
               *map(str, (seed, 0, count, compared, progress))]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                              timeout=200)
    except subprocess.TimeoutExpired:
        pytest.fail(f"case {_case(progress)} of seed {seed} hangs")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        pytest.fail(f"case {_case(progress)} of seed {seed} ends with {name}\n"
                    + done.stderr[-2000:])
    assert done.returncode == 0, f"case {_case(progress)}\n{done.stderr[-3000:]}"
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _case(progress: Path) -> int:
    return int(np.fromfile(progress, np.int64)[0])


def check_variety(result: dict[str, Any], cases: int) -> None:
    """The cases reach what they are made for: drops, and each way of finishing a frame."""
    counts = result["counts"]
    assert counts["kept"] + counts["BAD_OFFLOAD"] == cases
    assert min(counts[name] for name in ("BAD_OFFLOAD", "lent", "whole", "cut")) > cases / 30


@pytest.mark.compiled_only
@pytest.mark.timeout(300)
def test_compiled_kernels_survive_every_header(tmp_path: Path) -> None:
    """... and do exactly what the interpreted ones do, whose every access is watched."""
    compiled = run(tmp_path, SEED, CASES, WATCHED, False)
    check_variety(compiled, CASES)
    watched = run(tmp_path, SEED, WATCHED, WATCHED, True)
    different = [k for k, pair in enumerate(zip(watched["digests"], compiled["digests"],
                                                strict=True)) if pair[0] != pair[1]]
    assert different == []


@pytest.mark.interpreted_only
def test_interpreted_kernels_stay_in_their_memory(tmp_path: Path) -> None:
    check_variety(run(tmp_path, SEED + 1, 500, 0, True), 500)
