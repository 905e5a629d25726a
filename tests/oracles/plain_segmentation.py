# SPDX-License-Identifier: Apache-2.0
"""Segmentation, slow and obvious: each segment is built like a frame of its own.

Used by test_segmentation.py and tests/system/test_segmentation.py.
"""

import struct
from dataclasses import replace

from hypothesis import strategies as st

from byway.packet.batch import HEAD
from byway.packet.offload import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    MAX_SEGMENTS,
)
from byway.testing.offload_frames import CWR, FIN, PSH, TCP, UDP, Shape

FRAGMENT = 44


def segments(shape: Shape, gso: int, size: int) -> list[bytes]:
    """The complete frames that a frame with this GSO type and size makes."""
    if gso == GSO_UDP:
        return fragments(shape, size // 8 * 8)
    made = []
    payload = shape.payload
    for k, start in enumerate(range(0, len(payload), size)):
        flags = shape.flags
        if start + size < len(payload):
            flags &= ~(FIN | PSH)
        if k > 0:
            flags &= ~CWR
        made.append(replace(
            shape, payload=payload[start : start + size], ident=shape.ident + k, flags=flags,
            sequence=shape.sequence + start).build(complete=True))
    return made


def fragments(shape: Shape, size: int) -> list[bytes]:
    """The IP fragments of a datagram. In IPv6 the identification is left 0: see without_ident."""
    datagram = shape.transport(complete=True)
    made = []
    for start in range(0, len(datagram), size):
        piece = datagram[start : start + size]
        more = start + size < len(datagram)
        if shape.version == 4:
            word = start // 8 | (0x2000 if more else 0)
            header = replace(shape, dont_fragment=False).ip(len(piece), fragment=word)
        else:
            header = shape.ip(8 + len(piece), protocol=FRAGMENT) \
                + struct.pack(">BBHI", UDP, 0, start | more, 0)
        made.append(shape.ethernet() + header + piece)
    return made


def without_ident(shape: Shape, gso: int, frame: bytes) -> bytes:
    """The frame with 0 for the identification in an IPv6 fragment header."""
    if shape.version == 4 or gso != GSO_UDP:
        return frame
    return frame[: shape.l4 + 4] + bytes(4) + frame[shape.l4 + 8 :]


def pieces_of(shape: Shape, gso: int) -> int:
    """Bytes to be cut."""
    return len(shape.payload) + (8 if gso == GSO_UDP else 0)


def possible(shape: Shape, gso: int, size: int) -> bool:
    """Is the frame within the limits?"""
    step = size // 8 * 8 if gso == GSO_UDP else size
    header = shape.l4 + 8 * (shape.version == 6) if gso == GSO_UDP else shape.header_bytes
    return header <= HEAD and (pieces_of(shape, gso) <= size
                               or pieces_of(shape, gso) <= step * MAX_SEGMENTS)


# ---------------------------------------------------------------- frames of any shape
def padded(n: int) -> bytes:
    """An extension header's content of options that are ignored: n bytes of PadN (RFC 8200)."""
    return bytes([1, n - 2]) + bytes(n - 2)


# The content of a routing header with one address, followed to its end (segments left: 0).
ROUTED = bytes([253, 0]) + bytes(20)
LENGTHS = st.sampled_from([6, 14])
EXTENSIONS = st.lists(st.one_of(
    st.tuples(st.sampled_from([0, 60]), LENGTHS.map(padded)),
    st.tuples(st.just(43), st.just(ROUTED))), max_size=2).map(tuple)
OPTIONS = st.sampled_from([0, 4, 12, 20]).map(lambda n: bytes([1]) * n)
TAGS = st.lists(st.integers(0, 0xFFFF), max_size=2).map(tuple)


@st.composite
def shapes(draw: st.DrawFn, longest: int = 6000) -> tuple[Shape, int]:
    """A frame, and a GSO type that fits it."""
    version, protocol = draw(st.sampled_from([4, 6])), draw(st.sampled_from([TCP, UDP]))
    shape = Shape(
        version, protocol, draw(TAGS), draw(OPTIONS) if version == 4 else b"",
        draw(EXTENSIONS) if version == 6 else (), draw(OPTIONS) if protocol == TCP else b"",
        draw(st.integers(0, 255)), draw(st.integers(0, 0xFFFF)), draw(st.integers(0, 0xFFFFFFFF)),
        noise(draw(st.integers(0, 255)), draw(st.integers(0, longest))),
        dont_fragment=draw(st.booleans()))
    if protocol == UDP:
        return shape, draw(st.sampled_from([GSO_UDP, GSO_UDP_L4]))
    return shape, (GSO_TCPV4 if version == 4 else GSO_TCPV6) | draw(st.sampled_from([0, GSO_ECN]))


def noise(seed: int, n: int) -> bytes:
    """n bytes that look random."""
    return bytes((seed + k * (k >> 3) * 31 + (k >> 7)) & 0xFF for k in range(n))
