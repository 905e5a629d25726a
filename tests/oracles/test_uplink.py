# SPDX-License-Identifier: Apache-2.0
"""VXLAN out of an uplink against plain Python: good packets, packets spoiled in every place, cut
off, with anything behind; and which memory that touches."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from byway.machine.jit import INTERPRETED
from byway.testing.arena import Arena
from tests.oracles.plain_uplink import PlainUplink
from tests.unit.switch.uplink_bed import (
    HOST,
    NUMBER,
    OWN,
    OWN_MAC,
    TUNNEL,
    VNI,
    Answer,
    Bed,
    Inner,
    Left,
    Result,
)

EXAMPLES = 300 if INTERPRETED else 3000
ROUNDS = 300 if INTERPRETED else 5000
PLAIN = {version: PlainUplink(OWN_MAC, OWN[version], {HOST[version]: TUNNEL}, {VNI: NUMBER})
         for version in (4, 6)}


def packet(version: int, length: int, ecn: int = 0, inner_ecn: int = 2, sums: bool = True,
           vni: int = VNI) -> bytes:
    """A good packet."""
    inside = bytes(Ether() / IP(tos=inner_ecn) / TCP() / Raw(bytes(1500)))[:length]
    vxlan = b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0"
    udp = UDP(sport=50000, dport=4789, chksum=None if sums else 0) / Raw(vxlan + inside)
    ip = IP(src="192.0.2.9", dst="192.0.2.1", tos=ecn) if version == 4 else IPv6(
        src="2001:db8::9", dst="2001:db8::1", tc=ecn)
    return bytes(Ether(src="02:00:00:00:00:09", dst=OWN_MAC.hex(":")) / ip / udp)


def agree(version: int, frame: bytes, result: Result) -> bool:
    """Did the kernel do what plain Python does? (Pings and neighbour discovery aside.)"""
    wanted = PLAIN[version].take(frame)
    if wanted is None:
        return result == Left(frame)
    if isinstance(wanted, tuple):
        network, tunnel, inside = wanted
        return isinstance(result, Inner) and (
            result.network, result.tunnel, result.frame) == (network, tunnel, inside)
    return result == wanted or isinstance(result, Answer)


@settings(max_examples=EXAMPLES, deadline=None)
@given(version=st.sampled_from([4, 6]), length=st.sampled_from([14, 34, 60, 100, 129, 1400]),
       ecn=st.integers(0, 3), inner_ecn=st.integers(0, 3), sums=st.booleans(),
       vni=st.sampled_from([VNI, VNI, 0, VNI ^ 0x800000]), pieces=st.integers(1, 16),
       spoiled=st.lists(st.tuples(st.integers(0, 89), st.integers(1, 255)), max_size=2),
       cut=st.none() | st.integers(1, 130), behind=st.binary(max_size=20))
def test_like_plain_python(version: int, length: int, ecn: int, inner_ecn: int, sums: bool,
                           vni: int, pieces: int, spoiled: list[tuple[int, int]],
                           cut: int | None, behind: bytes) -> None:
    frame = bytearray(packet(version, length, ecn, inner_ecn, sums, vni) + behind)
    for at, change in spoiled:
        frame[at % len(frame)] ^= change
    given_frame = bytes(frame[:cut])
    pieces = min(pieces, len(given_frame))
    (result,) = Bed(version).rx([given_frame], pieces)
    assert agree(version, given_frame, result), (result, PLAIN[version].take(given_frame))


@pytest.mark.parametrize("version", [4, 6])
def test_noise_behind_a_good_beginning(version: int) -> None:
    """Headers that begin well, then anything."""
    bed, source = Bed(version), random.Random(version)
    good = packet(version, 200)
    for _ in range(ROUNDS // 64):
        frames = [good[: source.randrange(14, 100)] + source.randbytes(source.randrange(200))
                  for _ in range(64)]
        for frame, result in zip(frames, bed.rx(frames), strict=True):
            assert agree(version, frame, result)


@pytest.mark.interpreted_only
@pytest.mark.parametrize("version", [4, 6])
def test_nothing_else_is_touched(version: int) -> None:
    """Whatever lengths say; and what the port's peer can change is read once, but for checksums."""
    source = random.Random(version)
    good = packet(version, 200, sums=False)
    for _ in range(200):
        bed = Bed(version)
        frame = bytearray(good[: source.randrange(14, len(good) + 1)])
        for _ in range(source.randrange(3)):
            frame[source.randrange(14, min(70, len(frame) + 14)) % len(frame)] = source.randrange(
                256)
        pieces = source.randrange(1, 6)
        bed.place([bytes(frame)], pieces)
        arena = Arena()
        for name, array in (
                ("rows", bed.frames.batch.rows), ("segments", bed.frames.segments),
                ("heads", bed.frames.batch._heads), ("batch", bed.frames.batch.record),
                ("origins", bed.origins), ("uplink", bed.uplink.record),
                ("vnis", bed.vnis._roots), ("remotes", bed.remotes._record),
                ("remote", bed.remotes._table), ("hops", bed.uplink._table._record),
                ("hop", bed.uplink._table._table), ("counters", bed.counters)):
            arena.allow_array(name, array)
        for page in bed.vnis._pages.values():
            arena.allow_array("page", page)
        for start, n in bed.frames.sources():
            arena.allow("frame", start, n, shared=True, writable=False)
        with arena:
            bed.take()
        assert arena.accesses > 0
        field = 40 if version == 4 else 60
        assert arena.doubles == [] or any(frame[field : field + 2]), "but for a checksum"
