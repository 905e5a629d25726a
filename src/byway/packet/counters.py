# SPDX-License-Identifier: Apache-2.0
"""Counters of one direction of a port: frames, bytes, drops by reason.

Used by virtio, ports and worker (one writer at a time: the worker that serves the side), read by
control without a lock (aligned 64-bit words).
"""

from typing import Any

import numpy as np

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64, st64
from byway.packet.reason import REASONS, Reason

COUNTERS, counters_at, C = record(
    "counters", ["frames", "bytes", ("drops", "<i8", (REASONS,))])
_DROPS = C.drops


@kernel
def count_drops(counters, reason, n):
    """Add ``n`` dropped frames."""
    a = counters + _DROPS + 8 * reason
    st64(a, ld64(a) + n)


@kernel
def count_frames(counters, frames, octets):
    """Add ``frames`` frames of ``octets`` bytes together."""
    st64(counters + C.frames, ld64(counters + C.frames) + frames)
    st64(counters + C.bytes, ld64(counters + C.bytes) + octets)


def drops_by_name(*sides: Any) -> dict[str, int]:
    """{reason name: frames} over COUNTERS records, only reasons that happened."""
    total = np.sum([side["drops"] for side in sides], axis=0)
    return {Reason(int(r)).name.lower(): int(total[r]) for r in np.flatnonzero(total)}
