# SPDX-License-Identifier: Apache-2.0
"""The device's side of one virtqueue with no port around it: frames as bytes, in and out.

    device = Device([(gpa, host, size)], driver.size, desc, avail, used, features)
    device.take()                    # what the driver sent: frames, or the reasons of drops
    device.deliver([frame, ...])     # into its receive buffers; -> how many

Used by tests of the virtio kernels and by the hostile guest. Compiled or interpreted, as the
process is. The ring's format, and whether virtio headers are read, follow from ``features``.
"""

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.batch import (
    FLOOD,
    HEAD_STRIDE,
    MAX_FRAME,
    ROWS,
    SCRATCH_BYTES,
    SEGMENT,
    SEGMENTS,
    UNDECIDED,
    Batch,
)
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.testing.arena import Arena
from byway.testing.ring_kernels import device_borrow, device_deliver, device_return, look_at
from byway.virtio.features import Feature, has, header_length
from byway.virtio.memtab import MEMTAB, fill
from byway.virtio.ring import LOG, PACKED_START, VQ, RingError

# What a batch's addresses lead to (packet.batch).
BATCH_MEMORY = {
    "heads": ROWS * HEAD_STRIDE, "segs": SEGMENTS * SEGMENT, "scratch": SCRATCH_BYTES}
SOURCES = ROWS * 2048  # bytes of frames to be delivered that have room at first


class Device:
    """A device's virtqueue: its record, memory table, batch and counters.

    ``regions``: (guest address, host address, bytes). ``desc``, ``avail``, ``used``: host
    addresses (packed: ring, the driver's and the device's event suppression). ``start``: where both
    indices begin (packed: slot | WRAP; default: a fresh ring's). ``call``: an event fd or -1.
    ``log``: bytes of a dirty log, of all that the device writes; see ``dirty``. ``offloads``: the
    offload words of the frames last borrowed.
    """

    def __init__(self, regions: Sequence[tuple[int, int, int]], size: int, desc: int, avail: int,
                 used: int, features: int, *, start: int | None = None, call: int = -1,
                 max_frame: int = MAX_FRAME, log: int = 0) -> None:
        self.batch = Batch()
        self.queue = alloc(VQ, 1)
        self.memtab = alloc(MEMTAB, 1)
        self.counters = alloc(COUNTERS, 1)
        self.selected = alloc(np.dtype("<i8"), ROWS)
        self.one = alloc(np.dtype("<i8"), 1)
        self.one[0] = 1
        self._sources = np.zeros(SOURCES, np.uint8)
        self._segments = alloc(np.dtype("<i8"), 2 * ROWS * 16)
        fill(self.memtab[0], [(gpa, n, host) for gpa, host, n in regions])
        self.log_bits = alloc(np.dtype("u1"), max(log, 1))
        self.log = alloc(LOG, 1)
        self.log["bits"], self.log["bytes"] = address_of(self.log_bits), log
        self.log["memtab"] = address_of(self.memtab)
        self.offloads: list[int] = []
        row = self.queue[0]
        row["desc"], row["avail"], row["used"] = desc, avail, used
        row["memtab"], row["counters"] = address_of(self.memtab), address_of(self.counters)
        row["call"], row["one"], row["max_frame"] = call, address_of(self.one), max_frame
        row["log"] = address_of(self.log) if log else 0
        self.begin(size, features, start)
        self.address = address_of(self.queue)

    def begin(self, size: int, features: int, start: int | None = None) -> None:
        """What a virtqueue starts with, or starts anew with: sizes, features, positions."""
        row = self.queue[0]
        packed = has(features, Feature.RING_PACKED)
        if start is None:
            start = PACKED_START if packed else 0
        row["size"], row["mask"], row["header"] = size, size - 1, header_length(features)
        row["last_avail"] = row["avail_seen"] = row["used_idx"] = row["published"] = start
        row["packed"], row["in_order"] = packed, has(features, Feature.IN_ORDER)
        row["event_idx"] = has(features, Feature.EVENT_IDX)
        row["indirect"] = has(features, Feature.INDIRECT_DESC)
        row["merge"] = has(features, Feature.MRG_RXBUF)
        row["offloads"] = has(features, Feature.CSUM)
        row["error"] = row["signalled"] = row["signalled_valid"] = row["calls"] = 0

    @property
    def dirty(self) -> set[int]:
        """The guest's pages of 4096 bytes that the dirty log names."""
        return {8 * k + bit for k in np.flatnonzero(self.log_bits).tolist()
                for bit in range(8) if self.log_bits[k] >> bit & 1}

    @property
    def error(self) -> RingError | None:
        """Why the queue is broken, None where it is not."""
        found = int(self.queue["error"][0])
        return next((error for error in RingError if error == found), None)

    @property
    def calls(self) -> int:
        """How often the driver was called."""
        return int(self.queue["calls"][0])

    @property
    def drops(self) -> dict[str, int]:
        """Frames not delivered, by reason."""
        return drops_by_name(self.counters[0])

    def borrow(self) -> list[bytes | Reason]:
        """One batch from the driver; its buffers stay ours until ``give_back``."""
        n = int(device_borrow(self.address, self.batch.address))
        rows = self.batch.rows[:n]
        self.offloads = rows["offload"].tolist()
        return [self._content(row) for row in rows]

    def give_back(self) -> None:
        """Return the buffers of the last batch."""
        device_return(self.address, self.batch.address)

    def take(self) -> list[bytes | Reason]:
        """Everything the driver has made available, batch by batch, given back."""
        taken: list[bytes | Reason] = []
        while found := self.borrow():
            taken += found
            self.give_back()
        return taken

    def _content(self, row: Any) -> bytes | Reason:
        if row["out"] != UNDECIDED:
            return next(reason for reason in Reason if reason == -1 - int(row["out"]))
        n, nsegs = int(row["len"]), int(row["nsegs"])
        if nsegs == 0:
            return ctypes.string_at(int(row["addr"]), n)
        listed = ctypes.string_at(int(row["segs"]), SEGMENT * nsegs)
        return b"".join(ctypes.string_at(a, size) for a, size in struct.iter_unpack("=qq", listed))

    def deliver(self, frames: Sequence[bytes], pieces: Sequence[int] = (1,),
                offloads: Sequence[int] = (0,)) -> int:
        """Deliver at most ROWS frames (each at least 14 bytes); -> how many found a buffer.

        ``pieces``: in how many segments the frames lie in turn (1 to 16 each), as those that came
        in chains do. ``offloads``: their offload words in turn, which must fit the frames.
        """
        self.place(frames, pieces, offloads)
        return int(device_deliver(self.address, self.batch.address, address_of(self.selected),
                                  len(frames)))

    def place(self, frames: Sequence[bytes], pieces: Sequence[int] = (1,),
              offloads: Sequence[int] = (0,)) -> None:
        """Fill the batch with frames as a receive step would, heads copied, all selected."""
        total = sum(map(len, frames))
        if total > len(self._sources):
            self._sources = np.zeros(total, np.uint8)
        rows, at = self.batch.rows, 0
        for k, frame in enumerate(frames):
            n = len(frame)
            self._sources[at : at + n] = np.frombuffer(frame, np.uint8)
            start, row = address_of(self._sources) + at, rows[k]
            row["addr"], row["len"], row["out"] = start, n, FLOOD
            row["offload"] = offloads[k % len(offloads)]
            parts = pieces[k % len(pieces)]
            row["nsegs"] = 0 if parts == 1 else parts
            row["segs"] = address_of(self._segments) + 16 * 16 * k
            for j in range(parts if parts > 1 else 0):
                cut, end = n * j // parts, n * (j + 1) // parts
                self._segments[2 * (16 * k + j)] = start + cut
                self._segments[2 * (16 * k + j) + 1] = end - cut
            at += n
        self.selected[: len(frames)] = address_of(rows) + rows.itemsize * np.arange(len(frames))
        self.batch.record["n"] = len(frames)
        self.batch.record["offloads"] = any(offloads)
        look_at(self.batch.address)

    def allow(self, arena: Arena) -> None:
        """Name all private memory of this device to an Arena (guest memory is the caller's)."""
        batch = self.batch
        for name, array in (
                ("queue", self.queue), ("memory table", self.memtab), ("counters", self.counters),
                ("selected", self.selected), ("one", self.one), ("frames", self._sources),
                ("segments of frames", self._segments), ("batch", batch.record),
                ("rows", batch.rows), ("log", self.log), ("log's bits", self.log_bits)):
            arena.allow_array(name, array)
        for name in ("heads", "segs", "scratch"):
            arena.allow(name, int(batch.record[name][0]), BATCH_MEMORY[name])

