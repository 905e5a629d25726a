# SPDX-License-Identifier: Apache-2.0
"""VXLAN between two hosts of this machine: Byway, Open vSwitch with DPDK, and Linux.

    .venv/bin/python bench/overlay.py [--rounds 3] [--seconds 5] [--frames WAY ...] [--tcp WAY ...]
                                      [--json FILE]

Small frames: two machines (ports of one DPDK testpmd) on two hosts send 64 bytes back and forth.
Measured are the cycles of the time stamp counter that the near host's switch works for a frame, by
its own count, idle polls left out; half of the frames it encapsulates, half it decapsulates. It has
a CPU of its own; the far host's switch shares the other one with the machines. Between the hosts is
a virtqueue ("ring"), or a veth by whatever the name says. The Linux kernel works in its callers'
time: its figure is half of what the machines need more than over a bare veth, since both hosts'
part is in that.

TCP: iperf3 between two containers on two hosts, the underlay a veth; bits a second that arrived,
and CPU seconds of the whole machine for a GiB (see bench/containers.py). Open vSwitch is its data
path in user space there, with taps.

Printed are medians, and the claim that Byway works less than Open vSwitch for a small frame where
both have the same kind of wire; the exit status is 0 if it holds, 1 if not, 2 if nothing could be
measured. Needs root and huge pages; nothing else may run meanwhile. Where something did, the time
stamp counter went on counting: a switch that polls takes a pass in which it lost its CPU for one
that was busy, since frames came meanwhile. That can only add to a figure. So a claim holds Byway's
median against the least that Open vSwitch ever needed, and it is told how many measurements shared
a CPU.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import containers, overlay_frames, overlay_tcp
from bench.container_ways import Pair
from bench.overlay_frames import Run, Settings
from tests.system.peers import hugepages
from tests.system.peers.process import PeerError, wait_until
from tests.system.peers.testpmd import Guest

FRAME = 64
HUGE_MIB = 1400  # the machines, and two Open vSwitches
BURSTS = 8  # of 32 frames that each machine has on its way
WARM_UP = 1.0  # seconds
TRIES = 5
QUIET = 20.0  # preemptions a second of the measured threads, beyond which something else ran there
RIVALS = (("byway ring", "ovs ring"), ("byway af-packet", "ovs af-packet"),
          ("byway af-xdp", "ovs af-xdp"))


@dataclass(frozen=True)
class Sample:
    """One measurement. Frames: ``rate`` in million a second, ``cost`` in cycles a frame; TCP: in
    Gbit/s, in CPU seconds a GiB. ``preempted``: how often a second somebody else took the CPU of
    the threads whose cycles were counted."""

    load: str
    way: str
    round: int
    rate: float
    cost: float
    preempted: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether the cycles are those of the switch alone."""
        return self.preempted <= QUIET


def set_off(guest: Guest) -> None:
    """Have the machines send frames back and forth. The first ones may be lost where hosts have yet
    to find each other; then once more."""
    for _ in range(TRIES):
        guest.ping_pong(BURSTS)
        time.sleep(WARM_UP)
        before = guest.stats()
        time.sleep(WARM_UP / 4)
        if guest.stats() != before:
            return
        guest.command("stop", r"\nDone\.")


def frames(run: Run, seconds: float) -> tuple[float, float, float]:
    """(million frames a second, cycles a frame, preemptions a second) of two machines. PeerError
    where no frames arrive."""
    set_off(run.guest)
    run.meter.clear()
    before = run.preempted()
    begin, first = time.monotonic(), run.guest.stats()
    time.sleep(seconds)
    end, last = time.monotonic(), run.guest.stats()
    arrived = sum(after.rx - before.rx for before, after in zip(first, last, strict=True))
    if arrived == 0:
        raise PeerError("no frame arrived")
    cycles, preempted = run.meter.cycles(), run.preempted() - before
    return arrived / (end - begin) / 1e6, cycles, preempted / (end - begin)


def tcp(pair: Pair, folder: Path, seconds: float) -> tuple[float, float, float]:
    """(Gbit/s, CPU seconds a GiB, 0) of one connection."""
    reach = f"busybox ping -q -c 1 -W 1 {pair.address} || true"
    wait_until(lambda: " 1 packets received" in pair.left.run("sh", "-c", reach),
               "the other container answers", 60)
    containers.tcp(pair, folder, 1)
    return containers.tcp(pair, folder, max(1, round(seconds)))


def measure(
    load: str, way: str, seconds: float, cpus: tuple[int, int]
) -> tuple[float, float, float]:
    """(rate, cost, preemptions a second) of one way."""
    with tempfile.TemporaryDirectory(prefix="byway-") as name:
        folder = Path(name)
        if load == "tcp":
            with overlay_tcp.WAYS[way](folder) as pair:
                return tcp(pair, folder, seconds)
        with overlay_frames.WAYS[way](Settings(FRAME, cpus, True, folder)) as run:
            return frames(run, seconds)


def measure_all(given: argparse.Namespace) -> list[Sample]:
    """Every way in every round, each told on stderr as it comes."""
    cpus = sorted(os.sched_getaffinity(0))
    samples = []
    for number in range(1, given.rounds + 1):
        for load, ways in (("frames", given.frames), ("tcp", given.tcp)):
            for way in ways:
                sample = Sample(load, way, number, *measure(
                    load, way, given.seconds, (cpus[0], cpus[-1])))
                samples.append(sample)
                print(f"round {number}: {load}, {way}: {sample.rate:.3g} {RATES[load]},"
                      f" {sample.cost:.3g} {COSTS[load]}"
                      f"{'' if sample.quiet else ', disturbed'}", file=sys.stderr, flush=True)
    return samples


RATES = {"frames": "M frames/s", "tcp": "Gbit/s"}
COSTS = {"frames": "cycles a frame", "tcp": "CPU s/GiB"}


def medians(samples: list[Sample]) -> dict[tuple[str, str], tuple[float, float]]:
    """{(load, way): (rate, cost)}, the kernel's cost as the docstring has it."""
    found = {}
    for load, way in dict.fromkeys((one.load, one.way) for one in samples):
        group = [one for one in samples if (one.load, one.way) == (load, way)]
        found[load, way] = (statistics.median(one.rate for one in group),
                            statistics.median(one.cost for one in group))
    bare = found.pop(("frames", "bare"), None)
    linux = found.pop(("frames", "linux"), None)
    if bare and linux:
        found["frames", "linux"] = linux[0], (linux[1] - bare[1]) / 2
    return found


def claims(samples: list[Sample]) -> dict[str, float]:
    """{claim: the median of Byway's cycles divided by the least of Open vSwitch's}: each is to be
    below 1."""
    costs: dict[str, list[float]] = {}
    for one in samples:
        if one.load == "frames":
            costs.setdefault(one.way, []).append(one.cost)
    return {
        f"cycles a frame, {byway} / {ovs}": statistics.median(costs[byway]) / min(costs[ovs])
        for byway, ovs in RIVALS if {byway, ovs} <= costs.keys()
    }


def table(samples: list[Sample]) -> str:
    """What is printed."""
    lines = [f"{'load':<8}{'way':<18}{'rate':>10} {'':<12}{'cost':>10}"]
    for (load, way), (rate, cost) in medians(samples).items():
        lines.append(
            f"{load:<8}{way:<18}{rate:>10.3f} {RATES[load]:<12}{cost:>10.2f} {COSTS[load]}")
    for claim, ratio in claims(samples).items():
        lines.append(f"{claim}: {ratio:.2f} < 1  {'holds' if ratio < 1 else 'FAILS'}")
    if disturbed := sum(not one.quiet for one in samples):
        lines.append(f"{disturbed} of {len(samples)} measurements had to share the switch's CPU: "
                     "run the bench alone")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, judge; -> the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--frames", nargs="*", choices=overlay_frames.WAYS,
                        default=list(overlay_frames.WAYS))
    parser.add_argument("--tcp", nargs="*", choices=overlay_tcp.WAYS,
                        default=list(overlay_tcp.WAYS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    try:
        with contextlib.ExitStack() as stack:
            if given.frames:
                stack.enter_context(hugepages.reserve(HUGE_MIB))
            samples = measure_all(given)
    except (PeerError, OSError, hugepages.HugePagesMissing) as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 2
    print(table(samples))
    if given.json:
        given.json.write_text(json.dumps([asdict(sample) for sample in samples], indent=2))
    return 0 if all(ratio < 1 for ratio in claims(samples).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
