# SPDX-License-Identifier: Apache-2.0
"""Frames into a tunnel over an uplink: Byway itself writes the outer headers, and the frames leave
by another port.

Used by worker, as the last stage of a tunnel that has a WAY; control fills it. The other direction
is switch/uplink.py. RFC 7348, 791, 6864 (identification), 8200, 768, 6935, 6040.

Theory of operation
-------------------
The outer headers of a tunnel are the same for all its frames, but for few fields: they stand in the
WAY as a *template*, with a VLAN tag where the uplink has one. A frame gets them in a copy of its
row (packet.reshape), since others may get the frame as well. Nothing is left to do on the frame:
what is to be cut was cut before (worker.out).

UDP's source port is made of the inner flow's hash, so that routers spread flows and keep each in
order. Its checksum is 0 (RFC 7348, 4), or summed over the whole frame where the WAY says so.

A frame that is longer than the underlay carries is dropped (TOO_BIG); all are, while the next hop's
MAC address is not known (NO_NEIGHBOUR).

Threads: any worker reads a WAY; the next hop's address is one word. The number in ``ident`` is
taken atomically.
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import add64, ld64, likely, st8, st16, st16be, st32be, st64, unlikely
from byway.packet.batch import HEAD, R, batch_at
from byway.packet.checksum import finished, ipv4_checksum, sum_bytes, swapped
from byway.packet.counters import count_drops, count_frames
from byway.packet.flow import flow_hash
from byway.packet.layers import UDP
from byway.packet.nexthop import mac_of
from byway.packet.reason import Reason
from byway.packet.reshape import insert
from byway.packet.row_sum import sum_row
from byway.packet.vxlan import FIRST_SOURCE, HEADER, LAST_SOURCE, inner_ecn, put_vxlan

_TOO_BIG, _NO_NEIGHBOUR = int(Reason.TOO_BIG), int(Reason.NO_NEIGHBOUR)
_SOURCES = LAST_SOURCE - FIRST_SOURCE  # a mask

# template: address of ``overhead`` bytes: Ethernet, a tag perhaps, IP at ``l3``, UDP at ``l4``,
# VXLAN. version: of IP. hop: NEXT_HOP. longest: bytes of the longest frame. sums: is UDP's checksum
# to be made? ident: the last identification; numbered: is there to be one (the packet may be cut on
# its way)? tx: the tunnel's COUNTERS.
WAY, way_at, W = record("way", [
    "template", "overhead", "l3", "l4", "version", "hop", "longest", "sums", "ident", "numbered",
    "tx"])


@kernel
def write_ip(way, head, length, ecn):
    """What differs in the IP header of a packet with ``length`` bytes behind it."""
    w = way_at(way)
    ip = head + w.l3
    if w.version == 4:
        st8(ip + 1, ecn)
        st16be(ip + 2, w.l4 - w.l3 + length)
        if w.numbered != 0:
            st16be(ip + 4, add64(way + W.ident, 1))
        ipv4_checksum(ip, w.l4 - w.l3)
    else:
        st8(ip + 1, ecn << 4)
        st16be(ip + 4, length)


@kernel
def write_udp(way, copy, length, source):
    """What differs in the UDP header of a datagram of ``length`` bytes."""
    w = way_at(way)
    head = ld64(copy + R.head)
    udp = head + w.l4
    st16be(udp, source)
    st16be(udp + 4, length)
    st16(udp + 6, 0)
    if unlikely(w.sums != 0):
        addresses = head + w.l3 + (12 if w.version == 4 else 8)
        pseudo = sum_bytes(addresses, 8 if w.version == 4 else 32) + swapped(UDP) + swapped(length)
        st16(udp + 6, finished(pseudo + sum_row(copy, w.l4, length), True))


@kernel
def wrap(way, row, copy, seg, mac, vni):
    """Make ``copy`` the row's frame with its outer headers, its segments listed from ``seg`` on; ->
    behind the last."""
    w = way_at(way)
    head = ld64(row + R.head)
    ecn = inner_ecn(head, min(ld64(row + R.len), HEAD))
    source = FIRST_SOURCE + (flow_hash(row) & _SOURCES)
    end = insert(row, copy, seg, 0, w.overhead)
    outer = ld64(copy + R.head)
    copy_frame(outer, w.template, w.overhead)
    st16be(outer, mac >> 32)
    st32be(outer + 2, mac)
    put_vxlan(outer + w.overhead - HEADER, vni)
    length = ld64(copy + R.len) - w.l4
    write_ip(way, outer, length, ecn)
    write_udp(way, copy, length, source)
    st64(copy + R.offload, 0)
    return end


@kernel
def wrap_rows(way, batch, selected, n):
    """Make packets to the tunnel's host of n rows, on which nothing is left to do; -> how many.

    They lie in BATCH.copies and stand in ``selected`` instead; they are to leave by the uplink's
    port. What cannot go is counted at the tunnel, and so is what goes.
    """
    w = way_at(way)
    b = batch_at(batch)
    mac = mac_of(w.hop)
    if unlikely(mac == 0):
        count_drops(w.tx, _NO_NEIGHBOUR, n)
        return 0
    copy, seg, vni, longest = b.copies, b.pieces, b.vni, w.longest
    made = 0
    octets = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        length = ld64(row + R.len)
        if likely(length <= longest):
            seg = wrap(way, row, copy, seg, mac, vni)
            st64(selected + 8 * made, copy)
            made += 1
            octets += length
            copy += 64
    count_frames(w.tx, made, octets)
    if made < n:
        count_drops(w.tx, _TOO_BIG, n - made)
    return made
