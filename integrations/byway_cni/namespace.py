# SPDX-License-Identifier: Apache-2.0
"""The container's network namespace, looked at from inside: is it one, and what is in it?

Used by attach, check and detach. Interfaces are made by the switch; here they are only looked at,
and removed where no switch does it. A plugin is a process with one thread, which may change over
and come back.

Source: setns(2), ioctl_ns(2), rtnetlink(7), netlink(7).
"""

import _socket as socket
import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from byway_cni.problem import CniError, Code

OWN = "/proc/self/ns/net"
_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_LINK_REMOVAL, _LINK_DUMP, _ADDRESS_DUMP, _ROUTE_DUMP = 17, 18, 22, 26  # RTM_DELLINK, RTM_GET...
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ACKNOWLEDGED = 0x005  # NLM_F_REQUEST | NLM_F_ACK
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths of dst and src, tos, table, ..., flags
_ATTRIBUTE = struct.Struct("=HH")
_IFF_UP = 1
_TABLE_MAIN = 254

T = TypeVar("T")


class Link(NamedTuple):
    """An interface as the kernel has it."""

    place: int
    mac: str
    mtu: int
    up: bool
    addresses: set[str]  # with prefix length
    routes: set[tuple[str, str]]  # (destination, gateway or "")


def check(path: str) -> None:
    """CniError where `path` is no network namespace that a container could have."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise CniError(Code.NO_CONTAINER, f"the network namespace {path} is gone",
                       "start the container again") from None
    except OSError as error:
        raise CniError(Code.NAMESPACE, f"{path} cannot be opened: {error.strerror}",
                       "run the plugin as root") from None
    try:
        kind = fcntl.ioctl(file, _NS_GET_NSTYPE)
        same = os.path.samestat(os.fstat(file), os.stat(OWN))
    except OSError:
        kind, same = 0, False
    finally:
        os.close(file)
    if kind != _CLONE_NEWNET:
        raise CniError(Code.NAMESPACE, f"{path} is no network namespace",
                       "pass that of the container, such as /run/netns/NAME")
    if same:
        raise CniError(Code.NAMESPACE, f"{path} is the host's own network namespace",
                       "a container on the host's network needs no plugin")


def inside(path: str, work: Callable[[], T]) -> T:
    """What `work` answers in the namespace `path`."""
    own = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(other)
        finally:
            os.close(other)
        try:
            return work()
        finally:
            _enter(own)
    except OSError as error:
        raise CniError(Code.NAMESPACE, f"{path} cannot be entered: {error.strerror}",
                       "run the plugin with CAP_SYS_ADMIN") from None
    finally:
        os.close(own)


def _enter(file: int) -> None:
    if sys.version_info >= (3, 12):
        os.setns(file, _CLONE_NEWNET)
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(file, _CLONE_NEWNET) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def exists(ifname: str) -> bool:
    """Whether the namespace of this thread has an interface of that name."""
    try:
        socket.if_nametoindex(ifname)
    except OSError:
        return False
    return True


def look(ifname: str) -> Link | None:
    """An interface of the namespace of this thread."""
    try:
        index = socket.if_nametoindex(ifname)
    except OSError:
        return None
    found = next((part for part in _links() if part[0] == index), None)
    if found is None:
        return None
    return Link(*found, addresses=set(_addresses(index)), routes=set(_routes(index)))


def remove(ifname: str) -> None:
    """Remove an interface of the namespace of this thread. Idempotent. OSError."""
    if not exists(ifname):
        return
    index = socket.if_nametoindex(ifname)
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    try:
        connection.settimeout(5.0)
        request = _LINK.pack(0, 0, index, 0, 0)
        connection.send(_HEADER.pack(_HEADER.size + len(request), _LINK_REMOVAL, _ACKNOWLEDGED,
                                     1, 0) + request)
        answer = connection.recv(1 << 16)
    finally:
        connection.close()
    error = -int.from_bytes(answer[_HEADER.size:_HEADER.size + 4], "little", signed=True)
    if error not in (0, errno.ENODEV):  # nlmsgerr: 0 acknowledges
        raise OSError(error, os.strerror(error))


def _links() -> Iterator[tuple[int, str, int, bool]]:
    for body in _dump(_LINK_DUMP, _LINK.pack(0, 0, 0, 0, 0)):
        _, _, index, flags, _ = _LINK.unpack_from(body)
        parts = _attributes(body[_LINK.size:])
        yield (index, ":".join(f"{byte:02x}" for byte in parts.get(1, b"")),  # IFLA_ADDRESS
               int.from_bytes(parts.get(4, b""), "little"), bool(flags & _IFF_UP))  # IFLA_MTU


def _addresses(index: int) -> Iterator[str]:
    for body in _dump(_ADDRESS_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
        family, length, _, _, place = _ADDRESS.unpack_from(body)
        parts = _attributes(body[_ADDRESS.size:])
        raw = parts.get(2) or parts.get(1)  # IFA_LOCAL, IFA_ADDRESS
        if place == index and raw:
            yield f"{socket.inet_ntop(family, raw)}/{length}"


def _routes(index: int) -> Iterator[tuple[str, str]]:
    for body in _dump(_ROUTE_DUMP, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        family, length, _, _, table, *_ = _ROUTE.unpack_from(body)
        parts = _attributes(body[_ROUTE.size:])
        if table != _TABLE_MAIN or int.from_bytes(parts.get(4, b""), "little") != index:  # RTA_OIF
            continue
        if family in (socket.AF_INET, socket.AF_INET6):
            zero = bytes(4 if family == socket.AF_INET else 16)
            gateway = parts.get(5)  # RTA_GATEWAY
            yield (f"{socket.inet_ntop(family, parts.get(1, zero))}/{length}",  # RTA_DST
                   socket.inet_ntop(family, gateway) if gateway else "")


def _dump(kind: int, request: bytes) -> Iterator[bytes]:
    """The bodies of a dump's messages."""
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    try:
        connection.settimeout(5.0)
        connection.send(_HEADER.pack(_HEADER.size + len(request), kind, _DUMP, 1, 0) + request)
        while True:
            data = connection.recv(1 << 18)
            while len(data) >= _HEADER.size:
                length, what, *_ = _HEADER.unpack_from(data)
                if what == _DONE:
                    return
                if what == _ERROR:
                    raise OSError(errno.EIO, "netlink refuses")
                yield data[_HEADER.size:length]
                data = data[(length + 3) & ~3:]
    finally:
        connection.close()


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[_ATTRIBUTE.size:length]
        data = data[(length + 3) & ~3:]
    return found
