# SPDX-License-Identifier: Apache-2.0
"""What the plugin asks of the switch: networks, a tap for each container, a gateway for a network.

Used by the network driver and reconcile. Uses byway.client.

Everything that is asked for may be asked again: the same PUT changes nothing, and what is to be
removed may be gone. A call waits `patience` seconds for a switch that is being started again;
a call that must not wait says so.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from byway.client import Client, ClientError, NotReachable
from byway_docker.model import Endpoint, Network, Refused, made_mac

PATIENCE = 8.0  # seconds; Docker gives a call up after some tens of them
_NOT_FOUND = 404

T = TypeVar("T")
Row = dict[str, Any]


class AnySwitch(Protocol):
    """What the drivers need of a switch."""

    netns: str | None

    def look(self) -> tuple[int, float] | None:
        """(process id, seconds since its start) of the switch; None where none answers."""

    def check_network(self, network: Network) -> None:
        """Refused where a network that is to be joined is not there, or is another than asked."""

    def add_network(self, network: Network) -> None:
        """The network, if it is the plugin's own, and its gateway port, if it has one."""

    def add_endpoint(self, network: Network, endpoint: Endpoint,
                     place: tuple[str, str] | None = None) -> None:
        """The endpoint's port: a new tap in dockerd's namespace, or the one that is at `place`
        (namespace, interface)."""

    def remove(self, name: str, interface: str | None) -> None:
        """No port of this name, or (interface None) no network, whether it was there or not."""


class Switch:
    """The switch whose API socket is `path`. `netns`: the namespace of dockerd, None: that of the
    switch. Raises Refused."""

    def __init__(self, path: str, netns: str | None, patience: float = PATIENCE) -> None:
        self.netns = netns
        self._client = Client(path)
        self._patience = patience
        self._over = threading.Event()

    def close(self) -> None:
        """End every wait and close the connection."""
        self._over.set()
        self._client.close()

    def look(self) -> tuple[int, float] | None:
        """(process id, seconds since its start) of the switch; None where none answers."""
        try:
            found = self._client.switch()
        except ClientError:
            return None
        return int(found["pid"]), float(found["uptime"])

    def check_network(self, network: Network) -> None:
        """Refused where a network that is to be joined is not there, or is another than asked."""
        try:
            found = self._call(lambda: self._client.network(network.name))
        except _Absent:
            raise Refused(f'-o byway.network: the switch has no network "{network.name}"',
                          f"add it (byway network add {network.name}), or leave the option out"
                          ) from None
        if network.mtu not in (None, found["mtu"]):
            raise Refused(f'the network "{network.name}" has an mtu of {found["mtu"]} bytes',
                          "leave -o com.docker.network.driver.mtu out")

    def add_network(self, network: Network) -> None:
        """The network, if it is the plugin's own, and its gateway port, if it has one."""
        if network.own:
            body: Row = {"name": network.name}
            body |= {} if network.mtu is None else {"mtu": network.mtu}
            body |= {} if network.vni is None else {"vni": network.vni}
            self._call(lambda: self._client.add_network(body))
        if network.gateway == "host":
            port = self._tap(network.gateway_port, network, network.gateway_interface,
                             made_mac(network.id), self.netns)
            port["address"] = [subnet.gateway for subnet in network.subnets if subnet.gateway]
            self._call(lambda: self._client.add_port(port))

    def add_endpoint(self, network: Network, endpoint: Endpoint,
                     place: tuple[str, str] | None = None) -> None:
        """The endpoint's port: a new tap in dockerd's namespace, or the one that is at `place`
        (namespace, interface)."""
        netns, interface = place or (self.netns, endpoint.interface)
        port = self._tap(endpoint.port, network, interface, endpoint.mac, netns)
        # Docker moves it away: it has to outlive the switch, to be found again where it went.
        port["persistent"] = True
        self._call(lambda: self._client.add_port(port))

    def _tap(self, name: str, network: Network, interface: str, mac: str,
             netns: str | None) -> Row:
        port: Row = {"name": name, "network": network.name, "kind": "tap", "ifname": interface,
                     "mac": mac}
        return port if netns is None else {**port, "netns": netns}

    def remove(self, name: str, interface: str | None) -> None:
        """No port of this name, or (interface None) no network, whether it was there or not."""
        remove = self._client.remove_port if interface else self._client.remove_network
        try:
            self._call(lambda: remove(name), wait=False)
        except _Absent:
            return

    def _call(self, work: Callable[[], T], wait: bool = True) -> T:
        """What the client answers; a switch that is away may come back in time."""
        end = time.monotonic() + (self._patience if wait else 0)
        while True:
            try:
                return work()
            except NotReachable as error:
                if time.monotonic() >= end or self._over.wait(0.1):
                    raise Away(error.problem, error.fix) from None
            except ClientError as error:
                kind = _Absent if error.status == _NOT_FOUND else Refused
                raise kind(f"the switch refuses: {error.problem}", error.fix) from None


class Away(Refused):
    """No switch answers."""


class _Absent(Refused):
    """There is none of that name."""
