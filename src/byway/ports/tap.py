# SPDX-License-Identifier: Apache-2.0
"""A tap: an interface of the Linux kernel whose other end is file descriptors of ours.

Used by the vhost-kernel port; uses pyroute2 (netlink) and virtio's feature bits. Source: Linux,
include/uapi/linux/if_tun.h and drivers/net/tun.c.

A tap has one file for each queue pair. Each frame on it has a virtio_net_hdr in front, of the size
that is set here. The interface lives as long as its files: closing them removes it.

Network namespaces: the namespace of a thread is that in which it opens /dev/net/tun and netlink
sockets. The tap is therefore made by a thread of its own that changes over to the namespace and
ends; the files work wherever they are used. Nothing else in the process moves.
"""

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

from byway.virtio.features import Feature, has, mask

DEVICE = "/dev/net/tun"
NAMESPACES = "/run/netns"
_IFREQ = struct.Struct("=16sH22x")  # name, flags (netdevice(7))
_INT = struct.Struct("=i")
_TUNSETIFF, _TUNGETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x800454D2, 0x400454D0
_TUNSETSNDBUF, _TUNSETVNETHDRSZ = 0x400454D4, 0x400454D8
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI = 0x0002, 0x0100, 0x1000
_IFF_VNET_HDR, _IFF_TUN_EXCL = 0x4000, 0x8000
_INT_MAX = 0x7FFFFFFF
_RTMGRP_LINK = 1  # rtnetlink(7)


class TunOffload(IntFlag):
    """What we take from the tap unfinished (TUNSETOFFLOAD)."""

    CSUM = 1
    TSO4 = 2
    TSO6 = 4
    TSO_ECN = 8
    USO4 = 0x20
    USO6 = 0x40


# A feature that lets us receive frames unfinished, and how the tap is told.
_GUEST = {
    Feature.GUEST_CSUM: TunOffload.CSUM,
    Feature.GUEST_TSO4: TunOffload.TSO4,
    Feature.GUEST_TSO6: TunOffload.TSO6,
    Feature.GUEST_ECN: TunOffload.TSO_ECN,
    Feature.GUEST_USO4: TunOffload.USO4,
    Feature.GUEST_USO6: TunOffload.USO6,
}
# What every tap with a virtio header takes from us, and what kernels with USO take besides.
_SENDS = mask(Feature.CSUM, Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.HOST_ECN)
_USO = mask(Feature.GUEST_USO4, Feature.GUEST_USO6, Feature.HOST_USO)


class TapError(Exception):
    """A tap cannot be made: ``key`` of the port's configuration, ``problem``, ``fix``."""

    def __init__(self, key: str, problem: str, fix: str) -> None:
        super().__init__(f"{key}: {problem}; {fix}")
        self.key, self.problem, self.fix = key, problem, fix


@dataclass(frozen=True)
class Interface:
    """What is wanted of the interface. ``namespace`` None: the switch's own."""

    name: str
    namespace: str | None = None
    addresses: Sequence[str] = ()  # with prefix length
    mac: str | None = None
    mtu: int = 1500
    queues: int = 1


class Tap:
    """A tap that is up, with one file in ``files`` for each queue."""

    def __init__(self, wanted: Interface) -> None:
        self.wanted = wanted
        self.files: list[int] = []
        self._news: socket.socket | None = None
        try:
            _in_namespace(wanted.namespace, self._make)
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        flags |= _IFF_MULTI_QUEUE if self.wanted.queues > 1 else 0
        for queue in range(self.wanted.queues):
            self.files.append(os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            # Only the first makes the interface; one that is there already is somebody else's.
            exclusive = 0 if queue else _IFF_TUN_EXCL
            request = _IFREQ.pack(self.wanted.name.encode(), flags | exclusive)
            fcntl.ioctl(self.files[-1], _TUNSETIFF, request)
            # Without a limit: a reader that stands still must not stop everybody's frames.
            fcntl.ioctl(self.files[-1], _TUNSETSNDBUF, _INT.pack(_INT_MAX))
        self._configure()
        # The files say nothing when their interface goes (as a wake-up it looks like a frame).
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK,
                                   socket.NETLINK_ROUTE)
        self._news.bind((0, _RTMGRP_LINK))

    def _configure(self) -> None:
        # Here, because to import it takes half a second, and few switches have such a port.
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with IPRoute() as netlink:
                self._tell(netlink)
        except NetlinkError as error:
            raise TapError("address", f"the interface cannot be configured: {error.args[1]}",
                           "check address, mac and the network's mtu") from None

    def _tell(self, netlink: Any) -> None:
        (index,) = netlink.link_lookup(ifname=self.wanted.name)
        link: dict[str, Any] = {"index": index, "mtu": self.wanted.mtu}
        if self.wanted.mac:
            link["address"] = self.wanted.mac
        netlink.link("set", **link)
        for address in self.wanted.addresses:
            host, _, length = address.partition("/")
            netlink.addr("add", index=index, address=host, prefixlen=int(length))
        netlink.link("set", index=index, state="up")

    def features(self) -> int:
        """The virtio-net features (5.1.3) that this kernel's taps have."""
        known = _SENDS | mask(*_GUEST) | mask(Feature.HOST_USO)
        uso = TunOffload.CSUM | TunOffload.USO4 | TunOffload.USO6
        return known if self._offload(uso) else known & ~_USO

    def _offload(self, offloads: int) -> bool:
        try:
            fcntl.ioctl(self.files[0], _TUNSETOFFLOAD, offloads)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def set_up(self, features: int, header: int) -> None:
        """Frames have a virtio header of ``header`` bytes; those for us may be as unfinished as
        ``features`` allow. OSError where the kernel refuses (USO4 and USO6 go together)."""
        offloads = sum(bit for feature, bit in _GUEST.items() if has(features, feature))
        fcntl.ioctl(self.files[0], _TUNSETOFFLOAD, offloads)
        for file in self.files:
            fcntl.ioctl(file, _TUNSETVNETHDRSZ, _INT.pack(header))

    def fileno(self) -> int:
        """Readable when something changed about interfaces: ask ``removed`` then."""
        return self._news.fileno() if self._news else -1

    def removed(self) -> bool:
        """Has somebody else removed the interface?"""
        with suppress(OSError):  # EAGAIN: no more; ENOBUFS: more than its buffer holds
            while self._news and self._news.recv(65536):
                continue
        try:
            fcntl.ioctl(self.files[0], _TUNGETIFF, bytes(_IFREQ.size))
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Remove the interface. Idempotent."""
        if self._news:
            self._news.close()
            self._news = None
        while self.files:
            os.close(self.files.pop())


def _in_namespace(name: str | None, work: Any) -> None:
    """Run ``work`` in a thread in the network namespace; TapError says what it met."""
    problems: list[TapError] = []

    def run() -> None:
        try:
            if name:
                _enter(name)
            work()
        except TapError as error:
            problems.append(error)
        except OSError as error:
            problems.append(_no_tap(error))

    thread = threading.Thread(target=run, name="byway-tap")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


def _enter(name: str) -> None:
    """Change this thread over to a network namespace."""
    from pyroute2 import netns

    try:
        netns.setns(name, flags=0)
    except PermissionError:
        raise TapError("netns", f'"{name}" may not be entered', "give byway CAP_SYS_ADMIN") \
            from None
    except OSError:
        raise TapError("netns", f'there is no network namespace "{name}" ({NAMESPACES}/{name})',
                       f"ip netns add {name}") from None


def _no_tap(error: OSError) -> TapError:
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return TapError("kind", f"there is no {DEVICE}", "modprobe tun")
    if error.errno in (errno.EPERM, errno.EACCES):
        return TapError("kind", "a tap may not be made", "give byway CAP_NET_ADMIN")
    if error.errno == errno.EBUSY:
        return TapError("ifname", "there is an interface of this name already",
                        "choose another name, or remove it (ip link del)")
    return TapError("ifname", f"the tap cannot be made: {error.strerror}",
                    "see `byway doctor` for what this machine lacks")
