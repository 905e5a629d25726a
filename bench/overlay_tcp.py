# SPDX-License-Identifier: Apache-2.0
"""Two containers on two hosts, in each of the ways whose TCP bench/overlay.py compares.

Used by it. Each way is a context manager: a folder in, a `Pair` out, nothing left afterwards. The
underlay is a veth with an MTU of 1600 for all of them; guests have 1500 bytes or a little more.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from bench.container_ways import Pair, ovs
from bench.overlay_places import (
    UNDER,
    VNI,
    Host,
    give_address,
    hosts,
    linux_overlay,
    station,
)
from tests.system.engines.namespace import Namespace
from tests.system.overlay.bed import toml
from tests.system.peers.switch import Switch

MACS = ("02:00:00:00:77:01", "02:00:00:00:77:02")
MTU = 1500


@contextlib.contextmanager
def places() -> Iterator[tuple[Namespace, Namespace]]:
    """The containers' namespaces."""
    with Namespace("left") as left, Namespace("right") as right:
        yield left, right


@contextlib.contextmanager
def linux(folder: Path) -> Iterator[Pair]:
    """The kernel's bridges and vxlan devices."""
    with places() as both, hosts() as given:
        for host, place, mac, other in zip(given, both, MACS, MACS[::-1], strict=True):
            inner = station(host, place, mac, "st")
            linux_overlay(host, "st", other)
            give_address(place, host, inner)
        yield Pair(*both)


@contextlib.contextmanager
def byway(folder: Path) -> Iterator[Pair]:
    """`byway run` on each host, the container's port a tap, the underlay by UDP sockets."""
    with places() as both, hosts() as given, ExitStack() as stack:
        for host, place, mac, other in zip(given, both, MACS, MACS[::-1], strict=True):
            tap = {"name": "c", "network": "blue", "kind": "tap", "ifname": "eth0", "mac": mac,
                   "netns": place.name, "address": [f"10.77.0.{host.number + 1}/24"]}
            where = folder / f"host{host.number}"
            where.mkdir()
            switch = Switch(where, [], prefix=host.namespace.prefix,
                            text=byway_text(where, host, tap, other))
            stack.callback(switch.stop)
            switch.wait_up()
        yield Pair(*both)


def byway_text(folder: Path, host: Host, port: dict[str, object], remote_mac: str,
               **underlay: object) -> str:
    """A host's configuration: a port, and the station of the other host."""
    other = {"name": "other", "address": host.remote, "networks": ["blue"]}
    return toml([
        ("[switch]", {"name": f"host{host.number}", "api": str(folder / "api.sock")}),
        ("[underlay]", {"address": host.address, **underlay}),
        ("[[network]]", {"name": "blue", "vni": VNI, "mtu": MTU}),
        ("[[host]]", other),
        ("[[entry]]", {"network": "blue", "mac": remote_mac, "host": "other",
                       "ips": [f"10.77.0.{2 - host.number}"]}),
        ("[[port]]", port),
    ])


@contextlib.contextmanager
def open_vswitch(folder: Path) -> Iterator[Pair]:
    """Open vSwitch in user space on each host, with taps and its own VXLAN.

    The underlay's veth belongs to a bridge that has the host's address, as its guide has it.
    """
    with places() as both, hosts(configured=False) as given, ExitStack() as stack:
        for host, place, mac in zip(given, both, MACS, strict=True):
            where = folder / f"host{host.number}"
            where.mkdir()
            vsctl = stack.enter_context(ovs(where, host.namespace))
            open_vswitch_host(vsctl, host)
            host.run("ip", "link", "set", "tap", "netns", place.name)
            place.run("ip", "link", "set", "tap", "address", mac, "up")
            give_address(place, host, "tap")
        yield Pair(*both)


def open_vswitch_host(vsctl: Callable[..., str], host: Host) -> None:
    """The bridges of a host: ``br0`` of the container, ``phy`` of the underlay."""
    host.run("ethtool", "-K", UNDER, "tx", "off")
    vsctl("add-br", "phy", "--", "set", "bridge", "phy", "datapath_type=netdev")
    vsctl("add-port", "phy", UNDER)
    host.run("ip", "address", "add", f"{host.address}/24", "dev", "phy")
    host.run("ip", "link", "set", "phy", "up")
    vsctl("add-port", "br0", "tap", "--", "set", "interface", "tap", "type=tap")
    vsctl("add-port", "br0", "tunnel", "--", "set", "interface", "tunnel", "type=vxlan",
          f"options:remote_ip={host.remote}", f"options:local_ip={host.address}",
          f"options:key={VNI}")


WAYS: dict[str, Callable[[Path], AbstractContextManager[Pair]]] = {
    "byway": byway,
    "ovs": open_vswitch,
    "linux": linux,
}
