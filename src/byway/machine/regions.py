# SPDX-License-Identifier: Apache-2.0
"""Shared memory regions: memfd or hugetlb memory, made here or mapped from somebody else's fd.

Used by vhost (guest memory), virtio-user ports and byway.testing (their own memory).
"""

import ctypes
import fcntl
import mmap
import os
from typing import Any

import numpy as np

F_ADD_SEALS, F_SEAL_SEAL, F_SEAL_SHRINK = 1033, 0x1, 0x2
MADV_DONTDUMP = 16
HUGE_PAGE = 2 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                       ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


class Region:
    """``size`` bytes of shared memory at host address ``address``, until ``close()``.

    ``fd`` is the memory's file where this object made it, else -1.
    """

    def __init__(self, fd: int, owned: bool, size: int, offset: int) -> None:
        # From file offset 0: hugetlb files refuse offsets that are no multiple of their page.
        page = max(mmap.PAGESIZE, os.fstat(fd).st_blksize)
        self.length = -(-(size + offset) // page) * page
        start = _libc.mmap(None, self.length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED,
                           fd, 0)
        if start == _FAILED:
            error = ctypes.get_errno()
            raise OSError(error, f"cannot map {self.length} bytes: {os.strerror(error)}")
        self.start = int(start or 0)
        _libc.madvise(self.start, self.length, MADV_DONTDUMP)
        self.fd = fd if owned else -1
        self.size = size
        self.address = self.start + offset

    @classmethod
    def create(cls, size: int, name: str = "byway", hugetlb: bool = False) -> "Region":
        """New zeroed memory that others may map but nobody may shrink.

        hugetlb: of 2 MiB pages (OSError where the machine has none free); else 4 KiB pages.
        """
        flags = os.MFD_CLOEXEC | (os.MFD_HUGETLB if hugetlb else 0) | os.MFD_ALLOW_SEALING
        page = HUGE_PAGE if hugetlb else mmap.PAGESIZE
        fd = os.memfd_create(name, flags)
        try:
            os.ftruncate(fd, -(-size // page) * page)
            fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL)
            return cls(fd, True, size, 0)
        except OSError:
            os.close(fd)
            raise

    @classmethod
    def map(cls, fd: int, size: int, offset: int = 0) -> "Region":
        """``size`` bytes of the file behind ``fd`` from ``offset``; ``fd`` stays the caller's."""
        return cls(fd, False, size, offset)

    @property
    def view(self) -> Any:
        """The bytes as a NumPy array; not to be used after ``close()``."""
        cells = (ctypes.c_uint8 * self.size).from_address(self.address)
        return np.frombuffer(memoryview(cells).cast("B"), np.uint8)

    def close(self) -> None:
        """Unmap; nobody may use the address afterwards. Idempotent."""
        if self.start:
            _libc.munmap(self.start, self.length)
            self.start = self.address = 0
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
