# SPDX-License-Identifier: Apache-2.0
"""How fast this machine copies frames from one guest's buffers into another's, if a switch did
nothing else: what `byway bench vm2vm` and bench/tso.py hold the data path against.

Uses machine's copy, by bare_copy_kernels.py.

Theory of operation
-------------------
Memory is as two guests have it: a ring of buffers to send from and one to receive into, of which a
frame takes as many as it needs, one after the other, around and around. A *sender* on the guests'
CPU writes frames into the one, at most ``flight`` of them ahead; the *copier*, on the worker's CPU,
copies as many as a worker's pass takes into the other, and what that takes is counted; then the
guests' CPU looks at their heads, as a receiver does. So lines lie in the same caches as when a
switch copies them. There are no rings' entries, no descriptors, no addresses to be looked up: what
a switch needs above this is its own work, and less than this it cannot need.
"""

import os
import threading

import numpy as np

from byway.machine.cpu import usable_cpus
from byway.machine.jit import prepare
from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.batch import HEAD, ROWS
from byway.testing.bare_copy_kernels import BARE, bare_copy, bare_send
from byway.virtio.borrow import MAX_OCTETS

HEADER = 12  # bytes in front of a frame, in its first buffer
PASSES = 2000


class BareCopy:
    """Frames of ``length`` bytes, ``flight`` of them between sender and copier, ``ring`` buffers of
    ``buffer`` bytes each way (at least twice what is in flight). ``target``: the receiving ring."""

    def __init__(self, length: int, buffer: int, ring: int, flight: int,
                 passes: int = PASSES) -> None:
        prepare((bare_send, bare_copy))
        whole = length + HEADER
        self.frames = min(ROWS, -(-MAX_OCTETS // length), flight)  # of a pass, as a worker's
        self.laps = -(-ring // (self.frames * -(-whole // buffer)))
        self._source, self.target = (Region.create(ring * buffer, "bare copy") for _ in range(2))
        # The sender's frame, and room for a head.
        self.private = np.arange(whole + HEAD, dtype=np.uint32).astype(np.uint8)
        self._ticks = np.zeros(passes, np.int64)
        self._record = alloc(BARE, 1)
        row = self._record[0]
        row["source"], row["target"] = self._source.address, self.target.address
        row["size"], row["each"] = ring, buffer
        row["length"], row["n"] = whole, self.frames
        row["ahead"] = max(1, flight // self.frames) - 1
        row["private"], row["ticks"] = address_of(self.private), address_of(self._ticks)
        row["passes"] = passes

    def run(self, cpus: tuple[int, int]) -> float:
        """Copy; once. ``cpus``: the copier's, which is the calling thread, and the sender's. ->
        ticks of the time stamp counter a frame, the median of the passes after the first round
        (the first touch of a page is another matter)."""
        before = usable_cpus()
        sender = threading.Thread(target=self._send, args=(cpus[1],), name="sender")
        try:
            for cpu in (cpus[1], cpus[0]):  # both can be had; one would wait for the other for ever
                os.sched_setaffinity(0, {cpu})
            sender.start()
            bare_copy(address_of(self._record))
            sender.join()
        finally:
            os.sched_setaffinity(0, before)
        counted = self._ticks[min(self.laps, len(self._ticks) // 2):]
        return float(np.median(counted)) / self.frames

    def _send(self, cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})
        bare_send(address_of(self._record))

    def close(self) -> None:
        """Give the memory back."""
        self._source.close()
        self.target.close()


def cycles_a_frame(length: int, buffer: int, ring: int, flight: int,
                   cpus: tuple[int, int]) -> float:
    """What copying a frame takes, in ticks; see BareCopy."""
    copy = BareCopy(length, buffer, ring, flight)
    try:
        return copy.run(cpus)
    finally:
        copy.close()
