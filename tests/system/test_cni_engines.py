# SPDX-License-Identifier: Apache-2.0
"""byway-cni under real runtimes: podman, containerd's ctr and CRI, and a runtime of our own.

Containers of each meet on a network of a running switch, by IPv4 and IPv6, reach the host, and
leave nothing behind. Everything lives in a network namespace of the test's own, which is the host.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from byway.ipam import Pools
from tests.system.engines import image
from tests.system.engines.cnirun import Attached, CniRun
from tests.system.engines.containerd import Cni, Containerd, Ctr
from tests.system.engines.cri import Cri, Pod
from tests.system.engines.namespace import named
from tests.system.engines.place import Place
from tests.system.engines.podman import Podman
from tests.system.engines.station import Host, Station
from tests.system.peers import kernel
from tests.system.peers.process import PeerError, wait_until
from tests.system.peers.qemu import Card, Machine, Vm
from tests.system.peers.switch import Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

PLUGIN = Path(sys.executable).with_name("byway-cni")
LOOPBACK = Path("/usr/lib/cni/loopback")
NETWORK = f"pods{os.getpid()}"  # libcni remembers attachments in one place for all
GATEWAY = "byw-pods"  # the host's interface in that network
GATEWAY_PORT = f"gw-{NETWORK}"
SUBNETS = ("10.77.0.0/24", "fd77::/64")
GATEWAYS = ("10.77.0.1", "fd77::1")
PUBLISHED = 8080
GUEST, GUEST_MAC = "10.77.0.200", "02:00:00:00:77:01"
BIG = 3000  # mean bytes a frame, above which most frames of a file were longer than the MTU
ENGINES_NAMESPACES = ("cni-", "netns-")  # how the CRI and podman call them
NOTHING: dict[str, Any] = {}


class Container(Station):
    """A station that its engine can take away."""

    def remove(self) -> None:
        """End it, and take it off the network."""


Start: TypeAlias = Callable[[str], Any]  # a name -> a Container


class Yard:
    """A switch, CNI's folders, and a network of CNI's that is one of the switch's."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder = folder
        self.namespaces = named()
        self.place = stack.enter_context(Place(folder, "cni"))
        self.switch = stack.enter_context(Switch(
            folder, [], prefix=self.place.namespace.prefix, state=folder / "switch.db"))
        self.cni = Cni.make(folder / "cni", {"byway-cni": PLUGIN, "loopback": LOOPBACK})
        self.cni.write(self.network())
        stack.callback(self.cni.forget, NETWORK)
        self.host = Host("host", self.place.namespace.prefix)

    def network(self) -> dict[str, Any]:
        """The network's configuration list."""
        plugin = {
            "type": "byway-cni",
            "api": str(self.switch.api),
            "state": str(self.folder / "cni.db"),
            "isGateway": True,
            "isDefaultGateway": True,
            "ipMasq": True,
            "gatewayInterface": GATEWAY,
            "ipam": {"type": "byway", "ranges": [[{"subnet": subnet}] for subnet in SUBNETS]},
            "capabilities": {"portMappings": True, "ips": True, "mac": True},
        }
        return {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [plugin]}

    def ports(self) -> dict[str, dict[str, Any]]:
        """The switch's ports, but for the gateway's."""
        return {name: port for name, port in self.switch.ports().items() if name != GATEWAY_PORT}

    def held(self) -> set[str]:
        """The addresses that byway-cni holds, but for the gateways'."""
        pools = Pools(self.folder / "cni.db")
        with closing(pools):
            found = {held.address for pool in pools.pools() for held in pools.addresses(pool.id)}
        return {address.partition("/")[0] for address in found} - set(GATEWAYS)

    def left(self) -> dict[str, Any]:
        """What is there of attachments: nothing, where none is."""
        found = {
            "ports": set(self.ports()),
            "results": set(self.cni.remembered(NETWORK)),
            "links": self.place.namespace.links() - {GATEWAY},
            "addresses": self.held(),
            "namespaces": {name for name in named() if name.startswith(ENGINES_NAMESPACES)}
            - self.namespaces,
        }
        return {what: things for what, things in found.items() if things}


# ---------------------------------------------------------------- the engines


@contextmanager
def podman(yard: Yard, archive: Path) -> Iterator[Start]:
    """`podman run`."""
    engine = Podman(yard.place, yard.cni)
    engine.load(archive)
    try:
        yield lambda name: engine.run(name, NETWORK)
    finally:
        engine.clear()


@contextmanager
def ctr(yard: Yard, archive: Path) -> Iterator[Start]:
    """`ctr run --cni`."""
    with Containerd(yard.place, yard.cni) as engine:
        engine.load(archive)
        with closing(Ctr(engine)) as client:
            yield client.run


@contextmanager
def cri(yard: Yard, archive: Path) -> Iterator[Start]:
    """RunPodSandbox, and a container in it."""
    with Containerd(yard.place, yard.cni) as engine:
        engine.load(archive, "k8s.io")
        with closing(Cri(engine)) as client:
            yield lambda name: Pod(client, name)


@contextmanager
def cnirun(yard: Yard, archive: Path) -> Iterator[Start]:
    """ADD, and a server in the namespace."""
    with CniRun(yard.place, yard.cni, NETWORK) as engine:
        yield lambda name: Attached(engine, name)


ENGINES = (podman, ctr, cri, cnirun)


@pytest.fixture(scope="module")
def yard(folder: Path) -> Iterator[Yard]:
    with ExitStack() as stack:
        yield Yard(stack, folder)


# ---------------------------------------------------------------- what every engine shows


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.__name__)
def test_containers_meet_and_leave_nothing(
    yard: Yard, station_image: Path, engine: Callable[[Yard, Path], Any]
) -> None:
    with engine(yard, station_image) as start:
        one, two = start("one"), start("two")
        check_pair(yard, one, two)
        one.remove()
        assert len(yard.ports()) == 1
        assert yard.held() == plain(two.addresses())
        three = start("three")
        check_pair(yard, two, three)
        two.remove()
        three.remove()
        assert yard.left() == NOTHING
    assert yard.switch.drops().keys() <= {GATEWAY_PORT}


def plain(addresses: Iterable[str]) -> set[str]:
    """The addresses without their prefix lengths."""
    return {address.partition("/")[0] for address in addresses}


def check_pair(yard: Yard, one: Container, two: Container) -> None:
    """Two containers have two addresses each, and exchange pings and files; so does the host."""
    assert one.interfaces() == two.interfaces() == {"eth0"}
    assert yard.held() == plain([*one.addresses(), *two.addresses()])
    assert {port["state"] for port in yard.ports().values()} == {"up"}
    for near, far in ((one, two), (two, one)):
        for address in plain(far.addresses()):
            near.exchange(address)
            assert yard.host.fetch(address) == image.SUM
        report = near.measure(far.address())["end"]["sum_received"]
        assert report["bytes"] > 1 << 17
    for gateway in GATEWAYS:
        one.reach(gateway)


# ---------------------------------------------------------------- what one of them shows


@pytest.fixture
def runtime(yard: Yard) -> Iterator[CniRun]:
    with CniRun(yard.place, yard.cni, NETWORK) as engine:
        yield engine


def test_check_finds_what_is_wrong(yard: Yard, runtime: CniRun) -> None:
    station = Attached(runtime, "checked")
    station.check()
    taken = station.addresses()[0]
    station.run(f"ip addr del {taken} dev eth0")
    with pytest.raises(PeerError, match=taken.partition("/")[0]):
        station.check()
    station.remove()
    assert yard.left() == NOTHING


def test_an_attachment_is_made_once_and_deleted_often(yard: Yard, runtime: CniRun) -> None:
    station = Attached(runtime, "repeated")
    with pytest.raises(PeerError, match="eth0"):
        runtime.command("add", station.namespace.path, station.name)
    station.reach(GATEWAYS[0])  # the first attachment goes on
    for _ in range(2):
        station.delete()
        assert yard.ports() == {}
    station.remove()
    assert yard.left() == NOTHING


def test_del_after_the_namespace_has_gone(yard: Yard, runtime: CniRun) -> None:
    station = Attached(runtime, "gone")
    station.close()
    assert len(yard.held()) == len(SUBNETS)
    station.delete()
    assert yard.left() == NOTHING


def test_a_port_is_published(yard: Yard, runtime: CniRun) -> None:
    mapping = {"hostPort": PUBLISHED, "containerPort": image.SERVED, "protocol": "tcp"}
    station = Attached(runtime, "published", portMappings=[mapping])
    other = Attached(runtime, "client")
    other.reach(GATEWAYS[0])
    assert yard.host.fetch("127.0.0.1", PUBLISHED) == image.SUM
    assert other.fetch(GATEWAYS[0], PUBLISHED) == image.SUM
    station.remove()
    other.remove()
    assert yard.left() == NOTHING
    assert str(PUBLISHED) not in yard.place.namespace.run("nft", "list", "ruleset")


def test_podman_chooses_addresses(yard: Yard, station_image: Path) -> None:
    mac, address = "02:00:00:00:77:42", "10.77.0.42"
    engine = Podman(yard.place, yard.cni)
    engine.load(station_image)
    station = engine.run("chosen", NETWORK, "--ip", address, "--mac-address", mac)
    assert address in plain(station.addresses())
    assert mac in station.run("ip link show dev eth0")
    station.remove()
    assert yard.left() == NOTHING


def test_containers_outlive_their_switch(yard: Yard, station_image: Path) -> None:
    with podman(yard, station_image) as start:
        one, two = start("before"), start("beside")
        check_pair(yard, one, two)
        yard.switch.kill()
        assert one.ping(two.address(), 1) == 0
        yard.switch.start()
        wait_until(lambda: {port["state"] for port in yard.ports().values()} == {"up"},
                   "the ports are up again", 30)
        check_pair(yard, one, two)
        one.remove()
        two.remove()
    assert yard.left() == NOTHING


# ---------------------------------------------------------------- beside a virtual machine


def mean(before: dict[str, Any], after: dict[str, Any], way: str) -> float:
    """Bytes a frame at a port between two looks."""
    frames = after[f"{way}_frames"] - before[f"{way}_frames"]
    return float(after[f"{way}_bytes"] - before[f"{way}_bytes"]) / max(1, frames)


def test_a_container_and_a_guest_leave_segments_to_each_other(
    yard: Yard, station_image: Path, guest_system: tuple[Path, Path], tmp_path: Path
) -> None:
    kernel_image, files = guest_system
    files = kernel.with_files(files, {"srv/file": image.FILE}, tmp_path / "initramfs")
    with podman(yard, station_image) as start, ExitStack() as stack:
        one = start("neighbour")
        socket = yard.folder / "vm.sock"
        yard.switch.client.add_port(Port("vm", socket, network=NETWORK).body())
        stack.callback(yard.switch.client.remove_port, "vm")
        vm = stack.enter_context(Vm("vm", yard.folder, kernel_image, files,
                                    [Card(socket, GUEST_MAC)], f"{GUEST}/24", Machine(256)))
        vm.ready()
        vm.serve("/srv/file", image.SERVED)
        yard.switch.wait_up("vm")
        assert vm.ping(one.address(), 20) == one.ping(GUEST, 20) == 20
        before = yard.switch.ports()["vm"]
        assert vm.fetch(one.address(), image.SERVED) == image.SUM
        between = yard.switch.ports()["vm"]
        assert one.fetch(GUEST) == image.SUM
        assert mean(before, between, "tx") > BIG
        assert mean(between, yard.switch.ports()["vm"], "rx") > BIG
        for end in (one, vm):
            counted = end.run("cat /proc/net/snmp /proc/net/netstat")
            assert kernel.checksum_errors(counted) == {}
        one.remove()
    assert yard.left() == NOTHING
