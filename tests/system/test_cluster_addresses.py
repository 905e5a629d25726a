# SPDX-License-Identifier: Apache-2.0
"""Several processes ask for addresses and VNIs of one cluster at once: none is given twice."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byway.control.cluster.etcd import Etcd, put
from byway.control.cluster.layout import Layout
from byway.control.cluster.registry import FIRST_VNI, Registry
from byway.control.problem import EngineError
from tests.system.etcd_server import EtcdServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = Layout("/byway")


@pytest.fixture
def etcd(own_folder: Path) -> Iterator[EtcdServer]:
    with EtcdServer(own_folder) as server:
        yield server


@pytest.fixture
def registry(etcd: EtcdServer) -> Iterator[Registry]:
    made = Registry(etcd.access(), LAYOUT)
    yield made
    made.close()


def ask(etcd: EtcdServer, processes: int, count: int) -> list[dict[str, Any]]:
    """What so many processes got."""
    running = [subprocess.Popen(
        [sys.executable, "-m", "tests.system.cluster_worker", etcd.url, f"h{number}", str(count)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(processes)]
    for one in running:  # each reads its line when it is ready
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    outputs = [one.communicate(timeout=200)[0] for one in running]
    assert [one.returncode for one in running] == [0] * processes
    return [json.loads(line) for output in outputs for line in output.splitlines()]


def test_no_address_and_no_vni_is_given_twice(etcd: EtcdServer, registry: Registry) -> None:
    registry.put_network({"name": "blue", "vni": FIRST_VNI + 3,
                          "subnets": ["10.0.0.0/26", "fd00::/64"], "gateway": ["10.0.0.1/26"]})
    got = ask(etcd, processes=4, count=15)
    assert not [one for one in got if "full" in one]
    vnis = [one["vni"] for one in got if "vni" in one]
    assert len(vnis) == 60
    assert len({*vnis, FIRST_VNI + 3}) == 61
    kept = {found.key: json.loads(found.value) for _, page in Etcd(etcd.access()).pages(
        LAYOUT.prefix + "/ports/") for found in page}
    assert len(kept) == 40  # every third was removed again
    addresses = [ip for table in kept.values() for ip in table["ips"]]
    assert len(addresses) == len(set(addresses)) == 80
    assert registry.addresses.holders("blue") == {
        ip: key.removeprefix(LAYOUT.prefix + "/ports/")
        for key, table in kept.items() for ip in table["ips"]}
    assert not {"10.0.0.0", "10.0.0.1", "10.0.0.63", "fd00::"} & set(addresses)


def test_a_subnet_is_used_up_to_its_last_address(etcd: EtcdServer, registry: Registry) -> None:
    registry.put_network({"name": "blue", "subnets": ["10.0.0.0/29"]})
    got = ask(etcd, processes=3, count=4)
    holders = registry.addresses.holders("blue")
    assert len([one for one in got if "full" in one]) + len(
        [one for one in got if "ips" in one]) == 12
    assert set(holders) <= {f"10.0.0.{number}" for number in range(1, 7)}
    for number in range(7 - len(holders) - 1):
        registry.take("blue", f"x/{number}")
    assert len(registry.addresses.holders("blue")) == 6
    with pytest.raises(EngineError, match=r"no address of the network .blue. is free"):
        registry.take("blue", "x/more")


def test_a_port_keeps_its_addresses_and_frees_them(registry: Registry) -> None:
    registry.put_network({"name": "blue", "subnets": ["10.0.0.0/24"], "gateway": ["10.0.0.1/24"]})
    first = registry.take("blue", "a/c1")
    assert registry.take("blue", "a/c1") == first
    assert registry.take("blue", "a/c2", ["10.0.0.200"]) == ["10.0.0.200"]
    with pytest.raises(EngineError, match=r"10\.0\.0\.200 is the address of a/c2"):
        registry.take("blue", "b/c1", ["10.0.0.200"])
    for ip in ("10.0.0.1", "10.0.0.255", "10.0.1.5"):
        with pytest.raises(EngineError, match=ip):
            registry.take("blue", "b/c1", [ip])
    registry.give_back("blue", "a/c2")
    registry.give_back("blue", "a/c2")
    assert registry.take("blue", "b/c1", ["10.0.0.200"]) == ["10.0.0.200"]
    made = registry.put_port("a", {"name": "p", "network": "blue", "kind": "null", "ips": "auto"})
    moved = registry.put_port("a", {**made, "ips": ["10.0.0.77"]})
    assert set(registry.addresses.holders("blue")) == {first[0], "10.0.0.200", "10.0.0.77"}
    assert moved["ips"] == ["10.0.0.77"]
    assert registry.forget_host("a") == ["p"]
    assert set(registry.addresses.holders("blue")) == {first[0], "10.0.0.200"}


def test_a_port_that_changes_its_network_frees_the_old_one(registry: Registry) -> None:
    for name in ("blue", "red"):
        registry.put_network({"name": name, "subnets": ["10.0.0.0/24"]})
    table = {"name": "p", "network": "blue", "kind": "null", "ips": "auto"}
    registry.put_port("a", table)
    registry.put_port("a", {**table, "network": "red"})
    assert registry.addresses.holders("blue") == {}
    assert len(registry.addresses.holders("red")) == 1
    registry.delete_network("blue")


def test_a_network_whose_table_is_broken_can_be_put_right(
        etcd: EtcdServer, registry: Registry) -> None:
    client = Etcd(etcd.access())
    client.change([], [put(LAYOUT.network("blue"), b"{")])
    client.close()
    assert registry.put_network({"name": "blue", "vni": "auto"})["vni"] == FIRST_VNI
