# SPDX-License-Identifier: Apache-2.0
"""Segmentation and checksums against frames built one by one, and against scapy."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from byway.machine.jit import INTERPRETED
from byway.packet.offload import GSO_UDP, NEEDS_CSUM, TAKES_CSUM
from byway.testing.finishing import PIECES, Finishing, net_header
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


def built(shape: Shape) -> Packet:
    """A shape without options, as scapy builds it."""
    packet = Ether(dst=shape.macs[:6].hex(":"), src=shape.macs[6:].hex(":"))
    for k, tag in enumerate(shape.tags):
        packet.lastlayer().type = 0x88A8 if k + 1 < len(shape.tags) else 0x8100
        packet /= Dot1Q(prio=tag >> 13, dei=tag >> 12 & 1, vlan=tag & 0xFFF)
    if shape.version == 4:
        packet /= IP(src=socket.inet_ntoa(shape.source), dst=socket.inet_ntoa(shape.destination),
                     id=shape.ident, flags="DF" if shape.dont_fragment else 0)
    else:
        source, destination = (b"\xfd" * 12 + end for end in (shape.source, shape.destination))
        packet /= IPv6(src=socket.inet_ntop(socket.AF_INET6, source), fl=0x12345,
                       dst=socket.inet_ntop(socket.AF_INET6, destination), hlim=64)
    if shape.protocol == 6:
        packet /= TCP(sport=shape.ports[0], dport=shape.ports[1], seq=shape.sequence, ack=77,
                      flags=shape.flags, window=512)
    else:
        packet /= UDP(sport=shape.ports[0], dport=shape.ports[1])
    return packet / shape.payload


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(drawn=shapes())
def test_frames_that_scapy_built(finishing: Finishing, drawn: tuple[Shape, int]) -> None:
    """A checksum completed by us is the one that it computes."""
    shape = replace(drawn[0], options=b"", extensions=(), tcp_options=b"")
    finishing.place(shape.build(), shape.header())
    assert finishing.finish(0) == [(bytes(built(shape)), 0)]


@pytest.mark.parametrize("tunnel", [
    IP() / GRE(), IPv6() / GRE(key_present=1, key=7), Dot1Q(vlan=5) / IP() / UDP() / VXLAN(vni=5),
    IPv6() / UDP() / VXLAN(), IP() / UDP(chksum=0) / VXLAN()])
@pytest.mark.parametrize("inner", [
    Shape(payload=b"odd"), Shape(6, 17, payload=bytes(300)), Shape(tags=(5,), payload=bytes(2000))])
def test_checksums_in_a_tunnel(finishing: Finishing, tunnel: Packet, inner: Shape) -> None:
    """The guest wrapped a frame whose checksum is left to do, and computed the outer one as if it
    had been done."""
    whole = bytes(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / tunnel
                  / Ether(inner.build(complete=True)))
    start = len(whole) - len(inner.build())
    finishing.place(whole[:start] + inner.build(),
                    net_header(1, 0, 0, start + inner.l4, 16 if inner.protocol == 6 else 6))
    assert finishing.check() is None
    assert finishing.finish(0) == [(whole, 0)]
