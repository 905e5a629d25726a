# SPDX-License-Identifier: Apache-2.0
"""The real API over a FakeEngine, served on a Unix socket from a thread of its own.

Used by the tests of client, cli and integrations. `engine` makes another engine than the fake.
"""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from byway.control.api import make_app
from byway.control.model import Config, NetworkConfig, SwitchConfig, VhostUserPort
from byway.control.wanted import Wanted
from byway.machine import unixsocket
from tests.unit.control.fake_engine import FakeEngine
from tests.unit.control.fake_membership import FakeMembership

LAB = Config(
    switch=SwitchConfig(name="lab"),
    networks=(NetworkConfig(name="blue"),),
    ports=tuple(
        VhostUserPort(name=name, network="blue", kind="vhost-user", socket=f"/tmp/{name}.sock")
        for name in ("vm1", "vm2")
    ),
)


class FakeSwitch:
    """A switch `lab` with network blue and ports vm1 and vm2; `renew` brings it back to that.
    With ``in_cluster`` its API also has ``cluster``."""

    def __init__(self, path: Path, engine: Callable[[], FakeEngine] | None = None) -> None:
        self.path = str(path)
        self._make_engine = engine or (lambda: FakeEngine(LAB.switch))
        self.renew()
        self._listener: socket.socket = unixsocket.listen(self.path)
        settings = uvicorn.Config(self._app, lifespan="off", ws="none", log_config=None,
                                  interface="asgi3")
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener.dup()],), daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Begin anew, with a fresh engine."""
        self.engine = self._make_engine()
        self.wanted = Wanted(self.engine, LAB.switch)
        self.wanted.change(LAB)
        self.cluster = FakeMembership()
        self._apps = {True: make_app(self.wanted, self.cluster), False: make_app(self.wanted)}
        self.in_cluster = False

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await self._apps[self.in_cluster](scope, receive, send)

    def close(self) -> None:
        """End the server and remove its socket."""
        self._server.should_exit = True
        self._thread.join(10)
        unixsocket.close(self._listener)
