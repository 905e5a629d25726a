# SPDX-License-Identifier: Apache-2.0
"""``frame.payload``: what TCP, UDP or ICMP holds, in plain Python. Used by frame.py."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byway.nf.frame import Frame


def packet_end(frame: "Frame") -> int:
    """Where the IP packet ends, in bytes from the frame's start; what is behind it is padding. The
    frame's end where it is not IP, is to be cut, or has a length that cannot be."""
    found, length = frame.layers, frame.length
    if found.version == 4:
        end = found.l3 + frame.ipv4_length
    elif found.version == 6 and frame.number(found.l3 + 4, 2):
        end = found.l3 + 40 + frame.number(found.l3 + 4, 2)
    else:
        return length
    return end if found.l4 <= end <= length and not frame.is_gso else length


class Payload:
    """The bytes behind the transport's header: numbered from 0, without the frame's padding."""

    def __init__(self, frame: "Frame") -> None:
        self._frame = frame

    @property
    def length(self) -> int:
        """How many there are."""
        return max(packet_end(self._frame) - self._frame.payload_offset, 0)

    def __bytes__(self) -> bytes:
        """All of them."""
        begin = self._frame.payload_offset
        return bytes(self._frame.data[begin : begin + self.length])

    def u8(self, at: int) -> int:
        """The byte number ``at``; 0 where there is none."""
        return self._at(at, 1)

    def u16(self, at: int) -> int:
        """Two bytes, network byte order; 0 where there are not so many."""
        return self._at(at, 2)

    def u32(self, at: int) -> int:
        """Four bytes, network byte order; 0 where there are not so many."""
        return self._at(at, 4)

    def set_u8(self, at: int, value: int) -> None:
        """Set a byte, where there is one. No checksum is kept: see ``frame.fix``."""
        self._set(at, 1, value)

    def set_u16(self, at: int, value: int) -> None:
        """Set two bytes, network byte order; as ``set_u8``."""
        self._set(at, 2, value)

    def set_u32(self, at: int, value: int) -> None:
        """Set four bytes, network byte order; as ``set_u8``."""
        self._set(at, 4, value)

    def _at(self, at: int, size: int) -> int:
        if not 0 <= at <= self.length - size:
            return 0
        return self._frame.number(self._frame.payload_offset + at, size)

    def _set(self, at: int, size: int, value: int) -> None:
        if not 0 <= at <= self.length - size:
            return
        start = self._frame.payload_offset + at
        new = (int(value) & (1 << 8 * size) - 1).to_bytes(size, "big")
        self._frame.data[start : start + size] = new
        self._frame.unproven()
