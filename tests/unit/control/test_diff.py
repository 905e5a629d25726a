# SPDX-License-Identifier: Apache-2.0
"""The differences between two wanted states: order, replacement, reload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.control.actions import (
    AddEntry,
    AddGroup,
    AddHost,
    AddNetwork,
    AddPort,
    AddRouter,
    ChangeGroup,
    ChangeNetwork,
    ChangePort,
    RemoveEntry,
    RemoveGroup,
    RemoveHost,
    RemoveNetwork,
    RemovePort,
    RemoveRouter,
    SetUnderlay,
)
from byway.control.diff import diff, needs_restart, rebase
from byway.control.model import (
    Config,
    EntryConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    NullPort,
    RouterConfig,
    RuleConfig,
    SwitchConfig,
    UnderlayConfig,
)
from tests.unit.control.changing import merged, without
from tests.unit.control.fake_engine import FakeEngine


def network(name: str, mtu: int = 1500) -> NetworkConfig:
    return NetworkConfig(name=name, mtu=mtu)


def port(name: str, on: str = "blue", mac: str | None = None) -> NullPort:
    return NullPort(name=name, network=on, kind="null", mac=mac)


OLD = Config(networks=(network("blue"), network("red")), ports=(port("a"), port("b", "red")))


def test_nothing_to_do() -> None:
    assert diff(OLD, OLD) == []


def test_from_nothing_networks_come_before_ports() -> None:
    assert diff(Config(), OLD) == [
        AddNetwork(network("blue")), AddNetwork(network("red")),
        AddPort(port("a")), AddPort(port("b", "red"))]


def test_to_nothing_ports_go_before_networks() -> None:
    assert diff(OLD, Config()) == [
        RemovePort("a"), RemovePort("b"), RemoveNetwork("blue"), RemoveNetwork("red")]


def test_a_changed_port_is_replaced() -> None:
    new = merged(OLD, ports=[port("a", mac="02:00:00:00:00:01")])
    assert diff(OLD, new) == [
        RemovePort("a"), AddPort(port("a", mac="02:00:00:00:00:01"))]


def test_a_changed_network_takes_its_ports_along() -> None:
    assert diff(OLD, merged(OLD, networks=[network("red", 9000)])) == [
        RemovePort("b"), RemoveNetwork("red"), AddNetwork(network("red", 9000)),
        AddPort(port("b", "red"))]


def _policy(**keys: object) -> NullPort:
    return NullPort.model_validate({
        "name": "a", "network": "blue", "kind": "null", "mac": "02:00:00:00:00:01", **keys})


@pytest.mark.parametrize("keys", [
    {"ips": ["10.0.0.2"]}, {"port_security": True}, {"trusted": ["dhcp"]},
    {"allowed_address_pairs": [{"ip": "10.0.0.9"}]}, {"security_groups": ["web"]},
    {"limit": {"rx_bits": 1000}}, {"mirror": {"to": "b"}}])
def test_what_a_port_may_do_changes_while_it_goes_on(keys: dict[str, object]) -> None:
    old = merged(Config(networks=OLD.networks, groups=(GroupConfig(name="web"),)),
                 ports=[_policy(), port("b", "red")])
    new = _policy(**keys)
    assert diff(old, merged(old, ports=[new])) == [ChangePort(_policy(), new)]


@pytest.mark.parametrize("keys", [
    {"ageing": 7}, {"learning": False}, {"unknown": "drop"}, {"subnets": ["10.0.0.0/24"]},
    {"gateway": ["10.0.0.1/24"]}, {"responder": True}])
def test_what_frames_do_not_notice_of_a_network(keys: dict[str, object]) -> None:
    new = NetworkConfig.model_validate({"name": "blue", **keys})
    assert diff(OLD, merged(OLD, networks=[new])) == [ChangeNetwork(network("blue"), new)]


def test_a_network_that_changes_takes_its_routers_along() -> None:
    red = NetworkConfig(name="red", gateway=("10.1.0.1/24",))
    router = RouterConfig(name="r", networks=("red",))
    old = merged(OLD, networks=[red]).model_copy(update={"routers": (router,)})
    new = red.model_copy(update={"gateway": ("10.1.0.2/24",)})
    assert diff(old, merged(old, networks=[new]).model_copy(update={"routers": (router,)})) == [
        RemoveRouter("r"), ChangeNetwork(red, new), AddRouter(router)]


def test_a_security_group_changes_alone() -> None:
    web = GroupConfig(name="web")
    other = GroupConfig(name="web", rules=(RuleConfig(direction="egress"),))
    old = Config(networks=OLD.networks, groups=(web,), ports=(_policy(security_groups=["web"]),))
    assert diff(old, old.model_copy(update={"groups": (other,)})) == [ChangeGroup(web, other)]
    free = old.model_copy(update={"groups": (), "ports": (_policy(),)})
    assert diff(old, free) == [ChangePort(old.ports[0], _policy()), RemoveGroup("web")]
    assert diff(free, old) == [AddGroup(web), ChangePort(_policy(), old.ports[0])]


def test_another_underlay_takes_hosts_and_entries_along_and_no_port() -> None:
    blue = NetworkConfig(name="blue", vni=1)
    host = HostConfig(name="h2", address="192.0.2.2", networks=("blue",))
    entry = EntryConfig(network="blue", mac="02:00:00:00:00:02", host="h2")
    here, there = UnderlayConfig(address="192.0.2.1"), UnderlayConfig(address="192.0.2.9")
    old = Config(underlay=here, networks=(blue,), hosts=(host,), entries=(entry,),
                 ports=(port("a"),))
    assert diff(old, old.model_copy(update={"underlay": there})) == [
        RemoveEntry("blue", entry.mac), RemoveHost("h2"), SetUnderlay(None), SetUnderlay(there),
        AddHost(host), AddEntry(entry)]


def test_another_uplink_takes_the_underlay_along() -> None:
    underlay = UnderlayConfig(address="192.0.2.1", uplink="a")
    old = Config(underlay=underlay, networks=(network("blue"),), ports=(port("a"),))
    other = port("a", mac="02:00:00:00:00:01")
    assert diff(old, old.model_copy(update={"ports": (other,)})) == [
        SetUnderlay(None), RemovePort("a"), AddPort(other), SetUnderlay(underlay)]


def test_order_alone_is_no_change() -> None:
    turned = Config(networks=OLD.networks[::-1], ports=OLD.ports[::-1])
    assert diff(OLD, turned) == []


def test_the_switch_itself_needs_a_restart() -> None:
    new = Config(switch=SwitchConfig(name="lab", workers=(0,)))
    assert needs_restart(Config(), new) == ["switch.name", "switch.workers"]
    assert diff(Config(), new) == []


def test_a_reload_keeps_what_came_through_the_api() -> None:
    running = merged(without(OLD, ports=["a"]), [network("green")], [port("x", "green")])
    new_file = Config(networks=(network("blue"),), ports=(port("c"),))
    wanted = rebase(running, OLD, new_file)
    assert [n.name for n in wanted.networks] == ["blue", "green"]
    assert [p.name for p in wanted.ports] == ["c", "x"]


_names = st.sampled_from("abcde")
_states = st.builds(
    lambda networks, ports: Config(
        networks=tuple(network(name, mtu) for name, mtu in networks.items()),
        ports=tuple(port(name, on) for name, on in ports.items() if on in networks)),
    st.dictionaries(_names, st.sampled_from([1500, 9000])),
    st.dictionaries(_names, _names),
)


@given(_states, _states)
def test_the_actions_lead_from_any_state_to_any_other(old: Config, new: Config) -> None:
    engine = FakeEngine(SwitchConfig())
    engine.apply(diff(Config(), old))
    engine.apply(diff(old, new))
    assert {p["name"]: p["network"] for p in engine.ports()} == {
        p.name: p.network for p in new.ports}
    assert {n["name"]: n["mtu"] for n in engine.networks()} == {
        n.name: n.mtu for n in new.networks}
