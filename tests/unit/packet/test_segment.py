# SPDX-License-Identifier: Apache-2.0
"""Finishing frames: what is copied, what is lent, lots of rows, and limits.

The bytes of segments: tests/oracles/test_segmentation.py and tests/system/test_segmentation.py.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from byway.packet.batch import FLOOD, HEAD, MAX_FRAME, ROWS
from byway.packet.offload import (
    DATA_VALID,
    GSO_TCPV4,
    GSO_UDP,
    GSO_UDP_L4,
    MAX_SEGMENTS,
    TAKES_CSUM,
    TAKES_TSO4,
    TAKES_USO4,
    TAKES_VALID,
)
from byway.packet.reason import Reason
from byway.packet.segment import Finisher
from byway.testing.finishing import Finishing, net_header, word
from byway.testing.frames import checksum
from byway.testing.offload_frames import CWR, FIN, PSH, TCP, UDP, Shape

OPTIONS = 60


@pytest.fixture
def finishing() -> Iterator[Finishing]:
    with Finishing() as made:
        yield made


def finished(finishing: Finishing, mask: int = 0) -> list[tuple[bytes, int]]:
    made = finishing.finish(mask)
    assert isinstance(made, list)
    return made


def test_a_frame_with_nothing_to_do_is_lent(finishing: Finishing) -> None:
    """No byte is copied: the row points to where the frame lies, its head is the batch's."""
    finishing.place(bytes(range(200)))
    assert finished(finishing) == [(bytes(range(200)), 0)]
    lent = finishing.finisher.rows[ROWS]
    assert (lent["addr"], lent["head"]) == (finishing.row["addr"], finishing.row["head"])
    assert not finishing.finisher.linear.any()


def test_data_valid_is_forgotten_for_those_who_do_not_listen(finishing: Finishing) -> None:
    frame = bytes(range(200))
    finishing.place(frame, net_header(DATA_VALID))
    assert finished(finishing, TAKES_VALID) == [(frame, DATA_VALID)]
    assert finished(finishing, TAKES_CSUM) == [(frame, 0)]
    assert finishing.row["offload"] == DATA_VALID  # for other destinations


def test_what_the_destination_takes_is_lent(finishing: Finishing) -> None:
    shape = Shape(payload=bytes(3000))
    for header, mask in ((shape.header(), TAKES_CSUM),
                         (shape.header(GSO_TCPV4, 1000), TAKES_CSUM | TAKES_TSO4)):
        finishing.place(shape.build(), header)
        assert finished(finishing, mask) == [(shape.build(), word(header))]


def test_the_senders_frame_is_not_touched(finishing: Finishing) -> None:
    """Other destinations may take it as it is."""
    shape = Shape(payload=bytes(3000))
    for header in (shape.header(), shape.header(GSO_TCPV4, 1000)):
        finishing.place(shape.build(), header)
        before = ctypes.string_at(finishing.address, 64)
        finished(finishing)
        assert ctypes.string_at(finishing.address, 64) == before
        n = len(shape.build())
        assert ctypes.string_at(finishing.memory.ending(n), n) == shape.build()
        assert ctypes.string_at(int(finishing.row["head"]), HEAD) == shape.build()[:HEAD]


def test_nothing_can_change_after_the_beginning(finishing: Finishing) -> None:
    """The sender overwrites its frame while it is cut."""
    shape = Shape(payload=bytes(range(256)) * 20)
    finishing.place(shape.build(), shape.header(GSO_TCPV4, 1000))
    expected = finished(finishing)
    assert finishing.begin(0) is None
    finishing.memory.view[:] = 0xEE
    ctypes.memset(int(finishing.row["head"]), 0xEE, HEAD)
    assert [made for lot in finishing.lots() for made in lot] == expected


@pytest.mark.parametrize("segments", [2, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, MAX_SEGMENTS])
def test_lots(finishing: Finishing, segments: int) -> None:
    """Up to ROWS rows at a time, each one used again in the next lot."""
    shape = Shape(payload=bytes(k & 255 for k in range(100 * segments - 1)))
    finishing.place(shape.build(), shape.header(GSO_TCPV4, 100))
    finishing.row["out"] = FLOOD
    assert finishing.begin(0) is None
    lots = list(finishing.lots())
    assert [len(lot) for lot in lots] == [
        min(ROWS, segments - first) for first in range(0, segments, ROWS)]
    assert b"".join(frame[54:] for lot in lots for frame, _ in lot) == shape.payload
    assert (finishing.finisher.rows["out"][: min(segments, ROWS)] == FLOOD).all()


def test_a_frame_left_half_way(finishing: Finishing) -> None:
    """The next beginning forgets what was not asked for."""
    long = Shape(payload=bytes(100 * 100))
    finishing.place(long.build(), long.header(GSO_TCPV4, 100))
    assert finishing.begin(0) is None
    assert len(next(finishing.lots())) == ROWS
    finishing.place(bytes(60))
    assert finished(finishing) == [(bytes(60), 0)]
    finishing.place(long.build(), net_header(1, 1, 100, 33, 16))
    assert finishing.begin(0) is Reason.BAD_OFFLOAD
    assert list(finishing.lots()) == []


def test_without_a_check_before(finishing: Finishing) -> None:
    """finish_begin looks itself: a row that is wrong yields nothing."""
    shape = Shape(payload=bytes(3000))
    for header in (shape.header(GSO_UDP_L4, 100), shape.header(GSO_TCPV4, 2),
                   net_header(1, 0, 0, 65535, 255), net_header(1, 0, 0, 34, 256)):
        finishing.place(shape.build(), header)
        assert finishing.finish(0) is Reason.BAD_OFFLOAD
    finishing.place(shape.build(), shape.header())
    finishing.row["len"] = MAX_FRAME + 1
    assert finishing.finish(0) is Reason.BAD_OFFLOAD


@pytest.mark.parametrize("tags", [(), (1,), (1, 2)])
def test_the_longest_frame(finishing: Finishing, tags: tuple[int, ...]) -> None:
    shape = Shape(tags=tags, payload=bytes(k * 7 & 255 for k in range(65535 - 40)))
    assert len(shape.build()) <= MAX_FRAME
    finishing.place(shape.build(), shape.header(GSO_TCPV4, 1448))
    made = finished(finishing)
    assert b"".join(frame[shape.header_bytes :] for frame, _ in made) == shape.payload
    finishing.place(shape.build(), shape.header())
    assert finished(finishing) == [(shape.build(complete=True), 0)]


def test_a_udp_checksum_of_zero(finishing: Finishing) -> None:
    """It is sent as all ones (RFC 768), whole and in segments; TCP's is sent as it is."""
    for protocol, gso, stored in ((UDP, GSO_UDP_L4, 0xFFFF), (TCP, GSO_TCPV4, 0)):
        shape = Shape(4, protocol, payload=bytes(1000))
        at = shape.l4 + (6 if protocol == UDP else 16)
        found = int.from_bytes(shape.build(complete=True)[at : at + 2], "big")
        shape = replace(shape, payload=found.to_bytes(2, "big") + bytes(998))
        finishing.place(shape.build(), shape.header())
        frame, _ = finished(finishing)[0]
        assert int.from_bytes(frame[at : at + 2], "big") == stored
        finishing.place(replace(shape, payload=shape.payload + b"x").build(),
                        shape.header(gso, 1000))
        frame, _ = finished(finishing)[0]
        assert int.from_bytes(frame[at : at + 2], "big") == stored


def test_flags_and_numbers(finishing: Finishing) -> None:
    """RFC 9293, 3.1; RFC 3168, 6.1.2: who reduced its window says so once."""
    shape = Shape(flags=0xFF, ident=0xFFFF, sequence=0xFFFFFFFF, payload=bytes(2500))
    finishing.place(shape.build(), shape.header(GSO_TCPV4, 1000))
    made = [frame for frame, _ in finished(finishing)]
    assert [frame[47] for frame in made] == [
        0xFF & ~(FIN | PSH), 0xFF & ~(FIN | PSH | CWR), 0xFF & ~CWR]
    assert [frame[18:20].hex() for frame in made] == ["ffff", "0000", "0001"]
    assert [frame[38:42].hex() for frame in made] == ["ffffffff", "000003e7", "000007cf"]
    assert [int.from_bytes(frame[16:18], "big") for frame in made] == [1040, 1040, 540]
    assert [checksum(frame[14:34]) for frame in made] == [0, 0, 0]


def test_datagrams(finishing: Finishing) -> None:
    shape = Shape(6, UDP, payload=bytes(2500))
    finishing.place(shape.build(), shape.header(GSO_UDP_L4, 1000))
    made = [frame for frame, _ in finished(finishing, TAKES_CSUM | TAKES_USO4)]
    assert [int.from_bytes(frame[58:60], "big") for frame in made] == [1008, 1008, 508]
    assert [int.from_bytes(frame[18:20], "big") for frame in made] == [1008, 1008, 508]


def test_ipv6_fragments(finishing: Finishing) -> None:
    """RFC 8200, 4.5: behind all other headers, with offsets that count only what is behind them."""
    shape = Shape(6, UDP, extensions=((OPTIONS, bytes([1, 4, 0, 0, 0, 0])),), payload=bytes(2500))
    idents = []
    for _ in range(3):
        finishing.place(shape.build(), shape.header(GSO_UDP, 1004))
        made = [frame for frame, _ in finished(finishing)]
        heads = [frame[62:70] for frame in made]
        assert [frame[20] for frame in made] == [OPTIONS] * 3
        assert [frame[54] for frame in made] == [44] * 3
        assert [head[0] for head in heads] == [UDP] * 3
        assert [int.from_bytes(head[2:4], "big") for head in heads] == [0 | 1, 1000 | 1, 2000]
        assert [int.from_bytes(frame[18:20], "big") for frame in made] == [1016, 1016, 524]
        assert b"".join(frame[70:] for frame in made) == shape.transport(complete=True)
        assert len({head[4:] for head in heads}) == 1
        idents.append(heads[0][4:])
    assert len(set(idents)) == 3


def test_finishers_number_their_fragments_differently() -> None:
    secrets = {int(Finisher().record["secret"][0]) for _ in range(4)}
    assert len(secrets) == 4


def test_heads_lie_apart() -> None:
    heads = Finisher().rows["head"][:ROWS]
    assert np.diff(heads).min() >= HEAD
