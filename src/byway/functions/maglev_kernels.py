# SPDX-License-Identifier: Apache-2.0
"""Which member of an nf.Maglev has a hash's place?

Used by translated functions; rules_memory.py keeps the memory. nf.maglev says what the table is.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld32

# places: uint32[size], the number of the member that has it + 1; 0: nobody.
MAGLEV, maglev_at, _ = record("maglev", ["places", "size"])


@kernel(inline=True)
def maglev_pick(state, hash, default):
    """The number of the member for a hash, of which the low 32 bits count; or ``default``."""
    table = maglev_at(state)
    found = ld32(table.places + 4 * ((hash & 0xFFFFFFFF) * table.size >> 32))
    return default if found == 0 else found - 1
