# SPDX-License-Identifier: Apache-2.0
"""A network namespace of a test's own, where an engine, a switch and their interfaces live.

Used by the engines and the tests of containers. Programs are brought in by nsenter(1), not by
`ip netns exec`: that gives them mounts of their own, and nobody else would see the namespaces that
an engine makes for its containers.
"""

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Self

from tests.system.peers.process import PeerError

FOLDER = Path("/run/netns")
NUMBERS = itertools.count(1)


def checked(argv: list[str], timeout: float = 60.0, text: str = "") -> str:
    """Run a program with ``text`` as its input; what it printed. PeerError where it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, input=text)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"$ {' '.join(argv)}\nnot done within {timeout:g} s") from error
    if done.returncode:
        raise PeerError(
            f"$ {' '.join(argv)}\nended with {done.returncode}: {done.stderr}{done.stdout}"
        )
    return done.stdout


class Namespace:
    """A network namespace with its loopback interface up; `close` removes it."""

    def __init__(self, purpose: str) -> None:
        self.name = f"byway-{purpose}-{os.getpid()}-{next(NUMBERS)}"
        self.path = FOLDER / self.name
        checked(["ip", "netns", "add", self.name])
        self.run("ip", "link", "set", "lo", "up")

    @property
    def prefix(self) -> list[str]:
        """What comes before a command to run it in here."""
        return ["nsenter", f"--net={self.path}"]

    def run(self, *argv: str, timeout: float = 60.0) -> str:
        """Run a program in here; what it printed. PeerError where it fails."""
        return checked([*self.prefix, *argv], timeout)

    def links(self) -> set[str]:
        """The names of the interfaces in here, but for the loopback."""
        found = json.loads(self.run("ip", "-json", "link", "show") or "[]")
        return {link["ifname"] for link in found} - {"lo"}

    def addresses(self) -> set[str]:
        """The addresses in here with their prefix lengths, but for the loopback's."""
        found = json.loads(self.run("ip", "-json", "address", "show") or "[]")
        return {
            f"{given['local']}/{given['prefixlen']}"
            for link in found
            if link["ifname"] != "lo"
            for given in link["addr_info"]
        }

    def close(self) -> None:
        """Remove it; it goes with the last process in it."""
        checked(["ip", "netns", "del", self.name])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def named() -> set[str]:
    """The namespaces that have a name on this machine: those of `ip netns` and of CNI runtimes."""
    return {path.name for path in FOLDER.iterdir()} if FOLDER.is_dir() else set()
