# SPDX-License-Identifier: Apache-2.0
"""VXLAN's header (RFC 7348, 5), what it costs of an MTU, and ECN across a tunnel (RFC 6040)."""

import ctypes
import random
import struct

import numpy as np
import pytest

from byway.machine.layout import address_of
from byway.packet.vxlan import CE, ECT_0, ECT_1, MAX_VNI, NOT_ECT, longest_inner, overhead
from byway.testing.frames import BROADCAST, Arp, checksum
from byway.testing.offload_frames import Shape
from byway.testing.tunnel_kernels import ecn_combine, ecn_of, vxlan_read, vxlan_write


def held(frame: bytes) -> tuple[np.ndarray, int]:
    memory = np.frombuffer(bytearray(frame), np.uint8)
    return memory, address_of(memory)


def with_ecn(shape: Shape, ecn: int) -> bytes:
    """The frame with a traffic class of 0xb8 (expedited forwarding) and these ECN bits."""
    frame = bytearray(shape.build(True))
    if shape.version == 6:
        word = 6 << 28 | (0xB8 | ecn) << 20 | 0x12345
        frame[shape.l3 : shape.l3 + 4] = struct.pack(">I", word)
    else:
        frame[shape.l3 + 1] = 0xB8 | ecn
        frame[shape.l3 + 10 : shape.l3 + 12] = bytes(2)
        header = bytes(frame[shape.l3 : shape.l4])
        frame[shape.l3 + 10 : shape.l3 + 12] = struct.pack(">H", checksum(header))
    return bytes(frame)


# ---------------------------------------------------------------- the header
@pytest.mark.parametrize("vni", [1, 100, 0xABCDEF, MAX_VNI])
def test_the_header(vni: int) -> None:
    memory, at = held(bytes(range(16)))
    assert vxlan_write(at, vni) == vni
    assert memory.tobytes() == b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0" + bytes(range(8, 16))


def test_reserved_bits_are_ignored() -> None:
    _, at = held(b"\xff\xff\xff\xff\x00\x00\x64\xff")
    assert vxlan_read(at) == 100


@pytest.mark.parametrize("flags", [0x00, 0xF7, 0x04, 0x80])
def test_a_header_without_a_vni(flags: int) -> None:
    _, at = held(bytes([flags, 0, 0, 0, 0, 0, 100, 0]))
    assert vxlan_read(at) == -1


def test_what_it_costs() -> None:
    """Ethernet 14, IPv4 20 or IPv6 40, UDP 8, VXLAN 8."""
    assert (overhead(4), overhead(6)) == (50, 70)
    assert longest_inner(1500, 4) == 14 + 1450
    assert longest_inner(9000, 6) == 14 + 8930


# ---------------------------------------------------------------- ECN
SHAPES = [Shape(4), Shape(6), Shape(4, tags=(5,)), Shape(6, tags=(5, 6)),
          Shape(4, options=bytes([1] * 8))]
# RFC 6040, figure 4: the frame that leaves, by inner (line) and outer (column) bits; None: dropped.
EGRESS = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: None},
    ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
    ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
    CE: {NOT_ECT: CE, ECT_0: CE, ECT_1: CE, CE: CE},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("inner", EGRESS)
def test_ecn_of_a_frame(shape: Shape, inner: int) -> None:
    frame = with_ecn(shape, inner)
    memory, at = held(frame)
    assert ecn_of(at, len(frame)) == inner
    assert memory.tobytes() == frame


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("outer", [NOT_ECT, ECT_0, ECT_1, CE])
@pytest.mark.parametrize("inner", EGRESS)
def test_ecn_at_the_end_of_a_tunnel(shape: Shape, inner: int, outer: int) -> None:
    """The other bits and the checksum come out right, and what is dropped is left alone."""
    expected = EGRESS[inner][outer]
    memory, at = held(with_ecn(shape, inner))
    assert ecn_combine(at, len(memory), outer) == (expected is not None)
    assert memory.tobytes() == with_ecn(shape, inner if expected is None else expected)


@pytest.mark.parametrize("outer", [NOT_ECT, ECT_0, ECT_1, CE])
def test_what_is_not_ip_passes(outer: int) -> None:
    arp = Arp(1, BROADCAST, "10.0.0.1", bytes(6), "10.0.0.2").frame(BROADCAST)
    false = Shape(4).build()[:14] + b"\x65" + Shape(4).build()[15:]  # another version in the header
    for frame in (arp, false, Shape(4).build()[:33], Shape(6).build()[:53], b"", b"\x08\0" * 7):
        memory, at = held(frame.ljust(64, b"\xee"))
        assert ecn_combine(at, len(frame), outer) == 1
        assert ecn_of(at, len(frame)) == NOT_ECT
        assert memory.tobytes() == frame.ljust(64, b"\xee")


def test_any_bytes_stay_what_they_are_but_for_two_bits() -> None:
    rng = random.Random(1)
    for _ in range(300):
        n = rng.randrange(0, 70)
        start = rng.choice([b"", bytes(12) + b"\x81\0\0\1", bytes(12)]) + rng.choice(
            [b"\x08\0\x45", b"\x86\xdd\x60", b"\x81\0\0\2\x08\0\x45"])
        frame = (start + rng.randbytes(70))[:n]
        memory, at = held(frame.ljust(96, b"\xee"))
        ecn_combine(at, n, rng.choice([ECT_1, CE]))
        made = ctypes.string_at(at, 96)
        assert made[n:] == b"\xee" * (96 - n)
        assert sum(a != b for a, b in zip(made, frame.ljust(96, b"\xee"), strict=True)) <= 3
        assert len(memory) == 96
