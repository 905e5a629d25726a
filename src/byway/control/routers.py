# SPDX-License-Identifier: Apache-2.0
"""Gateways of networks, and the routers that join them.

Used by policy. Uses networks and switch.routing, which makes the tables.

The tables are made anew as a whole, so changes are noted, and ``finish`` makes them once for all
changes of a kind that come together.
"""

from collections.abc import Callable
from typing import Any, Protocol

from byway.control.model import NetworkConfig, RouterConfig
from byway.control.networks import Networks
from byway.control.problem import EngineError
from byway.switch.routing import Gateway, Router, Routing, RoutingError


class PortNumbers(Protocol):
    """Who gives numbers to ports."""

    def take_number(self) -> int:
        """EngineError: there is none left."""

    def number_back(self, number: int) -> None:
        """No worker knows it any more."""


class Routers:
    """The gateways and routers of one switch. ``keep`` is given memory that workers may still be
    reading; ``population``: the address of the switch's."""

    def __init__(self, numbers: PortNumbers, networks: Networks, hz: float, population: int,
                 keep: Callable[[Any], None]) -> None:
        self._numbers = numbers
        self._networks = networks
        self._routing = Routing(hz)
        self._routing.set_population(population)
        self._routing.on_moved(keep)
        self.address = self._routing.address
        self._ports: dict[str, int] = {}  # the router's port numbers by network
        self.configs: dict[str, RouterConfig] = {}
        self._changed = False

    def add(self, router: RouterConfig) -> None:
        """Join networks."""
        self.configs[router.name] = router
        self._changed = True

    def remove(self, name: str) -> None:
        """Join them no longer."""
        del self.configs[name]
        self._changed = True

    def network_changed(self, config: NetworkConfig) -> None:
        """A network has come, or has other gateways."""
        if config.gateway and config.name not in self._ports:
            self._ports[config.name] = self._numbers.take_number()
        self._changed = self._changed or bool(config.gateway) or config.name in self._ports

    def network_gone(self, name: str) -> None:
        """A network is about to be removed."""
        if name in self._ports:
            self._changed = True

    def finish(self) -> None:
        """Have the tables say what was told. EngineError: they cannot."""
        if not self._changed:
            return
        found = {name: self._networks.get(name) for name in self._ports}
        in_cluster = self._networks.in_cluster
        gateways = [
            Gateway(network.number, self._ports[name], self._networks.gateway_of(network),
                    network.config.gateway, network.config.mtu, network.config.learns(in_cluster))
            for name, network in found.items() if network and network.config.gateway]
        numbers = {name: network.number for name, network in found.items() if network}
        routers = [
            Router(tuple(numbers[name] for name in router.networks if name in numbers),
                   tuple(("0.0.0.0/0" if route.to == "default" and ":" not in route.via else
                          "::/0" if route.to == "default" else route.to, route.via)
                         for route in router.routes))
            for router in self.configs.values()]
        try:
            self._routing.install(gateways, routers)
        except RoutingError as error:
            raise EngineError(f"router: {error.problem}", error.fix) from None
        self._changed = False
        for name in [n for n, network in found.items()
                     if network is None or not network.config.gateway]:
            self._numbers.number_back(self._ports.pop(name))
