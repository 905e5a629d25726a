# SPDX-License-Identifier: Apache-2.0
"""The UDP sockets of an underlay: one for each rx queue, one for each source port.

Used by underlay.py. Sources: udp(7), ip(7), ipv6(7), socket(7); RFC 7348, RFC 6936 (UDP without
checksums over IPv6).

Checksums. RFC 7348 lets senders choose and has receivers accept both. Here they are sent: NICs make
them for nothing, and the kernel takes and joins many datagrams at once (UDP_SEGMENT, UDP_GRO) only
with them. "no" sends none. "yes" takes no datagrams without them either, over IPv6 (over IPv4 the
kernel cannot be told to).
"""

import ctypes
import errno
import random
import socket
import struct
from typing import Protocol

from byway.packet.vxlan import FIRST_SOURCE, LAST_SOURCE
from byway.ports.packet_socket import use_large_buffers
from byway.ports.port import PortError

BUFFERS = 8 << 20
SOURCES = 16  # source ports that flows are spread over
_TRIES = 64  # random port numbers, before there is none to be had
_SO_NO_CHECK, _SO_ATTACH_FILTER, _SO_MEMINFO = 11, 26, 55
_IP_MTU_DISCOVER, _IP_RECVTOS, _IPV6_MTU_DISCOVER = 10, 13, 23
_PROBE, _INTERFACE = 3, 4  # the interface's MTU counts; DF is set, or is not
_SOL_UDP, _UDP_NO_CHECK6_TX, _UDP_NO_CHECK6_RX, _UDP_GRO = 17, 101, 102, 104
_TAKE_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)  # struct sock_filter: BPF_RET | BPF_K, 0
_MEMINFO = struct.Struct("=9I")  # linux/sock_diag.h: the last is SK_MEMINFO_DROPS


class Wanted(Protocol):
    """What an underlay is to be (control.model.UnderlayConfig)."""

    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def checksum(self) -> str: ...
    @property
    def dont_fragment(self) -> bool: ...
    @property
    def ttl(self) -> int: ...


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def name_of(address: str, port: int) -> bytes:
    """A struct sockaddr_in or sockaddr_in6."""
    family = family_of(address)
    packed = socket.inet_pton(family, address)
    start = struct.pack("=H", family) + struct.pack(">H", port)
    if family == socket.AF_INET:
        return start + packed + bytes(8)
    return start + bytes(4) + packed + bytes(4)


def dropped(sock: socket.socket) -> int:
    """Datagrams that the kernel had no room for, or whose checksum was wrong."""
    found = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    return int(_MEMINFO.unpack(found)[-1])


def receiving(wanted: Wanted, count: int) -> list[socket.socket]:
    """``count`` sockets for what comes from other hosts, among which it is spread by outer flow.
    PortError."""
    made: list[socket.socket] = []
    try:
        for k in range(count):
            made.append(_receiver(wanted, first=k == 0))
    except OSError as error:
        _close(made)
        raise _refusal(wanted, error) from None
    return made


def _receiver(wanted: Wanted, first: bool) -> socket.socket:
    made = _socket(wanted.address)
    try:
        made.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            made.setsockopt(_SOL_UDP, _UDP_NO_CHECK6_RX, int(wanted.checksum != "yes"))
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
        # The first one is bound alone: so another switch, or a vxlan interface, is found out.
        if not first:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((wanted.address, wanted.port))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        made.close()
        raise
    return made


def sending(wanted: Wanted) -> list[socket.socket]:
    """SOURCES sockets to send by, each with a port number of its own. PortError."""
    made: list[socket.socket] = []
    try:
        for _ in range(SOURCES):
            made.append(_sender(wanted))
    except OSError as error:
        _close(made)
        raise _refusal(wanted, error) from None
    return made


def _sender(wanted: Wanted) -> socket.socket:
    made = _socket(wanted.address)
    try:
        program = ctypes.create_string_buffer(_TAKE_NOTHING)  # nobody has anything to say here
        made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER,
                        struct.pack("@HP", 1, ctypes.addressof(program)))
        cut = _PROBE if wanted.dont_fragment else _INTERFACE
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, wanted.ttl)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, cut)
            made.setsockopt(_SOL_UDP, _UDP_NO_CHECK6_TX, int(wanted.checksum == "no"))
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, wanted.ttl)
            made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, cut)
            made.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, int(wanted.checksum == "no"))
        _bind_anywhere(made, wanted.address)
    except OSError:
        made.close()
        raise
    return made


def _bind_anywhere(sock: socket.socket, address: str) -> None:
    """Give it a port number that nobody has, of those for flows."""
    for left in reversed(range(_TRIES)):
        try:
            sock.bind((address, random.randint(FIRST_SOURCE, LAST_SOURCE)))
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or left == 0:
                raise


def _socket(address: str) -> socket.socket:
    made = socket.socket(family_of(address),
                         socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    use_large_buffers(made, BUFFERS)
    return made


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _refusal(wanted: Wanted, error: OSError) -> PortError:
    place = f"{wanted.address} port {wanted.port}"
    if error.errno == errno.EADDRINUSE:
        return PortError("port", f"{place} is in use already",
                         "look for a vxlan interface or another switch: ss -ulnp")
    if error.errno == errno.EADDRNOTAVAIL:
        return PortError("address", f"{wanted.address} is none of this machine's addresses",
                         "take one that `ip address` shows")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortError("port", f"{place} may not be used", "choose a port number from 1024 on")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return PortError("port", "there are too many open files", "raise the limit: ulimit -n")
    return PortError("address", f"{place}: {error.strerror}", "choose another address")
