# SPDX-License-Identifier: Apache-2.0
"""What network functions cost: cycles of the time stamp counter a frame, chains in turns.

Used by `byway nf bench`. Uses functions.memory and chain_kernels.py.

Batches of 64 frames go through each chain's machine code as a worker would have them go; only the
chain's own time counts. The chains take turns, a few hundred batches each, so that whatever else
the machine does hits all of them, and of all turns the median counts. The first turns are not
counted: tables fill, branches are learned. Live traffic is another measure: there the rest of a
pass shares the cache.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from byway.functions.memory import Chain
from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS, Batch
from byway.packet.ethernet import HEADER
from byway.switch.fdb import Fdb
from byway.switch.network import NETWORK
from byway.testing.builders import tcp
from byway.testing.chain_kernels import chain_rounds

TURN = 200  # batches
SYN_EVERY = 8  # frames of a connection
MTU = 1500
FDB_LIMIT = 8192


@dataclass(frozen=True)
class Cost:
    """``cycles``: a frame; ``settled``: the part of frames that did not pass."""

    cycles: float
    settled: float


def connections(count: int) -> list[bytes]:
    """Frames of ``count`` TCP connections in turns, one in SYN_EVERY of each the first."""
    return [tcp(f"10.{k >> 14 & 255}.{k >> 6 & 255}.{k & 63}", "10.0.0.2", 1024 + k % 60000, 80,
                "S" if (turn + k) % SYN_EVERY == 0 else "A")
            for turn in range(SYN_EVERY) for k in range(count)]


class ChainBench:
    """Frames, and a batch to take them to chains. ``batches``: of a turn."""

    def __init__(self, frames: Sequence[bytes], batches: int = TURN) -> None:
        self._memory = np.frombuffer(b"".join(frames), np.uint8).copy()
        self._list = np.zeros((len(frames), 2), np.int64)
        self._list[:, 1] = [len(frame) for frame in frames]
        self._list[:, 0] = address_of(self._memory) + np.concatenate(
            ([0], np.cumsum(self._list[:-1, 1])))
        self._batch = Batch()
        self._network = alloc(NETWORK, 1)
        self._fdb = Fdb(FDB_LIMIT)  # where those are learned whom a function answers
        self._network[0]["max_frame"] = MTU + HEADER
        self._network[0]["fdb"] = self._fdb.address
        self._batch.record["here"] = address_of(self._network)
        self._batch.record["origin"] = 1
        self._batches = batches
        self._ticks = np.zeros(batches, np.int64)
        self._at = 0

    def turn(self, chain: Chain) -> Cost:
        """One turn of a chain: the median of its batches."""
        settled = chain_rounds(chain.address, self._batch.address, address_of(self._list),
                               len(self._list), self._at, self._batches, address_of(self._ticks))
        moved = self._batches * ROWS
        self._at = (self._at + moved) % len(self._list)
        return Cost(float(np.median(self._ticks)) / ROWS, int(settled) / moved)

    def measure(self, chains: Mapping[str, Chain], seconds: float) -> dict[str, Cost]:
        """The chains in turns, for so many seconds each; -> the median of each one's turns."""
        warm = 1 + len(self._list) // (self._batches * ROWS)
        for chain in chains.values():
            for _ in range(warm):
                self.turn(chain)
        turns: dict[str, list[Cost]] = {name: [] for name in chains}
        end = time.monotonic() + seconds * len(chains)
        while time.monotonic() < end or not all(turns.values()):
            for name, chain in chains.items():
                turns[name].append(self.turn(chain))
        return {name: Cost(statistics.median(one.cycles for one in costs),
                           statistics.mean(one.settled for one in costs))
                for name, costs in turns.items()}
