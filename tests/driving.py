# SPDX-License-Identifier: Apache-2.0
"""A virtqueue between our driver and the plain device, for tests of the driver.

    with driven(64, features, receive=True) as q:
        q.device.deliver([frame])
        assert q.receive() == [frame]
"""

import contextlib
from collections.abc import Iterator, Sequence

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.batch import HEAD_STRIDE, ROWS, SEGMENT, SEGMENTS
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.testing.arena import Arena
from byway.testing.entries import guest_borrow, guest_give_back, guest_send
from byway.testing.frame_batch import Frame, FrameBatch, Unfinished
from byway.testing.plain_device import PlainDevice, plain_device
from byway.testing.plain_memory import PlainMemory
from byway.virtio.driver import driver_collect
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.ring import RingError

GPA, BUFFER = 0x1_0000_0000, 2048


class Driven:
    """One queue of ours, and the plain device that it is shared with."""

    def __init__(self, size: int, features: int, receive: bool, buffer: int = BUFFER,
                 max_frame: int = 9000) -> None:
        self.size, self.features, self.receiving = size, features, receive
        self.region = Region.create(DriverQueue.bytes_needed(size, buffer))
        self.queue = DriverQueue(self.region, 0, GPA, size, buffer, receive)
        self.counters = alloc(COUNTERS, 1)
        self.batch = FrameBatch()
        self._arena: Arena | None = None
        self._kept: list[Frame] = []
        self.queue.start(features, address_of(self.counters), max_frame)
        self.memory = PlainMemory([(GPA, self.region.address, self.region.size)])
        self.device: PlainDevice = self.new_device(None)
        if receive:
            self.queue.post_all()

    def gpa(self, address: int) -> int:
        """The guest address of a place in the region."""
        return address - self.region.address + GPA

    def new_device(self, base: int | None) -> PlainDevice:
        """A device that begins at ``base``."""
        q = self.queue
        return plain_device(self.memory, self.size, self.features, self.gpa(q.desc),
                            self.gpa(q.avail), self.gpa(q.used), base)

    def restart(self) -> None:
        """The device is gone; another one goes on."""
        self.device = self.new_device(self.queue.resume())

    def send(self, frames: Sequence[Frame], pieces: Sequence[int] = (1,)) -> int:
        """Send at most ROWS frames; -> how many."""
        n = self.batch.place(frames, pieces)
        if self._arena:
            self._kept += frames  # so that no others come to lie in their place
            for address, length in self.batch.sources():
                if not self._arena.range_of(address, length):  # the same bytes may be sent twice
                    self._arena.allow("frame", address, length, writable=False)
        return int(guest_send(self.queue.address, self.batch.address, self.batch.selected, n))

    def receive_all(self) -> list[tuple[Unfinished, bytes] | Reason]:
        """One batch, given back: frames with their offloads."""
        n = int(guest_borrow(self.queue.address, self.batch.address))
        got = self.batch.content(n)
        if n:
            guest_give_back(self.queue.address, self.batch.address)
        return got

    def receive(self) -> list[bytes | Reason]:
        """One batch, given back: frames only."""
        return [got if isinstance(got, Reason) else got[1] for got in self.receive_all()]

    def reap(self) -> None:
        """Look for sent buffers that came back."""
        driver_collect(self.queue.address, 0)

    @property
    def error(self) -> RingError | None:
        """Why the queue is broken, None where it is not."""
        found = int(self.queue.record["error"][0])
        return next((error for error in RingError if error == found), None)

    @property
    def free(self) -> int:
        """Buffers that the device does not have."""
        return int(self.queue.record["nfree"][0])

    @property
    def drops(self) -> dict[str, int]:
        """Frames not sent, by reason."""
        return drops_by_name(self.counters[0])

    @contextlib.contextmanager
    def watched(self) -> Iterator[Arena]:
        """Interpreted: the driver touches its own memory and what it shares, nothing else."""
        arena = Arena()
        arena.allow("shared", self.region.address, self.region.size, shared=True)
        for name in ("record", "_free", "_busy", "_taken", "_one"):
            arena.allow_array(name, getattr(self.queue, name))
        arena.allow_array("counters", self.counters)
        batch = self.batch.batch
        arena.allow_array("batch", batch.record)
        arena.allow_array("rows", batch.rows)
        arena.allow("heads", int(batch.record["heads"][0]), ROWS * HEAD_STRIDE)
        arena.allow("segs", int(batch.record["segs"][0]), SEGMENTS * SEGMENT)
        arena.allow_array("selected", self.batch.chosen)
        arena.allow_array("pieces", self.batch.segments)
        self._arena = arena
        with arena if INTERPRETED else contextlib.nullcontext():
            yield arena
        self._arena = None

    def close(self) -> None:
        """Give the memory back."""
        self.queue.close()
        self.region.close()


@contextlib.contextmanager
def driven(size: int, features: int, receive: bool, buffer: int = BUFFER,
           max_frame: int = 9000) -> Iterator[Driven]:
    """See the module."""
    made = Driven(size, features, receive, buffer, max_frame)
    try:
        yield made
    finally:
        made.close()
