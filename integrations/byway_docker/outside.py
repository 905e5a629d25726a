# SPDX-License-Identifier: Apache-2.0
"""The containers' way out of the host, and published ports: address translation by nftables.

Used by the network driver and reconcile. Uses byway.nat: one table in dockerd's namespace, which
belongs to the plugin alone.
"""

from collections.abc import Iterable
from typing import Protocol

from byway.nat import NatError, Publication, Table
from byway_docker.model import Endpoint, Network, Published, Refused

TABLE = "byway-docker"


class AnyOutside(Protocol):
    """What the drivers need of the outside."""

    def restore(self, networks: Iterable[Network], endpoints: Iterable[Endpoint]) -> None:
        """Exactly these networks have a way out, and these endpoints their published ports."""

    def open(self, network: Network) -> None:
        """What leaves the network goes behind the host's address."""

    def close(self, network: Network) -> None:
        """It no longer does."""

    def publish(self, network: Network, endpoint: Endpoint) -> None:
        """The endpoint's published ports lead to it."""

    def withdraw(self, endpoint: Endpoint) -> None:
        """They no longer do."""


class Outside:
    """Address translation in `namespace` (None: our own). Raises Refused; calls may be repeated."""

    def __init__(self, namespace: str | None) -> None:
        self._table = Table(TABLE, namespace)

    def restore(self, networks: Iterable[Network], endpoints: Iterable[Endpoint]) -> None:
        """Exactly these networks have a way out, and these endpoints their published ports."""
        ways = [found for network in networks if (found := _subnets(network))]
        ports = [one for endpoint in endpoints for one in publications(endpoint)]
        try:
            if ways or ports:
                self._table.replace(ways, ports)
            else:
                self._table.remove()
        except NatError as error:
            raise Refused(error.problem, error.fix) from None

    def open(self, network: Network) -> None:
        """What leaves the network goes behind the host's address."""
        if subnets := _subnets(network):
            try:
                self._table.masquerade(subnets, network.gateway_interface)
            except NatError as error:
                raise Refused(error.problem, error.fix) from None

    def close(self, network: Network) -> None:
        """It no longer does."""
        if subnets := _subnets(network):
            try:
                self._table.withdraw(subnets=subnets)
            except NatError as error:
                raise Refused(error.problem, error.fix) from None

    def publish(self, network: Network, endpoint: Endpoint) -> None:
        """The endpoint's published ports lead to it."""
        if endpoint.published:
            try:
                self._table.publish(publications(endpoint), network.gateway_interface)
            except NatError as error:
                raise Refused(error.problem, error.fix) from None

    def withdraw(self, endpoint: Endpoint) -> None:
        """They no longer do."""
        if endpoint.published:
            try:
                self._table.withdraw(publications=publications(endpoint))
            except NatError as error:
                raise Refused(error.problem, error.fix) from None


def _subnets(network: Network) -> list[str]:
    if network.gateway != "host":
        return []
    return [subnet.pool for subnet in network.subnets if subnet.gateway]


def publications(endpoint: Endpoint) -> list[Publication]:
    """The published ports of an endpoint, one for each family that is meant. Raises Refused."""
    return [one for port in endpoint.published for one in _of_families(endpoint, port)]


def _of_families(endpoint: Endpoint, port: Published) -> list[Publication]:
    addresses = [address for address in endpoint.addresses
                 if not port.host or (":" in address) == (":" in port.host)]
    if not addresses:
        raise Refused(f"port {port.host_port} is to be published at {port.host or 'the host'},"
                      " but the container has no address of that family",
                      "publish it at another address of the host")
    return [Publication(port.protocol, port.host_port, address, port.port, port.host or None)
            for address in addresses]
