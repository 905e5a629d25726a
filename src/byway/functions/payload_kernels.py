# SPDX-License-Identifier: Apache-2.0
"""``frame.payload``: the bytes behind the transport's header, wherever they lie. Kernels.

Used by fields.py (which names them; nf/payload.py is the plain form). What lies in the frame's head
is read there. For what lies behind it the whole frame is copied to a place of its own first, so its
sender cannot change it between two looks.
"""

from byway.functions.frame_kernels import unproven
from byway.functions.shape_kernels import own, packet_end
from byway.functions.transport_kernels import get_payload_offset
from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld16be, ld32be, ld64, st8, st16be, st32be
from byway.packet.batch import HEAD, R


@kernel
def do_payload_length(row, frame, batch):
    """-> bytes."""
    return max(packet_end(row, frame) - get_payload_offset(row, frame), 0)


@kernel
def offset_in(row, frame, at, size):
    """-> where byte number ``at`` stands in the frame; -1 where it has not ``size`` bytes there."""
    first = get_payload_offset(row, frame)
    if at < 0 or at > packet_end(row, frame) - first - size:
        return -1
    return first + at


@kernel
def address_in(row, frame, batch, offset):
    """-> the address of the frame's byte at ``offset``, in private memory; 0 where there is none.
    """
    if offset < HEAD:
        return ld64(row + R.head) + offset
    return ld64(row + R.addr) + offset if own(row, frame, batch) else 0


@kernel
def do_payload_u8(row, frame, batch, at):
    """-> 8 bits."""
    offset = offset_in(row, frame, at, 1)
    address = address_in(row, frame, batch, offset) if offset >= 0 else 0
    return ld8(address) if address != 0 else 0


@kernel
def crosses(offset, size):
    """Do ``size`` bytes lie partly in the head?"""
    return offset < HEAD and offset + size > HEAD


@kernel
def do_payload_u16(row, frame, batch, at):
    """-> 16 bits."""
    offset = offset_in(row, frame, at, 2)
    if offset < 0:
        return 0
    if crosses(offset, 2):
        return do_payload_u8(row, frame, batch, at) << 8 | do_payload_u8(row, frame, batch, at + 1)
    address = address_in(row, frame, batch, offset)
    return ld16be(address) if address != 0 else 0


@kernel
def do_payload_u32(row, frame, batch, at):
    """-> 32 bits."""
    offset = offset_in(row, frame, at, 4)
    if offset < 0:
        return 0
    if crosses(offset, 4):
        value = 0
        for k in range(4):
            value = value << 8 | do_payload_u8(row, frame, batch, at + k)
        return value
    address = address_in(row, frame, batch, offset)
    return ld32be(address) if address != 0 else 0


@kernel
def do_payload_set_u8(row, frame, batch, at, value):
    """Set 8 bits; -> 1."""
    offset = offset_in(row, frame, at, 1)
    address = address_in(row, frame, batch, offset) if offset >= 0 else 0
    if address != 0:
        st8(address, value)
        unproven(row)
    return 1


@kernel
def do_payload_set_u16(row, frame, batch, at, value):
    """Set 16 bits; -> 1."""
    offset = offset_in(row, frame, at, 2)
    if offset < 0:
        return 1
    if crosses(offset, 2):
        do_payload_set_u8(row, frame, batch, at, value >> 8)
        return do_payload_set_u8(row, frame, batch, at + 1, value)
    address = address_in(row, frame, batch, offset)
    if address != 0:
        st16be(address, value)
        unproven(row)
    return 1


@kernel
def do_payload_set_u32(row, frame, batch, at, value):
    """Set 32 bits; -> 1."""
    offset = offset_in(row, frame, at, 4)
    if offset < 0:
        return 1
    if crosses(offset, 4):
        for k in range(4):
            do_payload_set_u8(row, frame, batch, at + k, value >> 8 * (3 - k))
        return 1
    address = address_in(row, frame, batch, offset)
    if address != 0:
        st32be(address, value)
        unproven(row)
    return 1
