# SPDX-License-Identifier: Apache-2.0
"""A tap: an interface of the Linux kernel whose other end is file descriptors of ours.

Used by the tap and the vhost-kernel port; uses pyroute2 (netlink), machine.netns and virtio's
feature bits. Source: Linux, include/uapi/linux/if_tun.h and drivers/net/tun.c.

Theory of operation
-------------------
A tap has one file for each queue pair. Each frame on it has a virtio_net_hdr in front, of the size
that is set here. The interface lives as long as its files, closing them removes it; but a
*persistent* one stays, without a carrier, and whoever opens it by its name has it again.

A file belongs to the namespace in which /dev/net/tun was opened, and the interface is made there;
so that is done by a thread that is in the namespace (machine.netns). To make it here and move it
would cost 20 ms instead of less than one. From then on the files work wherever they are used, and
go with the interface wherever somebody moves it, and whatever he calls it there. But they keep the
namespace alive in which they were opened: once its name is gone they have to be closed, or the
namespace never goes.
"""

import errno
import fcntl
import hashlib
import os
import socket
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntFlag
from pathlib import Path
from typing import Any

from byway.machine.netns import NoNamespaceError, inside, path_of
from byway.virtio.features import Feature, has, mask

DEVICE = "/dev/net/tun"
MACHINE_ID = Path("/etc/machine-id")
_IFREQ = struct.Struct("=16sH22x")  # name, flags (netdevice(7))
_IFREQ_ADDRESS = struct.Struct("=16sH6s16x")  # name, family, hardware address
_INT = struct.Struct("=i")
_TUNSETIFF, _TUNGETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x800454D2, 0x400454D0
_TUNSETPERSIST, _TUNSETCARRIER, _TUNGETDEVNETNS = 0x400454CB, 0x400454E2, 0x54E3
_TUNSETSNDBUF, _TUNSETVNETHDRSZ = 0x400454D4, 0x400454D8
_SIOCGIFHWADDR = 0x8927
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_PERSIST, _IFF_NO_PI = 0x0002, 0x0100, 0x0800, 0x1000
_IFF_VNET_HDR, _IFF_TUN_EXCL = 0x4000, 0x8000
_IFA_F_NODAD = 0x02  # linux/if_addr.h
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
USO = mask(Feature.GUEST_USO4, Feature.GUEST_USO6, Feature.HOST_USO)
FEATURES = _SENDS | USO | mask(*_GUEST)


class TapError(Exception):
    """A tap cannot be made: ``key`` of the port's configuration, ``problem``, ``fix``.

    ``missing``: its namespace is not there; it may come.
    """

    def __init__(self, key: str, problem: str, fix: str, missing: bool = False) -> None:
        super().__init__(f"{key}: {problem}; {fix}")
        self.key, self.problem, self.fix, self.missing = key, problem, fix, missing


@dataclass(frozen=True)
class Interface:
    """What is wanted of the interface. ``namespace``: a name, an absolute path, or None for the
    switch's own. ``routes``: (to, via), each an address, ``to`` with its prefix length."""

    name: str
    namespace: str | None = None
    addresses: Sequence[str] = ()  # with prefix length
    mac: str | None = None
    mtu: int = 1500
    queues: int = 1
    routes: Sequence[tuple[str, str]] = ()
    persistent: bool = False
    news: bool = False  # whether ``fileno`` and ``removed`` are of use

    @property
    def place(self) -> str:
        """Where it is, to be read."""
        return f"{self.name} in {self.namespace}" if self.namespace else self.name


class Tap:
    """A tap that is up, with one file in ``files`` for each queue.

    ``found``: it was there already, persistent; what it had of addresses and routes it has kept.
    """

    def __init__(self, wanted: Interface) -> None:
        self.wanted = wanted
        self.files: list[int] = []
        self.found = False
        self._news: socket.socket | None = None
        try:
            _in_namespace(wanted.namespace, self._make)
        except BaseException:
            self.close() if self.found else self.remove()
            raise

    def _make(self) -> None:
        for queue in range(self.wanted.queues):
            self.files.append(os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            self._join(self.files[-1], first=queue == 0)
        if self.wanted.persistent:
            fcntl.ioctl(self.files[0], _TUNSETPERSIST, 1)
        if self.wanted.news:
            # The files say nothing when their interface goes (as a wake-up it looks like a frame).
            self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK,
                                       socket.NETLINK_ROUTE)
            self._news.bind((0, _RTMGRP_LINK))
        if not self.found and self.wanted.mac is None:
            self.wanted = replace(self.wanted, mac=usual_mac(self.wanted.name, self.namespace()))
        _configure(self.wanted, self.found)

    def _join(self, file: int, first: bool) -> None:
        """Make the file a queue of the interface, which the first one makes."""
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        flags |= _IFF_MULTI_QUEUE if self.wanted.queues > 1 else 0
        # One that is there already is somebody else's, but a persistent one is ours to take up.
        exclusive = _IFF_TUN_EXCL if first and not self.wanted.persistent else 0
        fcntl.ioctl(file, _TUNSETIFF, _IFREQ.pack(self.wanted.name.encode(), flags | exclusive))
        if first:
            self.found = bool(self._state()[1] & _IFF_PERSIST)
        # Without a limit: a reader that stands still must not stop everybody's frames.
        fcntl.ioctl(file, _TUNSETSNDBUF, _INT.pack(_INT_MAX))

    def _state(self) -> tuple[str, int]:
        """(name, flags) of the interface now; OSError where it is gone."""
        name, flags = _IFREQ.unpack(fcntl.ioctl(self.files[0], _TUNGETIFF, bytes(_IFREQ.size)))
        return os.fsdecode(name.rstrip(b"\0")), flags

    # ------------------------------------------------------------ offloads
    def features(self) -> int:
        """The virtio-net features (5.1.3) that this kernel's taps have."""
        uso = TunOffload.CSUM | TunOffload.USO4 | TunOffload.USO6
        return FEATURES if self._offload(uso) else FEATURES & ~USO

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

    def set_carrier(self, on: bool) -> None:
        """Say whether a cable is plugged in (it is when the tap is made). OSError: it is gone."""
        fcntl.ioctl(self.files[0], _TUNSETCARRIER, _INT.pack(on))

    # ------------------------------------------------------------ what became of it
    def name(self) -> str:
        """What the interface is called now; OSError where it is gone."""
        return self._state()[0]

    def mac(self) -> str:
        """Its hardware address now; OSError where it is gone."""
        answer = fcntl.ioctl(self.files[0], _SIOCGIFHWADDR, bytes(_IFREQ_ADDRESS.size))
        address: bytes = _IFREQ_ADDRESS.unpack(answer)[2]
        return address.hex(":")

    def namespace(self) -> tuple[int, int]:
        """(device, inode) of the namespace that it is in now; OSError where it is gone."""
        file = fcntl.ioctl(self.files[0], _TUNGETDEVNETNS)
        try:
            found = os.fstat(file)
        finally:
            os.close(file)
        return found.st_dev, found.st_ino

    def fileno(self) -> int:
        """Readable when something changed about interfaces: ask ``removed`` then."""
        return self._news.fileno() if self._news else -1

    def removed(self) -> bool:
        """Has somebody else removed the interface?"""
        with suppress(OSError):  # EAGAIN: no more; ENOBUFS: more than its buffer holds
            while self._news and self._news.recv(65536):
                continue
        try:
            self._state()
        except OSError:
            return True
        return False

    # ------------------------------------------------------------ its end
    def close(self) -> None:
        """Close the files; unless it is persistent the interface goes with them. Idempotent."""
        if self._news:
            self._news.close()
            self._news = None
        while self.files:
            os.close(self.files.pop())

    def remove(self) -> None:
        """Close the files, and the interface goes. Idempotent."""
        for file in self.release(for_good=True):
            os.close(file)

    def release(self, for_good: bool) -> list[int]:
        """-> the files, for the caller to close (the Linux kernel takes its time); the interface
        goes with them if it is not persistent, or ``for_good``."""
        if self.files and for_good:
            with suppress(OSError):  # it is gone, or was not made
                fcntl.ioctl(self.files[0], _TUNSETPERSIST, 0)
        files, self.files = self.files, []
        self.close()
        return files


# ---------------------------------------------------------------- addresses and routes
def usual_mac(name: str, namespace: tuple[int, int]) -> str | None:
    """The address of an interface for which none is wanted: the same each time that it is made,
    so that others who remember it still reach it, and another one on every machine (machine-id(5);
    without one: None, the Linux kernel chooses)."""
    try:
        machine = MACHINE_ID.read_bytes()
    except OSError:
        return None
    made = hashlib.sha256(b"%s %d %d %s" % (machine.strip(), *namespace, name.encode()))
    return f"02:{made.digest()[:5].hex(':')}"


def _configure(wanted: Interface, found: bool) -> None:
    # Here, because to import it takes half a second, and few switches have such a port.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    key = "address"
    try:
        with IPRoute() as netlink:
            index = socket.if_nametoindex(wanted.name)
            link = {"address": wanted.mac} if wanted.mac else {}
            netlink.link("set", index=index, mtu=wanted.mtu, state="up", **link)
            for address in wanted.addresses:
                host, _, length = address.partition("/")
                # Whoever gave it knows that it is free: IPv6 need not ask for a second first.
                sure = {"flags": _IFA_F_NODAD} if ":" in host else {}
                _add(netlink.addr, "add", found, index=index, address=host,
                     prefixlen=int(length), **sure)
            key = "routes"
            for to, via in wanted.routes:  # behind those of other interfaces, if there are any
                _add(netlink.route, "append", found, dst=to, gateway=via, oif=index)
    except NetlinkError as error:
        fix = "check address, mac and the network's mtu" if key == "address" else \
            "a gateway is reached through one of the port's addresses"
        raise TapError(key, f"the interface cannot be configured: {error.args[1]}", fix) from None


def _add(call: Any, how: str, found: bool, **what: Any) -> None:
    """Add an address or a route; what a persistent interface has kept is there already."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        call(how, **what)
    except NetlinkError as error:
        if not found or error.code != errno.EEXIST:
            raise


def _in_namespace(namespace: str | None, work: Callable[[], None]) -> None:
    """Run ``work`` in a thread in the network namespace; TapError says what it met."""
    try:
        if namespace:
            inside(namespace, work)
        else:  # pyroute2 has an event loop, and this thread may be in one already
            with ThreadPoolExecutor(1) as thread:
                thread.submit(work).result()
    except NoNamespaceError as error:
        raise _no_namespace(namespace or "", error) from None
    except OSError as error:
        raise _no_tap(error) from None


def _no_namespace(namespace: str, error: OSError) -> TapError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return TapError("netns", f'"{namespace}" may not be entered', "give byway CAP_SYS_ADMIN")
    if error.errno == errno.ENOENT:
        fix = "give the path of one" if namespace.startswith("/") else f"ip netns add {namespace}"
        return TapError("netns", f'there is no network namespace "{namespace}"', fix, missing=True)
    return TapError("netns", f"{path_of(namespace)} is no network namespace",
                    "name one that `ip netns list` shows, or give the path of one")


def _no_tap(error: OSError) -> TapError:
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return TapError("kind", f"there is no {DEVICE}", "modprobe tun")
    if error.errno in (errno.EPERM, errno.EACCES):
        return TapError("kind", "a tap may not be made", "give byway CAP_NET_ADMIN")
    if error.errno in (errno.EBUSY, errno.EINVAL):  # EINVAL: it is no tap, or has other queues
        return TapError("ifname", "there is an interface of this name already",
                        "choose another name, or remove it (ip link del)")
    return TapError("ifname", f"the tap cannot be made: {error.strerror}",
                    "see `byway doctor` for what this machine lacks")
