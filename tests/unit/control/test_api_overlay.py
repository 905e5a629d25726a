# SPDX-License-Identifier: Apache-2.0
"""The REST API of what joins hosts: hosts, entries, security groups, routers, the cluster."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from byway.control.actions import ChangeGroup, ChangePort
from byway.control.answers import (
    ClusterAnswer,
    ConnectionAnswer,
    EntryAnswer,
    GroupAnswer,
    HostAnswer,
    PopulationAnswer,
    RouterAnswer,
    SwitchAnswer,
    UnderlayAnswer,
)
from byway.control.api import make_app
from byway.control.model import UnderlayConfig
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine
from tests.unit.control.fake_membership import FakeMembership
from tests.unit.control.fake_switch import LAB

MAC = "02:00:00:00:00:07"
NULL = {"network": "blue", "kind": "null"}
RULE = {"direction": "ingress", "protocol": "tcp", "ports": "80"}
Call = Callable[..., httpx.Response]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(LAB.switch)


@pytest.fixture
def membership() -> FakeMembership:
    return FakeMembership()


@pytest.fixture
def app(engine: FakeEngine, membership: FakeMembership) -> FastAPI:
    wanted = Wanted(engine, LAB.switch)
    wanted.change(LAB.model_copy(update={
        "underlay": UnderlayConfig(address="192.0.2.1", mtu=1550)}))
    return make_app(wanted, membership)


@pytest.fixture
def call(app: FastAPI) -> Call:
    def one(method: str, path: str, body: Any = None) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://byway") as client:
                return await client.request(method, path, json=body)

        return asyncio.run(go())

    return one


@pytest.fixture
def lab(call: Call) -> Call:
    """With a network "red" that has a vni and a gateway, and a host "h2"."""
    assert call("PUT", "/v1/networks/red", {"vni": 7, "gateway": ["10.0.0.1/24"]}).is_success
    assert call("PUT", "/v1/hosts/h2", {"address": "192.0.2.2"}).is_success
    return call


THINGS = {
    "host": ("/v1/hosts/h3", {"address": "192.0.2.3", "networks": ["red"]},
             {"address": "192.0.2.4"}, HostAnswer),
    "entry": (f"/v1/entries/red/{MAC}", {"host": "h2", "ips": ["10.0.0.7"]}, {"host": "h2"},
              EntryAnswer),
    "security group": ("/v1/security-groups/web", {"rules": [RULE]}, {}, GroupAnswer),
    "router": ("/v1/routers/r", {"networks": ["red"]},
               {"networks": ["red"], "routes": [{"to": "default", "via": "10.0.0.9"}]},
               RouterAnswer),
}


@pytest.mark.parametrize(("path", "body", "other", "shape"), THINGS.values(), ids=THINGS.keys())
def test_things_come_change_and_go(
    lab: Call, engine: FakeEngine, path: str, body: Any, other: Any, shape: Any
) -> None:
    assert lab("GET", path).status_code == 404
    assert lab("PUT", path, body).status_code == 201
    before = len(engine.applied)
    again = lab("PUT", path, body)
    assert (again.status_code, len(engine.applied)) == (200, before), "the same changes nothing"
    TypeAdapter(shape).validate_json(again.content, strict=True)
    assert lab("GET", path).json() == again.json()
    assert again.json() in lab("GET", path.rsplit("/", 1)[0].removesuffix("/red")).json()
    changed = lab("PUT", path, other)
    assert (changed.status_code, len(engine.applied)) == (200, before + 1)
    assert changed.json() != again.json()
    assert lab("DELETE", path).status_code == 204
    assert lab("DELETE", path).status_code == 404


def test_a_network_of_the_path_is_not_another_one(lab: Call) -> None:
    answer = lab("PUT", f"/v1/entries/red/{MAC}", {"host": "h2", "network": "blue"})
    assert (answer.status_code, answer.json()["problem"]) == (
        422, "network: is 'blue', in the path it is 'red'")


@pytest.mark.parametrize(("path", "problem"), [
    ("/v1/networks/red", 'network "red" has entries: red/02:00:00:00:00:07'),
    ("/v1/hosts/h2", 'host "h2" has entries: red/02:00:00:00:00:07'),
    ("/v1/security-groups/web", 'security group "web" has ports: vm3'),
])
def test_what_is_needed_stays(lab: Call, path: str, problem: str) -> None:
    lab("PUT", f"/v1/entries/red/{MAC}", {"host": "h2"})
    lab("PUT", "/v1/security-groups/web", {})
    lab("PUT", "/v1/ports/vm3", {**NULL, "security_groups": ["web"]})
    answer = lab("DELETE", path)
    assert (answer.status_code, answer.json()["problem"]) == (409, problem)


def test_a_security_group_changes_without_its_ports(lab: Call, engine: FakeEngine) -> None:
    lab("PUT", "/v1/security-groups/web", {})
    lab("PUT", "/v1/ports/vm3", {**NULL, "security_groups": ["web"]})
    lab("PUT", "/v1/security-groups/web", {"rules": [RULE]})
    (action,) = engine.applied[-1]
    assert isinstance(action, ChangeGroup)
    assert lab("GET", "/v1/security-groups/web").json()["ports"] == ["vm3"]


def test_a_port_changes_in_place(lab: Call, engine: FakeEngine) -> None:
    lab("PUT", "/v1/ports/vm3", NULL)
    lab("PUT", "/v1/ports/vm3", {**NULL, "ips": ["10.0.0.3"], "limit": {"rx_bits": 1000}})
    (action,) = engine.applied[-1]
    assert isinstance(action, ChangePort)


def test_everything_at_once(lab: Call, engine: FakeEngine) -> None:
    answer = lab("POST", "/v1/changes", {
        "add_security_groups": [{"name": "web", "rules": [RULE]}],
        "add_hosts": [{"name": "h3", "address": "192.0.2.3", "networks": ["green"]}],
        "add_networks": [{"name": "green", "vni": 9, "gateway": ["10.1.0.1/24"]}],
        "add_entries": [{"network": "green", "mac": MAC, "host": "h3"}],
        "add_routers": [{"name": "r", "networks": ["red", "green"]}],
        "add_ports": [{"name": "vm1", "network": "green", "kind": "null",
                       "security_groups": ["web"]}],
        "remove_hosts": ["h2"],
    })
    assert answer.json() == {
        "added_networks": ["green"], "removed_networks": [], "added_ports": ["vm1"],
        "removed_ports": ["vm1"], "added_security_groups": ["web"], "added_hosts": ["h3"],
        "removed_hosts": ["h2"], "added_entries": [f"green/{MAC}"], "added_routers": ["r"]}
    before = len(engine.applied)
    answer = lab("POST", "/v1/changes", {
        "add_security_groups": [{"name": "db"}], "add_routers": [{"name": "s", "networks": ["x"]}]})
    assert (answer.status_code, len(engine.applied)) == (422, before)
    assert lab("GET", "/v1/security-groups/db").status_code == 404
    answer = lab("POST", "/v1/changes", {"remove_entries": [f"green/{MAC}"], "remove_routers": [
        "r"], "remove_networks": ["green"]})
    assert (answer.status_code, answer.json()["problem"]) == (
        409, 'network "green" has ports: vm1')


def test_what_is_known_and_tracked(lab: Call, engine: FakeEngine) -> None:
    lab("PUT", f"/v1/entries/red/{MAC}", {"host": "h2", "ips": ["10.0.0.7"]})
    (one,) = TypeAdapter(list[PopulationAnswer]).validate_json(
        lab("GET", "/v1/population?network=red").content, strict=True)
    assert (one.mac, one.host, one.port) == (MAC, "h2", None)
    assert lab("GET", "/v1/population?network=blue").json() == []
    assert lab("GET", "/v1/population?network=x").status_code == 404
    engine.tracked = [{
        "port": "vm1", "direction": "egress", "protocol": 17, "source": "10.0.0.7:1",
        "destination": "10.0.0.8:53", "state": "open", "idle": 0.5, "left": 29.5}] * 3
    found = lab("GET", "/v1/connections?port=vm1&limit=2")
    assert len(TypeAdapter(list[ConnectionAnswer]).validate_json(found.content, strict=True)) == 2
    assert lab("GET", "/v1/connections?port=vm2").json() == []
    assert lab("GET", "/v1/connections?port=x").status_code == 404
    answer = lab("GET", "/v1/connections?limit=0")
    assert (answer.status_code, answer.json()["problem"]) == (422, 'limit: is "0"')


def test_what_tunnels_count(lab: Call, engine: FakeEngine) -> None:
    engine.counters["h2"] = {"rx_frames": 5, "drops": {"too_big": 2}}
    engine.counters["underlay"] = {"drops": {"unknown_tunnel": 3}}
    found = TypeAdapter(UnderlayAnswer).validate_json(
        lab("GET", "/v1/underlay").content, strict=True)
    assert (found.state, found.drops) == ("up", {"unknown_tunnel": 3})
    lines = lab("GET", "/metrics").text.splitlines()
    for line in ('byway_host_rx_frames_total{host="h2"} 5.0',
                 'byway_host_drops_total{host="h2",reason="too_big"} 2.0',
                 'byway_host_drops_total{host="",reason="unknown_tunnel"} 3.0'):
        assert line in lines


def test_the_switch_says_what_it_is_in(lab: Call) -> None:
    found = TypeAdapter(SwitchAnswer).validate_json(lab("GET", "/v1/switch").content, strict=True)
    assert found.cluster
    assert found.underlay is not None
    assert (found.underlay["address"], found.underlay["mtu"]) == ("192.0.2.1", 1550)


def test_the_cluster(call: Call, membership: FakeMembership) -> None:
    status = TypeAdapter(ClusterAnswer).validate_json(
        call("GET", "/v1/cluster").content, strict=True)
    assert (status.host, status.connected) == ("h1", True)
    assert call("PUT", "/v1/cluster/networks/n", {"vni": "auto"}).json()["vni"] == 1
    answer = call("PUT", "/v1/cluster/hosts/h2/ports/p", {"ips": "auto"})
    assert (answer.status_code, answer.json()["ips"]) == (200, ["10.0.0.2"])
    membership.lost = True
    answer = call("DELETE", "/v1/cluster/networks/n")
    assert (answer.status_code, answer.json()["error"]) == (409, "refused")
    membership.lost = False
    assert call("DELETE", "/v1/cluster/networks/n").status_code == 204
    assert call("DELETE", "/v1/cluster/hosts/h2/ports/p").status_code == 204


def test_without_a_cluster(engine: FakeEngine) -> None:
    app = make_app(Wanted(engine, LAB.switch))

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://byway") as client:
            return await client.put("/v1/cluster/networks/n", json={})

    answer = asyncio.run(go())
    assert (answer.status_code, answer.json()["error"]) == (404, "not-found")
