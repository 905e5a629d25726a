# SPDX-License-Identifier: Apache-2.0
"""Whoever is killed and started again, and in which order: the containers' network comes back."""

from collections.abc import Callable

import pytest

from byway_docker.ipam_driver import LOCAL
from byway_docker.model import Refused
from byway_docker.reconcile import GRACE, LOG, LOOK_EVERY, START, SWEEP
from byway_docker.state import State
from tests.unit.docker.test_network_driver import END, NET, PORT, create, endpoint, join, program
from tests.unit.docker.world import World

TAP = "byd000000000002"
LINK = ("docker-000000000002", "docker-000000000001-gw")


@pytest.fixture
def running(world: World) -> World:
    """A container on a network, with a published port."""
    create(world)
    endpoint(world)
    join(world)
    world.move(TAP, "/sandbox/a")
    program(world, 2, PORT)
    world.tick()
    return world


def is_served(world: World) -> bool:
    tap = world.kernel.places["/sandbox/a"]["eth0"]
    return (tap.holder, set(world.ports()), world.kernel.taps()) == (
        LINK[0], set(LINK), {"byg000000000001"}) \
        and world.outside.pools == {"10.0.0.0/24"} \
        and world.outside.ports == {"tcp *:8080 -> 10.0.0.2:80"}


def test_nothing_is_touched_that_is_served(running: World) -> None:
    assert is_served(running)
    changes = len(running.switch.engine.applied)
    running.kill_plugin()
    running.start_plugin()
    running.tick()
    assert is_served(running)
    assert len(running.switch.engine.applied) == changes


def test_the_switch_is_killed(running: World) -> None:
    running.kill_switch()
    running.tick(5)
    running.start_switch()
    running.tick()
    assert is_served(running)


def test_plugin_and_switch_are_killed(running: World) -> None:
    running.kill_plugin()
    running.kill_switch()
    running.outside.pools, running.outside.ports = set(), set()
    running.start_plugin()
    running.tick()
    running.start_switch()
    running.tick()
    assert is_served(running)


def test_a_switch_that_remembers_ports_made_a_new_tap(running: World) -> None:
    remembered = [p for p in running.switch.wanted.config.ports if p.name in LINK]
    networks = running.switch.wanted.config.networks
    running.kill_switch()
    running.start_switch()
    put = running.client._client
    for network in networks:
        put.add_network(network.model_dump(exclude_none=True))
    for port in remembered:
        put.add_port(port.model_dump(exclude_none=True))
    assert TAP in running.kernel.taps()  # the wrong one
    running.tick()
    assert is_served(running)


def test_a_container_that_is_not_in_its_sandbox_yet(world: World) -> None:
    create(world)
    endpoint(world)
    join(world)
    world.kill_switch()
    world.start_switch()
    world.tick()
    assert world.kernel.places["host"][TAP].holder == LINK[0]


def test_what_is_deleted_while_the_switch_is_away(running: World) -> None:
    running.kill_switch()
    running.call("NetworkDriver.Leave", NetworkID=NET, EndpointID=END)
    running.move_back("/sandbox/a", "eth0", TAP)
    running.call("NetworkDriver.DeleteEndpoint", NetworkID=NET, EndpointID=END)
    running.call("NetworkDriver.DeleteNetwork", NetworkID=NET)
    assert running.kernel.taps() == {TAP}
    running.start_switch()
    running.tick()
    assert (running.kernel.taps(), running.ports(), running.state.left_overs()) == (set(), {}, [])
    assert "docker-000000000001" not in running.networks()


def test_a_joined_network_that_has_gone_is_waited_for(world: World) -> None:
    create(world, **{"byway.network": "blue"})
    world.kill_switch()
    world.start_switch()
    world.tick()
    assert set(world.ports()) == {LINK[1]}


def test_a_container_that_died_unheard_is_forgotten(running: World) -> None:
    running.end_sandbox("/sandbox/a")
    running.now += LOOK_EVERY
    running.tick(GRACE - 1)
    assert len(running.state.endpoints()) == 1
    running.now += LOOK_EVERY
    running.tick()
    assert (running.state.endpoints(), set(running.ports())) == ([], {LINK[1]})
    assert running.outside.ports == set()


def test_a_container_that_is_slow_to_come_is_waited_for(world: World) -> None:
    create(world)
    endpoint(world)
    join(world)
    world.tick(START - 1)
    assert len(world.state.endpoints()) == 1
    world.now += LOOK_EVERY
    world.tick()
    assert world.state.endpoints() == []
    assert world.kernel.taps() == {"byg000000000001"}


def before_it_is_dropped(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """`work` is done when it is decided, and said, that an endpoint is to go."""
    def say(sentence: str, *_: object) -> None:
        if sentence.startswith(("endpoint %s has gone", "taken back")):
            monkeypatch.undo()
            work()

    monkeypatch.setattr(LOG, "info", say)


def test_a_container_that_comes_back_as_it_is_forgotten(
        running: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running.end_sandbox("/sandbox/a")
    running.now += LOOK_EVERY
    running.tick()
    running.now += GRACE
    before_it_is_dropped(monkeypatch, lambda: join(running, sandbox="/sandbox/b"))
    running.tick()
    assert [kept.sandbox for kept in running.state.endpoints()] == ["/sandbox/b"]
    assert set(running.ports()) == set(LINK)


def test_a_sandbox_that_comes_as_it_is_given_up(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    create(world)
    endpoint(world)
    join(world)
    world.tick()
    world.now += START
    before_it_is_dropped(monkeypatch, lambda: world.move(TAP, "/sandbox/a"))
    world.tick()
    assert [kept.sandbox for kept in world.state.endpoints()] == ["/sandbox/a"]


def test_an_endpoint_that_is_joined_as_it_is_taken_back(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    create(world)
    endpoint(world)
    world.tick()
    world.now += SWEEP
    before_it_is_dropped(monkeypatch, lambda: join(world))
    world.tick()
    assert [kept.sandbox for kept in world.state.endpoints()] == ["/sandbox/a"]
    assert set(world.ports()) == set(LINK)


def test_an_endpoint_that_is_never_joined_is_taken_back(world: World) -> None:
    create(world)
    endpoint(world)
    world.tick(SWEEP - 1)
    assert len(world.state.endpoints()) == 1
    world.now += 20  # to the next sweep
    world.tick()
    assert world.state.endpoints() == []


def test_addresses_and_pools_that_nobody_used_are_taken_back(world: World) -> None:
    for prefix in ("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"):
        world.call("IpamDriver.RequestPool", AddressSpace=LOCAL, Pool=prefix)
    create(world)
    options = {"com.docker.network.endpoint.macaddress": "02:00:00:00:00:09"}
    for prefix in ("10.0.0.0/24", "10.0.2.0/24"):  # the last is another driver's
        world.call("IpamDriver.RequestAddress", PoolID=f"{LOCAL}/{prefix}", Options=options)
    endpoint(world, Address="10.0.0.7/24")
    join(world)
    world.move(TAP, "/sandbox/a")
    world.tick(SWEEP)
    world.tick()
    pools = world.state.change(lambda pools: {
        pool.prefix: [held.address for held in pools.addresses(pool.id)]
        for pool in pools.pools()})
    assert pools == {"10.0.0.0/24": ["10.0.0.7/24"], "10.0.2.0/24": ["10.0.2.1/24"]}


def test_a_second_plugin_is_refused(world: World) -> None:
    with pytest.raises(Refused, match="another docker-plugin"):
        State(str(world.folder / "docker.db"))


def test_a_switch_that_began_later_is_another_one(running: World) -> None:
    """Its process id is the same where it runs in a container."""
    running.kill_switch()
    running.start_switch()
    running.births -= 1
    running.now += 20  # and its age is what it was
    running.tick()
    assert is_served(running)
