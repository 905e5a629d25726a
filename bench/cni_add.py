# SPDX-License-Identifier: Apache-2.0
"""How long `byway-cni` ADD takes beyond the time in which the switch makes the interface.

    .venv/bin/python bench/cni_add.py [--rounds 50] [--json FILE]

A running switch makes tap ports with two addresses in fresh network namespaces, by turns: asked by
`byway-cni` as a container runtime would start it (start of the process to its end), and asked by a
client that is connected already, with the same port. The difference is what the plugin costs: the
start of Python, its modules, addresses and attachment on the disk, one more question to the switch.
The same for DEL. The exit status is 0 if the median difference of ADD is below 50 ms, 1 if not.
Needs root.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.cni_lab import Lab
from tests.cni_runtime import Runtime
from tests.system.peers.switch import Switch

LIMIT = 0.050  # seconds
NETWORK = "bench"
SUBNETS = [[{"subnet": "10.96.0.0/16"}], [{"subnet": "fd96::/64"}]]


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class Bench:
    """A switch, a runtime, and the four times of each round."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.switch = stack.enter_context(Switch(folder, []))
        self.lab = Lab(folder, str(self.switch.api))
        stack.callback(self.lab.close)
        ipam = {"type": "byway", "ranges": SUBNETS}
        self.runtime: Runtime = self.lab.runtime(name=NETWORK, network=NETWORK, ipam=ipam)
        self.times: dict[str, list[float]] = {
            "add": [], "interface": [], "delete": [], "interface gone": []}
        # The first port ever costs the switch an import, the first call writes the tables.
        self.round(0)
        for taken in self.times.values():
            taken.clear()

    def round(self, number: int) -> None:
        """One container by the plugin, one port by the client."""
        name = f"c{number}"
        netns = self.lab.namespace()
        self.times["add"].append(timed(lambda: self.runtime.add(name, netns)))
        self.times["delete"].append(timed(lambda: self.runtime.delete(name, netns)))
        port = {"name": name, "network": NETWORK, "kind": "tap", "ifname": "eth0",
                "netns": netns, "persistent": True, "mac": "02:62:0a:60:ff:fe",
                "address": ["10.96.255.254/16", "fd96::ffff/64"]}
        self.times["interface"].append(timed(lambda: self.switch.client.add_port(port)))
        self.times["interface gone"].append(timed(lambda: self.switch.client.remove_port(name)))
        self.lab.remove_namespace(netns)

    def medians(self) -> dict[str, float]:
        """In milliseconds."""
        found = {name: statistics.median(taken) for name, taken in self.times.items()}
        found["add beyond"] = statistics.median(
            add - made for add, made in zip(self.times["add"], self.times["interface"],
                                            strict=True))
        return {name: round(seconds * 1000, 1) for name, seconds in found.items()}


def main() -> int:
    """Measure, print, and say whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root: network namespaces", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="byway-cni-") as folder, ExitStack() as stack:
        bench = Bench(stack, Path(folder))
        for number in range(1, options.rounds + 1):
            bench.round(number)
        found = bench.medians()
    for name, value in found.items():
        print(f"{name:<16}{value:8.1f} ms")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    holds = found["add beyond"] < LIMIT * 1000
    print(f"ADD beyond the interface below {LIMIT * 1000:.0f} ms: {'yes' if holds else 'no'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
