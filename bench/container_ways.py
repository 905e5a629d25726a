# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces, connected in each of the ways that bench/containers.py compares.

Used by it. Each way is a context manager: a folder in, a `Pair` out, nothing left afterwards.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from byway.client import Client, ClientError
from tests.system.engines.namespace import Namespace, checked
from tests.system.peers.process import Process, wait_until

ADDRESSES = ("10.77.0.1", "10.77.0.2")
BYWAY = Path(sys.executable).with_name("byway")
START = 300.0  # seconds for the first start ever, which compiles
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
VSWITCHD = "/usr/lib/openvswitch-switch/ovs-vswitchd"


@dataclass(frozen=True)
class Pair:
    """Two namespaces; ``address`` is that of the right one."""

    left: Namespace
    right: Namespace
    address: str = ADDRESSES[1]


@dataclass(frozen=True)
class Places:
    """The two, and the one in which the switch has its ends."""

    left: Namespace
    right: Namespace
    host: Namespace

    def both(self) -> list[tuple[Namespace, str]]:
        """Each with its address."""
        return list(zip((self.left, self.right), ADDRESSES, strict=True))


@contextlib.contextmanager
def places() -> Iterator[Places]:
    """Three empty namespaces."""
    with ExitStack() as stack:
        yield Places(*(stack.enter_context(Namespace(name)) for name in ("left", "right", "host")))


def veths(given: Places) -> list[str]:
    """A veth from each namespace to the host's, where its end is ``h1``, ``h2``; -> these names."""
    names = []
    for k, (place, address) in enumerate(given.both(), 1):
        names.append(f"h{k}")
        given.host.run("ip", "link", "add", f"h{k}", "type", "veth", "peer", "name", "eth0",
                       "netns", place.name)
        given.host.run("ip", "link", "set", f"h{k}", "up")
        place.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        place.run("ip", "link", "set", "eth0", "up")
    return names


@contextlib.contextmanager
def linux_bridge(folder: Path) -> Iterator[Pair]:
    """The kernel's bridge, with the filters of bridged frames off."""
    with places() as given:
        given.host.run("sh", "-c", "for f in /proc/sys/net/bridge/bridge-nf-call-*; do"
                       " [ ! -e $f ] || echo 0 > $f; done")
        given.host.run("ip", "link", "add", "br0", "type", "bridge")
        for name in veths(given):
            given.host.run("ip", "link", "set", name, "master", "br0")
        given.host.run("ip", "link", "set", "br0", "up")
        yield Pair(given.left, given.right)


@contextlib.contextmanager
def byway_tap(folder: Path) -> Iterator[Pair]:
    """Tap ports, each made in its namespace."""
    with places() as given:
        ports = [{"kind": "tap", "ifname": "eth0", "netns": place.name,
                  "address": [f"{address}/24"]} for place, address in given.both()]
        with byway(folder, given.host, ports):
            yield Pair(given.left, given.right)


@contextlib.contextmanager
def byway_xdp(folder: Path) -> Iterator[Pair]:
    """AF_XDP on the host's ends of two veths."""
    with places() as given:
        ports = [{"kind": "af-xdp", "ifname": name} for name in veths(given)]
        with byway(folder, given.host, ports):
            yield Pair(given.left, given.right)


@contextlib.contextmanager
def byway(folder: Path, host: Namespace, ports: list[dict[str, object]]) -> Iterator[None]:
    """`byway run` with these ports, which are up."""
    api = folder / "api.sock"
    text = f'[switch]\nname = "bench"\napi = "{api}"\n[[network]]\nname = "blue"\n'
    for k, port in enumerate(ports, 1):
        text += f'[[port]]\nname = "p{k}"\nnetwork = "blue"\n'
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in port.items())
    (folder / "bench.toml").write_text(text)
    words = [*host.prefix, str(BYWAY), "run", str(folder / "bench.toml")]
    with Process("byway", words, folder / "byway.log") as process, Client(str(api)) as client:

        def up() -> bool:
            if not process.running:
                raise process.error("ended")
            try:
                return all(port["state"] == "up" for port in client.ports())
            except ClientError:  # not there yet
                return False

        wait_until(up, "the ports are up", START)
        yield


@contextlib.contextmanager
def ovs(folder: Path, host: Namespace) -> Iterator[Callable[..., str]]:
    """Open vSwitch with an empty bridge ``br0`` in user space; -> what calls `ovs-vsctl`."""
    env = {key: str(folder) for key in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR")}
    database = f"unix:{folder}/db.sock"
    checked(["ovsdb-tool", "create", f"{folder}/conf.db", SCHEMA])
    argv = ["ovsdb-server", f"{folder}/conf.db", f"--remote=p{database}", "--no-chdir",
            f"--unixctl={folder}/db.ctl"]

    def vsctl(*words: str) -> str:
        return checked(["ovs-vsctl", f"--db={database}", "--timeout=20", *words])

    with Process("ovsdb-server", argv, folder / "ovsdb.log", env):
        wait_until((folder / "db.sock").exists, "the database's socket", 10)
        vsctl("--no-wait", "init")
        argv = [*host.prefix, VSWITCHD, database, f"--unixctl={folder}/vswitchd.ctl", "--no-chdir"]
        with Process("ovs-vswitchd", argv, folder / "vswitchd.log", env):
            vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
            yield vsctl


@contextlib.contextmanager
def ovs_tap(folder: Path) -> Iterator[Pair]:
    """Taps of Open vSwitch's, moved into the namespaces."""
    with places() as given, ovs(folder, given.host) as vsctl:
        for k, (place, address) in enumerate(given.both(), 1):
            vsctl("add-port", "br0", f"t{k}", "--", "set", "interface", f"t{k}", "type=tap")
            given.host.run("ip", "link", "set", f"t{k}", "netns", place.name)
            place.run("ip", "address", "add", f"{address}/24", "dev", f"t{k}")
            place.run("ip", "link", "set", f"t{k}", "up")
        yield Pair(given.left, given.right)


@contextlib.contextmanager
def ovs_veth(folder: Path) -> Iterator[Pair]:
    """Packet sockets of Open vSwitch's on the host's ends of two veths.

    It takes frames as if they were finished, so the containers' ends have to finish them.
    """
    with places() as given, ovs(folder, given.host) as vsctl:
        for name in veths(given):
            vsctl("add-port", "br0", name)
        for place, _ in given.both():
            place.run("ethtool", "-K", "eth0", "tx", "off")
        yield Pair(given.left, given.right)


WAYS: dict[str, Callable[[Path], AbstractContextManager[Pair]]] = {
    "byway tap": byway_tap,
    "byway af-xdp": byway_xdp,
    "linux bridge": linux_bridge,
    "ovs tap": ovs_tap,
    "ovs veth": ovs_veth,
}
