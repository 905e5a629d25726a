# SPDX-License-Identifier: Apache-2.0
"""Frames whose checksum was left undone and that came without a header to say so.

Used by ports whose frames come without a virtio header (AF_XDP); uses layers.py and checksum.py.

Theory of operation
-------------------
Linux hands a frame that stays on the machine from interface to interface without its TCP or UDP
checksum: the field holds only the sum of the pseudo-header (RFC 9293, 3.1; RFC 768), which the
sender's stack stores there for hardware to go on from. So a frame is taken as unfinished where its
field is just that sum.

A finished frame may have the same two bytes there, once in 65536. That does no harm: to complete a
checksum is to sum the segment with the pseudo-header's sum in the field, so the result is the
checksum that the frame has already. What is not told apart is a frame that was damaged before and
has this field by accident: it would be taken for good, as one damaged frame in 65536 is anyway.

Not recognised: checksums of headers inside a tunnel, frames with a routing header (their
destination is another one), fragments (Linux finishes what it cuts), SCTP.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld16, ld16be, ld64, st64
from byway.packet.batch import HEAD, UNDECIDED, R, batch_at
from byway.packet.checksum import folded, sum_bytes, swapped
from byway.packet.layers import (
    TCP,
    UDP,
    is_fragment,
    l3_of,
    l4_of,
    layers,
    protocol_of,
    version_of,
)
from byway.packet.offload import NEEDS_CSUM, TCP_CHECKSUM, UDP_CHECKSUM


@kernel
def pseudo_header(head, found, length):
    """The sum of the pseudo-header of ``length`` bytes behind IP, as it is stored in a frame."""
    l3 = l3_of(found)
    total = swapped(protocol_of(found)) + swapped(length)
    if version_of(found) == 4:
        return folded(total + sum_bytes(head + l3 + 12, 8))
    return folded(total + sum_bytes(head + l3 + 8, 32))


@kernel
def left_undone(row):
    """The offload word of a row whose head was copied: its checksum to be completed, or 0."""
    found = layers(row)
    if found < 0 or version_of(found) == 0 or is_fragment(found):
        return 0
    protocol = protocol_of(found)
    if protocol != TCP and protocol != UDP:
        return 0
    offset = TCP_CHECKSUM if protocol == TCP else UDP_CHECKSUM
    head, l3, l4 = ld64(row + R.head), l3_of(found), l4_of(found)
    n = ld64(row + R.len)
    if l4 + offset + 2 > min(n, HEAD):
        return 0
    end = l3 + ld16be(head + l3 + 2)
    if version_of(found) == 6:
        end = l3 + 40 + ld16be(head + l3 + 4)
    if end > n or end <= l4:
        return 0
    if ld16(head + l4 + offset) != pseudo_header(head, found, end - l4):
        return 0
    return NEEDS_CSUM | l4 << 32 | offset << 48


@kernel
def mark_undone(batch):
    """Set the offload word of each row of a batch, after ``look``, that has a checksum undone."""
    b = batch_at(batch)
    marked = 0
    for k in range(b.n):
        row = b.rows + 64 * k
        if ld64(row + R.out) == UNDECIDED:
            word = left_undone(row)
            st64(row + R.offload, word)
            marked |= word
    b.offloads |= marked
