# SPDX-License-Identifier: Apache-2.0
"""Hosts of a cluster without a data path: what each would have told it is kept in dicts.

Used by the cluster's system tests and by bench/cluster.py."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from byway.control.cluster.cluster import Cluster
from byway.control.model import ClusterConfig
from byway.control.population import Population
from byway.control.problem import EngineError
from tests.unit.control.fake_overlay import FakeOverlay

SECONDS = 30.0
TTL = 6  # seconds that a lease lives: longer than a machine stalls


class FakeDesk:
    """Networks and ports in dicts. `refuses`: names that it does not take."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self.tables: dict[tuple[str, str], dict[str, Any]] = {}
        self.refuses: set[str] = set()
        self.moved_to: str | None = None  # the host's other address

    def put(self, kind: str, table: dict[str, Any]) -> None:
        if table["name"] in self.refuses:
            raise EngineError(f"{table['name']} is refused", "choose another")
        if kind == "port" and ("network", table["network"]) not in self.tables:
            raise EngineError(f"there is no network {table['network']}", "create it")
        if kind == "network" and ("network", table["name"]) not in self.tables:
            self._population.add_network(table["name"])
        self.tables[kind, table["name"]] = table

    def drop(self, kind: str, name: str) -> None:
        del self.tables[kind, name]
        if kind == "network":
            self._population.remove_network(name)

    def lose(self, kind: str, name: str) -> None:
        assert self.has(kind, name)

    def has(self, kind: str, name: str) -> bool:
        return (kind, name) in self.tables

    def networks(self) -> tuple[str, ...]:
        return tuple(sorted({table["network"] for (kind, _), table in self.tables.items()
                             if kind == "port"}))

    def address(self) -> str | None:
        return self.moved_to


class Host:
    """One host, number `number` of a cluster at `url`."""

    def __init__(self, name: str, url: str, number: int = 1, ttl: int = TTL, **config: Any) -> None:
        self.overlay = FakeOverlay()
        self.population = Population(self.overlay)
        self.desk = FakeDesk(self.population)
        self.said: list[str] = []
        self.address = f"192.0.2.{number}"
        self.cluster = Cluster(ClusterConfig(etcd=(url,), ttl=ttl, **config), name, self.address,
                               self.population, self.desk, self.said.append)

    async def __aenter__(self) -> "Host":
        await self.cluster.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cluster.close()

    def where(self, mac: int, network: str = "blue") -> str | None:
        """Behind which host the data path would look for an address; "nowhere"."""
        return self.overlay.entries.get((network, mac), ((), "nowhere"))[1]

    def status(self) -> dict[str, Any]:
        return self.cluster.status()


async def until(condition: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Wait until it holds; -> seconds that it took. AssertionError: it did not come to hold."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "it never came true"
        await asyncio.sleep(0.002)
    return time.monotonic() - began
