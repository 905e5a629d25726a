# SPDX-License-Identifier: Apache-2.0
"""A guest for tests: the driver side of a vhost-user port, in this process.

Public: people who write vhost-user back ends can use it as well. Uses vhost.FrontEnd for the
conversation and virtio's compiled driver for the rings (guest_queues.py).

    with Guest.connect("/tmp/vm1.sock", mac="02:00:00:00:00:01") as guest:
        guest.send([frame])
        guest.wait(1.0)
        frames = guest.receive()

It outlives its back end: where that was killed and started again, ``reconnect`` goes on with the
same rings, and no buffer is lost or completed twice.
"""

import os
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from byway.machine.regions import Region
from byway.machine.unixsocket import SocketError
from byway.packet.batch import ROWS
from byway.packet.counters import drops_by_name
from byway.packet.reason import Reason
from byway.testing import entries
from byway.testing.frame_batch import Frame, FrameBatch, Unfinished
from byway.testing.frames import mac as mac_bytes
from byway.testing.guest_queues import GPA, GuestQueues, buffer_size
from byway.vhost.frontend import PROTOCOL_FEATURES, FrontEnd, protocol_mask
from byway.vhost.messages import ProtocolFeature
from byway.vhost.sharing import InflightFile
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask, names

WANTED = mask(Feature.VERSION_1)
RETRY_SECONDS = 0.01


class GuestError(RuntimeError):
    """The device broke the rules of the virtqueue, or cannot do what the guest needs."""


class Guest:
    """One guest over a connected front end, which it owns.

    ``size``: entries of each ring (packed: any number up to 32768); ``mtu``: bytes; ``features``:
    wanted besides VERSION_1, ``without``: not wanted; ``packed``: the ring format; ``pairs``: queue
    pairs; ``buffer``: bytes of each buffer, the virtio header among them (default: for a frame of
    the MTU, or for a frame to be cut where only one buffer may take it); ``inflight``: with an
    in-flight region; ``memory``: makes the shared memory of so many bytes, of such a name.

    After negotiation ``features`` holds what was taken. GuestError where RING_PACKED or the queues
    are not to be had.
    """

    def __init__(self, front: FrontEnd, mac: str, size: int = 256, mtu: int = 1500,
                 features: int = 0,
                 memory: Callable[[int, str], Region] = Region.create, *, without: int = 0,
                 packed: bool = False, pairs: int = 1, buffer: int = 0,
                 inflight: bool = False) -> None:
        self.front = front
        self.mac = mac_bytes(mac)
        self.pairs, self.packed = pairs, packed
        self.features = 0
        wanted = WANTED | features
        if packed:
            wanted |= mask(Feature.RING_PACKED)
        if pairs > 1:
            wanted |= mask(Feature.MQ, Feature.CTRL_VQ)
        self._wanted = wanted & ~without
        self._protocol = PROTOCOL_FEATURES
        if inflight:
            self._protocol |= protocol_mask(ProtocolFeature.INFLIGHT_SHMFD)
        self._inflight: InflightFile | None = None
        self.queues = GuestQueues(pairs, size, mtu, buffer or buffer_size(mtu, self._wanted),
                                  lambda n: memory(n, f"guest {mac}"))
        self._batch = FrameBatch()
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @classmethod
    def connect(cls, path: str, mac: str, size: int = 256, mtu: int = 1500, features: int = 0,
                timeout: float = 5.0,
                memory: Callable[[int, str], Region] = Region.create, **options: Any) -> Self:
        """A guest of the back end that listens at ``path``; ``options``: see the class."""
        return cls(FrontEnd.connect(path, timeout), mac, size, mtu, features, memory, **options)

    # ------------------------------------------------------------ the conversation
    def start(self, features: int = 0) -> None:
        """Negotiate (``features``: besides those wanted from the start), share the memory, start
        all rings anew."""
        self.features = self.front.negotiate(self._wanted | features, self._protocol)
        self._check_features()
        if self.front.took(ProtocolFeature.INFLIGHT_SHMFD):
            self._inflight = self.front.get_inflight(2 * self.pairs, self.queues.size)
            if self._inflight:
                self.front.set_inflight(self._inflight)
        self.queues.start(self.features)
        self._hand_over()
        for queue in self.queues.rx:
            queue.post_all()

    def _check_features(self) -> None:
        if self.packed and not self.features & mask(Feature.RING_PACKED):
            raise GuestError("the back end does not offer RING_PACKED")
        # Back ends of networks count pairs in GET_QUEUE_NUM, others rings: those have no MQ.
        found = self.front.queue_num
        if not self.features & mask(Feature.MQ):
            found = max(1, found // 2)
        if self.pairs > found:
            raise GuestError(f"the back end has {found} queue pairs, not {self.pairs}")

    def _hand_over(self, again: bool = False) -> None:
        """Share the memory and start the rings where they are.

        A back end discards what a ring holds that is started and not enabled ("Ring states"), so
        rings that go on (``again``) are enabled first, as QEMU does it.
        """
        self.front.set_memory([self.queues.region], [GPA])
        rings = self.queues.by_index()
        for index in rings if again else ():
            self.front.enable_ring(index, True)
        for index, queue in rings.items():
            self.front.start_ring(index, queue.size, queue.position(), queue.desc, queue.avail,
                                  queue.used, queue.kick, queue.call)
        for index in () if again else rings:
            self.front.enable_ring(index, True)
        self.front.driver_ok()

    def reconnect(self, path: str, seconds: float = 5.0) -> None:
        """The back end is gone: go on with another one that listens at ``path`` by then.

        Frames that the old one had delivered wait to be received; what it had taken and not given
        back is there for the new one. GuestError where the new one has not the same features;
        SocketError where none listens for ``seconds``.
        """
        self.front.close()
        self.queues.resume()
        self.front = _connect(path, seconds)
        taken = self.front.negotiate(self.features, self._protocol)
        if taken != self.features:
            missing = ", ".join(names(self.features & ~taken))
            raise GuestError(f"the new back end does not offer {missing}")
        self._check_features()
        if self._inflight:
            self.front.set_inflight(self._inflight)
        self._hand_over(again=True)
        for queue in self.queues.by_index().values():
            entries.guest_kick(queue.address)

    # ------------------------------------------------------------ frames
    @property
    def rx_queue(self) -> DriverQueue:
        """The receive queue of the first pair."""
        return self.queues.rx[0]

    @property
    def tx_queue(self) -> DriverQueue:
        """The transmit queue of the first pair."""
        return self.queues.tx[0]

    @property
    def region(self) -> Region:
        """The memory that is shared with the back end."""
        return self.queues.region

    def send(self, frames: Sequence[Frame], pair: int = 0) -> int:
        """Send frames on a queue pair; -> how many found a free buffer (the first ones).

        A frame with something left to do is (Unfinished(...), frame); the back end must have taken
        the feature for that (CSUM, HOST_TSO4, ...).
        """
        queue = self.queues.tx[pair]
        sent = 0
        for start in range(0, len(frames), ROWS):
            n = self._batch.place(frames[start : start + ROWS])
            done = int(entries.guest_send(queue.address, self._batch.address,
                                          self._batch.selected, n))
            sent += done
            self._check()
            if done < n:
                break
        return sent

    def receive(self, limit: int = ROWS) -> list[bytes]:
        """The frames that wait at all pairs, at most about ``limit`` (whole batches)."""
        return [frame for _, frame in self.receive_unfinished(limit)]

    def receive_unfinished(self, limit: int = ROWS) -> list[tuple[Unfinished, bytes]]:
        """As ``receive``, with what the device left to do for each frame."""
        frames: list[tuple[Unfinished, bytes]] = []
        while len(frames) < limit:
            found = [f for queue in self.queues.rx for f in self._take(queue)]
            if not found:
                break
            frames += [f for f in found if not isinstance(f, Reason)]
        return frames

    def _take(self, queue: DriverQueue) -> list[tuple[Unfinished, bytes] | Reason]:
        """A batch of a queue, given back; drops are counted."""
        n = int(entries.guest_borrow(queue.address, self._batch.address))
        self._check()
        if n == 0:
            return []
        found = self._batch.content(n)
        entries.guest_give_back(queue.address, self._batch.address)
        for reason in found:
            if isinstance(reason, Reason):
                self.queues.received["drops"][0][reason] += 1
        return found

    def wait(self, seconds: float) -> bool:
        """Until a frame has come, at most ``seconds``; -> whether one has. Blocks in the kernel."""
        end = time.monotonic() + seconds
        poll = select.poll()
        for queue in self.queues.rx:
            poll.register(queue.call, select.POLLIN)
        while not any(entries.guest_sleep(queue.address) for queue in self.queues.rx):
            left = end - time.monotonic()
            if left <= 0:
                self._wake()
                return False
            for fd, _ in poll.poll(left * 1000):
                with suppress(BlockingIOError):
                    os.eventfd_read(fd)
        self._wake()
        return True

    def _wake(self) -> None:
        for queue in self.queues.rx:
            entries.guest_wake(queue.address)

    def receive_until(self, count: int, seconds: float = 5.0) -> list[bytes]:
        """Frames, until ``count`` have come or ``seconds`` have passed."""
        frames: list[bytes] = []
        end = time.monotonic() + seconds
        while len(frames) < count and self.wait(max(0.0, end - time.monotonic())):
            frames += self.receive()
        return frames

    def _check(self) -> None:
        if error := self.queues.error():
            raise GuestError(f"the device broke the ring: {error.sentence}")

    def statistics(self) -> dict[str, Any]:
        """Frames and bytes both ways (as the guest sees them: sent, received), and drops."""
        sent, received = self.queues.sent, self.queues.received
        return {
            "sent": int(sent["frames"][0]), "received": int(received["frames"][0]),
            "unsent": int(sent["drops"][0][Reason.NO_BUFFERS]),
            "drops": drops_by_name(received[0]),
        }

    def close(self) -> None:
        """Hang up and give everything back. Idempotent."""
        self.front.close()
        if self._inflight:
            self._inflight.close()
        self.queues.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _connect(path: str, seconds: float) -> FrontEnd:
    """Connect, again and again until somebody listens or ``seconds`` are over."""
    end = time.monotonic() + seconds
    while True:
        try:
            return FrontEnd.connect(path, max(RETRY_SECONDS, end - time.monotonic()))
        except SocketError:
            if time.monotonic() > end:
                raise
            time.sleep(RETRY_SECONDS)
