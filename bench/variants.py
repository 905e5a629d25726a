# SPDX-License-Identifier: Apache-2.0
"""One DPDK guest through Byway in several ways: split rings, packed rings, four queue pairs.

    .venv/bin/python bench/variants.py [--rounds 5] [--seconds 1.5] [--json FILE]

The guest and the measurement are those of vm2vm_testpmd.py. The same number of frames, of many
flows, is in flight each way, over as many descriptors: 128 frames and 1024 descriptors in one pair
of queues, or 32 and 256 in each of four, all served by one worker. The guest has no more buffers
than these need, so each way works in as much memory. The ways take turns in each round.

Printed is the least of the rounds, because what strangers do to a shared machine only ever adds,
and the claims; the exit status is 0 if all claims hold, 1 if not, 2 if nothing could be measured.
"""

import argparse
import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.vm2vm_testpmd import HUGE_MIB, QUIET, Bench, Claim, Sample
from tests.system.peers import hugepages
from tests.system.peers.process import PeerError

FRAMES = (64, 1514)
MBUFS = 5120  # for two ports with 1024 descriptors each way
# name: packed rings, queue pairs, bursts of 32 frames in each queue, entries of a ring.
WAYS = {"split": (False, 1, 4, 1024), "packed": (True, 1, 4, 1024),
        "split, 4 pairs": (False, 4, 1, 256), "packed, 4 pairs": (True, 4, 1, 256)}
CLAIMS = (("packed", "split", 1.0), ("split, 4 pairs", "split", 1.1),
          ("packed, 4 pairs", "packed", 1.1))


def measure(rounds: int, seconds: float, huge: bool) -> dict[tuple[int, str], list[Sample]]:
    """Every way in every round, each told on stderr as it comes."""
    cpus = sorted(os.sched_getaffinity(0))
    samples: dict[tuple[int, str], list[Sample]] = {}
    for number in range(1, rounds + 1):
        for frame in FRAMES:
            for name, (packed, queues, bursts, ring) in WAYS.items():
                bench = Bench(seconds, bursts, (cpus[0], cpus[-1]), huge, packed, queues, True,
                              ring, MBUFS)
                sample = bench.measure(number, frame, "byway")
                samples.setdefault((frame, name), []).append(sample)
                print(f"round {number}: {name}, {frame} bytes: {sample.cycles:.1f} cycles a frame, "
                      f"{sample.mpps:.2f} Mpps, {sample.lost} lost, {sample.share:.0%} of its CPU",
                      file=sys.stderr, flush=True)
    return samples


def claims(samples: dict[tuple[int, str], list[Sample]]) -> list[Claim]:
    """The ratios of the least figures that are held to a bound."""
    cycles = {key: min(s.cycles for s in some) for key, some in samples.items()}
    return [Claim(f"cycles {one} / {other}, {frame} bytes",
                  cycles[frame, one] / cycles[frame, other], bound, True)
            for frame in FRAMES for one, other, bound in CLAIMS]


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="per measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        huge = True
        try:
            stack.enter_context(hugepages.reserve(HUGE_MIB))
        except hugepages.HugePagesMissing as error:
            print(f"no huge pages: {error}", file=sys.stderr)
            huge = False
        try:
            samples = measure(given.rounds, given.seconds, huge)
        except (PeerError, FileNotFoundError) as error:
            print(f"variants: {error}", file=sys.stderr)
            return 2
    for (frame, name), some in samples.items():
        print(f"{frame:>6}  {name:<16} {min(s.cycles for s in some):>8.1f} cycles "
              f"{max(s.mpps for s in some):>7.2f} Mpps")
    found = claims(samples)
    for claim in found:
        print(f"{claim.name:<45} {claim.ratio:.3f} <= {claim.bound:.2f}  "
              f"{'holds' if claim.holds else 'FAILS'}")
    everything = [sample for some in samples.values() for sample in some]
    if disturbed := sum(s.share < QUIET for s in everything):
        print(f"{disturbed} of {len(everything)} measurements had to share the switch's CPU: "
              "run the bench alone")
    if given.json:
        given.json.write_text(json.dumps({
            "samples": [{"way": name, **asdict(s)} for (_, name), some in samples.items()
                        for s in some],
            "claims": [{**asdict(claim), "holds": claim.holds} for claim in found]}, indent=2))
    return 0 if all(claim.holds for claim in found) else 1


if __name__ == "__main__":
    sys.exit(main())
