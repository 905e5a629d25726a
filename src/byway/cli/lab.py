# SPDX-License-Identifier: Apache-2.0
"""A switch of one's own for a while: started, used, ended. For the demo and the benchmarks.

Used by demo and bench. The switch is `byway run` in a process of its own, unprivileged, with its
sockets in a temporary directory.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from byway.client import Client, ClientError

START_SECONDS = 120.0  # the very first start compiles
END_SECONDS = 10.0
# The switch ends with us, however we end (prctl 1: PR_SET_PDEATHSIG).
PROGRAM = """import ctypes, signal
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
from byway.cli.main import main
main()"""


class LabError(RuntimeError):
    """The switch did not start, or did not stay."""


class Lab:
    """``networks``: name -> names of its vhost-user ports. ``workers``: CPUs, None: not pinned.
    ``queues``: pairs of each port."""

    def __init__(self, networks: Mapping[str, Sequence[str]],
                 workers: Sequence[int] | None = None, queues: int = 1) -> None:
        self._queues = queues
        self._folder = tempfile.TemporaryDirectory(prefix="byway-")
        self.folder = Path(self._folder.name)
        self.api = str(self.folder / "api.sock")
        config = self.folder / "lab.toml"
        config.write_text(self._toml(networks, workers))
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, "run", str(config)],
                                         stdin=subprocess.DEVNULL)
        self.client = Client(self.api)

    def _toml(self, networks: Mapping[str, Sequence[str]], workers: Sequence[int] | None) -> str:
        lines = ["[switch]", 'name = "lab"', f"api = {json.dumps(self.api)}"]
        if workers is not None:
            lines.append(f"workers = {list(workers)}")
        for network in networks:
            lines += ["[[network]]", f"name = {json.dumps(network)}"]
        for network, ports in networks.items():
            for port in ports:
                lines += ["[[port]]", f"name = {json.dumps(port)}",
                          f"network = {json.dumps(network)}", 'kind = "vhost-user"',
                          f"socket = {json.dumps(self.socket(port))}",
                          f"queues = {self._queues}"]
        return "\n".join(lines) + "\n"

    def socket(self, port: str) -> str:
        """The socket of a port."""
        return str(self.folder / f"{port}.sock")

    def wait_ready(self) -> None:
        """Until the API answers (LabError: the switch ended, or START_SECONDS passed)."""
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client.ports()
                return
            except ClientError:
                if self._process.poll() is not None:
                    raise LabError(f"the switch ended with status {self._process.returncode}") \
                        from None
                if time.monotonic() > end:
                    raise LabError("the switch did not start in time") from None
                time.sleep(0.05)

    def close(self) -> None:
        """End the switch and remove its files. Idempotent."""
        self.client.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
