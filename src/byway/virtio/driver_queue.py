# SPDX-License-Identifier: Apache-2.0
"""The memory of a virtqueue that we drive: ring parts and buffers in a shared region.

Used by the virtio-user port and byway.testing's guest; the kernels are in driver.py.
"""

import os

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.virtio.driver import driver_fill
from byway.virtio.features import Feature, has, header_length
from byway.virtio.ring import DESCRIPTOR, DRIVER, avail_bytes, used_bytes

PAGE = 4096
CACHE_LINE = 64


def _up(n: int, align: int) -> int:
    return -(-n // align) * align


class DriverQueue:
    """A split virtqueue of ``size`` entries (a power of two) with one buffer for each.

    It lies in ``region`` from ``offset`` on; the device knows the region's first byte as guest
    address ``gpa``. ``receive``: the device writes into the buffers. ``kick`` and ``call`` are its
    event fds, closed by ``close``.
    """

    def __init__(self, region: Region, offset: int, gpa: int, size: int, buffer_size: int,
                 receive: bool) -> None:
        self.size, self.receive = size, receive
        parts = self.parts(size)
        start = region.address + offset
        self.desc, self.avail, self.used = (start + p for p in parts[:3])
        self.buffers = start + parts[3]
        self._rings = region.view[offset : offset + parts[3]]
        self._free = alloc(np.dtype("<i8"), size)
        self._busy = alloc(np.dtype("<i8"), size)
        self._one = alloc(np.dtype("<i8"), 1)
        self._one[0] = 1
        self.kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.record = alloc(DRIVER, 1)
        self.address = address_of(self.record)
        row = self.record[0]
        row["desc"], row["avail"], row["used"] = self.desc, self.avail, self.used
        row["size"], row["mask"] = size, size - 1
        row["buffers"], row["gpa"] = self.buffers, gpa + offset + parts[3]
        row["buffer_size"] = buffer_size
        row["free"], row["busy"] = address_of(self._free), address_of(self._busy)
        row["one"] = address_of(self._one)

    @staticmethod
    def parts(size: int) -> tuple[int, int, int, int]:
        """Offsets of descriptor table, available ring, used ring and buffers."""
        avail = _up(DESCRIPTOR * size, CACHE_LINE)
        used = _up(avail + avail_bytes(size, True), CACHE_LINE)
        return 0, avail, used, _up(used + used_bytes(size, True), PAGE)

    @classmethod
    def bytes_needed(cls, size: int, buffer_size: int) -> int:
        """How much of a region a queue takes (whole pages)."""
        return _up(cls.parts(size)[3] + size * buffer_size, PAGE)

    def start(self, features: int, counters: int, max_frame: int) -> None:
        """Begin anew with empty rings, all buffers ours, for negotiated ``features``.

        ``counters``: address of a COUNTERS record. A receive queue posts its buffers with
        ``post_all`` once the device knows the ring.
        """
        self._rings[:] = 0
        self._free[:] = np.arange(self.size)
        self._busy[:] = 0
        row = self.record[0]
        row["header"] = header_length(features)
        row["event_idx"] = has(features, Feature.EVENT_IDX)
        row["counters"], row["max_frame"], row["kick"] = counters, max_frame, self.kick
        row["nfree"] = self.size
        for name in ("avail_idx", "used_seen", "kicked", "error"):
            row[name] = 0

    def post_all(self, kick: bool = True) -> None:
        """Give all buffers of a receive queue to the device, and tell it so."""
        driver_fill(self.address, int(kick))

    def close(self) -> None:
        """Close the event fds. Idempotent; the device must be gone, or not care."""
        for fd in (self.kick, self.call):
            if fd >= 0:
                os.close(fd)
        self.kick = self.call = -1
        self.record["kick"] = -1
