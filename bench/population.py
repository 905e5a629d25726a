# SPDX-License-Identifier: Apache-2.0
"""What it costs to find where a remote guest is, among 100 and among 100,000 of them.

    .venv/bin/python bench/population.py [--entries 100000] [--runs 40] [--json FILE]

Batches of 64 frames, each to another destination, chosen at random among all that the population
has (every destination as often as any other). Measured are the look-ups alone, and the whole
decision about a frame: its checks, learning, the fdb (which does not know the destination), the
population. Both tables take turns in each run. Printed is the least of the runs, because what
strangers do to a shared machine only ever adds; the memory of an entry with two IP addresses; and
the claims, ratios of 1.3 at most. The exit status is 0 if they hold, 1 if not.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS, Batch
from byway.switch.fdb import FIRST_TUNNEL, Fdb
from byway.switch.network import NETWORK
from byway.switch.population import Population
from byway.testing.population_kernels import decide_lots, find_many
from byway.testing.ring_kernels import look_at

FEW, FRAMES, TUNNELS = 100, ROWS * 512, 1000
FRAME, NETWORK_NUMBER, OWN_PORT = 60, 7, 1
SOURCE = 0x0200_0000_0001
CLAIM = 1.3


@dataclass
class Figures:
    """Cycles a frame, the least of the runs."""

    entries: int
    look_up: float = float("inf")
    decision: float = float("inf")
    bytes_per_entry: float = 0.0


class Table:
    """A population of so many remote guests in one network, and a batch of frames to them."""

    def __init__(self, entries: int) -> None:
        rng = np.random.default_rng(entries)
        self.figures = Figures(entries)
        self.population = Population()
        macs = rng.choice(1 << 32, size=entries, replace=False) | 0x0600 << 32
        for k, mac in enumerate(macs.tolist()):
            self.population.set_mac(NETWORK_NUMBER, mac, FIRST_TUNNEL + k % TUNNELS)
            for ip in (bytes(10) + b"\xff\xff" + (0x0A000000 + k).to_bytes(4, "big"),
                       b"\xfd" + bytes(11) + k.to_bytes(4, "big")):
                self.population.set_ip(NETWORK_NUMBER, ip, mac)
        self.figures.bytes_per_entry = self.population.memory / entries
        self.keys = np.ascontiguousarray(macs[rng.integers(0, entries, FRAMES)] << 16)
        self.found = np.zeros(FRAMES, np.int64)
        self.fdb, self.network, self.batch = Fdb(), alloc(NETWORK, 1), Batch()
        row = self.network[0]
        row["fdb"], row["max_frame"] = self.fdb.address, 1514
        row["population"], row["number"] = self.population.address, NETWORK_NUMBER
        self.frame = np.frombuffer(
            (bytes(6) + SOURCE.to_bytes(6, "big")).ljust(FRAME, b"\0"), np.uint8)
        self.batch.rows["addr"], self.batch.rows["len"] = address_of(self.frame), FRAME
        self.batch.record["n"] = ROWS
        look_at(self.batch.address)

    def measure(self) -> None:
        """One run of either kind."""
        keys, figures = address_of(self.keys), self.figures
        ticks = find_many(self.population.address, NETWORK_NUMBER, keys, FRAMES,
                          address_of(self.found))
        figures.look_up = min(figures.look_up, ticks / FRAMES)
        if self.found.min() < FIRST_TUNNEL:
            raise AssertionError("a guest that is in the population was not found")
        ticks = decide_lots(self.batch.address, address_of(self.network), OWN_PORT, keys, FRAMES)
        figures.decision = min(figures.decision, ticks / FRAMES)
        if self.batch.rows["out"].min() < FIRST_TUNNEL:
            raise AssertionError("a frame for a remote guest did not go to its tunnel")


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    tables = [Table(FEW), Table(given.entries)]
    for _ in range(given.runs):
        for table in tables:
            table.measure()
    few, many = (table.figures for table in tables)
    print("entries   look-up   decision   (cycles a frame)   bytes an entry with two IPs")
    for f in (few, many):
        print(f"{f.entries:>7} {f.look_up:>9.1f} {f.decision:>10.1f} {f.bytes_per_entry:>27.0f}")
    ratios = {"look-up": many.look_up / few.look_up, "decision": many.decision / few.decision}
    for name, ratio in ratios.items():
        print(f"cycles a {name}, {many.entries} / {few.entries} entries: {ratio:.2f} <= {CLAIM}  "
              f"{'holds' if ratio <= CLAIM else 'FAILS'}")
    if given.json:
        given.json.write_text(json.dumps({
            "figures": [asdict(few), asdict(many)], "ratios": ratios, "claim": CLAIM}, indent=2))
    return 0 if max(ratios.values()) <= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
