# SPDX-License-Identifier: Apache-2.0
"""What changes the shape of a frame: tags, lengths, whole headers. Kernels.

Used by fields.py (which names them; nf/frame.py says what each does, nf/reshape.py is the plain
form) and payload_kernels.py; uses packet.reshape.

Theory of operation
-------------------
A frame is its private head and the rest, which lies where its sender left it. Bytes that are taken
out of the head are made up for from the rest, in place. Bytes that are put in push others out of
the head: those go in front of the rest, which must be ours for that. So the whole frame is copied
to a place of BATCH.payloads then (``own``), once, with FRONT bytes of room before it. A frame that
lies in segments is copied as well before anything is done with it: other rows may have the same
list of segments. A frame that fits into a head needs none of this.

Each of these checks all that it relies on but the word ``frame``, which must be that of the frame
as it is now. What is left to do on the frame (R.offload) moves along; whoever ran functions that
use this checks it again (packet.offload).
"""

from byway.functions.frame_kernels import unproven
from byway.functions.parse_kernels import (
    HAS_ETHERNET,
    HAS_PORTS,
    HAS_VLAN,
    IS_IPV4,
    IS_IPV6,
    OUT,
    OUT_BIT,
    sum_of,
)
from byway.functions.sum_kernels import adjust_transport, taken
from byway.machine.copying import copy_frame
from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import ld16be, ld64, memzero, st16be, st64
from byway.packet.batch import (
    BUFFER,
    HEAD,
    MAX_FRAME,
    MIN_FRAME,
    ROOM,
    ROWS,
    B,
    R,
    batch_at,
    copy_whole,
)
from byway.packet.layers import IPV6, VLAN, l3_of, l4_of
from byway.packet.offload import (
    GSO_TCPV4,
    GSO_TCPV6,
    NEEDS_CSUM,
    word_csum_start,
    word_gso,
    word_gso_size,
)
from byway.packet.reshape import moved_offload, strip
from byway.packet.unfinished import left_undone

FRONT = 192  # bytes that a copied frame may grow by at its headers
MAX_GROWTH = 64  # of a header, in one go
_TAG = 4
_TYPE = 12  # where a tag stands
assert FRONT + MAX_FRAME <= BUFFER


# ---------------------------------------------------------------- a copy of its own
@formula
def first_place(batch, frame):
    """-> the address of the places for frames that go the same way."""
    return ld64(batch + B.payloads) + ROWS * BUFFER * (frame >> OUT_BIT & 1)


@kernel
def is_own(row, frame, batch):
    """Does the whole frame lie in a place of its own?"""
    behind = ld64(row + R.addr) - first_place(batch, frame)
    return ld64(row + R.nsegs) == 0 and behind >= 0 and behind < ROWS * BUFFER


@kernel
def own(row, frame, batch):
    """Have the whole frame in a place of its own; -> False where there is none left."""
    if is_own(row, frame, batch):
        return True
    b = batch_at(batch)
    first = ROWS if frame & OUT != 0 else 0
    k = max(b.npayloads, first)
    if k >= first + ROWS or ld64(row + R.len) > MAX_FRAME:
        return False
    b.npayloads = k + 1
    at = b.payloads + BUFFER * k + FRONT
    copy_whole(row, at)
    st64(row + R.addr, at)
    st64(row + R.nsegs, 0)
    return True


@kernel
def offset_of(row, frame, batch):
    """How far from its place's beginning a frame of its own begins."""
    return (ld64(row + R.addr) - first_place(batch, frame)) % BUFFER


@kernel
def has_front(row, frame, batch, n):
    """Have the frame in a place of its own with room for n bytes before it; -> is it so?"""
    return own(row, frame, batch) and offset_of(row, frame, batch) >= n


@kernel
def in_one_piece(row, frame, batch):
    """Have the frame in no segments; -> False where that is not possible."""
    if ld64(row + R.nsegs) == 0:
        return True
    if ld64(row + R.len) > HEAD:
        return own(row, frame, batch)
    st64(row + R.nsegs, 0)
    return True


@kernel
def tears(row, end):
    """Is the frame to be cut, by headers that begin in front of ``end``?"""
    word = ld64(row + R.offload)
    return word_gso(word) != 0 and word_csum_start(word) < end


@kernel
def shrink(row, frame, batch, at, n):
    """Take n bytes at ``at`` out (at + n <= HEAD, and not behind the end); -> was it done?"""
    if not in_one_piece(row, frame, batch):
        return False
    strip(row, at, n)
    return True


@kernel
def grow(row, frame, batch, at, n):
    """Put n bytes of 0 in at ``at`` (not behind the end); -> was it done?"""
    head = ld64(row + R.head)
    length = ld64(row + R.len)
    if at + n > HEAD or length + n > MAX_FRAME or not in_one_piece(row, frame, batch):
        return False
    if length + n > HEAD:
        if not has_front(row, frame, batch, n):
            return False
        rest = ld64(row + R.addr)
        left = min(length, HEAD) - (HEAD - n)  # bytes that leave the head
        copy_frame(rest + HEAD - n, head + HEAD - n, left)
        st64(row + R.addr, rest - n)
    moving = min(length, HEAD - n) - at
    if moving > 0:
        copy_frame(head - ROOM, head + at, moving)
        copy_frame(head + at + n, head - ROOM, moving)
    memzero(head + at, n)
    st64(row + R.len, length + n)
    st64(row + R.offload, moved_offload(ld64(row + R.offload), at, n))
    return True


@kernel
def packet_end(row, frame):
    """Where the IP packet ends; the frame's end where it is not IP, is to be cut, or has a length
    that cannot be."""
    length = ld64(row + R.len)
    ip = ld64(row + R.head) + l3_of(frame)
    end = 0
    if frame & IS_IPV4 != 0:
        end = l3_of(frame) + ld16be(ip + 2)
    elif frame & IS_IPV6 != 0 and ld16be(ip + 4) != 0:
        end = l3_of(frame) + 40 + ld16be(ip + 4)
    if end == 0 or end < l4_of(frame) or end > length or word_gso(ld64(row + R.offload)) != 0:
        return length
    return end


# ---------------------------------------------------------------- tags and tunnels
@kernel
def do_push_vlan(row, frame, batch, vlan):
    """-> bool."""
    if ld64(row + R.len) < MIN_FRAME or not grow(row, frame, batch, _TYPE, _TAG):
        return False
    head = ld64(row + R.head)
    st16be(head + _TYPE, VLAN)
    st16be(head + _TYPE + 2, vlan & 0xFFF)
    return True


@kernel
def do_pop_vlan(row, frame, batch):
    """-> bool."""
    return frame & HAS_VLAN != 0 and shrink(row, frame, batch, _TYPE, _TAG)


@kernel
def do_decapsulate(row, frame, batch, n):
    """-> bool."""
    if n <= 0 or n > HEAD or n + MIN_FRAME > ld64(row + R.len) or tears(row, n):
        return False
    if not shrink(row, frame, batch, 0, n):
        return False
    if ld64(row + R.offload) & NEEDS_CSUM == 0:
        word = left_undone(row)
        st64(row + R.offload, word)
        batch_at(batch).offloads |= word
    return True


# ---------------------------------------------------------------- the header behind Ethernet's
@kernel
def take_addresses(row, frame):
    """Take IP's addresses out of TCP's or UDP's checksum."""
    if frame & HAS_PORTS == 0 or sum_of(frame) == 0:
        return
    ip = ld64(row + R.head) + l3_of(frame)
    if frame & IS_IPV4 != 0:
        adjust_transport(row, frame, 0, taken(ip + 12, 8))
    else:
        adjust_transport(row, frame, 0, taken(ip + 8, 32))


@kernel
def regrouped(word, growth, eth_type):
    """The offload word of a frame whose headers grow by some bytes and get another type: segments
    stay as long as they were."""
    size = word_gso_size(word)
    if growth > 0 and size > growth:
        word -= growth << 16
    kind = word_gso(word)
    if eth_type != 0 and (kind == GSO_TCPV4 or kind == GSO_TCPV6):
        word &= ~((GSO_TCPV4 | GSO_TCPV6) << 8)
        word |= (GSO_TCPV6 if eth_type == IPV6 else GSO_TCPV4) << 8
    return word


@kernel
def do_replace_l3(row, frame, batch, n, m, eth_type):
    """-> bool."""
    l3, end = l3_of(frame), packet_end(row, frame)
    if frame & HAS_ETHERNET == 0 or n < 0 or m < 0 or n > HEAD or m > HEAD or m - n > MAX_GROWTH:
        return False
    if l3 + n > min(end, HEAD) or l3 + m > HEAD or tears(row, l3 + n):
        return False
    if end - n + m > MAX_FRAME or not in_one_piece(row, frame, batch):
        return False
    if m > n and end + m - n > HEAD and not has_front(row, frame, batch, m - n):
        return False
    st64(row + R.len, end)
    if l3 + n == l4_of(frame) and m > 0:
        take_addresses(row, frame)
    if m > n:
        grow(row, frame, batch, l3, m - n)
    elif n > m:
        strip(row, l3, n - m)
    head = ld64(row + R.head)
    memzero(head + l3, m)
    if eth_type != 0:
        st16be(head + l3 - 2, eth_type)
    st64(row + R.offload, regrouped(ld64(row + R.offload), m - n, eth_type))
    unproven(row)
    return True
