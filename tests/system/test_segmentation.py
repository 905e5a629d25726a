# SPDX-License-Identifier: Apache-2.0
"""Our segmentation against the Linux kernel's, byte for byte.

The same frame with the same virtio_net_hdr goes through the kernel's software segmentation (see
peers/segmenter.py) and through ours. The one thing that cannot be the same is the identification in
IPv6 fragment headers: both sides make it hard to foretell, so only that is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NoReturn

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from byway.packet.offload import GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4
from byway.testing.finishing import Finishing
from byway.testing.offload_frames import ACK, CWR, FIN, PSH, TCP, UDP, Shape
from tests.oracles.plain_segmentation import noise, possible, shapes, without_ident
from tests.system.peers.segmenter import Segmenter

pytestmark = pytest.mark.system
LARGE = 65535 - 60 - 60


@pytest.fixture(scope="module")
def finishing() -> Iterator[Finishing]:
    with Finishing() as made:
        yield made


@pytest.fixture(scope="module")
def linux(need_peer: Callable[[str, str], NoReturn]) -> Iterator[Segmenter]:
    """The kernel, in a network namespace."""
    try:
        made = Segmenter()
    except OSError as error:
        need_peer("network namespaces with TAP and bridge", str(error))
    with made:
        yield made


def ours(finishing: Finishing, shape: Shape, gso: int, header: bytes) -> list[bytes]:
    """What Byway makes of a frame for a destination that takes nothing unfinished."""
    finishing.place(shape.build(), header)
    assert finishing.check() is None
    made = finishing.finish(0)
    assert isinstance(made, list)
    assert [left for _, left in made] == [0] * len(made)
    return [without_ident(shape, gso, frame) if len(made) > 1 else frame for frame, _ in made]


def theirs(linux: Segmenter, shape: Shape, gso: int, header: bytes) -> list[bytes]:
    """What the kernel makes of it."""
    made = linux.segments(header, shape.build())
    assert made is not None, "the kernel refused the frame"
    return [without_ident(shape, gso, frame) if len(made) > 1 else frame for frame in made]


@pytest.mark.parametrize("tags", [(), (5,), (7, 0x2005)])
@pytest.mark.parametrize(("version", "protocol", "gso"), [
    (4, TCP, GSO_TCPV4), (6, TCP, GSO_TCPV6), (4, UDP, GSO_UDP), (6, UDP, GSO_UDP),
    (4, UDP, GSO_UDP_L4), (6, UDP, GSO_UDP_L4)])
def test_large_frames(finishing: Finishing, linux: Segmenter, version: int, protocol: int, gso: int,
                      tags: tuple[int, ...]) -> None:
    shape = Shape(version, protocol, tags, flags=ACK | PSH | FIN | CWR, ident=65530,
                  sequence=0xFFFFFF00, payload=noise(3, LARGE))
    header = shape.header(gso, 1448)
    made = ours(finishing, shape, gso, header)
    assert made == theirs(linux, shape, gso, header)
    assert len(made) == -(-(LARGE + (8 if gso == GSO_UDP else 0)) // 1448)


@pytest.mark.timeout(300)
@settings(max_examples=300, deadline=None)
@given(drawn=shapes(), size=st.integers(100, 2000))
def test_any_shape(finishing: Finishing, linux: Segmenter, drawn: tuple[Shape, int],
                   size: int) -> None:
    shape, gso = drawn
    if gso == GSO_UDP:
        # Linux's fragments come together again only where the size is a multiple of 8, and there
        # are no extension headers (it adds their length to the offsets); ours do (test_segment.py).
        size, shape = size & ~7, replace(shape, extensions=())
    # Linux loses a frame whose payload is one segment, but not together with its TCP header.
    alone = len(shape.payload) <= size < shape.header_bytes - shape.l4 + len(shape.payload)
    assume(possible(shape, gso, size) and not alone)
    header = shape.header(gso, size)
    assert ours(finishing, shape, gso, header) == theirs(linux, shape, gso, header)
