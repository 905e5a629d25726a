# SPDX-License-Identifier: Apache-2.0
"""The cables between the hosts of a test bed: a bridge, and a veth for each host.

Used by bed.py. The bridge is in a namespace of its own, where everything that a host sends passes
and can be watched (capture.py) or cut. Hosts are 192.0.2.N, or 2001:db8::N where ``family`` is 6;
the etcd's namespace is one of them. The kernel's own chatter is off: what is seen there was sent by
the hosts' switches, by etcd, or by the resolution of their addresses.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.system.engines.namespace import Namespace

DEVICE = "under0"  # a host's end
BRIDGE = "br0"
QUIET = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done"
NO_FILTER = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done"
NO_SOLICITATION = "echo 0 > /proc/sys/net/ipv6/conf/default/router_solicitations"


class Underlay:
    """``mtu``: of all interfaces; ``family``: 4 or 6."""

    def __init__(self, mtu: int = 1500, family: int = 4) -> None:
        self.mtu, self.family = mtu, family
        self._stack = ExitStack()
        self.wire = self._stack.enter_context(Namespace("wire"))
        run = self.wire.run
        run("sh", "-c", f"{NO_FILTER}; {QUIET}")
        run("ip", "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0",
            "mcast_snooping", "0")
        run("ip", "link", "set", BRIDGE, "mtu", str(mtu), "up")

    def address(self, number: int) -> str:
        """A host's address."""
        return f"192.0.2.{number}" if self.family == 4 else f"2001:db8::{number:x}"

    def join(self, number: int, name: str, configured: bool = True) -> Namespace:
        """A namespace for a host, with its cable; it goes with the underlay. ``configured``: its
        kernel has the host's address."""
        host = self._stack.enter_context(Namespace(name))
        host.run("sh", "-c", QUIET if self.family == 4 else NO_SOLICITATION)
        mtu = str(self.mtu)
        self.wire.run("ip", "link", "add", self.end(number), "mtu", mtu, "type", "veth", "peer",
                      "name", DEVICE, "mtu", mtu, "netns", host.name)
        self.wire.run("ip", "link", "set", self.end(number), "master", BRIDGE, "up")
        length = "/24" if self.family == 4 else "/64"
        options = [] if self.family == 4 else ["nodad"]
        if configured:
            host.run("ip", "address", "add", self.address(number) + length, "dev", DEVICE, *options)
        host.run("ip", "link", "set", DEVICE, "up")
        return host

    @staticmethod
    def end(number: int) -> str:
        """The bridge's end of a host's cable."""
        return f"u{number}"

    def cut(self, number: int) -> None:
        """Pull a host's cable out: its interface has no carrier."""
        self.wire.run("ip", "link", "set", self.end(number), "down")

    def mend(self, number: int) -> None:
        """Put it in again."""
        self.wire.run("ip", "link", "set", self.end(number), "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stack.close()
