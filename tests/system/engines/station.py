# SPDX-License-Identifier: Apache-2.0
"""A container as the tests use it: it pings, fetches the file that every container serves, and
measures.

Used by the engines, which say how a command is run in one of their containers. A QEMU guest
(`tests/system/peers/qemu.py`) has the same methods.
"""

import hashlib
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from tests.system.engines import image
from tests.system.engines.namespace import checked
from tests.system.peers.process import PeerError, wait_until

INTERFACE = "eth0"
NOTHING = hashlib.md5().hexdigest()
# Where nothing came, a server that was just started did not listen yet.
FETCH = """
n=0
while sum=$(nc {address} {port} </dev/null | md5sum); [ "${{sum%% *}}" = {nothing} ]; do
  n=$((n + 1)); [ $n -lt {tries} ] || break; sleep 0.2
done
echo "$sum"
"""
TRIES = 50
NOT_YET = re.compile("unable to connect|busy")  # what iperf3 says of a server that will listen soon
# An address may need a second until it is used (IPv6, duplicate address detection).
EXCHANGE = """
n=0
until ping -q -c 1 -W 1 {address} >/dev/null; do n=$((n + 1)); [ $n -lt 20 ] || exit 1; done
ping -q -c {count} -i 0.02 -W 3 {address}
""" + FETCH


class Station(ABC):
    """A running container called ``name``."""

    name: str

    @abstractmethod
    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command in it; its output. PeerError where it fails."""

    def ping(self, address: str, count: int = 5, options: str = "") -> int:
        """The number of replies to ``count`` echo requests, one every 20 ms."""
        text = self.run(f"ping -q -c {count} -i 0.02 -W 3 {options} {address} || true")
        found = re.search(r"(\d+) packets transmitted, (\d+) packets received", text)
        if found is None:
            raise PeerError(f"{self.name}: ping said {text!r}")
        return int(found.group(2))

    def reach(self, address: str, timeout: float = 20.0) -> None:
        """Ping until a reply comes; PeerError where none comes in time."""
        wait_until(lambda: self.ping(address, 1), f"{self.name} reaches {address}", timeout)

    def fetch(self, address: str, port: int = image.SERVED, timeout: float = 60.0,
              tries: int = TRIES) -> str:
        """The MD5 sum of what is sent to us from there (`image.SUM` for another container)."""
        line = FETCH.format(address=address, port=port, nothing=NOTHING, tries=tries)
        return self.run(line, timeout).split()[0]

    def exchange(self, address: str, count: int = 5) -> None:
        """Reach a container, ping it, and fetch its file, whole: one command, as starting one in a
        container takes long. PeerError where anything is missing."""
        line = EXCHANGE.format(address=address, count=count, port=image.SERVED, nothing=NOTHING,
                               tries=TRIES)
        text = self.run(line)
        if f" {count} packets received" not in text or image.SUM not in text:
            raise PeerError(f"{self.name} and {address}: {text!r}")

    def serve(self, file: str, port: int) -> None:
        """Send a file to everybody who connects to a TCP port, from now on."""
        self.background(f"nc -ll -p {port} -e cat {file}")

    def background(self, command: str) -> None:
        """Run a shell command beside others, from now on; nothing is heard of it."""
        self.run(f"(({command}) </dev/null >/dev/null 2>&1 &)")

    def measure(self, address: str, seconds: int = 1, options: str = "") -> dict[str, Any]:
        """iperf3's report of TCP to another container for so long. PeerError where it fails."""
        line = f"iperf3 --json -c {address} -t {seconds} {options} || true"
        for _ in range(TRIES):
            report: dict[str, Any] = json.loads(self.run(line, 30 + seconds))
            if not NOT_YET.search(report.get("error", "")):
                break
            time.sleep(0.2)
        if "error" in report:
            raise PeerError(f"{self.name}: iperf3 to {address}: {report['error']}")
        return report

    def addresses(self, interface: str = INTERFACE) -> list[str]:
        """The addresses of an interface with their prefix lengths, link-local ones left out."""
        text = self.run(f"ip addr show dev {interface}")
        found = re.findall(r"inet6? (\S+)", text)
        return [address for address in found if not address.startswith("fe80:")]

    def address(self, interface: str = INTERFACE) -> str:
        """The first address of an interface, without its prefix length."""
        return self.addresses(interface)[0].partition("/")[0]

    def interfaces(self) -> set[str]:
        """Its interfaces, but for the loopback."""
        text = self.run("cat /proc/self/net/dev")
        return set(re.findall(r"^ *([^\s:]+):", text, re.MULTILINE)) - {"lo"}


class Host(Station):
    """A namespace without a container, seen as one: the host where the engines are, for example.

    ``prefix`` comes before a command to run it there."""

    def __init__(self, name: str, prefix: Sequence[str]) -> None:
        self.name = name
        self.prefix = list(prefix)

    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command in it; its output. PeerError where it fails."""
        return checked([*self.prefix, str(image.BUSYBOX), "sh", "-c", command], timeout).strip()


def beside(name: str, pid: int) -> Host:
    """The namespace of a process: a container, whose engine may be away."""
    return Host(name, ["nsenter", f"--net=/proc/{pid}/ns/net"])
