# SPDX-License-Identifier: Apache-2.0
"""Memory between two pages that nobody may touch: one byte too far ends the process.

Used by the hostile guest and by tests of kernels, whose machine code checks no bounds by itself.
"""

import ctypes
import mmap
import os
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE
_NONE, _READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                       ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Guarded:
    """``size`` zeroed bytes (whole pages) at ``address``, with a forbidden page on either side.

    OSError where the kernel gives no memory.
    """

    def __init__(self, size: int) -> None:
        self.size = -(-size // PAGE) * PAGE
        length = self.size + 2 * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        start = _libc.mmap(None, length, _NONE, flags, -1, 0)
        if start is None or start == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), f"cannot map {length} bytes")
        self._start = int(start)
        self.address = self._start + PAGE
        if _libc.mprotect(self.address, self.size, _READ_WRITE):
            error = ctypes.get_errno()
            self.close()
            raise OSError(error, f"mprotect: {os.strerror(error)}")

    @property
    def view(self) -> Any:
        """The bytes as a NumPy array; not to be used after ``close``."""
        cells = (ctypes.c_uint8 * self.size).from_address(self.address)
        return np.frombuffer(memoryview(cells), np.uint8)

    def ending(self, n: int) -> int:
        """The address of the last ``n`` bytes: right in front of the forbidden page."""
        return self.address + self.size - n

    def close(self) -> None:
        """Unmap; nobody may use the address afterwards. Idempotent."""
        if self._start:
            _libc.munmap(self._start, self.size + 2 * PAGE)
            self._start = 0
