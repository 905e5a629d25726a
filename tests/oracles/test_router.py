# SPDX-License-Identifier: Apache-2.0
"""The router against a slow one that takes frames apart byte by byte and has scapy build answers.

Frames of every kind that the router distinguishes, valid, spoiled, cut short, from local ports and
from tunnels.
"""

import random
import struct
from collections import Counter

import pytest

from byway.machine.jit import INTERPRETED
from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.routing import Gateway, Router
from byway.testing.routed import Outcome, Routed
from tests.oracles.plain_router import PlainRouter
from tests.oracles.routed_frames import GUEST, MAC, frame, number, summed

GATEWAYS = [
    Gateway(1, 41, MAC, ("10.0.0.1/24", "fd00:1::1/64"), 1500),
    Gateway(2, 42, MAC, ("10.0.1.1/24", "10.0.9.1/30", "fd00:2::1/64"), 600),
    Gateway(3, 43, MAC + 5, ("172.16.0.1/16",), 1500, tunnels=True),
    Gateway(5, 45, 0xFA0000000001, ("10.0.0.1/24", "fd00:1::1/64"), 1280)]
ROUTERS = [
    Router((1, 2), (
        ("0.0.0.0/0", "10.0.1.254"), ("10.5.0.0/16", "10.0.0.77"), ("10.5.6.0/24", "10.0.1.3"),
        ("::/0", "fd00:2::fe"), ("fd00:5::/32", "fd00:1::77"))),
    Router((5,))]
NEIGHBOURS = {
    (1, "10.0.0.2"): GUEST, (1, "fd00:1::2"): GUEST, (1, "fd00:1::77"): GUEST + 77,
    (2, "10.0.1.2"): GUEST + 2, (2, "10.0.1.254"): 0xFEFFFFFFFFFF, (2, "10.0.9.2"): GUEST + 3,
    (2, "fd00:2::2"): GUEST + 2, (2, "fd00:2::fe"): GUEST + 9, (3, "172.16.5.5"): GUEST + 5,
    (5, "10.0.0.2"): GUEST + 6, (5, "fd00:1::2"): GUEST + 6}
MACS = {g.network: g.mac for g in GATEWAYS}

LOTS = 40 if INTERPRETED else 200
LOT = 50


@pytest.fixture(scope="module")
def routed() -> Routed:
    made = Routed(GATEWAYS, ROUTERS)
    for (network, ip), mac in NEIGHBOURS.items():
        made.know(network, ip, mac)
    return made


@pytest.fixture(scope="module")
def plain() -> PlainRouter:
    return PlainRouter(GATEWAYS, ROUTERS, NEIGHBOURS)


def same(found: Outcome, expected: Outcome) -> bool:
    """Is it the same outcome? What a dropped frame looks like does not matter."""
    if found.drop is not None or expected.drop is not None:
        return found.drop == expected.drop
    return found == expected


def drawn(seed: int) -> tuple[bytes, int, int, int]:
    """A frame, its network, the port that it comes from, and the VNI."""
    r = random.Random(seed)
    network = r.choice([1, 1, 1, 2, 2, 3, 4, 5])
    port = r.choice([7, 7, 7, 7, 8, FIRST_TUNNEL + 3])
    return frame(r, MACS.get(network, MAC)), network, port, r.choice([0, 100])


@pytest.mark.parametrize("lot", range(LOTS))
def test_like_the_slow_one(routed: Routed, plain: PlainRouter, lot: int) -> None:
    for seed in range(lot * LOT, lot * LOT + LOT):
        routed.now += 1000  # nothing is limited
        octets, network, port, vni = drawn(seed)
        found, = routed.send([octets], network, port, vni, pieces=(1 + seed % 3,))
        expected = plain.outcome(octets, network, port, vni)
        assert same(found, expected), (seed, octets.hex(), found, expected)


def kind(made: Outcome) -> str:
    """What an outcome is, in a word."""
    if made.drop is not None:
        return made.drop.name
    version = "6" if made.frame[12:14] == b"\x86\xdd" else "4"
    if made.answer and made.frame[12:14] == b"\x08\x06":
        return "arp"
    if made.answer and version == "4":
        return f"icmp {made.frame[34]}.{made.frame[35]}"
    if made.answer:
        return f"icmpv6 {made.frame[54]}.{made.frame[55]}"
    if made.flood:
        return "flood"
    if made.port > 8 and made.port < FIRST_TUNNEL:
        return f"ask{version}" if made.frame[0] & 1 else f"forward{version}"
    return "untouched"


def test_the_frames_are_of_all_kinds(plain: PlainRouter) -> None:
    """The comparison would be worth little if most frames were dropped at the first look."""
    seen: Counter[str] = Counter()
    for seed in range(8000):
        octets, network, port, vni = drawn(seed)
        seen[kind(plain.outcome(octets, network, port, vni))] += 1
    wanted = {
        "arp", "flood", "forward4", "forward6", "ask4", "ask6", "untouched", "TO_GATEWAY",
        "BAD_IP", "MARTIAN", "SPOOFED_ARP", "SPOOFED_MAC", "NO_ROUTE", "TTL_EXPIRED", "OVER_MTU",
        "icmp 0.0", "icmp 3.0", "icmp 3.2", "icmp 3.3", "icmp 3.4", "icmp 11.0", "icmpv6 129.0",
        "icmpv6 136.0", "icmpv6 1.0", "icmpv6 1.2", "icmpv6 1.4", "icmpv6 2.0", "icmpv6 3.0"}
    assert wanted <= set(seen), wanted - set(seen)
    assert {name for name in wanted if seen[name] < 5} == set(), seen


def test_many_in_one_batch(routed: Routed, plain: PlainRouter) -> None:
    """Rows do not disturb each other."""
    for first in range(0, LOTS * 10, 16):
        routed.now += 1000
        frames = [drawn(seed)[0] for seed in range(first, first + 16)]
        for octets, found in zip(frames, routed.send(frames, 1, 7, 100), strict=True):
            expected = plain.outcome(octets, 1, 7, 100)
            if expected.network == 1 or expected.frame[:1] not in (b"\xff", b"\x33"):  # no requests
                assert same(found, expected), (octets.hex(), found, expected)


def test_checksums_stay_right_at_their_edges(routed: Routed) -> None:
    """RFC 1624, 4: whatever the sum was, the new one is that of the new header."""
    step = 16 if INTERPRETED else 1
    for first in range(0, 65536, 64 * step):
        frames = []
        for ident in range(first, first + 64 * step, step):
            header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20, ident, 0, 64, 17, 0,
                                 bytes([10, 0, 0, 2]), bytes([10, 0, 1, 2]))
            frames.append(number(MAC) + number(GUEST) + b"\x08\0" + summed(header))
        for made in routed.send(frames, 1, 7):
            assert made.network == 2
            assert summed(made.frame[14:34]) == made.frame[14:34]
