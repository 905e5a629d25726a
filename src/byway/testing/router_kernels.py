# SPDX-License-Identifier: Apache-2.0
"""The router's kernels one by one, as tests call them: each a cached entry of int64 arguments.

Used by tests of switch.router and switch.routes; see the function that each one calls.
"""

from byway.machine.jit import kernel
from byway.packet.checksum import adjusted
from byway.packet.offload import check_offloads
from byway.switch.router import router_rx
from byway.switch.routes import route_of


@kernel(entry=True)
def route_rows(router, batch):
    """Have the rows of a batch go through the router, their offloads checked as always; -> 0."""
    check_offloads(batch)
    router_rx(router, batch)
    return 0


@kernel(entry=True)
def find_route(routes, high, low):
    """-> the address of the ROUTE for an address."""
    return route_of(routes, high, low)


@kernel(entry=True)
def adjust(field, old, new):
    """-> a checksum after a word has changed."""
    return adjusted(field, old, new)
