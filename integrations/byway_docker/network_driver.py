# SPDX-License-Identifier: Apache-2.0
"""The methods NetworkDriver.*: a network of Docker's is one of the switch's, an endpoint a tap.

Used by service. Uses state, switch, outside, namespace, request. Source: libnetwork's
docs/remote.md and drivers/remote.

Theory of operation
-------------------
CreateNetwork makes the network and, unless it is internal, its gateway: a tap in dockerd's
namespace with the gateway's address. CreateEndpoint only writes down. Join makes the tap and says
its name; dockerd moves it into the container, renames it and gives it its addresses, while the
switch goes on holding it. ProgramExternalConnectivity publishes ports.

What is to be there is written down first, then made; Docker hears of it at last. What is to go is
written down as a left-over first, then removed; Docker hears that it went even if the switch is
away, because it would not ask again: `reconcile` does the rest. So every method may be repeated,
may come out of order, and may be about something that nobody knows (then Delete and Leave succeed).

Methods run in threads, several at once; two about the same network or endpoint wait for each other.
The outside is one table for all of them, which `reconcile` may replace: `outside_lock` is held from
a change of what it shows to the end of that change, and from the reading of all to the end of the
replacement. Locks of ids are taken before it, never after it: what holds it waits for nothing but
the state's file and the outside.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from byway_docker import request
from byway_docker.locks import Locks
from byway_docker.model import Endpoint, Network, Refused, made_mac
from byway_docker.namespace import AnyNamespaces
from byway_docker.outside import AnyOutside
from byway_docker.state import State, no_endpoint, no_network
from byway_docker.switch import AnySwitch, Away

Answer = dict[str, Any]
LOG = logging.getLogger("byway.docker")


class NetworkDriver:
    """The methods over a state, a switch, the outside and the kernel's namespaces.

    `outside_is_stale`: something there could not be withdrawn, and has to be restored; whoever
    changes it holds `outside_lock`."""

    def __init__(self, state: State, switch: AnySwitch, outside: AnyOutside,
                 namespaces: AnyNamespaces) -> None:
        self.state = state
        self.switch = switch
        self.outside = outside
        self.namespaces = namespaces
        self.outside_is_stale = False
        self.locks = Locks()  # of networks and endpoints, by id; one at a time
        self.outside_lock = threading.Lock()  # the last to be taken
        self.methods: dict[str, Callable[[request.Body], Answer]] = {
            "GetCapabilities": self.capabilities,
            "CreateNetwork": self.create_network,
            "DeleteNetwork": self.delete_network,
            "CreateEndpoint": self.create_endpoint,
            "EndpointOperInfo": self.endpoint_info,
            "DeleteEndpoint": self.delete_endpoint,
            "Join": self.join,
            "Leave": self.leave,
            "ProgramExternalConnectivity": self.publish,
            "RevokeExternalConnectivity": self.withdraw,
            "DiscoverNew": self.discover,
            "DiscoverDelete": self.discover,
        }

    def capabilities(self, body: request.Body) -> Answer:
        """Networks are this host's business."""
        return {"Scope": "local", "ConnectivityScope": "local"}

    def discover(self, body: request.Body) -> Answer:
        """Other hosts of a swarm: of no interest."""
        return {}

    # ------------------------------------------------------------ networks
    def create_network(self, body: request.Body) -> Answer:
        """Make a network, or join one of the switch's."""
        network = request.network(body)
        with self.locks.held(network.id):
            present = self.state.network(network.id) == network
            if not network.own:
                self.switch.check_network(network)
            self.state.add_network(network)
            try:
                self.switch.add_network(network)
                self.open(network)
            except Refused:
                if not present:
                    self._drop_network(network)
                raise
        return {}

    def open(self, network: Network) -> None:
        """A network that is kept, and whose lock is held, has its way out.

        The switch may take seconds, and nobody waits for it: whoever restores the outside after the
        network was written down opens it too, and whoever did before has ended."""
        with self.outside_lock:
            self.outside.open(network)

    def delete_network(self, body: request.Body) -> Answer:
        """Remove a network with all that is left on it."""
        self.drop_network(request.identity(body, "NetworkID"))
        return {}

    def drop_network(self, identity: str) -> None:
        """Docker has no such network any more."""
        with self.locks.held(identity):
            if network := self.state.network(identity):
                self._drop_network(network)

    def _drop_network(self, network: Network) -> None:
        with self.outside_lock:
            for endpoint in self.state.endpoints(network.id):
                self._shut(partial(self.outside.withdraw, endpoint))
            self.state.remove_network(network.id)
            self._shut(partial(self.outside.close, network))
        self.clean()

    # ------------------------------------------------------------ endpoints
    def create_endpoint(self, body: request.Body) -> Answer:
        """Write an endpoint down; its MAC address is made from its id where Docker gives none."""
        identity = request.identity(body, "EndpointID")
        network = request.identity(body, "NetworkID")
        given = request.table(body, "Interface")
        mac = request.mac(given, "MacAddress")
        made = Endpoint(identity, network, mac or made_mac(identity),
                        request.cidr(given, "Address", 4), request.cidr(given, "AddressIPv6", 6))
        with self.locks.held(identity):
            present = self.state.endpoint(identity)
            if present is None:
                self.state.add_endpoint(made)
            elif replace(present, sandbox="", published=()) != made:
                raise Refused(f"the endpoint {identity} is there already, and is another one",
                              "delete it first")
        # Docker refuses to hear again what it said itself.
        return {"Interface": {} if mac else {"MacAddress": made.mac}}

    def endpoint_info(self, body: request.Body) -> Answer:
        """What there is to know about an endpoint."""
        endpoint, network = self._find(body)
        return {"Value": {"byway.network": network.name, "byway.port": endpoint.port}}

    def delete_endpoint(self, body: request.Body) -> Answer:
        """Remove an endpoint with its port."""
        self.drop_endpoint(request.identity(body, "EndpointID"))
        return {}

    def drop_endpoint(self, identity: str) -> None:
        """Docker has no such endpoint any more."""
        with self.locks.held(identity):
            if endpoint := self.state.endpoint(identity):
                self._drop_endpoint(endpoint)

    def forget_endpoint(self, identity: str, sandbox: str) -> None:
        """Docker has forgotten an endpoint that was in `sandbox` ("": in none), and will not
        release its addresses either. Unless it runs by now, or has been joined elsewhere."""
        with self.locks.held(identity):
            endpoint = self.state.endpoint(identity)
            if endpoint and endpoint.sandbox == sandbox and not self.runs(endpoint):
                self._drop_endpoint(endpoint, release=True)

    def _drop_endpoint(self, endpoint: Endpoint, release: bool = False) -> None:
        self._withdraw(endpoint, lambda: self.state.remove_endpoint(endpoint.id, release))
        self.clean(endpoint.port)

    def join(self, body: request.Body) -> Answer:
        """Make the container's interface, for Docker to move it into the container."""
        sandbox = request.text(body, "SandboxKey")
        if not sandbox.startswith("/"):
            raise Refused(f"SandboxKey is {sandbox!r}", "send the path of a network namespace")
        identity = request.identity(body, "EndpointID")
        with self.locks.held(identity):
            endpoint, network = self._find(body)
            if endpoint.sandbox and endpoint.sandbox != sandbox and self.runs(endpoint):
                raise Refused(f"the endpoint {identity} is joined to {endpoint.sandbox}",
                              "leave that one first")
            self.state.set_endpoint(replace(endpoint, sandbox=sandbox))
            try:
                self._make_port(network, replace(endpoint, sandbox=sandbox))
            except Refused:
                self.state.set_endpoint(endpoint)
                raise
        return {
            "InterfaceName": {"SrcName": endpoint.interface, "DstPrefix": "eth"},
            "Gateway": _gateway(network, 4),
            "GatewayIPv6": _gateway(network, 6),
            "StaticRoutes": [],
            # Otherwise Docker adds a bridge of its own for a container without a gateway.
            "DisableGatewayService": True,
        }

    def _make_port(self, network: Network, endpoint: Endpoint) -> None:
        """The tap in dockerd's namespace, unless it is in the container already (a repeated Join).
        Where the port is there but has lost its tap (its container died), a new one."""
        if interface := self.inside(endpoint):
            self.take_up(network, endpoint, interface)
            return
        try:
            self.switch.add_endpoint(network, endpoint)
        except Away:
            raise
        except Refused as first:
            LOG.info("port %s: %s; once more, with its network", endpoint.port, first)
            self.switch.add_network(network)
            self.switch.add_endpoint(network, endpoint)
        if not self.namespaces.has(self.switch.netns, endpoint.interface):
            self.switch.remove(endpoint.port, endpoint.interface)
            self.switch.add_endpoint(network, endpoint)

    def take_up(self, network: Network, endpoint: Endpoint, interface: str) -> None:
        """Have the switch serve the tap that is in the container, unless a process holds it."""
        if not self.namespaces.is_held(endpoint.sandbox, interface):
            self.switch.add_endpoint(network, endpoint, (endpoint.sandbox, interface))
            self.namespaces.remove_free(self.switch.netns, endpoint.interface)

    def leave(self, body: request.Body) -> Answer:
        """The container goes; its tap goes with the endpoint, when Docker has let go of it."""
        identity = request.identity(body, "EndpointID")
        with self.locks.held(identity):
            if endpoint := self.state.endpoint(identity):
                left = replace(endpoint, sandbox="", published=())
                self._withdraw(endpoint, lambda: self.state.set_endpoint(left))
        return {}

    # ------------------------------------------------------------ published ports
    def publish(self, body: request.Body) -> Answer:
        """Ports of the container are to be reached at the host."""
        ports = request.published(body)
        identity = request.identity(body, "EndpointID")
        with self.locks.held(identity):
            before, network = self._find(body)
            if ports and network.gateway != "host":
                raise Refused("ports cannot be published on a network without a gateway at the"
                              " host", "leave --internal, or -o byway.gateway, out")
            wanted = replace(before, published=ports)
            with self.outside_lock:
                self._shut(partial(self.outside.withdraw, before))
                try:
                    self.state.publish(identity, ports)
                    self.outside.publish(network, wanted)
                except Refused:
                    self._shut(partial(self.outside.withdraw, wanted))  # part of it may be there
                    self.state.publish(identity, ())
                    raise
        return {}

    def withdraw(self, body: request.Body) -> Answer:
        """They no longer are."""
        identity = request.identity(body, "EndpointID")
        with self.locks.held(identity):
            if endpoint := self.state.endpoint(identity):
                self._withdraw(endpoint, lambda: self.state.publish(identity, ()))
        return {}

    def _withdraw(self, endpoint: Endpoint, write: Callable[[], object]) -> None:
        """An endpoint whose lock is held has no published ports any more; `write` keeps that."""
        if not endpoint.published:  # so it need not wait until others have changed theirs
            write()
            return
        with self.outside_lock:
            self._shut(partial(self.outside.withdraw, endpoint))
            write()

    # ------------------------------------------------------------ what is left over
    def clean(self, only: str | None = None) -> None:
        """Remove left-overs (`only`: of this name) from the switch and from dockerd's namespace.

        What cannot be done now is done later."""
        for name, interface in self.state.left_overs():
            if only in (None, name):
                self._try(partial(self._clean, name, interface))

    def _clean(self, name: str, interface: str | None) -> None:
        self.switch.remove(name, interface)
        if interface is None or self.namespaces.remove_free(self.switch.netns, interface):
            self.state.gone(name, interface)

    def _try(self, work: Callable[[], None]) -> None:
        """Do what reconcile will do again if it fails now."""
        try:
            work()
        except (Refused, OSError) as error:
            LOG.warning("left for later: %s", error)

    def _shut(self, work: Callable[[], None]) -> None:
        """Withdraw something from the outside, whose lock is held; where that fails, all of it is
        restored later."""
        try:
            work()
        except Refused as error:
            LOG.warning("left for later: %s", error)
            self.outside_is_stale = True

    # ------------------------------------------------------------ what is there
    def runs(self, endpoint: Endpoint) -> bool:
        """Does the endpoint's container run, as far as can be seen?"""
        return bool(endpoint.sandbox) and self.namespaces.exists(endpoint.sandbox)

    def inside(self, endpoint: Endpoint) -> str | None:
        """The interface of the endpoint in its container; None while it is not there."""
        if not self.runs(endpoint):
            return None
        return self.namespaces.find(endpoint.sandbox, endpoint.mac)

    def _find(self, body: request.Body) -> tuple[Endpoint, Network]:
        """The endpoint and the network that a request is about."""
        identity = request.identity(body, "EndpointID")
        network = self.state.network(request.identity(body, "NetworkID"))
        if network is None:
            raise no_network(request.text(body, "NetworkID"))
        endpoint = self.state.endpoint(identity)
        if endpoint is None or endpoint.network != network.id:
            raise no_endpoint(identity)
        return endpoint, network


def _gateway(network: Network, version: int) -> str:
    """The gateway's address without prefix length, "" where containers have no way out."""
    if network.gateway == "none":
        return ""
    subnets = network.ipv4 if version == 4 else network.ipv6
    return next((s.gateway.partition("/")[0] for s in subnets if s.gateway), "")
