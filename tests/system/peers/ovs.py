# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch with its DPDK data path: one bridge, NORMAL forwarding, two vhost-user ports.

Used by the bench. Database, sockets and logs live in the folder given; the system's own Open
vSwitch is not touched. The guest listens (`server=1`), Open vSwitch connects.
"""

import re
import subprocess
import time
from pathlib import Path
from typing import Self

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


class Ovs:
    """A private Open vSwitch with two ports on one bridge."""

    def __init__(
        self, folder: Path, sockets: tuple[Path, Path], *, cpu: int = 0, other: int = 1
    ) -> None:
        self.folder = folder / "ovs"
        self.folder.mkdir()
        self.env = {key: str(self.folder) for key in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR")}
        self.database = f"unix:{self.folder}/db.sock"
        self.control = f"{self.folder}/vswitchd.ctl"
        subprocess.run(["ovsdb-tool", "create", f"{self.folder}/conf.db", SCHEMA], check=True)
        argv = ["ovsdb-server", f"{self.folder}/conf.db", f"--remote=p{self.database}"]
        argv += [f"--unixctl={self.folder}/db.ctl", "--no-chdir"]
        self.server = Process("ovsdb-server", argv, self.folder / "ovsdb.log", self.env)
        try:
            wait_until((self.folder / "db.sock").exists, "the database's socket", 10)
            self._configure(sockets, cpu, other)
        except BaseException:
            self.server.stop()
            raise
        argv = [VSWITCHD, self.database, f"--unixctl={self.control}", "--no-chdir"]
        self.daemon = Process("ovs-vswitchd", argv, self.folder / "vswitchd.log", self.env)

    def _configure(self, sockets: tuple[Path, Path], cpu: int, other: int) -> None:
        options = {
            "dpdk-init": "true",
            "pmd-cpu-mask": hex(1 << cpu),
            "dpdk-lcore-mask": hex(1 << other),
            "dpdk-socket-mem": "512",
            "dpdk-extra": f'"--no-pci --file-prefix=byway-ovs-{self.server.pid}"',
        }
        self._vsctl("init")
        self._vsctl(
            "set", "Open_vSwitch", ".", *(f"other_config:{k}={v}" for k, v in options.items())
        )
        self._vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for index, socket in enumerate(sockets):
            port = f"p{index}"
            kind = ["type=dpdkvhostuserclient", f"options:vhost-server-path={socket}"]
            self._vsctl("add-port", "br0", port, "--", "set", "interface", port, *kind)

    def _vsctl(self, *words: str) -> None:
        argv = ["ovs-vsctl", f"--db={self.database}", "--no-wait", "--timeout=10", *words]
        subprocess.run(
            argv, check=True, capture_output=True, env={**self.env, "PATH": "/usr/bin:/bin"}
        )

    def _appctl(self, *words: str) -> str:
        argv = ["ovs-appctl", "--timeout=10", "-t", self.control, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def ready(self, timeout: float = 30.0) -> None:
        """Wait until the bridge runs."""
        end = time.monotonic() + timeout
        while not Path(self.control).exists() or "p1" not in self._appctl("dpif/show"):
            if not self.daemon.running or time.monotonic() > end:
                raise self.daemon.error("the bridge did not come up")
            time.sleep(0.1)

    def linked(self) -> bool:
        """True when the guest's two ports are connected."""
        argv = ["ovs-vsctl", f"--db={self.database}", "--timeout=10", "--bare"]
        argv += ["--columns=link_state", "find", "interface", "type=dpdkvhostuserclient"]
        states = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
        return states == ["up", "up"]

    def clear(self) -> None:
        """Begin a new count of frames and cycles."""
        self._appctl("dpif-netdev/pmd-stats-clear")

    def cycles(self) -> float:
        """Processing cycles a frame since `clear`."""
        return parse_pmd_stats(self._appctl("dpif-netdev/pmd-stats-show"))[1]

    def stop(self) -> None:
        """End both daemons."""
        self.daemon.stop()
        self.server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
