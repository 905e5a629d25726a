# SPDX-License-Identifier: Apache-2.0
"""Which copy for frames: masked tail (AVX-512), overlapping tail, or the C library's memcpy.

    .venv/bin/python bench/frame_copy.py

Copies frames of the sizes of a switch's life between buffers that are in the nearest cache, and
prints the least cycles a copy took, of many runs. `byway.machine.copying` uses the one that wins.
"""

import mmap

import numpy as np

from byway.machine.clock import tsc
from byway.machine.copying import HAS_AVX512, copy_frame, copy_masked_tail, copy_overlapping_tail
from byway.machine.dual import PTR, dual, i1, i64
from byway.machine.jit import kernel
from byway.machine.system import rdtsc

SIZES = (60, 64, 90, 128, 256, 590, 1024, 1514)
RUNS, COPIES = 25, 20_000
BUFFERS, STRIDE = 4, 2048


def _emit_libc(b, destination, source, n):
    function = b.module.declare_intrinsic("llvm.memcpy", [PTR, PTR, i64])
    b.call(function, [b.inttoptr(destination, PTR), b.inttoptr(source, PTR), n, i1(0)])
    return n


libc = kernel(lambda d, s, n: _libc(d, s, n))
_libc = dual("libc", 3, _emit_libc, lambda d, s, n: n)


def loop_of(copy):
    """A timed loop over one way to copy."""

    @kernel
    def loop(start, n, copies):
        began = rdtsc()
        for k in range(copies):
            place = start + (k & BUFFERS - 1) * STRIDE
            copy(place + BUFFERS * STRIDE + 12, place, n)
        return (rdtsc() - began) / copies

    return loop


def main() -> None:
    """Measure and print a table."""
    memory = mmap.mmap(-1, 2 * BUFFERS * STRIDE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    ways = {"libc": libc, "overlapping": kernel(copy_overlapping_tail)}
    if HAS_AVX512:
        ways["masked"] = kernel(copy_masked_tail)
    ways["copy_frame"] = copy_frame
    tsc()
    print("bytes".rjust(12), *(str(n).rjust(7) for n in SIZES))
    for name, way in ways.items():
        loop = loop_of(way)
        best = [min(loop(start, n, COPIES) for _ in range(RUNS)) for n in SIZES]
        print(name.rjust(12), *(f"{cycles:7.1f}" for cycles in best))


main()
