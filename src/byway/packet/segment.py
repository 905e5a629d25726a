# SPDX-License-Identifier: Apache-2.0
"""Finishing what a frame's sender left to do, where the destination does not take it unfinished.

Used by worker and ports between decide and tx; uses offload.py (the checks) and checksum.py.

    reason = finish_begin(finisher, row, mask)         # 0, or why the frame cannot be finished
    n = finish_next(finisher)                          # rows at FINISHER.selected; 0: that was all

Theory of operation
-------------------
``finish_begin`` copies the whole frame once into the finisher's linear buffer: its private head,
and the rest from the sender's memory, which is not looked at again. So nothing that is summed or
cut can change underneath, and the sender's frame stays as it is for other destinations.

A checksum alone is completed in the linear buffer. A frame to be cut yields its segments in lots of
up to ROWS. A segment's headers are made in its row's head; its payload stays in the linear buffer,
so ``row.addr`` is such that byte HEAD of the segment lies at row.addr + HEAD; what would lie before
that is not there.

Segments of TCP and UDP (USO): own IP length, identification counted up, sequence number, UDP length
and checksum; CWR in the first only, FIN and PSH in the last only. The checksum is derived from what
the sender left in its field, corrected by the change of length: it knows the pseudo-header (a
source route changes the destination in it). To a destination that takes unfinished checksums the
segments go with NEEDS_CSUM. UFO is another thing: one datagram, whose checksum is completed first,
in IP fragments. All headers are repeated in every fragment, IPv4's options as well; in IPv6 the
fragment header is inserted before UDP's, with an identification that others cannot foretell
(RFC 7739).

Limits: a frame of MAX_FRAME bytes, MAX_SEGMENTS segments, headers of HEAD bytes (offload.py checks;
finish_begin checks again, so no row can be wrong). One finisher a worker, one frame at a time.
"""

import secrets

import numpy as np

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import (
    copy64,
    ld8,
    ld16,
    ld16be,
    ld32be,
    ld64,
    st8,
    st16,
    st16be,
    st32be,
    st64,
)
from byway.packet.batch import HEAD, HEAD_STRIDE, MAX_FRAME, ROOM, ROW, ROWS, R, copy_whole
from byway.packet.checksum import complete, finished, folded, ipv4_checksum, sum_bytes, swapped
from byway.packet.flow import mixed
from byway.packet.layers import FRAGMENT, l3_of, l4_of, layers, version_of
from byway.packet.offload import (
    GSO_UDP,
    NEEDS_CSUM,
    TAKES_CSUM,
    UDP_CHECKSUM,
    checked,
    gso_header,
    takes,
    word_csum_offset,
    word_csum_start,
    word_gso,
    word_gso_size,
)
from byway.packet.reason import Reason

_BAD_OFFLOAD = int(Reason.BAD_OFFLOAD)
_FIN_PSH, _CWR = 0x09, 0x80  # bits of byte 13 of a TCP header
_MORE = 0x2000  # IPv4: more fragments follow

# rows: ROWS rows for segments and one more for a frame that goes whole. linear: MAX_FRAME bytes.
# whole: 1 while that frame was not yet listed. What is being cut: ``left`` bytes of payload from
# ``at`` in the linear buffer on; ``size`` in each segment, behind ``header`` bytes; ``number`` of
# them made. l3, l4, version, fragments (UFO): what the frame is. sum: of the pseudo-header without
# the length. csum_offset: of the checksum in the protocol's header. offload: of the segments.
# ident: identification in IP. out: of the row. secret, count: what identifications are made of.
FINISHER, finisher_at, F = record("finisher", [
    "rows", "selected", "linear", "whole", "left", "at", "size", "header", "number", "l3", "l4",
    "version", "fragments", "sum", "csum_offset", "offload", "ident", "out", "secret", "count"])


# ---------------------------------------------------------------- begin
@kernel
def finish_whole(finisher, row, word):
    """Complete the checksum of a frame; it goes in one row."""
    f = finisher_at(finisher)
    whole = f.rows + 64 * ROWS
    n = ld64(row + R.len)
    head = ld64(f.rows + R.head)
    complete(f.linear, word_csum_start(word), word_csum_offset(word), n)
    copy_frame(head, f.linear, min(n, HEAD))
    st64(whole + R.addr, f.linear)
    st64(whole + R.nsegs, 0)
    st64(whole + R.head, head)
    st64(whole + R.offload, 0)
    f.whole = 1


@kernel
def finish_cut(finisher, row, word, mask):
    """Prepare to cut the frame in the linear buffer."""
    f = finisher_at(finisher)
    found = layers(row)
    n = ld64(row + R.len)
    start, offset = word_csum_start(word), word_csum_offset(word)
    f.l3, f.l4, f.version = l3_of(found), l4_of(found), version_of(found)
    f.header = gso_header(row, word, found)
    f.size = word_gso_size(word)
    f.number = 0
    f.offload = 0
    f.csum_offset = offset
    f.out = ld64(row + R.out)
    f.ident = ld16be(f.linear + f.l3 + 4)
    f.fragments = 0
    f.at = f.header
    f.sum = 0
    if word_gso(word) == GSO_UDP:
        complete(f.linear, start, offset, n)
        f.fragments = 1
        f.size &= ~7
        f.at = f.l4
        if f.version == 6:
            f.count += 1
            f.ident = mixed(f.secret, f.count)
    else:
        f.sum = ld16(f.linear + start + offset) + swapped(~(n - start) & 0xFFFF)
        if mask & TAKES_CSUM != 0:
            f.offload = NEEDS_CSUM | start << 32 | offset << 48
    f.left = n - f.at


@kernel
def finish_begin(finisher, row, mask):
    """Take a row whose heads are copied, for a destination that takes ``mask`` (TAKES_*).

    -> 0 and the rows come from ``finish_next``; or a Reason (BAD_OFFLOAD) and none do.
    """
    f = finisher_at(finisher)
    f.whole = 0
    f.left = 0
    word = checked(row)
    if word < 0 or ld64(row + R.len) > MAX_FRAME:
        return _BAD_OFFLOAD
    whole = f.rows + 64 * ROWS
    copy64(whole, row)
    st64(whole + R.offload, word)
    if takes(whole, mask):
        f.whole = 1
    elif word & NEEDS_CSUM == 0:  # its checksum is good: only nothing is to be said of it
        st64(whole + R.offload, 0)
        f.whole = 1
    else:
        copy_whole(row, f.linear)
        if word_gso(word) == 0:
            finish_whole(finisher, row, word)
        else:
            finish_cut(finisher, row, word, mask)
    return 0


# ---------------------------------------------------------------- segments
@kernel
def number_ipv4(f, head, n, last):
    """Length, identification, fragment offset and checksum of a segment with n bytes of payload."""
    ip = head + f.l3
    st16be(ip + 2, f.header + n - f.l3)
    if f.fragments == 0:
        st16be(ip + 4, f.ident + f.number)
    else:
        st16be(ip + 6, (f.at - f.l4) >> 3 | (0 if last else _MORE))
    ipv4_checksum(ip, f.l4 - f.l3)


@kernel
def last_next_header(head, l3, l4):
    """Where the protocol at l4 is named: in IPv6's header or its last extension header."""
    named = l3 + 6
    at = l3 + 40
    while at < l4:
        named = at
        at += 8 * (ld8(head + at + 1) + 1)
    return head + named


@kernel
def number_ipv6(f, head, n, last):
    """Length of a segment with n bytes of payload, and its fragment header (RFC 8200, 4.5)."""
    st16be(head + f.l3 + 4, f.header + n - f.l3 - 40)
    if f.fragments != 0:
        named = last_next_header(head, f.l3, f.l4)
        at = head + f.l4
        st8(at, ld8(named))
        st8(at + 1, 0)
        st16be(at + 2, f.at - f.l4 | (0 if last else 1))  # the offset's unit is 8 bytes, so is ours
        st32be(at + 4, f.ident)
        st8(named, FRAGMENT)


@kernel
def number_transport(f, head, n, last):
    """TCP's sequence number and flags, or UDP's length; and the checksum over n bytes of payload.
    """
    l4 = head + f.l4
    udp = f.csum_offset == UDP_CHECKSUM
    length = f.header - f.l4 + n
    if udp:
        st16be(l4 + 4, length)
    else:
        st32be(l4 + 4, ld32be(l4 + 4) + f.at - f.header)
        flags = ld8(l4 + 13)
        if not last:
            flags &= ~_FIN_PSH
        if f.number > 0:
            flags &= ~_CWR
        st8(l4 + 13, flags)
    field = l4 + f.csum_offset
    st16(field, folded(f.sum + swapped(length)))
    if f.offload == 0:
        total = sum_bytes(l4, f.header - f.l4) + sum_bytes(f.linear + f.at, n)
        st16(field, finished(total, udp))


@kernel
def cut(f, row):
    """Make the next segment in ``row``."""
    n = min(f.left, f.size)
    last = n == f.left
    head = ld64(row + R.head)
    header = f.header
    payload = f.linear + f.at
    copy_frame(head, f.linear, header)
    if header < HEAD:
        copy_frame(head + header, payload, min(n, HEAD - header))
    st64(row + R.addr, payload - header)
    st64(row + R.len, header + n)
    st64(row + R.out, f.out)
    st64(row + R.nsegs, 0)
    st64(row + R.offload, f.offload)
    if f.version == 4:
        number_ipv4(f, head, n, last)
    else:
        number_ipv6(f, head, n, last)
    if f.fragments == 0:
        number_transport(f, head, n, last)
    f.at += n
    f.left -= n
    f.number += 1


@kernel
def being_finished(finisher, row):
    """Is it a row of the finisher's own: all, or a part, of a frame that is being finished?"""
    rows = finisher_at(finisher).rows
    return rows <= row and row <= rows + 64 * ROWS


@kernel
def finish_next(finisher):
    """The next rows of the frame, listed at FINISHER.selected; -> how many (<= ROWS), 0: no more.

    They are there until the next call.
    """
    f = finisher_at(finisher)
    if f.whole != 0:
        f.whole = 0
        st64(f.selected, f.rows + 64 * ROWS)
        return 1
    n = 0
    while n < ROWS and f.left > 0:
        row = f.rows + 64 * n
        cut(f, row)
        st64(f.selected + 8 * n, row)
        n += 1
    return n


class Finisher:
    """The memory of one worker's finisher."""

    def __init__(self) -> None:
        self.record = alloc(FINISHER, 1)
        self.rows = alloc(ROW, ROWS + 1)
        self.selected = alloc(np.dtype("<i8"), ROWS)
        self.heads = alloc(np.dtype("u1"), ROWS * HEAD_STRIDE)
        self.linear = alloc(np.dtype("u1"), MAX_FRAME)
        self.rows["head"][:ROWS] = [
            address_of(self.heads) + ROOM + HEAD_STRIDE * k for k in range(ROWS)]
        self.record["rows"] = address_of(self.rows)
        self.record["selected"] = address_of(self.selected)
        self.record["linear"] = address_of(self.linear)
        self.record["secret"] = secrets.randbits(63)
        self.address = address_of(self.record)
