# SPDX-License-Identifier: Apache-2.0
"""The router's kernels one by one, as tests call them: each a cached entry of int64 arguments.

Used by tests of switch.router and switch.routes, and by bench/router.py; see the function that each
one calls.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, st32be, st64
from byway.machine.system import rdtsc
from byway.packet.batch import ROWS, UNDECIDED, R, batch_at, look
from byway.packet.checksum import adjusted, ipv4_checksum
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


@kernel(entry=True)
def route_lots(router, batch, destinations, n):
    """Have ``n`` frames pass the router, in full batches, each to the next of the IPv4 addresses at
    ``destinations``; -> ticks that it took. The rows' frames are untagged, without options."""
    b = batch_at(batch)
    ticks = 0
    for first in range(0, n, ROWS):
        look(batch)
        for k in range(ROWS):
            row = b.rows + 64 * k
            ip = ld64(row + R.head) + 14
            st32be(ip + 16, ld64(destinations + 8 * (first + k)))
            ipv4_checksum(ip, 20)
            st64(row + R.out, UNDECIDED)
        began = rdtsc()
        router_rx(router, batch)
        ticks += rdtsc() - began
    return ticks
