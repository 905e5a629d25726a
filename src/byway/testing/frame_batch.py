# SPDX-License-Identifier: Apache-2.0
"""A batch as Python fills and reads it: frames as bytes, with what their sender left to do.

    batch = FrameBatch()
    n = batch.place([frame, (Unfinished(flags=1, csum_start=34, csum_offset=6), other)])
    guest_send(queue, batch.address, batch.selected, n)

Used by byway.testing.guest and by tests of drivers.
"""

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from byway.machine.layout import address_of
from byway.packet.batch import FLOOD, HEAD, ROWS, SEGMENT, UNDECIDED, Batch
from byway.packet.reason import Reason

MAX_PIECES = 16


@dataclass(frozen=True)
class Unfinished:
    """What is left to do for a frame: the fields of its virtio_net_hdr (VIRTIO 1.2, 5.1.6).

    All zero: nothing. The header's length is not kept (see packet.offload).
    """

    flags: int = 0
    gso_type: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    @property
    def word(self) -> int:
        """As an offload word of packet.offload."""
        widths = (8, 8, 16, 16, 8)
        if any(value >> width for value, width in zip(astuple(self), widths, strict=True)):
            raise ValueError(f"{self}: a field is too large")
        return (self.flags | self.gso_type << 8 | self.gso_size << 16 | self.csum_start << 32
                | self.csum_offset << 48)

    @classmethod
    def of(cls, word: int) -> "Unfinished":
        """From an offload word."""
        return cls(word & 0xFF, word >> 8 & 0xFF, word >> 16 & 0xFFFF, word >> 32 & 0xFFFF,
                   word >> 48 & 0xFF)


FINISHED = Unfinished()
Frame = bytes | tuple[Unfinished, bytes]


class FrameBatch:
    """One batch, filled by ``place`` or by a driver's receive kernel.

    ``address``: of the BATCH record; ``selected``: address of the list of rows placed, ``chosen``;
    ``segments``: those of rows that lie in pieces.
    """

    def __init__(self) -> None:
        self.batch = Batch()
        self.address = self.batch.address
        self.chosen = np.zeros(ROWS, np.int64)
        self.selected = address_of(self.chosen)
        self.segments = np.zeros((ROWS, MAX_PIECES, 2), np.int64)
        self._placed: list[Any] = []  # keeps the frames' memory

    def place(self, frames: Sequence[Frame], pieces: Sequence[int] = (1,)) -> int:
        """Fill the rows with at most ROWS frames, heads copied, all selected; -> how many.

        ``pieces``: in how many segments the frames lie in turn (1 to 16 each).
        """
        rows = self.batch.rows
        self._placed = []
        left = 0
        for k, given in enumerate(frames):
            todo, frame = (FINISHED, given) if isinstance(given, bytes) else given
            octets = np.frombuffer(frame, np.uint8)
            self._placed.append(octets)
            row, start = rows[k], address_of(octets)
            row["addr"], row["len"], row["out"] = start, len(frame), FLOOD
            row["offload"] = todo.word
            left |= todo.word
            ctypes.memmove(int(row["head"]), frame[:HEAD], min(len(frame), HEAD))
            self._cut(k, start, len(frame), pieces[k % len(pieces)])
            self.chosen[k] = address_of(rows) + rows.itemsize * k
        self.batch.record["n"], self.batch.record["offloads"] = len(frames), left
        return len(frames)

    def _cut(self, k: int, start: int, n: int, pieces: int) -> None:
        row = self.batch.rows[k]
        row["nsegs"] = 0 if pieces == 1 else pieces
        row["segs"] = address_of(self.segments[k])
        for j in range(pieces):
            cut, end = n * j // pieces, n * (j + 1) // pieces
            self.segments[k, j] = start + cut, end - cut

    def sources(self) -> list[tuple[int, int]]:
        """Where the frames last placed lie: (address, bytes)."""
        return [(address_of(octets), len(octets)) for octets in self._placed]

    def content(self, n: int) -> list[tuple[Unfinished, bytes] | Reason]:
        """The frames of the first n rows, or why each was dropped."""
        return [self._content(row) for row in self.batch.rows[:n]]

    def _content(self, row: Any) -> tuple[Unfinished, bytes] | Reason:
        if row["out"] != UNDECIDED:
            return next(reason for reason in Reason if reason == -1 - int(row["out"]))
        todo = Unfinished.of(int(row["offload"]))
        if not row["nsegs"]:
            return todo, ctypes.string_at(int(row["addr"]), int(row["len"]))
        listed = ctypes.string_at(int(row["segs"]), SEGMENT * int(row["nsegs"]))
        return todo, b"".join(
            ctypes.string_at(a, size) for a, size in struct.iter_unpack("=qq", listed))
