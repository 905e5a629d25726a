# SPDX-License-Identifier: Apache-2.0
"""What the benches read from their peers' output, how they judge it, and that they run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import vm2vm_testpmd as bench
from tests.system.peers import ovs, testpmd

PORT_STATS = """show port stats all

  ######################## NIC statistics for port 0  ########################
  RX-packets: 1016096    RX-missed: 3          RX-bytes:  1538369344
  RX-errors: 2
  RX-nombuf:  0
  TX-packets: 1015872    TX-errors: 1          TX-bytes:  1538030208

  Throughput (since last show)
  Rx-pps:       264921          Rx-bps:   3208727480
  Tx-pps:       264862          Tx-bps:   3208020112
  ############################################################################

  ######################## NIC statistics for port 1  ########################
  RX-packets: 1015872    RX-missed: 0          RX-bytes:  1538030208
  RX-errors: 0
  RX-nombuf:  0
  TX-packets: 1016096    TX-errors: 0          TX-bytes:  1538369344

  Throughput (since last show)
  Rx-pps:       264862          Rx-bps:   3208019952
  Tx-pps:       264921          Tx-bps:   3208727320
  ############################################################################
"""
CYCLES = "  CPU cycles/packet=172.14 (total cycles=10891677370 / total io packets=63270432)\n"
PMD_STATS = """pmd thread numa_id 0 core_id 0:
  packets received: 17854496
  packet recirculations: 0
  emc hits: 17854496
  avg. packets per output batch: 32.00
  idle cycles: 574524806 (10.97%)
  processing cycles: 4663618988 (89.03%)
  avg cycles per packet: 293.38 (5238143794/17854496)
  avg processing cycles per packet: 261.20 (4663618988/17854496)
main thread:
  packets received: 0
  packet recirculations: 0
"""


def test_testpmd_ports() -> None:
    first, second = testpmd.parse_port_stats(PORT_STATS)
    assert first == testpmd.PortStats(rx=1016096, rx_missed=3, rx_errors=2, tx=1015872, tx_errors=1)
    assert testpmd.balanced([first, second])


def test_testpmd_cycles() -> None:
    assert testpmd.parse_cycles(CYCLES) == 172.14
    with pytest.raises(ValueError, match="no cycles"):
        testpmd.parse_cycles("nothing moved")


def test_ovs_cycles() -> None:
    assert ovs.parse_pmd_stats(PMD_STATS) == (17854496, 261.20)
    with pytest.raises(ValueError, match="no cycles"):
        ovs.parse_pmd_stats("main thread:\n  packets received: 0\n")


def test_claims_are_ratios_of_medians() -> None:
    samples = [
        bench.Sample(1 + n, 64, name, cycles + noise, mpps, 0, 0.5 if noise else 1.0)
        for name, cycles, mpps in (("byway", 70, 14), ("testpmd", 200, 12), ("ovs", 250, 9))
        for n, noise in enumerate((0, 500, 0))
    ]
    middle = bench.medians(samples)
    assert middle[64, "byway"] == (70, 14)
    judged = {claim.name: (claim.ratio, claim.holds) for claim in bench.claims(middle)}
    assert judged == {
        "cycles byway/testpmd, 64 bytes": (0.35, True),
        "cycles byway/ovs, 64 bytes": (0.28, False),
        "throughput byway/testpmd, 64 bytes": (14 / 12, True),
    }
    assert "FAILS" in bench.table(samples)
    assert "3 of 9 measurements had to share" in bench.table(samples)
    settings = bench.Bench(seconds=1, bursts=1, cpus=(0, 1), huge=False)
    assert len(json.loads(bench.as_json(samples, settings))["claims"]) == 3


def run(folder: Path, *words: str) -> dict[str, Any]:
    """Run a bench; what it wrote as JSON. Its claims may fail here: nobody keeps the CPUs free."""
    file = folder / f"{Path(words[0]).stem}.json"
    script = Path(bench.__file__).with_name(words[0])
    argv = [sys.executable, str(script), *words[1:], "--json", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 1), done.stderr
    assert file.exists(), done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("dpdk")
def test_vm2vm_measures_and_loses_nothing(folder: Path) -> None:
    words = ["vm2vm_testpmd.py", "--rounds", "1", "--seconds", "0.5", "--frame", "64"]
    found = run(folder, *words, "--switch", "byway", "--switch", "testpmd")
    samples = [bench.Sample(**sample) for sample in found["samples"]]
    assert [sample.switch for sample in samples] == ["byway", "testpmd"]
    assert all(sample.lost == 0 and sample.cycles > 0 and sample.mpps > 0 for sample in samples)


@pytest.mark.system
@pytest.mark.timeout(300)
def test_first_frame_measures(folder: Path) -> None:
    found = run(folder, "first_frame.py", "--rounds", "1")
    assert found["cold_seconds"] > found["warm_seconds"][0] > 0
    assert min(found["after_idle_seconds"]) > 0


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("dpdk")
def test_variants_compares_each_way(folder: Path) -> None:
    found = run(folder, "variants.py", "--turns", "3", "--seconds", "0.05", "--frame", "64")
    assert len(found["samples"]) == 3 * 4
    assert all(sample["cycles"] > 0 and sample["burst"] >= 1 for sample in found["samples"])
    assert [claim["one"] for claim in found["claims"]] == [
        "packed", "split, 4 pairs", "packed, 4 pairs"]


@pytest.mark.system
@pytest.mark.timeout(300)
def test_tso_tap_measures(folder: Path) -> None:
    found = run(folder, "tso_tap.py", "--turns", "2")
    assert found["ratio"] > 1, "a system call for 64 KiB costs less than 44 of them"
    assert all(octets > 60_000 for _, octets in found["rows"]["large"])
