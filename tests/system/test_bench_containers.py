# SPDX-License-Identifier: Apache-2.0
"""What the bench of containers makes of its measurements, and that each of its ways works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import containers as bench
from tests import peers


def test_medians_and_the_table() -> None:
    samples = [bench.Sample(way, load, number, rate + number, cost, 0.0)
               for way, rate in (("byway tap", 8), ("ovs tap", 2))
               for load, cost in (("tcp", 1.5), ("udp", 200.0))
               for number in (1, 2, 3)]
    middle = bench.medians(samples)
    assert middle["byway tap", "tcp"] == (10, 1.5, 0)
    lines = bench.table(middle).splitlines()
    assert lines[1].split() == ["byway", "tap", "10.00", "1.50", "10.000", "200.0", "0%"]


def test_the_machine_works() -> None:
    before = bench.busy()
    spent = sum(range(10_000_000))
    assert spent > 0
    assert bench.busy() > before


@pytest.mark.system
@pytest.mark.timeout(300)
def test_every_way_is_measured(folder: Path) -> None:
    for name in ("iperf3", "ethtool", "ovs-vsctl", "ip"):
        peers.find_program(name)
    if os.geteuid():
        peers.need_peer("network namespaces", "they need root")
    file = folder / "bench.json"
    argv = [sys.executable, str(Path(bench.__file__)), "--rounds", "1", "--seconds", "1",
            "--json", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=290)
    assert done.returncode in (0, 1), done.stderr  # the claim may fail: nobody keeps the CPUs free
    samples = [bench.Sample(**sample) for sample in json.loads(file.read_text())]
    assert {(s.way, s.load) for s in samples} == {
        (way, load) for way in bench.WAYS for load in bench.LOADS}
    assert all(s.rate > 0 and s.cost > 0 for s in samples)
