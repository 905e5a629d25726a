# SPDX-License-Identifier: Apache-2.0
"""The af-packet port: attaches to an interface of the Linux kernel that is there already.

Used by control; the kernels are in af_packet_kernels.py, the sockets in packet_socket.py, the
interface is followed by links.py.

The interface (a NIC, a veth, a bond) stays the kernel's: Byway receives what it receives, and sends
by it. Checksums and segmentation stay undone across it, both ways, as the virtio header of each
frame says. With several queues the kernel spreads what comes by flow over as many sockets
(PACKET_FANOUT).

The port is up while the interface exists, is up and has a carrier. When one of that ends, the port
leaves the plan and gives sockets and rings back; when all of it is so again, they are made anew.
Until the interface is there for the first time the port is waiting. Where sockets cannot be had
though it is there (no memory, too many files) it is tried again every RETRY_SECONDS.
"""

import asyncio
import errno
import os
from collections.abc import Sequence
from typing import Any

from byway.machine.layout import address_of, alloc
from byway.machine.netns import NoNamespaceError, inside
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.ethernet import longest_frame
from byway.packet.reason import Reason
from byway.ports.af_packet_kernels import PACKET
from byway.ports.links import ETHERNET, Follower, Link
from byway.ports.packet_socket import PacketSocket, kernel_takes, open_sockets
from byway.ports.port import Host, Port, PortError
from byway.ports.record import Kind

RETRY_SECONDS = 1.0
_GONE = (errno.ENODEV, errno.ENXIO, errno.ENETDOWN)  # since we looked; more news will come


class AfPacketPort(Port):
    """An interface of somebody else's."""

    kind = Kind.PACKET

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self._sockets: Sequence[PacketSocket] = ()
        self._queues = alloc(PACKET, self.queues)
        self._lost = alloc(COUNTERS, 1)  # what the kernel could not hand over
        self._lost_before = 0  # by sockets that are closed
        self._follower = Follower(host, config.ifname, config.netns, self._on_link)
        self._link: Link | None = None
        self._problem: PortError | None = None
        self._seen = False  # was it ever up?
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        try:
            self._follower.start()
        except NoNamespaceError as error:
            raise PortError("netns", f'"{self.config.netns}" may not be entered ({error.strerror})',
                            "give byway CAP_SYS_ADMIN") from None
        if self._problem:  # at the start; later it is the port's reason
            self.close()
            raise self._problem

    def _on_link(self, link: Link | None, reason: str) -> None:
        """News of the interface: it can be used, or why not."""
        self._leave(reason)
        if link is not None:
            self._attach(link)

    def _attach(self, link: Link) -> None:
        self._problem = None
        if link.type != ETHERNET:
            self._problem = PortError(
                "ifname", f'the interface "{link.name}" is not Ethernet', "name one that is")
        else:
            try:
                self._sockets = inside(self.config.netns, lambda: open_sockets(
                    link.index, longest_frame(self.mtu), self.queues))
            except OSError as error:
                if error.errno in _GONE:
                    self.reason = f'the interface "{link.name}" went away'
                    return
                self._problem = _refusal(error)
                self._timer = self.host.loop.call_later(RETRY_SECONDS, self._retry)
        if self._problem:
            self.reason = str(self._problem)
            return
        self._link, self._seen = link, True
        self._serve()

    def _retry(self) -> None:
        self._timer = None
        if self._follower.link:
            self._attach(self._follower.link)

    def _serve(self) -> None:
        takes = kernel_takes(os.uname().release)
        for k, (sock, row) in enumerate(zip(self._sockets, self._queues, strict=True)):
            row["fd"], row["ring"], row["slot"] = sock.fileno(), sock.address, sock.size
            row["mask"], row["next"] = sock.slots - 1, 0
            row["rx"], row["tx"] = address_of(self.rx[k:]), address_of(self.tx[k:])
            self.rxqs[k]["queue"] = self.txqs[k]["queue"] = address_of(self._queues[k:])
            self.txqs[k]["takes"] = takes
            self.wake_fds[k] = sock.fileno()
        self.serving = list(range(self.queues))
        self.record["ntx"] = self.queues
        self.bring_up()

    def _leave(self, reason: str) -> None:
        """Workers first, then the sockets and their rings."""
        self.take_down(reason, "down" if self._seen else "waiting")
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for k, sock in enumerate(self._sockets):
            sock.close()
            self._lost_before += sock.dropped()
            self.rxqs[k]["queue"] = self.txqs[k]["queue"] = 0
            self.wake_fds[k] = -1
        self._sockets, self._link = (), None

    def on_trouble(self) -> None:
        self._leave(self.trouble())

    def close(self) -> None:
        self._follower.close()
        self._seen = True
        self._leave("closed")

    def details(self) -> dict[str, Any]:
        lost = self._lost_before + sum(sock.dropped() for sock in self._sockets)
        self._lost[0]["drops"][Reason.RING_FULL] = lost
        namespace, link = self.config.netns, self._link
        place = f" in {namespace}" if namespace else ""
        return {
            "peer": f"{self.config.ifname}{place}",
            "drops": drops_by_name(*self.rx, *self.tx, *self._lost),
            "queues_enabled": len(self._sockets),
            "interface": {"index": link.index, "mtu": link.mtu} if link else None,
            "ring": {"slots": self._sockets[0].slots, "slot_bytes": self._sockets[0].size}
            if self._sockets else None,
        }


def _refusal(error: OSError) -> PortError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return PortError("kind", "packet sockets may not be opened", "give byway CAP_NET_RAW")
    if error.errno in (errno.ENOMEM, errno.ENOBUFS):
        return PortError("queues", "there is no memory for the rings", "use fewer queues")
    if error.errno == errno.EAFNOSUPPORT:
        return PortError("kind", "the kernel has no packet sockets", "modprobe af_packet")
    return PortError("kind", f"the kernel refused a packet socket: {error.strerror}",
                     "see `byway doctor` for what this machine lacks")
