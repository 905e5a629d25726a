# SPDX-License-Identifier: Apache-2.0
"""Interfaces of the Linux kernel: what one is like now, and news of its coming and going.

Used by the ports that attach to interfaces of somebody else's. Uses machine.netns, and namespaces
(of the host: news of names). Sources:
rtnetlink(7), include/uapi/linux/rtnetlink.h and if_link.h. Written by hand and not with pyroute2,
whose import alone takes half a second.

Theory of operation
-------------------
``Links`` asks the kernel about interfaces of one namespace (find), and is readable when something
changed there. ``Follower`` keeps to one interface, known by name, for as long as it is not closed:
it looks at every piece of news, and calls ``changed`` with the link when frames can be exchanged,
or with None and a sentence when they cannot. An interface that was deleted and made again has
another index: that is told as a loss first.

A socket keeps its namespace alive, so a namespace whose name was removed would live on, with its
interfaces, for as long as we listened there. The follower therefore asks for news of the name as
well, lets go of everything when it goes, and then looks every RETRY_SECONDS whether there is one
again: a name that was just made is not yet a namespace, so being told of it is not enough.

All of it belongs to the control thread.
"""

import errno
import socket
import struct
from asyncio import TimerHandle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from byway.machine.netns import identity, inside
from byway.ports.port import Host

RETRY_SECONDS = 0.5
ETHERNET = 1  # if_arp.h: ARPHRD_ETHER
_RTMGRP_LINK = 1
_RTM_NEWLINK, _RTM_GETLINK, _NLMSG_ERROR, _NLM_F_REQUEST = 16, 18, 2, 1
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port (netlink(7))
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ATTRIBUTE = struct.Struct("=HH")  # length, type; aligned to 4
_IFLA_IFNAME, _IFLA_EXT_MASK, _SKIP_STATISTICS = 3, 29, 8
_IFLA_MTU = 4
_IFF_UP, _IFF_LOWER_UP = 1, 0x10000
_SECONDS = 5.0  # longer than the kernel takes to answer


@dataclass(frozen=True)
class Link:
    """An interface. ``type``: a number of if_arp.h; ``up``: by its administrator; ``carrier``:
    it has one."""

    name: str
    index: int
    type: int
    up: bool
    carrier: bool
    mtu: int


class Links:
    """The interfaces of a namespace (None: the switch's own). OSError where it cannot be entered.
    """

    def __init__(self, namespace: str | None) -> None:
        self._news, self._ask = inside(namespace, lambda: (_netlink(), _netlink()))
        self._news.bind((0, _RTMGRP_LINK))
        self._news.setblocking(False)
        self._ask.settimeout(_SECONDS)

    def fileno(self) -> int:
        """Readable when something changed: ``drain``, then look."""
        return self._news.fileno()

    def drain(self) -> None:
        """Take the news; what they say is asked anew, for some may be lost."""
        with suppress(OSError):  # EAGAIN: no more; ENOBUFS: more than its buffer holds
            while self._news.recv(65536):
                continue

    def find(self, name: str) -> Link | None:
        """The interface of that name as it is now."""
        encoded = name.encode() + b"\0"
        attributes = _attribute(_IFLA_IFNAME, encoded)
        attributes += _attribute(_IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATISTICS))
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attributes
        self._ask.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETLINK, _NLM_F_REQUEST, 1, 0)
                       + body)
        return parse_link(self._ask.recv(65536), name)

    def close(self) -> None:
        """Idempotent."""
        self._news.close()
        self._ask.close()


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC,
                         socket.NETLINK_ROUTE)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def parse_link(answer: bytes, name: str) -> Link | None:
    """The link that an answer describes; None: there is none. OSError: the kernel refused."""
    kind = _HEADER.unpack_from(answer)[1]
    if kind == _NLMSG_ERROR:
        error = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if error == errno.ENODEV:
            return None
        raise OSError(error, "the kernel does not tell of interfaces", name)
    _, hardware, index, flags, _ = _LINK.unpack_from(answer, _HEADER.size)
    mtu = 0
    at = _HEADER.size + _LINK.size
    while at + _ATTRIBUTE.size <= len(answer):
        length, attribute = _ATTRIBUTE.unpack_from(answer, at)
        if length < _ATTRIBUTE.size:
            break
        if attribute == _IFLA_MTU:
            mtu = struct.unpack_from("=I", answer, at + _ATTRIBUTE.size)[0]
        at += length + 3 & ~3
    return Link(name, index, hardware, bool(flags & _IFF_UP), bool(flags & _IFF_LOWER_UP), mtu)


class Follower:
    """Follows the interface ``name`` of ``namespace``. ``link``: while frames can be exchanged;
    ``present``: it is there, be it down or without a carrier (as it is for a moment when some
    drivers are set up anew)."""

    def __init__(self, host: Host, name: str, namespace: str | None,
                 changed: Callable[[Link | None, str], None]) -> None:
        self.host, self.name, self.namespace = host, name, namespace
        self.link: Link | None = None
        self.present = False
        self._reason = ""
        self._changed = changed
        self._links: Links | None = None
        self._identity = (0, 0)  # of the namespace that we are in
        self._timer: TimerHandle | None = None

    def start(self) -> None:
        """Look for the first time; ``changed`` is called in any case. OSError where the namespace
        may not be entered; one that is not there is waited for."""
        try:
            if self.namespace is not None:
                self._identity = identity(self.namespace)
                self.host.namespaces.watch(self.namespace, self._on_namespace)
            self._links = Links(self.namespace)
        except OSError as error:
            self._let_go()
            # EINVAL: the name is there, and is not yet (or is no longer) that of a namespace
            if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.ENOTDIR):
                raise
            self._tell(None, f'there is no network namespace "{self.namespace}"')
            self._timer = self.host.loop.call_later(RETRY_SECONDS, self._retry)
            return
        self.host.loop.add_reader(self._links.fileno(), self._on_news)
        self._look()

    def _retry(self) -> None:
        try:
            self.start()
        except OSError as error:
            self._tell(None, f'network namespace "{self.namespace}": {error.strerror}')
            self._timer = self.host.loop.call_later(RETRY_SECONDS, self._retry)

    def _on_namespace(self) -> None:
        if self.namespace is None:
            return
        try:
            gone = identity(self.namespace) != self._identity
        except OSError:
            gone = True
        if gone:
            self._let_go()
            self._tell(None, f'the network namespace "{self.namespace}" was removed')
            self._timer = self.host.loop.call_later(RETRY_SECONDS, self._retry)

    def _on_news(self) -> None:
        if self._links:
            self._links.drain()
            self._look()

    def _look(self) -> None:
        assert self._links
        link = self._links.find(self.name)
        self.present = link is not None
        if link is None:
            self._tell(None, f'there is no interface "{self.name}"')
        elif not link.up:
            self._tell(None, f'the interface "{self.name}" is down')
        elif not link.carrier:
            self._tell(None, f'the interface "{self.name}" has no carrier')
        else:
            if self.link and self.link.index != link.index:
                self._tell(None, f'the interface "{self.name}" was replaced')
            self._tell(link, "")

    def _tell(self, link: Link | None, reason: str) -> None:
        before, self.link = (self.link, self._reason), link
        self._reason = reason
        if (link is None) != (before[0] is None) or reason != before[1]:
            self._changed(link, reason)

    def _let_go(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self.namespace is not None:
            self.host.namespaces.forget(self.namespace, self._on_namespace)
        if self._links:
            self.host.loop.remove_reader(self._links.fileno())
            self._links.close()
        self._timer = self._links = None
        self.present = False

    def close(self) -> None:
        """Follow no more. Idempotent."""
        self._let_go()
        self.link = None
