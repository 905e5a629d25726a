# SPDX-License-Identifier: Apache-2.0
"""Docker's containers on Byway networks, with a real dockerd: what its options and the plugin's do,
neighbours that are no containers, the way out and in, and the commands of the how-to page.

What happens when something is killed: test_docker_lifecycle.py.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from byway.machine import netns
from byway.testing.frames import mac
from byway.testing.guest import Guest
from tests.architecture.console import Session
from tests.architecture.sources import ROOT
from tests.system.engines import image
from tests.system.engines.docker import PLUGINS, PROGRAM, Docker, DockerContainer
from tests.system.engines.place import Place
from tests.system.engines.plugin import Plugin
from tests.system.engines.station import Host
from tests.system.peers.process import PeerError, wait_until
from tests.system.peers.qemu import Card, Machine, Vm
from tests.system.peers.switch import Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

PAGE = "how-to/run-with-docker.md"
VM_MAC, FAKE_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
MTU = "com.docker.network.driver.mtu"


class Lab:
    """A switch with two guests' ports, the plugin, dockerd; the namespace is their host."""

    def __init__(self, stack: ExitStack, folder: Path, archive: Path,
                 state: Path | None = None) -> None:
        self.place = stack.enter_context(Place(folder, "docker"))
        ports = [Port(name, folder / f"{name}.sock", network="guests") for name in ("vm", "fake")]
        self.switch = stack.enter_context(Switch(
            folder, ports, prefix=self.place.namespace.prefix, state=state))
        self.plugin = stack.enter_context(Plugin(self.place, self.switch))
        self.docker = stack.enter_context(Docker(self.place))
        self.docker.load(archive)
        self.host = Host("host", self.place.namespace.prefix)

    def create(self, name: str, *options: str) -> None:
        """A network of the plugin's."""
        driver = self.plugin.name
        self.docker.create(name, driver, "--ipam-driver", driver, *options)

    def refusal(self, *words: str) -> str:
        """Why docker fails to do this."""
        with pytest.raises(PeerError) as caught:
            self.docker.command(*words)
        return str(caught.value)


@pytest.fixture(scope="module")
def whole(folder: Path, station_image: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack, folder, station_image)


@pytest.fixture
def lab(whole: Lab) -> Iterator[Lab]:
    """The lab without networks; each test leaves nothing behind."""
    yield whole
    whole.docker.clear()
    wait_until(lambda: set(whole.switch.ports()) == {"vm", "fake"}, "all ports are gone", 20)
    wait_until(lambda: whole.place.namespace.links() == set(), "all links are gone", 20)
    assert whole.plugin.endpoints() == whole.plugin.left_overs() == whole.plugin.held() == set()
    assert {row["name"] for row in whole.switch.client.networks()} == {"blue", "guests"}


def meet(one: DockerContainer, other: DockerContainer) -> None:
    """Both ping, and each gets the other's file, by every address."""
    for near, far in ((one, other), (other, one)):
        for address in (text.partition("/")[0] for text in far.addresses()):
            near.reach(address)
            assert near.ping(address) == 5
            assert near.fetch(address) == image.SUM


def test_containers_of_both_families(lab: Lab) -> None:
    lab.create("net", "--ipv6", "--subnet", "10.50.0.0/24", "--subnet", "fd50::/64")
    one, two = lab.docker.run("one", "net"), lab.docker.run("two", "net")
    assert one.addresses() == ["10.50.0.2/24", "fd50::2/64"]
    assert one.interfaces() == {"eth0"}  # no docker_gwbridge
    meet(one, two)
    report = one.measure(two.address())
    assert report["end"]["sum_received"]["bytes"] > 1 << 17


def test_addresses_by_name(lab: Lab) -> None:
    lab.create("net", "--subnet", "10.50.0.0/24", "--gateway", "10.50.0.254",
               "--ip-range", "10.50.0.128/25", "--aux-address", "printer=10.50.0.128")
    mac_address = "02:42:00:00:00:99"
    one = lab.docker.run("one", "net", "--ip", "10.50.0.9", "--mac-address", mac_address)
    two = lab.docker.run("two", "net")
    assert (one.addresses(), two.addresses()) == (["10.50.0.9/24"], ["10.50.0.129/24"])
    assert mac_address in one.run("cat /sys/class/net/eth0/address")
    meet(one, two)
    lab.host.reach("10.50.0.129")
    assert "10.50.0.254/24" in lab.place.namespace.addresses()
    assert mac_address in lab.refusal("run", "--network", "net", "--mac-address", mac_address,
                                      image.NAME)
    assert "10.50.0.9 is in use" in lab.refusal(
        "run", "--network", "net", "--ip", "10.50.0.9", image.NAME)
    lab.docker.command("rm", "--force", *lab.docker.command("ps", "--all", "--quiet",
                                                            "--filter", "status=created").split())
    meet(one, two)


def test_networks_that_cannot_be(lab: Lab) -> None:
    lab.create("net", "--subnet", "10.50.0.0/24")
    driver = lab.plugin.name
    words = ("network", "create", "--driver", driver, "--ipam-driver", driver)
    assert "overlaps" in lab.refusal(*words, "--subnet", "10.50.0.128/25", "other")
    assert "no such option" in lab.refusal(*words, "-o", "byway.nvi=7", "other")
    assert 'no network "green"' in lab.refusal(*words, "-o", "byway.network=green", "other")
    assert set(lab.plugin.held()) == {"10.50.0.1"}


def test_networks_are_apart_and_chosen(lab: Lab) -> None:
    lab.create("net")
    lab.create("other")
    one, two = lab.docker.run("one", "net"), lab.docker.run("two", "other")
    assert one.address().rpartition(".")[0] != two.address().rpartition(".")[0]
    assert one.ping(two.address(), 2, "-W 1") == 0
    lab.docker.command("network", "connect", "other", "one")
    assert one.interfaces() == {"eth0", "eth1"}
    one.reach(two.address())


def test_the_mtu_of_a_network(lab: Lab) -> None:
    lab.create("net", "-o", f"{MTU}=9000", "-o", "byway.vni=4711")
    one, two = lab.docker.run("one", "net"), lab.docker.run("two", "net")
    assert "mtu 9000" in one.run("ip link show eth0")
    assert one.ping(two.address(), 5, "-s 8900") == 5
    (network,) = [row for row in lab.switch.client.networks() if row["vni"] == 4711]
    assert network["mtu"] == 9000


def test_an_internal_network_has_no_way_out(lab: Lab) -> None:
    lab.create("net", "--internal", "--subnet", "10.50.0.0/24")
    one, two = lab.docker.run("one", "net"), lab.docker.run("two", "net")
    meet(one, two)
    assert "default" not in one.run("ip route")
    assert lab.place.namespace.links() == set()


def test_published_ports_and_the_way_out(lab: Lab) -> None:
    lab.create("net", "--ipv6", "--subnet", "10.50.0.0/24", "--subnet", "fd50::/64")
    one = lab.docker.run("one", "net", "--publish", f"8080:{image.SERVED}",
                         "--publish", f"127.0.0.1:8081:{image.SERVED}")
    two = lab.docker.run("two", "net")
    for address, port in (("127.0.0.1", 8080), ("127.0.0.1", 8081), ("10.50.0.1", 8080),
                          ("fd50::1", 8080)):
        assert lab.host.fetch(address, port) == image.SUM
    assert two.fetch("10.50.0.1", 8080) == image.SUM  # by the host, and back
    with pytest.raises(AssertionError):
        assert two.fetch("10.50.0.1", 8081, tries=1) == image.SUM
    assert "leads to another container" in lab.refusal(
        "run", "--network", "net", "--publish", "8080:80", image.NAME)
    assert "--publish HOSTPORT:80/tcp" in lab.refusal(
        "run", "--network", "net", "--publish", "80", image.NAME)
    one.remove()
    with pytest.raises(AssertionError):
        assert lab.host.fetch("127.0.0.1", 8080, tries=1) == image.SUM
    two.reach("10.50.0.1")


def test_a_container_and_a_fake_guest_are_neighbours(lab: Lab) -> None:
    lab.create("net", "-o", "byway.network=guests", "-o", "byway.gateway=elsewhere",
               "--subnet", "10.50.0.0/24", "--gateway", "10.50.0.1")
    one = lab.docker.run("one", "net")
    assert "default via 10.50.0.1" in one.run("ip route")
    with Guest.connect(str(lab.switch.folder / "fake.sock"), mac=FAKE_MAC) as guest:
        lab.switch.wait_up("fake")
        one.run("ping -c 1 -W 1 10.50.0.77 || true")  # asks who has that address
        asked = wait_until(lambda: [f for f in guest.receive() if f[12:14] == b"\x08\x06"],
                           "the guest hears the container", 10)
        station = one.run("cat /sys/class/net/eth0/address").strip()
        assert asked[0][6:12] == mac(station)
        entries = {row["mac"]: row["port"] for row in lab.switch.command("fdb", "list")}
        assert entries[station].startswith("docker-")


def test_a_container_and_a_qemu_guest_exchange_a_file(
    lab: Lab, guest_system: tuple[Path, Path]
) -> None:
    lab.create("net", "-o", "byway.network=guests", "-o", "byway.gateway=elsewhere",
               "--subnet", "10.50.0.0/24", "--gateway", "10.50.0.1")
    one = lab.docker.run("one", "net")
    card = Card(lab.switch.folder / "vm.sock", VM_MAC)
    with Vm("vm", lab.switch.folder, *guest_system, [card], "10.50.0.200/24", Machine(256)) as vm:
        vm.ready()
        lab.switch.wait_up("vm")
        assert vm.ping(one.address(), 20) == 20
        assert one.ping("10.50.0.200", 20) == 20
        assert vm.fetch(one.address(), image.SERVED) == image.SUM
        port = lab.switch.ports()["vm"]
        # Segments were left to the cards: most frames of the file were larger than the MTU.
        assert port["tx_bytes"] / port["tx_frames"] > 3000


def test_a_switch_that_remembers_its_ports(own_folder: Path, station_image: Path) -> None:
    """It makes the taps again that Docker has moved; the plugin leads it to the containers'."""
    with ExitStack() as stack:
        lab = Lab(stack, own_folder, station_image, own_folder / "switch.db")
        lab.create("net", "--subnet", "10.50.0.0/24")
        one, two = lab.docker.run("one", "net"), lab.docker.run("two", "net")
        meet(one, two)
        for _ in range(2):
            lab.switch.kill()
            lab.switch.start()
            meet(one, two)
            wait_until(lambda: len(lab.place.namespace.links()) == 1, "one link is left", 10)
        lab.docker.clear()
        wait_until(lambda: set(lab.switch.ports()) == {"vm", "fake"}, "all ports are gone", 20)
        wait_until(lambda: lab.place.namespace.links() == set(), "all links are gone", 20)


def test_the_commands_of_the_page(lab: Lab) -> None:
    """In the lab's namespace, with a switch and a plugin "byway" of the page's own."""
    socket = PLUGINS / "byway.sock"
    if socket.exists():
        pytest.fail(f"{socket} exists: another plugin of that name is on this machine")
    lab.docker.command("tag", image.NAME, "busybox")
    programs = lab.switch.folder / "bin"
    programs.mkdir()
    (programs / "docker").symlink_to(PROGRAM)

    def work() -> None:
        with Session() as session:
            session.env["DOCKER_HOST"] = f"unix://{lab.docker.socket}"
            session.env["PATH"] = f"{programs}:{session.env['PATH']}"
            session.run_page(ROOT / "docs" / PAGE)

    netns.inside(os.fspath(lab.place.namespace.path), work)
    assert not socket.exists()
