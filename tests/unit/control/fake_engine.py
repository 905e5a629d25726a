# SPDX-License-Identifier: Apache-2.0
"""An engine without workers: keeps networks and ports in dictionaries, all or nothing.

Used by the tests of control, client and cli.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from byway.control.diff import Action, AddNetwork, AddPort, RemoveNetwork, RemovePort
from byway.control.model import NetworkConfig, PortConfig, SwitchConfig
from byway.control.problem import EngineError


class FakeEngine:
    """`refuse` names ports that cannot be opened; `applied` keeps every call of apply()."""

    def __init__(
        self, switch: SwitchConfig, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.switch = switch
        self.running = False
        self.refuse: set[str] = set()
        self.applied: list[list[Action]] = []
        self.learned: list[dict[str, Any]] = []
        self.counters: dict[str, dict[str, Any]] = {}
        self.moved = 0
        self._networks: dict[str, NetworkConfig] = {}
        self._ports: dict[str, PortConfig] = {}

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False
        self._ports.clear()

    def apply(self, actions: Sequence[Action]) -> None:
        networks, ports = dict(self._networks), dict(self._ports)
        for action in actions:
            match action:
                case AddNetwork(network):
                    assert network.name not in networks
                    networks[network.name] = network
                case RemoveNetwork(name):
                    assert all(port.network != name for port in ports.values())
                    del networks[name]
                case AddPort(port):
                    assert port.name not in ports
                    assert port.network in networks
                    if port.name in self.refuse:
                        raise EngineError(f'port "{port.name}": cannot be opened', "try another")
                    ports[port.name] = port
                case RemovePort(name):
                    del ports[name]
        self._networks, self._ports = networks, ports
        self.applied.append(list(actions))

    def ports(self) -> list[dict[str, Any]]:
        return [
            {
                "name": port.name, "network": port.network, "kind": port.kind,
                "state": "waiting", "reason": "no front end yet", "index": index,
                "mac": port.mac, "queues": port.queues,
                "mtu": self._networks[port.network].mtu,
                "peer": getattr(port, "socket", None),
                "features": {"offered": ["mrg_rxbuf", "version_1"], "acked": []},
                "rx_frames": 0, "rx_bytes": 0, "tx_frames": 0, "tx_bytes": 0, "drops": {},
                **self.counters.get(port.name, {}),
            }
            for index, port in enumerate(self._ports.values())
        ]

    def networks(self) -> list[dict[str, Any]]:
        return [
            {
                "name": network.name, "vni": network.vni, "mtu": network.mtu,
                "ports": [p.name for p in self._ports.values() if p.network == network.name],
                "fdb_entries": sum(e["network"] == network.name for e in self.learned),
                "fdb_limit": network.fdb_limit,
            }
            for network in self._networks.values()
        ]

    def port(self, name: str) -> dict[str, Any]:
        return next(port for port in self.ports() if port["name"] == name)

    def network(self, name: str) -> dict[str, Any]:
        return next(network for network in self.networks() if network["name"] == name)

    def fdb(self, network: str | None) -> list[dict[str, Any]]:
        return [e for e in self.learned if network in (None, e["network"])]

    def workers(self) -> list[dict[str, Any]]:
        return [{
            "cpu": None, "passes": 10 + self.moved, "busy_passes": self.moved,
            "frames": self.moved, "busy_cycles": 100 * self.moved,
            "cycles_per_frame": 100.0 if self.moved else None, "sleeps": 1,
            "asleep": not self.moved, "ports": list(self._ports), "plan": len(self.applied),
        }]
