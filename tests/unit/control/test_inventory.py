# SPDX-License-Identifier: Apache-2.0
"""What a switch has, change by change, against the whole configuration compared each time."""

from hypothesis import given
from hypothesis import strategies as st

from byway.control.actions import Action, AddNetwork
from byway.control.diff import Change, diff
from byway.control.fitting import cross_check
from byway.control.inventory import Inventory
from byway.control.model import (
    Config,
    EntryConfig,
    GroupConfig,
    HostConfig,
    MirrorConfig,
    NetworkConfig,
    NullPort,
    PcapPort,
    RouterConfig,
    RuleConfig,
    StaticRoute,
    SwitchConfig,
    UnderlayConfig,
    VhostUserPort,
)
from byway.control.parts import Key, Kind, parts_of
from tests.unit.control.changing import changed
from tests.unit.control.fake_engine import FakeEngine

SWITCH = SwitchConfig(api="/run/api.sock")
UNDERLAY = UnderlayConfig(address="192.0.2.9", mtu=1550)
network_names = st.sampled_from(["blue", "red", "green"])
port_names = st.sampled_from(["a", "b", "c", "d"])
group_names = st.sampled_from(["web", "db"])
host_names = st.sampled_from(["h1", "h2"])
networks = st.builds(
    NetworkConfig, name=network_names, vni=st.sampled_from([None, 1, 2]),
    mtu=st.sampled_from([1500, 9000]), ageing=st.sampled_from([300, 10]),
    subnets=st.sampled_from([(), (), ("10.0.0.0/24", "10.1.0.0/24")]),
    gateway=st.sampled_from([(), ("10.0.0.1/24",), ("10.1.0.1/24",)]))
sockets = st.sampled_from(["/run/1.sock", "/run/2.sock", "/run/../run/1.sock", "/run/api.sock"])
policy = {"ips": st.sampled_from([(), ("10.0.0.2",), ("10.1.0.2",)]),
          "security_groups": st.sampled_from([(), ("web",), ("web", "db")]),
          "mirror": st.sampled_from([None, None, MirrorConfig(to="d")])}
ports = st.one_of(
    st.builds(lambda **keys: NullPort.model_validate(keys), name=st.sampled_from(["a", "b", "c"]),
              network=st.sampled_from(["blue", "red"]), kind=st.just("null"),
              vlans=st.sampled_from([{}, {}, {"7": "green"}]), **policy),
    st.builds(PcapPort, name=port_names, network=network_names, kind=st.just("pcap"),
              write=st.sampled_from(["/run/1.sock", "/tmp/a.pcap"])),
    st.builds(VhostUserPort, name=port_names, network=network_names, kind=st.just("vhost-user"),
              socket=sockets))
groups = st.builds(GroupConfig, name=group_names, rules=st.sampled_from([
    (), (RuleConfig(direction="egress"),),
    (RuleConfig(direction="ingress", remote_group="web"),)]))
hosts = st.builds(HostConfig, name=host_names, networks=st.sampled_from([(), ("blue",)]),
                  address=st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.9", "fd00::1"]))
entries = st.builds(EntryConfig, network=network_names, host=host_names,
                    mac=st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"]),
                    ips=st.sampled_from([(), ("10.0.0.1",), ("10.0.0.3",)]))
routers = st.builds(RouterConfig, name=st.sampled_from(["r", "s"]), networks=st.sampled_from(
    [("blue",), ("blue", "red")]), routes=st.sampled_from([(), (StaticRoute(
        to="default", via="10.1.0.9"),)]))
changes = st.builds(
    Change, add_networks=st.lists(networks, max_size=2, unique_by=lambda n: n.name),
    add_ports=st.lists(ports, max_size=3, unique_by=lambda p: p.name),
    add_hosts=st.lists(hosts, max_size=1), add_groups=st.lists(groups, max_size=1),
    add_entries=st.lists(entries, max_size=1), add_routers=st.lists(routers, max_size=1),
    remove_ports=st.lists(port_names, max_size=2),
    remove_networks=st.lists(network_names, max_size=1),
    remove_hosts=st.lists(host_names, max_size=1), remove_groups=st.lists(group_names, max_size=1),
    remove_entries=st.lists(st.just("blue/02:00:00:00:00:01"), max_size=1),
    remove_routers=st.lists(st.just("r"), max_size=1))


START = Config(
    switch=SWITCH, underlay=UNDERLAY,
    networks=(NetworkConfig(name="blue", vni=1, gateway=("10.0.0.1/24",)),
              NetworkConfig(name="red", vni=2, gateway=("10.1.0.1/24",)),
              NetworkConfig(name="green")),
    hosts=(HostConfig(name="h1", address="192.0.2.1", networks=("blue", "red")),),
    entries=(EntryConfig(network="blue", mac="02:00:00:00:00:01", host="h1"),),
    routers=(RouterConfig(name="r", networks=("blue", "red")),),
    groups=(GroupConfig(name="web"), GroupConfig(name="db")),
    ports=(NullPort.model_validate({
        "name": "a", "network": "blue", "kind": "null", "vlans": {"7": "green"},
        "security_groups": ["web"], "mirror": {"to": "d"}}),
        PcapPort(name="d", network="red", kind="pcap", write="/tmp/b.pcap")))


def of_each_type(actions: list[Action]) -> dict[type[Action], set[Action]]:
    """The actions by type; AssertionError where one is there twice."""
    found: dict[type[Action], set[Action]] = {}
    for action in actions:
        assert action not in found.setdefault(type(action), set()), "nothing twice"
        found[type(action)].add(action)
    return found


@given(steps=st.lists(changes, max_size=8))
def test_like_a_whole_configuration(steps: list[Change]) -> None:
    """What is found change by change is what is found by looking at everything; and an engine that
    minds the order can carry it out."""
    has, config, engine = Inventory(SWITCH), START, FakeEngine(SWITCH)
    start = diff(Config(switch=SWITCH), START)
    assert has.problems(start) == []
    engine.apply(start)
    has.commit(start)
    for change in steps:
        wanted = changed(config, change)
        actions = has.actions(change)
        assert of_each_type(actions) == of_each_type(diff(config, wanted))
        problems = has.problems(actions)
        whole = cross_check(wanted)
        assert bool(problems) == bool(whole)
        assert bool(has.orphans(change)) == any(
            "there is no" in p.problem and Key(*_missing(p.problem)) in parts_of(config)
            for p in whole)
        if not problems:
            engine.apply(actions)
            has.commit(actions)
            config = wanted
            assert parts_of(has.config()) == parts_of(config)
            assert engine.parts == parts_of(config)


def _missing(problem: str) -> tuple[Kind, str]:
    """'there is no security group "web"' -> ("group", "web")."""
    words, name = problem.removeprefix("there is no ").rstrip('"').split(' "')
    return {"security group": "group"}.get(words, words), name  # type: ignore[return-value]


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
