# SPDX-License-Identifier: Apache-2.0
"""What network functions emit, for whoever listens: rings of instances, read and handed on.

Used by function_answers. Belongs to the control thread.

A ring is read when a worker wakes us, as long as somebody listens; else what is emitted waits in
it, as much as there is room for. Who listens too slowly misses events, and is told how many.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

ROOM = 4096  # events that wait for one listener
Told = dict[str, Any]


class Listener:
    """What one listener has not taken yet."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Told | None] = asyncio.Queue(ROOM + 1)
        self._missed = 0
        self._ended = False

    def tell(self, event: Told) -> None:
        """Have it take this; it is missed where too many wait."""
        if self._waiting.qsize() >= ROOM:
            self._missed += 1
        else:
            self._waiting.put_nowait(event)

    def end(self) -> None:
        """There will be no more."""
        if not self._ended:
            self._ended = True
            self._waiting.put_nowait(None)

    async def take(self) -> AsyncIterator[Told]:
        """Events until the end; {"missed": n} where some were."""
        while (event := await self._waiting.get()) is not None:
            yield event
            if self._missed and not self._waiting.qsize():
                missed, self._missed = self._missed, 0
                yield {"missed": missed}


class Ring:
    """One event of an instance: its memory (functions.event_memory) and who listens."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, memory: Any) -> None:
        self._loop = loop
        self._name = name
        self.memory = memory
        self._listeners: list[Listener] = []

    def join(self, listener: Listener) -> None:
        """It is told from now on; where the memory is gone, that there will be no more."""
        if self.memory.fd < 0:
            listener.end()
            return
        if not self._listeners:
            self._loop.add_reader(self.memory.fd, self._read)
            self._loop.call_soon(self._read)  # what waits already
        self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        """It is told no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            if not self._listeners:
                self._loop.remove_reader(self.memory.fd)

    def end(self) -> None:
        """The instance is gone, or has another event of this name."""
        for listener in list(self._listeners):
            self.leave(listener)
            listener.end()

    def _read(self) -> None:
        for event in self.memory.take() if self._listeners else ():
            told = {"event": self._name, **self.memory.shown(event)}
            for listener in self._listeners:
                listener.tell(told)


class Rings:
    """The events of all instances, as far as somebody listens."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rings: dict[Any, Ring] = {}  # by memory: names change

    async def events(self, memories: Mapping[str, Any]) -> AsyncIterator[Told]:
        """What an instance emits; ``memories``: of the events that are asked for."""
        listener = Listener()
        rings = [self._ring(event, memory) for event, memory in memories.items()]
        for ring in rings:
            ring.join(listener)
        try:
            async for event in listener.take():
                yield event
        finally:
            for ring in rings:
                ring.leave(listener)

    def _ring(self, event: str, memory: Any) -> Ring:
        if memory in self._rings:
            return self._rings[memory]
        made = Ring(self._loop, event, memory)
        if memory.fd >= 0:
            self._rings[memory] = made
        return made

    def close(self) -> None:
        """Whoever listens has heard all."""
        for ring in self._rings.values():
            ring.end()
        self._rings.clear()

    def end(self, memory: Any) -> None:
        """The memory of an event is about to be given back."""
        if ring := self._rings.pop(memory, None):
            ring.end()
