# SPDX-License-Identifier: Apache-2.0
"""Byway's front end drives other people's back ends: DPDK's net_vhost and Open vSwitch.

A virtio-user port of the switch is connected to a back end that sends frames back, a guest beside
it looks into that mirror: every byte is compared, and the order within each flow.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from byway.testing.guest import Guest
from tests import peers
from tests.system.peers import hugepages, ovs
from tests.system.peers.mirror import look_into, numbered
from tests.system.peers.net_vhost import NetVhost, Vhost
from tests.system.peers.process import wait_until
from tests.system.peers.switch import Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("dpdk"), pytest.mark.timeout(300)]

FRAMES, FLOWS, WINDOW = 2000, 16, 32
OVS_MIB = 640


@dataclass(frozen=True)
class FrontPort(Port):
    """A virtio-user port with features switched off."""

    kind: str = "virtio-user"
    off: tuple[str, ...] = ()

    def body(self) -> dict[str, Any]:
        return {**super().body(), "features.off": list(self.off)}


@dataclass(frozen=True)
class Case:
    """One virtio-user port: what it has, and what is to be seen of it."""

    name: str
    off: tuple[str, ...]
    queues: int = 1
    listens: bool = False

    @property
    def packed(self) -> bool:
        """Should its rings be packed?"""
        return "packed" not in self.off

    def ports(self, folder: Path) -> list[Port]:
        """The guest's port and the virtio-user port, in a network of their own."""
        mode = "server" if self.listens else "client"
        return [Port(f"vm-{self.name}", folder / f"vm-{self.name}.sock", network=self.name),
                FrontPort(f"up-{self.name}", folder / f"{self.name}.sock", mode, self.name,
                          queues=self.queues, off=self.off)]


CASES = (
    Case("split", ("packed",)),
    Case("packed", ()),
    Case("split-plain", ("packed", "in_order", "mrg_rxbuf", "event_idx")),
    Case("packed-plain", ("in_order", "mrg_rxbuf", "event_idx")),
    Case("split-4", ("packed",), queues=4),
    Case("packed-4", (), queues=4),
    Case("listens", (), listens=True),
)


class Lab:
    """A switch with all cases, and one testpmd for all of them, which can be started again."""

    def __init__(self, stack: ExitStack, folder: Path, cpus: tuple[int, int]) -> None:
        self.stack, self.folder, self.cpus = stack, folder, cpus
        ports = [port for case in CASES for port in case.ports(folder)]
        self.switch = stack.enter_context(Switch(folder, ports, workers=[cpus[0]]))
        self.starts = 0
        self.testpmd = self.start()
        self.guests = {case.name: self.guest(n, case) for n, case in enumerate(CASES, 1)}

    def start(self) -> NetVhost:
        """testpmd, with every port connected."""
        self.starts += 1
        vhosts = [Vhost(self.folder / f"{case.name}.sock", client=case.listens) for case in CASES]
        testpmd = self.stack.enter_context(
            NetVhost(self.folder, vhosts, cpu=self.cpus[1], name=f"net-vhost-{self.starts}"))
        testpmd.ready()
        testpmd.reflect()
        self.switch.wait_up(*(f"up-{case.name}" for case in CASES))
        return testpmd

    def guest(self, number: int, case: Case) -> Guest:
        """The guest of a case."""
        path = str(self.folder / f"vm-{case.name}.sock")
        return self.stack.enter_context(
            Guest.connect(path, mac=f"02:00:00:00:00:{number:02x}"))

    def look(self, case: Case, count: int = FRAMES) -> None:
        """Frames out and back through the case's port."""
        mirror = bytes([2, 0, 0, 0, self.starts, CASES.index(case) + 1])
        look_into(self.guests[case.name], mirror, count, FLOWS, WINDOW)


@pytest.fixture(scope="module")
def lab(folder: Path, cpus: tuple[int, int], dpdk: None) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack, folder, cpus)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_frames_through_net_vhost(lab: Lab, case: Case) -> None:
    before = lab.switch.ports()[f"up-{case.name}"]
    lab.look(case)
    port = lab.switch.ports()[f"up-{case.name}"]
    assert {ring["format"] for ring in port["rings"]} == {"packed" if case.packed else "split"}
    assert ("ring_packed" in port["features"]["acked"]) == case.packed
    assert port["queues_enabled"] == case.queues
    assert port["rx_frames"] - before["rx_frames"] == FRAMES
    assert port["tx_frames"] - before["tx_frames"] == FRAMES
    used = [ring["frames"] for ring in port["rings"]]
    assert len(used) == 2 * case.queues
    assert all(used), f"every queue has had frames: {used}"
    assert lab.switch.drops() == {}


def test_the_back_end_is_killed_and_starts_again(lab: Lab) -> None:
    """Every port finds it again, in whichever direction it connects."""
    lab.testpmd.child.kill()
    lab.testpmd.stop()
    for case in CASES:
        if not case.listens:
            (lab.folder / f"{case.name}.sock").unlink(missing_ok=True)  # testpmd leaves them
    lab.testpmd = lab.start()
    for case in CASES:
        lab.look(case, 200)


# ---------------------------------------------------------------- Open vSwitch


@pytest.fixture
def huge() -> Iterator[None]:
    """Huge pages for Open vSwitch, reserved for this test and given back."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hugepages.reserve(OVS_MIB))
        except hugepages.HugePagesMissing as error:
            peers.need_peer("huge pages", str(error))
        yield


@pytest.mark.parametrize("off", [("packed",), ()], ids=["split", "packed"])
def test_frames_through_open_vswitch(cpus: tuple[int, int], huge: None, off: tuple[str, ...],
                                     folder: Path) -> None:
    """Two virtio-user ports on its bridge: what goes in at one comes out of the other."""
    if not Path(ovs.VSWITCHD).exists():
        peers.need_peer("Open vSwitch with DPDK", f"no {ovs.VSWITCHD}")
    place = folder / ("ovs-split" if off else "ovs-packed")
    place.mkdir()
    sockets = (place / "p0.sock", place / "p1.sock")
    names = ("blue", "green")
    ports: list[Port] = []
    for name, socket in zip(names, sockets, strict=True):
        ports.append(Port(f"vm-{name}", place / f"{name}.sock", network=name))
        ports.append(FrontPort(f"up-{name}", socket, "server", name, off=off))
    with (Switch(place, ports, workers=[cpus[0]]) as switch,
          ovs.Ovs(place, sockets, cpu=cpus[1], other=cpus[1]) as bridge,
          Guest.connect(str(place / "blue.sock"), mac="02:00:00:00:00:01") as one,
          Guest.connect(str(place / "green.sock"), mac="02:00:00:00:00:02") as two):
        bridge.ready()
        switch.wait_up()
        wait_until(bridge.linked, "the bridge's ports are connected", 30)
        for sender, receiver in ((one, two), (two, one)):
            wait_until(lambda s=sender, r=receiver: reaches(s, r), "the bridge forwards", 30)
        for sender, receiver in ((one, two), (two, one)):
            exchange(sender, receiver)
        for name in names:
            port = switch.ports()[f"up-{name}"]
            assert port["rx_frames"] >= FRAMES
            assert {r["format"] for r in port["rings"]} == {"split" if off else "packed"}
        assert switch.drops() == {}


def reaches(sender: Guest, receiver: Guest) -> bool:
    """Does a frame come through? Those on their way when the bridge begins to forward may not."""
    sender.send([hello(sender, receiver)])
    return hello(sender, receiver) in receiver.receive_until(1, 1.0)


def hello(sender: Guest, receiver: Guest) -> bytes:
    """A frame that none of an exchange's is like."""
    return numbered(receiver.mac, sender.mac, FRAMES, 1)


def exchange(sender: Guest, receiver: Guest) -> None:
    """FRAMES numbered frames from one to the other, in order, compared byte by byte."""
    sent = got = 0
    end = time.monotonic() + 60
    while got < FRAMES:
        assert time.monotonic() < end, f"{got} of {FRAMES} frames came"
        ahead = range(sent, min(FRAMES, got + 32))
        sent += sender.send([numbered(receiver.mac, sender.mac, n, 1) for n in ahead])
        for frame in receiver.receive_until(1, 5.0):
            if frame == hello(sender, receiver):
                continue
            assert frame == numbered(receiver.mac, sender.mac, got, 1), f"frame {got}"
            got += 1
