# SPDX-License-Identifier: Apache-2.0
"""A load balancer in dictionaries, for test_balancer.py: who has been chosen for whom."""

from dataclasses import dataclass, field

from byway.nf.calls import hash as hash_of
from byway.nf.maglev import Member, places
from tests.oracles.plain_packet import ICMP, TCP, UDP, Packet

SIZE = 65537
ERRORS = (3, 11, 12)


class Refused(Exception):
    """The packet is dropped, for this reason."""


@dataclass
class Server:
    """Where a member is."""

    mac: bytes
    ip: int
    port: int


@dataclass
class Flow:
    """A client's flow, and who serves it."""

    server: Server
    member: int
    port: int
    used: float


@dataclass
class Back:
    """What answers of a server become."""

    port: int
    used: float


@dataclass
class PlainBalancer:
    """``port``: 0 for all; ``protocols``: those that are served. Seconds count from any start."""

    address: int
    port: int
    protocols: tuple[int, ...]
    nat: bool
    by_source: bool
    sticky: bool
    idle: float
    members: dict[int, Member] = field(default_factory=dict)
    servers: dict[int, Server] = field(default_factory=dict)
    flows: dict[tuple[int, int, int, int], Flow] = field(default_factory=dict)
    # By protocol, server, its port, client, its port: the service's port that was called.
    backs: dict[tuple[int, int, int, int, int], Back] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.placed: list[int] = []

    def place(self) -> None:
        """The members have changed."""
        self.placed = places(SIZE, self.members)

    def of(self, frame: bytes, now: float) -> bytes:
        """An IPv4 frame as it goes on. Raises Refused."""
        self.flows = {key: flow for key, flow in self.flows.items() if now - flow.used < self.idle}
        self.backs = {key: back for key, back in self.backs.items() if now - back.used < self.idle}
        packet = Packet.of(frame[14:])
        if packet.dst == self.address:
            return self._request(frame, packet, now)
        if self.nat and not packet.place and packet.protocol in (TCP, UDP):
            return self._answer(frame, packet, now)
        return frame

    def _request(self, frame: bytes, packet: Packet, now: float) -> bytes:
        if packet.place:
            raise Refused("fragment")
        if packet.protocol == ICMP:
            return self._error(frame, packet)
        sport, dport = packet.ports if packet.protocol in (TCP, UDP) else (0, 0)
        if packet.protocol not in self.protocols or self.port not in (0, dport):
            raise Refused("not served")
        key = packet.protocol, packet.src, sport, dport
        flow = self.flows.get(key) if self.sticky or self.nat else None
        if flow is None or flow.member not in self.servers:
            flow = self._chosen(packet, sport, dport, now)
            if self.sticky or self.nat:
                self.flows[key] = flow
        flow.used = now
        if self.nat:
            back = self.backs.get((packet.protocol, flow.server.ip, flow.port, packet.src, sport))
            if back is not None:
                back.used = now
            packet.change(packet.src, sport, flow.server.ip, flow.port)
        return flow.server.mac + frame[6:14] + bytes(packet) + frame[14 + len(bytes(packet)):]

    def _chosen(self, packet: Packet, sport: int, dport: int, now: float) -> Flow:
        by = (packet.src,) if self.by_source else (packet.src, sport, packet.protocol)
        member = self.placed[hash_of(*by) * SIZE >> 32]
        if member not in self.servers:
            raise Refused("no server")
        server = self.servers[member]
        port = server.port or dport
        if self.nat:
            key = packet.protocol, server.ip, port, packet.src, sport
            if key in self.backs and self.backs[key].port != dport:
                self.backs[key].used = now
                raise Refused("port in use")
            self.backs[key] = Back(dport, now)
        return Flow(server, member, port, now)

    def _answer(self, frame: bytes, packet: Packet, now: float) -> bytes:
        sport, dport = packet.ports
        back = self.backs.get((packet.protocol, packet.src, sport, packet.dst, dport))
        if back is None:
            return frame
        back.used = now
        flow = self.flows.get((packet.protocol, packet.dst, dport, back.port))
        if flow is not None:
            flow.used = now
        packet.change(self.address, back.port, packet.dst, dport)
        return frame[:14] + bytes(packet) + frame[14 + len(bytes(packet)):]

    def _error(self, frame: bytes, packet: Packet) -> bytes:
        if packet.kind not in ERRORS:
            raise Refused("not served")
        about = Packet.of(bytes(packet.body[8:]), quoted=True)
        if about.src != self.address or about.is_later or about.protocol not in (TCP, UDP):
            raise Refused("not served")
        sport, dport = about.ports
        flow = self.flows.get((about.protocol, about.dst, dport, sport))
        if flow is None:
            raise Refused("not served")
        if self.nat:
            about.change(flow.server.ip, flow.port, about.dst, dport)
            packet.body[8:] = bytes(about)
            packet.close()
            packet.redirect(packet.src, flow.server.ip)
        return flow.server.mac + frame[6:14] + bytes(packet) + frame[14 + len(bytes(packet)):]
