# SPDX-License-Identifier: Apache-2.0
"""What harness.py calls: a batch that goes through a chain, as a worker would have it.

Uses packet and switch.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64
from byway.machine.system import call2, call5, rdtsc
from byway.packet.batch import ROWS, R, batch_at, copy_whole, look
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


@kernel(entry=True)
def ticks_of(chain, batch, saved, rows):
    """Have ``rows`` rows, of which copies are at ``saved``, go through a chain, in full batches; ->
    ticks of the time stamp counter, without those for making the batches."""
    b = batch_at(batch)
    total = 0
    for first in range(0, rows, ROWS):
        b.n = min(ROWS, rows - first)
        for word in range(0, 64 * b.n, 8):
            if word & 63 != R.head:
                st64(b.rows + word, ld64(saved + 64 * first + word))
        look(batch)
        b.npayloads = 0
        b.nclones = 0
        b.ticks = rdtsc()
        before = rdtsc()
        call2(ld64(chain + C.code), chain, batch)
        total += rdtsc() - before
    return total


ENTRIES = (frames_in, frames_out, frame_at)
