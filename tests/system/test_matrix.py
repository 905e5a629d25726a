# SPDX-License-Identifier: Apache-2.0
"""Every peer and option of the matrix passes traffic both ways; docs/reference/matrix.md says so.

DPDK's virtio_user ports with the same sizes share a testpmd, QEMU's cards one pair of guests: each
case has a network of its own. BYWAY_WRITE_MATRIX=1 writes the page.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from byway.testing.frames import mac
from byway.testing.guest import Guest
from tests.system import matrix
from tests.system.matrix import DpdkCase, Row
from tests.system.peers import kernel, mirror, qemu
from tests.system.peers.mirror import Mirror
from tests.system.peers.qemu import Card, Machine, Vm
from tests.system.peers.switch import Port, Switch
from tests.system.peers.testpmd import VirtioUser

GROUPS = matrix.dpdk_groups()
QEMU_CASES = matrix.qemu_cases()
FRAMES = 2000
FLOWS = 64
PINGS = 10
TRIES = 3
FILE = Random(1500).randbytes(2 << 20)
SUM = hashlib.md5(FILE).hexdigest()


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], Row]:
    """What this run saw."""
    return {}


def test_the_page_has_a_row_for_each_case() -> None:
    found = matrix.parse(matrix.PAGE.read_text())
    assert [row.case for row in found] == matrix.expected()
    assert [row for row in found if row.result != "passes"] == []


def collect(check: Callable[[int], None], count: int) -> dict[int, str]:
    """{case: what was wrong} of ``check`` for each case."""
    failures = {}
    for index in range(count):
        try:
            check(index)
        except Exception as error:
            failures[index] = f"{type(error).__name__}: {error}".splitlines()[0]
    return failures


# ---------------------------------------------------------------- DPDK


def station(kind: int, index: int) -> str:
    """The address of a case's mirror (kind 1) or guest (kind 2)."""
    return f"02:00:00:00:{kind:02x}:{index:02x}"


def dpdk_name(group: list[DpdkCase]) -> str:
    """What a group's test is called."""
    return f"size-{group[0].queue_size}-queues-{group[0].queues}"


class Mirrors:
    """A switch, a testpmd with a port for each case, and the guests that look into it."""

    def __init__(self, stack: ExitStack, folder: Path, cpus: tuple[int, int],
                 group: list[DpdkCase]) -> None:
        ports = []
        for index, case in enumerate(group):
            network = f"n{index}"
            ports.append(Port(f"d{index}", folder / f"d{index}.sock", network=network,
                              queues=case.queues))
            ports.append(Port(f"g{index}", folder / f"g{index}.sock", network=network))
        self.group = group
        self.switch = stack.enter_context(Switch(folder, ports, workers=[cpus[0]]))
        users = [
            VirtioUser(folder / f"d{index}.sock", station(1, index), case.queue_size,
                       bool(case.mrg_rxbuf), bool(case.in_order), bool(case.packed_vq),
                       queues=case.queues, vectorized=bool(case.vectorized))
            for index, case in enumerate(group)
        ]
        self.mirror = stack.enter_context(Mirror(folder, users, cpu=cpus[1], name="mirror"))
        self.mirror.ready()
        self.guests = [
            stack.enter_context(Guest.connect(str(folder / f"g{index}.sock"), station(2, index)))
            for index in range(len(group))
        ]
        self.switch.wait_up()
        self.mirror.reflect()

    def check(self, index: int) -> None:
        """Frames of many flows come back as they were, and everybody counted them."""
        case, guest = self.group[index], self.guests[index]
        acked = self.switch.ports()[f"d{index}"]["features"]["acked"]
        assert matrix.misunderstood(case, acked) == []
        count = FRAMES + case.queue_size  # so the ring wraps
        before = self.switch.ports()
        window = 128 if case.queue_size >= 256 else 32
        mirror.look_into(guest, mac(station(1, index)), count, FLOWS, window)
        after = self.switch.ports()
        for name in (f"d{index}", f"g{index}"):
            for key in ("rx_frames", "tx_frames"):
                assert after[name][key] - before[name][key] == count, (name, key)
        stats = self.mirror.stats()[index]
        assert (stats.rx, stats.tx) == (count, count)
        assert (stats.rx_missed, stats.rx_errors, stats.tx_errors) == (0, 0, 0)


@pytest.mark.system
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("dpdk")
@pytest.mark.parametrize("group", GROUPS, ids=dpdk_name)
def test_dpdk(group: list[DpdkCase], folder: Path, cpus: tuple[int, int],
              rows: dict[tuple[str, str], Row]) -> None:
    with ExitStack() as stack:
        mirrors = Mirrors(stack, folder, cpus, group)
        failures = collect(mirrors.check, len(group))
        peer = f"DPDK {mirrors.mirror.version()} virtio_user"
        ports, paths = mirrors.switch.ports(), mirrors.mirror.paths()
        drops = mirrors.switch.drops()
        used = mirrors.mirror.used_queues()
    for index, case in enumerate(group):
        features = ", ".join(ports[f"d{index}"]["features"]["acked"])
        row = Row(peer, case.options, features, paths[index], failures.get(index, "passes"))
        rows[row.case] = row
    assert {group[index].options: error for index, error in failures.items()} == {}
    assert drops == {}
    queues = group[0].queues
    assert queues == 1 or used == {(i, q) for i in range(len(group)) for q in range(queues)}


# ---------------------------------------------------------------- QEMU


class Guests:
    """A switch and two guests with a card for each case: the case's, and the one it talks to."""

    def __init__(self, stack: ExitStack, folder: Path, system: tuple[Path, Path]) -> None:
        ports, cards = [], {"near": [], "far": []}  # type: ignore[var-annotated]
        for index, case in enumerate(QEMU_CASES):
            for kind, (end, options) in enumerate(
                (("near", case.options), ("far", case.far)), 1
            ):
                queues = case.queues if end == "near" else 1
                socket = folder / f"{end}{index}.sock"
                ports.append(Port(f"{end}{index}", socket, network=f"n{index}", queues=queues))
                cards[end].append(Card(socket, station(kind, index), options, queues))
        mtus = {f"n{index}": case.mtu for index, case in enumerate(QEMU_CASES)}
        self.switch = stack.enter_context(Switch(folder, ports, mtus=mtus))
        machine = Machine(cpus=2, iommu=True)
        self.near, self.far = (
            stack.enter_context(Vm(end, folder, *system, cards[end], machine=machine))
            for end in ("near", "far")
        )
        for vm in (self.near, self.far):
            vm.ready()
            vm.serve("/srv/file", 80)

    def connect(self, index: int) -> None:
        """Give both cards of a case their addresses."""
        for kind, vm in enumerate((self.near, self.far), 1):
            card = vm.interface(station(kind, index))
            vm.run(f"ip link set {card} up; ip addr add {address(kind, index)}/24 dev {card}")
        self.switch.wait_up(f"near{index}", f"far{index}")

    def check(self, index: int) -> None:
        """Pings of several lengths, and a file each way."""
        self.connect(index)
        acked = self.switch.ports()[f"near{index}"]["features"]["acked"]
        assert matrix.misunderstood(QEMU_CASES[index], acked) == []
        ends = ((self.near, address(2, index)), (self.far, address(1, index)))
        for vm, other in ends:
            for size, pattern in ((56, "00"), (QEMU_CASES[index].mtu - 28, "a5"), (20000, "ff")):
                answers = answered(vm, other, f"-s {size} -p {pattern}")
                assert answers == PINGS, f"{vm.name}: {answers} of {PINGS} pings of {size} bytes"
        for vm, other in ends:
            assert vm.fetch(other, 80) == SUM, f"{vm.name}: the file came changed"


def answered(vm: Vm, other: str, options: str) -> int:
    """The answers to PINGS pings, the most of a few tries: a ping that gets no processor has little
    room for answers, and behind an IOMMU a frame does not wait for its page's translation."""
    most = 0
    for _ in range(TRIES):
        most = max(most, vm.ping(other, PINGS, options=options))
        if most == PINGS:
            break
    return most


def address(kind: int, index: int) -> str:
    """The IPv4 address of a case's card."""
    return f"10.1.{index}.{kind}"


@pytest.fixture(scope="module")
def file_system(guest_system: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
                ) -> tuple[Path, Path]:
    """The guests' kernel and file system, which has the file."""
    image, _ = guest_system
    return image, kernel.with_files(guest_system[1], {"srv/file": FILE},
                                    tmp_path_factory.mktemp("matrix") / "initramfs")


def kernel_errors(vm: Vm) -> dict[str, int]:
    """The checksum errors that a guest's kernel counted."""
    return kernel.checksum_errors(vm.run("cat /proc/net/snmp /proc/net/netstat"))


@pytest.mark.system
@pytest.mark.timeout(300)
def test_qemu(folder: Path, file_system: tuple[Path, Path], rows: dict[tuple[str, str], Row]
              ) -> None:
    with ExitStack() as stack:
        guests = Guests(stack, folder, file_system)
        failures = collect(guests.check, len(QEMU_CASES))
        ports, drops = guests.switch.ports(), guests.switch.drops()
        release = guests.near.run("uname -r")
        errors = {vm.name: kernel_errors(vm) for vm in (guests.near, guests.far)}
    for index, case in enumerate(QEMU_CASES):
        features = ", ".join(ports[f"near{index}"]["features"]["acked"])
        row = Row(f"QEMU {qemu.version()}", case.shown, features, f"Linux {release}",
                  failures.get(index, "passes"))
        rows[row.case] = row
    assert {QEMU_CASES[index].shown: error for index, error in failures.items()} == {}
    # A burst may be longer than the ring of a guest whose processor is emulated; and where nobody
    # has asked for a page yet, behind an IOMMU, a frame does not wait.
    reasons = {reason for port in drops.values() for reason in port}
    assert reasons <= {"no_buffers", "no_translation"}
    assert errors == {"near": {}, "far": {}}


# ---------------------------------------------------------------- the page


@pytest.mark.system
def test_the_page_says_what_was_seen(rows: dict[tuple[str, str], Row]) -> None:
    """Runs after the cases; what was not run is not compared."""
    if os.environ.get("BYWAY_WRITE_MATRIX"):
        matrix.PAGE.write_text(matrix.page(rows[case] for case in matrix.expected()))
    written = {row.case: row.features for row in matrix.parse(matrix.PAGE.read_text())}
    assert {case: row.features for case, row in rows.items()} == {
        case: written.get(case) for case in rows
    }
