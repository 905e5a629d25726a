# SPDX-License-Identifier: Apache-2.0
"""What a switch has, change by change, against the whole configuration compared each time."""

from hypothesis import given
from hypothesis import strategies as st

from byway.control.actions import Action, AddNetwork, AddPort, RemoveNetwork, RemovePort
from byway.control.diff import Change, diff
from byway.control.fitting import cross_check
from byway.control.inventory import Inventory
from byway.control.model import (
    Config,
    NetworkConfig,
    NullPort,
    PcapPort,
    SwitchConfig,
    VhostUserPort,
)
from tests.unit.control.changing import changed

SWITCH = SwitchConfig(api="/run/api.sock")
network_names = st.sampled_from(["blue", "red", "green"])
port_names = st.sampled_from(["a", "b", "c", "d"])
networks = st.builds(NetworkConfig, name=network_names, vni=st.sampled_from([None, 1, 2]),
                     mtu=st.sampled_from([1500, 9000]))
sockets = st.sampled_from(["/run/1.sock", "/run/2.sock", "/run/../run/1.sock", "/run/api.sock"])
ports = st.one_of(
    st.builds(NullPort, name=port_names, network=network_names, kind=st.just("null")),
    st.builds(PcapPort, name=port_names, network=network_names, kind=st.just("pcap"),
              write=st.sampled_from(["/run/1.sock", "/tmp/a.pcap"])),
    st.builds(VhostUserPort, name=port_names, network=network_names, kind=st.just("vhost-user"),
              socket=sockets))
changes = st.builds(
    Change, st.lists(networks, max_size=2, unique_by=lambda n: n.name),
    st.lists(ports, max_size=3, unique_by=lambda p: p.name), st.lists(port_names, max_size=2),
    st.lists(network_names, max_size=1))


def by_kind(actions: list[Action]) -> list[set[Action]]:
    """The actions of each kind; AssertionError where they are not in the order that diff has."""
    order = [RemovePort, RemoveNetwork, AddNetwork, AddPort]
    places = [order.index(type(action)) for action in actions]
    assert places == sorted(places)
    found = [{a for a in actions if isinstance(a, kind)} for kind in order]
    assert sum(map(len, found)) == len(actions), "nothing twice"
    return found


@given(steps=st.lists(changes, max_size=8))
def test_like_a_whole_configuration(steps: list[Change]) -> None:
    has, config = Inventory(SWITCH), Config(switch=SWITCH)
    for change in steps:
        wanted = changed(config, change)
        actions = has.actions(change)
        assert by_kind(actions) == by_kind(diff(config, wanted))
        gone = set(change.remove_networks) - {n.name for n in change.add_networks}
        orphans = {p.name for p in wanted.ports if p.network in gone & {
            n.name for n in config.networks}}
        assert {user.name for users in has.orphans(change).values() for user in users} == orphans
        problems = has.problems(actions)
        assert bool(problems) == bool(cross_check(wanted))
        assert {p.key for p in problems} <= {p.key for p in cross_check(wanted)} | {
            f'port "{p.name}": {key}' for p in change.add_ports for key in ("socket", "write")} | {
            f'network "{n.name}": vni' for n in change.add_networks}
        if not problems:
            has.commit(actions)
            config = wanted
            now = has.config()
            assert {n.name: n for n in now.networks} == {n.name: n for n in config.networks}
            assert {p.name: p for p in now.ports} == {p.name: p for p in config.ports}


def test_whose_it_is_already() -> None:
    has = Inventory(SWITCH)
    has.commit([AddNetwork(NetworkConfig(name="blue", vni=7))])
    actions = has.actions(Change(add_networks=[NetworkConfig(name="red", vni=7)]))
    (problem,) = has.problems(actions)
    assert str(problem) == ('network "red": vni: 7 is also that of network "blue": vni;'
                            " give it another vni")


def test_a_network_that_is_not_there() -> None:
    has = Inventory(SWITCH)
    has.commit([AddNetwork(NetworkConfig(name="blue"))])
    port = NullPort(name="a", network="bleu", kind="null")
    (problem,) = has.problems(has.actions(Change(add_ports=[port])))
    assert str(problem) == ('port "a": network: there is no network "bleu";'
                            ' did you mean "blue"?')
