# SPDX-License-Identifier: Apache-2.0
"""Frames with offloads, as bytes, through the kernels that check and finish them.

    with Finishing() as finishing:
        finishing.place(frame, net_header(1, GSO_TCPV4, 1448, 34, 16))
        assert finishing.check() is None
        frames = finishing.finish(0)         # [(bytes, offload word)]

Used by tests of packet.offload and packet.segment. Compiled or interpreted, as the process is.
"""

import ctypes
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.batch import HEAD, HEAD_STRIDE, MAX_FRAME, ROWS, SEGMENT, UNDECIDED, Batch
from byway.packet.reason import Reason
from byway.packet.segment import Finisher
from byway.testing.arena import Arena
from byway.testing.guarded import Guarded
from byway.testing.offload_kernels import begin, check, following, word_of

PIECES = 16


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
        self.finisher = Finisher()
        self._segments = alloc(np.dtype("<i8"), 2 * PIECES)

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

    def cut(self, pieces: int) -> None:
        """Let the frame that was placed lie in 2 to PIECES segments, as a chain's buffers do."""
        row, n = self.row, int(self.row["len"])
        for k in range(pieces):
            start, end = n * k // pieces, n * (k + 1) // pieces
            self._segments[2 * k] = int(row["addr"]) + start
            self._segments[2 * k + 1] = end - start
        row["segs"], row["nsegs"] = address_of(self._segments), pieces

    def check(self) -> Reason | None:
        """Hold the offload word against the frame; -> why the frame was dropped, None if not."""
        check(self.batch.address)
        out = int(self.row["out"])
        return None if out == UNDECIDED else Reason(-1 - out)

    def finish(self, mask: int) -> "list[tuple[bytes, int]] | Reason":
        """The frames for a destination that takes ``mask``, each with its offload word; or why it
        cannot be finished."""
        return self.begin(mask) or [made for lot in self.lots() for made in lot]

    def begin(self, mask: int) -> Reason | None:
        """The first step of ``finish``."""
        reason = int(begin(self.finisher.address, self.address, mask))
        return Reason(reason) if reason else None

    def lots(self) -> Iterator[list[tuple[bytes, int]]]:
        """The frames in lots, as the kernel yields them."""
        rows, first = self.finisher.rows, address_of(self.finisher.rows)
        while n := int(following(self.finisher.address)):
            listed = [(int(a) - first) // rows.itemsize for a in self.finisher.selected[:n]]
            yield [(content(rows[k]), int(rows[k]["offload"])) for k in listed]

    def allow(self, arena: Arena) -> None:
        """Name to an Arena what kernels may touch: the frame as shared, the rest as private."""
        finisher = self.finisher
        for name, array in (
                ("rows", self.batch.rows), ("batch", self.batch.record),
                ("segments", self._segments), ("finisher", finisher.record),
                ("finisher's rows", finisher.rows), ("selected", finisher.selected),
                ("finisher's heads", finisher.heads), ("linear buffer", finisher.linear)):
            arena.allow_array(name, array)
        arena.allow("heads", int(self.batch.record["heads"][0]), ROWS * HEAD_STRIDE)
        n = int(self.row["len"])
        arena.allow("frame", self.memory.ending(n), n, shared=True, writable=False)


def content(row: Any) -> bytes:
    """A row's frame: its first HEAD bytes from the head, the rest from where it lies."""
    n, nsegs = int(row["len"]), int(row["nsegs"])
    head = ctypes.string_at(int(row["head"]), min(n, HEAD))
    if n <= HEAD:
        return head
    if nsegs == 0:
        return head + ctypes.string_at(int(row["addr"]) + HEAD, n - HEAD)
    listed = ctypes.string_at(int(row["segs"]), SEGMENT * nsegs)
    whole = b"".join(ctypes.string_at(a, size) for a, size in struct.iter_unpack("=qq", listed))
    return head + whole[HEAD:]
