# SPDX-License-Identifier: Apache-2.0
"""Addresses for containers: pools of them, kept in a file, each address given out once.

    from byway.ipam import Pools

    with Pools("/var/lib/byway/ipam.db") as pools:
        pool, prefix = pools.request_pool("blue", "10.0.0.0/24")
        gateway = pools.request_gateway(pool)
        address = pools.request_address(pool, owner="c1/eth0")  # "10.0.0.2/24"
        pools.release_owner("blue", "c1/eth0")

Used by the integrations (Docker, CNI). Uses the standard library only, and loads in milliseconds:
a CNI plugin is a new process for every call.
"""

from byway.ipam.pools import Held, Pools
from byway.ipam.prefix import Pool
from byway.ipam.problem import IpamError

__all__ = ["Held", "IpamError", "Pool", "Pools"]
