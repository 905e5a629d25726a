# SPDX-License-Identifier: Apache-2.0
"""The vhost-kernel port: an interface of the Linux kernel, by a tap and the kernel's vhost-net.

Used by control. Uses tap (the interface), vhost.kernel (its device) and driver_port (the queues).

A tap alone costs a system call a frame. With vhost-net a thread of the kernel moves frames between
the tap and virtqueues in our memory; nothing is different for workers from a vhost-user device.
Checksums and segmentation stay undone across it, both ways: what the kernel's TCP hands over as
64 KiB arrives as 64 KiB.

Everything is made when the port is opened and is up at once: one tap file, one vhost-net file and
one pair of virtqueues for each queue pair. When somebody else removes the interface (with its
namespace, say) the port goes down, and says so.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from byway.ports.driver_port import GPA, DriverPort, QueuePairs
from byway.ports.port import Host, PortError
from byway.ports.tap import Interface, Tap, TapError
from byway.vhost.kernel import DEVICE, KernelVhost
from byway.virtio.features import Feature, has, header_length, mask

_USO = mask(Feature.GUEST_USO4, Feature.GUEST_USO6)


class VhostKernelPort(DriverPort):
    """An interface of the kernel."""

    supported = DriverPort.supported & ~mask(Feature.GUEST_UFO)
    unsupported: ClassVar[Mapping[Feature, str]] = {
        Feature.MTU: "the interface has the network's MTU, whoever asks",
        Feature.MAC: "the interface has its address by configuration",
        Feature.GUEST_UFO: "Linux makes no such frames any more",
        Feature.ANY_LAYOUT: "the bit means something else to vhost-net",
    }

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self._tap: Tap | None = None
        self._devices: list[KernelVhost] = []

    def open(self) -> None:
        config = self.config
        count = 1 if has(self.off, Feature.MQ) else self.queues
        wanted = Interface(config.ifname, config.netns, config.address, config.mac, self.mtu,
                           count, news=True)
        try:
            # First: without it no interface is to appear, not even for a moment.
            self._devices = [KernelVhost() for _ in range(count)]
            self._tap = Tap(wanted)
            pairs = self._negotiate(self._tap)
            self._start(self._tap, pairs)
        except TapError as error:
            self.close()
            raise PortError(error.key, error.problem, error.fix) from None
        except OSError as error:
            self.close()
            raise _refusal(error) from None
        self.host.loop.add_reader(self._tap.fileno(), self._on_news)
        self.serve(pairs)

    def choose(self, offered: int) -> int:
        features = super().choose(offered)
        # A tap takes both or none.
        return features if features & _USO == _USO else features & ~_USO

    def _negotiate(self, tap: Tap) -> QueuePairs:
        """Agree on features; -> the queues for them, which belong to the port."""
        self.offered = self._devices[0].offered | tap.features() | mask(Feature.MQ)
        features = self.choose(self.offered)
        if not has(features, Feature.VERSION_1):
            raise PortError("features.off", "a vhost-kernel port needs version_1", "leave it on")
        self.acked = features
        for device in self._devices:
            device.negotiate(features)
        tap.set_up(features, header_length(features))
        self.pairs = QueuePairs(self.name, len(tap.files), features, self.mtu)
        self.pairs.start(self.rx, self.tx, self.mtu)
        return self.pairs

    def _start(self, tap: Tap, pairs: QueuePairs) -> None:
        memory = [(pairs.region.address, pairs.region.size, GPA)]
        for index, queue in pairs.rings():
            device = self._devices[index // 2]
            if queue.receive:
                device.set_memory(memory)
                queue.post_all(kick=False)  # the worker's first look kicks
            device.start_ring(index % 2, queue.size, 0, queue.desc, queue.avail, queue.used,
                              queue.kick, queue.call)
        for device, file in zip(self._devices, tap.files, strict=True):
            device.attach(file)

    def _on_news(self) -> None:
        if self._tap and self._tap.removed():
            self._leave("the interface was removed")

    def on_trouble(self) -> None:
        self._leave(self.trouble())

    def _leave(self, reason: str) -> None:
        """Workers first, then the kernel's hands, then the interface and the memory."""
        self.take_down(reason)
        for device in self._devices:
            device.close()
        self._devices = []
        if self._tap:
            if self._tap.fileno() >= 0:
                self.host.loop.remove_reader(self._tap.fileno())
            self._tap.close()
            self._tap = None
        self.free()

    def close(self) -> None:
        self._leave("closed")

    def details(self) -> dict[str, Any]:
        namespace = self.config.netns
        place = f" in {namespace}" if namespace else ""
        return {**super().details(), "peer": f"{self.config.ifname}{place}"}


def _refusal(error: OSError) -> PortError:
    if isinstance(error, FileNotFoundError):
        return PortError("kind", f"there is no {DEVICE}", "modprobe vhost_net")
    if isinstance(error, PermissionError):
        return PortError("kind", f"{DEVICE} may not be used",
                         "join its group (mostly kvm), or be root")
    return PortError("kind", f"vhost-net refused: {error}",
                     "see `byway doctor` for what this machine lacks")
