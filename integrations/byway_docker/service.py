# SPDX-License-Identifier: Apache-2.0
"""The plugin as a process: its socket, its threads, its end.

Used by the command `byway docker-plugin`, which hands the listening socket over. Uses all other
modules, and uvicorn.

One asyncio loop reads requests; THREADS threads carry them out; one thread of its own looks after
the switch once a second. SIGTERM and SIGINT end it with status 0: what is under way is answered
first. Nothing has to be put away: it may be killed at any moment.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import uvicorn

from byway_docker.ipam_driver import IpamDriver
from byway_docker.namespace import AnyNamespaces, Namespaces
from byway_docker.network_driver import NetworkDriver
from byway_docker.outside import AnyOutside, Outside
from byway_docker.reconcile import Reconciler
from byway_docker.state import State
from byway_docker.switch import AnySwitch, Switch
from byway_docker.wire import BODY_SECONDS, Application, Method

THREADS = 32
# Connections are dockerd's to close: were one closed as its next call is under way, dockerd would
# repeat the call without its body.
KEEP_ALIVE = 1_000_000  # seconds
LOOK = 1.0  # seconds between two looks at the switch
LOG = logging.getLogger("byway.docker")


@dataclass(frozen=True)
class Settings:
    """Where everything is. `netns`: dockerd's network namespace, None: the plugin's and the
    switch's own."""

    api: str
    state: str
    netns: str | None = None


class Plugin:
    """Both drivers over one state, and what looks after them. `clock` in seconds."""

    def __init__(self, state: State, switch: AnySwitch, outside: AnyOutside,
                 namespaces: AnyNamespaces, clock: Callable[[], float] = time.monotonic) -> None:
        self.network = NetworkDriver(state, switch, outside, namespaces)
        self.ipam = IpamDriver(state, self.network, clock)
        self.reconciler = Reconciler(self.network, clock)

    def methods(self) -> dict[str, Method]:
        """The methods by the name that Docker calls them."""
        named: dict[str, Mapping[str, Method]] = {
            "NetworkDriver": self.network.methods, "IpamDriver": self.ipam.methods}
        return {f"{kind}.{name}": method
                for kind, methods in named.items() for name, method in methods.items()}


def main(settings: Settings, listener: socket.socket) -> None:
    """Serve the plugin on a listening socket until a signal. Raises Refused at the start."""
    state = State(settings.state)
    switch = Switch(settings.api, settings.netns)
    try:
        plugin = Plugin(state, switch, Outside(settings.netns), Namespaces())
        asyncio.run(serve(plugin, listener))
    finally:
        switch.close()
        state.close()


async def serve(plugin: Plugin, listener: socket.socket, *, signals: bool = True,
                stop: asyncio.Event | None = None, body_seconds: float = BODY_SECONDS) -> None:
    """Serve until a signal, or until `stop` is set."""
    loop = asyncio.get_running_loop()
    stop = stop or asyncio.Event()
    if signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    with ThreadPoolExecutor(THREADS, "byway-docker") as threads:
        application = Application(plugin.methods(), threads, body_seconds)
        server = _Server(uvicorn.Config(
            application, lifespan="off", http="h11", ws="none", loop="asyncio", log_config=None,
            access_log=False, date_header=False, server_header=False, proxy_headers=False,
            interface="asgi3", timeout_graceful_shutdown=5, timeout_keep_alive=KEEP_ALIVE,
        ), stop)
        looking = asyncio.create_task(_look(plugin.reconciler, stop))
        looking.add_done_callback(lambda _: stop.set())
        LOG.info("docker plugin is up: %s", listener.getsockname())
        await server.serve(sockets=[listener])
        await looking


async def _look(reconciler: Reconciler, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await asyncio.to_thread(reconciler.tick)
        except Exception:
            LOG.exception("looking after the switch failed")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK)


class _Server(uvicorn.Server):
    """Leaves the signals alone, and waits for its end without a timer."""

    def __init__(self, settings: uvicorn.Config, stop: asyncio.Event) -> None:
        super().__init__(settings)
        self._stop = stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self._stop.wait()
        self.should_exit = True
