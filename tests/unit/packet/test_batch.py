# SPDX-License-Identifier: Apache-2.0
"""Batches: heads are copied once, frames come together again from any segments."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.layout import address_of
from byway.packet.batch import HEAD, HEAD_STRIDE, ROOM, ROWS, Batch
from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.testing.kernels import copy_row


def frame(n: int) -> bytes:
    return bytes(k * 7 & 0xFF for k in range(n))


def head(batch: Batch, k: int, n: int) -> bytes:
    return ctypes.string_at(int(batch.rows["head"][k]), n)


@pytest.fixture(scope="module")
def device() -> Device:
    return Device([(0, 1 << 40, 1)], 1, 0, 0, 0, 0)


def test_heads_lie_apart(device: Device) -> None:
    heads = device.batch.rows["head"]
    assert (np.diff(heads) == HEAD_STRIDE).all()
    assert HEAD_STRIDE >= ROOM + HEAD
    assert int(heads[0]) == int(device.batch.record["heads"][0]) + ROOM
    assert len(heads) == ROWS


@pytest.mark.parametrize("pieces", [1, 2, 5, 16])
@pytest.mark.parametrize("n", [14, 60, 127, 128, 129, 1514, 9014])
def test_the_head_is_private(device: Device, n: int, pieces: int) -> None:
    """What the sender changes after the look does not reach the copy, up to HEAD bytes."""
    sent = frame(n)
    device.place([sent], (pieces,))
    assert head(device.batch, 0, min(n, HEAD)) == sent[:HEAD]
    device._sources[:n] = 0xEE
    target = Guarded(n)
    end = target.ending(n)
    assert copy_row(address_of(device.batch.rows), end) == n
    got = target.view[-n:].tobytes()
    assert got == sent[:HEAD] + b"\xee" * (n - HEAD if n > HEAD else 0)
    assert not target.view[:-n].any() or target.size == n
    target.close()


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(14, 400), min_size=1, max_size=20),
       pieces=st.lists(st.integers(1, 16), min_size=1, max_size=5))
def test_frames_come_together_again(device: Device, lengths: list[int],
                                    pieces: list[int]) -> None:
    frames = [frame(n)[::-1] for n in lengths]
    device.place(frames, pieces)
    target = np.zeros(512, np.uint8)
    for k, sent in enumerate(frames):
        target[:] = 0xA5
        copy_row(address_of(device.batch.rows[k:]), address_of(target))
        assert target[: len(sent)].tobytes() == sent
        assert (target[len(sent) :] == 0xA5).all()
