# SPDX-License-Identifier: Apache-2.0
"""What may happen to Docker's containers on a Byway network, to the plugin, the switch and dockerd:
as cases, and as a table.

Used by test_docker_lifecycle.py, which runs the cases and writes or compares
docs/reference/docker-lifecycle.md. A case is a function over the lab. It does something, and yields
once where something is away, so that the test can look whether traffic goes on; what it leaves
behind are the lab's two containers, running.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.system.engines import image
from tests.system.engines.docker import Docker
from tests.system.engines.place import Place
from tests.system.engines.plugin import Plugin
from tests.system.peers.process import PeerError, wait_until
from tests.system.peers.switch import Switch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "docker-lifecycle.md"
HEAD = """# What Docker's containers live through

Two containers run on a network of the driver `byway`. Every row is something that happens to one
of them, to [`byway docker-plugin`](cli.md#byway-docker-plugin), to the switch (`byway run`), to
dockerd (with `live-restore`), or to containerd. *Meanwhile* says whether traffic between the two
goes on while that is away. *Afterwards* each pings the other and gets a file of 8 MiB from it by
TCP, by IPv4 and by IPv6, its checksum compared. *Left behind* are interfaces, ports of the switch,
addresses and endpoints that belong to no running container.

The table is written by the test that does it all: `BYWAY_WRITE_LIFECYCLE=1 pytest
tests/system/test_docker_lifecycle.py`. Without that variable, the test compares what it saw with
this page.

"""
SUBNETS = ("10.88.0.0/24", "fd88::/64")
GATEWAYS = {"10.88.0.1", "fd88::1"}
NETWORK, OTHER = "blue", "red"
TRAFFIC = "ping and TCP"
PATIENCE = 90.0  # seconds for Docker, which asks a plugin that is away again and again


class Lab:
    """A switch, the plugin, dockerd, and two containers on a network."""

    def __init__(self, stack: ExitStack, folder: Path, archive: Path) -> None:
        self.place = stack.enter_context(Place(folder, "life"))
        self.switch = stack.enter_context(Switch(
            folder, [], prefix=self.place.namespace.prefix))
        self.plugin = stack.enter_context(Plugin(self.place, self.switch))
        self.docker = stack.enter_context(Docker(self.place))
        self.docker.load(archive)
        self.make_network(NETWORK, *SUBNETS)
        self.one, self.two = (self.docker.run(name, NETWORK) for name in ("one", "two"))

    def make_network(self, name: str, *subnets: str) -> None:
        """A network of the plugin's."""
        given = [word for subnet in subnets for word in ("--subnet", subnet)]
        driver = self.plugin.name
        self.docker.create(name, driver, "--ipam-driver", driver, "--ipv6", *given)

    def check(self) -> None:
        """Both containers exchange pings and files, by both families."""
        for near, far in ((self.one, self.two), (self.two, self.one)):
            assert near.interfaces() == {"eth0"}
            for address in (text.partition("/")[0] for text in far.addresses()):
                near.exchange(address)

    def left(self) -> dict[str, set[str]]:
        """What belongs to no running container."""
        endpoints = self.docker.endpoints(NETWORK)
        ids = {given["EndpointID"] for given in endpoints.values()}
        addresses = {given[family].partition("/")[0] for given in endpoints.values()
                     for family in ("IPv4Address", "IPv6Address")}
        ports = {name for name in self.switch.ports() if not name.endswith("-gw")}
        links = {link for link in self.place.namespace.links() if not link.startswith("byg")}
        found = {
            "endpoints": set(endpoints) ^ self.docker.running(),
            "the plugin's endpoints": ids ^ self.plugin.endpoints(),
            "addresses": self.plugin.held() ^ (addresses | GATEWAYS),
            "ports": ports ^ {f"docker-{identity[:12]}" for identity in ids},
            "interfaces": links,
            "what the plugin will remove": self.plugin.left_overs(),
        }
        return {what: things for what, things in found.items() if things}

    def revive(self) -> None:
        """Start what a case that failed has left dead, for the others."""
        for peer in (self.switch, self.plugin, self.docker):
            if not peer.process.running:
                peer.start()

    # ------------------------------------------------------------ what cases do
    def again(self, name: str, how: str = "start") -> None:
        """`docker start` or `docker restart`."""
        self.docker.command(how, name, timeout=PATIENCE)

    def executes(self) -> bool:
        """Whether dockerd runs commands in containers."""
        try:
            return self.one.run("echo so") == "so"
        except PeerError:
            return False

    def ended(self, name: str) -> None:
        """Wait until dockerd has seen the end of a container."""
        wait_until(lambda: name not in self.docker.running(), f"{name} has ended", 20)


Act: TypeAlias = Callable[[Lab], Iterator[None] | None]


@dataclass(frozen=True)
class Case:
    """A row: what happens, in words and as a function."""

    what: str
    act: Act


def run_and_remove(lab: Lab) -> None:
    three = lab.docker.run("three", NETWORK)
    three.reach(lab.one.address())
    assert three.fetch(lab.one.address()) == image.SUM
    three.remove()


def stop_and_start(lab: Lab) -> None:
    lab.docker.command("stop", "one")
    assert "one" not in lab.docker.running()
    lab.again("one")


def restart(lab: Lab) -> None:
    lab.again("one", "restart")


def kill_container(lab: Lab) -> None:
    os.kill(lab.one.pid, signal.SIGKILL)
    lab.ended("one")
    lab.again("one")


def replace_container(lab: Lab) -> None:
    lab.one.remove()
    lab.one = lab.docker.run("one", NETWORK)


def connect_and_disconnect(lab: Lab) -> None:
    lab.make_network(OTHER, "10.89.0.0/24", "fd89::/64")
    three = lab.docker.run("three", OTHER)
    lab.docker.command("network", "connect", OTHER, "one")
    assert lab.one.interfaces() == {"eth0", "eth1"}
    lab.one.reach(three.address())
    lab.docker.command("network", "disconnect", OTHER, "one")
    three.remove()
    lab.docker.command("network", "rm", OTHER)


def kill_plugin(lab: Lab) -> Iterator[None]:
    lab.plugin.kill()
    yield
    lab.plugin.start()
    run_and_remove(lab)


def remove_without_plugin(lab: Lab) -> Iterator[None]:
    three = lab.docker.run("three", NETWORK)
    lab.plugin.kill()
    yield
    with lab.plugin.deaf():  # so that dockerd gives up at once, not after half a minute for each
        three.remove()
    lab.plugin.start()
    run_and_remove(lab)


def kill_switch(lab: Lab) -> Iterator[None]:
    lab.switch.kill()
    yield
    lab.switch.start()


def remove_without_switch(lab: Lab) -> Iterator[None]:
    three = lab.docker.run("three", NETWORK)
    lab.switch.kill()
    yield
    three.remove()
    lab.switch.start()


def kill_dockerd(lab: Lab) -> Iterator[None]:
    lab.docker.kill()
    yield
    lab.docker.start()
    run_and_remove(lab)


def restart_dockerd(lab: Lab) -> Iterator[None]:
    lab.docker.process.stop()
    yield
    lab.docker.start()
    run_and_remove(lab)


def end_without_dockerd(lab: Lab) -> Iterator[None]:
    pid = lab.one.pid
    lab.docker.kill()
    yield
    os.kill(pid, signal.SIGKILL)
    lab.docker.start()
    lab.ended("one")
    lab.again("one")


def kill_containerd(lab: Lab) -> Iterator[None]:
    lab.docker.containerd.kill()
    yield
    lab.docker.containerd.start()
    wait_until(lab.executes, "dockerd has found containerd again", 30)
    run_and_remove(lab)


def kill_all(lab: Lab) -> None:
    """The plugin, the switch and dockerd, in that order."""
    for victim in (lab.plugin, lab.switch, lab.docker):
        victim.kill()


def forwards(lab: Lab) -> Iterator[None]:
    kill_all(lab)
    yield
    lab.switch.start()
    lab.plugin.start()
    lab.docker.start()
    run_and_remove(lab)


def backwards(lab: Lab) -> Iterator[None]:
    kill_all(lab)
    yield
    lab.docker.begin()
    lab.plugin.start()
    lab.switch.start()
    lab.docker.ready(PATIENCE)
    run_and_remove(lab)


CASES = (
    Case("`docker run`, `docker rm -f`", run_and_remove),
    Case("`docker stop`, `docker start`", stop_and_start),
    Case("`docker restart`", restart),
    Case("`docker rm -f`, `docker run` with the same name", replace_container),
    Case("`docker network connect`, `docker network disconnect`", connect_and_disconnect),
    Case("`kill -9` of a container, `docker start`", kill_container),
    Case("`kill -9` of the plugin, which is started again", kill_plugin),
    Case("`kill -9` of the plugin; a container is removed, and all that Docker says of it is lost",
         remove_without_plugin),
    Case("`kill -9` of the switch, which is started again", kill_switch),
    Case("`kill -9` of the switch; a container is removed before it is back",
         remove_without_switch),
    Case("`kill -9` of dockerd, which is started again", kill_dockerd),
    Case("`kill -9` of dockerd; a container ends before it is back, `docker start`",
         end_without_dockerd),
    Case("dockerd is stopped and started", restart_dockerd),
    Case("`kill -9` of containerd, which is started again", kill_containerd),
    Case("`kill -9` of plugin, switch and dockerd; started: switch, plugin, dockerd", forwards),
    Case("`kill -9` of plugin, switch and dockerd; started: dockerd, plugin, switch", backwards),
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    meanwhile: str
    afterwards: str
    left: str

    def line(self) -> str:
        """The row in Markdown."""
        return f"| {self.what} | {self.meanwhile} | {self.afterwards} | {self.left} |"


def page(rows: Iterable[Row]) -> str:
    """The page with these rows."""
    head = ["| what happens | meanwhile | afterwards | left behind |", "|---|---|---|---|"]
    return HEAD + "\n".join(head + [row.line() for row in rows]) + "\n"


def parse(text: str) -> list[Row]:
    """The rows of a page."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]
