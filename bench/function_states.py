# SPDX-License-Identifier: Apache-2.0
"""What it costs a network function to use its state: maps of few and of many entries, prefixes.

    .venv/bin/python bench/function_states.py [--entries 65536] [--runs 20] [--json FILE]

Measured are kernels as they stand in translated functions (shapes are constants), in a loop over
random keys that are all there: get of a number, add to a number that ages, make of a flow's record
with an idle time, look-up among prefixes. Printed is the least of the runs, in cycles of the time
stamp counter, because what strangers do to a shared machine only ever adds; and the memory of an
entry.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from byway.functions.map_memory import MapMemory
from byway.functions.state_memory import WORD, Surroundings
from byway.functions.states import make
from byway.machine.layout import address_of, alloc
from byway.nf.keys import FLOW_WORDS
from byway.nf.maps import Lpm, Map
from byway.testing.state_kernels import (
    map_set_all,
    ticks_of_add,
    ticks_of_get,
    ticks_of_lookup,
    ticks_of_make,
)

FEW, LOOKS, NOW = 256, 1 << 17, 1 << 40
LOCK = alloc(WORD, 1, 64)


@dataclass
class Figures:
    """Of one operation on one table: cycles, the least of the runs; bytes of an entry."""

    operation: str
    entries: int
    cycles: float
    bytes_per_entry: float


def best(run: Callable[[], int], runs: int) -> float:
    """The least of the runs, a look-up."""
    run()
    return min(int(run()) for _ in range(runs)) / LOOKS


def filled(plain: Any, entries: int, words: int) -> tuple[MapMemory, Any]:
    """A map with so many entries, and LOOKS of their keys, chosen at random."""
    rng = np.random.default_rng(entries)
    memory = MapMemory(plain.spec(), Surroundings(address_of(LOCK), lambda name: 0, lambda: NOW))
    keys = rng.choice(1 << 32, size=entries, replace=False)
    own, looked = alloc(WORD, entries * words, 64), alloc(WORD, LOOKS * words + 1, 64)
    own[::words] = keys  # of a key of several words the first one differs
    done = map_set_all(memory.address, NOW, memory.shape, address_of(own), entries)
    if done != entries:
        raise AssertionError(f"{done} of {entries} entries found room")
    looked[:-1:words] = keys[rng.integers(0, entries, LOOKS)]
    return memory, looked


def of_map(operation: str, plain: Any, kernel: Any, words: int, runs: int) -> Figures:
    """The figures of one operation on a map."""
    memory, keys = filled(plain, plain.capacity, words)
    return Figures(operation, plain.capacity, best(
        lambda: kernel(memory.address, NOW, address_of(keys), LOOKS), runs),
        memory.stats()["bytes"] / plain.capacity)


def of_prefixes(entries: int, runs: int) -> Figures:
    """The figures of look-ups among prefixes of 8 to 28 bits."""
    rng = np.random.default_rng(entries)
    table = make(Lpm(capacity=entries).spec(), address_of(LOCK), lambda name: 0)
    rows: dict[tuple[int, int], int] = {}
    while len(rows) < entries:
        bits = int(rng.integers(8, 29))
        rows[int(rng.integers(1 << bits)) << 32 - bits, bits] = len(rows)
    table.fill(rows)
    keys = alloc(WORD, LOOKS + 1, 64)
    keys[:-1] = rng.integers(0, 1 << 32, LOOKS)
    return Figures("look up a prefix", entries, best(
        lambda: ticks_of_lookup(table.address, address_of(keys), LOOKS), runs), 0)


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=65536)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    figures = []
    for n in (FEW, given.entries):
        record = {"packets": "u64", "octets": "u64"}
        figures += [
            of_map("get a number", Map("u32", "u32", n), ticks_of_get, 1, given.runs),
            of_map("add to a number that ages", Map("u32", "u32", n, age=1000.0), ticks_of_add, 1,
                   given.runs),
            of_map("make a flow's record", Map("flow", record, n, idle=1000.0), ticks_of_make,
                   FLOW_WORDS, given.runs),
            of_prefixes(min(n, 10_000), given.runs)]
    print(f"{'operation':<28}{'entries':>9}{'cycles':>9}{'bytes an entry':>16}")
    for f in figures:
        print(f"{f.operation:<28}{f.entries:>9}{f.cycles:>9.1f}{f.bytes_per_entry:>16.0f}")
    if given.json:
        given.json.write_text(json.dumps([asdict(f) for f in figures], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
