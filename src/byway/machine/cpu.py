# SPDX-License-Identifier: Apache-2.0
"""Which CPUs this process may use, and how a thread is tied to one.

Used by worker and control. Reads sched_getaffinity only; the full report is `byway doctor`.
"""

import os


def usable_cpus() -> tuple[int, ...]:
    """CPUs this process may run on, in order."""
    return tuple(sorted(os.sched_getaffinity(0)))


def pin_this_thread(cpu: int) -> None:
    """Tie the calling thread to ``cpu`` (OSError where it does not exist or is not allowed)."""
    os.sched_setaffinity(0, {cpu})
