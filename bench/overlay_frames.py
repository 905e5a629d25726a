# SPDX-License-Identifier: Apache-2.0
"""A machine on one host and a machine on another, in each of the ways whose small frames
bench/overlay.py compares.

Used by it. The machines are the two ports of one DPDK testpmd, which sends every frame back that
comes. Near the switch that is measured, on a CPU of its own; the far host's switch, of the same
kind, shares the other CPU with the machines, and is not measured. Each way is a context manager:
what stays the same in, a `Run` out.

Between the hosts is a virtqueue ("ring": the near host is the back end, the far one the front end)
or a veth.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.overlay_places import QUIET, VNI, Host, hosts, linux_overlay, station
from bench.overlay_tcp import byway_text
from bench.vm2vm_testpmd import MACS, BywayMeter
from tests.system.engines.namespace import Namespace
from tests.system.overlay.bed import toml
from tests.system.peers import ovs, testpmd
from tests.system.peers.process import Process, wait_until
from tests.system.peers.switch import Switch

RING = 1024
START = 60.0  # seconds


@dataclass(frozen=True)
class Settings:
    """What stays the same: bytes a frame, (the measured switch's CPU, everybody else's), whether
    there are huge pages, a folder."""

    frame: int
    cpus: tuple[int, int]
    huge: bool
    folder: Path


class Meter(Protocol):
    """Counts what the near switch works."""

    def clear(self) -> None:
        """Begin to count."""

    def cycles(self) -> float:
        """Cycles a frame since `clear`."""


@dataclass(frozen=True)
class Run:
    """A pair of machines that are connected, and the count of what lies between them; ``process``
    is whose work that is, by threads that stay on ``cpu``."""

    guest: testpmd.Guest
    meter: Meter
    process: Process
    cpu: int

    def preempted(self) -> int:
        """How often these threads had to leave their CPU to others so far (proc(5), "status")."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            words = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            if words["Cpus_allowed_list"].strip() == str(self.cpu):
                total += int(words["nonvoluntary_ctxt_switches"])
        return total


def machines(settings: Settings, server: bool) -> tuple[testpmd.VirtioUser, testpmd.VirtioUser]:
    """The machines' ports; ``server``: they listen."""
    one, two = (testpmd.VirtioUser(settings.folder / f"s{k}", mac, queue_size=RING, server=server)
                for k, mac in enumerate(MACS))
    return one, two


def guest(settings: Settings, ports: tuple[testpmd.GuestPort, testpmd.GuestPort],
          **options: object) -> testpmd.Guest:
    """The machines; they run on the other CPU."""
    return testpmd.Guest(settings.folder, ports, cpu=settings.cpus[1], frame=settings.frame,
                         huge=settings.huge, **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------- Byway


def byway_host(settings: Settings, host: Host, link: dict[str, object] | None) -> Switch:
    """Byway on a host, with the machine's port and an uplink (None: sockets of the kernel)."""
    where = settings.folder / f"host{host.number}"
    where.mkdir()
    port: dict[str, object] = {
        "name": "vm", "network": "blue", "kind": "vhost-user", "mac": MACS[host.number],
        "socket": str(settings.folder / f"s{host.number}")}
    underlay: dict[str, object] = {"mtu": 1600}
    if link is not None:
        underlay["uplink"] = "wire"
    text = byway_text(where, host, port, MACS[1 - host.number], **underlay)
    text = text.replace("[switch]\n", f"[switch]\nworkers = [{settings.cpus[host.number]}]\n")
    if link is not None:
        text += "\n" + toml([
            ("[[network]]", {"name": "wires", "mtu": 1600}),
            ("[[port]]", {"name": "wire", "network": "wires", **link})])
    return Switch(where, [], prefix=host.namespace.prefix, text=text)


@contextlib.contextmanager
def byway(settings: Settings, links: list[dict[str, object] | None], wired: bool) -> Iterator[Run]:
    """Both hosts, and the machines."""
    with hosts(wired, configured=links[0] is None) as given, ExitStack() as stack:
        switches = [stack.enter_context(byway_host(settings, host, link))
                    for host, link in zip(given, links, strict=True)]
        running = stack.enter_context(guest(settings, machines(settings, server=False)))
        running.ready(START)
        for switch in switches:
            switch.wait_up()
        yield Run(running, BywayMeter(switches[0]), switches[0].process, settings.cpus[0])


def byway_sockets(settings: Settings) -> AbstractContextManager[Run]:
    """The underlay is a veth, by UDP sockets of the kernel's."""
    return byway(settings, [None, None], wired=True)


def byway_ring(settings: Settings) -> AbstractContextManager[Run]:
    """The underlay is a virtqueue."""
    link = str(settings.folder / "link")
    return byway(settings, [{"kind": "vhost-user", "socket": link, "mode": "client"},
                            {"kind": "virtio-user", "socket": link, "mode": "server"}],
                 wired=False)


def byway_packet(settings: Settings) -> AbstractContextManager[Run]:
    """The underlay is a veth, by packet sockets."""
    return byway(settings, [{"kind": "af-packet", "ifname": "under0"}] * 2, wired=True)


def byway_xdp(settings: Settings) -> AbstractContextManager[Run]:
    """The underlay is a veth, by XDP sockets."""
    return byway(settings, [{"kind": "af-xdp", "ifname": "under0"}] * 2, wired=True)


# ---------------------------------------------------------------- Open vSwitch with DPDK


@contextlib.contextmanager
def open_vswitch(settings: Settings, links: list[list[str]], wired: bool) -> Iterator[Run]:
    """Both hosts, and the machines."""
    with hosts(wired, configured=False) as given, ExitStack() as stack:
        switches = []
        for host, link in zip(given, links, strict=True):
            cpu = settings.cpus[host.number]
            switches.append(stack.enter_context(ovs.VxlanHost(
                settings.folder / f"host{host.number}", host.namespace,
                machine=settings.folder / f"s{host.number}", uplink=link, address=host.address,
                remote=host.remote, vni=VNI, cpu=cpu, other=settings.cpus[1])))
        for host in given:  # the bridge's address is resolved when somebody asks for it
            wait_until(lambda at=host: answers(at), "the other host answers", START)
        running = stack.enter_context(guest(settings, machines(settings, server=True)))
        running.ready(START)
        for switch in switches:
            wait_until(lambda one=switch: one.links()[one.MACHINE] == "up",
                       "Open vSwitch serves the machine", START)
        yield Run(running, switches[0], switches[0].daemon, settings.cpus[0])


def answers(host: Host) -> bool:
    """Whether the other host answers this one."""
    text = host.run("sh", "-c", f"busybox ping -q -c 1 -W 1 {host.remote} || true")
    return " 1 packets received" in text


def ovs_ring(settings: Settings) -> AbstractContextManager[Run]:
    """The underlay is a virtqueue."""
    link = settings.folder / "link"
    return open_vswitch(settings, [ovs.guest_port(link), ovs.driver_port(link, "up")], wired=False)


def ovs_packet(settings: Settings) -> AbstractContextManager[Run]:
    """The underlay is a veth, by DPDK's packet sockets."""
    return open_vswitch(settings, [ovs.packet_port("under0")] * 2, wired=True)


def ovs_xdp(settings: Settings) -> AbstractContextManager[Run]:
    """The underlay is a veth, by DPDK's XDP sockets."""
    return open_vswitch(settings, [ovs.xdp_port("under0")] * 2, wired=True)


# ---------------------------------------------------------------- Linux


@contextlib.contextmanager
def over_kernel(settings: Settings, machine: Namespace, names: tuple[str, str]
                ) -> Iterator[testpmd.Guest]:
    """The machines on two interfaces of a namespace."""
    ports = (testpmd.PacketSocket(names[0], MACS[0]), testpmd.PacketSocket(names[1], MACS[1]))
    with guest(settings, ports, inside=machine.prefix, count=True) as running:
        running.ready(START)
        yield running


@contextlib.contextmanager
def bare(settings: Settings) -> Iterator[Run]:
    """The machines at the two ends of a veth: what they need for a frame themselves."""
    with Namespace("machines") as machine:
        machine.run("sh", "-c", QUIET)
        machine.run("ip", "link", "add", "eth0", "address", MACS[0], "type", "veth", "peer", "name",
                    "eth1", "address", MACS[1])
        for name in ("eth0", "eth1"):
            machine.run("ip", "link", "set", name, "up")
        with over_kernel(settings, machine, ("eth0", "eth1")) as running:
            yield Run(running, running, running, settings.cpus[1])


@contextlib.contextmanager
def linux(settings: Settings) -> Iterator[Run]:
    """The kernel's bridges and vxlan devices, the machines on packet sockets.

    The kernel has no process of its own to be counted: it carries a frame through both hosts while
    the sender's system call lasts. So this is what the machines need, all of it; what they need by
    themselves is `bare`."""
    with Namespace("machines") as machine, hosts() as given:
        machine.run("sh", "-c", QUIET)
        names = []
        for host, mac, other in zip(given, MACS, MACS[::-1], strict=True):
            names.append(station(host, machine, mac, "st"))
            linux_overlay(host, "st", other)
        with over_kernel(settings, machine, (names[0], names[1])) as running:
            yield Run(running, running, running, settings.cpus[1])


WAYS: dict[str, Callable[[Settings], AbstractContextManager[Run]]] = {
    "byway ring": byway_ring,
    "ovs ring": ovs_ring,
    "byway sockets": byway_sockets,
    "byway af-packet": byway_packet,
    "byway af-xdp": byway_xdp,
    "ovs af-packet": ovs_packet,
    "ovs af-xdp": ovs_xdp,
    "linux": linux,
    "bare": bare,
}
