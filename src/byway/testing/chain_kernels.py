# SPDX-License-Identifier: Apache-2.0
"""What a chain of network functions costs: batches go through it again and again, timed by the
time stamp counter.

Used by `byway nf bench`. Each round takes the next ROWS frames of a list as a port would have
received them, heads copied; only the chain's own work is timed.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64
from byway.machine.system import call2, rdtsc
from byway.packet.batch import ROWS, UNDECIDED, R, batch_at, look, set_row
from byway.switch.chain import C


@kernel(entry=True)
def chain_rounds(chain, batch, frames, count, first, rounds, ticks):
    """Have ``rounds`` batches go through an rx chain, beginning with frame number ``first``.

    ``frames``: int64[count][2], address and length; ``ticks``: int64[rounds], filled; -> how many
    frames did not pass.
    """
    b = batch_at(batch)
    b.n = ROWS
    rows = b.rows
    settled = 0
    at = first % count
    for k in range(rounds):
        for j in range(ROWS):
            set_row(rows + 64 * j, ld64(frames + 16 * at), ld64(frames + 16 * at + 8))
            at = at + 1 if at + 1 < count else 0
        look(batch)
        b.nclones = 0
        b.npayloads = 0
        b.ticks = rdtsc()
        begin = rdtsc()
        call2(ld64(chain + C.code), chain, batch)
        st64(ticks + 8 * k, rdtsc() - begin)
        for j in range(ROWS):
            if ld64(rows + 64 * j + R.out) != UNDECIDED:
                settled += 1
    return settled
