# SPDX-License-Identifier: Apache-2.0
"""The same DPDK guest through three switches: Byway, DPDK's testpmd, Open vSwitch with DPDK.

    .venv/bin/python bench/vm2vm_testpmd.py [--rounds 3] [--seconds 5] [--json FILE]

The guest is one testpmd with two virtio_user ports of 1024 descriptors in `mac` mode: 32 frames a
direction go back and forth for ever (`--bursts` for more). It runs on one CPU, the switch on
another. Per round and frame size each switch is started, warmed up, measured and stopped, one after
the other.

Measured are the cycles of the time stamp counter a frame costs the switch, empty polls left out, by
each switch's own count (Byway: busy_cycles of its worker; testpmd: --record-core-cycles with the
vhost driver and io forwarding, which looks at no address; Open vSwitch: processing cycles of
`dpif-netdev/pmd-stats-show` with a NORMAL flow), and the frames a second the guest saw. Printed are
the medians of the rounds, their ratios and the claims made with them; the exit status is 0 if all
claims hold, 1 if not, 2 if nothing could be measured. Guest and DPDK's switches use huge pages,
which are reserved and given back (root); without them, ordinary pages, and no Open vSwitch.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.system.peers import hugepages, ovs, testpmd
from tests.system.peers.process import PeerError, Process, wait_until
from tests.system.peers.switch import Port, Switch

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
HUGE_MIB = 1100  # the guest and one DPDK switch, with room to spare
WARM_UP = 1.0  # seconds
QUIET = 0.98  # a switch that got less of its CPU was disturbed
SWITCHES = ("byway", "testpmd", "ovs")


@dataclass(frozen=True)
class Sample:
    """One measurement: cycles a frame, million frames a second, frames lost (none are expected).

    `share` is the part of its CPU that the switch got: where somebody else ran on it, the time
    stamp counter went on counting.
    """

    round: int
    frame: int
    switch: str
    cycles: float
    mpps: float
    lost: int
    share: float


@dataclass(frozen=True)
class Claim:
    """A ratio of medians and the bound it is held to."""

    name: str
    ratio: float
    bound: float
    at_most: bool

    @property
    def holds(self) -> bool:
        """True if the ratio keeps its bound."""
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound


class Meter(Protocol):
    """What the measurement asks of a running switch."""

    process: Process

    def connected(self) -> None:
        """Return when both guest ports are served."""

    def clear(self) -> None:
        """Begin to count."""

    def cycles(self) -> float:
        """Cycles a frame since `clear`."""


class BywayMeter:
    """Byway's own count: the busy cycles and frames of its workers."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.process = switch.process
        self.before = (0, 0)

    def _count(self) -> tuple[int, int]:
        rows = self.switch.client.workers()
        return sum(row["busy_cycles"] for row in rows), sum(row["frames"] for row in rows)

    def connected(self) -> None:
        self.switch.wait_up()

    def clear(self) -> None:
        self.before = self._count()

    def cycles(self) -> float:
        cycles, frames = self._count()
        return (cycles - self.before[0]) / (frames - self.before[1])


class TestpmdMeter:
    """testpmd's own count; it forwards from the start and needs no telling."""

    def __init__(self, switch: testpmd.VhostSwitch) -> None:
        self.process = self.switch = switch
        self.clear = switch.clear
        self.cycles = switch.cycles

    def connected(self) -> None:
        wait_until(lambda: self.linked(0) and self.linked(1), "testpmd serves both ports", 20)

    def linked(self, port: int) -> bool:
        """Whether a guest is at this port."""
        text = self.switch.command(f"show port info {port}", r"Link status: \w+\n")
        return "Link status: up" in text


class OvsMeter:
    """Open vSwitch's own count."""

    def __init__(self, switch: ovs.Ovs) -> None:
        self.clear = switch.clear
        self.cycles = switch.cycles
        self.switch = switch
        self.process = switch.daemon

    def connected(self) -> None:
        wait_until(self.switch.linked, "Open vSwitch serves both ports", 20)


@dataclass(frozen=True)
class Bench:
    """What stays the same for all measurements."""

    seconds: float
    bursts: int
    cpus: tuple[int, int]
    huge: bool
    packed: bool = False
    queues: int = 1
    flows: bool = False
    ring: int = 1024
    mbufs: int = 0

    @contextlib.contextmanager
    def start(self, name: str, folder: Path) -> Iterator[Meter]:
        """Start a switch between the sockets s0 and s1 in `folder`."""
        sockets = (folder / "s0", folder / "s1")
        if name == "byway":
            ports = [Port(f"vm{n + 1}", s, queues=self.queues) for n, s in enumerate(sockets)]
            with Switch(folder, ports, workers=[self.cpus[0]]) as switch:
                yield BywayMeter(switch)
        elif name == "testpmd":
            with testpmd.VhostSwitch(folder, sockets, cpu=self.cpus[0], huge=self.huge) as peer:
                peer.ready()
                peer.forward()
                yield TestpmdMeter(peer)
        else:
            with ovs.Ovs(folder, sockets, cpu=self.cpus[0], other=self.cpus[1]) as bridge:
                bridge.ready()
                yield OvsMeter(bridge)

    def measure(self, round_: int, frame: int, name: str) -> Sample:
        """One switch, one frame size."""
        folder = Path(tempfile.mkdtemp(prefix="byway-bench-"))
        listens = name == "ovs"
        users = tuple(
            testpmd.VirtioUser(folder / f"s{n}", mac, server=listens, packed=self.packed,
                               queues=self.queues, queue_size=self.ring)
            for n, mac in enumerate(MACS)
        )
        try:
            with (
                self.start(name, folder) as meter,
                testpmd.Guest(
                    folder, (users[0], users[1]), cpu=self.cpus[1], frame=frame, huge=self.huge,
                    flows=self.flows, mbufs=self.mbufs,
                ) as guest,
            ):
                guest.ready()
                meter.connected()
                guest.ping_pong(self.bursts)
                time.sleep(WARM_UP)
                meter.clear()
                used = meter.process.cpu_seconds()
                begin, first = time.monotonic(), guest.stats()
                time.sleep(self.seconds)
                end, last = time.monotonic(), guest.stats()
                used = meter.process.cpu_seconds() - used
                cycles = meter.cycles()
                final = guest.drain()
        finally:
            shutil.rmtree(folder)
        frames = sum(b.rx - a.rx for a, b in zip(first, last, strict=True))
        lost = sum(port.tx - port.rx for port in final)
        mpps, share = frames / (end - begin) / 1e6, min(1.0, used / (end - begin))
        return Sample(round_, frame, name, cycles, mpps, lost, share)


def medians(samples: list[Sample]) -> dict[tuple[int, str], tuple[float, float]]:
    """(cycles a frame, Mpps) for each frame size and switch."""
    groups: dict[tuple[int, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.frame, sample.switch), []).append(sample)
    return {
        key: (statistics.median(s.cycles for s in group), statistics.median(s.mpps for s in group))
        for key, group in groups.items()
    }


def claims(middle: dict[tuple[int, str], tuple[float, float]]) -> list[Claim]:
    """The claims that the measured sizes and switches allow to check."""
    found = []
    for frame, other, bound in ((64, "testpmd", 0.45), (1514, "testpmd", 0.5), (64, "ovs", 0.20)):
        if {(frame, "byway"), (frame, other)} <= middle.keys():
            ratio = middle[frame, "byway"][0] / middle[frame, other][0]
            found.append(Claim(f"cycles byway/{other}, {frame} bytes", ratio, bound, True))
    for frame, name in sorted(middle):
        if name == "byway" and (frame, "testpmd") in middle:
            ratio = middle[frame, "byway"][1] / middle[frame, "testpmd"][1]
            found.append(Claim(f"throughput byway/testpmd, {frame} bytes", ratio, 1.0, False))
    return found


def table(samples: list[Sample]) -> str:
    """The medians, and what Byway's are divided by them, as lines of text."""
    middle = medians(samples)
    lines = [f"{'frame':>6}  {'switch':<8} {'cycles':>8} {'Mpps':>7} {'byway/it':>9} {'lost':>5}"]
    for (frame, name), (cycles, mpps) in middle.items():
        own = middle.get((frame, "byway"))
        ratio = f"{own[0] / cycles:.3f}" if own else "-"
        lost = sum(s.lost for s in samples if (s.frame, s.switch) == (frame, name))
        lines.append(f"{frame:>6}  {name:<8} {cycles:>8.1f} {mpps:>7.2f} {ratio:>9} {lost:>5}")
    for claim in claims(middle):
        sign = "<=" if claim.at_most else ">="
        verdict = "holds" if claim.holds else "FAILS"
        lines.append(f"{claim.name:<38} {claim.ratio:.3f} {sign} {claim.bound:.2f}  {verdict}")
    disturbed = sum(s.share < QUIET for s in samples)
    if disturbed:
        lines.append(
            f"{disturbed} of {len(samples)} measurements had to share the switch's CPU: "
            "run the bench alone"
        )
    return "\n".join(lines)


def as_json(samples: list[Sample], bench: Bench) -> str:
    """Everything measured, with what it was measured on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in cpuinfo if line.startswith("model name")), "?")
    middle = medians(samples)
    result = {
        "machine": {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release},
        "settings": asdict(bench),
        "samples": [asdict(sample) for sample in samples],
        "medians": [
            {"frame": f, "switch": s, "cycles": c, "mpps": m} for (f, s), (c, m) in middle.items()
        ],
        "claims": [{**asdict(claim), "holds": claim.holds} for claim in claims(middle)],
    }
    return json.dumps(result, indent=2) + "\n"


def run(bench: Bench, rounds: int, frames: list[int], switches: list[str]) -> list[Sample]:
    """All measurements, each told on stderr as it comes."""
    samples = []
    for round_ in range(1, rounds + 1):
        for frame in frames:
            for name in switches:
                sample = bench.measure(round_, frame, name)
                samples.append(sample)
                print(
                    f"round {round_}: {name}, {frame} bytes: {sample.cycles:.1f} cycles a frame, "
                    f"{sample.mpps:.2f} Mpps, {sample.share:.0%} of its CPU",
                    file=sys.stderr,
                    flush=True,
                )
    return samples


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    numbers: Callable[[str], list[int]] = lambda text: [int(n) for n in text.split(",")]  # noqa: E731
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per measurement")
    parser.add_argument("--frame", type=numbers, default=[64, 1514], help="bytes, with commas")
    parser.add_argument("--bursts", type=int, default=1, help="of 32 frames in flight, per port")
    parser.add_argument(
        "--switch", choices=SWITCHES, action="append", help="only these; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    return parser.parse_args()


def main() -> int:
    """Run the bench; its exit status."""
    given = arguments()
    switches = given.switch or list(SWITCHES)
    cpus = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        huge = True
        try:
            stack.enter_context(hugepages.reserve(HUGE_MIB))
        except hugepages.HugePagesMissing as error:
            print(f"no huge pages, so no Open vSwitch: {error}", file=sys.stderr)
            huge = False
            switches = [name for name in switches if name != "ovs"]
        bench = Bench(given.seconds, given.bursts, (cpus[0], cpus[-1]), huge)
        try:
            samples = run(bench, given.rounds, given.frame, switches)
        except (PeerError, FileNotFoundError) as error:
            print(f"vm2vm_testpmd: {error}", file=sys.stderr)
            return 2
    print(table(samples))
    if given.json:
        given.json.write_text(as_json(samples, bench))
    return 0 if all(claim.holds for claim in claims(medians(samples))) else 1


if __name__ == "__main__":
    sys.exit(main())
