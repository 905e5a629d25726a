# SPDX-License-Identifier: Apache-2.0
"""`byway run` on a configuration made here, and its API.

Used by the tests and the bench. The switch is the installed command, started like a user starts it;
what it does is seen through its API and through `byway ... --json`.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from byway.client import Client, ClientError
from tests.system.peers.process import PeerError, Process, wait_until

BYWAY = Path(sys.executable).with_name("byway")
START = 300.0  # seconds for the first start ever, which compiles


@dataclass(frozen=True)
class Port:
    """A port of the configuration, with a socket."""

    name: str
    socket: Path
    mode: str = "server"
    network: str = "blue"
    kind: str = "vhost-user"
    queues: int = 1

    def body(self) -> dict[str, Any]:
        """The port as the API takes it."""
        return {
            "name": self.name,
            "network": self.network,
            "kind": self.kind,
            "socket": str(self.socket),
            "mode": self.mode,
            "queues": self.queues,
        }


def configuration(
    api: Path, ports: Iterable[Port], workers: Sequence[int], mtus: Mapping[str, int],
    state: Path | None = None,
) -> str:
    """The TOML file for these ports, all in the networks they name, whose MTUs may be given."""
    ports = list(ports)
    cpus = f"workers = {list(workers)}\n" if workers else ""
    kept = f'state = "{state}"\n' if state else ""
    text = f'[switch]\nname = "lab"\napi = "{api}"\n{cpus}{kept}'
    for network in sorted({port.network for port in ports} | {"blue"}):
        text += f'\n[[network]]\nname = "{network}"\nmtu = {mtus.get(network, 1500)}\n'
    for port in ports:
        text += "\n[[port]]\n"
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in port.body().items())
    return text


class Switch:
    """A running `byway run`. `kill` and `start` again as often as a test likes.

    `prefix` comes before its command (`nsenter ...`); `state` is where it keeps what it was told;
    `text` is a whole configuration instead of one made here, whose API is at `folder`/api.sock.
    """

    def __init__(
        self,
        folder: Path,
        ports: Iterable[Port],
        workers: Sequence[int] = (),
        mtus: Mapping[str, int] | None = None,
        prefix: Sequence[str] = (),
        state: Path | None = None,
        text: str = "",
    ) -> None:
        self.folder = folder
        self.prefix = list(prefix)
        self.api = folder / "api.sock"
        self.file = folder / "lab.toml"
        self.file.write_text(
            text or configuration(self.api, ports, workers, mtus or {}, state))
        self.client = Client(str(self.api), timeout=START)
        self.starts = 0
        self.process = self.start()

    def start(self) -> Process:
        """Start it and wait until its API answers."""
        self.starts += 1
        log = self.folder / f"byway-{self.starts}.log"
        argv = [*self.prefix, str(BYWAY), "run", str(self.file)]
        self.process = Process("byway", argv, log)
        try:
            wait_until(self._answers, "the API answers", START)
        except BaseException:
            self.stop()
            raise
        return self.process

    def _answers(self) -> bool:
        if not self.process.running:
            raise self.process.error(f"ended with {self.process.child.returncode}")
        try:
            self.client.switch()
        except ClientError as error:
            if error.status == 0:  # not there yet
                return False
            raise
        return True

    def ports(self) -> dict[str, dict[str, Any]]:
        """The ports by name."""
        return {port["name"]: port for port in self.client.ports()}

    def drops(self) -> dict[str, dict[str, int]]:
        """Every drop counter above zero, by port and reason."""
        found = {
            name: {reason: count for reason, count in port["drops"].items() if count}
            for name, port in self.ports().items()
        }
        return {name: drops for name, drops in found.items() if drops}

    def command(self, *words: str) -> Any:
        """`byway WORDS --json` against this switch; what it printed."""
        argv = [str(BYWAY), *words, "--json", "--api", str(self.api)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise PeerError(f"$ {' '.join(argv)}\nended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def wait_up(self, *names: str, timeout: float = 20.0) -> None:
        """Wait until these ports (all, without names) are up."""

        def up() -> bool:
            ports = self.ports()
            return all(ports[name]["state"] == "up" for name in names or ports)

        try:
            wait_until(up, f"ports up: {names or 'all'}", timeout)
        except PeerError as error:
            states = {n: (p["state"], p.get("reason")) for n, p in self.ports().items()}
            raise self.process.error(f"{error}; they are {states}") from error

    def kill(self) -> None:
        """SIGKILL, as the kernel's OOM killer would."""
        self.client.close()
        self.process.stop(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.client.close()
        return self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
