# SPDX-License-Identifier: Apache-2.0
"""A listener's session without a switch: events and tables are what a test puts into it."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

STARTED = 1_700_000_000.0  # when the functions' clock was 0, in seconds since 1970


class FakeSession:
    """What a listener is given: see byway.control. Its events end where the test's do."""

    def __init__(self, parameters: Mapping[str, Any],
                 events: Mapping[str, Iterable[Mapping[str, Any]]] | None = None) -> None:
        self.instance = "x"
        self.parameters = dict(parameters)
        self.ports = {1: "vm1", 2: "vm2"}
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.logged: list[str] = []
        self.now = 0
        self._events = dict(events or {})

    async def events(self, name: str) -> AsyncIterator[Mapping[str, Any]]:
        for event in self._events[name]:
            yield event

    async def table(self, name: str) -> list[dict[str, Any]]:
        return self.tables[name]

    def since_1970(self, nanoseconds: int | None = None) -> float:
        return STARTED + (self.now if nanoseconds is None else nanoseconds) / 1e9

    def log(self, text: str) -> None:
        self.logged.append(text)
