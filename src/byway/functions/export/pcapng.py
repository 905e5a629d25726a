# SPDX-License-Identifier: Apache-2.0
"""Capture files in the pcapng format (draft-ietf-opsawg-pcapng), written.

Used by the listener of byway.tap. Uses nothing.

A file is a section: its header, a description of each interface (here: of each port that frames
came in on, when the first one does), and a block for each frame. Numbers are in this machine's byte
order, times in nanoseconds, and frames have a direction.
"""

import struct
from typing import BinaryIO, Literal, TypeAlias

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6  # block types (4.1, 4.2, 4.3)
BYTE_ORDER = 0x1A2B3C4D
ETHERNET = 1  # link type
END_OF_OPTIONS, IF_NAME, IF_TSRESOL, EPB_FLAGS, SHB_USERAPPL = 0, 2, 9, 2, 4
NANOSECONDS = 9  # if_tsresol: times count 10 ** -9 seconds
Direction: TypeAlias = Literal["", "in", "out"]
_DIRECTIONS: dict[Direction, int] = {"": 0, "in": 1, "out": 2}  # epb_flags, bits 0 and 1


class Writer:
    """A capture that grows. ``snaplen``: bytes that are kept of a frame, 0: all. OSError where the
    file cannot be written."""

    def __init__(self, file: BinaryIO, program: str = "byway", snaplen: int = 0) -> None:
        self._file = file
        self._snaplen = snaplen
        self._interfaces: dict[str, int] = {}
        self._block(SECTION, struct.pack("=IHHq", BYTE_ORDER, 1, 0, -1)
                    + _options((SHB_USERAPPL, program.encode())))

    def frame(self, port: str, frame: bytes, when: int, *, length: int | None = None,
              direction: Direction = "") -> None:
        """Append the frame that ``port`` had at ``when`` (nanoseconds since 1970). ``length``: how
        long it was, where ``frame`` is only its beginning."""
        kept = frame[:self._snaplen] if self._snaplen else frame
        options = b""
        if direction:
            options = _options((EPB_FLAGS, struct.pack("=I", _DIRECTIONS[direction])))
        self._block(PACKET, struct.pack(
            "=IIIII", self._interface(port), when >> 32 & 0xFFFFFFFF, when & 0xFFFFFFFF,
            len(kept), len(frame) if length is None else length) + _padded(kept) + options)

    def _interface(self, port: str) -> int:
        if port not in self._interfaces:
            self._interfaces[port] = len(self._interfaces)
            self._block(INTERFACE, struct.pack("=HHI", ETHERNET, 0, self._snaplen) + _options(
                (IF_NAME, port.encode()), (IF_TSRESOL, bytes([NANOSECONDS]))))
        return self._interfaces[port]

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("=I", 12 + len(body))
        self._file.write(struct.pack("=I", kind) + length + body + length)


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


def _options(*options: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("=HH", code, len(value)) + _padded(value)
                    for code, value in options)
    return body + struct.pack("=HH", END_OF_OPTIONS, 0)
