# SPDX-License-Identifier: Apache-2.0
"""A network namespace whose only way out is a tap port of a switch: a container without an engine.

    with Tapped("10.9.0.1") as one:
        switch.add("tap", "one", **one.port)
        one.ping("10.9.0.2")

Sockets of its own are opened in the namespace and used from this process (veth.transfer).
"""

import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from byway.machine.netns import inside
from byway.testing.frames import mac
from tests.peers import find_program, need_peer
from tests.system.engines.namespace import Namespace, checked
from tests.system.peers.kernel import BUSYBOX, checksum_errors
from tests.system.peers.process import PeerError

SECONDS = 20.0
TUN = "/dev/net/tun"


class Tapped:
    """``address``: without its prefix length; the network is a /24."""

    device = "eth0"

    def __init__(self, address: str) -> None:
        find_program("ip")
        if os.geteuid() != 0:
            need_peer("root", "network namespaces need privileges")
        if not os.access(TUN, os.R_OK | os.W_OK):
            need_peer(TUN, "it cannot be opened")
        if not BUSYBOX.exists():
            need_peer("busybox", f"no {BUSYBOX} (package busybox-static)")
        self.address = address
        self.namespace = Namespace("tap")
        self.name = self.namespace.name

    @property
    def port(self) -> dict[str, Any]:
        """The keys of the tap port that connects it."""
        return {"ifname": self.device, "netns": self.name, "address": (f"{self.address}/24",)}

    @property
    def mac(self) -> bytes:
        """The interface's address."""
        text = self.run("cat", f"/sys/class/net/{self.device}/address")
        return mac(text.strip())

    def run(self, *argv: str) -> str:
        """Run a program in it, which sees its own /sys; what it printed."""
        return checked(["ip", "netns", "exec", self.name, *argv])

    def ping(self, to: str, count: int = 5, size: int = 1472, interval: float = 0.02,
             wait: int = 10) -> int:
        """Ping, with payloads that fill a frame; -> replies.

        When all have come it ends at once, when none comes after ``wait`` seconds."""
        argv = [str(BUSYBOX), "ping", "-q", "-c", str(count), "-i", str(interval), "-W", str(wait),
                "-s", str(size), to]
        text = self.run("/bin/sh", "-c", f"{' '.join(argv)} || true")
        found = re.search(r"(\d+) packets received", text)
        return int(found[1]) if found else 0

    def opened(self, kind: int, family: int = socket.AF_INET, protocol: int = 0) -> socket.socket:
        """A socket in the namespace."""
        made = inside(self.name, lambda: socket.socket(family, kind, protocol))
        made.settimeout(SECONDS)
        return made

    def checksum_errors(self) -> dict[str, int]:
        """What its kernel counted of wrong checksums (kernel.checksum_errors)."""
        text = inside(self.name, lambda: "".join(
            Path(f"/proc/thread-self/net/{name}").read_text()
            for name in ("snmp", "netstat", "snmp6")))
        return checksum_errors(text)

    def carrier(self) -> bool:
        """Whether the interface, which is up, has one."""
        return "NO-CARRIER" not in self.namespace.run("ip", "link", "show", "dev", self.device)

    def remove(self) -> None:
        """Remove the namespace's name."""
        self.namespace.close()

    def make_again(self) -> None:
        """Make a namespace of the same name."""
        checked(["ip", "netns", "add", self.name])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with suppress(PeerError):  # a test has removed it
            self.namespace.close()
