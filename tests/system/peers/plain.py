# SPDX-License-Identifier: Apache-2.0
"""A guest whose driver is plain Python: one frame at a time, written out as VIRTIO 1.2 says it.

Used where a test or a bench wants to know when *one* frame arrives, and needs no compiled code of
its own for that: `test_idle.py`, `bench/first_frame.py`. It polls and needs no call; it kicks when
the device asks for it (no EVENT_IDX).
"""

import os
import struct
import threading
import time
from pathlib import Path
from typing import Self

from byway.machine.regions import Region
from byway.vhost import FrontEnd
from byway.virtio.features import Feature, mask

RX, TX = 0, 1  # the two rings, by the driver's names: receiveq, transmitq (5.1.2)
SIZE = 64  # entries of a ring
AVAIL, USED, RING = 2048, 3072, 4096  # where the parts of a ring lie, and one ring's room
BUFFERS, BUFFER = 2 * RING, 2048  # where the buffers begin, and the size of one
WRITE = 2  # VIRTQ_DESC_F_WRITE (2.7.5)
NO_NOTIFY = 1  # VIRTQ_USED_F_NO_NOTIFY (2.7.10)
HEADER = 12  # struct virtio_net_hdr with VERSION_1 (5.1.6)


def frame(to: str, source: str, size: int = 60) -> bytes:
    """An Ethernet frame with these addresses and an experimental ethertype (IEEE 802)."""
    head = bytes.fromhex(to.replace(":", "") + source.replace(":", "")) + b"\x88\xb5"
    return head + bytes(n & 0xFF for n in range(size - len(head)))


class PlainGuest:
    """Both rings started: receive buffers posted, nothing sent yet."""

    def __init__(self, path: Path) -> None:
        self.front = FrontEnd.connect(str(path))  # first: where nobody listens nothing is left open
        self.memory = Region.create(BUFFERS + 2 * SIZE * BUFFER)
        self.view = memoryview(self.memory.view)
        self.words = self.view.cast("H")  # one store each; struct writes a zero first
        self.events = [os.eventfd(0) for _ in range(4)]
        self.fence = threading.Lock()
        self.sent = self.seen = 0
        for index in range(SIZE):
            self._describe(RX, index, BUFFER, WRITE)
            self._put(RX * RING + AVAIL + 4 + 2 * index, index)
        self._put(RX * RING + AVAIL + 2, SIZE)
        self.front.negotiate(mask(Feature.VERSION_1))
        self.front.set_memory([self.memory], [0])
        for ring in (RX, TX):
            desc = self.memory.address + ring * RING
            kick, call = self.events[2 * ring : 2 * ring + 2]
            self.front.start_ring(ring, SIZE, 0, desc, desc + AVAIL, desc + USED, kick, call)
            self.front.enable_ring(ring, True)

    def _put(self, at: int, word: int) -> None:
        self.words[at // 2] = word & 0xFFFF

    def _index(self, at: int) -> int:
        return self.words[at // 2]

    def _buffer(self, ring: int, index: int) -> int:
        return BUFFERS + (ring * SIZE + index) * BUFFER

    def _describe(self, ring: int, index: int, length: int, flags: int) -> None:
        """Descriptor `index` is buffer `index` (2.7.5); guest addresses begin at zero."""
        at = ring * RING + 16 * index
        struct.pack_into("<QIHH", self.view, at, self._buffer(ring, index), length, flags, 0)

    def send(self, data: bytes) -> None:
        """Send one frame; the ring is taken to have room."""
        index = self.sent % SIZE
        at = self._buffer(TX, index)
        self.view[at : at + HEADER + len(data)] = bytes(HEADER) + data
        self._describe(TX, index, HEADER + len(data), 0)
        self._put(TX * RING + AVAIL + 4 + 2 * index, index)
        self.sent += 1
        self._put(TX * RING + AVAIL + 2, self.sent)
        with self.fence:  # a locked instruction: full barrier before the flag is read (2.7.13.4.1)
            pass
        if not self._index(TX * RING + USED) & NO_NOTIFY:
            os.eventfd_write(self.events[2 * TX], 1)

    def idle(self) -> bool:
        """True when the device has given back every frame that was sent."""
        return self._index(TX * RING + USED + 2) == self.sent & 0xFFFF

    def arrived(self) -> bool:
        """True when a frame is there that `receive` has not taken."""
        return self._index(RX * RING + USED + 2) != self.seen & 0xFFFF

    def receive(self, timeout: float = 5.0) -> bytes | None:
        """The next frame, or None after `timeout` seconds; its buffer is posted again."""
        end = time.monotonic() + timeout
        while not self.arrived():
            if time.monotonic() > end:
                return None
        at = RX * RING + USED + 4 + 8 * (self.seen % SIZE)
        index, length = struct.unpack_from("<II", self.view, at)
        begin = self._buffer(RX, index)
        data = bytes(self.view[begin + HEADER : begin + length])
        self._put(RX * RING + AVAIL + 4 + 2 * (self.seen % SIZE), index)
        self.seen += 1
        self._put(RX * RING + AVAIL + 2, SIZE + self.seen)
        return data

    def close(self) -> None:
        """Hang up and let go of everything."""
        self.front.close()
        self.words.release()
        self.view.release()
        self.memory.close()
        for event in self.events:
            os.close(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
