# SPDX-License-Identifier: Apache-2.0
"""TCP with segmentation left to the device: between guests that take it, and to those that do not.

The near guest always leaves checksums and segmentation to its card. What the far one takes depends
on the network they meet in. Files must arrive as they were, no kernel may count a bad checksum, and
Byway's counters tell which frames were big.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from byway.testing.guest import Guest
from tests.system.matrix import OFFLOADS
from tests.system.peers import kernel
from tests.system.peers.qemu import Card, Machine, Vm
from tests.system.peers.switch import Port, Switch
from tests.system.peers.tftp import BLOCK, Tftp

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

FILE = Random(64).randbytes(24 << 20)
SUM = hashlib.md5(FILE).hexdigest()
SMALL = FILE[: 200 * BLOCK + 17]
BIG = 4000  # mean bytes a frame, above which most frames must have been longer than 1514
WIRE = 1514
TAG = 4
PORT = 5000
NO_TSO = ",".join(f"{name}=off" for name in OFFLOADS if "tso" in name)


@dataclass(frozen=True)
class Place:
    """A network where the two guests meet: the options of the far card, and what it takes."""

    far: str
    near: str = ""
    whole: bool = True  # the far card takes and makes frames longer than the network's MTU


PLACES = {
    "same": Place(""),
    "packed": Place("packed=on,mrg_rxbuf=off", "packed=on"),
    "checksums": Place(NO_TSO, whole=False),
    "bare": Place(",".join(f"{name}=off" for name in OFFLOADS), whole=False),
}
NUMBERS = {name: number for number, name in enumerate(PLACES, 1)}


def station(kind: int, number: int) -> str:
    """The address of the near (1) or far (2) card in a place."""
    return f"02:00:00:01:{kind:02x}:{number:02x}"


class Lab:
    """Both guests, a card each for every place; each serves the file."""

    def __init__(self, stack: ExitStack, folder: Path, system: tuple[Path, Path]) -> None:
        ports, cards = [Port("plain", folder / "plain.sock", network="udp")], ([], [])
        for name, number in NUMBERS.items():
            place = PLACES[name]
            for kind, (end, options) in enumerate((("near", place.near), ("far", place.far)), 1):
                socket = folder / f"{end}-{name}.sock"
                ports.append(Port(f"{end}-{name}", socket, network=name))
                cards[kind - 1].append(Card(socket, station(kind, number), options))
        ports.append(Port("near-udp", folder / "near-udp.sock", network="udp"))
        cards[0].append(Card(folder / "near-udp.sock", station(1, 0)))
        self.folder = folder
        self.switch = stack.enter_context(Switch(folder, ports))
        machine = Machine(memory=256)
        self.near, self.far = (
            stack.enter_context(Vm(name, folder, *system, of, machine=machine))
            for name, of in zip(("near", "far"), cards, strict=True)
        )
        for kind, vm in enumerate((self.near, self.far), 1):
            vm.ready()
            vm.serve("/srv/file", PORT)
            for name, number in NUMBERS.items():
                self._addresses(vm, kind, name, number)

    def _addresses(self, vm: Vm, kind: int, name: str, number: int) -> None:
        """IPv4 and IPv6 on the card, and IPv4 on its VLAN 7."""
        card = vm.interface(station(kind, number))
        vm.run(f"echo 0 >/proc/sys/net/ipv6/conf/{card}/accept_dad; ip link set {card} up")
        vm.run(f"ip addr add 10.2.{number}.{kind}/24 dev {card}")
        vm.run(f"ip addr add fd00:{number}::{kind}/64 dev {card}")
        vm.run(f"ip link add link {card} name {card}.7 type vlan id 7; ip link set {card}.7 up")
        vm.run(f"ip addr add 10.7.{number}.{kind}/24 dev {card}.7")

    def mean(self, before: dict[str, dict[str, int]], port: str, way: str) -> float:
        """Bytes a frame at a port since `before`."""
        now = self.switch.ports()[port]
        frames = now[f"{way}_frames"] - before[port][f"{way}_frames"]
        return (now[f"{way}_bytes"] - before[port][f"{way}_bytes"]) / max(1, frames)


@pytest.fixture(scope="module")
def lab(
    folder: Path, guest_system: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    files = tmp_path_factory.mktemp("tso") / "initramfs"
    system = kernel.with_files(guest_system[1], {"srv/file": FILE, "srv/small": SMALL}, files)
    with ExitStack() as stack:
        yield Lab(stack, folder, (guest_system[0], system))


@pytest.fixture(params=["10.2.{}.{}", "fd00:{}::{}", "10.7.{}.{}"], ids=["ipv4", "ipv6", "vlan"])
def addresses(request: pytest.FixtureRequest) -> str:
    """How stations are called in a place."""
    text: str = request.param
    return text


@pytest.mark.parametrize("name", PLACES)
def test_a_file_comes_whole(lab: Lab, name: str, addresses: str) -> None:
    number, whole = NUMBERS[name], PLACES[name].whole
    wire = WIRE + TAG * addresses.startswith("10.7.")
    lab.switch.wait_up(f"near-{name}", f"far-{name}")
    before = lab.switch.ports()
    assert lab.far.fetch(addresses.format(number, 1), PORT) == SUM
    sent = lab.mean(before, f"near-{name}", "rx")
    delivered = lab.mean(before, f"far-{name}", "tx")
    print(f"{name}: {sent:.0f} bytes a frame sent, {delivered:.0f} delivered")
    assert sent > BIG, "the near guest leaves segmentation to the device"
    if whole:
        # Not all that is sent is delivered: a late guest has no buffers.
        assert delivered == pytest.approx(sent, rel=0.3), "frames pass as they are"
    else:
        assert wire / 2 < delivered <= wire, "Byway made segments"
    before = lab.switch.ports()
    assert lab.near.fetch(addresses.format(number, 2), PORT) == SUM
    back = lab.mean(before, f"far-{name}", "rx")
    assert (back > BIG) if whole else (wire / 2 < back <= wire)


def test_udp_has_its_checksum(lab: Lab) -> None:
    card = lab.near.interface(station(1, 0))
    lab.near.run(f"ip link set {card} up; ip addr add 10.3.0.1/24 dev {card}")
    with Guest.connect(str(lab.folder / "plain.sock"), "02:00:00:01:03:02") as guest:
        lab.switch.wait_up("plain", "near-udp")
        for command, file in (("-p -l /srv/small -r f", b""), ("-g -l /tmp/got -r f", SMALL)):
            server = Tftp(guest, "10.3.0.2", file)
            begun = lab.near.begin(f"tftp {command} 10.3.0.2 69")
            server.serve(60)
            lab.near.finish(begun)
            assert server.datagrams >= len(SMALL) // BLOCK
            assert server.received == (b"" if file else SMALL)
    assert lab.near.run("cmp /srv/small /tmp/got && echo same") == "same"


def test_no_kernel_counted_anything_bad(lab: Lab) -> None:
    """Runs last: over all transfers before it."""
    for vm in (lab.near, lab.far):
        counted = vm.run("cat /proc/net/snmp /proc/net/netstat /proc/net/snmp6")
        assert kernel.checksum_errors(counted) == {}
        bad = vm.run("cat /sys/class/net/eth*/statistics/rx_*errors").split()
        assert set(bad) == {"0"}
    reasons = {reason for drops in lab.switch.drops().values() for reason in drops}
    assert reasons <= {"no_buffers", "port_down"}  # the guest of the UDP test has left
