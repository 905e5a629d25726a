# SPDX-License-Identifier: Apache-2.0
"""Functions of the author's page: time, chance, hashes, halves of wide numbers.

Used by authors. Uses running.py. byway.functions has the same as kernels (calls_kernels.py).
"""

from byway.nf.keys import WORD, signed
from byway.nf.running import current

# Odd numbers with bits all over: the 64-bit fractions of the golden ratio and of the root of 2.
GOLDEN, ROOT = 0x9E3779B97F4A7C15, 0x6A09E667F3BCC909


def now() -> int:
    """The time in nanoseconds since some start; the same for all frames of a batch."""
    return current().now


def random(n: int) -> int:
    """A number from 0 to n - 1, as good as any for spreading and sampling; 0 where n < 1."""
    run = current()
    # Steele, Lea, Flood 2014: SplitMix.
    run.random = signed(run.random + GOLDEN)
    x = run.random & WORD
    x = (x ^ x >> 32) * ROOT & WORD
    x = (x ^ x >> 29) * GOLDEN & WORD
    x ^= x >> 32
    if n < 1:
        return 0
    return (x >> 32) * n >> 32 if n <= 1 << 32 else (x >> 1) % n


def hash(*numbers: int) -> int:
    """A 32-bit number made of these, the same everywhere and always. Who knows it can choose
    numbers with one hash: maps have a hash of their own, which nobody knows."""
    h = 0
    for number in numbers:
        halves = [number >> 64, number] if number >> 64 not in (0, -1) else [number]
        for half in halves:
            h = (h ^ half & WORD) * GOLDEN & WORD
            h ^= h >> 32
    return (h * ROOT & WORD) >> 32


def high(wide: int) -> int:
    """The first 64 bits of an IPv6 address."""
    return signed(wide >> 64)


def low(wide: int) -> int:
    """The last 64 bits of an IPv6 address."""
    return signed(wide)


def wide(high: int, low: int) -> int:
    """The IPv6 address of these two halves."""
    return (high & WORD) << 64 | low & WORD
