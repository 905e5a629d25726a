# SPDX-License-Identifier: Apache-2.0
"""What routing a frame costs, by how many routes the router has and how many stations it knows.

    .venv/bin/python bench/router.py [--runs 40] [--json FILE]

Batches of 64 small IPv4 frames to the gateway, each to another station, chosen at random. Measured
is the stage alone, from the frame's head to its new one: checks, longest prefix match, the next
hop's MAC address, TTL, checksum. A router of two networks knows one station ("alone"), 10,000 of
them, or one station and 5,000 static routes over which the destinations are spread. All take turns
in each run. Printed is the least of the runs, because what strangers do to a shared
machine only ever adds.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from byway.machine.layout import address_of
from byway.packet.batch import ROWS
from byway.switch.routing import Gateway, Router
from byway.testing.frames import Echo, mac
from byway.testing.routed import Routed
from byway.testing.router_kernels import route_lots

FRAMES, STATIONS, ROUTES = ROWS * 256, 10_000, 5_000
MAC = 0x020000000001
BACK, STATION = 0x0A800001, 0x020100000000  # 10.128.0.1/9, and the first of its stations


class Way:
    """A router, and a batch of frames for it."""

    def __init__(self, name: str, stations: int, routes: int) -> None:
        self.name, self.cycles = name, float("inf")
        rng = np.random.default_rng(7)
        listed = [(f"{100 + (k >> 8)}.{k & 255}.0.0/16", "10.128.0.2") for k in range(routes)]
        self.routed = Routed(
            [Gateway(1, 41, MAC, ("10.0.0.1/9",)), Gateway(2, 42, MAC, ("10.128.0.1/9",))],
            [Router((1, 2), tuple(listed))])
        for k in range(stations):
            address = (BACK + 1 + k).to_bytes(4, "big")
            self.routed.population.set_ip(2, bytes(10) + b"\xff\xff" + address, STATION + k)
        to = BACK + 1 + rng.integers(0, stations, FRAMES)
        if routes:
            to = (100 << 24) + (rng.integers(0, routes, FRAMES) << 16) + 9
        self.destinations = np.ascontiguousarray(to, np.int64)
        frame = Echo(8, "10.0.0.2", "10.128.0.2", 1, 1).frame(mac("02:00:00:00:00:01"),
                                                             mac("02:00:00:00:01:00"))
        found = self.routed.send([frame] * ROWS, 1, 7)
        if {(f.network, f.drop) for f in found} != {(2, None)}:
            raise AssertionError("the frames are not routed")

    def measure(self) -> None:
        """One run."""
        ticks = route_lots(self.routed.routing.address, self.routed.frames.address,
                           address_of(self.destinations), FRAMES)
        self.cycles = min(self.cycles, ticks / FRAMES)
        if self.routed.counted or {int(o) >> 32 for o in self.routed.origins} != {2}:
            raise AssertionError("a frame was not routed")


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    ways = [Way("alone", 1, 0), Way(f"{STATIONS} stations", STATIONS, 0),
            Way(f"{ROUTES} routes", 1, ROUTES)]
    for _ in range(given.runs):
        for way in ways:
            way.measure()
    print("router             cycles a frame")
    for way in ways:
        print(f"{way.name:<16} {way.cycles:>16.1f}")
    if given.json:
        given.json.write_text(json.dumps({way.name: way.cycles for way in ways}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
