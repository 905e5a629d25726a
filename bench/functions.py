# SPDX-License-Identifier: Apache-2.0
"""What each network function costs a frame, and how soon a chain is there.

    .venv/bin/python bench/functions.py [--flows 1024] [--json FILE]

Cost: a chain of the function alone against the chain without it, over the same frames in the same
run, taking turns: 64-byte frames of many flows, tables warm. Cycles a frame, the least tenth of all
rounds: what others do on the machine can only add. Claims: an empty function costs at most 3, NAT44
at most 60.

Time: from an author's file that was just saved to code that can run, by a process of its own as the
switch does it (claim: below 3 s), and of a file that is known, from the cache (below 0.5 s). With
the example of the manual, and with a chain of five functions that come with Byway.

The exit status is 0 if the claims hold.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byway import nf
from byway.functions.built import COMMAND, known
from byway.functions.builtin import (
    acl,
    decap,
    dhcp,
    dns_log,
    flow_export,
    nat44,
    policer,
    router,
    sampler,
    shaper,
    syn_guard,
    tap,
)
from byway.functions.code import native
from byway.functions.compose import compose
from byway.functions.harness import Harness
from byway.machine.clock import tsc
from byway.packet.batch import ROWS
from byway.testing import builders
from byway.testing.chain_bench import ChainBench

ROUNDS = 40
EMPTY_CLAIM, NAT_CLAIM, SAVED_CLAIM, CACHED_CLAIM = 3.0, 60.0, 3.0, 0.5
CHAIN = ("byway.acl", "byway.policer", "byway.flow_export", "byway.sampler", "byway.tap")
GUARD = '''
from byway import nf


@nf.function
class RateGuard:
    """Drop a source's new connections above a limit."""

    limit: int = {limit}
    table = nf.Map(key="u32", value="u32", capacity=65536, age=1.0)

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if not frame.is_tcp_syn:
            return nf.PASS
        n = self.table.add(frame.ipv4_src, {add})
        return nf.DROP("over limit") if n > self.limit else nf.PASS
'''


@nf.function
class Empty:
    """Does nothing."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        return nf.PASS


@nf.function
class OldestFirst:
    """Writes one header field."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        frame.ip_ttl = 63
        return nf.PASS


Prepare = Callable[[Harness, list[bytes]], list[bytes]]


@dataclass
class Case:
    """A function, its parameters, and what is to be done with it and the frames before."""

    name: str
    function: type
    parameters: dict[str, Any] = field(default_factory=dict)
    prepare: Prepare = lambda harness, frames: frames


def rules(harness: Harness, frames: list[bytes]) -> list[bytes]:
    """A thousand rules that match others, then one that lets all pass."""
    rows = {k: {"value": "drop", "source": f"172.16.{k >> 8}.{k & 255}/32", "protocol": "udp",
                "destination_ports": str(1000 + k)} for k in range(1000)}
    harness.instances[0].states["rules"].fill({**rows, 5000: {"value": "pass"}})
    return frames


def answers(harness: Harness, frames: list[bytes]) -> list[bytes]:
    """Have connections go out; what is measured are the answers, with the outside's addresses."""
    sent = [outcome.frame for outcome in harness.run(
        frames, direction="tx", now=int(tsc()))]
    return [builders.udp("198.51.100.9", "192.0.2.1", sport=80,
                         dport=int.from_bytes(frame[34:36], "big")) for frame in sent]


def routes(harness: Harness, frames: list[bytes]) -> list[bytes]:
    """A thousand routes, and all goes by the last one; to the router's MAC address."""
    states = harness.instances[0].states
    states["routes"].fill({f"172.{16 + (k >> 8)}.{k & 255}.0/24": 2 for k in range(1000)}
                          | {"198.51.100.0/24": 1})
    states["hops"].put(1, {"via": "10.0.0.9"})
    states["neighbours"].put("10.0.0.9", "02:00:00:00:00:09")
    return [bytes.fromhex("0200000000fe") + frame[6:] for frame in frames]


def tunnelled(harness: Harness, frames: list[bytes]) -> list[bytes]:
    """In VXLAN."""
    return [builders.vxlan(frame) for frame in frames]


def of_tcp(harness: Harness, frames: list[bytes]) -> list[bytes]:
    """Segments of connections that the guard does not know."""
    return [builders.tcp("198.51.100.9", "10.0.0.1", 80, int.from_bytes(frame[34:36], "big"))
            for frame in frames]


CASES = (
    Case("empty", Empty),
    Case("writes the TTL", OldestFirst),
    Case("acl, 1,000 rules", acl.Acl, {}, rules),
    Case("nat44", nat44.Nat44, {"outside": "192.0.2.1"}, answers),
    Case("policer", policer.Policer, {"committed_rate": 100_000_000_000}),
    Case("shaper", shaper.Shaper, {}),
    Case("router, 1,000 routes", router.Router, {}, routes),
    Case("decap, VXLAN", decap.Decap, {}, tunnelled),
    Case("syn_guard, others' connections", syn_guard.SynGuard, {}, of_tcp),
    Case("dhcp, other traffic", dhcp.Dhcp, {}),
    Case("flow_export", flow_export.FlowExport),
    Case("sampler", sampler.Sampler),
    Case("tap, none wanted", tap.Tap, {"family": "ipv6"}),
    Case("dns_log, other traffic", dns_log.DnsLog),
)


def cost(case: Case, flows: int) -> tuple[float, float]:
    """Cycles a frame: of the chain without the function, and of what the function adds."""
    rng = random.Random(7)
    frames = [builders.udp(f"10.{rng.randrange(256)}.{rng.randrange(256)}.{k % 250 + 1}",
                           "198.51.100.9", sport=1024 + k, dport=80) for k in range(flows)]
    harness, bare = Harness([(case.function, case.parameters)]), Harness([])
    bench = ChainBench(case.prepare(harness, frames), -(-flows // ROWS))
    taken: dict[str, list[float]] = {"bare": [], "with": []}
    for _ in range(ROUNDS):
        for key, chain in (("bare", bare.chain()), ("with", harness.chain())):
            taken[key] += [bench.turn(chain).cycles for _ in range(10)]
    without, full = (statistics.quantiles(taken[key], n=10)[0] for key in ("bare", "with"))
    return without, full - without


def built(folder: Path, uses: list[str]) -> float:
    """Seconds until a chain's code can run: by the build process, as the switch does it."""
    order = {"functions": {use: str(folder) for use in uses},
             "chains": [{"direction": "rx", "uses": uses}]}
    began = time.perf_counter()
    done = subprocess.run(COMMAND, input=json.dumps(order),
                          capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert not answer["problems"], answer["problems"]
    return time.perf_counter() - began + cached(folder, uses)


def cached(folder: Path, uses: list[str]) -> float:
    """Seconds until the code of a chain that was built before can run."""
    began = time.perf_counter()
    blueprints = [known(use, str(folder)) for use in uses]
    assert native(compose([one for one in blueprints if one], "rx")).address
    return time.perf_counter() - began


def times() -> dict[str, float]:
    """Seconds from a saved file, or a chain that was asked for, to code that runs."""
    with tempfile.TemporaryDirectory(prefix="byway-bench-") as name:
        folder = Path(name)
        file = folder / "guard.py"
        saved = []
        for k in range(3):  # each time other code
            file.write_text(GUARD.format(limit=100 + k, add=random.randrange(1 << 30)))
            saved.append(built(folder, ["guard.py"]))
        again = subprocess.run([sys.executable, __file__, "--cached", name],
                               capture_output=True, text=True, check=True)
        return {"saved": statistics.median(saved), "cached": float(again.stdout),
                "five": built(folder, list(CHAIN))}


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flows", type=int, default=1024)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    parser.add_argument("--only", help="measure this function only, and no times")
    parser.add_argument("--cached", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cached:  # in a process that has loaded other chains before, as a switch has
        Harness(Empty).chain()
        print(cached(given.cached, ["guard.py"]))
        return 0
    found = {}
    for case in [one for one in CASES if given.only in (None, one.name)]:
        without, added = cost(case, given.flows)
        found[case.name] = added
        print(f"{case.name:26} {added:7.1f} cycles a frame   (the chain without it {without:.1f})",
              flush=True)
    if given.only:
        return 0
    took = times()
    print(f"file saved to code that runs {took['saved']:6.2f} s   claim below {SAVED_CLAIM:g} s")
    print(f"from the cache               {took['cached']:6.2f} s   claim below {CACHED_CLAIM:g} s")
    print(f"a chain of five, new         {took['five']:6.2f} s")
    if given.json:
        given.json.write_text(json.dumps({"cycles": found, "seconds": took}, indent=2) + "\n")
    held = (found["empty"] <= EMPTY_CLAIM and found["nat44"] <= NAT_CLAIM
            and took["saved"] < SAVED_CLAIM and took["cached"] < CACHED_CLAIM)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
