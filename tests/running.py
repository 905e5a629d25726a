# SPDX-License-Identifier: Apache-2.0
"""A real engine in this process, for tests: its event loop runs in a thread of its own.

Used by tests/unit, tests/scenarios and tests/hostile. Guests and front ends block, so
they run in the test's thread. ``stepped``: no worker threads; ``step()`` runs passes.

    with RunningSwitch(tmp_path) as switch:
        switch.network("blue")
        switch.vhost("vm1", "blue")
        with switch.guest("vm1", 1) as guest: ...
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from byway.control.actions import Action
from byway.control.data_path import prepare
from byway.control.engine import Engine
from byway.control.model import KINDS, NetworkConfig, SwitchConfig
from byway.machine.jit import prepare as prepare_entries
from byway.testing.guest import Guest
from byway.worker import units
from byway.worker.loop import worker_step

T = TypeVar("T")
SECONDS = 10.0  # longer than anything takes


def mac(number: int) -> str:
    """The address of station ``number``."""
    return f"02:00:00:00:00:{number:02x}"


class RunningSwitch:
    """An engine and its loop. Errors in callbacks of the loop fail the test when it ends."""

    def __init__(self, folder: Path, *, workers: Sequence[int] | None = None,
                 stepped: bool = False) -> None:
        self.folder = folder
        self.stepped = stepped
        self.errors: list[str] = []
        prepare(lambda text: None, stages=True)
        units.finish()  # a first time takes longer than a call may
        if stepped:  # on a slow machine it would be compiled longer than a call may take
            prepare_entries((worker_step,))
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._on_error)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()
        config = SwitchConfig(workers=None if workers is None else tuple(workers))
        self.engine = self.call(lambda: Engine(config, self.loop))
        if not stepped:
            self.call(self.engine.start)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)  # these end as they do in a switch
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run ``function`` on the control thread; -> its result, or its exception."""
        async def run() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(SECONDS * 2)

    # ------------------------------------------------------------ what it has
    def network(self, name: str = "blue", **options: Any) -> None:
        """Add a network."""
        self.call(self.engine.add_network, NetworkConfig(name=name, **options))

    def socket(self, port: str) -> str:
        """Where a port's socket is."""
        return str(self.folder / f"{port}.sock")

    def config(self, kind: str, name: str, network: str = "blue", **options: Any) -> Any:
        """A port's configuration, its socket in the test's folder."""
        if kind in ("vhost-user", "virtio-user"):
            options.setdefault("socket", self.socket(name))
        return KINDS[kind](kind=kind, name=name, network=network, **options)  # type: ignore[arg-type]

    def add(self, kind: str, name: str, network: str = "blue", **options: Any) -> None:
        """Add a port."""
        self.call(self.engine.add_port, self.config(kind, name, network, **options))

    def vhost(self, *names: str, network: str = "blue") -> None:
        """Add vhost-user ports."""
        for name in names:
            self.add("vhost-user", name, network)

    def remove(self, name: str) -> None:
        """Remove a port."""
        self.call(self.engine.remove_port, name)

    def apply(self, actions: Sequence[Action]) -> None:
        """Apply changes."""
        self.call(self.engine.apply, actions)

    def guest(self, port: str, number: int, **options: Any) -> Guest:
        """A guest with station ``number``'s address, on ``port``; its port is up."""
        guest = Guest.connect(self.socket(port), mac=mac(number), **options)
        self.until(lambda: self.port(port)["state"] == "up")
        return guest

    # ------------------------------------------------------------ what it says
    def port(self, name: str) -> dict[str, Any]:
        """The status of a port."""
        found: dict[str, Any] = next(
            p for p in self.call(self.engine.ports) if p["name"] == name)
        return found

    def worker(self) -> dict[str, Any]:
        """The first worker."""
        return self.call(self.engine.workers)[0]

    def drops(self) -> dict[str, dict[str, int]]:
        """{port: its drops} of the ports that have any."""
        return {p["name"]: p["drops"] for p in self.call(self.engine.ports) if p["drops"]}

    def lost(self) -> dict[str, dict[str, int]]:
        """The same, but for groups that a station told of itself while nobody else was there."""
        found = {name: {reason: n for reason, n in drops.items()
                        if reason not in ("no_destination", "port_down")}
                 for name, drops in self.drops().items()}
        return {name: drops for name, drops in found.items() if drops}

    def until(self, condition: Callable[[], Any], seconds: float = SECONDS) -> None:
        """Ask again and again until it is so; AssertionError where it never is."""
        end = time.monotonic() + seconds
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < end, "it never came to be"
            if self.stepped:
                self.step()
            pause.wait(0.001)

    def step(self, passes: int = 1, now: int | None = None) -> int:
        """Passes of all workers in the control thread; -> rows moved."""
        return self.call(lambda: sum(self.engine.step(now) for _ in range(passes)))

    def settle(self, now: int | None = None) -> None:
        """Passes until nothing moves any more, and no flood waits."""
        while self.step(now=now) or any(
                w["flood_backlog"] for w in self.call(self.engine.workers)):
            pass

    # ------------------------------------------------------------ its end
    def close(self) -> None:
        """Close the engine and the loop; AssertionError where a callback failed."""
        if self.loop.is_closed():
            return
        self.call(self.engine.close)
        asyncio.run_coroutine_threadsafe(
            self.loop.shutdown_default_executor(), self.loop).result(SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS)
        self.loop.close()
        assert self.errors == []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
