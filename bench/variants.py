# SPDX-License-Identifier: Apache-2.0
"""DPDK guests through Byway in several ways: split rings, packed rings, four queue pairs.

    .venv/bin/python bench/variants.py [--turns 100] [--seconds 0.1] [--frame 64,1514] [--json FILE]

Each way has a guest of its own (vm2vm_testpmd.py) at one switch with one worker, and all of them
run at once; but all but one are stopped (SIGSTOP), and in each turn each way has its slot. On a
shared machine the way from one processor to the other changes from minute to minute, and with it
what a frame costs: ways that are compared must be measured within the same second. So the ratio of
two ways is taken within each turn, and printed is the median of these ratios, with its quartiles.

The same number of frames, of many flows, is in flight each way, over as many descriptors: 128
frames and 1024 descriptors in one pair of queues, or 32 and 256 in each of four. A guest has no
more buffers than these need, so each way works in as much memory.

The exit status is 0 if all claims hold, 1 if not, 2 if nothing could be measured.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.vm2vm_testpmd import MACS
from tests.system.peers import hugepages, testpmd
from tests.system.peers.process import PeerError
from tests.system.peers.switch import Port, Switch

MBUFS = 5120  # for two ports with 1024 descriptors each way
HUGE_MIB = 1100  # four guests
WARM_UP, SETTLE = 1.0, 0.01  # seconds: of a guest that starts, and that goes on


@dataclass(frozen=True)
class Way:
    """How a guest is connected."""

    name: str
    packed: bool
    queues: int
    bursts: int  # of 32 frames in each queue
    ring: int  # entries


WAYS = (Way("split", False, 1, 4, 1024), Way("packed", True, 1, 4, 1024),
        Way("split, 4 pairs", False, 4, 1, 256), Way("packed, 4 pairs", True, 4, 1, 256))
CLAIMS = (("packed", "split", 1.0), ("split, 4 pairs", "split", 1.1),
          ("packed, 4 pairs", "packed", 1.1))


@dataclass(frozen=True)
class Sample:
    """What a way did in its slot of a turn."""

    frame: int
    turn: int
    way: str
    cycles: float  # busy ones, a frame
    burst: float  # frames a busy pass
    mpps: float


@dataclass(frozen=True)
class Claim:
    """The ratio of two ways in each turn (quartiles), and what its median is held to."""

    frame: int
    one: str
    other: str
    quartiles: tuple[float, float, float]
    bound: float

    @property
    def holds(self) -> bool:
        """True if the median keeps its bound."""
        return self.quartiles[1] <= self.bound


@contextlib.contextmanager
def connected(frame: int, huge: bool) -> Iterator[tuple[Switch, dict[str, testpmd.Guest]]]:
    """A switch, and for each way a guest that has begun to send, and was stopped."""
    cpus = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="byway-bench-")))
        ports = [Port(f"{n}-{k}", folder / f"{n}-{k}", network=f"net{n}", queues=way.queues)
                 for n, way in enumerate(WAYS) for k in range(2)]
        switch = stack.enter_context(Switch(folder, ports, workers=[cpus[0]]))
        guests = {}
        for n, way in enumerate(WAYS):
            users = [testpmd.VirtioUser(folder / f"{n}-{k}", mac, packed=way.packed,
                                        queues=way.queues, queue_size=way.ring)
                     for k, mac in enumerate(MACS)]
            guest = stack.enter_context(testpmd.Guest(
                folder, (users[0], users[1]), cpu=cpus[-1], frame=frame, huge=huge,
                name=f"guest{n}", flows=True, mbufs=MBUFS))
            guest.ready()
            switch.wait_up(f"{n}-0", f"{n}-1")
            guest.ping_pong(way.bursts)
            time.sleep(WARM_UP)
            guest.child.send_signal(signal.SIGSTOP)
            stack.callback(guest.child.send_signal, signal.SIGCONT)
            guests[way.name] = guest
        yield switch, guests


def slot(switch: Switch, guest: testpmd.Guest, seconds: float) -> tuple[float, float, float]:
    """Let a guest go on for a time; -> cycles a frame, frames a pass, million frames a second."""
    guest.child.send_signal(signal.SIGCONT)
    time.sleep(SETTLE)
    before, began = switch.client.workers()[0], time.monotonic()
    time.sleep(seconds)
    after, ended = switch.client.workers()[0], time.monotonic()
    guest.child.send_signal(signal.SIGSTOP)
    ticks, frames, passes = (after[key] - before[key]
                             for key in ("busy_cycles", "frames", "busy_passes"))
    if frames == 0:
        raise PeerError(f"{guest.name}: nothing moved in {seconds} s")
    return ticks / frames, frames / passes, frames / (ended - began) / 1e6


def measure(frames: list[int], turns: int, seconds: float, huge: bool) -> list[Sample]:
    """Every way in every turn, with each length of frames."""
    samples = []
    for frame in frames:
        with connected(frame, huge) as (switch, guests):
            for turn in range(1, turns + 1):
                samples += [Sample(frame, turn, name, *slot(switch, guest, seconds))
                            for name, guest in guests.items()]
                if turn % 10 == 0:
                    print(f"{frame} bytes: turn {turn} of {turns}", file=sys.stderr, flush=True)
    return samples


def claims(samples: list[Sample]) -> list[Claim]:
    """The ratios that are held to a bound."""
    cycles = {(s.frame, s.way, s.turn): s.cycles for s in samples}
    turns = sorted({s.turn for s in samples})
    found = []
    for frame in sorted({s.frame for s in samples}):
        for one, other, bound in CLAIMS:
            ratios = [cycles[frame, one, t] / cycles[frame, other, t] for t in turns]
            low, middle, high = statistics.quantiles(ratios, n=4)
            found.append(Claim(frame, one, other, (low, middle, high), bound))
    return found


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    numbers: Callable[[str], list[int]] = lambda text: [int(n) for n in text.split(",")]  # noqa: E731
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.1, help="of a slot")
    parser.add_argument("--frame", type=numbers, default=[64, 1514], help="bytes, with commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    if given.turns < 2:
        parser.error("--turns: quartiles need two at least")
    with contextlib.ExitStack() as stack:
        huge = True
        try:
            stack.enter_context(hugepages.reserve(HUGE_MIB))
        except hugepages.HugePagesMissing as error:
            print(f"no huge pages: {error}", file=sys.stderr)
            huge = False
        try:
            samples = measure(given.frame, given.turns, given.seconds, huge)
        except (PeerError, FileNotFoundError) as error:
            print(f"variants: {error}", file=sys.stderr)
            return 2
    print(f"{'frame':>6}  {'way':<16} {'cycles':>8} {'least':>8} {'frames/pass':>12} {'Mpps':>7}")
    for frame in given.frame:
        for way in WAYS:
            some = [s for s in samples if (s.frame, s.way) == (frame, way.name)]
            print(f"{frame:>6}  {way.name:<16} {statistics.median(s.cycles for s in some):>8.1f} "
                  f"{min(s.cycles for s in some):>8.1f} "
                  f"{statistics.median(s.burst for s in some):>12.1f} "
                  f"{statistics.median(s.mpps for s in some):>7.2f}")
    found = claims(samples)
    for claim in found:
        low, middle, high = claim.quartiles
        print(f"{claim.frame:>6}  {claim.one + ' / ' + claim.other:<26} {middle:.3f} "
              f"({low:.3f} to {high:.3f}) <= {claim.bound:.2f}  "
              f"{'holds' if claim.holds else 'FAILS'}")
    if given.json:
        given.json.write_text(json.dumps({
            "samples": [asdict(sample) for sample in samples],
            "claims": [{**asdict(claim), "holds": claim.holds} for claim in found]}, indent=2))
    return 0 if all(claim.holds for claim in found) else 1


if __name__ == "__main__":
    sys.exit(main())
