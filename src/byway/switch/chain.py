# SPDX-License-Identifier: Apache-2.0
"""A chain: network functions that frames go through, one after the other, as one piece of code.

Used by worker (staging.py, staged.py: run_chain, chain_out) and by byway.functions, which makes the
code and fills the record. Uses decide.py (learning).

The record never changes: another chain is another record, and its address is one word in a port's
STAGES. So a worker sees the old chain or the new one, whole. ``code``: rx: code(chain, batch); tx:
code(chain, batch, selected, n, counters) -> rows left of the list. ``flags``: what its functions
do. ``instances``: int64[], addresses of INSTANCE (functions.instance) in the order of the chain.
``locks``, ``nlocks``: int64[], addresses of the locks of those whose state no two may use at once,
in the order of their addresses; held while a batch is in the chain. ``scale``: nanoseconds per tick
of the time stamp counter, times 2 ** SCALE_SHIFT. ``trace``: of a chain that notes what it does,
where (functions.trace).
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64, st64, unlikely
from byway.machine.system import call2, call5
from byway.packet.batch import batch_at
from byway.switch.decide import learn_sources

CHAIN, chain_at, C = record("chain", [
    "code", "flags", "instances", "locks", "nlocks", "scale", "trace"])
SETTLES, COPIES = 1, 2  # functions send frames, or copies of them, somewhere themselves
SCALE_SHIFT = 20


@kernel
def run_chain(chain, batch, network):
    """Have the undecided rows at hand, which came in, go through a chain."""
    flags = ld64(chain + C.flags)
    if unlikely(flags & SETTLES != 0):  # decide does not see those that are sent somewhere
        learn_sources(batch, network, batch_at(batch).origin)
    call2(ld64(chain + C.code), chain, batch)


@kernel
def chain_out(chain, batch, selected, n, counters):
    """Have n rows that are to go out go through a chain; -> how many are left of the list."""
    return call5(ld64(chain + C.code), chain, batch, selected, n, counters)


@kernel
def no_mirrors(batch):
    """No row at hand has anybody who gets a copy of it."""
    b = batch_at(batch)
    for k in range(b.n):
        st64(b.mirrors + 8 * k, 0)
