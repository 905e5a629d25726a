# SPDX-License-Identifier: Apache-2.0
"""Other people's tunnels: a host with the Linux kernel's vxlan device, one with Open vSwitch.

    with KernelHost(underlay, number=2, vni=100, remote=underlay.address(1)) as host:
        host.station.measure("10.9.0.1")

Used by the tests of tunnels. Each host has one station: for the kernel that is the host itself,
whose vxlan device has the addresses; for Open vSwitch it is a namespace behind a veth. Both know
who is behind the other host from a table (static): nothing is learned.
"""

import functools
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from byway.machine.netns import inside
from byway.ports.ethtool import set_features
from tests.peers import find_program
from tests.system.engines.namespace import Namespace
from tests.system.engines.station import Host
from tests.system.overlay.underlay import DEVICE, Underlay
from tests.system.peers.ovs import SCHEMA
from tests.system.peers.process import Process, wait_until

OVERHEAD = {4: 50, 6: 70}
ALL = "00:00:00:00:00:00"  # the entry of the vxlan device for whatever has none


def finish(namespace: Namespace, device: str) -> None:
    """What leaves by an interface is complete from now on: checksums, and frames cut."""
    inside(namespace.name, lambda: set_features(device, ("tx-checksum-ip-generic",), False))


class PeerHost:
    """A host of the underlay. ``station``: who is on its network."""

    station: Host

    def __init__(self, underlay: Underlay, number: int) -> None:
        self.underlay = underlay
        self.namespace = underlay.join(number, "peer")
        self.address = underlay.address(number)
        self.mtu = underlay.mtu - OVERHEAD[underlay.family]
        self.stack = ExitStack()

    def close(self) -> None:
        """End what runs there; the namespace is the underlay's."""
        self.stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class KernelHost(PeerHost):
    """``mac``, ``addresses``: of its station; ``known``: {MAC: underlay address} of others."""

    DEVICE = "vx0"

    def __init__(self, underlay: Underlay, number: int, vni: int, mac: str, addresses: list[str],
                 known: dict[str, str], options: tuple[str, ...] = ()) -> None:
        super().__init__(underlay, number)
        run = functools.partial(self.namespace.run, "ip", "link")
        run("add", self.DEVICE, "address", mac, "mtu", str(self.mtu), "type", "vxlan", "id",
            str(vni), "local", self.address, "dstport", "4789", "nolearning", "dev", DEVICE,
            *options)
        for address, there in known.items():
            self.namespace.run("bridge", "fdb", "replace", address, "dev", self.DEVICE, "dst",
                               there)
        for there in sorted(set(known.values())):
            self.namespace.run("bridge", "fdb", "append", ALL, "dev", self.DEVICE, "dst", there)
        run("set", self.DEVICE, "up")
        self.namespace.run("sh", "-c",
                           f"echo 0 > /proc/sys/net/ipv6/conf/{self.DEVICE}/disable_ipv6")
        for one in addresses:
            self.namespace.run("ip", "address", "add", one, "dev", self.DEVICE,
                               *(["nodad"] if ":" in one else []))
        self.station = Host("kernel", self.namespace.prefix)


class OvsHost(PeerHost):
    """A bridge of Open vSwitch's own data path with a VXLAN port, and a bridge for the underlay's
    interface, as its guide "Connecting VMs Using Tunnels (Userspace)" has it. IPv4 only.

    It reads interfaces by packet sockets and believes what it reads, so nothing may be left undone
    there (``finish``): no checksums, no large frames.
    """

    def __init__(self, underlay: Underlay, number: int, vni: int, mac: str, addresses: list[str],
                 remote: str, folder: Path) -> None:
        super().__init__(underlay, number)
        self.folder = folder / "ovs"
        self.folder.mkdir()
        self.env = {key: str(self.folder) for key in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR")}
        try:
            self._start()
            self._bridges(vni, remote)
            self._station(mac, addresses)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        find_program("ovs-vswitchd")
        subprocess.run(["ovsdb-tool", "create", f"{self.folder}/conf.db", SCHEMA], check=True)
        prefix = self.namespace.prefix
        self._run("ovsdb", ["ovsdb-server", f"{self.folder}/conf.db",
                            f"--remote=punix:{self.folder}/db.sock",
                            f"--unixctl={self.folder}/db.ctl", "--no-chdir"])
        wait_until((self.folder / "db.sock").exists, "the database's socket", 10)
        self._vsctl("--no-wait", "init")
        self._run("vswitchd", [*prefix, find_program("ovs-vswitchd"),
                               f"unix:{self.folder}/db.sock",
                               f"--unixctl={self.folder}/vswitchd.ctl", "--no-chdir"])

    def _run(self, name: str, argv: list[str]) -> None:
        process = Process(name, argv, self.folder / f"{name}.log", self.env)
        self.stack.callback(process.stop)

    def _vsctl(self, *words: str) -> None:
        argv = ["ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--timeout=30", *words]
        subprocess.run(argv, check=True, capture_output=True, env={**self.env, "PATH":
                                                                   "/usr/bin:/bin"})

    def _bridges(self, vni: int, remote: str) -> None:
        run = self.namespace.run
        for bridge in ("phy", "int"):
            self._vsctl("add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev")
        # The interface's address moves to the bridge, which answers ARP with it.
        mac = self._mac(DEVICE)
        run("ip", "address", "flush", "dev", DEVICE)
        self._vsctl("set", "bridge", "phy", f'other_config:hwaddr="{mac}"')
        self._vsctl("add-port", "phy", DEVICE)
        run("ip", "address", "add", f"{self.address}/24", "dev", "phy")
        run("ip", "link", "set", "phy", "mtu", str(self.underlay.mtu), "up")
        self._vsctl("add-port", "int", "tunnel", "--", "set", "interface", "tunnel", "type=vxlan",
                    f"options:remote_ip={remote}", f"options:local_ip={self.address}",
                    f"options:key={vni}")

    def _mac(self, device: str) -> str:
        return self.namespace.run("ip", "-br", "link", "show", "dev", device).split()[2]

    def _station(self, mac: str, addresses: list[str]) -> None:
        place = self.stack.enter_context(Namespace("ovs-station"))
        self.namespace.run("ip", "link", "add", "st0", "mtu", str(self.mtu), "type", "veth",
                           "peer", "name", "eth0", "netns", place.name, "mtu", str(self.mtu),
                           "address", mac)
        self.namespace.run("ip", "link", "set", "st0", "up")
        self._vsctl("add-port", "int", "st0")
        finish(place, "eth0")
        place.run("ip", "link", "set", "eth0", "up")
        for one in addresses:
            place.run("ip", "address", "add", one, "dev", "eth0",
                      *(["nodad"] if ":" in one else []))
        self.station = Host("ovs", place.prefix)
