# SPDX-License-Identifier: Apache-2.0
"""What the ports share that drive somebody else's device: their features, their queues.

Used by virtio_user (the device is a vhost-user back end) and vhost_kernel (the Linux kernel);
uses virtio's driver queues. A kind adds how it reaches its device.

Byway is the driver: what the device receives (its ring 2k + 1) is tx here, what it fills (2k) is
rx. The memory of all queues is one region, of which the device knows the first byte as guest
address GPA.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from byway.machine.layout import address_of
from byway.machine.regions import Region
from byway.packet.ethernet import longest_frame
from byway.ports.port import Host, Port
from byway.ports.record import Kind
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, has, mask, names
from byway.virtio.negotiation import BY_NAME, closure, explain
from byway.virtio.offloads import host_takes

RING_SIZE = 1024
MIN_BUFFER = 2048
HEADER = 12
GPA = 1 << 32
# A frame with one of these may have 64 KiB. Without MRG_RXBUF each buffer would have to.
LARGE = mask(Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_ECN, Feature.GUEST_UFO,
             Feature.GUEST_USO4, Feature.GUEST_USO6)
NOT_TAKEN = "not without mrg_rxbuf: each buffer would have to hold 64 KiB"
# What a driver of ours can do with any device.
SUPPORTED = LARGE | mask(
    Feature.CSUM, Feature.GUEST_CSUM, Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.HOST_ECN,
    Feature.HOST_USO, Feature.MRG_RXBUF, Feature.EVENT_IDX, Feature.VERSION_1, Feature.RING_PACKED,
    Feature.IN_ORDER, Feature.MQ, Feature.CTRL_VQ)


def ring(pair: int, transmit: bool) -> int:
    """The device's number of a queue (VIRTIO 1.2, 5.1.2)."""
    return 2 * pair + int(transmit)


class QueuePairs:
    """``count`` pairs of driver queues in one region, for negotiated ``features``."""

    def __init__(self, name: str, count: int, features: int, mtu: int) -> None:
        self.features = features
        whole = max(MIN_BUFFER, -(-(longest_frame(mtu) + HEADER) // 256) * 256)
        each = MIN_BUFFER if has(features, Feature.MRG_RXBUF) else whole
        sizes = (DriverQueue.bytes_needed(RING_SIZE, each),
                 DriverQueue.bytes_needed(RING_SIZE, whole))
        self.region = Region.create(count * sum(sizes), f"byway {name}")
        self.receive: list[DriverQueue] = []
        self.transmit: list[DriverQueue] = []
        try:
            for pair in range(count):
                at = pair * sum(sizes)
                self.receive.append(DriverQueue(self.region, at, GPA, RING_SIZE, each, True))
                self.transmit.append(
                    DriverQueue(self.region, at + sizes[0], GPA, RING_SIZE, whole, False))
        except OSError:  # no file descriptors left
            self.close()
            raise

    def __len__(self) -> int:
        return len(self.receive)

    def rings(self) -> list[tuple[int, DriverQueue]]:
        """Every queue with the device's number of it."""
        both = zip(self.receive, self.transmit, strict=True)
        return [(ring(pair, transmit), queue) for pair, queues in enumerate(both)
                for transmit, queue in zip((False, True), queues, strict=True)]

    def start(self, rx: Any, tx: Any, mtu: int) -> None:
        """Begin anew with empty rings. ``rx``, ``tx``: an array of COUNTERS each."""
        for pair in range(len(self)):
            for queue, counters in ((self.receive[pair], rx), (self.transmit[pair], tx)):
                queue.start(self.features, address_of(counters[pair:]), longest_frame(mtu))

    def close(self) -> None:
        """Give everything back. Idempotent; the device is gone, or has memory of its own."""
        for queue in self.receive + self.transmit:
            queue.close()
        self.region.close()


class DriverPort(Port):
    """A device of somebody else's, driven by us. ``pairs``: while there is one."""

    kind = Kind.DRIVER
    supported = SUPPORTED
    unsupported: ClassVar[Mapping[Feature, str]] = {}
    # Features that need nothing of the device. Several pairs need a control queue (VIRTIO 1.2,
    # 5.1.3.1), by which a guest would say how many it uses; we tell the device itself.
    ours = mask(Feature.CTRL_VQ)

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self.off = mask(*(BY_NAME[name] for name in getattr(config, "features_off", ())))
        self.offered = 0
        self.acked: int | None = None
        self.pairs: QueuePairs | None = None

    def choose(self, offered: int) -> int:
        """What to take of what a device offers."""
        features = closure(self.supported & ~self.off & (offered | self.ours)) & ~self.ours
        return features if has(features, Feature.MRG_RXBUF) else features & ~LARGE

    def serve(self, pairs: QueuePairs) -> None:
        """Let workers serve these queues, which their device has."""
        self.pairs = pairs
        takes = host_takes(pairs.features)
        for k, (receive, transmit) in enumerate(zip(pairs.receive, pairs.transmit, strict=True)):
            self.rxqs[k]["queue"] = receive.address
            self.txqs[k]["queue"], self.txqs[k]["takes"] = transmit.address, takes
            self.wake_fds[k] = receive.call
        self.serving = list(range(len(pairs)))
        self.record["ntx"] = len(pairs)
        self.bring_up()

    def free(self) -> None:
        """Give the queues back; after ``take_down``. Idempotent."""
        if self.pairs:
            self.pairs.close()
            self.pairs = None
        self.offered, self.acked = 0, None

    def _why_off(self) -> dict[str, str]:
        """Why features are off; before there is a device, it is taken to have them all."""
        known = self.acked is not None
        return explain(self.supported, self.off, (self.offered | self.ours) if known else -1,
                       (self.acked or 0) | self.ours if known else None,
                       unsupported=self.unsupported, not_taken=NOT_TAKEN)

    def details(self) -> dict[str, Any]:
        up = self.state == "up"
        return {
            "features": {
                "offered": names(self.offered),
                "acked": names(self.acked or 0),
                "off": self._why_off(),
            },
            "queues_enabled": len(self.pairs) if self.pairs and up else 0,
            "rings": [self._ring(k, queue) for k, queue in self.pairs.rings()] if self.pairs
            else [],
        }

    def _ring(self, index: int, queue: DriverQueue) -> dict[str, Any]:
        packed = has(self.acked or 0, Feature.RING_PACKED)
        counters = (self.rx if queue.receive else self.tx)[index // 2]
        return {
            "index": index,
            "way": "rx" if queue.receive else "tx",
            "format": "packed" if packed else "split",
            "size": queue.size,
            "enabled": self.state == "up",
            "frames": int(counters["frames"]),
            "bytes": int(counters["bytes"]),
            "calls": int(queue.record["kicks"][0]),
        }
