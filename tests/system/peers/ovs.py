# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch with its DPDK data path: a bridge of two vhost-user ports, or a host with VXLAN.

Used by the benches. Database, sockets and logs live in the folder given; the system's own Open
vSwitch is not touched. `Ovs` is one bridge with NORMAL forwarding and two vhost-user ports.
`VxlanHost` is a host of an overlay, in a network namespace: the bridge ``int`` has the machine's
port and the tunnel, the bridge ``phy`` the underlay's port and the host's own address, as Open
vSwitch's guide "Connecting VMs Using Tunnels (Userspace)" has it. Towards guests and other hosts it
connects to sockets; the other side listens (`server=1`).
"""

import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.system.engines.namespace import Namespace
from tests.system.peers.process import Process, wait_until

VSWITCHD = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def parse_pmd_stats(text: str) -> tuple[int, float]:
    """(frames received, processing cycles a frame) of a PMD thread, from `pmd-stats-show`."""
    thread = text.split("pmd thread", 1)[-1].split("main thread", 1)[0]
    frames = re.search(r"packets received:\s*(\d+)", thread)
    cycles = re.search(r"avg processing cycles per packet:\s*([\d.]+)", thread)
    if frames is None or cycles is None:
        raise ValueError(f"no cycles in Open vSwitch's statistics: {text!r}")
    return int(frames.group(1)), float(cycles.group(1))


class Vswitch:
    """A private Open vSwitch whose one polling thread is on ``cpu``, all else on ``other``.

    ``prefix`` comes before its commands (a namespace); ``mib``: of huge pages. It runs when this is
    made; its bridges are made by `vsctl`.
    """

    def __init__(self, folder: Path, *, cpu: int, other: int, mib: int = 512,
                 prefix: Sequence[str] = ()) -> None:
        self.folder = folder / "ovs"
        self.folder.mkdir(parents=True)
        self.prefix = list(prefix)
        self.env = {key: str(self.folder) for key in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR")}
        self.database = f"unix:{self.folder}/db.sock"
        self.control = f"{self.folder}/vswitchd.ctl"
        subprocess.run(["ovsdb-tool", "create", f"{self.folder}/conf.db", SCHEMA], check=True)
        argv = ["ovsdb-server", f"{self.folder}/conf.db", f"--remote=p{self.database}"]
        argv += [f"--unixctl={self.folder}/db.ctl", "--no-chdir"]
        self.server = Process("ovsdb-server", argv, self.folder / "ovsdb.log", self.env)
        try:
            wait_until((self.folder / "db.sock").exists, "the database's socket", 10)
            extra = f"--no-pci --single-file-segments --file-prefix=byway-ovs-{self.server.pid}"
            options = {
                "dpdk-init": "true",
                "pmd-cpu-mask": hex(1 << cpu),
                "dpdk-lcore-mask": hex(1 << other),
                "dpdk-socket-mem": str(mib),
                "dpdk-socket-limit": str(mib),
                "dpdk-extra": f'"{extra}"',
            }
            self.vsctl("--no-wait", "init")
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".",
                       *(f"other_config:{key}={value}" for key, value in options.items()))
        except BaseException:
            self.server.stop()
            raise
        argv = [*self.prefix, VSWITCHD, self.database, f"--unixctl={self.control}", "--no-chdir"]
        self.daemon = Process("ovs-vswitchd", argv, self.folder / "vswitchd.log", self.env)

    def vsctl(self, *words: str) -> str:
        """`ovs-vsctl WORDS`; what it printed."""
        argv = ["ovs-vsctl", f"--db={self.database}", "--timeout=30", *words]
        env = {**self.env, "PATH": "/usr/bin:/bin"}
        return subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout

    def appctl(self, *words: str) -> str:
        """`ovs-appctl WORDS` to the switch; what it printed."""
        argv = ["ovs-appctl", "--timeout=10", "-t", self.control, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def wait_for(self, port: str, timeout: float = 30.0) -> None:
        """Wait until the data path has a port."""
        end = time.monotonic() + timeout
        while not Path(self.control).exists() or port not in self.appctl("dpif/show"):
            if not self.daemon.running or time.monotonic() > end:
                raise self.daemon.error(f"port {port} did not come up")
            time.sleep(0.1)

    def clear(self) -> None:
        """Begin a new count of frames and cycles."""
        self.appctl("dpif-netdev/pmd-stats-clear")

    def cycles(self) -> float:
        """Processing cycles a frame since `clear`."""
        return parse_pmd_stats(self.appctl("dpif-netdev/pmd-stats-show"))[1]

    def links(self) -> dict[str, str]:
        """{interface: its link's state, "up", "down" or ""}."""
        text = self.vsctl("--format=csv", "--no-headings", "--columns=name,link_state", "list",
                          "interface")
        return {name: state.strip("[]") for name, _, state in
                (line.partition(",") for line in text.splitlines())}

    def stop(self) -> None:
        """End both daemons."""
        self.daemon.stop()
        self.server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Ovs(Vswitch):
    """Two ports on one bridge."""

    def __init__(
        self, folder: Path, sockets: tuple[Path, Path], *, cpu: int = 0, other: int = 1
    ) -> None:
        super().__init__(folder, cpu=cpu, other=other)
        try:
            self.vsctl("--no-wait", "add-br", "br0", "--", "set", "bridge", "br0",
                       "datapath_type=netdev")
            self.add_ports(sockets)
        except BaseException:
            self.stop()
            raise

    def add_ports(self, sockets: tuple[Path, Path]) -> None:
        """The ports p0 and p1."""
        for index, socket in enumerate(sockets):
            self.vsctl("--no-wait", "add-port", "br0", f"p{index}", "--", "set", "interface",
                       f"p{index}", *guest_port(socket))

    def ready(self, timeout: float = 30.0) -> None:
        """Wait until the bridge runs."""
        self.wait_for("p1", timeout)

    def linked(self) -> bool:
        """True when the guest's two ports are connected."""
        states = self.links()
        return states["p0"] == states["p1"] == "up"


class VxlanHost(Vswitch):
    """A host of an overlay: ``machine`` is the socket of its machine. ``uplink``: the columns of
    the interface that goes to the other hosts ("type=dpdk", ...). ``address``, ``remote``: IPv4
    addresses of this host and the other; ``vni``: the network.
    """

    UPLINK, MACHINE, TUNNEL = "wire", "vm", "tunnel"

    def __init__(self, folder: Path, namespace: Namespace, *, machine: Path, uplink: Sequence[str],
                 address: str, remote: str, vni: int, cpu: int = 0, other: int = 1,
                 mib: int = 512) -> None:
        super().__init__(folder, cpu=cpu, other=other, mib=mib, prefix=namespace.prefix)
        self.namespace = namespace
        try:
            for bridge in ("phy", "int"):
                self.vsctl("add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev")
            self._add("phy", self.UPLINK, *uplink)
            namespace.run("ip", "address", "add", f"{address}/24", "dev", "phy")
            namespace.run("ip", "link", "set", "phy", "up")
            self._add("int", self.MACHINE, *guest_port(machine))
            self._add("int", self.TUNNEL, "type=vxlan", f"options:remote_ip={remote}",
                      f"options:local_ip={address}", f"options:key={vni}")
        except BaseException:
            self.stop()
            raise

    def _add(self, bridge: str, port: str, *columns: str) -> None:
        self.vsctl("add-port", bridge, port, "--", "set", "interface", port, *columns)


def guest_port(socket: Path) -> list[str]:
    """The columns of a port whose front end listens at a socket."""
    return ["type=dpdkvhostuserclient", f"options:vhost-server-path={socket}"]


def driver_port(socket: Path, name: str) -> list[str]:
    """The columns of a port that is the front end, listening at a socket itself: the other end of
    a `guest_port`."""
    device = f"net_virtio_user_{name},path={socket},server=1,queues=1,queue_size=1024"
    return ["type=dpdk", f'options:dpdk-devargs="{device}"']


def packet_port(ifname: str) -> list[str]:
    """The columns of a port on an interface of the kernel, by DPDK's packet sockets."""
    return ["type=dpdk", f'options:dpdk-devargs="net_af_packet0,iface={ifname}"']


def xdp_port(ifname: str) -> list[str]:
    """The same by DPDK's XDP sockets."""
    return ["type=dpdk", f'options:dpdk-devargs="net_af_xdp0,iface={ifname}"']
