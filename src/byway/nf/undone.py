# SPDX-License-Identifier: Apache-2.0
"""What the sender of a frame left to do: a checksum to complete, segments to cut. Plain Python.

Used by frame.py and reshape.py; the fields are those of a virtio_net_hdr (VIRTIO 1.2, 5.1.6).
"""

from dataclasses import dataclass, replace

NEEDS_CSUM, DATA_VALID = 1, 2
GSO_TCPV4, GSO_TCPV6 = 1, 4
GSO_ECN = 0x80
_LAST_START = 0xFFFF  # csum_start has 16 bits


@dataclass(frozen=True)
class Undone:
    """All zero: nothing. ``flags``: NEEDS_CSUM, or DATA_VALID (somebody has checked it);
    ``csum_start``: from where on is to be summed, in bytes from the frame's start; ``csum_offset``:
    where the sum goes, from there; ``gso_type``: how it is to be cut; ``gso_size``: into how many
    bytes of payload."""

    flags: int = 0
    gso_type: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0


def moved(undone: Undone, at: int, n: int) -> Undone:
    """The same when the frame grew by ``n`` bytes (shrank, where n < 0) at ``at``; nothing where
    what was to be done has gone with the bytes."""
    if not undone.flags & NEEDS_CSUM:
        return undone
    start = undone.csum_start
    if (n < 0 and start < at - n) or start + n > _LAST_START:
        return Undone()
    return replace(undone, csum_start=start + n)


def tears(undone: Undone, end: int) -> bool:
    """Is the frame to be cut, by headers that begin in front of ``end``?"""
    return undone.gso_type != 0 and undone.csum_start < end
