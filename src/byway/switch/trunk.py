# SPDX-License-Identifier: Apache-2.0
"""Trunk ports: one port, several networks, told apart by VLAN tags (IEEE 802.1Q, 9.6).

Used by worker (``trunk_rx`` first of all stages, ``trunk_tx`` last) and by control, which fills the
tables; uses packet.reshape.

Theory of operation
-------------------
The outer tag of a frame (0x8100 or 0x88A8) says which network it is of. It is taken off on the way
in and put on on the way out; whatever the frame holds behind it, tags as well (QinQ), passes
through. What has no tag, or the *priority tag* (VLAN 0), is of the port's own, *native* network; a
priority tag is taken off as well (9.6: it names no VLAN). What comes with a tag that the port has
no network for is dropped (VLAN_TAG). So is what is to go out untagged, as it is of the native
network, and has a tag of its own already, from a guest there: whoever gets it would take it for a
frame of the network with that tag.

Towards the switch each tag is a *sub-port*: a member of its network with a port number of its own,
so that addresses are learned behind (port, tag) and not behind the port. Its PORT record has the tx
queues of the trunk port, and a TRUNK record of its own that says which tag to put on. Nothing ever
comes in on it: its frames come in on the trunk port, and ``trunk_rx`` says which they are.

The priority (PCP) of a tag ends here: frames go out with priority 0.

Threads: control writes the table word by word while workers read it; a frame is of one network or
of another. A tag that is taken away must be gone from the table before its sub-port is.
"""

import numpy as np

from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import ld16be, ld64, ld64_once, likely, st16be, st64, unlikely
from byway.packet.batch import UNDECIDED, R, batch_at, dropped, origin_word
from byway.packet.counters import count_drops
from byway.packet.ethernet import HEADER, MAX_TAGS, VLAN_TAG
from byway.packet.layers import SERVICE_VLAN, VLAN
from byway.packet.reason import Reason
from byway.packet.reshape import insert, strip

_RUNT = int(Reason.RUNT)
_VLAN_TAG = int(Reason.VLAN_TAG)

TAGS = 4096
LAST_TAG = 4094  # 4095 is reserved (9.6, table 9-2)
_TYPE = 12  # where the tag stands, or the Ethernet type
_VID = 0xFFF

# table: address of int64[TAGS]: origin word (packet.batch) + 1 by tag, 0: the port has no such
# network; at 0, whether untagged frames are taken (not 0) or dropped. 0 for a sub-port.
# tag: the tag to put on, as it stands in a frame: type << 16 | VLAN; 0: none (the trunk port).
TRUNK, trunk_at, T = record("trunk", ["table", "tag"])


@kernel
def trunk_rx(trunk, batch):
    """Say of each row of a batch that came in on a trunk port where it belongs (BATCH.origins,
    which the caller has filled with the native network), and take its tag off."""
    table = ld64(trunk + T.table)
    b = batch_at(batch)
    rows, origins = b.rows, b.origins
    for k in range(b.n):
        row = rows + 64 * k
        if unlikely(ld64(row + R.out) != UNDECIDED):
            continue
        head = ld64(row + R.head)
        tag = 0
        if ld64(row + R.len) >= HEADER:
            kind = ld16be(head + _TYPE)
            if kind == VLAN or kind == SERVICE_VLAN:
                if ld64(row + R.len) < HEADER + VLAN_TAG:
                    st64(row + R.out, dropped(_RUNT))
                    continue
                tag = ld16be(head + _TYPE + 2) & _VID
                strip(row, _TYPE, VLAN_TAG)
        word = ld64_once(table + 8 * tag)
        if unlikely(word == 0):
            st64(row + R.out, dropped(_VLAN_TAG))
        elif tag != 0:
            st64(origins + 8 * k, word - 1)


@kernel
def names_network(row):
    """Does a frame as it is have a tag that its receiver takes for a network's? Behind priority
    tags, too: Linux takes off what is in front (net/core/dev.c, check_vlan_id)."""
    head = ld64(row + R.head)
    n = ld64(row + R.len)
    at = _TYPE
    for _ in range(MAX_TAGS + 1):
        kind = ld16be(head + at) if at + 2 <= n else 0
        if kind != VLAN and kind != SERVICE_VLAN:
            return False
        if at + VLAN_TAG > n or ld16be(head + at + 2) & _VID != 0:
            return True
        at += VLAN_TAG
    return True  # nobody needs so many


@kernel
def native_tx(selected, n, counters):
    """Drop those of n rows that go out on the trunk port itself but have a tag of their own; ->
    how many are left of the list."""
    kept = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        if likely(not names_network(row)):
            st64(selected + 8 * kept, row)
            kept += 1
    if unlikely(kept < n):
        count_drops(counters, _VLAN_TAG, n - kept)
    return kept


@kernel
def trunk_tx(trunk, batch, selected, n, counters):
    """Put the tag on n rows that go out on a sub-port: ``selected`` lists copies then. What goes
    out on the trunk port itself gets none, and must have none. -> how many are left of the list.
    """
    tag = ld64(trunk + T.tag)
    if tag == 0:
        return native_tx(selected, n, counters)
    b = batch_at(batch)
    copy, seg = b.copies, b.pieces
    for k in range(n):
        seg = insert(ld64(selected + 8 * k), copy, seg, _TYPE, VLAN_TAG)
        head = ld64(copy + R.head)
        st16be(head + _TYPE, tag >> 16)
        st16be(head + _TYPE + 2, tag)
        st64(selected + 8 * k, copy)
        copy += 64
    return n


class Trunk:
    """The table of a trunk port. ``native``: are untagged frames taken (else they are dropped)?"""

    def __init__(self, native: bool = True) -> None:
        self._table = alloc(np.dtype("<i8"), TAGS)
        self._table[0] = int(native)
        self.record = alloc(TRUNK, 1)
        self.record["table"] = address_of(self._table)
        self.address = address_of(self.record)

    def set(self, tag: int, network: int, port: int) -> None:
        """Frames with ``tag`` are of a network and come from its sub-port (numbers)."""
        _check(tag)
        self._table[tag] = origin_word(network, port) + 1

    def drop(self, tag: int) -> None:
        """The port has no network for ``tag`` any more. Idempotent."""
        _check(tag)
        self._table[tag] = 0

    def tags(self) -> list[int]:
        """The tags that the port has networks for."""
        return [int(tag) for tag in np.flatnonzero(self._table) if tag]


class SubPort:
    """What a tag's sub-port does to its frames. ``kind``: the tag's Ethernet type, 0x8100, or
    0x88A8 for a service tag."""

    def __init__(self, tag: int, kind: int = VLAN) -> None:
        _check(tag)
        if kind not in (VLAN, SERVICE_VLAN):
            raise ValueError(f"{kind:#06x} is no Ethernet type of VLAN tags; 0x8100 and 0x88a8 are")
        self.record = alloc(TRUNK, 1)
        self.record["tag"] = kind << 16 | tag
        self.address = address_of(self.record)


def _check(tag: int) -> None:
    if not 1 <= tag <= LAST_TAG:
        raise ValueError(f"VLAN {tag} is not between 1 and {LAST_TAG}")
