# SPDX-License-Identifier: Apache-2.0
"""`byway conform` against Byway, DPDK, Open vSwitch and QEMU: what fails is in the manual."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.system import findings
from tests.system.peers import hugepages, ovs, testpmd
from tests.system.peers.process import Process, wait_until
from tests.system.peers.qemu import Card, Vm
from tests.system.peers.switch import BYWAY, Port, Switch
from tests.system.peers.testpmd import VirtioUser

pytestmark = [pytest.mark.system, pytest.mark.timeout(500)]

SECONDS = 400  # a whole run, on a machine that others use as well
PATIENT = ("--timeout", 6)  # seconds within which a back end has to answer, there as well
OVS_MIB = 640
# Checks whose end depends on how fast a peer is on the machine at hand.
UNSTABLE = {"ring.split.frames-in-order", "ring.packed.frames-in-order", "mq.half-pair",
            "transport.second-connection", "transport.reconnect-at-once", "net.no-buffers",
            "robust.truncated-memory"}


def conform(*words: object, status: Sequence[int] = (0,)) -> dict[str, Any]:
    """Run the command to its end; what it says in JSON."""
    argv = [str(BYWAY), "conform", *map(str, words), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode in status, done.stdout[-3000:] + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def known(peer: str, how: str, result: dict[str, Any]) -> None:
    """Every check was made or does not apply, and what failed is what the manual says."""
    findings.record(peer, how, result)
    left = [c["name"] for c in result["checks"] if c["verdict"] == "unable"]
    assert left == [], "the run went to its end"
    page = findings.documented(peer)
    if page is None:  # another version: nothing to compare with
        return
    seen = {c["name"]: c["level"] for c in findings.failed(result)}
    assert {n for n in seen if n not in UNSTABLE} == {n for n in page if n not in UNSTABLE}


def version(package: str) -> str:
    """The version of an installed Debian package, without Debian's own part."""
    argv = ["dpkg-query", "-W", "-f", "${Version}", package]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return text.rpartition("-")[0].rpartition(":")[2].partition("+")[0]


# ---------------------------------------------------------------- Byway


@pytest.fixture(scope="module")
def switch(folder: Path, cpus: tuple[int, int]) -> Iterator[Switch]:
    """Two ports of two queue pairs, and one that drives somebody's device."""
    ports = [Port(name, folder / f"{name}.sock", queues=2) for name in ("vm1", "vm2")]
    ports.append(Port("uplink", folder / "uplink.sock", "client", kind="virtio-user"))
    with Switch(folder, ports, workers=[cpus[0]]) as running:
        yield running


def test_byways_back_end_passes_every_check(switch: Switch, folder: Path) -> None:
    result = conform("backend", folder / "vm1.sock", "--peer", folder / "vm2.sock", *PATIENT)
    assert findings.failed(result) == []
    assert result["counts"]["unable"] == 0
    assert result["counts"]["pass"] > 250


def test_byways_back_end_survives_spoiled_conversations(switch: Switch, folder: Path) -> None:
    result = conform("backend", folder / "vm1.sock", "--peer", folder / "vm2.sock", *PATIENT,
                     "--hostile", "--cases", 300, "--seed", 11)
    assert result["finding"] is None, result


def test_byways_front_end_passes_every_check(switch: Switch, folder: Path) -> None:
    result = conform("frontend", folder / "uplink.sock")
    assert findings.failed(result) == []
    assert result["counts"]["pass"] >= 50


# ---------------------------------------------------------------- other people's


class VhostPorts(testpmd.Testpmd):
    """testpmd with two net_vhost ports: what comes in at one goes out of the other."""

    def __init__(self, folder: Path, sockets: Sequence[Path], cpu: int) -> None:
        eal = [word for k, socket in enumerate(sockets)
               for word in ("--vdev", f"net_vhost{k},iface={socket},queues=2")]
        super().__init__("net_vhost", folder, cpu, 256, False, eal,
                         ["--forward-mode=io", "--rxq=2", "--txq=2"])


@pytest.mark.usefixtures("dpdk")
def test_dpdks_back_end(folder: Path, cpus: tuple[int, int]) -> None:
    sockets = (folder / "d0.sock", folder / "d1.sock")
    with VhostPorts(folder, sockets, cpus[1]) as running:
        running.ready()
        running.command("start", r"TX RS bit threshold=0\s.*TX RS bit threshold=0\s")
        result = conform("backend", sockets[0], "--peer", sockets[1], *PATIENT, status=(0, 1))
    known(f"DPDK {version('dpdk')}, net_vhost", "`testpmd --forward-mode=io` with two net_vhost "
          "ports of two queues, without huge pages.", result)


@pytest.mark.usefixtures("dpdk")
def test_dpdks_front_end(folder: Path, cpus: tuple[int, int]) -> None:
    """virtio_user listens, so that it can be hung up on."""
    path = folder / "vu.sock"
    port = VirtioUser(path, "02:00:00:00:00:31", queue_size=256, server=True)
    app = ["--forward-mode=io", "--txd=256", "--rxd=256", "--auto-start"]
    with testpmd.Testpmd("virtio_user", folder, cpus[1], 256, False,
                 ["--single-file-segments", "--vdev", port.vdev(0)], app) as running:
        wait_until(path.exists, "virtio_user listens", 30)
        result = conform("frontend", path, "--connect", status=(0, 1))
        assert running.running
    path.unlink(missing_ok=True)
    known(f"DPDK {version('dpdk')}, virtio_user", "`testpmd --forward-mode=io` with one "
          "virtio_user port, `server=1`.", result)


class ListeningOvs(ovs.Ovs):
    """Open vSwitch whose ports listen (`dpdkvhostuser`), as sockets in its run directory."""

    def add_ports(self, sockets: tuple[Path, Path]) -> None:
        for port in ("p0", "p1"):
            self.vsctl("--no-wait", "add-port", "br0", port, "--", "set", "interface", port,
                       "type=dpdkvhostuser")


@pytest.mark.usefixtures("dpdk")
def test_open_vswitchs_back_end(folder: Path, cpus: tuple[int, int]) -> None:
    if not Path(ovs.VSWITCHD).exists():
        peers.need_peer("Open vSwitch with DPDK", f"no {ovs.VSWITCHD}")
    sockets = (folder / "ovs" / "p0", folder / "ovs" / "p1")
    with ExitStack() as stack:
        try:
            stack.enter_context(hugepages.reserve(OVS_MIB))
        except hugepages.HugePagesMissing as error:
            peers.need_peer("huge pages", str(error))
        running = stack.enter_context(ListeningOvs(folder, sockets, cpu=cpus[1], other=cpus[0]))
        running.ready()
        wait_until(sockets[1].exists, "its sockets", 30)
        result = conform("backend", sockets[0], "--peer", sockets[1], *PATIENT, status=(0, 1))
    known(f"Open vSwitch {version('openvswitch-switch-dpdk')} with DPDK {version('dpdk')}",
          "A bridge with two `dpdkvhostuser` ports and one queue pair each.", result)


def test_qemus_front_end(folder: Path, guest_system: tuple[Path, Path]) -> None:
    """A Linux guest, whose driver is behind QEMU's front end."""
    path = folder / "q.sock"
    log = folder / "conform-qemu.json"
    argv = [str(BYWAY), "conform", "frontend", str(path), "--timeout", "120", "--json"]
    with Process("conform", argv, log) as running, \
            Vm("qemu", folder, *guest_system, [Card(path, "02:00:00:00:00:41")],
               "10.0.0.41/24") as vm:
        wait_until(lambda: not running.running, "the checks were made", SECONDS)
        assert vm.running
    result = json.loads(log.read_text())
    known(f"QEMU {version('qemu-system-x86')} and a Linux guest", "`-netdev vhost-user` with "
          "`reconnect=1`, virtio-net-pci, the driver of Debian's kernel.", result)
