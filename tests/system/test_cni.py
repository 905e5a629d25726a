# SPDX-License-Identifier: Apache-2.0
"""byway-cni with a running switch, in the hands of a runtime that knows every verb (STATUS, GC).

Network namespaces without processes are the containers. What real runtimes do is in
test_cni_engines.py, the specification sentence by sentence in tests/spec/test_cni.py.
"""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import cni_lab, peers
from tests.cni_lab import OTHERS, Lab, addresses, inside, interfaces
from tests.cni_runtime import PluginError, Runtime
from tests.system.engines.place import Place
from tests.system.peers.process import Process, wait_until
from tests.system.peers.switch import Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MANY = 24


class RealLab(Lab):
    """A lab with a switch that passes frames; both have a network namespace as their host."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.place = stack.enter_context(Place(folder, "cni-verbs"))
        self.real = stack.enter_context(Switch(folder, [], prefix=self.place.namespace.prefix))
        super().__init__(folder, str(self.real.api))
        stack.callback(self.close)
        self.prefix = list(self.place.namespace.prefix)
        self.names = itertools.count()

    def port_names(self) -> set[str]:
        """The names of the switch's ports, but for the gateway's."""
        return {name for name in self.real.ports() if not name.startswith("gw-")}


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[RealLab]:
    cni_lab.need_namespaces()
    with ExitStack() as stack:
        yield RealLab(stack, folder)


@pytest.fixture
def runtime(lab: RealLab) -> Iterator[Runtime]:
    """A runtime with a network of its own on the switch; nothing is left of it."""
    number = next(lab.names)
    subnets = [[{"subnet": f"10.{100 + number}.0.0/16"}], [{"subnet": f"fd{number + 10}::/64"}]]
    keys = {"name": f"net{number}", "network": f"net{number}",
            "ipam": {"type": "byway", "ranges": subnets}}
    yield lab.runtime(**keys)
    lab.runtime(**keys).collect([])
    assert lab.port_names() == set()


def ping(netns: str, to: str) -> None:
    """One answered ping; the first waits for the address to be usable."""
    wait_until(lambda: " 0% packet loss" in inside(
        netns, "sh", "-c", f"busybox ping -c 1 -W 1 {to} || true"), f"{to} answers", 10)


def peer_addresses(result: dict[str, Any]) -> list[str]:
    """The addresses of a result, without prefix lengths."""
    return [entry["address"].partition("/")[0] for entry in result["ips"]]


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_two_containers_meet(lab: RealLab, runtime: Runtime, version: str) -> None:
    runtime.network["cniVersion"] = version
    spaces = [lab.namespace() for _ in range(2)]
    results = [runtime.add(f"c{k}", netns) for k, netns in enumerate(spaces)]
    for netns, other in zip(spaces, reversed(results), strict=True):
        for address in peer_addresses(other):
            ping(netns, address)
    if version >= "0.4.0":
        runtime.check("c0", spaces[0])
    for k, netns in enumerate(spaces):
        runtime.delete(f"c{k}", netns)
        assert interfaces(netns) == set()
    assert lab.port_names() == set()


def test_jumbo_frames(lab: RealLab, runtime: Runtime) -> None:
    runtime.network["plugins"][0]["mtu"] = 9000
    spaces = [lab.namespace() for _ in range(2)]
    results = [runtime.add(f"c{k}", netns) for k, netns in enumerate(spaces)]
    assert results[0]["interfaces"][0]["mtu"] == 9000
    wait_until(lambda: " 0% packet loss" in inside(
        spaces[0], "sh", "-c",
        f"busybox ping -c 1 -W 1 -s 8900 {peer_addresses(results[1])[0]} || true"),
        "a large ping is answered", 10)
    assert "mtu 9000" in inside(spaces[0], "ip", "link", "show", "eth0")


def test_check_finds_a_removed_address(lab: RealLab, runtime: Runtime) -> None:
    netns = lab.namespace()
    address = runtime.add("c1", netns)["ips"][0]["address"]
    runtime.check("c1", netns)
    inside(netns, "ip", "addr", "del", address, "dev", "eth0")
    with pytest.raises(PluginError, match=address) as caught:
        runtime.check("c1", netns)
    assert caught.value.code == 103


def test_check_finds_a_port_that_somebody_removed(lab: RealLab, runtime: Runtime) -> None:
    netns = lab.namespace()
    runtime.add("c1", netns)
    (name,) = lab.port_names()
    lab.real.client.remove_port(name)
    with pytest.raises(PluginError) as caught:
        runtime.check("c1", netns)
    assert caught.value.code == 103


def test_collect(lab: RealLab, runtime: Runtime) -> None:
    spaces = {f"c{k}": lab.namespace() for k in range(3)}
    results = {name: runtime.add(name, netns) for name, netns in spaces.items()}
    lab.remove_namespace(spaces["c2"])
    runtime.collect([("c0", "eth0")])
    assert len(lab.port_names()) == 1
    assert interfaces(spaces["c1"]) == set()
    runtime.check("c0", spaces["c0"])
    again = runtime.add("c1", spaces["c1"])
    assert set(peer_addresses(again)).isdisjoint(
        address for result in results.values() for address in peer_addresses(result))
    ping(spaces["c0"], peer_addresses(again)[0])


def test_status_and_delete_without_a_switch(lab: RealLab, runtime: Runtime) -> None:
    netns = lab.namespace()
    runtime.status()
    runtime.add("c1", netns)
    lab.real.kill()
    with pytest.raises(PluginError) as caught:
        runtime.status()
    assert caught.value.code == 50
    runtime.delete("c1", netns)
    lab.real.start()
    runtime.status()
    other = lab.namespace()
    runtime.add("c2", other)
    assert len(lab.port_names()) == 1


def test_many_at_once(lab: RealLab, runtime: Runtime) -> None:
    spaces = [lab.namespace() for _ in range(MANY)]
    problems: list[BaseException] = []

    def add(number: int, netns: str) -> None:
        try:
            runtime.add(f"c{number}", netns)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=add, args=each) for each in enumerate(spaces)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(set.union(*map(addresses, spaces))) == 2 * MANY
    ping(spaces[0], peer_addresses(runtime.results[f"c{MANY - 1}", "eth0"])[0])
    runtime.collect([])
    assert all(interfaces(netns) == set() for netns in spaces)


def test_ports_are_published_without_masquerading(lab: RealLab, runtime: Runtime) -> None:
    """From the host, and from a container of the same network by the gateway's address."""
    runtime.network["plugins"][0]["isGateway"] = True
    spaces = [lab.namespace() for _ in range(2)]
    (lab.folder / "page").write_text("published")
    mappings = [{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}]
    runtime.add("c0", spaces[0], portMappings=mappings)
    gateway = runtime.add("c1", spaces[1])["ips"][0]["gateway"]
    with Process("httpd", ["nsenter", f"--net={spaces[0]}", "busybox", "httpd", "-f", "-p", "80",
                           "-h", str(lab.folder)], lab.folder / "httpd.log"):
        arrives(str(lab.place.namespace.path), gateway)
        arrives(spaces[1], gateway)
        with pytest.raises(PluginError, match="published already"):
            runtime.add("c2", lab.namespace(), portMappings=mappings)
        arrives(spaces[1], gateway)  # the first one's is still there
        runtime.delete("c0", spaces[0])
        assert fetched(spaces[1], gateway, 8081) == ""
    ruleset = lab.place.namespace.run("nft", "list", "ruleset")
    assert "8081" not in ruleset
    assert gateway.rpartition(".")[0] not in ruleset
    lab.real.client.remove_port(f"gw-{runtime.network['name']}")


@pytest.mark.parametrize("way", ["egress", "ingress"])
def test_rates_are_kept(lab: RealLab, runtime: Runtime, way: str) -> None:
    """Two megabytes at eight megabits a second, out of a container or into it, take two seconds."""
    sender, receiver = lab.namespace(), lab.namespace()
    limit = {"bandwidth": {f"{way}Rate": 8_000_000, f"{way}Burst": 1_000_000}}
    runtime.add("from", sender, **(limit if way == "egress" else {}))
    address = peer_addresses(runtime.add("to", receiver, **(limit if way == "ingress" else {})))[0]
    ping(sender, address)
    runtime.check("from", sender)
    runtime.check("to", receiver)
    with Process("nc", ["nsenter", f"--net={receiver}", "busybox", "nc", "-l", "-p", "7000"],
                 lab.folder / "received.log") as server:
        wait_until(lambda: ":7000" in inside(receiver, "busybox", "netstat", "-ltn"),
                   "the server listens", 10)
        begin = time.monotonic()
        inside(sender, "sh", "-c", f"head -c 2000000 /dev/zero | busybox nc {address} 7000")
        wait_until(lambda: not server.running, "all has arrived", 60)
    assert time.monotonic() - begin > 1.5
    assert (lab.folder / "received.log").stat().st_size == 2_000_000


def fetched(netns: str, host: str, port: int) -> str:
    """The page that a web server answers with, nothing where there is none."""
    request = r"printf 'GET /page HTTP/1.0\r\n\r\n'"
    answer = inside(netns, "sh", "-c", f"{request} | busybox nc -w 2 {host} {port} || true")
    return answer.rpartition("\n")[2]


def arrives(netns: str, host: str) -> None:
    """The published page can be had."""
    wait_until(lambda: fetched(netns, host, 8081) == "published", "the page arrives", 20)


def other_plugin(name: str) -> None:
    """One of the usual plugins is installed."""
    if not (OTHERS / name).exists():
        peers.need_peer(name, f"no {OTHERS / name} (package containernetworking-plugins)")


def test_addresses_by_another_plugin(lab: RealLab, runtime: Runtime) -> None:
    other_plugin("host-local")
    runtime.network["cniVersion"] = "1.0.0"
    runtime.network["plugins"][0]["ipam"] = {
        "type": "host-local", "dataDir": str(lab.folder / "host-local"),
        "ranges": [[{"subnet": "10.200.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    spaces = [lab.namespace() for _ in range(2)]
    results = [runtime.add(f"c{k}", netns) for k, netns in enumerate(spaces)]
    assert [one["ips"][0]["address"] for one in results] == ["10.200.0.2/24", "10.200.0.3/24"]
    ping(spaces[0], "10.200.0.3")
    runtime.check("c0", spaces[0])
    for k, netns in enumerate(spaces):
        runtime.delete(f"c{k}", netns)
    left = {path.name for path in (lab.folder / "host-local").rglob("10.*")}
    assert left == set()


def test_addresses_for_another_plugin(lab: RealLab) -> None:
    """byway-cni as the IPAM plugin of the usual bridge."""
    other_plugin("bridge")
    ipam = {"type": "byway", "subnet": "10.201.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
    network = {"cniVersion": "1.0.0", "name": "bridged", "plugins": [
        {"type": "bridge", "bridge": "cni-b", "ipam": ipam, "state": str(lab.state)}]}
    made = Runtime(network, [lab.bin, OTHERS], lab.prefix)
    spaces = [lab.namespace() for _ in range(2)]
    first = made.add("c0", spaces[0])
    made.check("c0", spaces[0])
    results = [first, made.add("c1", spaces[1])]
    assert [one["ips"][0]["address"] for one in results] == ["10.201.0.2/24", "10.201.0.3/24"]
    for k, netns in enumerate(spaces):
        made.delete(f"c{k}", netns)
    assert made.add("c3", spaces[0])["ips"][0]["address"] == "10.201.0.4/24"
    made.delete("c3", spaces[0])
