# SPDX-License-Identifier: Apache-2.0
"""Listeners: the part of a network function that runs beside the switch, in a process of its own.

Used by function_answers. Starts `byway nf listen`, which asks the API for events and tables.

A function whose class has ``listen`` has one for each instance. It is started when the instance is
there, and again when its code or parameters become others; one that ends is started again, after a
while that doubles up to a minute each time that it did not even live for as long.

Each is a Python process of some ten MiB, and thousands of ports may have one each. So they are
started one after the other, a few a second, and there is a limit: others wait until one goes, and
say so.
"""

import asyncio
import sys
from collections.abc import Hashable, Mapping
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
        self._room = asyncio.Semaphore(most)
        self._turn = asyncio.Lock()
        self.shown: dict[str, dict[str, Any]] = {}  # by instance: state, pid, starts, last

    def follow(self, changed: Mapping[str, Hashable | None]) -> None:
        """Have a listener for each of these instances, begun anew where its value is another than
        before; None: have none any more."""
        for name, value in changed.items():
            if self._wanted.get(name) == value:
                continue
            if name in self._tasks:
                self._end(name)
            if value is not None:
                self._wanted[name] = value
                self.shown[name] = {"state": "starting", "pid": None, "starts": 0, "last": None}
                self._tasks[name] = self._loop.create_task(self._keep(name, self.shown[name]))

    def _end(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        del self.shown[name], self._wanted[name]

    async def _keep(self, name: str, shown: dict[str, Any]) -> None:
        """Have it running until we are cancelled."""
        if self._room.locked():
            shown.update(state="held back", last=f"the switch runs {self._most} listeners at the"
                         " most (switch.listeners)")
        async with self._room:
            shown.update(state="starting", last=None)
            wait = FIRST_WAIT
            while True:
                await self._wait_for_turn()
                began = self._loop.time()
                shown["starts"] += 1
                try:
                    shown["last"] = await self._run(name, shown)
                except OSError as error:
                    shown["last"] = f"could not be started: {error.strerror}"
                shown.update(state="waiting", pid=None)
                wait = (FIRST_WAIT if self._loop.time() - began > wait
                        else min(2 * wait, LONGEST_WAIT))
                await asyncio.sleep(wait)

    async def _wait_for_turn(self) -> None:
        """Returns when the one before was started some time ago."""
        await self._turn.acquire()
        self._loop.call_later(START_SECONDS, self._turn.release)

    async def _run(self, name: str, shown: dict[str, Any]) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._command, name, "--api", self._api, stdin=asyncio.subprocess.DEVNULL)
        shown.update(state="running", pid=process.pid)
        try:
            return f"ended with status {await process.wait()}"
        finally:
            await _end(process)

    async def close(self) -> None:
        """End all of them. Idempotent."""
        self.follow(dict.fromkeys(list(self._tasks)))
        if self._ending:
            await asyncio.wait(self._ending)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
