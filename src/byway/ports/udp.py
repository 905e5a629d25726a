# SPDX-License-Identifier: Apache-2.0
"""The udp port: a link to one peer whose frames travel in UDP, one a datagram.

Used by control; the kernels are in udp_kernels.py. For tests and for simple links: there is no
tunnel header, no encryption and no authentication, so whoever can send with the peer's address can
send frames. Both ends are a socket, bound and connected, so the kernel refuses what comes from
anybody else. That nobody listens at the other end (ECONNREFUSED) is no error: frames are lost, as
on a cable that is not plugged in, until somebody does.

A datagram carries what UDP can (65507 bytes over IPv4); checksums and segments are finished before.
"""

import ctypes
import errno
import select
import socket
import struct
from typing import Any

import numpy as np

from byway.machine.endpoint import split_endpoint
from byway.machine.layout import address_of, alloc
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.ethernet import longest_frame
from byway.packet.reason import Reason
from byway.ports.packet_socket import use_large_buffers
from byway.ports.port import Host, Port, PortError
from byway.ports.record import Kind
from byway.ports.udp_kernels import UDP

BUFFERS = 4 << 20
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _SO_MEMINFO = 26, 27, 55
_TAKE_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)  # struct sock_filter: BPF_RET | BPF_K, 0
_MEMINFO = struct.Struct("=9I")  # linux/sock_diag.h: the last is SK_MEMINFO_DROPS


class UdpPort(Port):
    """A peer behind a UDP socket."""

    kind = Kind.UDP

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self._socket: socket.socket | None = None
        self._queue = alloc(UDP, 1)
        self._poll = alloc(np.dtype("u1"), 8)
        self._lost = alloc(COUNTERS, 1)

    def open(self) -> None:
        self._socket = self._connected()
        fd = self._socket.fileno()
        self._poll[:] = np.frombuffer(struct.pack("=ihh", fd, select.POLLIN, 0), np.uint8)
        row = self._queue[0]
        row["fd"], row["longest"], row["poll"] = fd, longest_frame(self.mtu), address_of(self._poll)
        row["rx"], row["tx"] = address_of(self.rx), address_of(self.tx)
        self.rxqs["queue"] = self.txqs["queue"] = address_of(self._queue)
        self.wake_fds[0] = fd
        self.bring_up()

    def _connected(self) -> socket.socket:
        """The socket, in which nothing waits but what the peer sent."""
        local, remote = split_endpoint(self.config.local), split_endpoint(self.config.remote)
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        key = "local"
        try:
            use_large_buffers(made, BUFFERS)
            # Between bind and connect it would take what anybody sends.
            program = ctypes.create_string_buffer(_TAKE_NOTHING)
            made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER,
                            struct.pack("@HP", 1, ctypes.addressof(program)))
            made.bind(local)
            key = "remote"
            made.connect(remote)
            made.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        except OSError as error:
            made.close()
            raise _refusal(key, getattr(self.config, key), error) from None
        return made

    def on_trouble(self) -> None:
        self._leave(self.trouble())

    def close(self) -> None:
        self._leave("closed")

    def _leave(self, reason: str) -> None:
        self.take_down(reason)
        if self._socket:
            self._count_lost()
            self._socket.close()
            self._socket = None
        self.rxqs["queue"] = self.txqs["queue"] = 0

    def _count_lost(self) -> None:
        if self._socket:
            found = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            self._lost[0]["drops"][Reason.RING_FULL] = _MEMINFO.unpack(found)[-1]

    def details(self) -> dict[str, Any]:
        self._count_lost()
        return {
            "peer": self.config.remote,
            "local": self.config.local,
            "drops": drops_by_name(*self.rx, *self.tx, *self._lost),
        }


def _refusal(key: str, address: str, error: OSError) -> PortError:
    if error.errno == errno.EADDRINUSE:
        return PortError(key, f"{address} is in use already", "choose another port number")
    if error.errno == errno.EADDRNOTAVAIL:
        return PortError(key, f"{address} is none of this machine's addresses",
                         "take one that `ip address` shows")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortError(key, f"{address} may not be used", "choose a port number from 1024 on")
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return PortError(key, f"there is no way to {address}", "see `ip route get`")
    return PortError(key, f"{address}: {error.strerror}", "choose another address")
