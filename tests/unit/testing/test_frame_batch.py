# SPDX-License-Identifier: Apache-2.0
"""Frames as Python fills a batch with, and reads them from one."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.packet.batch import ROWS, UNDECIDED
from byway.packet.reason import Reason
from byway.testing.frame_batch import FINISHED, FrameBatch, Unfinished
from byway.testing.ring_kernels import look_at


@given(st.builds(Unfinished, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535),
                 st.integers(0, 65535), st.integers(0, 127)))
def test_the_word(todo: Unfinished) -> None:
    assert Unfinished.of(todo.word) == todo


@pytest.mark.parametrize("todo", [
    Unfinished(256), Unfinished(0, 256), Unfinished(0, 0, 65536), Unfinished(0, 0, 0, 65536),
    Unfinished(0, 0, 0, 0, 256)])
def test_fields_that_are_too_large(todo: Unfinished) -> None:
    with pytest.raises(ValueError, match="a field is too large"):
        assert todo.word


@pytest.mark.parametrize("pieces", [1, 2, 16])
def test_what_is_placed_is_there(pieces: int) -> None:
    batch = FrameBatch()
    todo = Unfinished(1, 0, 0, 34, 6)
    frames = [os.urandom(14 + 37 * k) for k in range(ROWS)]
    assert batch.place([(todo, frame) for frame in frames], (pieces,)) == ROWS
    assert int(batch.batch.record["offloads"][0]) == todo.word
    batch.batch.rows["out"] = UNDECIDED
    assert batch.content(ROWS) == [(todo, frame) for frame in frames]
    assert look_at(batch.address) == ROWS
    assert [size for _, size in batch.sources()] == [len(frame) for frame in frames]
    batch.place(frames[:1])
    assert (int(batch.batch.record["n"][0]), int(batch.batch.record["offloads"][0])) == (1, 0)
    batch.batch.rows["out"][0] = -1 - int(Reason.BAD_LENGTH)
    batch.batch.rows["out"][1] = UNDECIDED
    assert batch.content(1) == [Reason.BAD_LENGTH]
    batch.batch.rows["out"][0] = UNDECIDED
    assert batch.content(1) == [(FINISHED, frames[0])]
