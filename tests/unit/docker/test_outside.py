# SPDX-License-Identifier: Apache-2.0
"""The outside shows what is kept, whoever changes it while all of it is restored.

Two threads cross: the first is held within one of its calls of the outside until the second has
ended, or waits for the lock of the outside.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest

from byway_docker.model import Endpoint, Network, Refused
from byway_docker.outside import publications
from tests.unit.docker.test_network_driver import END, NET, PORT, create, endpoint, join, program
from tests.unit.docker.world import World, identity, subnet

SECONDS = 60  # at most; nothing here takes its time
OTHER = {**PORT, "HostPort": 8081, "HostPortEnd": 8081}
Act = Callable[[World], Any]


def call(method: str) -> Act:
    return lambda world: world.call(f"NetworkDriver.{method}", NetworkID=NET, EndpointID=END)


def restore(world: World) -> None:
    world.plugin.network.outside_is_stale = True
    world.plugin.reconciler.tick()


def publish_another(world: World) -> None:
    endpoint(world, 3)
    program(world, 3, OTHER)


ENDS = {method: call(method) for method in (
    "RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "DeleteNetwork")}
BEGINNINGS: dict[str, Act] = {
    "ProgramExternalConnectivity": publish_another,
    "CreateNetwork": lambda world: create(world, 5, ipv4=[subnet("10.5.0.0/24", "10.5.0.1/24")]),
}


@pytest.fixture
def published(world: World) -> World:
    """An endpoint with a published port."""
    create(world)
    endpoint(world)
    program(world, 2, PORT)
    world.tick()
    assert_shown(world)
    return world


def assert_shown(world: World) -> None:
    """Exactly what is kept is there."""
    assert world.outside.ports == {
        str(one) for kept in world.state.endpoints() for one in publications(kept)}
    assert world.outside.pools == {
        subnet.pool for kept in world.state.networks() for subnet in kept.subnets}


class Noticed:
    """A lock that says when somebody has to wait for it."""

    def __init__(self, waits: threading.Event) -> None:
        self._lock = threading.Lock()
        self._waits = waits

    def __enter__(self) -> Self:
        if not self._lock.acquire(blocking=False):
            self._waits.set()
            assert self._lock.acquire(timeout=SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def cross(world: World, first: Act, place: str, second: Act, before: bool = False) -> None:
    """`second`, as `first` is at the method `place` of the outside, or `before` it."""
    arrived, met = threading.Event(), threading.Event()
    work = getattr(world.outside, place)

    def held(*given: Any) -> None:
        if not before:
            work(*given)
        setattr(world.outside, place, work)
        arrived.set()
        assert met.wait(SECONDS)
        if before:
            work(*given)

    def follow() -> None:
        try:
            second(world)
        finally:
            met.set()

    setattr(world.outside, place, held)
    world.plugin.network.outside_lock = Noticed(met)  # type: ignore[assignment]
    with ThreadPoolExecutor(2) as threads:
        leading = threads.submit(first, world)
        assert arrived.wait(SECONDS)
        threads.submit(follow).result(SECONDS)
        leading.result(SECONDS)


@pytest.mark.parametrize("method", [*BEGINNINGS, *ENDS])
def test_a_change_while_all_is_restored(published: World, method: str) -> None:
    """What was read before the change is not put in the place of what came of it."""
    cross(published, restore, "restore", (BEGINNINGS | ENDS)[method], before=True)
    assert_shown(published)
    assert (published.outside.ports == set()) == (method in ENDS)


@pytest.mark.parametrize("method", ENDS)
def test_all_is_restored_within_a_change(published: World, method: str) -> None:
    """What has been withdrawn, and is kept for a moment longer, is not put back."""
    cross(published, ENDS[method], "withdraw", restore)
    assert_shown(published)
    assert published.outside.ports == set()


def test_a_network_that_goes_while_all_is_restored_is_not_opened_again(published: World) -> None:
    """After all is restored, the gateways are made ready one by one."""
    cross(published, restore, "restore", ENDS["DeleteNetwork"])
    assert_shown(published)


def test_who_publishes_nothing_does_not_wait_for_the_outside(published: World) -> None:
    def come_and_go(world: World) -> None:
        endpoint(world, 4)
        join(world, 4)
        for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
            world.call(f"NetworkDriver.{method}", NetworkID=NET, EndpointID=identity(4))

    with ThreadPoolExecutor(1) as threads, published.plugin.network.outside_lock:
        threads.submit(come_and_go, published).result(SECONDS)


def test_what_could_not_be_restored_is_tried_again(published: World) -> None:
    def refuse(*_: object) -> None:
        raise Refused("the kernel refuses", "ask again")

    published.outside.ports.clear()
    work, published.outside.restore = published.outside.restore, refuse  # type: ignore[method-assign]
    restore(published)
    assert published.outside.ports == set()
    published.outside.restore = work  # type: ignore[method-assign]
    published.tick()
    assert_shown(published)


def test_a_refused_port_is_not_there(published: World) -> None:
    """The elements of the table may be there before the kernel refuses to forward."""
    work = published.outside.publish

    def refuse(network: Network, wanted: Endpoint) -> None:
        work(network, wanted)
        raise Refused("forwarding cannot be switched on", "switch it on beforehand")

    published.outside.publish = refuse  # type: ignore[method-assign]
    with pytest.raises(Refused):
        publish_another(published)
    assert_shown(published)


def test_a_refused_change_of_ports_withdraws_those_before(published: World) -> None:
    publish_another(published)
    with pytest.raises(Refused, match="leads to another container"):
        program(published, 2, OTHER)
    assert_shown(published)
    assert published.outside.ports == {"tcp *:8081 -> 10.0.0.3:80"}
