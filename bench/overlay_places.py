# SPDX-License-Identifier: Apache-2.0
"""Two hosts on a local underlay, for bench/overlay.py: namespaces, a veth, Linux's VXLAN.

Used by overlay_frames.py and overlay_tcp.py. The near host is 192.0.2.1, the far one 192.0.2.2;
their network has VNI 100. Everything is gone when the block ends.
"""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from tests.system.engines.namespace import Namespace

VNI = 100
PORT = 4789
UNDER = "under0"  # a host's interface to the other
BRIDGE = "br0"
STATION = "10.77.0."
QUIET = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done"
NO_FILTER = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done"


@dataclass(frozen=True)
class Host:
    """One of the two: its namespace, its address, the other's address."""

    number: int
    namespace: Namespace
    address: str
    remote: str

    def run(self, *words: str) -> str:
        """Run a program there."""
        return self.namespace.run(*words)


@contextlib.contextmanager
def hosts(wired: bool = True, configured: bool = True) -> Iterator[tuple[Host, Host]]:
    """The near and the far one; ``wired``: with a veth between them, ``configured``: which has
    their addresses."""
    addresses = ("192.0.2.1", "192.0.2.2")
    with ExitStack() as stack:
        near, far = (
            Host(k, stack.enter_context(Namespace(name)), addresses[k], addresses[1 - k])
            for k, name in enumerate(("near", "far")))
        for host in (near, far):
            host.run("sh", "-c", f"{QUIET}; {NO_FILTER}")
        if wired:
            near.run("ip", "link", "add", UNDER, "mtu", "1600", "type", "veth", "peer", "name",
                     UNDER, "mtu", "1600", "netns", far.namespace.name)
            for host in (near, far):
                if configured:
                    host.run("ip", "address", "add", f"{host.address}/24", "dev", UNDER)
                host.run("ip", "link", "set", UNDER, "up")
        yield near, far


def station(host: Host, place: Namespace, mac: str, outer: str) -> str:
    """A veth from ``place`` to a host, where its end is ``outer``; -> its name in ``place``.

    The address is the station's, 10.77.0.1 on the near host and 10.77.0.2 on the far one.
    """
    inner = f"eth{host.number}"
    host.run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "address", mac,
             "netns", place.name)
    host.run("ip", "link", "set", outer, "up")
    place.run("ip", "link", "set", inner, "up")
    return inner


def give_address(place: Namespace, host: Host, interface: str) -> str:
    """Configure the station's address; -> it, without its prefix length."""
    address = f"{STATION}{host.number + 1}"
    place.run("ip", "address", "add", f"{address}/24", "dev", interface)
    return address


def linux_overlay(host: Host, outer: str, remote_mac: str) -> None:
    """Linux's own: a vxlan device and a bridge with the station's interface.

    The other host's station is known (bridge(8), "fdb append"), and nothing is learned.
    """
    host.run("ip", "link", "add", "vx", "type", "vxlan", "id", str(VNI), "local", host.address,
             "remote", host.remote, "dstport", str(PORT), "nolearning", "dev", UNDER)
    host.run("bridge", "fdb", "append", remote_mac, "dev", "vx", "dst", host.remote)
    host.run("ip", "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0")
    for name in (outer, "vx"):
        host.run("ip", "link", "set", name, "master", BRIDGE, "up")
    host.run("ip", "link", "set", BRIDGE, "up")
