# SPDX-License-Identifier: Apache-2.0
"""What the bench of the overlay makes of its measurements, and that each of its ways works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import overlay as bench
from bench import overlay_frames, overlay_tcp
from tests import peers
from tests.system.peers import hugepages, ovs


def samples(*given: tuple[str, str, float]) -> list[bench.Sample]:
    """Three rounds of each (load, way, cost), the second one disturbed."""
    return [bench.Sample(load, way, number, 1.0, cost + (1000 if number == 2 else 0))
            for load, way, cost in given for number in (1, 2, 3)]


def test_a_claim_holds_a_median_against_the_rivals_least() -> None:
    found = samples(
        ("frames", "byway ring", 200), ("frames", "ovs ring", 800),
        ("frames", "byway af-xdp", 900), ("frames", "ovs af-xdp", 600), ("tcp", "byway", 2))
    assert bench.claims(found) == {
        "cycles a frame, byway ring / ovs ring": 0.25,
        "cycles a frame, byway af-xdp / ovs af-xdp": 1.5,
    }
    text = bench.table(found)
    assert "byway ring / ovs ring: 0.25 < 1  holds" in text
    assert "byway af-xdp / ovs af-xdp: 1.50 < 1  FAILS" in text


def test_measurements_that_shared_a_cpu_are_told() -> None:
    """It only adds to a figure: the least of the rival's is held against us."""
    own = samples(("frames", "byway ring", 200))
    other = bench.Sample("frames", "ovs ring", 1, 1.0, 9000, preempted=150)
    quiet = bench.Sample("frames", "ovs ring", 2, 1.0, 800, preempted=2)
    assert bench.claims([*own, other, quiet]) == {"cycles a frame, byway ring / ovs ring": 0.25}
    assert "1 of 5 measurements had to share" in bench.table([*own, other, quiet])


def test_the_kernels_part_is_what_lies_beyond_a_veth() -> None:
    middle = bench.medians(samples(("frames", "linux", 5000), ("frames", "bare", 2000)))
    assert middle == {("frames", "linux"): (1.0, 1500)}


@pytest.mark.system
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("dpdk")
def test_every_way_is_measured(folder: Path) -> None:
    for name in ("iperf3", "ethtool", "ovs-vsctl", "ip", "bridge"):
        peers.find_program(name)
    if not Path(ovs.VSWITCHD).exists():
        peers.need_peer("Open vSwitch with DPDK", f"no {ovs.VSWITCHD}")
    if os.geteuid():
        peers.need_peer("network namespaces", "they need root")
    try:
        with hugepages.reserve(bench.HUGE_MIB):
            pass
    except hugepages.HugePagesMissing as error:
        peers.need_peer("huge pages", str(error))
    file = folder / "bench.json"
    argv = [sys.executable, str(Path(bench.__file__)), "--rounds", "1", "--seconds", "1",
            "--json", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=590)
    assert done.returncode in (0, 1), done.stderr  # a claim may fail: nobody keeps the CPUs free
    found = [bench.Sample(**sample) for sample in json.loads(file.read_text())]
    assert {(one.load, one.way) for one in found} == (
        {("frames", way) for way in overlay_frames.WAYS}
        | {("tcp", way) for way in overlay_tcp.WAYS})
    assert all(one.rate > 0 and one.cost > 0 for one in found)
