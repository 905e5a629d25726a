# SPDX-License-Identifier: Apache-2.0
"""A lock between workers, and between them and the control thread: one word, 0 where it is free.

Used by ports (a tx queue that several workers deliver to) and functions (an instance's state). Uses
mem and system. Whoever has it gives it back by storing 0 with release semantics (st64_rel).
"""

from byway.machine.jit import kernel
from byway.machine.mem import cas64
from byway.machine.system import SYS_SCHED_YIELD, pause, syscall0

SPINS = 1000  # looks at it, before somebody else may run


@kernel
def acquire(lock):
    """Take a lock that others hold for a batch at the most."""
    spins = 0
    while cas64(lock, 0, 1) != 0:
        pause()
        spins += 1
        if spins == SPINS:  # its holder may not be running
            syscall0(SYS_SCHED_YIELD)
            spins = 0
