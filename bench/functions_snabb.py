# SPDX-License-Identifier: Apache-2.0
"""One function written in both: Byway's and Snabb's, cycles a frame, in one run.

    SNABB=/path/to/snabb .venv/bin/python bench/functions_snabb.py [--rounds 5] [--json FILE]

The function limits a rate: one bucket of tokens, what finds it empty is dropped; Snabb's is its app
rate_limiter (Lua), Byway's stands below (Python). Both let everything pass here.

What a frame costs is measured as the difference to the same without the function: for Snabb a
source that makes frames of 60 bytes and a sink, with and without the app between them; for Byway a
chain with and without the function, over frames of 60 bytes. Snabb is built from its public source
(github.com/snabbco/snabb, `make`); it needs no network card for this.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from byway import nf
from byway.functions.harness import Harness
from byway.machine.clock import measure_hz
from byway.packet.batch import ROWS
from byway.testing import builders
from byway.testing.chain_bench import ChainBench

SECONDS, FLOWS = 1.0, 1024
LUA = """
local basic = require("apps.basic.basic_apps")
local limiter = require("apps.rate_limiter.rate_limiter").RateLimiter
local ffi = require("ffi")
local seconds = tonumber(main.parameters[1])
local rounds = tonumber(main.parameters[2])

local function run(with)
   local c = config.new()
   config.app(c, "source", basic.Source, 60)
   config.app(c, "sink", basic.Sink)
   if with then
      config.app(c, "limit", limiter, {rate = 1e12, bucket_capacity = 1e12})
      config.link(c, "source.output -> limit.input")
      config.link(c, "limit.output -> sink.input")
   else
      config.link(c, "source.output -> sink.input")
   end
   engine.configure(c)
   engine.main({duration = 0.2, no_report = true})
   local input = engine.app_table.sink.input.input
   local before = link.stats(input).rxpackets
   local began = tonumber(ffi.C.get_time_ns())
   engine.main({duration = seconds, no_report = true})
   local took = tonumber(ffi.C.get_time_ns()) - began
   local packets = tonumber(link.stats(input).rxpackets - before)
   print(string.format("RESULT %s %.6f", with and "with" or "without", took / packets))
   engine.configure(config.new())
end

engine.busywait = true
for _ = 1, rounds do
   run(false)
   run(true)
end
"""


@nf.function
class RateLimiter:
    """Let so many bytes a second pass."""

    rate: Annotated[int, nf.Range(1, 1 << 40)] = 1 << 40
    burst: Annotated[int, nf.Range(1, 1 << 40)] = 1 << 40
    bucket = nf.Bucket()

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if self.bucket.take(frame.length, self.rate, self.burst):
            return nf.PASS
        return nf.DROP("too fast")


def snabb(program: str, rounds: int) -> dict[str, list[float]]:
    """Nanoseconds a packet, with and without the app, round by round."""
    with tempfile.TemporaryDirectory(prefix="byway-bench-") as folder:
        script = Path(folder) / "limit.lua"
        script.write_text(LUA)
        done = subprocess.run([program, "snsh", str(script), str(SECONDS), str(rounds)],
                              capture_output=True, text=True, check=False)
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if done.returncode or not lines:
        raise SystemExit(f"functions_snabb: {program} ended with {done.returncode}:\n"
                         f"{done.stdout}{done.stderr}")
    found: dict[str, list[float]] = {"with": [], "without": []}
    for kind, nanoseconds in lines:
        found[kind].append(float(nanoseconds))
    return found


def byway(rounds: int) -> dict[str, list[float]]:
    """Cycles a frame, with and without the function."""
    rng = random.Random(1)
    frames = [builders.udp(f"10.0.{rng.randrange(256)}.1", sport=1024 + k, data=bytes(18))
              for k in range(FLOWS)]
    bench = ChainBench(frames, FLOWS // ROWS)
    chains = {"with": Harness(RateLimiter), "without": Harness([])}
    found: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(rounds * 20):
        for kind, harness in chains.items():
            found[kind] += [bench.turn(harness.chain()).cycles for _ in range(10)]
    counters = chains["with"].instances[0].counters
    assert counters["drops"] == {"too fast": 0}, "everything passes"
    return found


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    program = os.environ.get("SNABB", "")
    if not Path(program).is_file():
        print("functions_snabb: set SNABB to the program `snabb`, built from its source",
              file=sys.stderr)
        return 2
    hz = measure_hz(0.2)
    theirs = {kind: [ns * hz / 1e9 for ns in all_of]
              for kind, all_of in snabb(program, given.rounds).items()}
    ours = byway(given.rounds)
    costs = {}
    for name, found in (("Snabb", theirs), ("Byway", ours)):
        low = {kind: statistics.quantiles(all_of)[0] for kind, all_of in found.items()}
        costs[name] = low["with"] - low["without"]
        print(f"{name}: {costs[name]:6.1f} cycles a frame for the function"
              f"   (with {low['with']:.1f}, without {low['without']:.1f})")
    if given.json:
        given.json.write_text(json.dumps({"snabb": theirs, "byway": ours}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
