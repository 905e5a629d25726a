# SPDX-License-Identifier: Apache-2.0
"""Asks rules and tables of Maglev as a translated function would.

Used by tests. Uses functions.
"""

from byway.functions.maglev_kernels import maglev_pick
from byway.functions.parse_kernels import parse
from byway.functions.rules_kernels import rules_match
from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64
from byway.packet.batch import batch_at, look


@kernel(entry=True)
def rules_ask(state, batch, answers, default):
    """Store at ``answers`` what the rules say of each row of a batch; -> 0."""
    look(batch)
    b = batch_at(batch)
    for k in range(b.n):
        row = b.rows + 64 * k
        st64(answers + 8 * k, rules_match(state, row, parse(row), default))
    return 0


@kernel(entry=True)
def maglev_ask(state, hashes, n, default):
    """Replace n hashes by the members they choose; -> 0."""
    for k in range(n):
        st64(hashes + 8 * k, maglev_pick(state, ld64(hashes + 8 * k), default))
    return 0
