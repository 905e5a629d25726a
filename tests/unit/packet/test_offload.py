# SPDX-License-Identifier: Apache-2.0
"""Offload words, their check against the frame, and what follows from them.

VIRTIO 1.2, 5.1.6 (virtio_net_hdr), 5.1.6.2 (what a driver may set).
"""

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from byway.packet.batch import HEAD, dropped
from byway.packet.offload import (
    DATA_VALID,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    MALFORMED,
    MAX_SEGMENTS,
    TAKES_CSUM,
    TAKES_ECN,
    TAKES_TSO4,
    TAKES_TSO6,
    TAKES_UFO,
    TAKES_USO4,
    TAKES_USO6,
    TAKES_VALID,
)
from byway.packet.reason import Reason
from byway.testing.finishing import Finishing, net_header, word
from byway.testing.offload_frames import TCP, UDP, Shape
from byway.testing.offload_kernels import (
    check,
    headers_of,
    layers_of,
    low_of,
    may_go,
    wire_length_of,
)

ALL = 0xFF
GOOD = None


@pytest.fixture(scope="module")
def finishing() -> Iterator[Finishing]:
    with Finishing() as made:
        yield made


def fits(protocol: int, version: int) -> int:
    """The GSO type of a protocol (UDP: USO)."""
    if protocol == UDP:
        return GSO_UDP_L4
    return GSO_TCPV4 if version == 4 else GSO_TCPV6


class TestWords:
    """virtio_net_hdr -> offload word -> virtio_net_hdr."""

    @pytest.mark.parametrize(("header", "expected"), [
        (net_header(), 0),
        (net_header(0, 0, 9, 9, 9, 9), 0),  # without flags nothing else means anything
        (net_header(DATA_VALID, 0, 9, 9, 9, 9), DATA_VALID),
        (net_header(0xFC), 0),  # unknown flags are ignored (5.1.6.2.2)
        (net_header(1, 0, 99, 34, 16), 1 | 34 << 32 | 16 << 48),
        (net_header(3, 0, 0, 34, 16), 1 | 34 << 32 | 16 << 48),
        (net_header(0xFD, 0, 0, 65535, 255), 1 | 65535 << 32 | 255 << 48),
        (net_header(1, 1, 1448, 34, 16), 1 | 1 << 8 | 1448 << 16 | 34 << 32 | 16 << 48),
        (net_header(1, 0x81, 1448, 34, 16), 1 | 0x81 << 8 | 1448 << 16 | 34 << 32 | 16 << 48),
        (net_header(1, 0x84, 65535, 34, 16), 1 | 0x84 << 8 | 65535 << 16 | 34 << 32 | 16 << 48),
        (net_header(1, 3, 1448, 34, 6), 1 | 3 << 8 | 1448 << 16 | 34 << 32 | 6 << 48),
        (net_header(1, 5, 1, 34, 6), 1 | 5 << 8 | 1 << 16 | 34 << 32 | 6 << 48)])
    def test_what_is_kept(self, header: bytes, expected: int) -> None:
        assert word(header) == expected

    @pytest.mark.parametrize("header", [
        net_header(0, 1, 1448, 34, 16), net_header(DATA_VALID, 1, 1448, 34, 16),  # no NEEDS_CSUM
        net_header(1, 1, 0, 34, 16),  # no size
        net_header(1, 0, 0, 34, 256), net_header(1, 1, 1448, 34, 65535),  # field too far off
        net_header(1, 0x80, 1448, 34, 16),  # ECN of nothing
        net_header(1, 0x83, 1448, 34, 6), net_header(1, 0x85, 1448, 34, 6),  # ECN of UDP
        *(net_header(1, gso, 1448, 34, 16) for gso in (2, 6, 7, 0x20, 0x21, 0x41, 0x7F, 0xFF))])
    def test_what_contradicts_itself(self, header: bytes) -> None:
        assert word(header) == MALFORMED

    @pytest.mark.parametrize("header", [
        net_header(), net_header(DATA_VALID), net_header(1, 0, 0, 34, 16, 54),
        net_header(1, 0x81, 1448, 34, 16, 66), net_header(1, 5, 65535, 65535, 255, 65535)])
    def test_back_again(self, header: bytes) -> None:
        found = word(header)
        hdr_len = struct.unpack_from("<H", header, 2)[0]
        low = struct.pack("<Q", low_of(found, hdr_len) & (1 << 64) - 1)
        assert low + struct.pack("<H", found >> 48 & 0xFF) == header


class TestLayers:
    """Where the layers begin, in frames that are whole and in frames that are not."""

    @pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
    @pytest.mark.parametrize("shape", [
        Shape(4), Shape(4, UDP, options=bytes([1] * 40)), Shape(6),
        Shape(6, UDP, extensions=((0, bytes(6)), (43, bytes(22)), (60, bytes(6))))])
    def test_every_cut(self, finishing: Finishing, shape: Shape, tags: tuple[int, ...]) -> None:
        """They are found as soon as IP's headers are complete, never before."""
        shape = replace(shape, tags=tags)
        frame = shape.build()
        for n in range(14, len(frame)):
            finishing.place(bytes([0x45] * 128))  # the head of another frame
            finishing.place(frame[:n])
            found = int(layers_of(finishing.address))
            kind_there = n >= 14 + 4 * len(tags)
            if n >= shape.l4:
                assert found == (shape.l3 | shape.l4 << 8 | shape.protocol << 16
                                 | shape.version << 24)
            elif shape.version == 6 and n >= shape.l3 + 40:
                assert found >> 16 & 0xFF == 255  # an extension header that is not all there
            elif kind_there:
                assert found == -1
            else:
                assert found >> 24 == 0  # a tag with nothing behind it: not IP

    @pytest.mark.parametrize(("at", "value"), [
        (14, 0x55), (14, 0x44), (14, 0x40), (14, 0x05), (14, 0x65)])
    def test_broken_ipv4(self, finishing: Finishing, at: int, value: int) -> None:
        frame = bytearray(Shape().build())
        frame[at] = value
        finishing.place(bytes(frame))
        assert layers_of(finishing.address) == -1

    def test_broken_ipv6(self, finishing: Finishing) -> None:
        frame = bytearray(Shape(6).build())
        frame[14] = 0x45
        finishing.place(bytes(frame))
        assert layers_of(finishing.address) == -1

    def test_a_third_tag_is_no_tag(self, finishing: Finishing) -> None:
        finishing.place(Shape(tags=(1, 2, 3)).build())
        assert layers_of(finishing.address) == 22

    def test_endless_extension_headers(self, finishing: Finishing) -> None:
        shape = Shape(6, extensions=((60, bytes(6)),) * 30)
        finishing.place(shape.build())
        found = int(layers_of(finishing.address))
        assert (found >> 16 & 0xFF, found >> 8 & 0xFF) == (255, 126)


def verdict(finishing: Finishing, frame: bytes, header: bytes) -> Reason | None:
    finishing.place(frame, header)
    return finishing.check()


class TestChecksums:
    """NEEDS_CSUM without GSO."""

    @pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("protocol", [TCP, UDP])
    def test_where_it_belongs(self, finishing: Finishing, protocol: int, version: int,
                              tags: tuple[int, ...]) -> None:
        shape = Shape(version, protocol, tags, payload=b"abc")
        assert verdict(finishing, shape.build(), shape.header()) is GOOD
        assert headers_of(finishing.address) == shape.l4 + (18 if protocol == TCP else 8)
        assert wire_length_of(finishing.address) == len(shape.build())

    @pytest.mark.parametrize(("protocol", "start", "offset", "expected"), [
        (TCP, 34, 16, GOOD), (TCP, 34, 6, 17), (TCP, 34, 0, 17), (TCP, 35, 16, 17),
        (TCP, 33, 16, 17), (TCP, 14, 10, 17), (TCP, 0, 16, 17), (TCP, 54, 6, 17),
        (UDP, 34, 6, GOOD), (UDP, 34, 16, 17), (UDP, 34, 2, 17), (UDP, 41, 6, 17),
        (UDP, 42, 6, GOOD), (UDP, 60, 16, GOOD),  # a header in a tunnel
        (47, 34, 2, GOOD), (47, 33, 2, 17), (47, 80, 16, GOOD), (4, 54, 16, GOOD),
        (1, 34, 2, GOOD), (132, 34, 8, 17), (132, 46, 8, GOOD)])
    def test_places(self, finishing: Finishing, protocol: int, start: int, offset: int,
                    expected: int | None) -> None:
        """Never in front of what IP carries, and in TCP and UDP at their own field only."""
        shape = Shape()
        frame = shape.ethernet() + shape.ip(100, protocol=protocol) + bytes(100)
        assert verdict(finishing, frame, net_header(1, 0, 0, start, offset)) == expected

    @pytest.mark.parametrize("version", [4, 6])
    def test_every_length(self, finishing: Finishing, version: int) -> None:
        """The field must lie in the frame."""
        shape = Shape(version, UDP, payload=bytes(8))
        for n in range(14, len(shape.build())):
            expected = GOOD if n >= shape.l4 + 8 else Reason.BAD_OFFLOAD
            assert verdict(finishing, shape.build()[:n], shape.header()) is expected

    def test_a_tunnel(self, finishing: Finishing) -> None:
        """VXLAN over IPv6: the inner checksum may lie behind the head."""
        inner = Shape(6, payload=b"data")
        outer = Shape(6, UDP, (5, 6), payload=bytes(8) + inner.build())
        start = outer.header_bytes + 8 + inner.l4
        assert start > HEAD
        assert verdict(finishing, outer.build(), net_header(1, 0, 0, start, 16)) is GOOD
        assert finishing.finish(0) == [
            (replace(outer, payload=bytes(8) + inner.build(complete=True)).build(), 0)]

    @pytest.mark.parametrize(("start", "expected"), [(13, 17), (14, GOOD), (40, GOOD), (65535, 17)])
    def test_what_is_not_ip(self, finishing: Finishing, start: int, expected: int | None) -> None:
        frame = bytes(12) + b"\x88\x47" + bytes(80)  # MPLS
        assert verdict(finishing, frame, net_header(1, 0, 0, start, 16)) == expected

    @pytest.mark.parametrize("version", [4, 6])
    def test_a_fragment_has_no_checksum(self, finishing: Finishing, version: int) -> None:
        shape = Shape(version, UDP)
        piece = shape.ip(64, fragment=0x2000) + bytes(64) if version == 4 \
            else shape.ip(72, protocol=44) + bytes([UDP, 0, 0, 1]) + bytes(68)
        header = net_header(1, 0, 0, shape.l4 + 8 * (version == 6), 6)
        assert verdict(finishing, shape.ethernet() + piece, header) is Reason.BAD_OFFLOAD

    def test_data_valid_stays(self, finishing: Finishing) -> None:
        assert verdict(finishing, bytes(60), net_header(DATA_VALID)) is GOOD
        assert finishing.row["offload"] == DATA_VALID
        assert headers_of(finishing.address) == 0


def test_rows_of_a_batch(finishing: Finishing) -> None:
    """Each is judged by itself; what was dropped already is left alone."""
    assert verdict(finishing, bytes(60), net_header(1, 0, 0, 34, 256)) is Reason.BAD_OFFLOAD
    assert finishing.batch.record["offloads"][0] == 0
    finishing.place(bytes(60), net_header(1, 0, 0, 34, 256))
    finishing.row["out"] = dropped(int(Reason.RATE))
    check(finishing.batch.address)
    assert finishing.row["out"] == dropped(int(Reason.RATE))
    assert finishing.row["offload"] == MALFORMED


class TestSegments:
    """GSO."""

    @pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("protocol", [TCP, UDP])
    def test_what_fits(self, finishing: Finishing, protocol: int, version: int,
                       tags: tuple[int, ...]) -> None:
        shape = Shape(version, protocol, tags, payload=bytes(3000), tcp_options=bytes([1] * 12))
        assert verdict(finishing, shape.build(), shape.header(fits(protocol, version), 1000)) \
            is GOOD
        assert headers_of(finishing.address) == shape.header_bytes
        assert wire_length_of(finishing.address) == shape.header_bytes + 1000
        assert finishing.batch.record["offloads"][0] != 0

    @pytest.mark.parametrize(("version", "longest"), [(4, 34 + 1000), (6, 54 + 8 + 1000)])
    def test_fragments(self, finishing: Finishing, version: int, longest: int) -> None:
        """UFO: the longest fragment has no UDP header more than its size, IPv6's has its own."""
        shape = Shape(version, UDP, payload=bytes(3000))
        assert verdict(finishing, shape.build(), shape.header(GSO_UDP, 1007)) is GOOD
        assert headers_of(finishing.address) == shape.header_bytes
        assert wire_length_of(finishing.address) == longest
        made = finishing.finish(0)
        assert isinstance(made, list)
        assert max(len(frame) for frame, _ in made) == longest

    @pytest.mark.parametrize(("payload", "kept"), [(999, False), (1000, False), (1001, True)])
    def test_one_segment_is_none(self, finishing: Finishing, payload: int, kept: bool) -> None:
        shape = Shape(payload=bytes(payload))
        assert verdict(finishing, shape.build(), shape.header(GSO_TCPV4, 1000)) is GOOD
        plain = word(shape.header())
        assert finishing.row["offload"] == (word(shape.header(GSO_TCPV4, 1000)) if kept else plain)

    @pytest.mark.parametrize(("gso", "size", "more"), [
        (GSO_TCPV4, 10, 0), (GSO_TCPV4, 10, 1), (GSO_UDP_L4, 7, 0), (GSO_UDP_L4, 7, 1),
        (GSO_UDP, 15, 0), (GSO_UDP, 15, 1)])
    def test_the_most_segments(self, finishing: Finishing, gso: int, size: int, more: int) -> None:
        step = 8 if gso == GSO_UDP else size
        n = MAX_SEGMENTS * step + more - (8 if gso == GSO_UDP else 0)
        shape = Shape(4, TCP if gso == GSO_TCPV4 else UDP, payload=bytes(n))
        expected = Reason.BAD_OFFLOAD if more else GOOD
        assert verdict(finishing, shape.build(), shape.header(gso, size)) is expected
        if not more:
            made = finishing.finish(0)
            assert isinstance(made, list)
            assert len(made) == MAX_SEGMENTS

    @pytest.mark.parametrize(("shape", "gso"), [
        (Shape(6), GSO_TCPV4), (Shape(4), GSO_TCPV6), (Shape(4), GSO_UDP), (Shape(6), GSO_UDP_L4),
        (Shape(4, UDP), GSO_TCPV4), (Shape(6, UDP), GSO_TCPV6)])
    def test_another_protocol(self, finishing: Finishing, shape: Shape, gso: int) -> None:
        shape = replace(shape, payload=bytes(3000))
        assert verdict(finishing, shape.build(), shape.header(gso, 1000)) is Reason.BAD_OFFLOAD

    @pytest.mark.parametrize("length", [0, 1, 4, 15])
    def test_tcp_header_lengths(self, finishing: Finishing, length: int) -> None:
        shape = Shape(payload=bytes(3000))
        frame = bytearray(shape.build())
        frame[shape.l4 + 12] = length << 4
        expected = GOOD if length == 15 else Reason.BAD_OFFLOAD
        assert verdict(finishing, bytes(frame), shape.header(GSO_TCPV4, 1000)) is expected

    def test_a_tunnel_is_not_cut(self, finishing: Finishing) -> None:
        """Without the header's tunnel fields nobody can say how."""
        inner = Shape(payload=bytes(3000))
        outer = Shape(4, UDP, payload=bytes(8) + inner.build())
        start = outer.header_bytes + 8 + inner.l4
        header = net_header(1, GSO_TCPV4, 1000, start, 16)
        assert verdict(finishing, outer.build(), header) is Reason.BAD_OFFLOAD

    def test_headers_that_do_not_fit_a_head(self, finishing: Finishing) -> None:
        """Two tags and all options that there can be: 142 bytes."""
        shape = Shape(tags=(1, 2), options=bytes([1] * 40), tcp_options=bytes([1] * 40),
                      payload=bytes(3000))
        assert shape.header_bytes == 142
        assert verdict(finishing, shape.build(), shape.header(GSO_TCPV4, 1000)) \
            is Reason.BAD_OFFLOAD
        assert verdict(finishing, shape.build(), shape.header()) is GOOD

    def test_the_ip_length_is_not_looked_at(self, finishing: Finishing) -> None:
        """Of a frame to be cut; it is written anew."""
        shape = Shape(payload=bytes(3000))
        expected = None
        for length in (len(shape.build()) - 14, 0, 1, 65535):
            frame = bytearray(shape.build())
            struct.pack_into(">H", frame, 16, length)
            assert verdict(finishing, bytes(frame), shape.header(GSO_TCPV4, 1000)) is GOOD
            made = finishing.finish(0)
            assert expected in (None, made)
            expected = made

    @pytest.mark.parametrize("version", [4, 6])
    def test_a_fragment_is_not_cut(self, finishing: Finishing, version: int) -> None:
        shape = Shape(version, UDP)
        piece = shape.ip(3000, fragment=0x2000) + bytes(3000) if version == 4 \
            else shape.ip(3008, protocol=44) + bytes([UDP, 0, 0, 1]) + bytes(3004)
        header = net_header(1, GSO_UDP, 1000, shape.l4 + 8 * (version == 6), 6)
        assert verdict(finishing, shape.ethernet() + piece, header) is Reason.BAD_OFFLOAD


class TestDestinations:
    """What goes where as it is."""

    @pytest.mark.parametrize(("shape", "gso", "wanted"), [
        (Shape(4), 0, TAKES_CSUM), (Shape(6, UDP), 0, TAKES_CSUM),
        (Shape(4), GSO_TCPV4, TAKES_CSUM | TAKES_TSO4),
        (Shape(6), GSO_TCPV6, TAKES_CSUM | TAKES_TSO6),
        (Shape(4), GSO_TCPV4 | GSO_ECN, TAKES_CSUM | TAKES_TSO4 | TAKES_ECN),
        (Shape(6), GSO_TCPV6 | GSO_ECN, TAKES_CSUM | TAKES_TSO6 | TAKES_ECN),
        (Shape(4, UDP), GSO_UDP, TAKES_CSUM | TAKES_UFO),
        (Shape(6, UDP), GSO_UDP, TAKES_CSUM | TAKES_UFO),
        (Shape(4, UDP), GSO_UDP_L4, TAKES_CSUM | TAKES_USO4),
        (Shape(6, UDP, tags=(5,)), GSO_UDP_L4, TAKES_CSUM | TAKES_USO6)])
    def test_masks(self, finishing: Finishing, shape: Shape, gso: int, wanted: int) -> None:
        shape = replace(shape, payload=bytes(3000))
        header = shape.header(gso, 1000) if gso else shape.header()
        assert verdict(finishing, shape.build(), header) is GOOD
        assert may_go(finishing.address, wanted) == 1
        assert may_go(finishing.address, ALL) == 1
        for bit in range(8):
            if wanted >> bit & 1:
                assert may_go(finishing.address, ALL & ~(1 << bit)) == 0

    def test_a_finished_frame_goes_anywhere(self, finishing: Finishing) -> None:
        assert verdict(finishing, bytes(60), net_header()) is GOOD
        assert may_go(finishing.address, 0) == 1

    def test_data_valid_is_said_to_those_who_listen(self, finishing: Finishing) -> None:
        assert verdict(finishing, bytes(60), net_header(DATA_VALID)) is GOOD
        assert may_go(finishing.address, TAKES_VALID) == 1
        assert may_go(finishing.address, ALL & ~TAKES_VALID) == 0
