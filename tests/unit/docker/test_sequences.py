# SPDX-License-Identifier: Apache-2.0
"""Any sequence of calls, in any order, with plugin and switch killed in between: what must exist
exists, what must not is gone.

A model says which networks and endpoints there are and where each tap is; after every step the
plugin is let look after the switch, and both are compared.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from byway_docker.model import Refused
from tests.unit.docker.test_network_driver import PORT
from tests.unit.docker.world import World, identity, subnet

NETWORKS = st.integers(1, 3)
ENDPOINTS = st.integers(1, 4)


@dataclass
class Place:
    """An endpoint of the model: its network; joined or not; its tap in the sandbox or not yet."""

    network: int
    joined: bool = False
    inside: bool = False
    ports: bool = False


class Sequences(RuleBasedStateMachine):
    """Docker, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="byway-")
        self.world = World(Path(self.folder.name))
        self.networks: set[int] = set()
        self.endpoints: dict[int, Place] = {}

    def teardown(self) -> None:
        self.world.close()
        self.folder.cleanup()

    def ask(self, method: str, allowed: bool, number: int = 0, network: int = 0,
            **body: object) -> None:
        """Call a method, which must be refused unless it is allowed."""
        try:
            self.world.call(f"NetworkDriver.{method}", NetworkID=identity(network),
                            EndpointID=identity(100 + number), **body)
        except Refused:
            assert not allowed
        else:
            assert allowed

    @rule(network=NETWORKS)
    def create_network(self, network: int) -> None:
        self.ask("CreateNetwork", True, network=network,
                 IPv4Data=[subnet(f"10.0.{network}.0/24", f"10.0.{network}.1/24")])
        self.networks.add(network)

    @rule(network=NETWORKS)
    def create_overlapping(self, network: int) -> None:
        self.ask("CreateNetwork", network not in self.networks, network=77,
                 IPv4Data=[subnet(f"10.0.{network}.128/25", "")])
        self.ask("DeleteNetwork", True, network=77)

    @rule(network=NETWORKS)
    def delete_network(self, network: int) -> None:
        for number, place in list(self.endpoints.items()):
            if place.network == network:
                self.world.end_sandbox(f"/sandbox/{number}")
                del self.endpoints[number]
        self.ask("DeleteNetwork", True, network=network)
        self.networks.discard(network)

    @rule(number=ENDPOINTS, network=NETWORKS)
    def create_endpoint(self, number: int, network: int) -> None:
        place = self.endpoints.get(number)
        allowed = network in self.networks and (place is None or place.network == network)
        self.ask("CreateEndpoint", allowed, number, network,
                 Interface={"Address": f"10.0.{network}.{number + 1}/24"})
        if allowed:
            self.endpoints.setdefault(number, Place(network))

    @rule(number=ENDPOINTS, network=NETWORKS)
    def join(self, number: int, network: int) -> None:
        place = self.endpoints.get(number)
        allowed = place is not None and place.network == network
        self.ask("Join", allowed, number, network, SandboxKey=f"/sandbox/{number}")
        if place and allowed:
            place.joined = True

    @rule(number=ENDPOINTS, network=NETWORKS)
    def start(self, number: int, network: int) -> None:
        """As `docker run` does."""
        self.create_network(network)
        self.create_endpoint(number, network)
        self.join(number, network)
        self.move(number)

    @rule(number=ENDPOINTS)
    def move(self, number: int) -> None:
        place = self.endpoints.get(number)
        if place and place.joined and not place.inside:
            self.world.move(f"byd{identity(100 + number)[:12]}", f"/sandbox/{number}")
            place.inside = True

    @rule(number=ENDPOINTS, dies=st.booleans())
    def leave(self, number: int, dies: bool) -> None:
        place = self.endpoints.get(number)
        self.ask("Leave", True, number, place.network if place else 9)
        if place:
            if place.inside and dies:
                self.world.end_sandbox(f"/sandbox/{number}")
            elif place.inside:
                self.world.move_back(f"/sandbox/{number}", "eth0",
                                     f"byd{identity(100 + number)[:12]}")
            place.joined = place.inside = place.ports = False

    @rule(number=ENDPOINTS)
    def delete_endpoint(self, number: int) -> None:
        place = self.endpoints.get(number)
        if place and place.joined:
            self.leave(number, True)
        self.ask("DeleteEndpoint", True, number, 9)
        self.endpoints.pop(number, None)

    @rule(number=ENDPOINTS, network=NETWORKS)
    def publish(self, number: int, network: int) -> None:
        place = self.endpoints.get(number)
        allowed = place is not None and place.network == network
        port = {**PORT, "HostPort": 8000 + number, "HostPortEnd": 8000 + number}
        self.ask("ProgramExternalConnectivity", allowed, number, network,
                 Options={"com.docker.network.portmap": [port]})
        if place and allowed:
            place.ports = True

    @rule()
    def kill_plugin(self) -> None:
        self.world.kill_plugin()
        self.world.start_plugin()

    @rule(number=st.none() | ENDPOINTS, network=st.none() | NETWORKS)
    def kill_switch(self, number: int | None, network: int | None) -> None:
        """While it is away an endpoint and a network may be deleted."""
        self.world.kill_switch()
        if number:
            self.delete_endpoint(number)
        if network:
            self.delete_network(network)
        self.world.start_switch()

    @invariant()
    def what_must_exist_exists(self) -> None:
        world = self.world
        world.tick()
        gateways = {f"docker-{identity(n)[:12]}-gw" for n in self.networks}
        joined = {f"docker-{identity(100 + n)[:12]}"
                  for n, place in self.endpoints.items() if place.joined}
        left = {f"docker-{identity(100 + n)[:12]}" for n in self.endpoints}
        assert gateways | joined <= set(world.ports()) <= gateways | joined | left
        assert world.networks() == {"blue"} | {f"docker-{identity(n)[:12]}" for n in self.networks}
        for number, place in self.endpoints.items():
            if place.inside:
                (tap,) = world.kernel.places[f"/sandbox/{number}"].values()
                assert tap.holder == f"docker-{identity(100 + number)[:12]}"
        known = {f"byg{identity(n)[:12]}" for n in self.networks} \
            | {f"byd{identity(100 + n)[:12]}" for n, p in self.endpoints.items() if not p.inside}
        assert world.kernel.taps() <= known
        assert world.state.left_overs() == []
        assert world.outside.pools == {f"10.0.{n}.0/24" for n in self.networks}
        assert len(world.outside.ports) == sum(place.ports for place in self.endpoints.values())


Sequences.TestCase.settings = settings(
    max_examples=12, stateful_step_count=15, deadline=None,
    suppress_health_check=[HealthCheck.too_slow])
test_sequences = Sequences.TestCase
