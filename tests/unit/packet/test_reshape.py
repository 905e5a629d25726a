# SPDX-License-Identifier: Apache-2.0
"""Bytes taken out of frames and put in, against slices of bytes; and where that touches memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of
from byway.packet.batch import COPIED, HEAD, MAX_CHAIN, MAX_FRAME, ROWS, SEGMENT, SEGMENTS
from byway.packet.offload import DATA_VALID, NEEDS_CSUM
from byway.testing.arena import Arena
from byway.testing.finishing import content
from byway.testing.frame_batch import FINISHED, FrameBatch, Unfinished
from byway.testing.frames import checksum
from byway.testing.stage_kernels import insert_row, shorten_row, strip_row, sum_of_row

EXAMPLES = 60 if INTERPRETED else 300
LENGTHS = [14, 15, 60, 100, HEAD - 8, HEAD - 1, HEAD, HEAD + 1, HEAD + 3, 200, 1500, MAX_FRAME]


def frame_of(length: int) -> bytes:
    return bytes(k * 7 + k // 256 & 0xFF for k in range(length))


def stripped(frame: bytes, at: int, n: int, pieces: int = 1) -> bytes:
    made = FrameBatch()
    made.place([frame], [pieces])
    row = made.batch.rows[0]
    strip_row(address_of(made.batch.rows), at, n)
    assert int(row["len"]) == len(frame) - n
    return content(row)


def inserted(frame: bytes, at: int, n: int, pieces: int = 1) -> bytes:
    made = FrameBatch()
    made.place([frame], [pieces])
    before = content(made.batch.rows[0])
    copy = made.batch.copies[0]
    first = int(made.batch.record["pieces"][0])
    end = insert_row(address_of(made.batch.rows), address_of(made.batch.copies), first, at, n)
    assert end <= first + SEGMENT * (pieces + 3)
    assert content(made.batch.rows[0]) == before, "the row is as it was, for others"
    made_of = content(copy)
    assert len(made_of) == int(copy["len"]) == len(frame) + n
    return made_of


@settings(max_examples=EXAMPLES, deadline=None)
@given(length=st.sampled_from(LENGTHS) | st.integers(14, 400), at=st.integers(0, 60),
       n=st.integers(1, 74), pieces=st.integers(1, 16))
def test_like_slices(length: int, at: int, n: int, pieces: int) -> None:
    frame = frame_of(length)
    if at + n <= min(length, HEAD):
        assert stripped(frame, at, n, pieces) == frame[:at] + frame[at + n :]
    if at <= min(length, HEAD - n):
        wider = inserted(frame, at, n, pieces)
        assert wider[:at] == frame[:at]
        assert wider[at + n :] == frame[at:]


@settings(max_examples=EXAMPLES, deadline=None)
@given(length=st.sampled_from(LENGTHS) | st.integers(14, 400), start=st.integers(0, HEAD),
       left=st.integers(0, 2000), pieces=st.integers(1, 16))
def test_the_first_bytes_only_and_their_sum(length: int, start: int, left: int,
                                            pieces: int) -> None:
    frame = frame_of(length)
    made = FrameBatch()
    made.place([frame], [pieces])
    row = address_of(made.batch.rows)
    left = min(left, length)
    if left <= start:
        return
    total = int(sum_of_row(row, start, left - start))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    wanted = checksum(frame[start:left].ljust((left - start + 1) & ~1, b"\0"))
    assert (total ^ 0xFFFF).to_bytes(2, "little") == wanted.to_bytes(2, "big")
    shorten_row(row, left)
    assert content(made.batch.rows[0]) == frame[:left]
    if pieces > 1:
        assert int(made.segments[0, :pieces, 1].sum()) == left


def test_twice() -> None:
    """What was taken out in the middle does not come back."""
    made = FrameBatch()
    frame = frame_of(500)
    made.place([frame], [7])
    strip_row(address_of(made.batch.rows), 12, 4)
    strip_row(address_of(made.batch.rows), 0, 50)
    assert content(made.batch.rows[0]) == (frame[:12] + frame[16:])[50:]


@pytest.mark.parametrize(("word", "expected"), [
    (FINISHED, FINISHED),
    (Unfinished(flags=DATA_VALID), Unfinished(flags=DATA_VALID)),
    (Unfinished(NEEDS_CSUM, 1, 1448, 38, 16), Unfinished(NEEDS_CSUM, 1, 1448, 34, 16)),
    (Unfinished(NEEDS_CSUM, 0, 0, 15, 6), FINISHED)])
def test_what_is_left_to_do_moves_along(word: Unfinished, expected: Unfinished) -> None:
    made = FrameBatch()
    made.place([(word, frame_of(2000))])
    strip_row(address_of(made.batch.rows), 12, 4)
    assert Unfinished.of(int(made.batch.rows[0]["offload"])) == expected
    if expected != FINISHED:
        insert_row(address_of(made.batch.rows), address_of(made.batch.copies),
                   int(made.batch.record["pieces"][0]), 12, 4)
        assert Unfinished.of(int(made.batch.copies[0]["offload"])) == word


def test_what_is_out_of_reach_is_given_up() -> None:
    made = FrameBatch()
    made.place([(Unfinished(NEEDS_CSUM, 0, 0, 0xFFFD, 2), frame_of(MAX_FRAME))])
    insert_row(address_of(made.batch.rows), address_of(made.batch.copies),
               int(made.batch.record["pieces"][0]), 12, 4)
    assert int(made.batch.copies[0]["offload"]) == 0


def test_there_is_room_for_the_pieces_of_any_batch() -> None:
    """Every row may need three pieces, and its segments' (of which a batch has so many)."""
    assert COPIED >= SEGMENTS + 3 * ROWS
    assert COPIED >= 8 * (MAX_CHAIN + 2) + 3 * (ROWS - SEGMENTS // MAX_CHAIN)


@pytest.mark.interpreted_only
@pytest.mark.parametrize("pieces", [1, 3, 16])
@pytest.mark.parametrize("length", [18, 20, 127, 128, 129, 131, 132, 133, 300])
def test_nothing_else_is_touched(length: int, pieces: int) -> None:
    """Nor is anything that the sender can change read twice."""
    made = FrameBatch()
    made.place([frame_of(length)], [pieces])
    arena = Arena()
    for name, array in (("rows", made.batch.rows), ("copies", made.batch.copies),
                        ("segments", made.segments), ("pieces", made.batch._pieces),
                        ("heads", made.batch._heads), ("copied", made.batch._copied_heads)):
        arena.allow_array(name, array)
    for start, n in made.sources():
        arena.allow("frame", start, n, shared=True, writable=False)
    with arena:
        strip_row(address_of(made.batch.rows), 12, 4)
        insert_row(address_of(made.batch.rows), address_of(made.batch.copies),
                   int(made.batch.record["pieces"][0]), 0, 50)
    assert arena.doubles == []
    assert np.count_nonzero(made.batch.rows["len"]) == 1
