# SPDX-License-Identifier: Apache-2.0
"""What the plugin looks up, and takes away, in other network namespaces.

Used by reconcile and the network driver. Uses machine.netns; Linux: netdevice(7), if_tun.h.

A container's namespace is a file that dockerd mounts under its exec root (the *sandbox key*); what
is no namespace (any more) has another file system.
"""

import errno
import fcntl
import os
import socket
import struct
from typing import Protocol

from byway.machine.netns import inside

_SIOCGIFHWADDR = 0x8927
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_TAP_FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR: as the switch makes them
_IFREQ = struct.Struct("=16sH22x")


class AnyNamespaces(Protocol):
    """What the drivers need to know. A path of None is our own namespace."""

    def exists(self, path: str) -> bool:
        """Is the file at `path` a namespace?"""

    def find(self, path: str, mac: str) -> str | None:
        """The interface with this MAC address in a namespace; None where there is none."""

    def has(self, path: str | None, interface: str) -> bool:
        """Is there an interface of that name?"""

    def is_held(self, path: str | None, interface: str) -> bool:
        """Does a process hold the tap of that name? (So it is with what is no tap of ours.)"""

    def remove_free(self, path: str | None, interface: str) -> bool:
        """Remove the tap of that name unless a process holds it; -> is there none now?"""


class Namespaces:
    """The kernel's namespaces. A path of None is our own namespace. OSError where one cannot be
    entered."""

    def exists(self, path: str) -> bool:
        """Is the file at `path` a namespace?"""
        try:
            return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
        except OSError:
            return False

    def find(self, path: str, mac: str) -> str | None:
        """The interface with this MAC address in a namespace; None where there is none."""
        wanted = bytes.fromhex(mac.replace(":", ""))
        return inside(path, lambda: next(
            (name for _, name in socket.if_nameindex() if _mac(name) == wanted), None))

    def has(self, path: str | None, interface: str) -> bool:
        """Is there an interface of that name?"""
        return inside(path, lambda: _is_there(interface))

    def is_held(self, path: str | None, interface: str) -> bool:
        """Does a process hold the tap of that name? (So it is with what is no tap of ours.)"""
        return inside(path, lambda: not _try_tap(interface, remove=False))

    def remove_free(self, path: str | None, interface: str) -> bool:
        """Remove the tap of that name unless a process holds it; -> is there none now?"""
        return inside(path, lambda: not _is_there(interface) or _try_tap(interface, remove=True))


def _mac(interface: str) -> bytes:
    """The hardware address of an interface; b"" where it went in this moment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("=16s24x", interface.encode())
        try:
            return fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request)[18:24]
        except OSError as error:
            if error.errno == errno.ENODEV:
                return b""
            raise


def _is_there(interface: str) -> bool:
    return any(name == interface for _, name in socket.if_nameindex())


def _try_tap(interface: str, remove: bool) -> bool:
    """Attach to a tap that is there, for a moment; -> did it work?"""
    if not _is_there(interface):  # it would be made
        return False
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, _TUNSETIFF, _IFREQ.pack(interface.encode(), _TAP_FLAGS))
        if remove:
            fcntl.ioctl(file, _TUNSETPERSIST, 0)
    except OSError as error:
        # EBUSY: somebody holds it. EINVAL: no tap, or none as the switch makes them.
        if error.errno in (errno.EBUSY, errno.EINVAL):
            return False
        raise
    finally:
        os.close(file)
    return True
