# SPDX-License-Identifier: Apache-2.0
"""copy_frame: the one copy that a frame pays for.

Used wherever frame bytes move. Measured by bench/frame_copy.py, in cache: 2 to 4 cycles for 60 to
128 bytes, half to two thirds of what libc's memcpy takes (a call and its dispatch by size are
saved); from 1 KiB on all ways cost the same.
"""

from byway.machine.dual import compiled_for
from byway.machine.jit import kernel
from byway.machine.mem import copy32, copy64, copy_masked, copyo8, copyo16, ld8, st8

LONG = 256  # bytes from which stores are worth aligning

HAS_AVX512 = compiled_for("avx512bw", "avx512vl")


def copy_masked_tail(destination, source, n):
    if n > LONG:  # a store across two lines costs two
        k = 64 - (destination & 63)
        copy_masked(destination, source, k)
        destination += k
        source += k
        n -= k
    while n > 64:
        copy64(destination, source)
        destination += 64
        source += 64
        n -= 64
    copy_masked(destination, source, n)


def copy_overlapping_tail(destination, source, n):
    if n >= 32:
        end = n - 32
        k = 0
        while k < end:
            copy32(destination + k, source + k)
            k += 32
        copy32(destination + end, source + end)
    elif n >= 16:
        copyo16(destination, source, n)
    elif n >= 8:
        copyo8(destination, source, n)
    else:
        for k in range(n):
            st8(destination + k, ld8(source + k))


# Copy n >= 1 bytes between places that do not overlap; touches nothing outside.
copy_frame = kernel(copy_masked_tail if HAS_AVX512 else copy_overlapping_tail)
copy_portable = kernel(copy_overlapping_tail)
