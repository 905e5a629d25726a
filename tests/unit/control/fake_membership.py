# SPDX-License-Identifier: Apache-2.0
"""A cluster of one, in dictionaries. Used by the tests of control, client and cli."""

from typing import Any

from byway.control.problem import EngineError


class FakeMembership:
    """What is put is kept; "auto" takes the first free number or address. `lost`: it does not
    answer."""

    def __init__(self) -> None:
        self.lost = False
        self.published = 0
        self.networks: dict[str, dict[str, Any]] = {}
        self.ports: dict[tuple[str, str], dict[str, Any]] = {}

    async def start(self) -> None:
        """Nothing to follow."""

    async def close(self) -> None:
        """Nothing to leave."""

    def publish(self) -> None:
        self.published += 1

    def status(self) -> dict[str, Any]:
        return {"etcd": ["127.0.0.1:2379"], "host": "h1", "connected": not self.lost,
                "synced": True, "counts": {"hosts": 1, "entries": 0}, "lag": None,
                "members": [{"host": "h2", "address": "192.0.2.2", "networks": ["blue", "red"]}],
                "problems": ["network \"x\" is ignored: it has no name"] if self.lost else []}

    async def put_network(self, table: dict[str, Any]) -> dict[str, Any]:
        self._answer()
        vni = table.get("vni")
        if vni == "auto":
            vni = 1 + max((n["vni"] or 0 for n in self.networks.values()), default=0)
        self.networks[table["name"]] = {**table, "vni": vni}
        return self.networks[table["name"]]

    async def delete_network(self, name: str) -> None:
        self._answer()
        self.networks.pop(name, None)

    async def put_port(self, host: str, table: dict[str, Any]) -> dict[str, Any]:
        self._answer()
        if table.get("ips") == "auto":
            table = {**table, "ips": [f"10.0.0.{2 + len(self.ports)}"]}
        self.ports[host, table["name"]] = table
        return table

    async def delete_port(self, host: str, name: str) -> None:
        self._answer()
        self.ports.pop((host, name), None)

    def _answer(self) -> None:
        if self.lost:
            raise EngineError("the cluster does not answer", "see whether etcd runs")
