# SPDX-License-Identifier: Apache-2.0
"""Linux guests under QEMU ping each other; the switch is killed and comes back; a guest reboots."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.peers.qemu import Card, Vm
from tests.system.peers.switch import Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

NAMES = ("vm1", "vm2")
PINGS = 100


class Lab:
    """A switch and two booted guests."""

    def __init__(self, stack: ExitStack, folder: Path, system: tuple[Path, Path],
                 options: str) -> None:
        sockets = [folder / f"{name}.sock" for name in NAMES]
        ports = [Port(name, socket) for name, socket in zip(NAMES, sockets, strict=True)]
        self.switch = stack.enter_context(Switch(folder, ports))
        self.vms = [
            stack.enter_context(
                Vm(name, folder, *system, [Card(socket, f"02:00:00:00:00:0{n}", options)],
                   f"10.0.0.{n}/24")
            )
            for n, (name, socket) in enumerate(zip(NAMES, sockets, strict=True), 1)
        ]
        for vm in self.vms:
            vm.ready()
        self.switch.wait_up()

    def ping_both_ways(self) -> None:
        """Every request of either guest is answered."""
        assert self.vms[0].ping("10.0.0.2", PINGS) == PINGS
        assert self.vms[1].ping("10.0.0.1", PINGS) == PINGS


@pytest.fixture(scope="module", params=["", "packed=on"], ids=["split", "packed"])
def lab(
    folder: Path, guest_system: tuple[Path, Path], request: pytest.FixtureRequest
) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack, folder, guest_system, request.param)


def test_guests_ping_each_other(lab: Lab) -> None:
    lab.ping_both_ways()
    entries = {row["mac"]: row["port"] for row in lab.switch.command("fdb", "list")}
    assert entries == {"02:00:00:00:00:01": "vm1", "02:00:00:00:00:02": "vm2"}


def test_guests_go_on_after_the_switch_was_killed(lab: Lab) -> None:
    for _ in range(3):
        lab.switch.kill()
        lab.switch.start()
        lab.switch.wait_up()
        lab.ping_both_ways()


def test_a_guest_comes_back_after_a_reboot(lab: Lab) -> None:
    lab.vms[1].reboot()
    lab.switch.wait_up()
    lab.ping_both_ways()
    # What its neighbour sent to nobody in particular while it was away had nowhere to go.
    assert {reason for drops in lab.switch.drops().values() for reason in drops} <= {"port_down"}
