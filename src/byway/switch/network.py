# SPDX-License-Identifier: Apache-2.0
"""A network as kernels see it: its forwarding database, its members, its longest frame.

Used by decide.py and worker (flooding; plan.py says what stands here).
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64

# fdb: address of its FDB record. members: address of int64[nmembers], in the order in which they
# joined: stamp << PORT_BITS | port number + 1. max_frame: bytes of the longest untagged frame
# (packet.ethernet); each of at most two VLAN tags may add 4. number: of the network in plans. vni:
# 0 where it ends at this host. population: address of the switch's POPULATION, 0 where the network
# is not in it. flags: below. gateway: the router's MAC << 16, the same on all hosts, so nobody
# learns it (0: the network has none).
NETWORK, network_at, N = record("network", [
    "fdb", "max_frame", "members", "nmembers", "vni", "population", "flags", "gateway", "number"])
LEARNING = 1  # where a MAC address is on other hosts is learned from what their tunnels bring
DROP_UNKNOWN = 2  # frames to a MAC address that nobody is known to have are dropped, not flooded
RESPONDS = 4  # who asks for an address that the population knows is answered by the switch
PORT_BITS = 16
GONE = -1  # the port number of a member that has left


@kernel
def member_port(entry):
    """The port number of a member, GONE where it has left."""
    return (entry & (1 << PORT_BITS) - 1) - 1


@kernel
def member_stamp(entry):
    """When it joined: a number that grows with every port that joins a network."""
    return entry >> PORT_BITS


@kernel
def members_after(members, n, stamp):
    """-> the place of the first of ``n`` members that joined after ``stamp`` (n: there is none)."""
    low = 0
    high = n
    while low < high:
        middle = (low + high) >> 1
        if member_stamp(ld64(members + 8 * middle)) > stamp:
            high = middle
        else:
            low = middle + 1
    return low
