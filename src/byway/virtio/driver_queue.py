# SPDX-License-Identifier: Apache-2.0
"""The memory of a virtqueue that we drive: ring parts and buffers in a shared region.

Used by the virtio-user port and byway.testing's guest; the kernels are in driver.py.

A queue outlives its device: where one has gone (crashed, restarted), ``resume`` collects what it
published last and posts all that it still had again, in the order in which it was posted first.
So whatever the device did, in order or not, half a batch written or none, the next one finds a ring
in which every buffer stands that was not used, and no other; it begins at ``position``. The ring
positions themselves do not change: what is left always fits exactly between them.
"""

import os

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.virtio.driver import driver_collect, driver_fill, driver_rewind
from byway.virtio.driver_ring import AGE, COUNT
from byway.virtio.features import Feature, has, header_length, mask
from byway.virtio.ring import (
    DESCRIPTOR,
    DRIVER,
    ENTRIES,
    MAX_SIZE,
    PACKED_START,
    WRITE,
    avail_bytes,
    used_bytes,
)

PAGE = 4096
CACHE_LINE = 64
# With any of these negotiated the device's headers say something (5.1.6.4).
_OFFLOADS = mask(Feature.GUEST_CSUM, Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_UFO,
                 Feature.GUEST_USO4, Feature.GUEST_USO6)


def _up(n: int, align: int) -> int:
    return -(-n // align) * align


class DriverQueue:
    """A virtqueue of ``size`` entries with one buffer for each.

    It lies in ``region`` from ``offset`` on; the device knows the region's first byte as guest
    address ``gpa``. ``receive``: the device writes into the buffers. ``kick`` and ``call`` are its
    event fds, closed by ``close``. ``start`` says which format it has; ``avail`` and ``used`` of a
    packed one are the driver's and the device's event suppression.
    """

    def __init__(self, region: Region, offset: int, gpa: int, size: int, buffer_size: int,
                 receive: bool) -> None:
        if not 0 < size <= MAX_SIZE:
            raise ValueError(f"a virtqueue has 1 to {MAX_SIZE} entries, not {size}")
        self.size, self.receive = size, receive
        parts = self.parts(size)
        start = region.address + offset
        self.desc, self.avail, self.used = (start + p for p in parts[:3])
        self.buffers = start + parts[3]
        self._rings = region.view[offset : offset + parts[3]]
        self._free, self._busy, self._taken = (alloc(np.dtype("<i8"), size) for _ in range(3))
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
        row["taken"], row["one"] = address_of(self._taken), address_of(self._one)

    @staticmethod
    def parts(size: int) -> tuple[int, int, int, int]:
        """Offsets of descriptors, available ring, used ring (packed: the event suppression
        structures) and buffers; there is room for either format."""
        avail = _up(DESCRIPTOR * size, CACHE_LINE)
        used = _up(avail + avail_bytes(size, True), CACHE_LINE)
        return 0, avail, used, _up(used + used_bytes(size, True), PAGE)

    @classmethod
    def bytes_needed(cls, size: int, buffer_size: int) -> int:
        """How much of a region a queue takes (whole pages)."""
        return _up(cls.parts(size)[3] + size * buffer_size, PAGE)

    def start(self, features: int, counters: int, max_frame: int) -> None:
        """Begin anew with empty rings, all buffers ours, for negotiated ``features``.

        ``counters``: address of a COUNTERS record. ``max_frame``: longest frame on the wire, in
        bytes. A receive queue posts its buffers with ``post_all`` once the device knows the ring.
        ValueError where the size is not possible in a split ring (2.7: a power of two).
        """
        packed = has(features, Feature.RING_PACKED)
        if not packed and self.size & (self.size - 1):
            raise ValueError(f"a split virtqueue of {self.size} entries: not a power of two")
        self._rings[:] = 0
        self._busy[:] = 0
        in_order = has(features, Feature.IN_ORDER)
        self._free[:] = 0 if in_order else np.arange(self.size)
        row = self.record[0]
        row["header"] = header_length(features)
        row["packed"], row["in_order"] = packed, in_order
        row["event_idx"] = has(features, Feature.EVENT_IDX)
        row["merge"] = self.receive and has(features, Feature.MRG_RXBUF)
        row["offloads"] = self.receive and features & _OFFLOADS != 0
        row["counters"], row["max_frame"], row["kick"] = counters, max_frame, self.kick
        row["nfree"] = self.size
        for name in ("avail_idx", "used_seen", "kicked"):
            row[name] = PACKED_START if packed else 0
        row["ntaken"] = row["error"] = 0

    def post_all(self, kick: bool = True) -> None:
        """Give all buffers of a receive queue to the device, and tell it so."""
        driver_fill(self.address, int(kick))

    def position(self) -> int:
        """The base that a device is to begin at (FrontEnd.start_ring): the used position.

        Split: the used index; packed: slot | WRAP. That is the start of a fresh queue, and after
        ``resume`` where the next device goes on.
        """
        return int(self.record["used_seen"][0]) & 0xFFFF

    def resume(self) -> int:
        """Make the queue ready for another device, with the same features; -> its base.

        The old device must be gone, and nobody else be using the queue. What it used is collected:
        sent buffers are free again, received frames are there for the next ``driver_rx``. All other
        buffers are posted again. Nothing is notified. ValueError where the queue is broken.
        """
        driver_collect(self.address, int(self.receive))
        row = self.record[0]
        if row["error"]:
            raise ValueError("the device broke the ring before it was gone")
        heads = np.flatnonzero(self._busy & COUNT)
        newest = int(row["avail_idx"]) >> 16 if row["packed"] else int(row["avail_idx"])
        age = newest - 1 - (self._busy[heads] >> AGE) & 0xFFFF
        heads = np.ascontiguousarray(heads[np.argsort(-age)], np.int64)
        self._forget_wishes()
        driver_rewind(self.address, address_of(heads), len(heads), WRITE if self.receive else 0)
        return self.position()

    def _forget_wishes(self) -> None:
        """No device: nobody has refused kicks, or wants them from somewhere on."""
        row = self.record[0]
        at = self.used - self.desc
        self._rings[at : at + 4 if row["packed"] else at + 2] = 0
        if row["event_idx"] and not row["packed"]:
            at += ENTRIES + 8 * self.size
            seen = int(row["used_seen"])
            self._rings[at : at + 2] = seen & 0xFF, seen >> 8

    def close(self) -> None:
        """Close the event fds. Idempotent; the device must be gone, or not care."""
        for fd in (self.kick, self.call):
            if fd >= 0:
                os.close(fd)
        self.kick = self.call = -1
        self.record["kick"] = -1
