# SPDX-License-Identifier: Apache-2.0
"""What one tells a cluster from any of its hosts: networks, ports, addresses, how it is."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from byway.client import Client
from tests.system.engines.namespace import Namespace
from tests.system.engines.station import INTERFACE, Host
from tests.system.overlay.bed import NAMES, Bed, Node, Source
from tests.system.peers.process import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SETTLE = 20.0  # seconds
AT_ONCE = 7  # ports that each host makes at the same time


@pytest.fixture(scope="module")
def bed(folder: Path) -> Iterator[Bed]:
    with Bed(folder, Source.CLUSTER, seats=()) as made:
        yield made


def networks(node: Node) -> dict[str, dict[str, Any]]:
    """The networks of a host's switch, by name."""
    return {row["name"]: row for row in node.switch.client.networks()}


def create(bed: Bed, host: str, name: str, *options: str) -> int:
    """Create a network from a host, and wait until every host has it; -> its VNI."""
    bed.nodes[host].switch.command("network", "create", name, *options)
    wait_until(lambda: all(name in networks(node) for node in bed.nodes.values()),
               f"every host has {name}", SETTLE)
    found = {networks(node)[name]["vni"] for node in bed.nodes.values()}
    assert len(found) == 1
    return int(found.pop())


def test_every_host_knows_how_the_cluster_is(bed: Bed) -> None:
    for name, node in bed.nodes.items():
        wait_until(lambda one=node: one.switch.client.cluster()["synced"], "all is known", SETTLE)
        status = node.switch.command("cluster", "status")
        assert (status["host"], status["connected"], status["synced"]) == (name, True, True)
    assert {key.rpartition("/")[2] for key in bed.etcd.keys("/byway/hosts/")} == set(NAMES)


def test_networks_are_made_from_any_host(bed: Bed) -> None:
    """Two at the same time, from different hosts, have different numbers."""
    with ThreadPoolExecutor() as pool:
        made = [pool.submit(create, bed, host, f"made-{host}", "--vni", "auto") for host in "ABCD"]
        numbers = [one.result() for one in made]
    assert len(set(numbers)) == len(numbers)
    for host in "ABCD":
        bed.nodes["A"].switch.client.remove_cluster_network(f"made-{host}")
    wait_until(lambda: all(not networks(node) for node in bed.nodes.values()),
               "no host has them any more", SETTLE)


def test_a_port_is_made_from_another_host(bed: Bed) -> None:
    """From A: a container on B and one on D, whose addresses are given; they reach each other."""
    create(bed, "A", "green", "--vni", "auto", "--subnet", "10.44.0.0/24")
    with Namespace("green") as one, Namespace("green") as two:
        places = {"B": one, "D": two}
        given = {}
        for number, (host, place) in enumerate(places.items(), 1):
            name = f"green{number}"
            port = bed.nodes["A"].switch.command(
                "port", "add", name, "--network", "green", "--kind", "tap", "--ifname", INTERFACE,
                "--netns", place.name, "--mac", f"02:00:00:44:00:0{number}", "--ip", "auto",
                "--host", host)
            given[host] = port["ips"][0]
            wait_until(lambda h=host, n=name: bed.nodes[h].switch.ports().get(n, {}).get("state")
                       == "up", f"{name} is up", SETTLE)
            place.run("ip", "address", "add", f"{given[host]}/24", "dev", INTERFACE)
        assert given["B"] != given["D"]
        stations = {host: Host(host, place.prefix) for host, place in places.items()}
        stations["B"].reach(given["D"])
        stations["D"].reach(given["B"])
        for number, host in enumerate(places, 1):
            bed.nodes["C"].switch.client.remove_cluster_port(host, f"green{number}")
        wait_until(lambda: not any(node.switch.ports() for node in bed.nodes.values()),
                   "the ports are gone", SETTLE)
    bed.nodes["D"].switch.client.remove_cluster_network("green")


def make_port(node: Node, name: str) -> dict[str, Any]:
    """A port of a host, made from there, with an address that is given."""
    with Client(str(node.switch.api), timeout=60.0) as client:
        return client.add_cluster_port(node.name, {
            "name": name, "network": "tight", "kind": "null", "ips": "auto"})


def test_no_address_is_given_twice(bed: Bed) -> None:
    """All hosts ask for addresses at the same time, in a subnet that has room for two more."""
    wanted = AT_ONCE * len(NAMES)
    create(bed, "A", "tight", "--vni", "auto", "--subnet", "10.45.0.0/27")
    with ThreadPoolExecutor(wanted) as pool:
        rows = list(pool.map(lambda one: make_port(bed.nodes[one[0]], f"t{one[0]}{one[1]}"),
                             [(host, k) for k in range(AT_ONCE) for host in NAMES]))
    addresses = [ip for row in rows for ip in row["ips"]]
    assert len(addresses) == len(set(addresses)) == wanted
    wait_until(lambda: sum(len(node.switch.ports()) for node in bed.nodes.values()) == wanted,
               "every host has its ports", SETTLE)
    kept = [json.loads(bed.etcd.command("get", "--print-value-only", "--", key))
            for key in bed.etcd.keys("/byway/ports/")]
    assert {ip for port in kept for ip in port["ips"]} == set(addresses)


def test_values_that_are_no_model_change_nothing(bed: Bed) -> None:
    """Somebody writes nonsense into etcd: it is passed over, and what is right comes through."""
    create(bed, "A", "sound", "--vni", "700")
    before = {name: networks(node) for name, node in bed.nodes.items()}
    nonsense = ("no JSON", "[]", '{"name": "bad", "vni": -1}', '{"name": "bad", "vni": "many"}')
    for number, value in enumerate(nonsense):
        for place in ("networks", f"entries/sound/A/02:00:00:00:00:0{number}", "hosts", "ports/A"):
            bed.etcd.put(f"/byway/{place}/bad{number}", value)
    create(bed, "D", "after", "--vni", "701")
    for name, node in bed.nodes.items():
        assert networks(node).keys() == before[name].keys() | {"after"}
        assert node.switch.client.population() == []
        assert not any("bad" in port for port in node.switch.ports())
        assert {row["name"] for row in node.switch.client.hosts()} == set(NAMES) - {name}


def test_a_second_host_of_one_name_is_refused(bed: Bed) -> None:
    """It does not take the place of the first; it says why, and goes on by itself."""
    with ExitStack() as stack:
        twin = Node(bed, "E", 5)
        twin.start(bed.text(twin).replace('host = "E"', 'host = "A"'))
        stack.callback(twin.switch.stop)
        first = bed.nodes["A"]
        kept = bed.etcd.value("/byway/hosts/A")
        wait_until(lambda: twin.switch.client.cluster()["presence"] == "refused",
                   "it is refused", SETTLE)
        assert any('"A"' in one for one in twin.switch.client.cluster()["problems"])
        assert first.switch.client.cluster()["synced"]
        assert bed.etcd.value("/byway/hosts/A") == kept
        for name in "BCD":
            found = {row["name"]: row["address"] for row in bed.nodes[name].switch.client.hosts()}
            assert found["A"] == first.address
