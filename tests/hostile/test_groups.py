# SPDX-License-Identifier: Apache-2.0
"""Guests and remote hosts that want to get around security groups, or to use them up.

Floods, a full table, fragments that lie, frames of random bytes. Who floods loses connections of
its own; everybody else's stay, and new ones of others are possible.
"""

import random
import struct
from dataclasses import replace
from itertools import chain

import pytest

from byway.machine.jit import INTERPRETED
from byway.packet.batch import HEAD
from byway.packet.reason import Reason
from byway.switch.groups_compile import Rule
from byway.testing.arena import Arena
from byway.testing.flow_frames import (
    ACK,
    ICMP,
    ICMPV6,
    SYN,
    TCP,
    UDP,
    Packet,
    icmp,
    tcp,
    udp,
)
from tests.filtering import OUT4, OUT6, Filtered, octets

GUEST, REMOTE = "10.0.0.1", "10.0.0.2"
BAD, GOOD = 1, 2  # ports: of the hostile guest, and of another one
FLOOD = 300 if INTERPRETED else 20_000


def syn(number: int, source: str = GUEST) -> Packet:
    """One of many connections that nobody will answer."""
    return Packet(source, f"11.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", TCP,
                  tcp(1024 + number % 60000, 80, SYN))


def establish(lab: Filtered, port: int, number: int = 40000) -> None:
    lab.rx(Packet(GUEST, REMOTE, TCP, tcp(number, 443, SYN)), port)
    lab.tx(Packet(REMOTE, GUEST, TCP, tcp(443, number, SYN | ACK)), port)
    assert lab.rx(Packet(GUEST, REMOTE, TCP, tcp(number, 443, ACK)), port) is None


def goes_on(lab: Filtered, port: int, number: int = 40000) -> bool:
    """Does an established connection carry data in both directions?"""
    return lab.tx(Packet(REMOTE, GUEST, TCP, tcp(443, number, ACK)), port) is None \
        and lab.rx(Packet(GUEST, REMOTE, TCP, tcp(number, 443, ACK)), port) is None


@pytest.fixture
def lab() -> Filtered:
    made = Filtered(capacity=400, seed=None)
    made.groups.set_group("out", [OUT4, OUT6])
    made.port(BAD, "out", limit=100)
    made.port(GOOD, "out", limit=100)
    return made


def flood(lab: Filtered, port: int, n: int = FLOOD) -> list[Reason | None]:
    """SYNs in full batches; -> verdicts."""
    frames = [syn(k).frame() for k in range(n)]
    return list(chain.from_iterable(
        lab.rx_frames(frames[k : k + 64], port) for k in range(0, n, 64)))


# ---------------------------------------------------------------- floods
def test_a_syn_flood_leaves_established_connections_alone(lab: Filtered) -> None:
    """Of another guest, and of the flooding one itself."""
    establish(lab, GOOD), establish(lab, BAD)
    verdicts = flood(lab, BAD)
    assert set(verdicts) == {None}, "each throws out an older one that nobody answered"
    told = lab.groups.statistics(BAD)
    assert (told["connections"], told["opened"]) == (100, FLOOD + 1)
    assert told["evicted"] == FLOOD + 1 - 100
    assert goes_on(lab, GOOD)
    assert goes_on(lab, BAD)
    establish(lab, GOOD, 40001)
    assert lab.groups.statistics(GOOD)["evicted"] == 0


def test_a_server_under_a_syn_flood_still_serves() -> None:
    lab = Filtered(capacity=400, seed=None)
    lab.groups.set_group("web", [Rule(ingress=True, version=4, protocol=TCP, ports=(80, 80))])
    lab.port(1, "web", limit=100)
    for k in range(FLOOD // 4):
        assert lab.tx(Packet(f"11.0.{k >> 8 & 255}.{k & 255}", GUEST, TCP,
                             tcp(1024 + k % 60000, 80, SYN))) is None
        if k == 150:
            assert lab.tx(Packet(REMOTE, GUEST, TCP, tcp(5, 80, SYN))) is None
            assert lab.rx(Packet(GUEST, REMOTE, TCP, tcp(80, 5, SYN | ACK))) is None
            assert lab.tx(Packet(REMOTE, GUEST, TCP, tcp(5, 80, ACK))) is None
    assert lab.tx(Packet(REMOTE, GUEST, TCP, tcp(5, 80, ACK))) is None
    assert lab.rx(Packet(GUEST, REMOTE, TCP, tcp(80, 5, ACK))) is None


def test_connections_that_were_answered_are_not_given_up(lab: Filtered) -> None:
    """Then there is an end: the port has its share, and no more."""
    for k in range(100):
        establish(lab, BAD, 1000 + k)
    verdicts = flood(lab, BAD, 64)
    assert verdicts == [Reason.CONNECTIONS] * 64
    assert goes_on(lab, BAD, 1000)
    lab.wait(7441)
    lab.groups.tick(lab.now)
    assert flood(lab, BAD, 1) == [None]


def test_other_floods_share_the_same_limit(lab: Filtered) -> None:
    establish(lab, GOOD)
    for k in range(FLOOD // 10):
        lab.rx(Packet(GUEST, REMOTE, UDP, udp(k & 0xFFFF, 53)), BAD)
        lab.rx(Packet(GUEST, REMOTE, ICMP, icmp(8, number=k & 0xFFFF)), BAD)
        first = Packet(GUEST, REMOTE, UDP, udp(1, 2, bytes(100))).pieces(k & 0xFFFF, [48])[0]
        lab.rx(first, BAD)
    assert lab.groups.statistics(BAD)["connections"] <= 100
    assert goes_on(lab, GOOD)


def test_a_full_table(lab: Filtered) -> None:
    """Many hostile guests: half of the table is divided, the other half is who's first."""
    for port in range(10, 18):
        lab.port(port, "out", limit=100)
    for port in range(10, 18):
        assert set(flood(lab, port, 110)) == {None}
    had = [lab.groups.statistics(port)["connections"] for port in range(10, 18)]
    fair = 400 // 2 // 10
    assert had == [100, 100, 60, fair, fair, fair, fair, fair]
    establish(lab, GOOD)
    assert flood(lab, BAD, 64) == [None] * 64
    assert lab.groups.statistics(BAD)["connections"] == fair
    assert goes_on(lab, GOOD)
    lab.groups.tick(lab.now)
    assert lab.groups.table.record["over"][0] == 200
    lab.wait(61)
    lab.groups.tick(lab.now)
    assert (len(lab.groups.table), lab.groups.table.record["over"][0]) == (1, 0)


def test_no_room_at_all() -> None:
    lab = Filtered(capacity=10, seed=None)
    lab.groups.set_group("out", [OUT4])
    for port in range(1, 12):
        lab.port(port, "out")
    for port in range(1, 12):
        establish(lab, port) if port < 10 else lab.rx(syn(1), port)
    lab.tx(Packet(REMOTE, GUEST, UDP, udp(1, 2)), 11)
    assert len(lab.groups.table) <= 10
    assert all(goes_on(lab, port) for port in range(1, 10) if lab.states(port))


def test_a_flood_that_ages_leaves_nothing(lab: Filtered) -> None:
    flood(lab, BAD, 128)
    lab.wait(61)
    assert lab.groups.tick(lab.now) == 100
    assert len(lab.groups.table) == 0


# ---------------------------------------------------------------- fragments
@pytest.fixture
def dns() -> Filtered:
    """To the guest: UDP to port 53 only."""
    made = Filtered()
    made.groups.set_group("dns", [
        Rule(ingress=True, version=version, protocol=protocol, ports=(53, 53))
        for version in (4, 6) for protocol in (UDP, TCP)])
    made.port(1, "dns")
    return made


@pytest.fixture(params=[4, 6])
def datagram(request: pytest.FixtureRequest) -> Packet:
    """A datagram to port 53, to be cut."""
    ends = (REMOTE, GUEST) if request.param == 4 else ("fd00::2", "fd00::1")
    return Packet(*ends, UDP, udp(1000, 53, bytes(400)))


def test_pieces_pass_after_the_first_one(dns: Filtered, datagram: Packet) -> None:
    first, *later = datagram.pieces(5, [48, 120, 120])
    assert [dns.tx(piece) for piece in later] == [Reason.BAD_STATE] * 3
    assert dns.tx(first) is None
    assert [dns.tx(piece) for piece in later[::-1]] == [None] * 3
    dns.wait(1.1)
    assert dns.tx(later[0]) is Reason.BAD_STATE, "the last one was seen"


def test_pieces_of_another_datagram(dns: Filtered, datagram: Packet) -> None:
    first, later = datagram.pieces(5, [48])
    dns.tx(first)
    assert dns.tx(replace(later, piece=(6, 48, False))) is Reason.BAD_STATE
    assert dns.tx(replace(later, source=datagram.source[:-1] + "3")) is Reason.BAD_STATE
    turned = replace(later, source=datagram.destination, destination=datagram.source)
    assert dns.rx(turned) is Reason.BAD_STATE
    dns.wait(31)
    assert dns.tx(later) is Reason.BAD_STATE


def test_a_first_piece_is_looked_at_like_any_packet(dns: Filtered, datagram: Packet) -> None:
    first, later = replace(datagram, body=udp(1000, 22, bytes(400))).pieces(5, [48])
    assert dns.tx(first) is Reason.NOT_ALLOWED
    assert dns.tx(later) is Reason.BAD_STATE
    good, _ = datagram.pieces(5, [48])
    assert dns.tx(good) is None
    assert dns.tx(first) is Reason.NOT_ALLOWED, "not even under the name of an allowed one"


@pytest.mark.parametrize("offset", [8, 16])
def test_no_piece_overwrites_a_header(dns: Filtered, datagram: Packet, offset: int) -> None:
    """RFC 1858, 4.2: flags and ports of the first piece are what the guest gets."""
    first, later = datagram.pieces(5, [48])
    dns.tx(first)
    assert dns.tx(replace(later, piece=(5, offset, True))) is Reason.NOT_ALLOWED
    assert dns.tx(replace(later, piece=(5, 24, True))) is None


@pytest.mark.parametrize(("protocol", "least"), [(TCP, 20), (UDP, 8)])
def test_a_first_piece_without_its_header(
        dns: Filtered, datagram: Packet, protocol: int, least: int) -> None:
    """RFC 1858, 3 (tiny fragments), also where padding looks like the rest of it; RFC 7112."""
    body = tcp(1000, 53, SYN, bytes(100)) if protocol == TCP else udp(1000, 53, bytes(100))
    whole = replace(datagram, protocol=protocol, body=body)
    for size in range(8, least, 8):
        assert dns.tx(whole.pieces(5, [size])[0]) is Reason.NOT_ALLOWED
        frame = whole.pieces(5, [size])[0].frame()[:-20] + body[size:]
        assert dns.tx_frames([frame.ljust(90, b"\x10")]) == []
    assert dns.tx(whole.pieces(5, [24])[0]) is None


def test_a_fragment_header_on_a_whole_packet(dns: Filtered) -> None:
    """RFC 6946: an atomic fragment is a packet like any other, and begins no datagram."""
    whole = Packet("fd00::2", "fd00::1", UDP, udp(1, 53), piece=(5, 0, False))
    assert dns.tx(whole) is None
    assert dns.tx(replace(whole, body=udp(1, 54))) is Reason.NOT_ALLOWED
    assert dns.tx(replace(whole, piece=(5, 48, False))) is Reason.BAD_STATE


def test_pieces_obey_new_rules(dns: Filtered, datagram: Packet) -> None:
    first, second, third = datagram.pieces(5, [48, 120])
    assert (dns.tx(first), dns.tx(second)) == (None, None)
    dns.groups.set_group("dns", [])
    assert dns.tx(third) is Reason.BAD_STATE


# ---------------------------------------------------------------- nonsense
def seeds() -> list[bytes]:
    """Frames of all kinds that the stage looks into."""
    plain = Packet(GUEST, REMOTE, UDP, udp(1, 53, bytes(90)))
    six = Packet("fd00::1", "fd00::2", UDP, udp(1, 53, bytes(90)))
    many = (0, bytes([1]) + bytes(14)), (60, bytes(7)), (43, bytes(7))
    packets = [
        plain, six, *plain.pieces(3, [24, 24]), *six.pieces(3, [24, 24]),
        replace(six, headers=many),
        Packet(GUEST, REMOTE, TCP, tcp(1, 80, SYN)), Packet(GUEST, REMOTE, ICMP, icmp(8)),
        Packet("fd00::1", "fd00::2", ICMPV6, icmp(128)), plain.error(REMOTE, 3),
        six.error("fd00::2", 1), replace(plain, tags=(1, 2)), Packet(GUEST, REMOTE, 132, udp(1, 2)),
        *replace(six, headers=many).pieces(4, [32])]
    return [packet.frame() for packet in packets]


def spoiled(draw: random.Random, frames: list[bytes]) -> bytes:
    """A frame with some of its bytes changed, cut somewhere, or grown."""
    frame = bytearray(draw.choice(frames))
    for _ in range(draw.randrange(4)):
        frame[draw.randrange(12, min(len(frame), 90))] = draw.choice(
            (0, 1, 4, 6, 17, 43, 44, 58, 60, 255, draw.randrange(256)))
    if draw.random() < 0.3:
        del frame[draw.randrange(14, len(frame)) :]
    if draw.random() < 0.2:
        frame += bytes(draw.randrange(150))
    return bytes(frame)


def test_frames_of_nonsense(lab: Filtered) -> None:
    """Whatever the bytes: a verdict, and a table that holds what it counts."""
    draw = random.Random(4)
    lab.groups.join("a", octets(REMOTE))
    lab.groups.set_group("out", [OUT4, OUT6, Rule(True, 4, remote_group="a"), Rule(True, 6, UDP)])
    seen: set[object] = set()
    frames = seeds()
    for k in range(8 if INTERPRETED else 1500):
        batch = [spoiled(draw, frames) for _ in range(64)]
        if k % 2:
            kept = lab.tx_frames(batch, BAD)
            assert kept == sorted(set(kept))
        else:
            seen |= set(lab.rx_frames(batch, BAD))
        lab.now += 40
    assert seen <= {None, Reason.NOT_ALLOWED, Reason.BAD_STATE, Reason.CONNECTIONS}
    assert len(seen) >= 3
    assert len(lab.groups.table) == len(lab.groups.table.used()) <= 100
    lab.groups.table.forget(-1)
    assert not lab.groups.table.index.any()


@pytest.mark.interpreted_only
def test_no_look_beyond_the_head(lab: Filtered) -> None:
    """Heads are 128 bytes: whatever lengths a frame claims, nothing behind them is read."""
    draw = random.Random(5)
    frames = [*seeds(), *(frame.ljust(HEAD, b"\0") for frame in seeds())]
    for lengths in (struct.pack(">B", n) for n in (0, 1, 5, 15, 255)):
        frames.append(frames[1][:54] + lengths * 80)
    for way in (lab.rx_frames, lab.tx_frames):
        for _ in range(12):
            batch = [spoiled(draw, frames) for _ in range(20)]
            arena = Arena()
            allow(arena, lab, batch)
            with arena:
                way(batch)
            assert arena.accesses > 1000


def allow(arena: Arena, lab: Filtered, batch: list[bytes]) -> None:
    """What the stage may touch: its records and tables, and heads (the fast lane looks at the
    fifteenth byte before it looks at the length)."""
    for name, array in lab.memory(BAD):
        arena.allow_array(name, array)
    for k, head in enumerate(lab.heads(len(batch))):
        arena.allow(f"head {k}", head, max(15, min(len(batch[k]), HEAD)), writable=False)
