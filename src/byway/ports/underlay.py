# SPDX-License-Identifier: Apache-2.0
"""The underlay: what carries tunnels to other hosts, by UDP sockets of the kernel.

Used by control.overlay; uses underlay_sockets.py, tunnel_kernels.py (what comes in) and
packet.tunnels (whose it is). The tunnels themselves, one a remote host, are in tunnel.py.

It is a port that belongs to no network: it has rx queues, one for each worker, and what comes out
of them are frames of many networks from many hosts. Nothing is sent to it.

Where the underlay has an *uplink*, a port of Byway's own that speaks Ethernet and IP there, there
are no sockets and no rx queues: frames come in and go out by that port.
"""

import select
import socket
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.packet.tunnels import Remotes, Vnis
from byway.packet.vxlan import longest_inner
from byway.ports.datagrams import CONTROL as CONTROL_AT
from byway.ports.datagrams import CONTROL_LENGTH, IOV, IOV_COUNT, MESSAGE
from byway.ports.port import Host, Port
from byway.ports.record import Kind
from byway.ports.tunnel_code import tunnels
from byway.ports.tunnel_kernels import CONTROL, MESSAGES, NAME, NAME_LENGTH, PLACE, RECEIVER
from byway.ports.underlay_sockets import dropped, receiving, sending

_BYTE: Any = np.dtype("u1")
_WORD: Any = np.dtype("<i8")


@dataclass(frozen=True)
class Carrier:
    """What a port's configuration has, for a port that nobody configured."""

    name: str
    queues: int
    kind: str = "tunnel"
    network: str = ""


class Received:
    """The memory of one rx queue: its record, and room for what one call reads."""

    def __init__(self) -> None:
        self.record = alloc(RECEIVER, 1)
        self._messages = alloc(_BYTE, MESSAGES * MESSAGE)
        self._names = alloc(_BYTE, MESSAGES * NAME)
        self._controls = alloc(_BYTE, MESSAGES * CONTROL)
        self._vectors = alloc(_WORD, MESSAGES * 2)
        self._places = alloc(_BYTE, MESSAGES * PLACE)  # 4 MiB, of which what is used is there
        self._poll = alloc(_BYTE, 8)
        row = self.record[0]
        row["messages"], row["names"] = address_of(self._messages), address_of(self._names)
        row["controls"], row["places"] = address_of(self._controls), address_of(self._places)
        row["poll"], row["lot"], row["join"] = address_of(self._poll), MESSAGES, 1
        words = self._messages.view(_WORD).reshape(MESSAGES, MESSAGE // 8)
        for k in range(MESSAGES):
            vector = self._vectors[2 * k :]
            vector[:2] = address_of(self._places) + PLACE * k, PLACE
            words[k, 0], words[k, NAME_LENGTH // 8] = address_of(self._names) + NAME * k, NAME
            words[k, IOV // 8], words[k, IOV_COUNT // 8] = address_of(vector), 1
            words[k, CONTROL_AT // 8] = address_of(self._controls) + CONTROL * k
            words[k, CONTROL_LENGTH // 8] = CONTROL
        self.address = address_of(self.record)

    def use(self, fd: int) -> None:
        """Read from this socket."""
        self._poll[:] = np.frombuffer(struct.pack("=ihh", fd, select.POLLIN, 0), np.uint8)
        row = self.record[0]
        row["fd"] = fd
        row["got"] = row["at"] = row["offset"] = 0


class Underlay(Port):
    """The underlay of a switch with ``workers`` workers.

    ``config``: control.model.UnderlayConfig, its mtu filled in. ``vnis``, ``remotes``: whose frames
    are whose. ``uplink``: the port that is used instead of sockets.
    """

    kind = Kind.TUNNEL

    def __init__(self, config: Any, index: int, host: Host, vnis: Vnis, remotes: Remotes,
                 workers: int, uplink: Port | None = None) -> None:
        super().__init__(Carrier("underlay", workers), index, host, config.mtu)
        self.settings = config
        self.remotes = remotes
        self.vnis = vnis
        self.uplink = uplink
        self.version = 6 if ":" in config.address else 4
        self.longest = longest_inner(config.mtu, self.version)  # bytes of a frame
        self.senders: list[socket.socket] = []
        self._receivers: list[socket.socket] = []
        self._queues: list[Received] = []
        self._lost = alloc(COUNTERS, 1)

    def open(self) -> None:
        if self.uplink:
            self.state, self.reason = "up", ""
            return
        try:
            self._receivers = receiving(self.settings, self.queues)
            self.senders = sending(self.settings)
        except BaseException:
            self._close_sockets()
            raise
        code = tunnels()[0].address
        for k, sock in enumerate(self._receivers):
            queue = Received()
            row = queue.record[0]
            row["code"], row["rx"] = code, address_of(self.rx[k:])
            row["vnis"], row["remotes"] = self.vnis.address, self.remotes.address
            row["origin"] = self.index
            queue.use(sock.fileno())
            self._queues.append(queue)
            self.rxqs[k]["queue"] = queue.address
            self.wake_fds[k] = sock.fileno()
        self.serving = list(range(self.queues))
        self.bring_up()

    def close(self) -> None:
        self.take_down("closed")
        self._close_sockets()
        self.rxqs["queue"] = 0
        self._queues = []
        self.wake_fds = [-1] * self.queues

    def _close_sockets(self) -> None:
        for sock in self._receivers + self.senders:
            sock.close()
        self._receivers, self.senders = [], []

    def details(self) -> dict[str, Any]:
        if self._receivers:
            self._lost[0]["drops"][Reason.RING_FULL] = sum(map(dropped, self._receivers))
        config = self.settings
        return {
            "address": config.address,
            "udp_port": config.port,
            "uplink": self.uplink.name if self.uplink else None,
            "source_ports": [sock.getsockname()[1] for sock in self.senders],
            "drops": drops_by_name(*self.rx, *self.tx, *self._lost),
        }
