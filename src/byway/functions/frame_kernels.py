# SPDX-License-Identifier: Apache-2.0
"""What a frame is besides its headers, and its first bytes: kernels.

Used by fields.py (which says what each is); see parse_kernels.py for the word ``frame``.
"""

from byway.functions.parse_kernels import OUT_BIT
from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16be,
    ld32be,
    ld64,
    st8,
    st16be,
    st32be,
    st64,
    unlikely,
)
from byway.packet.batch import HEAD, B, R
from byway.packet.flow import flow_hash
from byway.packet.offload import DATA_VALID, GSO_MASK, NEEDS_CSUM

_PROOF = NEEDS_CSUM | DATA_VALID


@formula
def get_length(row, frame):
    """-> bytes."""
    return ld64(row + R.len)


@formula
def get_port(row, frame, batch):
    """-> number of the port that the frame came from."""
    return ld64(batch + B.origin)


@formula
def get_network(row, frame, batch):
    """-> number of the network."""
    return ld64(batch + B.network)


@formula
def get_vni(row, frame, batch):
    """-> the network's VNI."""
    return ld64(batch + B.vni)


@formula
def get_direction(row, frame):
    """-> 0: in ("rx"), 1: out ("tx")."""
    return frame >> OUT_BIT & 1


@formula
def get_is_gso(row, frame):
    """-> bool."""
    return (ld64(row + R.offload) >> 8 & GSO_MASK) + GSO_MASK >> 7


@kernel
def get_flow_hash(row, frame):
    """-> 63 bits."""
    return flow_hash(row)


# ---------------------------------------------------------------- bytes
@kernel
def unproven(row):
    """Nobody has checked the checksum any more."""
    word = ld64(row + R.offload)
    if unlikely(word & _PROOF == DATA_VALID):
        st64(row + R.offload, word & ~DATA_VALID)


@kernel
def in_head(row, at, size):
    """Are there ``size`` bytes at ``at`` in the frame's head?"""
    return at >= 0 and at <= min(ld64(row + R.len), HEAD) - size


@kernel
def do_u8(row, frame, batch, at):
    """-> 8 bits."""
    return ld8(ld64(row + R.head) + at) if in_head(row, at, 1) else 0


@kernel
def do_u16(row, frame, batch, at):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + at) if in_head(row, at, 2) else 0


@kernel
def do_u32(row, frame, batch, at):
    """-> 32 bits."""
    return ld32be(ld64(row + R.head) + at) if in_head(row, at, 4) else 0


@kernel
def do_set_u8(row, frame, batch, at, value):
    """Set 8 bits; -> 1."""
    if in_head(row, at, 1):
        st8(ld64(row + R.head) + at, value)
        unproven(row)
    return 1


@kernel
def do_set_u16(row, frame, batch, at, value):
    """Set 16 bits; -> 1."""
    if in_head(row, at, 2):
        st16be(ld64(row + R.head) + at, value)
        unproven(row)
    return 1


@kernel
def do_set_u32(row, frame, batch, at, value):
    """Set 32 bits; -> 1."""
    if in_head(row, at, 4):
        st32be(ld64(row + R.head) + at, value)
        unproven(row)
    return 1
