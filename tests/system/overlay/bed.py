# SPDX-License-Identifier: Apache-2.0
"""A test bed of several hosts: each a network namespace with a `byway run` of its own.

    with Bed(folder) as bed:
        one, two = bed.members["blue1"], bed.members["blue8"]
        one.reach(two.seat.ipv4)

Used by the tests of the overlay and by `scripts/overlay-bed`. Hosts A, B, C, D hang on one underlay
(underlay.py). Containers and virtual machines sit on two networks with the same subnets, spread
over the hosts (SEATS). What a host knows of the others is either in its configuration file (STATIC:
hosts and entries), or told by etcd (CLUSTER), which then is in a namespace beside the hosts.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.system.overlay.relay import Relay
from tests.system.overlay.stations import Container, Member, Net, Seat, VirtualMachine
from tests.system.overlay.underlay import DEVICE, Underlay
from tests.system.peers.etcd import Etcd
from tests.system.peers.process import PeerError, wait_until
from tests.system.peers.switch import Switch

BLUE, RED = Net("blue", 100), Net("red", 200)
NETS = (BLUE, RED)
NAMES = "ABCD"
# On each host a container and a machine in blue; in red there is somebody on each as well.
SEATS = (
    *(Seat(BLUE, 1 + 2 * k + machine, host, bool(machine))
      for k, host in enumerate(NAMES) for machine in (0, 1)),
    Seat(RED, 21, "A"), Seat(RED, 22, "B", machine=True), Seat(RED, 23, "C"),
    Seat(RED, 24, "D", machine=True),
)
OVERHEAD = {4: 50, 6: 70}  # bytes of the underlay's MTU that no station has
WIRE = "wire"  # the port of an uplink, and its network
ETCD = 250  # its number in the underlay
ETCD_PORT = 2379
AT_A_TIME = 4  # stations that are asked something
TTL = 5  # seconds until a host that has died is gone


class Source(Enum):
    """Where a host knows the others from."""

    STATIC = "static"
    CLUSTER = "cluster"


def toml(tables: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """The tables of a TOML file, each with its header ("[switch]", "[[port]]")."""
    return "\n".join(
        "\n".join([header, *(f"{key} = {literal(value)}" for key, value in body.items()), ""])
        for header, body in tables)


def literal(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {literal(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(literal(one) for one in value) + "]"
    return json.dumps(value)


def asked(members: list[Member], question: Callable[[Member], set[str]]) -> dict[str, set[str]]:
    """What is found at each station, some of them at a time, where it is anything."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        answers = pool.map(question, members)
        return {member.name: found for member, found in zip(members, answers, strict=True) if found}


class Node:
    """One host: ``folder`` has its sockets and logs, ``switch`` is what runs there."""

    def __init__(self, bed: "Bed", name: str, number: int) -> None:
        self.bed = bed
        self.name, self.number = name, number
        self.namespace = bed.underlay.join(number, f"host{name}", not bed.uplink)
        self.address = bed.underlay.address(number)
        self.folder = bed.folder / name
        self.folder.mkdir()
        self.switch: Switch

    def start(self, text: str) -> None:
        """Run a switch on this configuration."""
        self.switch = Switch(self.folder, [], prefix=self.namespace.prefix, text=text)

    def head(self) -> dict[str, Any]:
        """The table [switch]; ports that came by the API outlive it."""
        return {"name": self.name, "api": str(self.folder / "api.sock"),
                "state": str(self.folder / "switch.db")}

    def known(self) -> dict[tuple[str, str], tuple[str, frozenset[str]]]:
        """{(network, MAC): (host, its IP addresses)} as this host has it, link-local ones left
        out; its own host's name where the port is here."""
        return {
            (row["network"], row["mac"]): (
                row["host"] or self.name,
                frozenset(ip for ip in row["ips"] if not ip.startswith("fe80:")))
            for row in self.switch.client.population()
        }

    def add(self, member: Member) -> None:
        """Give a station its port here, by the API; a machine is connected."""
        member.host = self.name
        self.switch.client.add_port(member.port(self.folder))
        if isinstance(member, VirtualMachine):
            member.connect(self.folder)

    def remove(self, member: Member) -> None:
        """Take its port away."""
        if isinstance(member, VirtualMachine):
            member.leave()
        self.switch.client.remove_port(member.name)

    def cut(self) -> None:
        """Pull the underlay's cable out."""
        self.bed.underlay.cut(self.number)

    def mend(self) -> None:
        """Put it in again."""
        self.bed.underlay.mend(self.number)


class Bed:
    """The bed. ``nodes``, ``members``: by name. ``uplink``: the kind of port by which switches
    speak to the underlay themselves ("af-packet", "af-xdp"); "": by sockets of the kernel."""

    def __init__(self, folder: Path, source: Source = Source.STATIC, hosts: str = NAMES,
                 seats: Sequence[Seat] = SEATS, mtu: int = 1500, family: int = 4,
                 uplink: str = "") -> None:
        self.folder, self.source, self.uplink = folder, source, uplink
        self.seats = [seat for seat in seats if seat.host in hosts]
        self.nets = [net for net in NETS if any(seat.net == net for seat in self.seats)]
        self.wire_mtu, self.mtu = mtu, mtu - OVERHEAD[family]
        self.nodes: dict[str, Node] = {}
        self.members: dict[str, Member] = {}
        self._stack = ExitStack()
        try:
            self.relay = self._stack.enter_context(Relay())
            self.underlay = self._stack.enter_context(Underlay(mtu, family))
            if source is Source.CLUSTER:
                self.etcd = self._stack.enter_context(self._etcd())
            for number, name in enumerate(hosts, 1):
                self.nodes[name] = Node(self, name, number)
            for seat in self.seats:
                self.make(seat)
            for node in self.nodes.values():
                node.start(self.text(node))
                self._stack.callback(node.switch.stop)
            for member in self.members.values():
                self._attach(member)
            self.wait_settled()
        except BaseException:
            self.close()
            raise

    def _etcd(self) -> Etcd:
        place = self.underlay.join(ETCD, "etcd")
        return Etcd(self.folder, self.underlay.address(ETCD), ETCD_PORT, place.prefix)

    def make(self, seat: Seat) -> Member:
        """A station that has no port yet."""
        member = VirtualMachine(seat, self.relay, self.mtu) if seat.machine else Container(seat)
        self.members[member.name] = member
        self._stack.callback(self._forget, member)
        return member

    def _forget(self, member: Member) -> None:
        if self.members.get(member.name) is member:
            del self.members[member.name]
            member.close()

    def end(self, member: Member) -> None:
        """Take a station away, port and all."""
        self.node_of(member).remove(member)
        self._forget(member)

    def _attach(self, member: Member) -> None:
        node = self.node_of(member)
        if self.source is Source.CLUSTER:
            node.add(member)
        elif isinstance(member, VirtualMachine):
            member.connect(node.folder)

    def node_of(self, member: Member) -> Node:
        """The host that a station is on."""
        return self.nodes[member.host]

    # ------------------------------------------------------------ what a switch is told

    def text(self, node: Node) -> str:
        """A host's configuration file."""
        tables: list[tuple[str, Mapping[str, Any]]] = [
            ("[switch]", node.head()),
        ]
        if self.uplink:
            wire = {"name": WIRE, "network": WIRE, "kind": self.uplink, "ifname": DEVICE}
            tables += [("[underlay]", {"address": node.address, "uplink": WIRE}),
                       ("[[network]]", {"name": WIRE, "mtu": self.wire_mtu}), ("[[port]]", wire)]
        else:
            tables.append(("[underlay]", {"address": node.address}))
        if self.source is Source.CLUSTER:
            tables.append(("[cluster]", {"etcd": [self.etcd.url], "host": node.name, "ttl": TTL}))
        tables += [("[[network]]", {"name": net.name, "vni": net.vni}) for net in self.nets]
        if self.source is Source.STATIC:
            tables += self._static(node)
        return toml(tables)

    def _static(self, node: Node) -> list[tuple[str, Mapping[str, Any]]]:
        found: list[tuple[str, Mapping[str, Any]]] = []
        for other in self.nodes.values():
            if other is not node:
                nets = sorted({m.seat.net.name for m in self.members.values()
                               if m.host == other.name})
                found.append(("[[host]]", {"name": other.name, "address": other.address,
                                           "networks": nets}))
        for member in self.members.values():
            if member.host == node.name:
                found.append(("[[port]]", member.port(node.folder)))
            else:
                found.append(("[[entry]]", {**member.seat.entry(), "host": member.host}))
        return found

    # ------------------------------------------------------------ what is to be seen

    def wait_settled(self, timeout: float = 60.0) -> None:
        """Until all ports are up and every station may use its addresses."""
        for node in self.nodes.values():
            node.switch.wait_up(timeout=timeout)
        for member in self.members.values():
            wait_until(member.settled, f"{member.name} may use its addresses", timeout)

    def neighbours(self, member: Member) -> list[Member]:
        """The other stations of a station's network."""
        return [other for other in self.members.values()
                if other is not member and other.seat.net == member.seat.net]

    def strangers(self, member: Member) -> list[Member]:
        """The stations of other networks."""
        return [other for other in self.members.values() if other.seat.net != member.seat.net]

    def missing(self, members: Iterable[Member] | None = None) -> dict[str, set[str]]:
        """{station: addresses of its network that do not answer it}; {} where all is well.
        ``members``: whom to look at, both as those who ask and as those who answer."""
        chosen = list(self.members.values() if members is None else members)

        def lacking(member: Member) -> set[str]:
            wanted = {ip for other in self.neighbours(member) if other in chosen
                      for ip in other.seat.ips}
            return wanted - member.reached(sorted(wanted))

        return asked(chosen, lacking)

    def leaks(self) -> dict[str, set[str]]:
        """{station: addresses of other networks that answer it}; {} where all is well."""
        return asked(list(self.members.values()), lambda member: member.reached(
            sorted(ip for other in self.strangers(member) for ip in other.seat.ips), tries=1))

    def drops(self) -> dict[str, dict[str, dict[str, int]]]:
        """What each host's switch has dropped, by port and reason."""
        return {name: node.switch.drops() for name, node in self.nodes.items()}

    def wanted(self) -> dict[tuple[str, str], tuple[str, frozenset[str]]]:
        """What every host has to know: {(network, MAC): (host, IP addresses)} of all stations."""
        return {(m.seat.net.name, m.seat.mac): (m.host, frozenset(m.seat.ips))
                for m in self.members.values()}

    def differences(self, hosts: str = NAMES) -> dict[str, list[str]]:
        """{host: what it knows that is not so, and what it does not know}; {} where all is well."""
        found = {}
        wanted = self.wanted()
        for name in hosts:
            if (node := self.nodes.get(name)) and (known := node.known()) != wanted:
                found[name] = [
                    f"{network} {mac}: {known.get((network, mac))}, not"
                    f" {wanted.get((network, mac))}"
                    for network, mac in sorted(known.keys() | wanted.keys())
                    if known.get((network, mac)) != wanted.get((network, mac))]
        return found

    def wait_agreed(self, hosts: str = NAMES, timeout: float = 30.0) -> float:
        """Until these hosts know what there is and nothing else; -> the seconds it took."""
        began = time.monotonic()
        try:
            wait_until(lambda: not self.differences(hosts), "all hosts agree", timeout)
        except PeerError as error:
            raise PeerError(f"{error}: {self.differences(hosts)}") from None
        return time.monotonic() - began

    def forget_neighbours(self) -> None:
        """Every station has to resolve all others again."""
        for member in self.members.values():
            member.forget_neighbours()

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
