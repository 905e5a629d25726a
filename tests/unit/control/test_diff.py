# SPDX-License-Identifier: Apache-2.0
"""The differences between two wanted states: order, replacement, reload."""

from hypothesis import given
from hypothesis import strategies as st

from byway.control.actions import AddNetwork, AddPort, RemoveNetwork, RemovePort
from byway.control.diff import diff, needs_restart, rebase
from byway.control.model import Config, NetworkConfig, NullPort, SwitchConfig
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
