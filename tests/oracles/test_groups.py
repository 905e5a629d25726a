# SPDX-License-Identifier: Apache-2.0
"""Security groups against plain_groups.py: random rules, frames, times, and changes of both.

Addresses, ports and protocols are few, so that frames meet: answers, errors about earlier packets,
later pieces, a second SYN. BYWAY_GROUPS_CASES=100000 for the whole number of rule sets; each case
has its own rules and FRAMES frames.
"""

import ipaddress
import os
import random
from collections.abc import Sequence

import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.reason import Reason
from byway.switch.groups_compile import Policy, Rule, halves
from byway.switch.groups_rules import MEMBERS, NO
from byway.testing.flow_frames import ICMP, ICMPV6, TCP, UDP, Packet, icmp, tcp, udp
from byway.testing.groups_kernels import rules_allow
from tests.filtering import Filtered, octets
from tests.oracles.plain_groups import SECONDS, PlainGroups, allows

CASES = int(os.environ.get("BYWAY_GROUPS_CASES", "150" if INTERPRETED else "1500"))
FRAMES, LOTS = 30, 10
GUEST = {4: "10.0.0.1", 6: "fd00::1"}
REMOTES = {4: ["10.0.0.2", "10.0.1.3", "192.0.2.9"], 6: ["fd00::2", "fd00:0:0:1::3", "2001:db8::9"]}
PREFIXES = {4: ["10.0.0.0/24", "10.0.0.0/16", "10.0.1.3/32", "192.0.2.0/25", "0.0.0.0/0",
                "10.0.0.2/31", "128.0.0.0/1"],
            6: ["fd00::/64", "fd00::/16", "fd00:0:0:1::3/128", "2001:db8::/32", "::/0",
                "fd00::2/127", "fd00:0:0:1::/64"]}
PORTS = (22, 53, 67, 68, 80, 546, 547, 40000)
FLAGS = (2, 2, 18, 16, 16, 16, 17, 4, 20, 0, 3, 24)
GROUPS = ("a", "b", "c")
WAITS = (0.5, 1.5, 11, 31, 61, 100, 181, 301, 7441)


def some_rule(draw: random.Random) -> Rule:
    """One rule of those that matter to the frames below."""
    version = draw.choice((4, 6))
    protocol = draw.choice((None, None, TCP, UDP, ICMP if version == 4 else ICMPV6, 47, 132))
    ports, kind, code = None, None, None
    if protocol in (TCP, UDP, 132) and draw.random() < 0.8:
        first = draw.choice(PORTS)
        ports = first, draw.choice([first, *(port for port in PORTS if port >= first), 65535])
    if protocol in (ICMP, ICMPV6) and draw.random() < 0.7:
        kind = draw.choice((0, 3, 8, 11, 13) if version == 4 else (1, 3, 128, 129, 135))
        code = draw.choice((None, None, 0, 1))
    remote, group = None, None
    if draw.random() < 0.6:
        remote = ipaddress.ip_network(draw.choice(PREFIXES[version]))
    elif draw.random() < 0.6:
        group = draw.choice(GROUPS)
    return Rule(draw.random() < 0.5, version, protocol, ports, kind, code, remote, group)


def some_rules(draw: random.Random) -> list[Rule]:
    """A few or many."""
    return [some_rule(draw) for _ in range(draw.choice((1, 4, 12, 30, 60)))]


class Case:
    """One port of the stage and one of the oracle, with the same rules."""

    def __init__(self, lab: Filtered, number: int, seed: int) -> None:
        self.lab, self.number, self.draw = lab, number, random.Random(seed)
        self.name = f"own {seed}"
        self.talks = self.draw.random() < 0.3  # mostly about one TCP connection
        rules = some_rules(self.draw)
        if self.talks:
            rules.append(Rule(self.draw.random() < 0.5, 4))
        self.oracle = PlainGroups(rules)
        lab.groups.set_group(self.name, self.oracle.rules)
        lab.port(number, self.name)
        self.start = lab.now
        self.sent: list[tuple[Packet, bool]] = []
        self.waiting: list[tuple[Packet, bool]] = []
        self.seen: set[object] = set()  # states and verdicts

    def some_packet(self) -> tuple[Packet, bool]:
        """A packet, and whether it is for the guest."""
        draw = self.draw
        if self.waiting and draw.random() < 0.6:
            return self.waiting.pop(draw.choice((0, 0, -1)))
        if self.talks and draw.random() < 0.7:
            to_guest = draw.random() < 0.5
            ends, ports = [GUEST[4], REMOTES[4][0]], [40000, 80]
            if to_guest:
                ends, ports = ends[::-1], ports[::-1]
            return Packet(*ends, TCP, tcp(*ports, draw.choice(FLAGS))), to_guest
        whole = [(packet, way) for packet, way in self.sent if not packet.piece]
        if whole and draw.random() < 0.2:
            return self.some_error(*draw.choice(whole))
        to_guest = draw.random() < 0.5
        version = draw.choice((4, 6))
        ends = [GUEST[version], draw.choice(REMOTES[version])]
        if to_guest:
            ends.reverse()
        protocol = draw.choice((TCP, TCP, TCP, UDP, UDP, 132, 47,
                                *([ICMP if version == 4 else ICMPV6] * 2)))
        ports = draw.choice(PORTS), draw.choice(PORTS)
        if whole and draw.random() < 0.5:  # an answer, or more of the same
            packet, way = draw.choice(whole)
            turn = draw.random() < 0.6
            ends = [packet.source, packet.destination][:: -1 if turn else 1]
            protocol, to_guest = packet.protocol, way != turn
            first, second = packet.body[:2], packet.body[2:4]
            ports = int.from_bytes(second if turn else first), int.from_bytes(
                first if turn else second)
        body = self.some_body(protocol, ports)
        packet = Packet(ends[0], ends[1], protocol, body, hops=draw.choice((255, 64, 1)))
        if draw.random() < 0.12:
            pieces = packet.pieces(draw.randrange(3), draw.choice(([24], [48], [8], [16, 24])))
            self.waiting += [(piece, to_guest) for piece in pieces[1:]]
            packet = pieces[0]
        return packet, to_guest

    def some_body(self, protocol: int, ports: tuple[int, int]) -> bytes:
        if protocol == TCP:
            return tcp(*ports, self.draw.choice(FLAGS), bytes(80))
        if protocol in (ICMP, ICMPV6):
            kinds = (0, 8, 8, 5, 13, 14) if protocol == ICMP else (
                128, 128, 129, 130, 131, 133, 134, 135, 136, 137, 143)
            return icmp(self.draw.choice(kinds), self.draw.choice((0, 0, 0, 1)),
                        self.draw.randrange(2), bytes(80))
        return udp(*ports, bytes(80))

    def some_error(self, packet: Packet, was_to_guest: bool) -> tuple[Packet, bool]:
        """An ICMP error about a packet, most often to whom it came from."""
        kind = self.draw.choice((3, 11, 12) if packet.version == 4 else (1, 2, 3))
        router = self.draw.choice([packet.destination, REMOTES[packet.version][0]])
        error = packet.error(GUEST[packet.version] if was_to_guest else router, kind)
        self.oracle.inside[error] = packet
        return error, not was_to_guest

    def change(self) -> None:
        """Something else than a frame may happen."""
        draw, groups, oracle = self.draw, self.lab.groups, self.oracle
        chance = draw.random()
        if chance < 0.1:
            self.lab.wait(draw.choice(WAITS))
        elif chance < 0.15:
            oracle.rules, oracle.policy = some_rules(draw), oracle.policy + 1
            groups.set_group(self.name, oracle.rules)
        elif chance < 0.3:
            group, remote = draw.choice(GROUPS), draw.choice(REMOTES[4] + REMOTES[6])
            members = oracle.members.setdefault(group, set())
            if remote in members:
                members.remove(remote)
                groups.leave(group, octets(remote))
                groups.tick(self.lab.now)
            else:
                members.add(remote)
                groups.join(group, octets(remote))

    def end(self) -> None:
        """Leave nothing behind for the next case."""
        for group, members in self.oracle.members.items():
            for remote in members:
                self.lab.groups.leave(group, octets(remote))
        self.lab.groups.detach(self.number)
        self.lab.groups.remove_group(self.name)

    def run(self) -> int:
        """-> frames that passed."""
        passed = 0
        for _ in range(FRAMES):
            self.change()
            packet, to_guest = self.some_packet()
            self.oracle.now = (self.lab.now - self.start) / 1000
            expected = self.oracle.verdict(packet, to_guest)
            send = self.lab.tx if to_guest else self.lab.rx
            assert send(packet, self.number) is expected, (self.name, packet, to_guest)
            self.sent.append((packet, to_guest))
            passed += expected is None
            self.seen |= {known.state for known in self.oracle.known.values()} | {expected}
        return passed


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lot", range(LOTS))
def test_verdicts(lot: int) -> None:
    """Frame by frame the same verdict, with the same reason."""
    lab = Filtered(seed=lot)
    passed, seen = 0, set()
    for seed in range(lot, CASES, LOTS):
        case = Case(lab, 1 + seed % 7, seed)
        passed += case.run()
        case.end()
        seen |= case.seen
    assert len(lab.groups.table) == 0
    assert len(lab.groups.members) == 0
    frames = FRAMES * len(range(lot, CASES, LOTS))
    assert 0.2 < passed / frames < 0.8, "both verdicts are to happen"
    assert {None, Reason.NOT_ALLOWED, Reason.BAD_STATE} <= seen
    if CASES >= 15_000:  # fewer meet the rarest states in most lots, not in all
        assert seen == {*SECONDS, None, Reason.NOT_ALLOWED, Reason.BAD_STATE}


def wide_rule(draw: random.Random, remotes: Sequence[str]) -> Rule:
    """A rule among many: any port range, any prefix around one of some addresses."""
    first = draw.randrange(0x10000)
    remote = draw.choice(remotes)
    version = ipaddress.ip_address(remote).version
    length = draw.randrange(33 if version == 4 else 129)
    return Rule(
        ingress=draw.random() < 0.5, version=version, protocol=draw.choice((TCP, UDP)),
        ports=(first, min(0xFFFF, first + draw.choice((0, 1, 255, 256, 5000)))),
        remote=ipaddress.ip_network((remote, length), strict=False))


@pytest.mark.parametrize("n", [1, 3, 30, 300])
def test_many_rules(n: int) -> None:
    """Overlapping ranges and nested prefixes: each question as when all rules are walked."""
    draw = random.Random(n)
    members = alloc(MEMBERS, 1)
    for _ in range(3 if INTERPRETED else 12):
        remotes = [str(ipaddress.IPv4Address(draw.getrandbits(32))) for _ in range(4)]
        remotes += [str(ipaddress.IPv6Address(draw.getrandbits(128))) for _ in range(4)]
        rules = [wide_rule(draw, remotes) for _ in range(n)]
        policy = Policy(1, rules)
        for _ in range(300):
            rule = draw.choice(rules)
            service = draw.choice((TCP, UDP)), max(0, min(0xFFFF, draw.choice(
                rule.ports or ()) + draw.choice((-1, 0, 1, 200)))), 0
            remote = near_to(draw, draw.choice(remotes))
            version = ipaddress.ip_address(remote).version
            ingress = draw.random() < 0.5
            answer = rules_allow(
                policy.sets[2 * ingress + (version == 6)].address, address_of(members),
                service[0] << 16 | service[1], *halves(int.from_bytes(octets(remote))))
            assert (answer != NO) == allows(rules, {}, ingress, remote, service)


def near_to(draw: random.Random, address: str) -> str:
    """An address that differs from another one from some bit on."""
    ip = ipaddress.ip_address(address)
    return str(type(ip)(int(ip) ^ draw.getrandbits(draw.randrange(ip.max_prefixlen) + 1)))
