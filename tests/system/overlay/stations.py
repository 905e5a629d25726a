# SPDX-License-Identifier: Apache-2.0
"""Who is on the networks of a test bed: containers and virtual machines, in a namespace each.

Used by bed.py. A container's interface is a tap that the switch makes in its namespace; a machine's
is carried over virtqueues (relay.py). Both are whole Linux hosts with IPv4 and IPv6, and have the
methods of the engines' stations: ping, fetch, measure.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import peers
from tests.system.engines.namespace import Namespace
from tests.system.engines.station import INTERFACE, Host
from tests.system.overlay.relay import Carried, Relay, open_tap
from tests.system.peers.process import Process, wait_until

# IPv6 as in a container: nobody advertises a router, so nobody is asked for one.
SETTINGS = {"router_solicitations": 0, "accept_ra": 0}
# Every address at the same time, in some tries; who answers is printed.
REACH = """
for a in {addresses}; do
  (for n in {tries}; do ping -q -c 1 -W 1 $a >/dev/null 2>&1 && echo "reached $a" && break; done) &
done
wait
"""


@dataclass(frozen=True)
class Net:
    """A network of the bed; all of them have the same subnets."""

    name: str
    vni: int


@dataclass(frozen=True)
class Seat:
    """A station as it is planned: ``number`` (1 to 250) is its own, in all networks; ``host``: the
    name of the host where it begins."""

    net: Net
    number: int
    host: str
    machine: bool = False

    @property
    def name(self) -> str:
        """What it and its port are called."""
        return f"{self.net.name}{self.number}"

    @property
    def mac(self) -> str:
        """Its address."""
        return f"02:00:00:00:{self.net.vni & 255:02x}:{self.number:02x}"

    @property
    def ipv4(self) -> str:
        """Its IPv4 address."""
        return f"10.9.0.{self.number}"

    @property
    def ipv6(self) -> str:
        """Its IPv6 address."""
        return f"fd09::{self.number:x}"

    @property
    def ips(self) -> list[str]:
        """Both."""
        return [self.ipv4, self.ipv6]

    @property
    def addresses(self) -> list[str]:
        """Both, with their prefix lengths."""
        return [f"{self.ipv4}/24", f"{self.ipv6}/64"]

    def entry(self) -> dict[str, Any]:
        """What other hosts have to know of it, but for the host."""
        return {"network": self.net.name, "mac": self.mac, "ips": self.ips}


class Member(Host):
    """A station that is there. ``host``: where its port is."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.host = seat.host
        self.namespace = Namespace("station")
        super().__init__(seat.name, self.namespace.prefix)
        for key, value in SETTINGS.items():
            self.namespace.run("sh", "-c", f"echo {value} > /proc/sys/net/ipv6/conf/default/{key}")
        self._server: Process | None = None

    def port(self, folder: Path) -> dict[str, Any]:
        """Its port, as a switch takes it whose folder this is."""
        return {"name": self.name, "network": self.seat.net.name, "mac": self.seat.mac}

    def reached(self, addresses: list[str], tries: int = 3) -> set[str]:
        """Those of the addresses that answer one of so many pings within a second."""
        numbers = " ".join(str(number) for number in range(tries))
        text = self.run(REACH.format(addresses=" ".join(addresses), tries=numbers))
        return set(re.findall(r"^reached (\S+)$", text, re.MULTILINE))

    def neighbours(self) -> dict[str, str]:
        """{address: MAC} of what it has resolved."""
        text = self.namespace.run("ip", "neigh", "show", "dev", INTERFACE)
        return dict(re.findall(r"^(\S+) lladdr (\S+)", text, re.MULTILINE))

    def forget_neighbours(self) -> None:
        """It has to resolve everybody again."""
        self.namespace.run("ip", "neigh", "flush", "all")

    def settled(self) -> bool:
        """Whether its addresses may be used: nobody else has them (duplicate address detection)."""
        text = self.namespace.run("ip", "address", "show", "dev", INTERFACE)
        return "tentative" not in text and all(one in text for one in self.seat.addresses)

    def listen(self, folder: Path) -> None:
        """Answer iperf3 from now on, if it does not yet."""
        if self._server is not None:
            return
        argv = [*self.prefix, peers.find_program("iperf3"), "-s", "--forceflush"]
        self._server = Process("iperf3", argv, folder / f"iperf3-{self.name}.log")
        self._server.expect("Server listening", 10)

    def transfer(self, other: "Member", address: str, options: str = "") -> int:
        """Bytes of TCP in a second to another station, which listens, at one of its addresses.

        A server of iperf3 closes its listener after each test, and makes another: it is waited
        for."""
        assert other._server is not None
        report = self.measure(address, 1, options)["end"]["sum_received"]
        other._server.expect("Server listening", 10)
        return int(report["bytes"])

    def close(self) -> None:
        """Remove it; its port is the caller's business."""
        if self._server is not None:
            self._server.stop()
        self.namespace.close()


class Container(Member):
    """A station behind a tap port, which stays while the switch is away."""

    def port(self, folder: Path) -> dict[str, Any]:
        """Its port."""
        return {**super().port(folder), "kind": "tap", "ifname": INTERFACE, "persistent": True,
                "netns": self.namespace.name, "address": self.seat.addresses}


class VirtualMachine(Member):
    """A station behind a vhost-user port."""

    def __init__(self, seat: Seat, relay: Relay, mtu: int) -> None:
        super().__init__(seat)
        self.relay = relay
        self.carried = Carried(open_tap(self.namespace.name, INTERFACE), seat.mac, mtu)
        run = functools.partial(self.namespace.run, "ip")
        run("link", "set", INTERFACE, "address", seat.mac, "mtu", str(mtu))
        run("link", "set", INTERFACE, "up")
        for address in seat.addresses:
            run("address", "add", address, "dev", INTERFACE)
        relay.add(self.carried)

    def port(self, folder: Path) -> dict[str, Any]:
        """Its port."""
        return {**super().port(folder), "kind": "vhost-user", "ips": self.seat.ips,
                "socket": str(self.socket(folder))}

    def socket(self, folder: Path) -> Path:
        """Where the port of a switch with this folder listens."""
        return folder / f"{self.name}.sock"

    def connect(self, folder: Path) -> None:
        """Begin at the port of the switch with this folder."""
        wait_until(self.socket(folder).exists, f"the socket of {self.name}", 20)
        with self.relay.lock:
            self.carried.connect(self.socket(folder))
        self.relay.tell()

    def move(self, folder: Path, announce: bool = True) -> None:
        """Go on at the port of another switch, as after a live migration; ``announce``: by a
        reverse ARP as QEMU does (RFC 903)."""
        with self.relay.lock:
            self.carried.disconnect()
            self.carried.connect(self.socket(folder))
            if announce:
                assert self.carried.guest is not None
                self.carried.guest.send([announcement(self.seat.mac)])
        self.relay.tell()

    def leave(self) -> None:
        """Hang up."""
        with self.relay.lock:
            self.carried.disconnect()
        self.relay.tell()

    def close(self) -> None:
        """Remove it."""
        self.relay.remove(self.carried)
        super().close()


def announcement(mac: str) -> bytes:
    """A reverse ARP request by which a machine tells where it is now (RFC 903)."""
    own = bytes.fromhex(mac.replace(":", ""))
    message = b"\0\1\x08\0\6\4\0\3" + own + bytes(4) + own + bytes(4)
    return (b"\xff" * 6 + own + b"\x80\x35" + message).ljust(60, b"\0")
