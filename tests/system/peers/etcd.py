# SPDX-License-Identifier: Apache-2.0
"""etcd with one member, in a folder and, where that is wished, a network namespace of its own.

Used by the tests of clusters. What it was told is in the folder: killed and started again, it goes
on where it was. The peers' port is on the loopback interface; without a namespace, of a free
number.
"""

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests import peers
from tests.system.peers.process import PeerError, Process, wait_until

START = 20.0  # seconds
TICK = 100  # milliseconds between its own heartbeats


def free_ports() -> tuple[int, int]:
    """Two TCP ports of the loopback interface that nobody listens at."""
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


class Etcd:
    """A running etcd; ``url`` is for clients. ``address``: where it listens, in the namespace that
    ``prefix`` (a command before its own) enters. `kill` and `start` again as often as a test likes.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1", port: int = 0,
                 prefix: Sequence[str] = (), options: Sequence[str] = ()) -> None:
        self.program = peers.find_program("etcd")
        self.control = peers.find_program("etcdctl")
        self.folder = folder / "etcd"
        self.folder.mkdir()
        self.prefix, self.options = list(prefix), list(options)
        host = f"[{address}]" if ":" in address else address
        client, own = free_ports()
        self.url = f"http://{host}:{port or client}"
        self.peer_url = f"http://127.0.0.1:{own}"
        self.starts = 0
        self.process = self.start()

    def start(self) -> Process:
        """Start it, on what it knew before, and wait until it answers."""
        self.starts += 1
        argv = [*self.prefix, self.program, "--name", "one",
                "--data-dir", str(self.folder / "data"),
                "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
                "--initial-cluster", f"one={self.peer_url}", "--log-level", "warn",
                "--heartbeat-interval", str(TICK), "--election-timeout", str(10 * TICK),
                *self.options]
        self.process = Process("etcd", argv, self.folder / f"etcd-{self.starts}.log")
        try:
            wait_until(self._answers, "etcd answers", START)
        except BaseException as error:
            self.process.stop()
            raise self.process.error(str(error)) from error
        return self.process

    def _answers(self) -> bool:
        if not self.process.running:
            raise self.process.error("ended")
        try:
            self.command("endpoint", "health", timeout=5)
        except (PeerError, subprocess.TimeoutExpired):
            return False
        return True

    def command(self, *words: str, timeout: float = 30.0) -> str:
        """`etcdctl WORDS`; what it printed. PeerError where it fails."""
        argv = [*self.prefix, self.control, "--endpoints", self.url, *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout,
                              env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"})
        if done.returncode:
            raise PeerError(f"$ {' '.join(argv)}\nended with {done.returncode}: {done.stderr}")
        return done.stdout

    def put(self, key: str, value: str) -> None:
        """Write a key."""
        self.command("put", "--", key, value)

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with this."""
        return self.command("get", "--prefix", "--keys-only", "--", prefix).split()

    def value(self, key: str) -> Any:
        """What a key holds, from JSON; None where it is not there."""
        text = self.command("get", "--print-value-only", "--", key)
        return json.loads(text) if text.strip() else None

    def delete(self, prefix: str) -> None:
        """Delete the keys that begin with this."""
        self.command("del", "--prefix", "--", prefix)

    def revision(self) -> int:
        """Its revision now."""
        status = json.loads(self.command("endpoint", "status", "--write-out", "json"))
        return int(status[0]["Status"]["header"]["revision"])

    def compact(self) -> None:
        """Forget every revision but the one of now."""
        self.command("compact", str(self.revision()))

    def kill(self) -> None:
        """SIGKILL; what it was told stays in its folder."""
        self.process.stop(signal.SIGKILL)

    def forget(self) -> None:
        """Remove what it was told, while it does not run."""
        shutil.rmtree(self.folder / "data")

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        return self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
