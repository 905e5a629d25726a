# SPDX-License-Identifier: Apache-2.0
"""A guest's card changes hands: from Linux' driver to DPDK's, in the guest, and back.

The guest has an emulated IOMMU, so vfio-pci can give the card to testpmd, which sends back what it
gets. Byway sees a device that is reset and set up by another driver, with other features.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from byway.testing.frames import mac
from byway.testing.guest import Guest
from tests import peers
from tests.system.peers import inside, mirror
from tests.system.peers.inside import Inside
from tests.system.peers.pinger import Pinger
from tests.system.peers.process import wait_until
from tests.system.peers.qemu import Card
from tests.system.peers.switch import Port, Switch
from tests.system.peers.testpmd import PROGRAM

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

MAC, LOOKER = "02:00:00:07:00:01", "02:00:00:07:00:02"
ADDRESS, ASKER = "10.7.0.1", "10.7.0.2"
MODULES = ["virtio_net", "vfio_pci", "vfio_iommu_type1"]
HUGE_PAGES = 64  # of 2 MiB
UNSAFE = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"  # none are remapped
FRAMES, FLOWS, WINDOW = 2000, 16, 32
OVER, SAID = "/tmp/over", "/tmp/said"  # in the guest: testpmd is to end; what it said


class Lab:
    """A switch, a guest with the files of this machine, and who looks at its card."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        ports = [Port("vm", folder / "vm.sock"), Port("looker", folder / "looker.sock")]
        self.switch = stack.enter_context(Switch(folder, ports))
        system = inside.build(folder, MODULES)
        card = Card(folder / "vm.sock", MAC)
        self.vm = stack.enter_context(Inside("vm", folder, system, [card], iommu=True))
        self.vm.ready()
        self.vm.run(f"echo {HUGE_PAGES} >/proc/sys/vm/nr_hugepages; echo 1 >{UNSAFE}")
        self.place = self.vm.run("basename $(dirname $(readlink -f /sys/class/net/eth0/device))")
        self.looker = stack.enter_context(Guest.connect(str(folder / "looker.sock"), LOOKER))

    def give_to(self, driver: str) -> None:
        """Take the card from its driver and let the kernel find another (empty: its own)."""
        device = f"/sys/bus/pci/devices/{self.place}"
        self.vm.run(f"echo {driver} >{device}/driver_override; echo {self.place} >{device}/driver"
                    f"/unbind; echo {self.place} >/sys/bus/pci/drivers_probe")

    def linux_answers(self) -> None:
        """Linux has the card, and answers pings."""
        self.vm.run(f"ip link set eth0 up; ip addr add {ADDRESS}/24 dev eth0")
        self.switch.wait_up("vm", "looker")
        with Pinger(self.looker, ASKER, ADDRESS) as pinger:
            wait_until(lambda: len(pinger.answers) >= 20, "twenty pings are answered", 20)
            assert pinger.twice == 0

    def dpdk_answers(self) -> None:
        """testpmd has the card, and sends back every frame."""
        self.vm.run(f"rm -f {OVER} {SAID}")
        program = peers.find_program(PROGRAM)
        self.vm.background(
            f"(while [ ! -e {OVER} ]; do sleep 1; done; echo stop; echo quit) | chroot"
            f" {inside.ROOT} stdbuf -oL {program} -l 0,1 -m {HUGE_PAGES} --in-memory --iova-mode=pa"
            f" --no-telemetry -a {self.place} -- -i --auto-start --forward-mode=macswap"
            f" --port-topology=loop --total-num-mbufs=2048 >{SAID} 2>&1")
        self.wait_said("TX RS bit threshold")
        self.switch.wait_up("vm")
        while self.looker.receive():  # Linux asked for its address (RFC 4862, 5.4), for instance
            continue
        mirror.look_into(self.looker, mac(MAC), FRAMES, FLOWS, WINDOW)
        self.vm.run(f"touch {OVER}")
        self.wait_said("Bye")

    def wait_said(self, text: str) -> None:
        """Wait until testpmd has said this."""
        self.vm.run(f"until grep -q '{text}' {SAID}; do usleep 100000; done")


@pytest.fixture
def lab(own_folder: Path) -> Iterator[Lab]:
    peers.find_program(PROGRAM)
    peers.find_program("qemu-system-x86_64")
    with ExitStack() as stack:
        yield Lab(stack, own_folder)


def test_from_linux_to_dpdk_and_back(lab: Lab) -> None:
    for _ in range(2):
        lab.linux_answers()
        lab.give_to("vfio-pci")
        assert lab.switch.ports()["vm"]["state"] == "waiting"
        lab.dpdk_answers()
        lab.give_to("")
    lab.linux_answers()
    reasons = {reason for drops in lab.switch.drops().values() for reason in drops}
    assert reasons <= {"port_down"}  # while the card had no driver
