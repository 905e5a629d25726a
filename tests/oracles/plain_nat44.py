# SPDX-License-Identifier: Apache-2.0
"""NAT44 as RFC 4787, 5382 and 5508 have it, for test_nat44.py: dictionaries and whole packets.

``of`` says what becomes of a packet. A port that is not the inside one is not foretold: ``chosen``
is asked, and what it answers is held against the rules.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from tests.oracles.plain_packet import ANSWERS, ERRORS, ICMP, QUERIES, TCP, UDP, Packet

SOURCE, DESTINATION = 1, 2
Ends = tuple[int, int, int, int]  # source, its port, destination, its port
Ends3 = tuple[int, int, int]
NONE = (0, 0, 0, 0)


class Refused(Exception):
    """The packet is dropped, for this reason."""


@dataclass
class Flow:
    """What becomes of packets with some ends; ``answers``: they are the answers of a connection."""

    to: Ends
    changes: int
    answers: bool
    used: float
    lasts: bool = False
    ends: bool = False


@dataclass
class Owner:
    """Whose an outside port is."""

    ip: int
    port: int
    used: float


@dataclass
class Binding:
    """The outside port of an inside one."""

    number: int
    used: float


@dataclass
class PlainNat44:
    """Seconds count from any start."""

    outside: int
    inside: ipaddress.IPv4Network
    first: int
    last: int
    timeout: float
    established: float
    forwards: dict[tuple[int, int], tuple[int, int]]

    def __post_init__(self) -> None:
        self.flows: dict[tuple[int, Ends], Flow] = {}
        self.owners: dict[tuple[int, int], Owner] = {}  # by protocol and outside port
        self.bindings: dict[Ends3, Binding] = {}  # by protocol, inside address and port
        self.called: dict[tuple[int, int, int], float] = {}  # a port's owner has called a port
        self.pieces: dict[tuple[int, int, int, int], tuple[int, int, float]] = {}
        self.now = 0.0
        self.chosen: Callable[[int, int, int], int] = lambda: 0

    def is_inside(self, address: int) -> bool:
        return ipaddress.IPv4Address(address) in self.inside

    def of(self, data: bytes, way: str, now: float,
           chosen: Callable[[int, int, int], int]) -> bytes:
        """The packet as it goes on. Raises Refused."""
        self.now, self.chosen = now, chosen
        self._forget()
        packet = Packet.of(data)
        if way == "rx":
            if packet.dst != self.outside:
                return data
            if packet.src == self.outside:
                raise Refused("spoofed")
        elif not self.is_inside(packet.src) or self.is_inside(packet.dst):
            return data
        if packet.place:
            return self._piece(packet)
        if packet.protocol not in (ICMP, TCP, UDP):
            raise Refused("protocol")
        if packet.kind in ERRORS:
            return self._error(packet)
        return self._whole(packet)

    def _forget(self) -> None:
        for key, flow in list(self.flows.items()):
            if self.now - flow.used >= (self.established if flow.lasts else self.timeout):
                del self.flows[key]
        self.owners = {k: v for k, v in self.owners.items() if self.now - v.used < self.timeout}
        self.bindings = {k: v for k, v in self.bindings.items()
                         if self.now - v.used < self.timeout}
        self.called = {k: v for k, v in self.called.items() if self.now - v < self.timeout}
        self.pieces = {k: v for k, v in self.pieces.items() if self.now - v[2] < 30}

    # ------------------------------------------------------------ flows
    def _whole(self, packet: Packet) -> bytes:
        if packet.protocol == ICMP and packet.kind not in QUERIES + ANSWERS:
            raise Refused("protocol")
        ends = packet.src, packet.ports[0], packet.dst, packet.ports[1]
        flow = self.flows.get((packet.protocol, ends))
        flags = packet.body[13] if packet.protocol == TCP else 0
        if flow is None and flags & 4:
            raise Refused("no flow")
        if flow is None or (flow.ends and flags & 0x12 == 2):
            flow = self._open(packet, ends)
        else:
            self._use(packet.protocol, flow)
            self._follow(flow, ends, flags)
        if flow.to != NONE:
            packet.change(*flow.to)
        return bytes(packet)

    def _follow(self, flow: Flow, ends: Ends, flags: int) -> None:
        """A TCP connection is answered, or ends (other protocols have no flags)."""
        both = [flow, self.flows.get((TCP, (*flow.to[2:], *flow.to[:2])))]
        if flow.lasts and flags & 5:
            for each in both:
                if each is not None:
                    each.lasts, each.ends = False, True
        elif not flow.lasts and flow.answers and not flow.ends and flags & 0x15 == 0x10:
            for each in both:
                if each is not None:
                    each.lasts = True

    def _use(self, protocol: int, flow: Flow) -> None:
        """Its twin and the ports that it has are used as well."""
        twin = self.flows.get((protocol, (*flow.to[2:], *flow.to[:2])))
        for each in (flow, twin):
            if each is not None:
                each.used = self.now
        if flow.changes & SOURCE and (protocol, flow.to[1]) in self.owners:
            owner = self.owners[protocol, flow.to[1]]
            owner.used = self.now
            if (protocol, owner.ip, owner.port) in self.bindings:
                self.bindings[protocol, owner.ip, owner.port].used = self.now
        if flow.changes & DESTINATION and (protocol, *flow.to[2:]) in self.bindings:
            binding = self.bindings[protocol, flow.to[2], flow.to[3]]
            binding.used = self.now
            if (protocol, binding.number) in self.owners:
                self.owners[protocol, binding.number].used = self.now

    def _open(self, packet: Packet, ends: Ends) -> Flow:
        protocol = packet.protocol
        src, sport, dst, dport = ends
        if dst != self.outside:
            if packet.kind in ANSWERS:
                raise Refused("no flow")
            if dst >> 29 == 7:
                return Flow(NONE, 0, False, self.now)
            port = self._port(protocol, ends)
            return self._pair(protocol, ends, (self.outside, port, dst, dport), SOURCE)
        if protocol == ICMP:
            raise Refused("no flow")
        target = self.forwards.get((protocol, dport))
        if not self.is_inside(src):
            if target is None:
                raise Refused("no flow")
            return self._pair(protocol, ends, (src, sport, *target), DESTINATION)
        port = self._port(protocol, ends)
        if target is None:
            self.called[protocol, port, dport] = self.now
            owner = self.owners.get((protocol, dport))
            back = (protocol, dport, port)
            if owner is None or port == dport or back not in self.called:
                raise Refused("no flow")
            target = owner.ip, owner.port
        return self._pair(protocol, ends, (self.outside, port, *target), SOURCE | DESTINATION)

    def _pair(self, protocol: int, ends: Ends, to: Ends, changes: int) -> Flow:
        back = changes if changes == 3 else 3 - changes
        if not self._is_free(protocol, (*to[2:], *to[:2]), (*ends[2:], *ends[:2])):
            raise Refused("no room")
        twin = Flow((*ends[2:], *ends[:2]), back, True, self.now)
        self.flows[protocol, (*to[2:], *to[:2])] = twin
        made = self.flows[protocol, ends] = Flow(to, changes, False, self.now)
        return made

    # ------------------------------------------------------------ ports
    def _port(self, protocol: int, ends: Ends) -> int:
        src, sport = ends[:2]
        binding = self.bindings.get((protocol, src, sport))
        peer = ends[2:]
        if binding is not None and self._is_free(
                protocol, (*peer, self.outside, binding.number), (*peer, src, sport)):
            binding.used = self.now
            if (protocol, binding.number) in self.owners:
                self.owners[protocol, binding.number].used = self.now
            return binding.number
        port = sport
        fits = protocol == ICMP or self.first <= port <= self.last
        if not fits or not self._may_have(protocol, port, ends):
            port = self.chosen(src, sport, protocol)
            assert self.first <= port <= self.last
            assert self._may_have(protocol, port, ends)
        self.bindings[protocol, src, sport] = Binding(port, self.now)
        self.owners[protocol, port] = Owner(src, sport, self.now)
        return port

    def _may_have(self, protocol: int, port: int, ends: Ends) -> bool:
        return (protocol, port) not in self.owners and (protocol, port) not in self.forwards \
            and self._is_free(protocol, (*ends[2:], self.outside, port), (*ends[2:], *ends[:2]))

    def _is_free(self, protocol: int, ends: Ends, to: Ends) -> bool:
        """Does a flow with these ends not exist, or lead there?"""
        flow = self.flows.get((protocol, ends))
        return flow is None or flow.to == to

    # ------------------------------------------------------------ fragments and errors
    def _piece(self, packet: Packet) -> bytes:
        key = packet.src, packet.dst, packet.ident, packet.protocol
        if packet.is_later:
            if key not in self.pieces:
                raise Refused("no flow" if packet.dst == self.outside
                              else "fragment before its first")
            src, dst, _ = self.pieces[key]
            packet.change(src, 0, dst, 0)
            return bytes(packet)
        if packet.protocol not in (ICMP, TCP, UDP):
            raise Refused("protocol")
        made = self._whole(packet)
        if (packet.src, packet.dst) != key[:2]:
            self.pieces[key] = packet.src, packet.dst, self.now
        return made

    def _error(self, packet: Packet) -> bytes:
        if packet.body[8] >> 4 != 4:
            raise Refused("no flow")
        about = Packet.of(bytes(packet.body[8:]), quoted=True)
        if about.is_later or about.protocol not in (ICMP, TCP, UDP):
            raise Refused("no flow")
        sport, dport = about.ports
        flow = self.flows.get((about.protocol, (about.dst, dport, about.src, sport)))
        if flow is None:
            raise Refused("no flow")
        hide = packet.src == about.dst or self.is_inside(packet.src)
        src, first, dst, second = flow.to
        about.change(dst, second, src, first)
        packet.body[8:] = bytes(about)
        packet.close()
        packet.redirect(src if hide else packet.src, dst)
        return bytes(packet)
