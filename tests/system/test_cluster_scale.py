# SPDX-License-Identifier: Apache-2.0
"""The bench of the cluster at a tenth of its size: it runs to its end with sensible figures.
Its own limits, which its exit status tells of, are for a machine that does nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import peers

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]


def test_a_tenth_of_a_large_cluster(tmp_path: Path) -> None:
    peers.find_program("etcd")
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "bench/cluster.py", "--hosts", "100", "--networks", "20", "--entries",
         "10000", "--rate", "1200", "--seconds", "4", "--json", str(figures)],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert figures.exists(), done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert found["sync_seconds"] < 30, done.stdout
    assert found["behind_at_the_end"] < 15, done.stdout
    assert found["table_bytes_an_entry"] < 300, done.stdout
    assert found["control_bytes_an_entry"] < 300, done.stdout
