# SPDX-License-Identifier: Apache-2.0
"""A guest for tests: the driver side of a vhost-user port, in this process.

Public: people who write vhost-user back ends can use it as well. Uses vhost.FrontEnd for the
conversation and virtio's compiled driver for the rings.

    with Guest.connect("/tmp/vm1.sock", mac="02:00:00:00:00:01") as guest:
        guest.send([frame])
        guest.wait(1.0)
        frames = guest.receive()
"""

import ctypes
import os
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.batch import ROWS, Batch
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.ethernet import longest_frame
from byway.packet.reason import Reason
from byway.testing import entries
from byway.testing.frames import mac as mac_bytes
from byway.vhost.frontend import FrontEnd
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask
from byway.virtio.ring import RingError

WANTED = mask(Feature.VERSION_1)
GPA = 1 << 32


class GuestError(RuntimeError):
    """The device broke the rules of the virtqueue."""


class Guest:
    """One guest with one queue pair over a connected front end, which it owns.

    ``size``: entries of each ring; ``mtu``: bytes; ``features``: wanted besides VERSION_1;
    ``memory``: makes the shared memory of so many bytes, of such a name.
    """

    def __init__(self, front: FrontEnd, mac: str, size: int = 256, mtu: int = 1500,
                 features: int = 0,
                 memory: Callable[[int, str], Region] = Region.create) -> None:
        self.front = front
        self.mac = mac_bytes(mac)
        longest = longest_frame(mtu)
        buffer = -(-(longest + 12) // 256) * 256
        each = DriverQueue.bytes_needed(size, buffer)
        self.region = memory(2 * each, f"guest {mac}")
        self.rx_queue = DriverQueue(self.region, 0, GPA, size, buffer, receive=True)
        self.tx_queue = DriverQueue(self.region, each, GPA, size, buffer, receive=False)
        self.received, self.sent = alloc(COUNTERS, 1), alloc(COUNTERS, 1)
        self._batch = Batch()
        self._selected = np.zeros(ROWS, np.int64)
        self._room = np.zeros((ROWS, buffer), np.uint8)
        self._longest = longest
        try:
            self.start(features)
        except BaseException:
            self.close()
            raise

    @classmethod
    def connect(cls, path: str, mac: str, size: int = 256, mtu: int = 1500, features: int = 0,
                timeout: float = 5.0,
                memory: Callable[[int, str], Region] = Region.create) -> Self:
        """A guest of the back end that listens at ``path``."""
        return cls(FrontEnd.connect(path, timeout), mac, size, mtu, features, memory)

    def start(self, features: int = 0) -> None:
        """Negotiate, share the memory, start both rings."""
        taken = self.front.negotiate(WANTED | features)
        self.front.set_memory([self.region], [GPA])
        for index, queue, counters in ((0, self.rx_queue, self.received),
                                       (1, self.tx_queue, self.sent)):
            queue.start(taken, address_of(counters), self._longest)
            self.front.start_ring(index, queue.size, 0, queue.desc, queue.avail, queue.used,
                                  queue.kick, queue.call)
        self.rx_queue.post_all()
        for index in (0, 1):
            self.front.enable_ring(index, True)

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames; -> how many found a free buffer (the first ones)."""
        sent = 0
        for start in range(0, len(frames), ROWS):
            some = frames[start : start + ROWS]
            for k, frame in enumerate(some):
                self._room[k, : len(frame)] = np.frombuffer(frame, np.uint8)
                row = self._batch.rows[k]
                row["addr"], row["len"] = address_of(self._room[k]), len(frame)
                row["nsegs"] = 0
                head = frame[:128]
                ctypes.memmove(int(row["head"]), head, len(head))
                self._selected[k] = address_of(self._batch.rows[k:])
            n = int(entries.guest_send(self.tx_queue.address, self._batch.address,
                                       address_of(self._selected), len(some)))
            sent += n
            self._check()
            if n < len(some):
                break
        return sent

    def receive(self, limit: int = ROWS) -> list[bytes]:
        """The frames that wait, at most about ``limit`` (whole batches)."""
        frames: list[bytes] = []
        while len(frames) < limit:
            n = int(entries.guest_borrow(self.rx_queue.address, self._batch.address))
            self._check()
            if n == 0:
                break
            for row in self._batch.rows[:n]:
                if length := int(row["len"]):
                    frames.append(ctypes.string_at(int(row["addr"]), length))
            entries.guest_give_back(self.rx_queue.address, self._batch.address)
        return frames

    def wait(self, seconds: float) -> bool:
        """Until a frame has come, at most ``seconds``; -> whether one has. Blocks in the kernel."""
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.rx_queue.call, select.POLLIN)
        while not entries.guest_sleep(self.rx_queue.address):
            left = end - time.monotonic()
            if left <= 0:
                entries.guest_wake(self.rx_queue.address)
                return False
            if poll.poll(left * 1000):
                self._drain_call()
        return True

    def _drain_call(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self.rx_queue.call)

    def receive_until(self, count: int, seconds: float = 5.0) -> list[bytes]:
        """Frames, until ``count`` have come or ``seconds`` have passed."""
        frames: list[bytes] = []
        end = time.monotonic() + seconds
        while len(frames) < count and self.wait(max(0.0, end - time.monotonic())):
            frames += self.receive()
        return frames

    def _check(self) -> None:
        for queue in (self.rx_queue, self.tx_queue):
            if error := int(queue.record["error"][0]):
                raise GuestError(f"the device broke the ring: {RingError(error).sentence}")

    def statistics(self) -> dict[str, Any]:
        """Frames and bytes both ways (as the guest sees them: sent, received), and drops."""
        return {
            "sent": int(self.sent["frames"][0]), "received": int(self.received["frames"][0]),
            "unsent": int(self.sent["drops"][0][Reason.NO_BUFFERS]),
            "drops": drops_by_name(self.received[0]),
        }

    def close(self) -> None:
        """Hang up and give everything back. Idempotent."""
        self.front.close()
        self.rx_queue.close()
        self.tx_queue.close()
        self.region.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
