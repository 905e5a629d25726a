# SPDX-License-Identifier: Apache-2.0
"""Which interface of this machine has an address, and how much it carries.

Used by control (the underlay's MTU). Sources: rtnetlink(7), netdevice(7), linux/if_addr.h. Written
by hand and not with pyroute2, whose import alone takes half a second.
"""

import errno
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator

_RTM_NEWADDR, _RTM_GETADDR, _NLMSG_DONE, _NLMSG_ERROR = 20, 22, 3, 2
_REQUEST_DUMP = 0x1 | 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port (netlink(7))
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # length, type; aligned to 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SIOCGIFMTU = 0x8921


def mtu_of_address(address: str) -> int | None:
    """The MTU, in bytes, of the interface in this network namespace that has the address (IPv4 or
    IPv6, as text); None: no interface has it. OSError: the kernel does not answer."""
    wanted = ipaddress.ip_address(address).packed
    if wanted[0] == 127 and len(wanted) == 4:  # RFC 1122 3.2.1.3: all of them are here
        return _mtu(socket.if_nametoindex("lo"))
    for index, found in _addresses(socket.AF_INET6 if ":" in address else socket.AF_INET):
        if found == wanted:
            return _mtu(index)
    return None


def _mtu(index: int) -> int | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            request = struct.pack("16si20x", socket.if_indextoname(index).encode(), 0)
            answer = fcntl.ioctl(any_socket, _SIOCGIFMTU, request)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO):  # it has just gone
                return None
            raise
    mtu: int = struct.unpack("16si20x", answer)[1]
    return mtu


def _addresses(family: int) -> Iterator[tuple[int, bytes]]:
    """The index of an interface and an address that it has, for every one of a family."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as netlink:
        netlink.settimeout(5.0)
        body = _ADDRESS.pack(family, 0, 0, 0, 0)
        netlink.sendto(_HEADER.pack(_HEADER.size + len(body), _RTM_GETADDR, _REQUEST_DUMP, 1, 0)
                       + body, (0, 0))
        while True:
            data = netlink.recv(1 << 16)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind = _HEADER.unpack_from(data, at)[:2]
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                    raise OSError(number, "the kernel does not list its addresses")
                if kind == _RTM_NEWADDR:
                    yield from _of(data[at + _HEADER.size:at + length])
                at += max(_HEADER.size, (length + 3) & ~3)


def _of(message: bytes) -> Iterator[tuple[int, bytes]]:
    index = _ADDRESS.unpack_from(message)[4]
    at = _ADDRESS.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind in (_IFA_ADDRESS, _IFA_LOCAL):  # of a point-to-point link, LOCAL is ours
            yield index, message[at + _ATTRIBUTE.size:at + length]
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
