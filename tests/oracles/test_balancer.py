# SPDX-License-Identifier: Apache-2.0
"""byway.balancer against plain_balancer.py: clients, servers that come and go, answers, errors."""

import ipaddress
import random
from typing import Any

import pytest

from byway.functions.builtin.balancer import Balancer
from byway.nf.maglev import Member
from byway.testing.builders import arp, icmp, icmp_error, ip, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both
from tests.frames_wanted import frames_wanted
from tests.oracles.plain_balancer import PlainBalancer, Refused, Server
from tests.oracles.plain_packet import Packet

SERVICE, MAC = "192.0.2.80", "02:00:00:00:00:80"
CLIENTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
IDLE, STEP = 325, 50
IP = 14


def _number(text: str) -> int:
    return int(ipaddress.IPv4Address(text))


def _text(number: int) -> str:
    return str(ipaddress.IPv4Address(number))


class Service:
    """The function, twice, and the plain one, with the same members."""

    def __init__(self, **given: Any) -> None:
        self.both = Both(Balancer, address=SERVICE, mac=MAC, idle=IDLE, **given)
        protocols = {"tcp": (6,), "udp": (17,), "both": (6, 17)}[given.get("protocol", "both")]
        self.plain = PlainBalancer(
            _number(SERVICE), given.get("port", 0), protocols, given["mode"] == "nat",
            given.get("affinity") == "source", given.get("sticky", True), IDLE)
        self.plain.place()

    def member(self, number: int, weight: int, up: bool) -> None:
        """A member comes, or changes."""
        self.both.put("members", [(number, {"weight": weight, "up": up})])
        self.plain.members[number] = Member(weight, up)
        self.plain.place()

    def server(self, number: int, port: int) -> None:
        """Where a member is."""
        mac, address = f"02:00:00:00:01:{number:02x}", f"10.1.0.{number}"
        self.both.put("servers", [(number, {"mac": mac, "ip": address, "port": port})])
        self.plain.servers[number] = Server(
            bytes.fromhex(mac.replace(":", "")), _number(address), port)

    def gone(self, number: int) -> None:
        """A server is taken out."""
        for table in (self.both.plain.instances[0].servers,
                      self.both.harness.instances[0].states["servers"]):
            table.remove(number)
        self.plain.servers.pop(number, None)


def _frame(rng: random.Random, heard: list[bytes]) -> bytes:
    """A request, an answer to one that was heard, an error about an answer, or something else."""
    kind = rng.random()
    make = rng.choice((tcp, tcp, udp))
    data = rng.randbytes(rng.choice((0, 5, 40)))
    if heard and kind < 0.4:
        packet = Packet.of(rng.choice(heard)[IP:])
        if packet.protocol not in (6, 17) or packet.place:
            return icmp(_text(packet.src), _text(packet.dst), 13)
        sport, dport = packet.ports
        ends = _text(packet.dst), _text(packet.src)
        if kind < 0.3:
            make = tcp if packet.protocol == 6 else udp
            return make(*ends, dport, sport, data=data)
        about = rng.choice(heard)
        return icmp_error(rng.choice((ends[0], "203.0.113.9")), about, rng.choice((3, 11, 12, 5)),
                          octets=rng.choice((28, 48, 200)))
    client = rng.choice(CLIENTS)
    if kind < 0.9:
        return make(client, SERVICE, rng.randrange(1000, 1008), rng.choice((80, 80, 81)), data=data)
    if kind < 0.93:
        return ip(client, SERVICE, 17, data, fragment=(8, rng.random() < 0.5))
    return rng.choice((icmp(client, SERVICE, 13), ip(client, SERVICE, 47, data),
                       udp(client, CLIENTS[0], 1000, 80), ip("10.1.0.1", client, 47, data)))


@pytest.mark.parametrize("given", [
    {"mode": "nat"},
    {"mode": "nat", "port": 80, "protocol": "tcp", "affinity": "source"},
    {"mode": "mac", "protocol": "udp"},
    {"mode": "mac", "sticky": False, "port": 80},
])
def test_it_does_what_the_plain_one_does(given: dict[str, Any]) -> None:
    service = Service(**given)
    rng = random.Random(repr(given))
    heard: list[bytes] = []
    seen: dict[str, int] = {}
    now = STEP
    for k in range(frames_wanted() // 4):
        if k % 50 == 20:
            now += STEP  # what was chosen is looked at again once a second
            number = rng.randrange(1, 6)
            service.member(number, rng.randrange(1, 4), rng.random() < 0.8)
            if rng.random() < 0.7:
                service.server(number, rng.choice((0, 8080)))
            elif rng.random() < 0.5:
                service.gone(number)
        now += rng.choice((0, 0, 0, STEP, 8 * STEP) if rng.random() < 0.1 else (0,))
        frame = _frame(rng, heard)
        outcome = service.both.one(frame, now=now * 10**9)
        try:
            wanted, told = service.plain.of(frame, now), "passed"
        except Refused as refused:
            wanted, told = b"", str(refused)
        seen[told] = seen.get(told, 0) + 1
        if not wanted:
            assert (outcome.verdict.kind, outcome.reason) == ("drop", told), frame.hex()
            continue
        assert (outcome.verdict.kind, outcome.frame) == ("pass", wanted), frame.hex()
        heard = [*heard[-20:], outcome.frame]
    assert set(seen) >= {"passed", "not served", "no server", "fragment"}, seen
    assert given["mode"] != "nat" or "port" in given or "port in use" in seen


def test_the_service_answers_arp_and_echo() -> None:
    both = Both(Balancer, address=SERVICE, mac=MAC)
    outcome = both.one(arp("10.0.0.1", SERVICE))
    assert outcome.verdict.kind == "reply"
    mac = bytes.fromhex(MAC.replace(":", ""))
    assert outcome.frame[6:12] == mac
    assert outcome.frame[20:32] == b"\0\2" + mac + ipaddress.ip_address(SERVICE).packed
    assert both.one(arp("10.0.0.1", "10.0.0.2")).verdict.kind == "pass"
    outcome = both.one(icmp("10.0.0.1", SERVICE, data=b"echo"))
    assert outcome.verdict.kind == "reply"
    assert outcome.frame[6:] == icmp(SERVICE, "10.0.0.1", 0, data=b"echo", eth_src=MAC)[6:]


def test_translated_and_plain_agree_on_any_frame() -> None:
    both = Both(Balancer, address="10.0.0.2", mode="nat")
    both.put("members", [(1, {}), (2, {})])
    both.put("servers", [(number, {"mac": MAC, "ip": f"10.0.0.{number}", "port": 0})
                         for number in (1, 2)])
    for frame in generated(frames_wanted(), 9):
        both.one(frame)
