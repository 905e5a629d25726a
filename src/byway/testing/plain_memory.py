# SPDX-License-Identifier: Apache-2.0
"""A guest's memory for the plain drivers, and how they lay buffers out in it.

    memory = PlainMemory([(0x100000, address, size)])         # (guest address, host address, bytes)
    gpa = memory.take(1526)
    Layout((12, 20), direct=1).sizes(72)                      # -> [12, 20, 40]

Used by plain_queue.py and what stands on it; only ctypes.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass


class PlainMemory:
    """Guest memory: regions of (guest address, host address, size); a simple allocator over it."""

    def __init__(self, regions: Sequence[tuple[int, int, int]]) -> None:
        self.regions = sorted(regions)
        self._next = [gpa for gpa, _, _ in self.regions]

    def _pieces(self, gpa: int, n: int) -> list[tuple[int, int]]:
        """Host (address, bytes) of guest [gpa, gpa + n), which may span adjacent regions."""
        pieces = []
        for start, host, size in self.regions:
            if n > 0 and start <= gpa < start + size:
                piece = min(n, start + size - gpa)
                pieces.append((host + gpa - start, piece))
                gpa, n = gpa + piece, n - piece
        if n > 0:
            raise ValueError(f"{n} bytes at guest address {gpa:#x} are in no region")
        return pieces

    def read(self, gpa: int, n: int) -> bytes:
        """n bytes at a guest address (ValueError: not memory)."""
        return b"".join(ctypes.string_at(a, piece) for a, piece in self._pieces(gpa, n))

    def write(self, gpa: int, data: bytes) -> None:
        """Put bytes at a guest address (ValueError: not memory)."""
        for address, piece in self._pieces(gpa, len(data)):
            ctypes.memmove(address, data[:piece], piece)
            data = data[piece:]

    def host(self, gpa: int) -> int:
        """The host address of a guest address."""
        return self._pieces(gpa, 1)[0][0]

    def take(self, n: int, align: int = 1, region: int = 0) -> int:
        """A guest address of n bytes that nobody had before (MemoryError: the region is full).

        The last piece of a region runs on into the next one, if that is adjacent and untouched.
        """
        start, _, size = self.regions[region]
        gpa = -(-self._next[region] // align) * align
        after = region + 1
        if gpa + n <= start + size:
            self._next[region] = gpa + n
        elif (after < len(self.regions) and self._next[after] == start + size
                and gpa + n <= start + size + self.regions[after][2]):
            self._next[region], self._next[after] = start + size, gpa + n
        else:
            raise MemoryError(f"no {n} bytes left in region {region}")
        return gpa


@dataclass(frozen=True)
class Layout:
    """How a buffer is cut: piece sizes (the rest is one more piece), and how they are listed.

    ``direct``: None for a chain of direct descriptors; k for k direct ones followed by one
    indirect descriptor whose table holds the others (a packed ring cannot mix them: there any k
    puts all into the table). ``gap``: bytes left free behind each piece, so that no two of them
    are neighbours.
    """

    cuts: tuple[int, ...] = ()
    direct: int | None = None
    gap: int = 0

    def sizes(self, total: int) -> list[int]:
        """Sizes of the pieces of a buffer of ``total`` bytes; at least one piece."""
        made = []
        for cut in self.cuts:
            if cut < total:
                made.append(cut)
                total -= cut
        return [*made, total]
