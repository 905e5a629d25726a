# SPDX-License-Identifier: Apache-2.0
"""What harness.py calls: a batch that goes through a chain, as a worker would have it.

Uses packet and switch.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64
from byway.machine.system import call2, call5
from byway.packet.batch import batch_at, copy_whole, look
from byway.switch.chain import C


@kernel
def begin(batch, now):
    """A new batch at tick ``now``: heads are copied out, nothing was copied yet."""
    b = batch_at(batch)
    b.ticks = now
    b.npayloads = 0
    b.nclones = 0
    look(batch)


@kernel(entry=True)
def frames_in(chain, batch, now):
    """Have the rows of a batch, which came in, go through a chain; -> 0."""
    begin(batch, now)
    return call2(ld64(chain + C.code), chain, batch)


@kernel(entry=True)
def frames_out(chain, batch, now, selected, counters):
    """Have the rows of a batch go out through a chain; -> how many are left of ``selected``."""
    begin(batch, now)
    b = batch_at(batch)
    n = b.n
    for k in range(n):
        st64(selected + 8 * k, b.rows + 64 * k)
    return call5(ld64(chain + C.code), chain, batch, selected, n, counters)


@kernel(entry=True)
def frame_at(row, destination):
    """Copy a row's frame, which has MAX_FRAME bytes at the most; -> 0."""
    copy_whole(row, destination)
    return 0
