# SPDX-License-Identifier: Apache-2.0
"""What a running switch tells of itself: ports, networks, hosts, addresses, workers.

Used by the engine, which is one. Uses its parts. No call changes anything or pauses a worker.
"""

from typing import Any

from byway.control.overlay import Overlay
from byway.control.policy import Policy
from byway.control.port_host import PortHost
from byway.control.problem import EngineError
from byway.ports.port import Port


class ShownEngine(PortHost):
    """Belongs to the control thread."""

    overlay: Overlay
    policy: Policy
    _ports: dict[str, Port]

    def number(self, name: str) -> int:
        """The number of a port, -1 where there is none of that name."""
        return self._ports[name].index if name in self._ports else -1

    def port_named(self, name: str) -> Port:
        """The port that an underlay goes by (EngineError: there is none of that name)."""
        return self._port(name)

    def _port(self, name: str) -> Port:
        if name not in self._ports:
            raise EngineError(f'there is no port "{name}"', "see `byway port list`")
        return self._ports[name]

    # ------------------------------------------------------------ what there is
    def ports(self) -> list[dict[str, Any]]:
        """State and counters of every port, in the order of their making."""
        return [port.status() for port in self._ports.values()]

    def networks(self) -> list[dict[str, Any]]:
        """Every network with the names of its ports."""
        return self._networks.shown()

    def port(self, name: str) -> dict[str, Any]:
        """State and counters of one port (EngineError: there is none of that name)."""
        return self._port(name).status()

    def network(self, name: str) -> dict[str, Any]:
        """One network with the names of its ports (EngineError: there is none of that name)."""
        return self._networks.show(self._networks[name])

    def fdb(self, network: str | None) -> list[dict[str, Any]]:
        """The learned addresses of one network, or of all; ``age`` in seconds."""
        return self._networks.learned(network, self.overlay.names)

    def hosts(self) -> list[dict[str, Any]]:
        """Every other host with its address, its networks and counters."""
        return self.overlay.hosts()

    def underlay(self) -> dict[str, Any] | None:
        """What carries the tunnels, with what it dropped; None: there is none."""
        return self.overlay.underlay.status() if self.overlay.underlay else None

    def population(self, network: str | None) -> list[dict[str, Any]]:
        """Who is known to be where, in one network or in all."""
        return self.overlay.known(network)

    def connections(self, port: str | None, limit: int) -> list[dict[str, Any]]:
        """The connections of one port, or of all; at most so many."""
        return self.policy.connections(port, limit)

    def workers(self) -> list[dict[str, Any]]:
        """The counters of every worker, and the ports that it receives from."""
        return [{
            **worker.statistics(),
            "ports": [p.name for p in self._plans.attached if k in self._assignment.workers_of(p)],
            "cycles_per_second": round(self._hz),
        } for k, worker in enumerate(self._workers)]
