# SPDX-License-Identifier: Apache-2.0
"""How fast the Internet checksum is summed: by index, as the switch does it, and by address.

    .venv/bin/python bench/checksum.py

Sums buffers of the sizes of frames that are in the nearest cache, and prints the least cycles a sum
took, of many runs. `byway.packet.checksum` uses the loads of `byway.machine.words`, of which LLVM
makes vectors; the same loop over plain loads is what it would be without.
"""

import mmap

import numpy as np

from byway.machine.clock import tsc
from byway.machine.jit import kernel
from byway.machine.mem import ld64, shr64
from byway.machine.system import rdtsc
from byway.packet.checksum import sum_bytes

SIZES = (20, 64, 128, 536, 1448, 8948, 65483)
RUNS, SUMS = 25, 500


@kernel
def plain_sum(address, n):
    total = 0
    for k in range(n >> 3):
        word = ld64(address + 8 * k)
        total += (word & 0xFFFFFFFF) + shr64(word, 32)
    return total


def loop_of(way):
    """A timed loop over one way to sum; -> (cycles a sum, what keeps it from being left out)."""

    @kernel
    def loop(start, n, sums):
        total = 0
        began = rdtsc()
        for k in range(sums):
            total ^= way(start + (k & 1) * 2, n)
        return (rdtsc() - began) / sums, total

    return loop


def main() -> None:
    """Measure and print a table."""
    memory = mmap.mmap(-1, 1 << 17)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    tsc()
    print("bytes".rjust(12), *(str(n).rjust(8) for n in SIZES))
    for name, way in (("by address", plain_sum), ("by index", sum_bytes)):
        loop = loop_of(way)
        best = [min(loop(start, n, SUMS)[0] for _ in range(RUNS)) for n in SIZES]
        print(name.rjust(12), *(f"{cycles:8.1f}" for cycles in best))


main()
