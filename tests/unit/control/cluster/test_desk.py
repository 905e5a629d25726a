# SPDX-License-Identifier: Apache-2.0
"""The cluster's networks and ports in a switch that has some of its own."""

import pytest

from byway.control.cluster.desk import WantedDesk
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
