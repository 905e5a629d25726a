# SPDX-License-Identifier: Apache-2.0
"""An engine without workers: keeps what it is told in a dictionary, all or nothing.

Used by the tests of control, client and cli.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from byway.control.actions import (
    Action,
    AddPort,
    ChangeGroup,
    ChangeNetwork,
    ChangePort,
    SetUnderlay,
)
from byway.control.model import SwitchConfig
from byway.control.outcome import outcome
from byway.control.parts import UNDERLAY, Key, Kind, Part, mentions
from byway.control.problem import EngineError
from tests.unit.control.fake_functions import FakeFunctions

_COUNTERS: dict[str, Any] = {
    "rx_frames": 0, "rx_bytes": 0, "tx_frames": 0, "tx_bytes": 0, "drops": {}}


class FakeEngine:
    """`refuse` names ports that cannot be opened; `applied` keeps every call of apply(),
    `parts` what has become of them."""

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
        self.in_cluster = False
        self.tracked: list[dict[str, Any]] = []
        self.parts: dict[Key, Part] = {}
        self.functions = FakeFunctions(lambda: self.parts)

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False
        self.parts.clear()

    def join_cluster(self) -> None:
        self.in_cluster = True

    def apply(self, actions: Sequence[Action]) -> None:
        after = dict(self.parts)
        for action in actions:
            match action:
                case AddPort(port) if port.name in self.refuse:
                    raise EngineError(f'port "{port.name}": cannot be opened', "try another")
            for key, part in outcome([action]).items():
                _check_step(action, key, after)
                if part is None:
                    after.pop(key, None)
                else:
                    after[key] = part
        self.parts = after
        self.applied.append(list(actions))

    def _all(self, kind: Kind) -> dict[str, Any]:
        return {key.name: part for key, part in self.parts.items() if key.kind == kind}

    def ports(self) -> list[dict[str, Any]]:
        return [
            {
                "name": port.name, "network": port.network, "kind": port.kind,
                "state": "waiting", "reason": "no front end yet", "index": index,
                "mac": port.mac, "queues": port.queues,
                "mtu": self._all("network")[port.network].mtu,
                "peer": getattr(port, "socket", None),
                "features": {"offered": ["mrg_rxbuf", "version_1"], "acked": []},
                "rx_frames": 0, "rx_bytes": 0, "tx_frames": 0, "tx_bytes": 0, "drops": {},
                **self.counters.get(port.name, {}),
            }
            for index, port in enumerate(self._all("port").values())
        ]

    def networks(self) -> list[dict[str, Any]]:
        return [
            {
                "name": network.name, "vni": network.vni, "mtu": network.mtu,
                "ports": [p.name for p in self._all("port").values() if p.network == network.name],
                "fdb_entries": sum(e["network"] == network.name for e in self.learned),
                "fdb_limit": network.fdb_limit,
            }
            for network in self._all("network").values()
        ]

    def port(self, name: str) -> dict[str, Any]:
        return next(port for port in self.ports() if port["name"] == name)

    def network(self, name: str) -> dict[str, Any]:
        return next(network for network in self.networks() if network["name"] == name)

    def fdb(self, network: str | None) -> list[dict[str, Any]]:
        return [e for e in self.learned if network in (None, e["network"])]

    def hosts(self) -> list[dict[str, Any]]:
        return [{"name": host.name, "address": host.address, "networks": list(host.networks),
                 **_COUNTERS, **self.counters.get(host.name, {})}
                for host in self._all("host").values()]

    def underlay(self) -> dict[str, Any] | None:
        if UNDERLAY not in self.parts:
            return None
        return {"state": "up", "reason": "", **_COUNTERS, **self.counters.get("underlay", {})}

    def population(self, network: str | None) -> list[dict[str, Any]]:
        return [
            {"network": e.network, "mac": e.mac, "ips": list(e.ips), "host": e.host, "port": None}
            for e in self._all("entry").values() if network in (None, e.network)]

    def services(self) -> list[dict[str, Any]]:
        return [{**part.model_dump(), "bypassed": 0, "blocked": 0, "appliances": [
            {**one.model_dump(), "state": "up", "reason": "", "slots": 256}
            for one in part.appliances]} for part in self._all("service").values()]

    def connections(self, port: str | None, limit: int) -> list[dict[str, Any]]:
        return [one for one in self.tracked if port in (None, one["port"])][:limit]

    def workers(self) -> list[dict[str, Any]]:
        return [{
            "cpu": None, "passes": 10 + self.moved, "busy_passes": self.moved,
            "frames": self.moved, "busy_cycles": 100 * self.moved,
            "cycles_per_frame": 100.0 if self.moved else None, "sleeps": 1,
            "asleep": not self.moved, "ports": list(self._all("port")), "plan": len(self.applied),
        }]


def _check_step(action: Action, key: Key, parts: dict[Key, Part]) -> None:
    """Is this action valid in this state, as the real engine needs it?"""
    match action:
        case ChangePort(old, _) | ChangeGroup(old, _) | ChangeNetwork(old, _):
            assert parts[key] == old
        case SetUnderlay():
            assert not any(other.kind == "host" for other in parts)
        case _ if type(action).__name__.startswith("Add"):
            assert key not in parts
            assert key.kind != "host" or UNDERLAY in parts
            needed = {"port": ("network", "group"), "entry": ("network", "host"),
                      "router": ("network",), "host": ("network",)}.get(key.kind, ())
            part = outcome([action])[key]
            assert part is not None
            assert all(m.of in parts for m in mentions(part) if m.of.kind in needed)
        case _:
            assert key in parts
            needing = {"network": ("port", "entry", "router"), "host": ("entry",),
                       "group": ("port",)}.get(key.kind, ())
            assert not any(m.of == key for k, part in parts.items() if k.kind in needing
                           for m in mentions(part))
