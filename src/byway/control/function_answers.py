# SPDX-License-Identifier: Apache-2.0
"""What a switch tells of its network functions, and how their tables are changed.

Used by policy (which makes it) and, as a FunctionDesk, by wanted, the API and the daemon. Uses
functions, function_events, function_listeners, function_tables.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

from byway.control.function_events import Rings
from byway.control.function_listeners import Listeners
from byway.control.function_places import Place
from byway.control.function_steps import Direction, Placed, Way
from byway.control.function_tables import Desk
from byway.control.function_trace import trace
from byway.control.functions import Functions, Watched
from byway.control.model import NetworkConfig, PortConfig
from byway.control.problem import ConfigError, EngineError, NotThere, nearest
from byway.functions.blueprint import Blueprint
from byway.machine.clock import tsc

_SECOND = 1_000_000_000
LOOK_SECONDS = 0.05  # between two looks whether enough frames have come
_WAYS: dict[Direction, str] = {"rx": "in", "tx": "out"}


class AnsweringFunctions(Functions):
    """The network functions of one switch, with all that is asked about them."""

    _rings: Rings | None = None
    _listeners: Listeners | None = None

    def chains(self, port: PortConfig, network: NetworkConfig, kept: list[Any]) -> dict[str, int]:
        """As Functions.chains. It is kept which network is the port's own."""
        self._own_network[port.name] = port.network
        return super().chains(port, network, kept)

    def leave(self, port: PortConfig) -> None:
        """As Functions.leave."""
        self._own_network.pop(port.name, None)
        super().leave(port)

    @cached_property
    def _own_network(self) -> dict[str, str]:
        return {}

    # ------------------------------------------------------------ what there is
    def shown(self) -> list[dict[str, Any]]:
        """All instances, those with a name of their own first; each with parameters and counters.
        """
        return [self._shown(name, placed) for name, placed in self._every().items()]

    def show(self, name: str) -> dict[str, Any]:
        """One instance, with what is known of its code and state as well."""
        placed = self._one(name)
        if placed is None:
            every = self._every()
            listed = ", ".join(list(every)[:8]) or "none"
            raise NotThere(f'there is no network function "{name}"',
                           nearest(name, every) or f"there are: {listed}")
        found = self._shown(name, placed)
        if name in self.instances:
            instance = self.instances[name]
            found["states"] = {state: memory.stats() for state, memory in instance.states.items()}
            if self._listeners and name in self._listeners.shown:
                found["listener"] = self._listeners.shown[name]
            found["now"] = int(int(tsc()) * _SECOND / self._hz)
            found["since_1970"] = time.time()
        return self._declared(self.library.blueprints.get(placed.use)) | found

    def _every(self) -> dict[str, Placed]:
        """All that are wanted, by name."""
        found = {name: Placed(name, config.use, None) for name, config in self.named.items()}
        for one in self.places.every():
            found.setdefault(one.name, one)
        return found

    def _one(self, name: str) -> Placed | None:
        """One that is wanted."""
        if name in self.named:
            return Placed(name, self.named[name].use, None)
        return next((one for fitted in self.places.standing(name) for one in fitted.placed
                     if one.name == name), None)

    def _shown(self, name: str, placed: Placed) -> dict[str, Any]:
        blueprint = self.library.blueprints.get(placed.use)
        shown: dict[str, Any] = {
            "name": name, "use": placed.use, "function": blueprint.name if blueprint else None,
            "summary": blueprint.doc.strip().partition("\n")[0] if blueprint else "",
            "ports": self.having(name), "state": "ready", "reason": ""}
        if name not in self.instances:
            reason = self._why_not(name, placed.use)
            return shown | {"state": "failed" if reason else "building", "reason": reason,
                            "parameters": {}, "frames": 0, "drops": {}, "faults": 0,
                            "last_fault": None, "copies_lost": 0}
        instance = self.instances[name]
        return shown | {"parameters": instance.parameters, **instance.counters}

    def _why_not(self, name: str, use: str) -> str:
        if problems := self.library.problems.get(use):
            return str(problems[0])
        said = (fitted.problem or self._unbuilt.get(way.order, "")
                for fitted in self.places.standing(name) if not fitted.complete
                for way in fitted.ways)
        return self._wrong.get(name) or next(filter(None, said), "")

    @staticmethod
    def _declared(blueprint: Blueprint | None) -> dict[str, Any]:
        """What its code declares."""
        if blueprint is None:
            return {"declared": None}
        return {"doc": blueprint.doc, "listener": None, "declared": {
            "listener": blueprint.listener,
            "parameters": dict(blueprint.parameters), "states": dict(blueprint.states),
            "reasons": list(blueprint.reasons), "budget": blueprint.budget,
            "methods": sorted(blueprint.methods), "files": sorted(blueprint.files)}}

    # ------------------------------------------------------------ tables, events
    def rows(self, name: str, table: str, limit: int) -> AsyncIterator[list[dict[str, Any]]]:
        """Entries of a table, each with ``key`` and ``value``, some at a time; at most so many."""
        self._ready(name)
        return self._tables.rows(name, table, limit)

    async def put(self, name: str, table: str, rows: Any, *, whole: bool) -> None:
        """Put entries into a table, all or none; ``whole``: and have no others."""
        self._ready(name)
        await self._tables.put(name, table, rows, whole=whole)

    async def remove(self, name: str, table: str, key: str | None) -> bool:
        """Remove an entry, or all; -> was there one?"""
        self._ready(name)
        return await self._tables.remove(name, table, key)

    @cached_property
    def _tables(self) -> Desk:
        return Desk(self.instances.get)

    def _ready(self, name: str) -> None:
        found = self.show(name)
        if found["state"] != "ready":
            raise EngineError(f"{name} is not there yet: {found['reason'] or 'it is being built'}",
                              f"see `byway nf show {name}`")

    def events(self, name: str, event: str | None) -> AsyncIterator[dict[str, Any]]:
        """What an instance emits from now on, of one of its events or of all; ends with it."""
        self._ready(name)
        memories = dict(self._memories(name))
        if event is not None and event not in memories:
            known = ", ".join(memories) or "none"
            raise NotThere(f'{name} has no event "{event}"',
                           nearest(event, memories) or f"its events are: {known}")
        if not memories:
            raise EngineError(f"{name} emits no events", "its code has no nf.Event")
        if self._rings is None:
            self._rings = Rings(self._loop)
            self.instances.on_close = self._rings.end
        return self._rings.events(memories if event is None else {event: memories[event]})

    def _memories(self, name: str) -> Iterator[tuple[str, Any]]:
        instance = self.instances[name]
        for event, spec in instance.blueprint.states.items():
            if spec["kind"] == "event":
                yield event, instance.states[event]

    async def trace(self, port: str, frame: bytes, direction: Direction,
                    where: Mapping[str, Any]) -> dict[str, Any]:
        """What each function of a port says of a frame of its own network, without the switch
        seeing it: {"steps", "frame"}. ``where``: numbers of port and network, and its vni."""
        _, way = self._way(port, direction)
        there = [(one.name, self.instances[one.name]) for one in way.placed
                 if self._takes_part(one, direction)]
        named = {str(value) for _, one in there for name, value in one.parameters.items()
                 if one.blueprint.parameters[name]["kind"] == "port"}
        return await trace(there, self.rows, frame, {
            **where, "direction": direction, "now": int(int(tsc()) * _SECOND / self._hz),
            "ports": {name: self._number(name) for name in named if name}})

    async def watch(self, port: str, direction: Direction, frames: int,
                    seconds: float) -> list[dict[str, Any]]:
        """What each function of a port makes of the next frames of its own network, at most so
        many, or in so long. Workers go on; state and counters are those of the instances."""
        from byway.functions.trace import Trace

        place, way = self._way(port, direction)
        await self._have_traced(way)
        place, way = self._way(port, direction)
        key = place, way.order
        if key in self._traced:
            raise EngineError(f'port "{port}" is watched already', "wait until that has ended")
        traced = way.order._replace(traced=True)
        if self.library.lacks(traced):
            raise EngineError(f'the chain of port "{port}" became another one', "try again")
        there = [way.placed[number] for number in self.library.code(traced).places]
        trace = Trace(frames, len(there))
        watched = self._traced[key] = Watched(trace, self._digests(way.order))
        reasons = [self.library.blueprints[one.use].reasons for one in there]
        try:
            self.refit([port])
            end = self._loop.time() + seconds
            while (not trace.complete and self._loop.time() < end
                   and self._digests(way.order) == watched.of):  # else it is another chain
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            del self._traced[key]
            self.refit([port])
        return [asdict(one) for one in trace.frames(
            [one.name for one in there], reasons, direction)]

    async def _have_traced(self, way: Way) -> None:
        """Have the code that notes what this chain does, of the functions as they run."""
        traced = way.order._replace(traced=True)
        async with self.changing:
            if not self.library.lacks(traced):
                return
            version = self.version()
            built = await self.library.build([traced], ())
            if problems := built.every_problem():
                raise ConfigError(problems)
            if other := [use for use, one in built.blueprints.items()
                         if use in version and version[use].digest != one.digest]:
                raise EngineError(f"the file of {other[0]} is another one than what runs",
                                  "have it run with `byway nf reload` first")
            self._take(built)

    def _way(self, port: str, direction: Direction) -> tuple[Place, Way]:
        """The functions for frames of a port's own network. EngineError: there are none, or they
        are not there yet."""
        place = port, self._own_network.get(port, "")
        fitted = self.places.get(place)
        way = fitted.ways[direction == "tx"] if fitted else Way(direction, ())
        if not any(self._takes_part(one, direction) for one in way.placed):
            raise EngineError(f'port "{port}" has no chain for frames that go {_WAYS[direction]}',
                              f"add a function with `byway nf add FUNCTION --port {port}`")
        for one in way.placed:
            self._ready(one.name)
        return place, way

    def _takes_part(self, one: Placed, direction: Direction) -> bool:
        blueprint = self.library.blueprints.get(one.use)
        return blueprint is None or blueprint.takes_part(direction, one.own)

    # ------------------------------------------------------------ listeners
    def listen(self, api: str, most: int) -> None:
        """The API is there: have the listeners of all instances run, at most so many."""
        self._listeners = Listeners(self._loop, api, most)
        self._follow(self.instances)

    def finish(self) -> None:
        """As Functions.finish; listeners come and go with their instances."""
        super().finish()
        self._follow(self.instances.changed())

    def _follow(self, names: Iterable[str]) -> None:
        if self._listeners:
            self._listeners.follow({name: _listened(self.instances.get(name)) for name in names})

    async def ended(self) -> None:
        """Returns when no listener runs any more; nobody is told of events any more."""
        if self._rings:
            self._rings.close()
        if self._listeners:
            await self._listeners.close()


def _listened(instance: Any) -> tuple[str, str] | None:
    """What the listener of an instance depends on; None: it has none."""
    if instance is None or not instance.blueprint.listener:
        return None
    return instance.blueprint.digest, json.dumps(instance.parameters)
