# SPDX-License-Identifier: Apache-2.0
"""The commands about hosts, population, security groups, routers and the cluster."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from byway.cli.main import app
from byway.control.model import GroupConfig, LimitConfig, MirrorConfig, NullPort, UnderlayConfig
from tests.unit.control.fake_switch import FakeSwitch

Byway = Callable[..., Result]
MAC = "02:00:00:00:00:07"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSwitch]:
    switch = FakeSwitch(tmp_path_factory.mktemp("switch") / "api.sock")
    yield switch
    switch.close()


@pytest.fixture
def switch(shared: FakeSwitch) -> FakeSwitch:
    """With an underlay, and a network "red" that spans hosts."""
    shared.renew()
    underlay = UnderlayConfig(address="192.0.2.1", mtu=1550)
    shared.wanted.change(shared.wanted.config.model_copy(update={"underlay": underlay}))
    return shared


@pytest.fixture
def byway(switch: FakeSwitch) -> Byway:
    """Runs a command with $BYWAY_API set to the switch; it has to end with `status`."""

    def run(*words: str, status: int = 0) -> Result:
        done = CliRunner().invoke(
            app, words, env={"BYWAY_API": switch.path}, catch_exceptions=False)
        assert done.exit_code == status, done.stderr
        return done

    return run


def test_hosts_and_population(byway: Byway) -> None:
    assert byway("network", "create", "red", "--vni", "7").stdout == "network red is there, vni 7\n"
    assert byway("host", "add", "h2", "--address", "192.0.2.2", "--network", "red").stdout \
        == "host h2 is at 192.0.2.2\n"
    assert byway("host", "list").stdout.splitlines() == [
        "NAME  ADDRESS    RX FRAMES  TX FRAMES  DROPS  NETWORKS",
        "h2    192.0.2.2          0          0      0  red"]
    done = byway("population", "add", MAC.upper(), "--network", "red", "--host", "h2",
                 "--ip", "10.0.0.7", "--ip", "fd00:0::7")
    assert done.stdout == f"{MAC} of network red is behind host h2\n"
    assert byway("population", "list", "--network", "red").stdout.splitlines() == [
        "NETWORK  MAC                HOST  PORT  IPS",
        f"red      {MAC}  h2    -     10.0.0.7 fd00::7"]
    assert [e["mac"] for e in json.loads(byway("population", "list", "--json").stdout)] == [MAC]
    assert "has entries: red/02:00:00:00:00:07; change or remove the entries first" in byway(
        "host", "remove", "h2", status=1).stderr
    byway("population", "remove", MAC.upper(), "--network", "red")
    byway("host", "remove", "h2")
    assert json.loads(byway("host", "list", "--json").stdout) == []


def test_the_underlay(byway: Byway, switch: FakeSwitch) -> None:
    switch.engine.counters["underlay"] = {"drops": {"bad_tunnel": 2, "of_a_newer_switch": 1}}
    lines = byway("underlay", "show").stdout.splitlines()
    assert lines[:7] == [
        "address   192.0.2.1", "port      4789", "mtu       1550", "uplink    -", "state     up",
        "reason    -", "rx        0 frames, 0 bytes"]
    assert lines[8] == "drops     3"
    assert lines[9].startswith("  bad_tunnel  2  ")
    assert lines[10] == "  of_a_newer_switch  1"
    assert json.loads(byway("underlay", "show", "--json").stdout)["state"] == "up"


def test_a_network_with_all_it_may_have(byway: Byway, switch: FakeSwitch) -> None:
    byway("network", "add", "red", "--vni", "7", "--subnet", "10.0.0.0/24", "--gateway",
          "10.0.0.1/24", "--gateway-mac", "02:00:00:00:00:ff", "--unknown", "drop",
          "--no-learning", "--responder")
    red = switch.wanted.has.networks["red"]
    assert (red.subnets, red.gateway, red.gateway_mac, red.unknown, red.learning, red.responder) \
        == (("10.0.0.0/24",), ("10.0.0.1/24",), "02:00:00:00:00:ff", "drop", False, True)
    assert red.mtu == 1500  # 1550 - 50
    assert "vni" in byway("network", "add", "red", "--vni", "many", status=2).stderr


def test_security_groups(byway: Byway, switch: FakeSwitch) -> None:
    done = byway("security-group", "add", "web", "--rule", "ingress,protocol=tcp,ports=80-81",
                 "--rule", "egress,protocol=icmp,icmp_type=8", "--rule", "ingress,remote_group=web")
    assert done.stdout == "security group web has 3 rules\n"
    byway("port", "add", "c1", "--network", "blue", "--kind", "null", "--security-group", "web")
    assert byway("security-group", "list").stdout.splitlines() == [
        "NAME  RULES  PORTS", "web       3      1"]
    assert byway("security-group", "show", "web").stdout.splitlines() == [
        "name   web", "ports  c1", "rules",
        "  ingress,protocol=tcp,ports=80-81",
        "  egress,protocol=icmp,icmp_type=8",
        "  ingress,remote_group=web"]
    assert json.loads(byway("security-group", "show", "web", "--json").stdout)["ports"] == ["c1"]
    applied = len(switch.engine.applied)
    byway("security-group", "add", "web", "--json")
    (actions,) = switch.engine.applied[applied:]
    assert len(actions) == 1, "no port is touched"
    assert switch.wanted.has.parts.all("group") == {"web": GroupConfig(name="web")}
    assert "has ports: c1" in byway("security-group", "remove", "web", status=1).stderr
    assert "rules[1].ports: \"x\" is no range" in byway(
        "security-group", "add", "web", "--rule", "ingress,protocol=tcp,ports=x", status=2).stderr
    byway("security-group", "add", "web", "--rule", "ingress,tcp", status=2)


def test_routers(byway: Byway) -> None:
    byway("network", "add", "red", "--gateway", "10.1.0.1/24")
    assert 'network "blue" has no gateway; give it' in byway(
        "router", "add", "r", "--network", "red", "--network", "blue", status=2).stderr
    byway("network", "add", "blue", "--gateway", "10.0.0.1/24")
    done = byway("router", "add", "r", "--network", "red", "--network", "blue",
                 "--route", "default=10.0.0.9")
    assert done.stdout == "router r joins red, blue\n"
    assert byway("router", "list").stdout.splitlines() == [
        "NAME  NETWORKS  ROUTES", "r     red blue  default=10.0.0.9"]
    byway("router", "remove", "r")
    assert json.loads(byway("router", "list", "--json").stdout) == []


def test_services(byway: Byway) -> None:
    assert 'there is no port "l"' in byway(
        "service", "add", "fw", "--appliance", "l=r", status=2).stderr
    for name in ("l", "r"):
        byway("port", "add", name, "--network", "blue", "--kind", "null")
    done = byway("service", "add", "fw", "--appliance", "l=r", "--down", "bypass")
    assert done.stdout == "service fw is done by 1 appliances\n"
    assert byway("service", "list").stdout.splitlines() == [
        "NAME  APPLIANCES  UP  DOWN    SPREAD  BYPASSED  BLOCKED",
        "fw    1           1   bypass  flow    0         0"]
    assert byway("service", "show", "fw").stdout.splitlines() == [
        "LEFT  RIGHT  STATE  SLOTS  REASON", "l     r      up     256    -"]
    byway("port", "add", "c9", "--network", "blue", "--kind", "null", "--mac",
          "02:00:00:00:00:09", "--service", "fw")
    assert 'has ports: c9' in byway("service", "remove", "fw", status=1).stderr
    byway("port", "remove", "c9")
    byway("service", "remove", "fw")
    assert json.loads(byway("service", "list", "--json").stdout) == []
    byway("service", "show", "fw", status=1)


def test_a_port_with_all_it_may_have(byway: Byway, switch: FakeSwitch) -> None:
    byway("network", "add", "red")
    byway("port", "add", "c1", "--network", "blue", "--kind", "null", "--mac", MAC,
          "--ip", "10.0.0.7", "--port-security", "--allowed-address-pair", "10.9.0.0/16",
          "--allowed-address-pair", "02:00:00:00:00:08,10.0.0.8", "--trusted", "ra",
          "--limit", "rx_bits=1000000", "--limit", "burst=50", "--vlan", "10=red",
          "--mirror", "vm1:rx")
    port = switch.wanted.has.ports["c1"]
    assert isinstance(port, NullPort)
    assert [(pair.mac, pair.ip) for pair in port.allowed_address_pairs] == [
        (None, "10.9.0.0/16"), ("02:00:00:00:00:08", "10.0.0.8/32")]
    assert (port.ips, port.port_security, port.trusted, port.vlans) == (
        ("10.0.0.7",), True, ("ra",), ((10, "red"),))
    assert port.limit == LimitConfig(rx_bits=1_000_000, burst=50)
    assert port.mirror == MirrorConfig(to="vm1", direction="rx")
    byway("port", "add", "c2", "--network", "blue", "--vlan", "10=red", "--vlan", "10=blue",
          status=2)
    byway("port", "add", "c2", "--network", "blue", "--limit", "rx_bits", status=2)
    assert "limit.rx_bits" in byway("port", "add", "c2", "--network", "blue", "--kind", "null",
                                    "--limit", "rx_bits=much", status=2).stderr


def test_connections(byway: Byway, switch: FakeSwitch) -> None:
    switch.engine.tracked = [{
        "port": "vm1", "direction": "ingress", "protocol": protocol, "source": "10.0.0.9:4000",
        "destination": "10.0.0.1:80", "state": "established", "idle": 1.4, "left": 299.0,
    } for protocol in (6, 132)]
    assert byway("connection", "list", "--port", "vm1").stdout.splitlines() == [
        "PORT  DIRECTION  PROTOCOL  SOURCE         DESTINATION  STATE        IDLE (S)  LEFT (S)",
        "vm1   ingress    tcp       10.0.0.9:4000  10.0.0.1:80  established         1       299",
        "vm1   ingress    132       10.0.0.9:4000  10.0.0.1:80  established         1       299"]
    assert len(json.loads(byway("connection", "list", "--limit", "1", "--json").stdout)) == 1
    assert 'there is no port "vm9"' in byway("connection", "list", "--port", "vm9", status=1).stderr


def test_without_a_cluster(byway: Byway) -> None:
    assert "the switch is in no cluster; add [cluster]" in byway(
        "cluster", "status", status=1).stderr
    assert "only a cluster knows" in byway(
        "network", "create", "red", "--vni", "auto", status=2).stderr


def test_in_a_cluster(byway: Byway, switch: FakeSwitch) -> None:
    switch.in_cluster = True
    assert byway("cluster", "status").stdout.splitlines() == [
        "etcd       127.0.0.1:2379", "host       h1", "connected  yes", "synced     yes",
        "counts     hosts 1, entries 0", "lag        -", "members",
        "  HOST  ADDRESS    NETWORKS", "  h2    192.0.2.2  blue red"]
    done = byway("network", "create", "red", "--vni", "auto", "--subnet", "10.0.0.0/24")
    assert done.stdout == "network red is there, vni 1\n"
    assert switch.cluster.networks["red"]["subnets"] == ["10.0.0.0/24"]
    done = byway("port", "add", "c1", "--network", "red", "--kind", "null", "--ip", "auto",
                 "--host", "h2")
    assert done.stdout == "port c1 is for host h2, 10.0.0.2\n"
    byway("port", "remove", "c1", "--host", "h2")
    byway("network", "remove", "red", "--cluster")
    assert (switch.cluster.networks, switch.cluster.ports) == ({}, {})
    switch.cluster.lost = True
    assert byway("cluster", "status", status=1).stdout.splitlines()[-2:] == [
        "problems", '  network "x" is ignored: it has no name']
    assert json.loads(byway("cluster", "status", "--json", status=1).stdout)["host"] == "h1"
    assert byway("network", "create", "red", status=1).stderr \
        == "byway: the cluster does not answer; see whether etcd runs\n"


def test_run_with_a_cluster_that_is_none(byway: Byway, tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('[[network]]\nname = "blue"\n')
    assert '--cluster: "http://x:1" is no address of an etcd; write it as in etcd://' in byway(
        "run", "--cluster", "http://x:1", str(tmp_path / "lab.toml"), status=2).stderr
    assert "cluster: there is no [underlay] that tunnels could take" in byway(
        "run", "--cluster", "etcd://x:1", str(tmp_path / "lab.toml"), status=2).stderr
