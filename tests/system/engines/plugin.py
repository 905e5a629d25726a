# SPDX-License-Identifier: Apache-2.0
"""`byway docker-plugin`, started as a user starts it, under a name of the test's own.

Used by the tests of Docker. dockerd finds plugins in one place for the whole machine
(`docker.PLUGINS`), so the name of the network driver is new for each test. `kill` and `start` it as
often as a test likes.
"""

import signal
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Self

from byway.ipam import Pools
from tests.system.engines.docker import PLUGINS
from tests.system.engines.place import Place
from tests.system.peers.process import Process, wait_until
from tests.system.peers.switch import BYWAY, Switch


class Plugin:
    """A running plugin of a switch; `name` is what dockerd calls its driver."""

    def __init__(self, place: Place, switch: Switch) -> None:
        self.place = place
        self.name = place.namespace.name
        self.socket = PLUGINS / f"{self.name}.sock"
        self.state = place.folder / "docker.db"
        self.api = switch.api
        self.starts = 0
        self.process = self.start()

    def start(self) -> Process:
        """Start it and wait until it says that it is up."""
        self.starts += 1
        log = self.place.folder / f"plugin-{self.starts}.log"
        argv = [*self.place.namespace.prefix, str(BYWAY), "docker-plugin"]
        argv += ["--socket", str(self.socket), "--api", str(self.api), "--state", str(self.state)]
        self.process = Process("byway docker-plugin", argv, log)
        self.process.expect("docker plugin is up", 60)
        wait_until(self.socket.is_socket, f"{self.socket} is there", 10)
        return self.process

    def held(self) -> set[str]:
        """The addresses that it has given out, gateways too, without prefix lengths."""
        with closing(Pools(str(self.state))) as pools:
            found = {held.address for pool in pools.pools() for held in pools.addresses(pool.id)}
        return {address.partition("/")[0] for address in found}

    def endpoints(self) -> set[str]:
        """The ids of the endpoints that it knows."""
        return self._column("SELECT id FROM docker_endpoints")

    def left_overs(self) -> set[str]:
        """What it still has to remove at the switch."""
        return self._column("SELECT name FROM docker_left_overs")

    def _column(self, query: str) -> set[str]:
        with closing(sqlite3.connect(f"file:{self.state}?mode=ro", uri=True)) as file:
            return {row[0] for row in file.execute(query)}

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """In the place of the plugin, which is dead, somebody who refuses every call."""
        self.socket.unlink(missing_ok=True)
        with _Deaf(str(self.socket), _Refuses) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()
        self.socket.unlink()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.stop(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; its socket goes with it, also where it was killed before."""
        self.process.stop()
        self.socket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Refuses(BaseHTTPRequestHandler):
    """Answers every call with an error, as dockerd sees it where nobody answers for long."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody wants to know."""


class _Deaf(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """dockerd hangs up when it likes."""
