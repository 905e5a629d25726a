# SPDX-License-Identifier: Apache-2.0
"""Next hops: to which MAC address a packet for a remote host goes, on an uplink where Byway itself
speaks IP.

Used by switch (which hears of MAC addresses) and ports (which send there). Control has one record
for each, asks for the address, and forgets it where nobody answers.

Threads: any worker stores what it heard, by one store a word; any reads.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64_once, st64_once

# mac: a number of 48 bits, 0: not known. heard: coarse time (BATCH.now) at which it was last said.
NEXT_HOP, next_hop_at, H = record("next_hop", ["mac", "heard"])
_GROUP = 1 << 40


@kernel
def mac_of(hop):
    """The MAC address of a next hop, 0 where it is not known."""
    return ld64_once(hop + H.mac)


@kernel
def heard(hop, mac, now):
    """The next hop said that it has this address. A group's address is not believed."""
    if mac == 0 or mac & _GROUP != 0:
        return
    if ld64_once(hop + H.mac) != mac:
        st64_once(hop + H.mac, mac)
    if ld64_once(hop + H.heard) != now:
        st64_once(hop + H.heard, now)
