# SPDX-License-Identifier: Apache-2.0
"""The other end of a veth pair: where it is, and what it is to do before it sends a frame.

Used by af_xdp.py; uses ethtool.py and machine.netns. Sources: rtnetlink(7), veth(4),
include/uapi/linux/if_link.h and net_namespace.h.

Theory of operation
-------------------
What one end of a pair sends, the other receives as it is: Linux sees no reason to compute a
checksum, to cut a large frame or to write a VLAN tag into a frame for a cable that is not there,
and passes on in its own records what it left undone. Who receives bare bytes, as an AF_XDP socket
does, does not see those records, and has frames with wrong checksums, of wrong sizes, without their
tags. So the far end is told to do all of that itself: its offloads are switched off. Linux then
does the work in software before the frame is sent, whoever sends it there.

The far end may be in another network namespace. Our end knows its number there and a number for
that namespace (IFLA_LINK, IFLA_LINK_NETNSID); which file is that namespace is found by asking for
the number of each that has a name or a process.

What was switched off is remembered and switched on again (``restore``), wherever the far end has
been moved to meanwhile. After a SIGKILL it stays off, which costs its users some cycles a frame.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from byway.machine.netns import inside
from byway.ports.ethtool import features, set_features

PAIRS = ("veth", "netkit")  # kinds of interfaces that have another end
_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWNSID, _RTM_GETNSID, _ERROR = 16, 18, 88, 90, 2
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port (netlink(7))
_REQUEST = 1
_LINK_BYTES, _GENERIC_BYTES = 16, 4  # struct ifinfomsg; struct rtgenmsg, padded
_IFLA_LINK, _IFLA_LINKINFO, _IFLA_LINK_NETNSID, _IFLA_INFO_KIND = 5, 18, 37, 1
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NAMED = ("/run/netns", "/run/docker/netns")
_SECONDS = 5.0  # longer than the kernel takes to answer


class UnreachableError(Exception):
    """The far end cannot be told anything: why."""


@dataclass(frozen=True)
class Nature:
    """What an interface is. ``kind``: "" for hardware, else as `ip -d link` shows it. ``far``: the
    number of the other end, in the namespace with our number ``nsid`` (None: in our own)."""

    kind: str
    far: int = 0
    nsid: int | None = None


# ---------------------------------------------------------------- netlink
def _netlink() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    made.settimeout(_SECONDS)
    return made


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    """Netlink attributes by type."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[4:length]
        data = data[length + 3 & ~3 :]
    return found


def _request(netlink: socket.socket, kind: int, body: bytes, fixed: int) -> dict[int, bytes]:
    """One question; -> the attributes of the answer (OSError: the kernel's error)."""
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST, 1, 0) + body)
    answer = netlink.recv(65536)
    length, told = _HEADER.unpack_from(answer)[:2]
    if told == _ERROR:
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(code, os.strerror(code))
    return _attributes(answer[_HEADER.size + fixed : length])


def nature(ifindex: int) -> Nature:
    """What an interface of this thread's namespace is (OSError: it has gone)."""
    with _netlink() as netlink:
        found = _request(netlink, _RTM_GETLINK, struct.pack("=BxHiII", 0, 0, ifindex, 0, 0),
                         _LINK_BYTES)
    kind = _attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    name = kind.rstrip(b"\0").decode()
    if name not in PAIRS or _IFLA_LINK not in found:
        return Nature(name)
    nsid = found.get(_IFLA_LINK_NETNSID)
    return Nature(name, struct.unpack("=I", found[_IFLA_LINK])[0],
                  None if nsid is None else struct.unpack("=i", nsid)[0])


# ---------------------------------------------------------------- where it is
def _namespaces() -> Iterator[Path]:
    """Files of network namespaces: those with a name, then those of processes, each once."""
    seen = set()
    for place in (*(Path(folder).glob("*") for folder in _NAMED),
                  (process / "ns/net" for process in Path("/proc").glob("[0-9]*"))):
        for path in place:
            with suppress(OSError):  # it has ended, or is not ours to look at
                inode = path.stat().st_ino
                if inode not in seen:
                    seen.add(inode)
                    yield path


def _find(nsid: int) -> str:
    """The file of the namespace that has this number in the one of this thread."""
    with _netlink() as netlink:
        for path in _namespaces():
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # another's, or gone: perhaps another name of it can be opened
            try:
                body = bytes(_GENERIC_BYTES) + _attribute(_NETNSA_FD, struct.pack("=I", file))
                told = _request(netlink, _RTM_GETNSID, body, _GENERIC_BYTES)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EPERM):
                    raise
                told = {}  # a name in that folder that is no namespace
            finally:
                os.close(file)
            if told.get(_NETNSA_NSID) == struct.pack("=i", nsid):
                return str(path)
    raise UnreachableError(f"no file of its network namespace (number {nsid} in ours) was found")


def _where(namespace: str | None, ifindex: int) -> tuple[str | None, int]:
    """(namespace, number) of the far end of an interface."""
    def look() -> tuple[str | None, int]:
        found = nature(ifindex)
        if not found.far:
            raise UnreachableError("there is none")
        return (namespace if found.nsid is None else _find(found.nsid)), found.far

    return inside(namespace, look)


# ---------------------------------------------------------------- what it is to do
def _unfinished(name: str) -> bool:
    """Does a feature mean that frames are sent with something left to do?"""
    return name.startswith(("tx-checksum-", "tx-vlan-")) or name.endswith("-segmentation") \
        or name == "tx-gso-list"


def _gathered(name: str) -> bool:
    """Does a feature mean that received frames are put together, or lose their tags?"""
    return name in ("rx-gro", "rx-lro", "rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding",
                    "rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")


@dataclass(frozen=True)
class Switched:
    """Features of one interface that were switched off."""

    place: str  # for people
    names: tuple[str, ...]
    far: bool


def _switch_off(index: int, chosen: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """-> the interface's name, and what was on. OSError EIO: something stays on."""
    name = socket.if_indextoname(index)
    if chosen:
        set_features(name, chosen, on=False)
        after = features(name)
        if still := [one for one in chosen if one in after and after[one].active]:
            raise OSError(errno.EIO, f"{', '.join(still)} cannot be switched off")
    return name, chosen


def finish_at_far_end(namespace: str | None, ifindex: int) -> Switched:
    """Have the other end of the pair finish the frames that it sends; -> what was switched off.

    UnreachableError: it cannot be found, may not be entered, or does not do so."""
    def work() -> tuple[str, tuple[str, ...]]:
        there = features(socket.if_indextoname(index))
        return _switch_off(index, tuple(
            name for name, one in there.items()
            if _unfinished(name) and one.changeable and (one.active or one.wanted)))

    where: str | None = None
    try:
        where, index = _where(namespace, ifindex)
        name, names = inside(where, work)
    except OSError as error:
        place = f" (namespace {where})" if where else ""
        raise UnreachableError(f"{error.strerror}{place}") from None
    return Switched(f"{name} in {where}" if where else name, names, True)


def keep_apart(ifname: str) -> Switched:
    """Have an interface of this thread's namespace pass on received frames as they are."""
    here = features(ifname)
    names = tuple(name for name, one in here.items()
                  if _gathered(name) and one.changeable and one.active)
    set_features(ifname, names, on=False)
    return Switched(ifname, names, False)


def restore(namespace: str | None, ifindex: int, switched: Switched) -> None:
    """Switch on again what was switched off, wherever the interface is now (OSError or
    UnreachableError: it has gone, with its offloads)."""
    where, index = _where(namespace, ifindex) if switched.far else (namespace, ifindex)

    def work() -> None:
        set_features(socket.if_indextoname(index), switched.names, on=True)

    inside(where, work)
