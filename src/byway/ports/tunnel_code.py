# SPDX-License-Identifier: Apache-2.0
"""The machine code of tunnels: a compiled unit of its own, loaded where there is an underlay.

Used by underlay.py and tunnel.py, whose records hold its addresses, and by worker.units, which has
it ready before a switch starts.
"""

import functools

from byway.machine.jit import Native
from byway.ports.tunnel_kernels import tunnel_rx
from byway.ports.tunnel_send import tunnel_tx


@functools.cache
def tunnels() -> tuple[Native, Native]:
    """Out of tunnels (rx; call3), and into them (tx; call5)."""
    return Native(tunnel_rx, 3), Native(tunnel_tx, 5)
