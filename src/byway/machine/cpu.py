# SPDX-License-Identifier: Apache-2.0
"""Which CPUs this process may use.

Used by worker and cli. Reads sched_getaffinity only; the full report is `byway doctor`.
"""

import os


def usable_cpus() -> tuple[int, ...]:
    """CPUs this process may run on, in order."""
    return tuple(sorted(os.sched_getaffinity(0)))
