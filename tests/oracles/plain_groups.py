# SPDX-License-Identifier: Apache-2.0
"""Security groups as slow and obvious as can be: rules walked as a list, connections in a dict.

What test_groups.py holds the compiled stage against. It reads the fields of ``Packet``, not frames,
and knows nothing of sets, hashes, or batches. TCP's states are a table.
"""

import struct
from dataclasses import dataclass, field

from byway.packet.reason import Reason
from byway.switch.groups_compile import Rule
from byway.testing.flow_frames import ICMP, ICMPV6, TCP, UDP, Packet, ip

PORTS = {6, 17, 33, 132, 136}
SECONDS = {"udp_one_way": 60, "udp": 180, "syn_sent": 60, "syn_received": 60, "established": 7440,
           "fin_wait": 240, "time_wait": 60, "closed": 10, "picked_up": 300, "fragments": 30,
           "last_fragment": 1, "icmp": 60, "other_one_way": 60, "other": 600}
Service = tuple[int, int, int]  # protocol; port of the destination, or ICMP type; ICMP code
BAD, REOPEN = "bad", "reopen"
# (state, who, segment): the state that follows; the same where it is not named.
TABLE = {
    ("syn_sent", "opener", "synack"): BAD, ("syn_sent", "opener", "ack"): BAD,
    ("syn_sent", "opener", "fin"): BAD, ("syn_sent", "other", "fin"): BAD,
    ("syn_sent", "other", "syn"): "crossed", ("syn_sent", "other", "synack"): "syn_received",
    ("syn_received", "opener", "synack"): BAD, ("syn_received", "other", "syn"): BAD,
    ("syn_received", "opener", "ack"): "established",
    ("crossed", "opener", "synack"): "established", ("crossed", "opener", "ack"): "established",
    ("crossed", "other", "ack"): "established",
    ("established", "other", "syn"): BAD, ("established", "opener", "synack"): BAD,
    ("fin_wait", "other", "syn"): BAD, ("fin_wait", "opener", "synack"): BAD,
    ("time_wait", "other", "syn"): REOPEN, ("time_wait", "opener", "syn"): REOPEN,
    ("time_wait", "opener", "synack"): BAD,
    ("closed", "other", "syn"): REOPEN, ("closed", "opener", "syn"): REOPEN,
    ("closed", "opener", "synack"): BAD,
    ("picked_up", "other", "syn"): BAD, ("picked_up", "opener", "synack"): BAD,
    ("picked_up", "other", "ack"): "established",
}
SEGMENTS = {16: "ack", 2: "syn", 18: "synack", 17: "fin", 4: "rst", 20: "rst"}
QUERIES = {ICMP: {8: 0, 13: 14, 15: 16, 17: 18}, ICMPV6: {128: 129}}
ERRORS = {ICMP: {3, 11, 12}, ICMPV6: {1, 2, 3, 4}}


@dataclass
class Known:
    """A connection, or a datagram in pieces."""

    opener: str
    state: str
    seen: float
    policy: int
    service: Service
    crossed: bool = False
    fins: set[str] = field(default_factory=set)
    resets: set[str] = field(default_factory=set)


def allows(rules: list[Rule], members: dict[str, set[str]], ingress: bool, remote: str,
           service: Service) -> bool:
    """Does any rule allow (protocol, port or ICMP type, code) with a remote address?"""
    protocol, value, code = service
    address = ip(remote)
    for rule in rules:
        if rule.ingress != ingress or rule.version != address.version:
            continue
        if rule.protocol is not None and rule.protocol != protocol:
            continue
        if rule.ports is not None and not rule.ports[0] <= value <= rule.ports[1]:
            continue
        if rule.icmp_type is not None and rule.icmp_type != value:
            continue
        if rule.icmp_code is not None and rule.icmp_code != code:
            continue
        if rule.remote is not None and address not in rule.remote:
            continue
        if rule.remote_group is not None and remote not in members.get(rule.remote_group, set()):
            continue
        return True
    return False


class PlainGroups:
    """One port. ``rules``, ``policy`` (a number that changes with them) and ``members`` are the
    test's to set; so are ``now``, in seconds, and ``inside``: what ICMP errors are about."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules, self.policy = rules, 0
        self.members: dict[str, set[str]] = {}
        self.now = 0.0
        self.known: dict[object, Known] = {}
        self.inside: dict[Packet, Packet] = {}

    def verdict(self, packet: Packet, to_guest: bool) -> Reason | None:
        """Why a packet is dropped, None where it passes."""
        number, offset, more = packet.piece or (0, 0, False)
        datagram = (packet.source, packet.destination, number, to_guest,
                    packet.protocol if packet.version == 4 else None)
        if offset:
            return self._later(datagram, offset, more)
        if packet.piece and len(packet.body) < (20 if packet.protocol == TCP else 8):
            return Reason.NOT_ALLOWED
        reason = self._whole(packet, to_guest)
        if reason is None and more and not self._always(packet, to_guest):
            self.known[datagram] = Known("", "fragments", self.now, self.policy, (0, 0, 0))
        return reason

    def _later(self, datagram: object, offset: int, more: bool) -> Reason | None:
        if offset < 24:
            return Reason.NOT_ALLOWED
        first = self._live(datagram)
        if first is None or first.policy != self.policy:
            self.known.pop(datagram, None)
            return Reason.BAD_STATE
        first.seen = self.now
        if not more:
            first.state = "last_fragment"
        return None

    def _live(self, key: object) -> Known | None:
        found = self.known.get(key)
        if found and self.now - found.seen > SECONDS[found.state]:
            del self.known[key]
            return None
        return found

    def _always(self, packet: Packet, to_guest: bool) -> bool:
        kind = packet.body[0]
        if packet.protocol == UDP:
            ports = struct.unpack_from(">HH", packet.body)
            client, server = (68, 67) if packet.version == 4 else (546, 547)
            return ports == ((server, client) if to_guest else (client, server))
        if packet.protocol != ICMPV6 or packet.version != 6 or packet.piece:
            return False
        if packet.hops == 1:
            return kind in (131, 132, 143) or (to_guest and kind == 130)
        return packet.hops == 255 and (kind in (135, 136) or kind == (134 if to_guest else 133))

    def _whole(self, packet: Packet, to_guest: bool) -> Reason | None:
        if self._always(packet, to_guest):
            return None
        remote = packet.source if to_guest else packet.destination
        if packet.protocol == (ICMP if packet.version == 4 else ICMPV6):
            return self._icmp(packet, to_guest, remote)
        key, service = self._flow(packet, to_guest)
        segment = SEGMENTS.get(packet.body[13] & 0x17) if packet.protocol == TCP else ""
        return self._connection(key, service, remote, to_guest, segment)

    def _flow(self, packet: Packet, guest_is_destination: bool) -> tuple[object, Service]:
        ports = struct.unpack_from(">HH", packet.body) if packet.protocol in PORTS else (0, 0)
        ends = [(packet.source, ports[0]), (packet.destination, ports[1])]
        if guest_is_destination:
            ends.reverse()
        return (packet.protocol, *ends), (packet.protocol, ports[1], 0)

    def _icmp(self, packet: Packet, to_guest: bool, remote: str) -> Reason | None:
        kind, code, _, number = struct.unpack_from(">BBHH", packet.body)
        service = (packet.protocol, kind, code)
        by_rules = allows(self.rules, self.members, to_guest, remote, service)
        if kind in ERRORS[packet.protocol]:
            if packet.piece and packet.piece[2]:
                return Reason.NOT_ALLOWED
            return None if self._related(packet, to_guest) or by_rules else Reason.BAD_STATE
        queries = QUERIES[packet.protocol]
        answered = {answer: question for question, answer in queries.items()}
        if code or kind not in queries | answered:
            return None if by_rules else Reason.NOT_ALLOWED
        sender = "remote" if to_guest else "guest"
        other = "guest" if to_guest else "remote"
        ends = (packet.destination, packet.source) if to_guest else (
            packet.source, packet.destination)
        if kind in queries:
            return self._connection(("query", sender, kind, number, *ends), service, remote,
                                    to_guest, "")
        key = ("query", other, answered[kind], number, *ends)
        if self._live(key) is None:
            return Reason.BAD_STATE
        return self._connection(key, service, remote, to_guest, None)

    def _related(self, packet: Packet, to_guest: bool) -> bool:
        inner = self.inside.get(packet)
        if inner is None or inner.source != packet.destination:
            return False
        if inner.protocol in (ICMP, ICMPV6):
            kind, _, _, number = struct.unpack_from(">BBHH", inner.body)
            queries = QUERIES[inner.protocol]
            answered = {answer: question for question, answer in queries.items()}
            sender, other = ("guest", "remote") if to_guest else ("remote", "guest")
            ends = (inner.source, inner.destination) if to_guest else (
                inner.destination, inner.source)
            if kind in queries:
                key: object = ("query", sender, kind, number, *ends)
            elif kind in answered:
                key = ("query", other, answered[kind], number, *ends)
            else:
                return False
        else:
            key, _ = self._flow(inner, not to_guest)
        found = self._live(key)
        if found is None:
            return False
        far = inner.destination if to_guest else inner.source
        if not allows(self.rules, self.members, found.opener == "remote", far, found.service):
            del self.known[key]
            return False
        return True

    def _connection(self, key: object, service: Service, remote: str, to_guest: bool,
                    segment: str | None) -> Reason | None:
        sender = "remote" if to_guest else "guest"
        found = self._live(key)
        if found and not allows(self.rules, self.members, found.opener == "remote", remote,
                                found.service):
            del self.known[key]
            found = None
        if found:
            after = self._after(found, sender, segment, service[0])
            if after == BAD:
                return Reason.BAD_STATE
            if after != REOPEN:
                found.state, found.seen = after, self.now
                return None
            del self.known[key]
        return self._begin(key, service, remote, sender, segment)

    def _begin(self, key: object, service: Service, remote: str, sender: str,
               segment: str | None) -> Reason | None:
        state = {UDP: "udp_one_way", ICMP: "icmp", ICMPV6: "icmp"}.get(
            service[0], "other_one_way")
        if service[0] == TCP:
            state = {"syn": "syn_sent", "ack": "picked_up"}.get(segment or "", "")
        if not state or segment is None:
            return Reason.BAD_STATE
        if not allows(self.rules, self.members, sender == "remote", remote, service):
            return Reason.BAD_STATE if segment == "ack" else Reason.NOT_ALLOWED
        self.known[key] = Known(sender, state, self.now, self.policy, service)
        return None

    def _after(self, found: Known, sender: str, segment: str | None, protocol: int) -> str:
        who = "opener" if sender == found.opener else "other"
        if protocol != TCP:
            both = {"udp_one_way": "udp", "other_one_way": "other"}
            return both.get(found.state, found.state) if who == "other" else found.state
        if segment is None:
            return BAD
        state = found.state
        if state == "syn_received" and found.crossed:
            state = "crossed"
        after = TABLE.get((state, who, segment), found.state)
        if after == BAD and segment == "synack" and found.crossed:
            after = found.state
        if after in (BAD, REOPEN):
            return after
        if segment == "rst":
            found.resets.add(sender)
            return "closed"
        if state == "closed" and segment in ("ack", "fin"):
            if sender in found.resets:
                return "closed"
            found.resets.clear()
            return "picked_up"
        if segment == "fin":
            found.fins.add(sender)
            return "time_wait" if len(found.fins) == 2 else "fin_wait"
        if after == "crossed":
            found.crossed = True
            return "syn_received"
        return after
