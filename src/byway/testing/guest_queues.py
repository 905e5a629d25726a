# SPDX-License-Identifier: Apache-2.0
"""The virtqueues of a fake guest: pairs of them in one shared region, and what they counted.

Used by byway.testing.guest.
"""

from collections.abc import Callable

from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.batch import MAX_FRAME
from byway.packet.counters import COUNTERS
from byway.packet.ethernet import longest_frame
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask
from byway.virtio.ring import RingError

GPA = 1 << 32
HEADER = 12  # bytes of the longest virtio header that a guest negotiates
_LONG_FRAMES = mask(Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_UFO, Feature.GUEST_USO4,
                    Feature.GUEST_USO6)


def buffer_size(mtu: int, features: int) -> int:
    """Bytes of a buffer that takes any frame (5.1.6.3.1): where the device may send frames to be
    cut and cannot merge buffers, the longest of those."""
    longest = longest_frame(mtu)
    if features & _LONG_FRAMES and not features & mask(Feature.MRG_RXBUF):
        longest = MAX_FRAME
    return -(-(longest + HEADER) // 256) * 256


def rx_index(pair: int) -> int:
    """The ring index of a pair's receive queue (5.1.2)."""
    return 2 * pair


def tx_index(pair: int) -> int:
    """The ring index of a pair's transmit queue."""
    return 2 * pair + 1


class GuestQueues:
    """``pairs`` queue pairs of ``size`` entries with buffers of ``buffer`` bytes.

    ``rx``, ``tx``: the queues; ``received``, ``sent``: COUNTERS of all together. ``memory`` makes
    the region of so many bytes.
    """

    def __init__(self, pairs: int, size: int, mtu: int, buffer: int,
                 memory: Callable[[int], Region]) -> None:
        self.size = size
        self.longest = longest_frame(mtu)
        self.received, self.sent = alloc(COUNTERS, 1), alloc(COUNTERS, 1)
        each = DriverQueue.bytes_needed(size, buffer)
        self.region = memory(2 * pairs * each)
        self.rx: list[DriverQueue] = []
        self.tx: list[DriverQueue] = []
        try:
            for pair in range(pairs):
                self.rx.append(DriverQueue(
                    self.region, rx_index(pair) * each, GPA, size, buffer, receive=True))
                self.tx.append(DriverQueue(
                    self.region, tx_index(pair) * each, GPA, size, buffer, receive=False))
        except BaseException:
            self.close()
            raise

    def by_index(self) -> dict[int, DriverQueue]:
        """All queues by ring index, in order."""
        found = {}
        for pair, (rx, tx) in enumerate(zip(self.rx, self.tx, strict=True)):
            found[rx_index(pair)], found[tx_index(pair)] = rx, tx
        return found

    def start(self, features: int) -> None:
        """All rings anew, for negotiated ``features``."""
        for queues, counters in ((self.rx, self.received), (self.tx, self.sent)):
            for queue in queues:
                queue.start(features, address_of(counters), self.longest)

    def resume(self) -> None:
        """Make all rings ready for another device (see DriverQueue.resume)."""
        for queue in [*self.rx, *self.tx]:
            queue.resume()

    def error(self) -> RingError | None:
        """Why a queue is broken, None where all are sound."""
        for queue in [*self.rx, *self.tx]:
            if error := int(queue.record["error"][0]):
                return RingError(error)
        return None

    def close(self) -> None:
        """Give fds and memory back. Idempotent."""
        for queue in [*self.rx, *self.tx]:
            queue.close()
        self.region.close()
