# SPDX-License-Identifier: Apache-2.0
"""Capture files in the classic pcap format (draft-ietf-opsawg-pcap): read and written.

Used by ports (pcap), byway.testing and the scenario tests. Ethernet only; both byte orders, micro-
and nanoseconds are read; microseconds in native order are written.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAGIC_MICRO, MAGIC_NANO = 0xA1B2C3D4, 0xA1B23C4D
LINKTYPE_ETHERNET = 1
SNAPLEN = 65535
FILE_HEADER, FRAME_HEADER = 24, 16


class PcapError(ValueError):
    """A file that is no capture, or ends in the middle of a frame."""


def read_frames(path: Path) -> Iterator[bytes]:
    """The frames of a capture file, in order.

    PcapError for what is no classic pcap file of Ethernet frames, a frame that was cut when
    captured, or a file that ends early; OSError where the file cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(FILE_HEADER)
        order = _byte_order(path, header)
        linktype = struct.unpack_from(order + "I", header, 20)[0] & 0xFFFF
        if linktype != LINKTYPE_ETHERNET:
            raise PcapError(f"{path}: link type {linktype}; only Ethernet (1) is read")
        number = 0
        while record := file.read(FRAME_HEADER):
            number += 1
            if len(record) < FRAME_HEADER:
                raise PcapError(f"{path}: ends in the header of frame {number}")
            kept, length = struct.unpack_from(order + "II", record, 8)
            if kept > SNAPLEN:
                raise PcapError(f"{path}: frame {number} says it has {kept} bytes")
            frame = file.read(kept)
            if len(frame) < kept:
                raise PcapError(f"{path}: ends in frame {number}")
            if kept < length:
                raise PcapError(f"{path}: frame {number} was cut to {kept} of {length} bytes")
            yield frame


def _byte_order(path: Path, header: bytes) -> str:
    if len(header) == FILE_HEADER:
        for order in "<>":
            if struct.unpack_from(order + "I", header)[0] in (MAGIC_MICRO, MAGIC_NANO):
                return order
    raise PcapError(f"{path}: not a classic pcap file (of pcapng, "
                    "`tcpdump -r FILE -w OTHER` makes one)")


def write_header(file: BinaryIO) -> None:
    """Begin a capture file."""
    file.write(struct.pack("=IHHiIII", MAGIC_MICRO, 2, 4, 0, 0, SNAPLEN, LINKTYPE_ETHERNET))


def write_frame(file: BinaryIO, frame: bytes, when: float) -> None:
    """Append one frame seen at ``when`` (seconds since 1970)."""
    seconds = int(when)
    micro = int((when - seconds) * 1e6)
    file.write(struct.pack("=IIII", seconds, micro, len(frame), len(frame)) + frame)
