# SPDX-License-Identifier: Apache-2.0
"""A chain: network functions that frames go through, one after the other, as one piece of code.

Used by worker (staging.py, staged.py: run_chain, chain_out) and by byway.functions, which makes the
code and fills the record.

The record never changes: another chain is another record, and its address is one word in a port's
STAGES. So a worker sees the old chain or the new one, whole. ``code``: rx: code(chain, batch); tx:
code(chain, batch, selected, n, counters) -> rows left of the list. ``instances``: int64[],
addresses of INSTANCE (functions.instance) in the order of the chain. ``locks``, ``nlocks``:
int64[], addresses of the locks of those whose state no two may use at once, in the order of their
addresses; held while a batch is in the chain. ``scale``: nanoseconds per tick of the time stamp
counter, times 2 ** SCALE_SHIFT. ``trace``: of a chain that notes what it does, where
(functions.trace).
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64
from byway.machine.system import call2, call5

CHAIN, chain_at, C = record("chain", [
    "code", "instances", "locks", "nlocks", "scale", "trace"])
SCALE_SHIFT = 20


@kernel
def run_chain(chain, batch):
    """Have the undecided rows at hand, which came in, go through a chain."""
    call2(ld64(chain + C.code), chain, batch)


@kernel
def chain_out(chain, batch, selected, n, counters):
    """Have n rows that are to go out go through a chain; -> how many are left of the list."""
    return call5(ld64(chain + C.code), chain, batch, selected, n, counters)
