# SPDX-License-Identifier: Apache-2.0
"""Network functions without code: a FunctionDesk over what a FakeEngine was told.

Used by the tests of control, client and cli. What is built takes as long as ``gate`` is closed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

from byway.control.chains import short_name
from byway.control.function_needs import Needs
from byway.control.function_steps import ways
from byway.control.parts import Key, Part
from byway.control.problem import ConfigError, NotThere, Problem
from byway.functions.blueprint import Blueprint


class FakeFunctions:
    """``broken``: uses that cannot be built; ``built``: every request. Every function has the
    parameter "limit", which is no text, a table "table", and the event "seen"."""

    def __init__(self, parts: Callable[[], dict[Key, Part]]) -> None:
        self._parts = parts
        self.changing = asyncio.Lock()
        self.removing: set[str] = set()
        self.gate: asyncio.Event | None = None
        self.known: set[str] = set()
        self.broken: set[str] = set()
        self.built: list[set[str]] = []
        self.said: list[str] = []
        self.listening = ""
        self.tables: dict[tuple[str, str], dict[str, Any]] = {}
        self.emitted: dict[str, list[dict[str, Any]]] = {}

    # ------------------------------------------------------------ building
    def needs_building(self, needs: Needs) -> bool:
        return bool(needs.fresh) or any(
            use not in self.known for order in needs.orders for use, _ in order.steps)

    async def prepare(self, needs: Needs) -> None:
        assert self.changing.locked()
        uses = {*needs.fresh, *(use for order in needs.orders for use, _ in order.steps)}
        self.built.append(uses)
        if self.gate:
            await self.gate.wait()
        if bad := sorted(uses & self.broken):
            raise ConfigError([Problem(f"{bad[0]}:7", "a list cannot be", "use a state")])
        self.known |= uses

    def check(self, needs: Needs) -> list[Problem]:
        return [Problem(where, f"limit is {given['limit']!r}", "give a number")
                for where, _, given in needs.given if isinstance(given.get("limit"), str)]

    def version(self) -> Mapping[str, Blueprint]:
        return {}

    def back_to(self, version: Mapping[str, Blueprint]) -> None:
        assert self.changing.locked()

    async def reload(self, names: Collection[str] = ()) -> list[str]:
        if self.broken & self.known:
            raise ConfigError([Problem("guard.py:7", "a list cannot be", "use a state")])
        return sorted(self.show(name)["use"] for name in names) or sorted(self.known)

    async def settled(self) -> list[str]:
        return self.said

    async def trace(self, port: str, frame: bytes, direction: str,
                    where: Mapping[str, Any]) -> dict[str, Any]:
        names = [name for name, (_, _, ports) in self._every().items() if port in ports]
        step = {"verdict": "pass", "reason": "", "port": -1, "fault": None, "copies": []}
        return {"frame": frame.hex(), "steps": [
            {"name": name, **step, "changed": {"ip_ttl": [64, 63]}} for name in names]}

    async def watch(self, port: str, direction: str, frames: int,
                    seconds: float) -> list[dict[str, Any]]:
        step = {"function": f"{port}/Guard", "verdict": "pass", "changed": {"ip_ttl": (64, 63)}}
        return [{"length": 60, "headers": {"eth_type": "0x0800"}, "steps": [step]}] * (frames - 1)

    def listen(self, api: str, most: int) -> None:
        self.listening = api

    async def ended(self) -> None:
        self.listening = ""

    # ------------------------------------------------------------ what there is
    def _every(self) -> dict[str, tuple[str, dict[str, Any], list[str]]]:
        parts = self._parts()
        functions = {key.name: part for key, part in parts.items() if key.kind == "function"}
        found: dict[str, Any] = {name: (one.use, dict(one.parameters), [])  # type: ignore[union-attr]
                                 for name, one in functions.items()}
        for port in [part for key, part in parts.items() if key.kind == "port"]:
            for name in port.networks:  # type: ignore[union-attr]
                network: Any = parts[Key("network", name)]
                for way in ways(port, network, lambda one: functions[one].use):  # type: ignore
                    for one in way.placed:
                        entry = found.setdefault(one.name, (one.use, one.given or {}, []))
                        if port.name not in entry[2]:  # type: ignore[union-attr]
                            entry[2].append(port.name)  # type: ignore[union-attr]
        return found

    def shown(self) -> list[dict[str, Any]]:
        return [self.show(name) for name in self._every()]

    def show(self, name: str) -> dict[str, Any]:
        every = self._every()
        if name not in every:
            raise NotThere(f'there is no network function "{name}"', "see `byway nf list`")
        use, given, ports = every[name]
        return {"name": name, "use": use, "function": short_name(use), "summary": "Guards.",
                "ports": ports, "state": "ready", "reason": "",
                "parameters": {"limit": 100, **given}, "frames": 7, "drops": {"over limit": 2},
                "faults": 0, "last_fault": None, "copies_lost": 0, "doc": "Guards.",
                "declared": {"parameters": {"limit": {"kind": "int"}}, "states": {
                    "table": {"kind": "map"}, "seen": {"kind": "event"}}},
                "states": {"table": {"entries": len(self.tables.get((name, "table"), {}))}}}

    def _table(self, name: str, table: str) -> dict[str, Any]:
        if table != "table":
            raise NotThere(f'{name} has no table "{table}"', "its tables are: table")
        return self.tables.setdefault((name, table), {})

    def rows(self, name: str, table: str, limit: int) -> AsyncIterator[list[dict[str, Any]]]:
        return self._portions(list(self._table(name, table).items())[:limit])

    @staticmethod
    async def _portions(rows: list[Any]) -> AsyncIterator[list[dict[str, Any]]]:
        for key, value in rows:
            yield [{"key": key, "value": value}]

    async def put(self, name: str, table: str, rows: Any, *, whole: bool) -> None:
        there = self._table(name, table)
        if whole:
            there.clear()
        there.update(rows if isinstance(rows, dict) else enumerate(rows))

    async def remove(self, name: str, table: str, key: str | None) -> bool:
        there = self._table(name, table)
        if key is None:
            there.clear()
            return True
        return there.pop(key, None) is not None

    def events(self, name: str, event: str | None) -> AsyncIterator[dict[str, Any]]:
        self.show(name)
        return self._emitted(name, event)

    async def _emitted(self, name: str, event: str | None) -> AsyncIterator[dict[str, Any]]:
        for one in self.emitted.get(name, []):
            yield {"event": event or "seen", **one}
