# SPDX-License-Identifier: Apache-2.0
"""Pools and addresses as Docker asks for them: chosen, named, repeated, given back."""

import ipaddress
from typing import Any

import pytest

from byway_docker.ipam_driver import LOCAL, REPEATS
from tests.unit.docker.test_network_driver import END, NET, create, join
from tests.unit.docker.world import World

MAC = "02:42:0a:00:00:05"
GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}


def pool(world: World, prefix: str = "", v6: bool = False, part: str = "") -> Any:
    return world.call("IpamDriver.RequestPool", AddressSpace=LOCAL, Pool=prefix, SubPool=part,
                      Options=None, V6=v6)


def address(world: World, prefix: str, mac: str = "", wanted: str = "", **options: str) -> str:
    if mac:
        options["com.docker.network.endpoint.macaddress"] = mac
    answer = world.call("IpamDriver.RequestAddress", PoolID=f"{LOCAL}/{prefix}", Address=wanted,
                        Options=options)
    assert answer["Data"] == {}
    return str(answer["Address"])


def release(world: World, prefix: str, given: str) -> None:
    world.call("IpamDriver.ReleaseAddress", PoolID=f"{LOCAL}/{prefix}", Address=given)


def test_pools_that_nobody_named_differ(world: World) -> None:
    chosen = [ipaddress.ip_network(pool(world)["Pool"]) for _ in range(5)]
    chosen += [ipaddress.ip_network(pool(world, v6=True)["Pool"]) for _ in range(2)]
    assert [network.version for network in chosen] == [4] * 5 + [6] * 2
    assert not any(a.overlaps(b) for a in chosen for b in chosen
                   if a is not b and a.version == b.version)


def test_choosing_ends_with_an_error(world: World) -> None:
    pool(world, "10.0.0.0/8")
    pool(world, "172.16.0.0/12")
    assert "no IPv4 pool is left" in world.refusal("IpamDriver.RequestPool", AddressSpace=LOCAL)


def test_overlapping_pools_are_refused(world: World) -> None:
    assert pool(world, "10.0.0.0/24") == {
        "PoolID": f"{LOCAL}/10.0.0.0/24", "Pool": "10.0.0.0/24", "Data": {}}
    for prefix in ("10.0.0.0/24", "10.0.0.0/16", "10.0.0.64/26"):
        assert "overlaps" in world.refusal(
            "IpamDriver.RequestPool", AddressSpace=LOCAL, Pool=prefix)


@pytest.mark.parametrize("body", [
    {}, {"AddressSpace": LOCAL, "Pool": "10.0.0.1/24"}, {"AddressSpace": LOCAL, "Pool": "x"},
    {"AddressSpace": LOCAL, "SubPool": "10.0.0.0/25"}, {"AddressSpace": 7},
    {"AddressSpace": LOCAL, "Pool": "10.0.0.0/24", "SubPool": "10.1.0.0/25"},
    {"AddressSpace": LOCAL, "Pool": "10.0.0.0/24", "V6": True},
])
def test_wrong_pools_are_refused(world: World, body: dict[str, Any]) -> None:
    assert ";" in world.refusal("IpamDriver.RequestPool", **body)


def test_addresses_come_with_their_prefix_length(world: World) -> None:
    pool(world, "10.0.0.0/29")
    assert address(world, "10.0.0.0/29", **GATEWAY) == "10.0.0.1/29"
    assert address(world, "10.0.0.0/29", wanted="10.0.0.2") == "10.0.0.2/29"  # auxiliary
    given = [address(world, "10.0.0.0/29", f"02:00:00:00:00:0{n}") for n in range(1, 5)]
    assert given == [f"10.0.0.{n}/29" for n in range(3, 7)]
    assert "no address left" in world.refusal(
        "IpamDriver.RequestAddress", PoolID=f"{LOCAL}/10.0.0.0/29")
    release(world, "10.0.0.0/29", "10.0.0.4")
    release(world, "10.0.0.0/29", "10.0.0.4")
    assert address(world, "10.0.0.0/29") == "10.0.0.4/29"


def test_an_address_that_is_asked_for_by_name(world: World) -> None:
    pool(world, "10.0.0.0/24")
    assert address(world, "10.0.0.0/24", MAC, "10.0.0.77") == "10.0.0.77/24"
    for wanted in ("10.0.0.77", "10.0.1.1", "10.0.0.255", "here"):
        assert ";" in world.refusal(
            "IpamDriver.RequestAddress", PoolID=f"{LOCAL}/10.0.0.0/24", Address=wanted)


def test_the_gateway_is_asked_for_once(world: World) -> None:
    pool(world, "10.0.0.0/24")
    assert address(world, "10.0.0.0/24", wanted="10.0.0.254", **GATEWAY) == "10.0.0.254/24"
    assert "its gateway already" in world.refusal(
        "IpamDriver.RequestAddress", PoolID=f"{LOCAL}/10.0.0.0/24", Options=GATEWAY)


def test_what_does_not_exist_can_be_released(world: World) -> None:
    release(world, "10.0.0.0/24", "10.0.0.1")
    assert world.call("IpamDriver.ReleasePool", PoolID=f"{LOCAL}/10.0.0.0/24") == {}
    assert world.call("IpamDriver.ReleasePool") == {}


@pytest.mark.parametrize("given", ["", None, "here", 7, "10.0.0.300"])
def test_only_addresses_are_released(world: World, given: Any) -> None:
    create(world)
    world.call("NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=END, Interface={})
    assert "Address" in world.refusal("IpamDriver.ReleaseAddress",
                                      PoolID=f"{LOCAL}/10.0.0.0/24", Address=given)
    assert len(world.state.endpoints()) == 1


def test_no_second_address_for_one_mac_address(world: World) -> None:
    pool(world, "10.0.0.0/24")
    assert address(world, "10.0.0.0/24", MAC) == "10.0.0.1/24"
    assert f"MAC address {MAC} has 10.0.0.1/24" in world.refusal(
        "IpamDriver.RequestAddress", PoolID=f"{LOCAL}/10.0.0.0/24",
        Options={"com.docker.network.endpoint.macaddress": MAC})


def test_a_request_that_was_not_heard_gets_the_same_answer(world: World) -> None:
    first = pool(world, "10.0.0.0/24")
    world.kill_plugin()
    world.start_plugin()
    assert pool(world, "10.0.0.0/24") == first
    gateway = address(world, "10.0.0.0/24", **GATEWAY)
    world.kill_plugin()
    world.start_plugin()
    assert address(world, "10.0.0.0/24", **GATEWAY) == gateway
    given = address(world, "10.0.0.0/24", MAC)
    world.kill_plugin()
    world.start_plugin()
    assert address(world, "10.0.0.0/24", MAC) == given
    assert "another container" in world.refusal(  # once
        "IpamDriver.RequestAddress", PoolID=f"{LOCAL}/10.0.0.0/24",
        Options={"com.docker.network.endpoint.macaddress": MAC})
    assert "overlaps" in world.refusal("IpamDriver.RequestPool", AddressSpace=LOCAL,
                                       Pool="10.0.0.0/24")  # it is in use now


def test_a_request_long_after_is_another_one(world: World) -> None:
    pool(world, "10.0.0.0/24")
    address(world, "10.0.0.0/24", MAC)
    world.kill_plugin()
    world.start_plugin()
    world.now += REPEATS
    assert "another container" in world.refusal(
        "IpamDriver.RequestAddress", PoolID=f"{LOCAL}/10.0.0.0/24",
        Options={"com.docker.network.endpoint.macaddress": MAC})


def test_a_running_containers_address_is_not_released(world: World) -> None:
    pool(world, "10.0.0.0/24")
    create(world)
    given = address(world, "10.0.0.0/24", MAC)
    world.call("NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=END,
               Interface={"Address": given, "MacAddress": MAC})
    join(world)
    world.move("byd000000000002", "/sandbox/a")
    release(world, "10.0.0.0/24", given.partition("/")[0])
    assert ";" in world.refusal("IpamDriver.RequestAddress", PoolID=f"{LOCAL}/10.0.0.0/24",
                                Address=given.partition("/")[0])
    world.end_sandbox("/sandbox/a")  # Leave and DeleteEndpoint were not heard
    release(world, "10.0.0.0/24", given.partition("/")[0])
    assert (world.state.endpoints(), set(world.ports())) == ([], {"docker-000000000001-gw"})
    assert address(world, "10.0.0.0/24", wanted=given.partition("/")[0]) == given


def test_an_endpoint_takes_its_address_again(world: World) -> None:
    pool(world, "10.0.0.0/24")
    create(world)
    world.call("NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=END,
               Interface={"Address": "10.0.0.9/24", "MacAddress": MAC})
    assert "in use" in world.refusal("IpamDriver.RequestAddress",
                                     PoolID=f"{LOCAL}/10.0.0.0/24", Address="10.0.0.9")


def test_a_pool_that_is_released_takes_its_network_along(world: World) -> None:
    pool(world, "10.0.0.0/24")
    create(world)  # the answer was not heard, and Docker gave up
    world.call("IpamDriver.ReleasePool", PoolID=f"{LOCAL}/10.0.0.0/24")
    assert (world.state.networks(), world.ports(), world.outside.pools) == ([], {}, set())
