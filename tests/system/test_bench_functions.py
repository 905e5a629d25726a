# SPDX-License-Identifier: Apache-2.0
"""The benches of network functions run; their claims may fail here: nobody keeps the CPUs free."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.sources import ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "bench" / script), *words],
                          capture_output=True, text=True, timeout=280, check=False)


def test_every_function_and_time_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "functions.json"
    done = run("functions.py", "--flows", "64", "--json", str(file))
    assert done.returncode in (0, 1), done.stderr
    assert file.exists(), done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    assert {"empty", "nat44"} <= set(found["cycles"])
    assert found["cycles"]["nat44"] > found["cycles"]["empty"]
    assert all(0 < seconds < 100 for seconds in found["seconds"].values())


def test_without_snabb_it_says_what_it_needs() -> None:
    done = run("functions_snabb.py")
    assert done.returncode == 2
    assert "set SNABB" in done.stderr
