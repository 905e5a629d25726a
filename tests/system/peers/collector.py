# SPDX-License-Identifier: Apache-2.0
"""nfdump's collectors: nfcapd for IPFIX, sfcapd for sFlow; what they were told, as nfdump reads it.

Used by the tests of functions that tell of traffic.
"""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.peers import find_program
from tests.system.peers.process import Process, wait_until

ROTATE = 2


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


def waiting(port: int) -> int:
    """Bytes that wait in the socket at a port (proc(5), net/udp)."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port:
            return int(fields[4].split(":")[1], 16)
    raise AssertionError(f"nobody is at port {port}")


class Collecting(Process):
    """A collector of nfdump's on this machine, at ``place``. It begins a new file every
    ROTATE seconds."""

    def __init__(self, program: str, folder: Path) -> None:
        self._kept = folder / f"{program}-kept"
        self._kept.mkdir()
        self._port = free_port()
        self.place = f"127.0.0.1:{self._port}"
        super().__init__(program, [
            find_program(program), "-w", str(self._kept), "-b", "127.0.0.1", "-p",
            str(self._port), "-t", str(ROTATE)], folder / f"{program}.log")
        self.expect("Startup", 20)

    def rows(self) -> list[dict[str, Any]]:
        """What it has been told, but for what is in the file that it is writing."""
        found: list[dict[str, Any]] = []
        for path in sorted(self._kept.glob("nfcapd.[0-9]*")):
            text = subprocess.run(
                [find_program("nfdump"), "-q", "-r", str(path), "-o", "json"],
                capture_output=True, text=True, check=True, timeout=30).stdout.strip()
            if text and text != "No matching flows":
                found += json.loads(text if text.startswith("[") else f"[{text}]")
        return found

    def got(self) -> list[dict[str, Any]]:
        """All that it has been told; then it ends."""
        wait_until(lambda: waiting(self._port) == 0, "all datagrams are read", 20)
        self.stop()
        return self.rows()
