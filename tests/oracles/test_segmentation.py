# SPDX-License-Identifier: Apache-2.0
"""Segmentation and checksums against frames built one by one, and against scapy."""

from collections.abc import Iterator

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from byway.machine.jit import INTERPRETED
from byway.packet.offload import GSO_UDP, NEEDS_CSUM, TAKES_CSUM
from byway.testing.finishing import PIECES, Finishing
from byway.testing.offload_frames import Shape
from tests.oracles.plain_segmentation import pieces_of, possible, segments, shapes, without_ident

EXAMPLES = 60 if INTERPRETED else 400
SIZES = st.one_of(st.integers(1, 2000), st.sampled_from([7, 8, 9, 536, 1448, 1460, 65535]))


@pytest.fixture(scope="module")
def finishing() -> Iterator[Finishing]:
    with Finishing() as made:
        yield made


@settings(max_examples=EXAMPLES, deadline=None)
@given(drawn=shapes(), size=SIZES, cut=st.integers(1, PIECES))
def test_like_frames_built_one_by_one(finishing: Finishing, drawn: tuple[Shape, int], size: int,
                                      cut: int) -> None:
    shape, gso = drawn
    assume(possible(shape, gso, size))
    finishing.place(shape.build(), shape.header(gso, size))
    if cut > 1:
        finishing.cut(cut)
    assert finishing.check() is None
    made = finishing.finish(0)
    assert isinstance(made, list)
    if pieces_of(shape, gso) <= size:
        assert made == [(shape.build(complete=True), 0)]
        return
    expected = segments(shape, gso, size)
    assert [(without_ident(shape, gso, frame), left) for frame, left in made] \
        == [(frame, 0) for frame in expected]


@settings(max_examples=EXAMPLES, deadline=None)
@given(drawn=shapes(), size=SIZES)
def test_checksums_left_to_the_destination(finishing: Finishing, drawn: tuple[Shape, int],
                                           size: int) -> None:
    """Completed by the destination, the segments are what they would be if we had done it."""
    shape, gso = drawn
    assume(possible(shape, gso, size) and gso != GSO_UDP)
    finishing.place(shape.build(), shape.header(gso, size))
    made = finishing.finish(TAKES_CSUM)
    assert isinstance(made, list)
    completed = []
    for frame, left in made:
        assert left & 0xFFFFFFFF == NEEDS_CSUM
        finishing.place(frame, shape.header())
        assert int(finishing.row["offload"]) == left
        finished = finishing.finish(0)
        assert isinstance(finished, list)
        completed += finished
    finishing.place(shape.build(), shape.header(gso, size))
    assert completed == finishing.finish(0)


# ---------------------------------------------------------------- scapy
def recomputed(packet: Packet) -> bytes:
    """The frame with all lengths and checksums computed by scapy."""
    packet = packet.copy()
    for layer, names in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)),
                         (UDP, ("len", "chksum"))):
        if packet.haslayer(layer):
            for name in names:
                if name == "chksum" or not is_piece(packet):
                    packet[layer].delfieldval(name)
    return bytes(packet)


def is_piece(packet: Packet) -> bool:
    """An IP fragment: its transport header counts the whole datagram."""
    if packet.haslayer(IPv6ExtHdrFragment):
        return True
    return packet.haslayer(IP) and bool(packet[IP].flags.MF or packet[IP].frag)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(drawn=shapes(), size=st.integers(200, 2000))
def test_what_scapy_makes_of_the_segments(finishing: Finishing, drawn: tuple[Shape, int],
                                          size: int) -> None:
    """It finds the payload again, in order, and every length and checksum as it computes them."""
    shape, gso = drawn
    assume(possible(shape, gso, size))
    finishing.place(shape.build(), shape.header(gso, size))
    made = finishing.finish(0)
    assert isinstance(made, list)
    payload = b""
    for frame, _ in made:
        packet = Ether(frame)
        if gso != GSO_UDP or len(made) == 1:
            assert recomputed(packet) == frame
            layer = TCP if packet.haslayer(TCP) else UDP
            payload += bytes(packet[layer].payload)
        elif shape.version == 4:
            assert packet[IP].frag * 8 == len(payload)
            assert bool(packet[IP].flags.MF) == (frame is not made[-1][0])
            payload += bytes(packet[IP].payload)
        else:
            fragment = packet[IPv6ExtHdrFragment]
            assert fragment.offset * 8 == len(payload)
            assert bool(fragment.m) == (frame is not made[-1][0])
            payload += bytes(fragment.payload)
    if gso == GSO_UDP and len(made) > 1:
        assert payload == shape.transport(complete=True)
    else:
        assert payload == shape.payload
