# SPDX-License-Identifier: Apache-2.0
"""byway.nat44 against plain_nat44.py: conversations, fragments, errors, hairpin, strangers."""

import ipaddress
import random
from collections.abc import Iterator

from byway.functions.builtin.nat44 import Nat44
from byway.nf.running import RUN, Run
from byway.testing.builders import icmp, icmp_error, ip, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both
from tests.frames_wanted import frames_wanted
from tests.oracles.plain_nat44 import PlainNat44, Refused
from tests.oracles.plain_packet import Packet

OUTSIDE = "192.0.2.1"
INSIDE = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
PEERS = ("198.51.100.1", "198.51.100.2")
PORTS = (0, 9, 4000, 4001, 65535)
SERVICES = (53, 80)
FORWARDED = {("tcp", 6): (8080, "10.0.0.3", 80), ("udp", 17): (5353, "10.0.0.2", 53)}
TIMEOUT, ESTABLISHED = 325, 1025
STEP = 50  # no sum of steps is near a timeout
FLAGS = ("S", "S", "SA", "A", "A", "A", "PA", "FA", "R")
PARAMETERS = {"outside": OUTSIDE, "inside": "10.0.0.0/8", "first_port": 1024, "last_port": 1200,
              "timeout": TIMEOUT, "established": ESTABLISHED}
IP = 14


def _number(text: str) -> int:
    return int(ipaddress.IPv4Address(text))


def _text(number: int) -> str:
    return str(ipaddress.IPv4Address(number))


class Traffic:
    """Packets of hosts inside and outside, which remember what reached them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.heard: list[tuple[str, bytes]] = []  # what came out, and which way
        self.pieces: list[tuple[str, bytes]] = []  # fragments that are yet to be sent

    def packets(self, count: int) -> Iterator[tuple[str, bytes]]:
        """Each with the way that it comes: "tx" from inside, "rx" from outside."""
        for _ in range(count):
            kind = self.rng.random()
            if self.pieces and kind < 0.5:
                yield self.pieces.pop()
            elif self.heard and kind < 0.55:
                yield self.answer()
            elif self.heard and kind < 0.65:
                yield self.error()
            elif kind < 0.72:
                yield self.fragment()
            else:
                yield self.call()

    def note(self, way: str, frame: bytes) -> None:
        """A packet came out, and whoever it is for has it."""
        self.heard = [*self.heard[-30:], (way, frame)]

    def _made(self, protocol: int, src: str, dst: str, sport: int, dport: int) -> bytes:
        data = self.rng.randbytes(self.rng.choice((0, 1, 8, 40)))
        if protocol == 6:
            return tcp(src, dst, sport, dport, self.rng.choice(FLAGS), data)
        if protocol == 17:
            frame = bytearray(udp(src, dst, sport, dport, data))
            if self.rng.random() < 0.1:
                frame[40:42] = bytes(2)
            return bytes(frame)
        kind = self.rng.choice((8, 8, 8, 0, 13, 5))
        return icmp(src, dst, kind, 0, sport or dport, 1, data)

    def call(self) -> tuple[str, bytes]:
        """Somebody calls somebody."""
        rng = self.rng
        protocol = rng.choice((6, 6, 17, 17, 1))
        inside, peer, port = rng.choice(INSIDE), rng.choice(PEERS), rng.choice(PORTS)
        who = rng.random()
        if who < 0.7:
            return "tx", self._made(protocol, inside, peer, port, rng.choice(SERVICES))
        service = rng.choice((8080, 5353, 4000, 4001, 1024))
        if who < 0.8:
            return "rx", self._made(protocol, peer, OUTSIDE, rng.choice(SERVICES), service)
        if who < 0.95:
            return "rx", self._made(protocol, inside, OUTSIDE, port, service)
        src, dst = rng.choice(((OUTSIDE, OUTSIDE), (inside, INSIDE[0]), (peer, inside),
                               (inside, "255.255.255.255"), (inside, "224.0.0.5")))
        if rng.random() < 0.2:
            return "tx", ip(src, dst, 47, bytes(8))
        return rng.choice(("rx", "tx")), self._made(protocol, src, dst, port, 80)

    def answer(self) -> tuple[str, bytes]:
        """Whoever a packet reached answers it."""
        way, frame = self.rng.choice(self.heard)
        packet = Packet.of(frame[IP:])
        sport, dport = packet.ports if not packet.is_later else (0, 0)
        back = "tx" if way == "rx" and _text(packet.src) != OUTSIDE else "rx"
        made = self._made(packet.protocol, _text(packet.dst), _text(packet.src), dport, sport)
        if packet.protocol == 1:
            made = icmp(_text(packet.dst), _text(packet.src), packet.kind & 8 ^ 8, 0, sport | dport)
        return back, made

    def error(self) -> tuple[str, bytes]:
        """A packet met an error: at its end, or on its way."""
        way, frame = self.rng.choice(self.heard)
        packet = Packet.of(frame[IP:])
        back = "tx" if way == "rx" and _text(packet.src) != OUTSIDE else "rx"
        at = self.rng.choice((_text(packet.dst), "203.0.113.9" if back == "rx" else "10.7.7.7"))
        return back, icmp_error(at, frame, self.rng.choice((3, 11, 12)), self.rng.choice((0, 1, 4)),
                                self.rng.choice((0, 1400)), self.rng.choice((28, 48, 64, 200)))

    def fragment(self) -> tuple[str, bytes]:
        """A datagram in two pieces, of which the second may come first, or alone."""
        rng = self.rng
        way, whole = self.call()
        packet = Packet.of(whole[IP:])
        if packet.protocol not in (6, 17):
            return way, whole
        body = bytes(packet.body) + rng.randbytes(48)
        ends = _text(packet.src), _text(packet.dst)
        number = rng.randrange(4)
        first = ip(*ends, packet.protocol, body[:24], fragment=(0, True), ident=number)
        second = ip(*ends, packet.protocol, body[24:], fragment=(24, False), ident=number)
        if rng.random() < 0.8:
            self.pieces.insert(0, (way, second))
            return way, first
        return way, second


def said(plain: PlainNat44, packet: bytes, way: str, now: int, both: Both) -> bytes | Refused:
    """What the plain one makes of a packet; of ports that chance chose it is told."""

    def chosen(*inside: int) -> int:
        token = RUN.set(Run(now=now * 10**9))
        port: int = both.plain.instances[0].bindings.peek(inside).port
        RUN.reset(token)
        return port

    try:
        return plain.of(packet, way, now, chosen)
    except Refused as refused:
        return refused


def test_it_does_what_the_plain_one_does() -> None:
    both = Both(Nat44, **PARAMETERS)
    both.put("forwards", [((protocol, port), {"ip": ip_, "port": inside})
                          for (_, protocol), (port, ip_, inside) in FORWARDED.items()])
    plain = PlainNat44(
        _number(OUTSIDE), ipaddress.IPv4Network("10.0.0.0/8"), 1024, 1200, TIMEOUT, ESTABLISHED,
        {(protocol, port): (_number(to), inside)
         for (_, protocol), (port, to, inside) in FORWARDED.items()})
    traffic = Traffic(1)
    now = STEP
    seen = dict.fromkeys(("passed", "translated", "no flow", "spoofed", "protocol",
                          "fragment before its first"), 0)
    for way, frame in traffic.packets(frames_wanted()):
        now += traffic.rng.choice((0, 0, 0, 0, 0, STEP, 8 * STEP) if traffic.rng.random() < 0.3
                                  else (0,))
        outcome = both.one(frame, direction=way, now=now * 10**9)
        told = said(plain, frame[IP:], way, now, both)
        if isinstance(told, Refused):
            assert (outcome.verdict.kind, outcome.reason) == ("drop", str(told)), frame.hex()
            seen[str(told)] = seen.get(str(told), 0) + 1
            continue
        assert outcome.verdict.kind == "pass", (frame.hex(), outcome)
        assert outcome.frame == frame[:IP] + told + frame[IP + len(told):], frame.hex()
        seen["translated" if outcome.frame != frame else "passed"] += 1
        traffic.note(way, outcome.frame)
    assert all(seen.values()), seen


def test_two_flows_that_would_look_the_same_inside() -> None:
    both = Both(Nat44, **PARAMETERS)
    both.put("forwards", [((6, 8080), {"ip": INSIDE[2], "port": 80})])
    assert both.one(tcp(INSIDE[2], PEERS[0], 80, 53), direction="tx").verdict.kind == "pass"
    assert both.one(tcp(PEERS[0], OUTSIDE, 53, 8080, "S")).reason == "no room"
    assert both.one(tcp(PEERS[1], OUTSIDE, 53, 8080, "S")).verdict.kind == "pass"


def test_all_ports_are_taken() -> None:
    both = Both(Nat44, **{**PARAMETERS, "last_port": 1025})
    for port in (80, 81):
        assert both.one(udp(INSIDE[0], PEERS[0], port, 53), direction="tx").verdict.kind == "pass"
    assert both.one(udp(INSIDE[0], PEERS[0], 82, 53), direction="tx").reason == "no free port"
    both.set("last_port", 1023)
    assert both.one(udp(INSIDE[0], PEERS[0], 83, 53), direction="tx").reason == "no free port"


def test_translated_and_plain_agree_on_any_frame() -> None:
    both = Both(Nat44, **{**PARAMETERS, "unknown": "pass"})
    rng = random.Random(7)
    now = 0
    for frame in generated(frames_wanted(), 7):
        now += rng.choice((0, 10**6, 10**9))
        both.one(frame, direction=rng.choice(("rx", "tx")), now=now)
