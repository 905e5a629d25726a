# SPDX-License-Identifier: Apache-2.0
"""The cluster's networks and ports in a switch that has some of its own."""

import asyncio
from pathlib import Path

import httpx
import pytest

from byway.control.actions import AddPort
from byway.control.api import make_app
from byway.control.cluster.desk import WantedDesk
from byway.control.diff import Change
from byway.control.model import Config, NetworkConfig, NullPort, SwitchConfig, UnderlayConfig
from byway.control.problem import ConfigError, EngineError
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine

PORT = {"name": "p", "network": "blue", "kind": "null"}


@pytest.fixture
def wanted() -> Wanted:
    made = Wanted(FakeEngine(SwitchConfig()), SwitchConfig())
    made.change(Config(networks=(NetworkConfig(name="own"),),
                       ports=(NullPort(name="mine", network="own", kind="null"),)))
    return made


def test_networks_and_ports_come_change_and_go(wanted: Wanted) -> None:
    desk = WantedDesk(wanted)
    desk.put("network", {"name": "blue", "vni": 7})
    desk.put("port", PORT)
    desk.put("port", {**PORT, "mac": "02:00:00:00:00:01"})
    assert wanted.has.ports["p"].mac == "02:00:00:00:00:01"
    assert desk.networks() == ("blue", "own")
    with pytest.raises(EngineError, match='network "blue" has ports here: p'):
        desk.drop("network", "blue")
    desk.drop("port", "p")
    desk.drop("port", "p")
    desk.drop("network", "blue")
    assert desk.networks() == ("own",)


def test_what_the_switch_has_of_its_own_counts(wanted: Wanted) -> None:
    desk = WantedDesk(wanted)
    with pytest.raises(EngineError, match='network "own" of the cluster: the switch has one'):
        desk.put("network", {"name": "own", "vni": 7})
    with pytest.raises(EngineError, match='port "mine" of the cluster'):
        desk.put("port", {"name": "mine", "network": "own", "kind": "null"})
    assert wanted.has.networks["own"].vni is None


def test_a_table_that_is_wrong_changes_nothing(wanted: Wanted) -> None:
    desk, before = WantedDesk(wanted), wanted.config
    with pytest.raises(ConfigError, match='network "blue" of the cluster: vni'):
        desk.put("network", {"name": "blue", "vni": -1})
    with pytest.raises(ConfigError, match='there is no network "blue"'):
        desk.put("port", PORT)
    assert wanted.config == before


def test_the_address_is_that_of_the_underlay_now(wanted: Wanted) -> None:
    desk = WantedDesk(wanted)
    assert desk.address() is None
    for address in ("192.0.2.1", "192.0.2.2"):
        underlay = UnderlayConfig(address=address, mtu=1500)
        wanted.change(wanted.config.model_copy(update={"underlay": underlay}))
        assert desk.address() == address


@pytest.mark.parametrize("change", [
    Change(remove_ports=("p",)), Change(remove_networks=("blue",)),
    Change(add_networks=(NetworkConfig(name="blue", vni=8),)),
    Change(add_ports=(NullPort(name="p", network="own", kind="null"),))])
def test_what_the_cluster_put_here_is_changed_in_the_cluster_only(
        wanted: Wanted, change: Change) -> None:
    desk = WantedDesk(wanted)
    desk.put("network", {"name": "blue", "vni": 7})
    desk.put("port", PORT)
    before = wanted.config
    with pytest.raises(EngineError, match=r"is of the cluster; .*(--cluster blue|p --host byway)$"):
        wanted.alter(change)
    file = Config(networks=before.networks, ports=(
        NullPort(name="p", network="own", kind="null"), *(
            port for port in before.ports if port.name != "p")))
    with pytest.raises(EngineError, match='port "p" is of the cluster'):
        wanted.change(file)  # a reload
    assert wanted.config == before
    wanted.change(before)
    wanted.alter(Change(add_ports=(NullPort(name="q", network="blue", kind="null"),)))
    wanted.alter(Change(remove_ports=("q", "mine")))  # of its own: as before
    desk.drop("port", "p")
    desk.drop("network", "blue")
    wanted.alter(Change(add_networks=(NetworkConfig(name="blue"),)))
    assert set(wanted.has.networks) == {"own", "blue"}


def test_what_etcd_has_lost_may_be_changed_here_until_it_has_it_again(wanted: Wanted) -> None:
    desk = WantedDesk(wanted)
    desk.put("network", {"name": "blue", "vni": 7})
    desk.lose("network", "blue")
    assert desk.has("network", "blue")
    wanted.alter(Change(remove_networks=("blue",)))
    assert not desk.has("network", "blue")
    desk.put("network", {"name": "blue", "vni": 7})
    with pytest.raises(EngineError, match="is of the cluster"):
        wanted.alter(Change(remove_networks=("blue",)))


def test_a_port_of_the_cluster_waits_for_what_it_needs(tmp_path: Path) -> None:
    engine = FakeEngine(SwitchConfig())
    wanted = Wanted(engine, SwitchConfig())
    desk = WantedDesk(wanted)
    desk.put("network", {"name": "blue"})
    tape = {"name": "tape", "network": "blue", "kind": "pcap",
            "write": str(tmp_path / "later" / "tape.pcap")}
    desk.put("port", tape)
    (action,) = engine.applied[-1]
    assert isinstance(action, AddPort)
    assert action.patient
    with pytest.raises(ConfigError, match="later"):  # what is there is not given up for it
        desk.put("port", {**tape, "write": str(tmp_path / "later" / "other.pcap")})
    assert wanted.has.ports["tape"].model_dump()["write"] == tape["write"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_the_api_refuses_to_change_what_the_cluster_put_here(wanted: Wanted, method: str) -> None:
    WantedDesk(wanted).put("network", {"name": "blue", "vni": 7})

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=make_app(wanted))
        async with httpx.AsyncClient(transport=transport, base_url="http://byway") as client:
            return await client.request(method, "/v1/networks/blue", json={"vni": 8})

    answer = asyncio.run(call())
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "refused", "problem": 'network "blue" is of the cluster',
        "fix": "change or remove it there, such as by: byway network remove --cluster blue"}
    assert wanted.has.networks["blue"].vni == 7
