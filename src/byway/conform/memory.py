# SPDX-License-Identifier: Apache-2.0
"""A guest's memory in plain Python: shared files, read and written by guest address.

Used by the sessions of both directions. Guest addresses and user addresses differ, and neither is
an address of this process, so that a peer which mixes them up is found out.

Whether a peer still maps a file can be seen from outside: the kernel refuses the seal F_SEAL_WRITE
while anybody has a writable shared mapping of it (fcntl(2), "File Sealing").
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from byway.conform.outcome import Failed
from byway.vhost.payloads import MemoryRegion

GUEST, USER = 1 << 30, 0x7A00_0000_0000
AREA = 16 << 20  # bytes of an ordinary area; only what is touched takes memory
F_ADD_SEALS, F_SEAL_WRITE = 1033, 0x8
PAGE = 4096  # what a bit of the dirty log stands for


class Area:
    """``size`` bytes of shared memory at guest address ``gpa``, from ``offset`` of a file."""

    def __init__(self, size: int, gpa: int, user: int, offset: int = 0) -> None:
        self.size, self.gpa, self.user, self.offset = size, gpa, user, offset
        self.fd = os.memfd_create("byway-conform", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size + offset)
        self.map = mmap.mmap(self.fd, size + offset)

    @property
    def region(self) -> MemoryRegion:
        """The area as a memory table describes it."""
        return MemoryRegion(self.gpa, self.size, self.user, self.offset)

    def released(self, seconds: float) -> bool:
        """Whether nobody but us maps the file any more, within so many seconds.

        Our own mapping ends here: the area cannot be used afterwards.
        """
        self.map.close()
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.fcntl(self.fd, F_ADD_SEALS, F_SEAL_WRITE)
                return True
            except OSError:
                if time.monotonic() > end:
                    return False
                time.sleep(0.002)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self.map.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class GuestMemory:
    """Areas, and a simple allocator over them: nothing is ever given twice."""

    def __init__(self, areas: Sequence[Area]) -> None:
        self.areas = list(areas)
        self._next = {area.gpa: area.gpa for area in areas}

    @classmethod
    def make(cls, count: int = 1, size: int = AREA, offset: int = 0) -> "GuestMemory":
        """``count`` neighbouring areas of ``size`` bytes each."""
        return cls([Area(size, GUEST + k * size, USER + (count - k) * 2 * size, offset)
                    for k in range(count)])

    def _pieces(self, gpa: int, n: int) -> Iterator[tuple[Area, int, int]]:
        """(area, place in its mapping, bytes) of guest [gpa, gpa + n)."""
        while n > 0:
            area = next((a for a in self.areas if a.gpa <= gpa < a.gpa + a.size), None)
            if area is None:
                raise Failed(f"guest address {gpa:#x} is in no memory region")
            piece = min(n, area.gpa + area.size - gpa)
            yield area, area.offset + gpa - area.gpa, piece
            gpa, n = gpa + piece, n - piece

    def read(self, gpa: int, n: int) -> bytes:
        """n bytes at a guest address."""
        return b"".join(area.map[at : at + piece] for area, at, piece in self._pieces(gpa, n))

    def write(self, gpa: int, data: bytes) -> None:
        """Put bytes at a guest address."""
        for area, at, piece in self._pieces(gpa, len(data)):
            area.map[at : at + piece] = data[:piece]
            data = data[piece:]

    def get16(self, gpa: int) -> int:
        """The 16-bit word at a guest address."""
        return int.from_bytes(self.read(gpa, 2), "little")

    def put16(self, gpa: int, value: int) -> None:
        """Store a 16-bit word."""
        self.write(gpa, struct.pack("<H", value & 0xFFFF))

    def take(self, n: int, align: int = 16, area: int = 0) -> int:
        """A guest address of n bytes that nobody had before."""
        place = self.areas[area]
        gpa = -(-self._next[place.gpa] // align) * align
        if gpa + n > place.gpa + place.size:
            raise Failed(f"the tester's memory is used up ({n} bytes wanted)")
        self._next[place.gpa] = gpa + n
        return gpa

    def left(self, area: int = 0) -> int:
        """Bytes that nobody had yet."""
        place = self.areas[area]
        return place.gpa + place.size - self._next[place.gpa]

    def across(self, n: int, left: int, area: int = 0) -> int:
        """A guest address of n bytes, ``left`` of them at the end of one."""
        place, after = self.areas[area], self.areas[area + 1]
        gpa = place.gpa + place.size - left
        if self._next[place.gpa] > gpa or gpa + n > after.gpa + after.size:
            raise Failed("no room at the border of two regions")
        self._next[place.gpa] = place.gpa + place.size
        self._next[after.gpa] = max(self._next[after.gpa], gpa + n)
        return gpa

    def user(self, gpa: int) -> int:
        """The user address of a guest address."""
        for area in self.areas:
            if area.gpa <= gpa < area.gpa + area.size:
                return area.user + gpa - area.gpa
        raise Failed(f"guest address {gpa:#x} is in no memory region")

    def gpa_of_user(self, user: int) -> int:
        """The guest address of a user address."""
        for area in self.areas:
            if area.user <= user < area.user + area.size:
                return area.gpa + user - area.user
        raise Failed(f"user address {user:#x} is in no memory region")

    def close(self) -> None:
        """Let go of all areas. Idempotent."""
        for area in self.areas:
            area.close()


class LoggedMemory(GuestMemory):
    """Guest memory whose writes are logged, one bit a page, while ``log`` is there."""

    log: mmap.mmap | None = None
    logging = False

    def write(self, gpa: int, data: bytes) -> None:
        """Put bytes at a guest address, and say which pages."""
        super().write(gpa, data)
        if self.log is not None and self.logging and data:
            for page in range(gpa // PAGE, (gpa + len(data) - 1) // PAGE + 1):
                if page // 8 < len(self.log):
                    self.log[page // 8] |= 1 << page % 8


@contextmanager
def memory(count: int = 1, size: int = AREA, offset: int = 0) -> Iterator[GuestMemory]:
    """Guest memory for the length of a block."""
    made = GuestMemory.make(count, size, offset)
    try:
        yield made
    finally:
        made.close()
