# SPDX-License-Identifier: Apache-2.0
"""What wanted and the API need of the network functions of a running switch.

Used by both; functions.py is it. Uses function_needs, problem and the
blueprints of byway.functions.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Protocol

from byway.control.function_needs import Needs
from byway.control.function_steps import Direction
from byway.control.problem import Problem
from byway.functions.blueprint import Blueprint


class FunctionDesk(Protocol):
    """Belongs to the control thread. EngineError: there is none of that name, or it refuses."""

    changing: asyncio.Lock
    removing: set[str]  # instances that the change under way is to remove

    def needs_building(self, needs: Needs) -> bool:
        """Must something be built before a change that needs this?"""

    async def prepare(self, needs: Needs) -> None:
        """Have it built, while ``changing`` is held. ConfigError: it cannot be."""

    def check(self, needs: Needs) -> list[Problem]:
        """What is wrong with the parameters that a change gives."""

    def version(self) -> Mapping[str, Blueprint]:
        """The code that there is now, for ``back_to``."""

    def back_to(self, version: Mapping[str, Blueprint]) -> None:
        """Have the code that was there then: a change that it was replaced for is refused."""

    async def reload(self, names: Collection[str] = ()) -> list[str]:
        """Read the files of these instances again, or of all; -> uses that are others now."""

    async def settled(self) -> list[str]:
        """Returns when nothing is being built; -> sentences: what could not be had."""

    def shown(self) -> list[dict[str, Any]]:
        """All instances, with their parameters and counters."""

    def show(self, name: str) -> dict[str, Any]:
        """One instance, with what is known of its state as well."""

    def rows(self, name: str, table: str, limit: int) -> AsyncIterator[list[dict[str, Any]]]:
        """Entries of a table, each with ``key`` and ``value``, some at a time; at most so many."""

    async def put(self, name: str, table: str, rows: Any, *, whole: bool) -> None:
        """Put entries into a table, all or none; ``whole``: and have no others."""

    async def remove(self, name: str, table: str, key: str | None) -> bool:
        """Remove an entry, or all; -> was there one?"""

    async def trace(self, port: str, frame: bytes, direction: Direction,
                    where: Mapping[str, Any]) -> dict[str, Any]:
        """What each function of a port says of a frame, without the switch seeing it."""

    async def watch(self, port: str, direction: Direction, frames: int,
                    seconds: float) -> list[dict[str, Any]]:
        """What each function of a port makes of its next frames, at most so many or so long."""

    def listen(self, api: str, most: int) -> None:
        """The API is served at this socket: listeners may run, each in a process of its own, at
        most so many."""

    async def ended(self) -> None:
        """Returns when no listener runs any more."""

    def events(self, name: str, event: str | None) -> AsyncIterator[dict[str, Any]]:
        """What an instance emits from now on, of one of its events or of all; ends with it."""
