# SPDX-License-Identifier: Apache-2.0
"""Guests die, come back as other guests, reload their driver and change its queues, under load.

The other guest and the switch stay. Whatever happens to one guest, its port serves the next one,
with the rings and features that this one wants.
"""

import hashlib
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest

from tests import peers
from tests.system.peers import kernel
from tests.system.peers.process import wait_until
from tests.system.peers.qemu import Card, Machine, Vm
from tests.system.peers.switch import Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

FILE = Random(11).randbytes(4 << 20)
SUM = hashlib.md5(FILE).hexdigest()
PORT = 5000
STAYS, CHANGES = "10.5.0.1", "10.5.0.2"
MAC = "02:00:00:05:00:0{}"
QUEUES = 2
LIVES = (  # options of the cards that follow each other on one port, and their queue pairs
    ("", 1),
    ("packed=on", 1),
    ("mq=on", QUEUES),
    ("rx_queue_size=1024,tx_queue_size=1024", 1),
    ("packed=on,mq=on,mrg_rxbuf=off", QUEUES),
    ("disable-modern=on,disable-legacy=off,event_idx=off", 1),
)


class Lab:
    """A switch, a guest that stays, and what the one that changes is started with."""

    def __init__(self, stack: ExitStack, folder: Path, system: tuple[Path, Path]) -> None:
        self.folder, self.system = folder, system
        self.lives = 0
        ports = [Port("stays", folder / "stays.sock")]
        ports.append(Port("changes", folder / "changes.sock", queues=QUEUES))
        self.switch = stack.enter_context(Switch(folder, ports))
        card = Card(folder / "stays.sock", MAC.format(1))
        self.stays = stack.enter_context(Vm("stays", folder, *system, [card], f"{STAYS}/24"))
        self.stays.ready()
        self.stays.serve("/srv/file", PORT)

    @contextmanager
    def guest(self, options: str = "", queues: int = 1) -> Iterator[Vm]:
        """A guest at the port that changes, its driver loaded; SIGKILL at the end of the block."""
        self.lives += 1
        card = Card(self.folder / "changes.sock", MAC.format(2), options, queues)
        machine = Machine(cpus=queues)
        vm = Vm(f"life-{self.lives}", self.folder, *self.system, [card], f"{CHANGES}/24", machine)
        try:
            vm.ready()
            vm.serve("/srv/file", PORT)
            self.switch.wait_up("changes", "stays")
            yield vm
        finally:
            vm.stop(signal.SIGKILL)

    def state(self) -> str:
        """The state of the port that changes."""
        return str(self.switch.ports()["changes"]["state"])

    def check(self, vm: Vm) -> None:
        """Pings and a file each way."""
        assert vm.ping(STAYS, 10) == 10
        assert self.stays.ping(CHANGES, 10) == 10
        assert vm.fetch(STAYS, PORT) == SUM
        assert self.stays.fetch(CHANGES, PORT) == SUM


@pytest.fixture(scope="module")
def lab(
    folder: Path, guest_system: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    files = {"srv/file": FILE, **kernel.program(peers.find_program("ethtool"))}
    target = tmp_path_factory.mktemp("changes") / "initramfs"
    system = kernel.with_files(guest_system[1], files, target)
    with ExitStack() as stack:
        yield Lab(stack, folder, (guest_system[0], system))


@contextmanager
def load(vm: Vm, other: str) -> Iterator[None]:
    """Files are fetched one after the other, whatever becomes of them; the last one ends after."""
    vm.run("rm -f /tmp/over")
    vm.background(f"while [ ! -e /tmp/over ]; do nc -w 2 {other} {PORT}; done; rm /tmp/over")
    yield
    if vm.running:
        vm.run("touch /tmp/over; n=0; while [ -e /tmp/over ] && [ $n -lt 100 ]; do"
               " usleep 100000; n=$((n+1)); done")


def test_one_guest_after_the_other(lab: Lab) -> None:
    for options, queues in LIVES:
        with lab.guest(options, queues) as vm:
            lab.check(vm)
            with load(lab.stays, CHANGES), load(vm, STAYS):
                busy = lab.switch.ports()["changes"]["tx_frames"]
                wait_until(lambda n=busy: lab.switch.ports()["changes"]["tx_frames"] > n + 1000,
                           "the guests are busy", 60)
                vm.stop(signal.SIGKILL)
        wait_until(lambda: lab.state() == "waiting", "the switch noticed", 10)
    assert lab.switch.process.running


def test_the_driver_is_loaded_again(lab: Lab) -> None:
    with lab.guest("packed=on") as vm:
        for _ in range(5):
            with load(lab.stays, CHANGES):
                vm.run("rmmod virtio_net && insmod /m/virtio_net.ko")
            vm.run(f"ip link set eth0 up; ip addr add {CHANGES}/24 dev eth0")
            lab.switch.wait_up("changes")
            lab.check(vm)


def test_the_guest_changes_its_queues(lab: Lab) -> None:
    with lab.guest("mq=on", QUEUES) as vm:
        for count in (1, 2, 1, 2, 1, 2):
            with load(lab.stays, CHANGES), load(vm, STAYS):
                vm.run(f"{peers.find_program('ethtool')} -L eth0 combined {count}")
                assert vm.fetch(STAYS, PORT) == SUM
            lab.check(vm)


@pytest.mark.parametrize("options", ["", "packed=on"], ids=["split", "packed"])
def test_the_guest_resizes_its_rings(lab: Lab, options: str) -> None:
    """A driver without RING_RESET refuses; with it, the device must learn of the new ring."""
    ethtool = peers.find_program("ethtool")
    with lab.guest(options) as vm:
        for wanted in ("rx 128", "tx 64", "rx 256 tx 256"):
            with load(lab.stays, CHANGES):
                vm.run(f"{ethtool} -G eth0 {wanted} || true")
            lab.check(vm)


def test_nothing_was_lost_without_a_reason(lab: Lab) -> None:
    """Runs last: what was dropped had nowhere to go."""
    reasons = {reason for drops in lab.switch.drops().values() for reason in drops}
    assert reasons <= {"no_buffers", "port_down", "ring_disabled"}
