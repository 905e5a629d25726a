# SPDX-License-Identifier: Apache-2.0
"""Whatever a frame says of itself, and whatever a function asks of it, kernels touch the memory of
its row only, and read no byte of its sender's twice to go by it.

Interpreted, with every access watched.
"""

import random

import pytest

from byway import nf
from byway.packet.batch import BUFFER, HEAD, HEAD_STRIDE, ROOM, ROWS
from byway.testing.arena import Arena
from byway.testing.generated import generated
from tests.oracles.field_pair import Pair, undone_for

FRAMES, STEPS = 300, 8
pytestmark = pytest.mark.interpreted_only


def watched(pair: Pair) -> Arena:
    """The memory that functions may touch on behalf of this frame."""
    batch = pair.batch.batch
    arena = Arena()
    arena.allow_array("batch", batch.record)
    arena.allow_array("row", batch.rows[:1])
    arena.allow("head", int(batch.rows[0]["head"]) - ROOM, HEAD_STRIDE)
    place = int(batch.record[0]["payloads"]) + BUFFER * int(batch.record[0]["npayloads"])
    arena.allow("place", place, BUFFER)
    arena.allow_array("numbers", pair.words)
    arena.allow_array("network", pair.network)
    arena.allow_array("segments", pair.batch.segments)
    for address, size in pair.batch.sources():
        if size > HEAD:
            arena.allow("rest", address + HEAD, size - HEAD, shared=True, writable=False)
    return arena


def test_no_frame_leads_out_of_its_own_memory() -> None:
    rng = random.Random(21)
    pair = Pair(bytes(60), nf.Undone())
    for data in generated(FRAMES, seed=22):
        pair.place(data, undone_for(data, rng), rng.choice((1, 1, 2, 4)), rng.random() < 0.3)
        did = []
        with watched(pair) as arena:
            for _ in range(STEPS):
                arena.next_call()
                did.append(pair.step(rng))
                pair.read()
        assert arena.doubles == [], (data.hex(), did)


def test_a_batch_has_so_many_places_and_no_more() -> None:
    pair = Pair(bytes(2000), nf.Undone())
    for out in (False, True):
        pair.place(bytes(2000), nf.Undone(), out=out)
        record = pair.batch.batch.record[0]
        record["npayloads"] += ROWS - 1
        pair.call("push_vlan", 5)  # the last place
        pair.check()
        pair.place(bytes(2000), nf.Undone(), out=out)
        pair.batch.batch.record[0]["npayloads"] += ROWS
        before = pair.content()
        assert pair.call_kernel("push_vlan", 5) == 0
        assert pair.call_kernel("resize", 2048) == 0
        assert pair.call_kernel("decapsulate", 14) == 1  # needs none
        assert pair.content() == before[14:]
