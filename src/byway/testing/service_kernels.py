# SPDX-License-Identifier: Apache-2.0
"""The stages of services one by one, as tests call them: cached entries of int64 arguments.

Used by tests of switch.service; see the function that each one calls.
"""

from byway.machine.jit import kernel
from byway.switch.service import ends_hash, service_back, services_own, services_rx, services_tx


@kernel(entry=True)
def service_in(steps, batch):
    """Send what came in on a port with services on."""
    services_own(steps, batch)
    services_rx(steps, batch)
    return 0


@kernel(entry=True)
def service_out(steps, batch, selected, n, counters):
    """Send what is for a port with services on; -> how many are left."""
    return services_tx(steps, batch, selected, n, counters)


@kernel(entry=True)
def service_return(back, batch):
    """Have what comes back go on."""
    service_back(back, batch)
    return 0


@kernel(entry=True)
def hash_of_ends(row, addresses):
    """-> the hash of both ends of a row's frame."""
    return ends_hash(row, addresses)
