# SPDX-License-Identifier: Apache-2.0
"""Deciding about a batch: check, learn, look up. Each frame gets an output port, or a reason.

Used by worker (one call a batch, between look and deliver). Works on the rows' private heads only,
so that no guest can change what was checked.

Consecutive frames of a batch mostly share their addresses: a source is learned, and a destination
looked up, once for a run of frames with the same one.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld16be, ld64, ld64be, st64, unlikely
from byway.packet.batch import FLOOD, MIN_FRAME, UNDECIDED, R, batch_at, dropped
from byway.packet.ethernet import MAX_TAGS, VLAN_TAG
from byway.packet.offload import wire_length
from byway.packet.reason import Reason
from byway.switch.fdb import learn, lookup
from byway.switch.network import network_at

_RUNT = int(Reason.RUNT)
_OVER_MTU = int(Reason.OVER_MTU)
_BAD_SOURCE = int(Reason.BAD_SOURCE)
_RESERVED = int(Reason.RESERVED)
_SAME_PORT = int(Reason.SAME_PORT)

GROUP_BIT = 1 << 56  # of MAC << 16 in an int64: the first bit on the wire (IEEE 802, 8.2)
MAC_MASK = ~0xFFFF
RESERVED_FIRST = 0x0180C2000000 << 16  # 01-80-C2-00-00-00 to -0F (IEEE 802.1Q, table 8-1)
RESERVED_MASK = ~0xFFFFF
ETHERTYPE = 12
TPID_C, TPID_S = 0x8100, 0x88A8


@kernel
def over_mtu(row, head, longest):
    """Is a frame longer than ``longest`` too long even with its VLAN tags (at most MAX_TAGS)?

    What counts is how long it is on the wire, once it is cut into segments.
    """
    length = wire_length(row)
    allowed = longest
    at = head + ETHERTYPE
    for _ in range(MAX_TAGS):
        kind = ld16be(at)
        if kind != TPID_C and kind != TPID_S:
            break
        allowed += VLAN_TAG
        at += VLAN_TAG
    return length > allowed


@kernel
def route(fdb, destination, port):
    """Where frames for ``destination`` (MAC << 16) go: a port, FLOOD, or dropped(reason)."""
    if destination & GROUP_BIT != 0:
        if unlikely(destination & RESERVED_MASK == RESERVED_FIRST):
            return dropped(_RESERVED)
        return FLOOD
    found = lookup(fdb, destination)
    if found == port:
        return dropped(_SAME_PORT)
    if found < 0:
        return FLOOD
    return found


@kernel
def decide(batch, network, port):
    """Decide about every undecided row of a batch that came in on ``port`` of ``network``."""
    b = batch_at(batch)
    net = network_at(network)
    rows, n, now = b.rows, b.n, b.now
    fdb, longest = net.fdb, net.max_frame
    known_source = -1  # not an address that a row can have (0 is: it must be refused)
    known_destination = -1
    out = UNDECIDED
    for k in range(n):
        row = rows + 64 * k
        if unlikely(ld64(row + R.out) != UNDECIDED):
            continue
        length = ld64(row + R.len)
        head = ld64(row + R.head)
        if unlikely(length > longest) and over_mtu(row, head, longest):
            st64(row + R.out, dropped(_OVER_MTU))
            continue
        if unlikely(length < MIN_FRAME):
            st64(row + R.out, dropped(_RUNT))
            continue
        destination = ld64be(head) & MAC_MASK
        source = ld64be(head + 6) & MAC_MASK
        if source != known_source:
            if unlikely(source & GROUP_BIT != 0 or source == 0):
                st64(row + R.out, dropped(_BAD_SOURCE))
                continue
            learn(fdb, source, port, now)
            known_source = source
            out = UNDECIDED  # what was learned may be what we look up
        if destination != known_destination or out == UNDECIDED:
            out = route(fdb, destination, port)
            known_destination = destination
        st64(row + R.out, out)
