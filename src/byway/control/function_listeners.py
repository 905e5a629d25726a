# SPDX-License-Identifier: Apache-2.0
"""Listeners: the part of a network function that runs beside the switch, in a process of its own.

Used by function_answers. Starts `byway nf listen`, which asks the API for events and tables.

A function whose class has ``listen`` has one for each instance. It is started when the instance is
there, and again when its code or parameters become others; one that ends is started again, after a
while that doubles up to a minute each time that it did not even live for as long.

Each is a Python process of some ten MiB, and thousands of ports may have one each. So they are
started one after the other, a few a second, and there is a limit: others wait until one goes, or
ends and waits to be started again, and say so. One that is begun anew keeps its place.
"""

import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Hashable, Mapping
from typing import Any

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds until one that ended is started again
END_SECONDS = 2.0  # that one has to end by itself
START_SECONDS = 0.25  # between two starts
_COMMAND = (sys.executable, "-c", "from byway.cli.main import main; main()", "nf", "listen")


class Listeners:
    """The listeners of one switch. ``api``: its socket; ``most``: that run at the same time;
    ``command``: what is run, with the name of an instance and --api behind it. Belongs to the
    control thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, api: str, most: int,
                 command: tuple[str, ...] = _COMMAND) -> None:
        self._loop = loop
        self._api = api
        self._most = most
        self._command = command
        self._wanted: dict[str, Hashable] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._anew: dict[str, asyncio.Event] = {}  # set: the process is to be another one
        self._room = asyncio.Semaphore(most)
        self._turn = asyncio.Lock()
        self.shown: dict[str, dict[str, Any]] = {}  # by instance: state, pid, starts, last

    def follow(self, changed: Mapping[str, Hashable | None]) -> None:
        """Have a listener for each of these instances, begun anew where its value is another than
        before; None: have none any more."""
        for name, value in changed.items():
            if self._wanted.get(name) == value:
                continue
            if name in self._tasks and value is None:
                self._end(name)
            elif name in self._tasks:
                self._wanted[name] = value
                self._anew[name].set()
            elif value is not None:
                self._wanted[name] = value
                self._anew[name] = asyncio.Event()
                self.shown[name] = {"state": "starting", "pid": None, "starts": 0, "last": None}
                self._tasks[name] = self._loop.create_task(
                    self._keep(name, self.shown[name], self._anew[name]))

    def _end(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        del self.shown[name], self._wanted[name], self._anew[name]

    async def _keep(self, name: str, shown: dict[str, Any], anew: asyncio.Event) -> None:
        """Have it running until we are cancelled, begun anew whenever ``anew`` is set."""
        wait = FIRST_WAIT
        while True:
            if held_back := self._room.locked():
                shown.update(state="held back", last=f"the switch runs {self._most} listeners at"
                             " the most (switch.listeners)")
            async with self._room:
                if held_back:
                    shown.update(state="starting", last=None)
                began = await self._turns(name, shown, anew)
            # Others have the place meanwhile: this one may fail for ever.
            shown.update(state="waiting", pid=None)
            wait = (FIRST_WAIT if self._loop.time() - began > wait
                    else min(2 * wait, LONGEST_WAIT))
            if await _within(anew.wait(), wait):
                wait = FIRST_WAIT
                shown.update(starts=0, last=None)

    async def _turns(self, name: str, shown: dict[str, Any], anew: asyncio.Event) -> float:
        """Run it, and at once again as often as it is to begin anew: it keeps its place; -> when it
        began that has ended by itself."""
        while True:
            await self._wait_for_turn()
            anew.clear()
            began = self._loop.time()
            shown["starts"] += 1
            try:
                shown["last"] = await self._run(name, shown, anew)
            except (OSError, RuntimeError) as error:  # RuntimeError: no thread that waits for it
                shown["last"] = f"could not be started: {getattr(error, 'strerror', error)}"
            if not anew.is_set():
                return began
            shown.update(state="starting", pid=None, starts=0, last=None)

    async def _wait_for_turn(self) -> None:
        """Returns when the one before was started some time ago."""
        await self._turn.acquire()
        self._loop.call_later(START_SECONDS, self._turn.release)

    async def _run(self, name: str, shown: dict[str, Any], anew: asyncio.Event) -> str:
        """Run it until it ends by itself, or is to begin anew; -> how it ended."""
        process = await asyncio.create_subprocess_exec(
            *self._command, name, "--api", self._api, stdin=asyncio.subprocess.DEVNULL)
        shown.update(state="running", pid=process.pid)
        changed = self._loop.create_task(anew.wait())
        ended = self._loop.create_task(process.wait())
        try:
            await asyncio.wait([ended, changed], return_when=asyncio.FIRST_COMPLETED)
            return f"ended with status {process.returncode}"
        finally:
            changed.cancel()
            ended.cancel()
            await _end(process)

    async def close(self) -> None:
        """End all of them. Idempotent."""
        self.follow(dict.fromkeys(list(self._tasks)))
        if self._ending:
            await asyncio.wait(self._ending)


async def _within(what: Coroutine[Any, Any, Any], seconds: float) -> bool:
    """Wait so long at the most; -> did it come?"""
    try:
        async with asyncio.timeout(seconds):  # wait_for loses a cancellation when it just came
            await what
    except TimeoutError:
        return False
    return True


async def _end(process: asyncio.subprocess.Process) -> None:
    """Returns when it has ended; cancelled, it does not have the time to end by itself."""
    if process.returncode is not None:
        return
    try:
        process.terminate()
        await _within(process.wait(), END_SECONDS)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
