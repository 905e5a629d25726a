# SPDX-License-Identifier: Apache-2.0
"""Networks and endpoints: what becomes of them at the switch, in and out of order."""

from typing import Any

import pytest
import yaml

from tests.architecture.sources import ROOT
from tests.unit.docker.world import World, identity, subnet

NET, END = identity(1), identity(2)
GENERIC = "com.docker.network.generic"
MTU = "com.docker.network.driver.mtu"
V4 = [subnet("10.0.0.0/24", "10.0.0.1/24")]
V6 = [subnet("fd00::/64", "fd00::1/64")]
PORT = {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}


def create(world: World, number: int = 1, ipv4: Any = V4, ipv6: Any = (), internal: bool = False,
           **options: str) -> None:
    world.call("NetworkDriver.CreateNetwork", NetworkID=identity(number), IPv4Data=list(ipv4),
               IPv6Data=list(ipv6), Options={GENERIC: options,
                                             "com.docker.network.internal": internal})


def endpoint(world: World, number: int = 2, network: str = NET, **interface: str) -> Any:
    interface = interface or {"Address": f"10.0.0.{number}/24"}
    return world.call("NetworkDriver.CreateEndpoint", NetworkID=network,
                      EndpointID=identity(number), Interface=interface)


def join(world: World, number: int = 2, sandbox: str = "/sandbox/a", network: str = NET) -> Any:
    return world.call("NetworkDriver.Join", NetworkID=network, EndpointID=identity(number),
                      SandboxKey=sandbox, Options={})


def test_a_network_has_a_gateway(world: World) -> None:
    create(world, ipv6=V6)
    assert world.networks() == {"blue", "docker-000000000001"}
    assert set(world.ports()) == {"docker-000000000001-gw"}
    assert world.kernel.taps() == {"byg000000000001"}
    (port,) = [p for p in world.switch.wanted.config.ports if p.kind == "tap"]
    assert port.address == ("10.0.0.1/24", "fd00::1/64")
    assert world.outside.pools == {"10.0.0.0/24", "fd00::/64"}
    world.call("NetworkDriver.DeleteNetwork", NetworkID=NET)
    assert (world.ports(), world.kernel.taps(), world.outside.pools) == ({}, set(), set())
    assert "docker-000000000001" not in world.networks()


def test_an_internal_network_has_none(world: World) -> None:
    create(world, internal=True)
    assert (world.ports(), world.outside.pools) == ({}, set())
    endpoint(world)
    answer = join(world)
    assert (answer["Gateway"], answer["GatewayIPv6"]) == ("", "")
    assert answer["DisableGatewayService"] is True


def test_a_gateway_elsewhere_is_only_told(world: World) -> None:
    create(world, **{"byway.gateway": "elsewhere"})
    endpoint(world)
    assert join(world)["Gateway"] == "10.0.0.1"
    assert (set(world.ports()), world.outside.pools) == ({"docker-000000000002"}, set())
    assert "gateway at the host" in world.refusal(
        "NetworkDriver.ProgramExternalConnectivity", NetworkID=NET, EndpointID=END,
        Options={"com.docker.network.portmap": [PORT]})


def test_options_of_the_network(world: World) -> None:
    create(world, **{"byway.vni": "100", MTU: "9000"})
    (row,) = [n for n in world.switch.engine.networks() if n["name"] == "docker-000000000001"]
    assert (row["vni"], row["mtu"]) == (100, 9000)


def test_the_example_for_compose(world: World) -> None:
    text = (ROOT / "examples" / "docker-compose.yml").read_text()
    network = yaml.safe_load(text)["networks"]["blue"]
    assert {network["driver"], network["ipam"]["driver"]} == {"byway"}
    v4, v6 = (entry["subnet"] for entry in network["ipam"]["config"])
    create(world, ipv4=[subnet(v4, "10.10.0.1/24")], ipv6=[subnet(v6, "fd10::1/64")],
           **network["driver_opts"])
    (row,) = [n for n in world.switch.engine.networks() if n["name"] == "docker-000000000001"]
    assert (row["vni"], row["mtu"]) == (100, 9000)


@pytest.mark.parametrize(("options", "word"), [
    ({"byway.vni": "0"}, "1 to 16777215"), ({"byway.vni": "²"}, "byway.vni"),
    ({MTU: "20000"}, "68 to 9216"), ({MTU: "many"}, "68 to 9216"),
    ({"byway.gateway": "there"}, "host or elsewhere"), ({"byway.nvi": "7"}, "no such option"),
    ({"parent": "eth0"}, "no such option"),
    ({"byway.network": "blue", "byway.vni": "7"}, "leave one"),
    ({"byway.network": "red"}, 'no network "red"'),
    ({"byway.network": "blue", MTU: "1400"}, "mtu of 1500"),
])
def test_wrong_options_are_refused(world: World, options: dict[str, str], word: str) -> None:
    before = world.networks()
    assert word in world.refusal(
        "NetworkDriver.CreateNetwork", NetworkID=NET, IPv4Data=V4, Options={GENERIC: options})
    assert (world.networks(), world.state.networks()) == (before, [])


@pytest.mark.parametrize("body", [
    {}, {"NetworkID": None}, {"NetworkID": 7}, {"NetworkID": ""}, {"NetworkID": "../../etc/pass"},
    {"NetworkID": "x" * 129}, {"NetworkID": NET, "IPv4Data": 7},
    {"NetworkID": NET, "IPv4Data": ["10.0.0.0/24"]}, {"NetworkID": NET, "Options": []},
    {"NetworkID": NET, "IPv4Data": [subnet("10.0.0.1/24", "")]},
    {"NetworkID": NET, "IPv4Data": [subnet("fd00::/64", "")]},
    {"NetworkID": NET, "IPv4Data": [subnet("10.0.0.0/24", "10.0.0.1")]},
    {"NetworkID": NET, "IPv6Data": [subnet("fd00::/64", "10.0.0.1/24")]},
    {"NetworkID": NET, "IPv4Data": [{}]}, {"NetworkID": NET, "Options": {GENERIC: "x"}},
    {"NetworkID": NET, "Options": {GENERIC: {"byway.vni": 7}}},
])
def test_wrong_networks_are_refused(world: World, body: dict[str, Any]) -> None:
    assert ";" in world.refusal("NetworkDriver.CreateNetwork", **body)
    assert world.state.networks() == []


def test_a_network_of_the_switch_is_joined_and_stays(world: World) -> None:
    create(world, **{"byway.network": "blue"})
    endpoint(world)
    join(world)
    assert {p["network"] for p in world.ports().values()} == {"blue"}
    world.call("NetworkDriver.DeleteNetwork", NetworkID=NET)
    assert world.ports() == {}
    assert "blue" in world.networks()


def test_the_same_network_again_changes_nothing(world: World) -> None:
    create(world)
    before = world.switch.engine.networks()
    create(world)
    assert world.switch.engine.networks() == before
    assert "another one" in world.refusal(
        "NetworkDriver.CreateNetwork", NetworkID=NET, IPv4Data=V4,
        Options={GENERIC: {"byway.vni": "5"}})
    assert set(world.ports()) == {"docker-000000000001-gw"}


def test_overlapping_pools_are_refused(world: World) -> None:
    create(world)
    for pool in ("10.0.0.0/16", "10.0.0.128/25", "10.0.0.0/24"):
        assert "overlaps" in world.refusal(
            "NetworkDriver.CreateNetwork", NetworkID=identity(9), IPv4Data=[subnet(pool, "")])
    create(world, 9, ipv4=[subnet("10.0.0.0/24", "", space="another")])
    assert len(world.state.networks()) == 2


def test_ids_that_begin_alike_are_refused(world: World) -> None:
    create(world)
    assert "begin alike" in world.refusal(
        "NetworkDriver.CreateNetwork", NetworkID=NET[:12] + "cd" * 26, IPv4Data=[])


def test_a_refused_network_leaves_nothing(world: World) -> None:
    world.switch.engine.refuse.add("docker-000000000001-gw")
    assert "cannot be opened" in world.refusal(
        "NetworkDriver.CreateNetwork", NetworkID=NET, IPv4Data=V4)
    assert (world.state.networks(), world.state.left_overs()) == ([], [])
    assert "docker-000000000001" not in world.networks()


def test_the_interface_of_a_container(world: World) -> None:
    create(world, ipv6=V6)
    assert endpoint(world) == {"Interface": {"MacAddress": world.state.endpoints()[0].mac}}
    assert set(world.ports()) == {"docker-000000000001-gw"}
    answer = join(world)
    assert answer == {
        "InterfaceName": {"SrcName": "byd000000000002", "DstPrefix": "eth"},
        "Gateway": "10.0.0.1", "GatewayIPv6": "fd00::1", "StaticRoutes": [],
        "DisableGatewayService": True,
    }
    assert world.kernel.places["host"]["byd000000000002"].persistent
    assert world.call("NetworkDriver.EndpointOperInfo", NetworkID=NET, EndpointID=END) == {
        "Value": {"byway.network": "docker-000000000001", "byway.port": "docker-000000000002"}}
    world.move("byd000000000002", "/sandbox/a")
    assert join(world) == answer  # Docker did not hear the first time
    assert "byd000000000002" not in world.kernel.taps()
    world.call("NetworkDriver.Leave", NetworkID=NET, EndpointID=END)
    world.move_back("/sandbox/a", "eth0", "byd000000000002")
    world.call("NetworkDriver.DeleteEndpoint", NetworkID=NET, EndpointID=END)
    assert set(world.ports()) == {"docker-000000000001-gw"}
    assert world.kernel.taps() == {"byg000000000001"}
    assert (world.state.endpoints(), world.state.left_overs()) == ([], [])


def test_a_given_mac_address_is_not_answered(world: World) -> None:
    create(world)
    mac = "02:42:0A:00:00:05"
    assert endpoint(world, MacAddress=mac, Address="10.0.0.5/24") == {"Interface": {}}
    join(world)
    assert world.ports()["docker-000000000002"]["mac"] == mac.lower()
    assert "--mac-address" in world.refusal(
        "NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=identity(3),
        Interface={"MacAddress": mac})
    assert "--ip" in world.refusal(
        "NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=identity(3),
        Interface={"Address": "10.0.0.5/24"})


@pytest.mark.parametrize("interface", [
    {"MacAddress": "01:00:00:00:00:01"}, {"MacAddress": "02:00:00:00:01"}, {"MacAddress": 7},
    {"Address": "10.0.0.2"}, {"Address": "fd00::2/64"}, {"AddressIPv6": "10.0.0.2/24"},
    {"Address": "10.0.0.2/33"}, [], 7,
])
def test_wrong_interfaces_are_refused(world: World, interface: Any) -> None:
    create(world)
    assert ";" in world.refusal("NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=END,
                                Interface=interface or [1])
    assert world.state.endpoints() == []


def test_the_same_endpoint_again_is_the_same(world: World) -> None:
    create(world)
    first = endpoint(world)
    join(world)
    assert endpoint(world) == first
    assert world.state.endpoints()[0].sandbox == "/sandbox/a"
    assert "another one" in world.refusal(
        "NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=END,
        Interface={"Address": "10.0.0.77/24"})


def test_what_nobody_knows_can_be_left_and_deleted(world: World) -> None:
    for method in ("Leave", "DeleteEndpoint", "RevokeExternalConnectivity", "DeleteNetwork"):
        assert world.call(f"NetworkDriver.{method}", NetworkID=NET, EndpointID=END) == {}


def test_what_nobody_knows_cannot_be_used(world: World) -> None:
    known = {"NetworkID": NET, "EndpointID": END, "SandboxKey": "/sandbox/a"}
    for method in ("CreateEndpoint", "Join", "EndpointOperInfo", "ProgramExternalConnectivity"):
        assert f"there is no network {NET}" in world.refusal(f"NetworkDriver.{method}", **known)
    create(world)
    for method in ("Join", "EndpointOperInfo", "ProgramExternalConnectivity"):
        assert f"there is no endpoint {END}" in world.refusal(f"NetworkDriver.{method}", **known)
    create(world, 5, ipv4=[])
    endpoint(world)
    assert "no endpoint" in world.refusal(
        "NetworkDriver.Join", NetworkID=identity(5), EndpointID=END, SandboxKey="/sandbox/a")


@pytest.mark.parametrize("sandbox", [None, "", "relative", 7, "/a\0b"])
def test_a_sandbox_is_a_path(world: World, sandbox: Any) -> None:
    create(world)
    endpoint(world)
    assert "SandboxKey" in world.refusal(
        "NetworkDriver.Join", NetworkID=NET, EndpointID=END, SandboxKey=sandbox)


def test_one_sandbox_at_a_time(world: World) -> None:
    create(world)
    endpoint(world)
    join(world)
    world.move("byd000000000002", "/sandbox/a")
    assert "leave that one first" in world.refusal(
        "NetworkDriver.Join", NetworkID=NET, EndpointID=END, SandboxKey="/sandbox/b")
    world.end_sandbox("/sandbox/a")  # the container died, and its tap with it
    join(world, sandbox="/sandbox/b")
    assert "byd000000000002" in world.kernel.taps()


def test_a_refused_join_leaves_no_sandbox(world: World) -> None:
    create(world)
    endpoint(world)
    world.switch.engine.refuse.add("docker-000000000002")
    assert "cannot be opened" in world.refusal(
        "NetworkDriver.Join", NetworkID=NET, EndpointID=END, SandboxKey="/sandbox/a")
    assert world.state.endpoints()[0].sandbox == ""


def test_a_network_that_goes_takes_its_endpoints_along(world: World) -> None:
    create(world)
    endpoint(world)
    join(world)
    world.call("NetworkDriver.DeleteNetwork", NetworkID=NET)
    assert (world.ports(), world.kernel.taps(), world.state.endpoints()) == ({}, set(), [])


def program(world: World, number: int, *ports: Any) -> Any:
    return world.call("NetworkDriver.ProgramExternalConnectivity", NetworkID=NET,
                      EndpointID=identity(number),
                      Options={"com.docker.network.portmap": list(ports)})


def test_published_ports(world: World) -> None:
    create(world, ipv6=V6)
    endpoint(world, Address="10.0.0.2/24", AddressIPv6="fd00::2/64")
    endpoint(world, 3, Address="10.0.0.3/24")
    program(world, 2, PORT, {**PORT, "Proto": 17, "HostIP": "0.0.0.0"})
    assert world.outside.ports == {
        "tcp *:8080 -> 10.0.0.2:80", "tcp *:8080 -> [fd00::2]:80",
        "udp 0.0.0.0:8080 -> 10.0.0.2:80"}
    for taken in (PORT, {**PORT, "HostIP": "10.9.9.9"}, {**PORT, "HostIP": "0.0.0.0"}):
        assert "leads to another container" in world.refusal(
            "NetworkDriver.ProgramExternalConnectivity", NetworkID=NET, EndpointID=identity(3),
            Options={"com.docker.network.portmap": [taken]})
    program(world, 3, {**PORT, "HostPort": 8081, "HostPortEnd": 0})
    world.call("NetworkDriver.RevokeExternalConnectivity", NetworkID=NET, EndpointID=END)
    assert world.outside.ports == {"tcp *:8081 -> 10.0.0.3:80"}
    world.call("NetworkDriver.Leave", NetworkID=NET, EndpointID=identity(3))
    assert world.outside.ports == set()


@pytest.mark.parametrize(("port", "word"), [
    ({**PORT, "HostPort": 0}, "--publish HOSTPORT:80/tcp"),
    ({**PORT, "HostPortEnd": 8090}, "--publish HOSTPORT:80/tcp"),
    ({**PORT, "Proto": 1}, "tcp, udp or sctp"), ({**PORT, "Proto": "tcp"}, "tcp, udp or sctp"),
    ({**PORT, "Port": 0}, "1 to 65535"), ({**PORT, "Port": 70000}, "port number"),
    ({**PORT, "HostPort": "80"}, "port number"), ({**PORT, "HostIP": "here"}, "IP address"),
    ({**PORT, "HostIP": "::"}, "no address of that family"),
])
def test_what_cannot_be_published(world: World, port: Any, word: str) -> None:
    create(world)
    endpoint(world)
    assert word in world.refusal(
        "NetworkDriver.ProgramExternalConnectivity", NetworkID=NET, EndpointID=END,
        Options={"com.docker.network.portmap": [port]})
    assert (world.outside.ports, world.state.endpoints()[0].published) == (set(), ())
