# SPDX-License-Identifier: Apache-2.0
"""Frames that lie to the router: it looks at their heads only, and touches nothing but its own.

That it does the right thing with them is in tests/oracles/test_router.py.
"""

import random

import pytest

from byway.packet.offload import GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, NEEDS_CSUM
from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.routing import Gateway, Router
from byway.testing.arena import Arena
from byway.testing.frame_batch import Frame, Unfinished
from byway.testing.routed import SECOND, Routed
from tests.oracles.routed_frames import GUEST, MAC, frame, number, summed

BATCHES = 150


@pytest.fixture
def routed() -> Routed:
    made = Routed([Gateway(1, 41, MAC, ("10.0.0.1/24", "fd00:1::1/64")),
                   Gateway(2, 42, MAC, ("10.0.1.1/24", "fd00:2::1/64"), 300)],
                  [Router((1, 2), (("0.0.0.0/0", "10.0.1.9"), ("fd00:5::/32", "fd00:1::77")))])
    for network, ip in ((2, "10.0.1.2"), (2, "fd00:2::2"), (1, "fd00:1::77"), (1, "10.0.0.2")):
        made.know(network, ip, GUEST + 9)
    return made


def garbage(r: random.Random) -> bytes:
    """To the gateway, or all, and then anything."""
    to = r.choice([number(MAC), number(MAC), b"\xff" * 6, b"\x33\x33" + r.randbytes(4)])
    start = to + number(GUEST) + r.choice([b"\x08\0\x45", b"\x86\xdd\x60", b"\x08\6\0", b""])
    return start + r.randbytes(r.choice([0, 1, 7, 30, 60, 112, 113, 200]))


def unfinished(r: random.Random, octets: bytes) -> Frame:
    """With a header that says anything of what is left to do."""
    kind = r.choice([0, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4])
    size = r.choice([1, 8, 250, 280, 1448, 65535])
    start = r.choice([34, 54, 14, r.randrange(200)])
    return Unfinished(NEEDS_CSUM, kind, size if kind else 0, start, r.choice([16, 6, 2])), octets


@pytest.mark.interpreted_only
def test_nothing_but_heads_and_tables_is_touched(routed: Routed) -> None:
    r = random.Random(5)
    arena = Arena()
    routed.allow(arena)
    for _ in range(BATCHES):
        frames: list[Frame] = []
        for _ in range(8):
            octets = frame(r, MAC) if r.random() < 0.6 else garbage(r)
            frames.append(octets if r.random() < 0.7 else unfinished(r, octets))
        routed.now += r.choice([0, SECOND])
        with arena:
            routed.send(frames, 1, r.choice([7, FIRST_TUNNEL]), 100)
    assert arena.doubles == []
    assert arena.accesses > 100 * BATCHES


@pytest.mark.compiled_only
def test_no_frame_grows_and_none_leaves_its_tenant(routed: Routed) -> None:
    """Whatever comes in: what goes out of a batch is no longer than a head, or as long as before;
    and nothing goes into a network that the router does not join."""
    r = random.Random(6)
    for _ in range(40 * BATCHES):
        frames: list[Frame] = []
        for _ in range(16):
            octets = frame(r, MAC) if r.random() < 0.5 else garbage(r)
            frames.append(octets if r.random() < 0.5 else unfinished(r, octets))
        lengths = [len(f) if isinstance(f, bytes) else len(f[1]) for f in frames]
        routed.now += r.choice([0, SECOND])
        for length, made in zip(lengths, routed.send(frames, 1, 7, 100), strict=True):
            assert len(made.frame) in (length, *range(60, 129))
            assert made.network in (1, 2)
            assert made.port in (7, 41, 42)


def test_a_loop_of_routes_ends_by_ttl() -> None:
    """Two routers that send a packet to each other: each time one hop less."""
    one = Routed([Gateway(1, 41, MAC, ("10.0.0.1/24",))],
                 [Router((1,), (("10.9.0.0/16", "10.0.0.2"),))])
    one.know(1, "10.0.0.2", MAC + 1)
    two = Routed([Gateway(1, 41, MAC + 1, ("10.0.0.2/24",))],
                 [Router((1,), (("10.9.0.0/16", "10.0.0.1"),))])
    two.know(1, "10.0.0.1", MAC)
    octets = number(MAC) + number(GUEST) + bytes.fromhex(
        "0800 45000014 00000000 0a11 0000 0a000005 0a090909".replace(" ", ""))
    octets = octets[:14] + summed(octets[14:])
    hops = 0
    routers = [one, two]
    while True:
        made, = routers[hops % 2].send([octets], 1, 7)
        if made.answer:
            break
        octets, hops = made.frame, hops + 1
    assert hops == 9
    assert routers[hops % 2].counted == {"ttl_expired": 1}
