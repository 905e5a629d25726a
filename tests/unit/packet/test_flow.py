# SPDX-License-Identifier: Apache-2.0
"""The flow hash: the same for all frames of a flow, spread in all bits over different flows."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from byway.testing.finishing import Finishing
from byway.testing.offload_frames import TCP, UDP, Shape
from byway.testing.offload_kernels import flow_of, queue_of

FLOWS = 2048
ROUTING, OPTIONS = 43, 60


@pytest.fixture(scope="module")
def finishing() -> Iterator[Finishing]:
    with Finishing() as made:
        yield made


def flow(finishing: Finishing, frame: bytes) -> int:
    finishing.place(frame)
    return int(flow_of(finishing.address))


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_all_frames_of_a_flow(finishing: Finishing, version: int, protocol: int) -> None:
    """Whatever else differs: tags, options, sizes, flags, MAC addresses."""
    first = Shape(version, protocol)
    others = [
        replace(first, payload=bytes(range(200))), replace(first, flags=0x18, ident=9),
        replace(first, macs=bytes(range(12))), replace(first, tags=(5,)),
        replace(first, tags=(5, 6), payload=b"x"), replace(first, sequence=12345),
        replace(first, options=bytes([1] * 40)) if version == 4 else
        replace(first, extensions=((OPTIONS, bytes([1, 4, 0, 0, 0, 0])), (ROUTING, bytes(14))))]
    expected = flow(finishing, first.build())
    assert expected >= 0
    assert [flow(finishing, other.build()) for other in others] == [expected] * len(others)


@pytest.mark.parametrize("version", [4, 6])
def test_each_part_counts(finishing: Finishing, version: int) -> None:
    first = Shape(version)
    others = [
        first, replace(first, source=b"\x0a\0\0\x03"), replace(first, destination=b"\x0a\0\0\x03"),
        replace(first, ports=(40001, 5001)), replace(first, ports=(40000, 5002)),
        replace(first, ports=(5001, 40000)), replace(first, protocol=UDP),
        replace(first, source=first.destination, destination=first.source)]
    assert len({flow(finishing, other.build()) for other in others}) == len(others)


@pytest.mark.parametrize("tags", [(), (1,)])
def test_fragments_stay_together(finishing: Finishing, tags: tuple[int, ...]) -> None:
    """The first one has ports and the others have not: none of them counts."""
    shape = Shape(4, UDP, tags)
    pieces = [shape.ethernet() + shape.ip(64, fragment=word) + bytes([k] * 64)
              for k, word in enumerate((0x2000, 0x2008, 0x0010))]
    assert len({flow(finishing, piece) for piece in pieces}) == 1
    shape = replace(shape, version=6)
    pieces = [shape.ethernet() + shape.ip(72, protocol=44) + bytes([UDP, 0, 0, word] + [k] * 68)
              for k, word in enumerate((1, 9, 16))]
    assert len({flow(finishing, piece) for piece in pieces}) == 1


def test_other_protocols_are_told_by_address(finishing: Finishing) -> None:
    """ICMP's first bytes are no ports."""
    shape = Shape()
    one, two = (shape.ethernet() + shape.ip(40, protocol=1) + bytes([k] * 40) for k in (1, 2))
    assert flow(finishing, one) == flow(finishing, two)


@pytest.mark.parametrize("frame", [
    bytes(12) + b"\x08\x06" + bytes(46), bytes(12) + b"\x08\0" + bytes(46),  # ARP, broken IPv4
    bytes(12) + b"\x86\xdd" + bytes(46), bytes(14)])
def test_what_is_not_ip_is_told_by_mac(finishing: Finishing, frame: bytes) -> None:
    assert flow(finishing, frame) == flow(finishing, frame[:14] + b"\1" * (len(frame) - 14))
    for k in range(12):
        other = frame[:k] + b"\2" + frame[k + 1 :]
        assert flow(finishing, frame) != flow(finishing, other)


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_frame_counts(finishing: Finishing, version: int) -> None:
    """A head holds more than a short frame has: the bytes of the one before it."""
    frame = Shape(version).build()
    for n in range(14, len(frame)):
        flow(finishing, bytes([1] * 128))
        found = flow(finishing, frame[:n]), queue_of(finishing.address, 32)
        flow(finishing, bytes([2] * 128))
        assert (flow(finishing, frame[:n]), queue_of(finishing.address, 32)) == found


def many_flows(version: int, vary: str) -> Iterator[bytes]:
    """Frames of flows that differ in a few bits."""
    for k in range(FLOWS):
        shape = Shape(version)
        if vary == "source port":
            shape = replace(shape, ports=(32768 + k, 443))
        elif vary == "destination":
            shape = replace(shape, destination=bytes([10, 0, k >> 8, k & 255]))
        else:
            shape = replace(shape, ports=(1024 + k, 1024 + k))
        yield shape.build()


def is_even(counts: list[int]) -> bool:
    """Is each about as many as the others, as far as chance goes?"""
    expected = FLOWS / len(counts)
    room = 6 * expected**0.5
    return max(counts) < expected + room and min(counts) > expected - room


VARIED = pytest.mark.parametrize("vary", ["source port", "destination", "both ports"])


@pytest.mark.parametrize("version", [4, 6])
@VARIED
def test_spread(finishing: Finishing, version: int, vary: str) -> None:
    """The hash is even in low bits and in high bits."""
    hashes = [flow(finishing, frame) for frame in many_flows(version, vary)]
    assert len(set(hashes)) == FLOWS
    for bits in range(1, 6):
        for shift in (0, 8, 16, 31, 63 - bits):
            counts = [0] * (1 << bits)
            for found in hashes:
                counts[found >> shift & (1 << bits) - 1] += 1
            assert is_even(counts), (bits, shift)


@pytest.mark.parametrize("version", [4, 6])
@VARIED
def test_queues(finishing: Finishing, version: int, vary: str) -> None:
    """Flows fill 1 to 32 queues evenly."""
    frames = list(many_flows(version, vary))
    for queues in (1, 2, 3, 4, 7, 8, 16, 31, 32):
        counts = [0] * queues
        for frame in frames:
            finishing.place(frame)
            counts[queue_of(finishing.address, queues)] += 1
        assert is_even(counts), queues


def test_a_flow_has_one_queue(finishing: Finishing) -> None:
    """Frames with IP options, and tagged ones, are read another way, and go where the others go."""
    for k in range(64):
        shape = Shape(4, UDP, ports=(1000 + k, 53))
        queues = set()
        for one in (shape, replace(shape, options=bytes([1] * 40)), replace(shape, tags=(5,)),
                    replace(shape, payload=b"x", ident=k)):
            finishing.place(one.build())
            queues.add(queue_of(finishing.address, 32))
        assert len(queues) == 1
