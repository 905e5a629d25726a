# SPDX-License-Identifier: Apache-2.0
"""Hostile virtqueues: no crash, no hang, no access outside memory, every frame accounted for.

Each run is a process of its own, so that a crash is a failure of this test and names its case:
HostileRings(seed, packed=...).run(case). BYWAY_HOSTILE_RINGS says how many compiled cases there
are; 45 of 100 are split rings, the others packed. Both formats have indirect tables, in-order use,
merged receive buffers, virtio headers that ask for any offload, and dirty logs that are too small.
"""

import contextlib
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
CASES = int(os.environ.get("BYWAY_HOSTILE_RINGS", "200000"))
SHARE = {"split": CASES * 45 // 100, "packed": CASES - CASES * 45 // 100}
WATCHED = 1500  # cases of each format that are run interpreted as well, under an Arena
SEED = 20261
PATIENCE = 60  # seconds for one case, on a machine that has much else to do
FORMATS = list(SHARE)
REASONS = {"bad_address", "bad_chain", "bad_direction", "long_chain"}
ERRORS = {"split": {"", "AVAIL_JUMP", "BAD_HEAD"}, "packed": {"", "ENDLESS"}}


class Run:
    """A ring_sweep under way."""

    def __init__(self, tmp_path: Path, what: str, layout: str, *arguments: object,
                 interpreted: bool) -> None:
        self._progress = tmp_path / f"progress-{layout}-{interpreted}"
        self._output = tmp_path / f"output-{layout}-{interpreted}"
        self._name = f"HostileRings({arguments[0]}, packed={layout == 'packed'})"
        environment = {**os.environ, "NUMBA_DISABLE_JIT": "1" if interpreted else "0",
                       "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        command = [sys.executable, "-m", "tests.hostile.ring_sweep", what, layout,
                   *map(str, arguments), str(self._progress)]
        with self._output.open("w") as output, \
                self._output.with_suffix(".err").open("w") as errors:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output,
                                             stderr=errors)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()

    def result(self) -> dict[str, Any]:
        """What it printed; fails with the number of the case where it crashed or hung."""
        case, status = -1, None
        while status is None:
            try:
                status = self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                if case == self._case():
                    pytest.fail(f"{self._name} hangs in case {case}")
                case = self._case()
        errors = self._output.with_suffix(".err").read_text()
        if status < 0:
            name = signal.Signals(-status).name
            pytest.fail(f"{self._name}.run({self._case()}) ends with {name}\n{errors[-2000:]}")
        assert status == 0, f"{self._name}, case {self._case()}\n{errors[-3000:]}"
        made: dict[str, Any] = json.loads(self._output.read_text())
        return made

    def _case(self) -> int:
        return int(np.fromfile(self._progress, np.int64)[0])


@pytest.mark.compiled_only
@pytest.mark.timeout(900)
def test_compiled_kernels_survive_every_ring(tmp_path: Path) -> None:
    """Both formats side by side."""
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(Run(tmp_path, "sweep", layout, SEED, 0, SHARE[layout], 0,
                                        interpreted=False)) for layout in FORMATS]
        results = [run.result() for run in runs]
    for result, layout in zip(results, FORMATS, strict=True):
        assert sum(result["errors"].values()) == SHARE[layout]
        assert set(result["errors"]) == ERRORS[layout]
        assert min(result["moved"]) > SHARE[layout] / 8


@pytest.mark.compiled_only
@pytest.mark.timeout(400)
@pytest.mark.parametrize("layout", FORMATS)
def test_interpreted_kernels_do_the_same(tmp_path: Path, layout: str) -> None:
    """... and their every access is watched."""
    with Run(tmp_path, "sweep", layout, SEED, 0, WATCHED, WATCHED, interpreted=True) as slow, \
            Run(tmp_path, "sweep", layout, SEED, 0, WATCHED, WATCHED, interpreted=False) as fast:
        watched, compiled = slow.result(), fast.result()
    check_variety(compiled, layout)
    different = [k for k, pair in enumerate(zip(watched["digests"], compiled["digests"],
                                                strict=True)) if pair[0] != pair[1]]
    assert different == []


@pytest.mark.interpreted_only
@pytest.mark.timeout(400)
@pytest.mark.parametrize("layout", FORMATS)
def test_interpreted_kernels_stay_in_their_memory(tmp_path: Path, layout: str) -> None:
    with Run(tmp_path, "sweep", layout, SEED + 1, 0, 1000, 1000, interpreted=True) as run:
        check_variety(run.result(), layout)


def check_variety(result: dict[str, Any], layout: str) -> None:
    """The cases reach what they are made for: every reason, every error, and plain success."""
    for direction in ("from", "to"):
        assert {f"{direction} {reason}" for reason in REASONS} <= set(result["drops"])
    assert {"from runt", "from over_mtu", "from bad_offload", "to small_buffer",
            "to no_buffers"} <= set(result["drops"])
    assert set(result["errors"]) == ERRORS[layout]
    total = sum(result["errors"].values())
    assert min(result["moved"]) > total / 8


@pytest.mark.compiled_only
@pytest.mark.timeout(400)
@pytest.mark.parametrize("layout", FORMATS)
def test_rings_that_change_while_they_are_read(tmp_path: Path, layout: str) -> None:
    """A thread of the guest writes descriptors and indices as fast as it can."""
    with Run(tmp_path, "change", layout, SEED, 6, interpreted=False) as run:
        result = run.result()
    assert result["passes"] > 100
    assert result["moved"] > 20
    assert result["broken"] > 10
