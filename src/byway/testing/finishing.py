# SPDX-License-Identifier: Apache-2.0
"""Frames with offloads, as bytes, through the kernels that check and finish them.

    with Finishing() as finishing:
        finishing.place(frame, net_header(NEEDS_CSUM, GSO_TCPV4, 1448, 34, 16))
        assert finishing.check()
        frames = finishing.finish(0)         # [(bytes, offload word)]

Used by tests of packet.offload and packet.segment. Compiled or interpreted, as the process is.
"""

import ctypes
import struct

from byway.machine.layout import address_of
from byway.packet.batch import HEAD, MAX_FRAME, UNDECIDED, Batch
from byway.packet.reason import Reason
from byway.testing.guarded import Guarded
from byway.testing.offload_kernels import check, word_of

NEEDS_CSUM, DATA_VALID = 1, 2


def net_header(flags: int = 0, gso_type: int = 0, gso_size: int = 0, csum_start: int = 0,
               csum_offset: int = 0, hdr_len: int = 0) -> bytes:
    """The first 10 bytes of a virtio_net_hdr (VIRTIO 1.2, 5.1.6)."""
    return struct.pack("<BBHHHH", flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)


def word(header: bytes) -> int:
    """The offload word of a virtio_net_hdr."""
    low, csum_offset = struct.unpack_from("<qH", header)
    return int(word_of(low, csum_offset))


class Finishing:
    """A batch of one frame, which lies between forbidden pages."""

    def __init__(self) -> None:
        self.batch = Batch()
        self.memory = Guarded(MAX_FRAME + 64)
        self.row = self.batch.rows[0]
        self.address = address_of(self.batch.rows)
        self.batch.record["n"] = 1

    def close(self) -> None:
        """Unmap the frame's memory. Idempotent."""
        self.memory.close()

    def __enter__(self) -> "Finishing":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def place(self, frame: bytes, header: bytes = bytes(10)) -> None:
        """Put a frame (1 to MAX_FRAME bytes) right before a forbidden page, its head looked at."""
        n, row = len(frame), self.row
        at = self.memory.ending(n)
        ctypes.memmove(at, frame, n)
        ctypes.memmove(int(row["head"]), frame, min(n, HEAD))
        row["addr"], row["len"], row["nsegs"], row["out"] = at, n, 0, UNDECIDED
        row["offload"] = word(header)
        self.batch.record["offloads"] = row["offload"]

    def check(self) -> Reason | None:
        """Hold the offload word against the frame; -> why the frame was dropped, None if not."""
        check(self.batch.address)
        out = int(self.row["out"])
        return None if out == UNDECIDED else Reason(-1 - out)
