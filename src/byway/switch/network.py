# SPDX-License-Identifier: Apache-2.0
"""A network as kernels see it: its forwarding database, its members, its longest frame.

Used by decide.py, worker (flooding) and control, which makes the records anew for each plan.
"""

from byway.machine.layout import record

# members: address of int64[nmembers], the numbers of the ports in the network. max_frame: bytes of
# the longest untagged frame (packet.ethernet); each of at most two VLAN tags may add 4.
# nports: how many the plan knows. A worker with a newer plan may have learned a higher one.
NETWORK, network_at, N = record(
    "network", ["fdb", "members", "nmembers", "max_frame", "nports"])
