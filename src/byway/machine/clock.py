# SPDX-License-Identifier: Apache-2.0
"""The time stamp counter from Python, and how fast it runs.

Used by worker (idle times, busy cycles), control (rates) and the benchmarks.
"""

import time

from byway.machine.jit import INTERPRETED, kernel
from byway.machine.system import rdtsc


@kernel(entry=True)
def tsc():
    """The counter now (interpreted: nanoseconds)."""
    return rdtsc()


def measure_hz(seconds: float = 0.01) -> float:
    """Ticks a second, measured against the monotonic clock for ``seconds``."""
    if INTERPRETED:
        return 1e9
    tsc()
    first, began = int(tsc()), time.perf_counter()
    while time.perf_counter() - began < seconds:
        pass
    return (int(tsc()) - first) / (time.perf_counter() - began)
