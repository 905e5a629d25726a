# SPDX-License-Identifier: Apache-2.0
"""AF_XDP rings with nonsense in them: whatever stands there, only the area and the rings are
touched, each call ends, no chunk has two owners, and what was wrong is remembered.

The kernel is no enemy; but a position that is wrong once must not become somebody's memory. Rings
and area lie between forbidden pages; interpreted, every access is checked as well.
"""

import random

import pytest

from byway.machine.jit import INTERPRETED
from byway.packet.batch import MAX_FRAME, ROWS
from byway.packet.reason import Reason
from byway.ports.af_xdp_kernels import OURS, XdpError
from byway.testing.arena import Arena
from byway.testing.plain_xsk import RING_WORDS, XDP_PKT_CONTD, PlainXsk
from byway.testing.xdp_kernels import xdp_collect

CASES = 60 if INTERPRETED else 600
STEPS = 8
AREA = 2 * 64 * 2048
FLAGS = range(2 * RING_WORDS, 2 * RING_WORDS + 4)


def place(rng: random.Random) -> int:
    return rng.choice([rng.randrange(AREA // 2), rng.randrange(64) * 2048, rng.randrange(AREA),
                       AREA, AREA - 1, (1 << 64) - 1, 1 << 63, rng.getrandbits(64)])


def length(rng: random.Random) -> int:
    return rng.choice([60, 60, 1500, 2048, 0, 2049, 0xFFFFFFFF, rng.getrandbits(32)])


def position(rng: random.Random, now: int) -> int:
    return (now + rng.choice([0, 1, 1, 2, 63, 64, 65, -1, rng.getrandbits(32)])) & 0xFFFFFFFF


def scribble(rng: random.Random, xsk: PlainXsk) -> None:
    """Something that the kernel would never write."""
    which = rng.randrange(4)
    if which == 0:
        for k in range(rng.randint(1, 70)):
            xsk.rx.write(k, place(rng), length(rng), rng.choice([0, 0, XDP_PKT_CONTD, 0xFFFFFFFF]))
        word = xsk.rx.word(xsk.rx.ring.producer)
        word.value = position(rng, int(xsk.records.rx["next"][0]))
    elif which == 1:
        for k in range(rng.randint(1, 70)):
            xsk.done.write(k, place(rng))
        word = xsk.done.word(xsk.done.ring.producer)
        word.value = position(rng, int(xsk.records.tx["done_next"][0]))
    else:
        ring = rng.choice(xsk.rings)
        word = xsk.tx.word(rng.choice([ring.ring.consumer, ring.ring.flags, ring.ring.producer]))
        word.value = rng.getrandbits(32)


def act(rng: random.Random, xsk: PlainXsk) -> None:
    """What a worker does while the socket is thought to be whole."""
    got = xsk.receive_all()
    assert len(got) <= ROWS
    assert all(isinstance(one, Reason) or 0 < len(one[1]) <= MAX_FRAME for one in got)
    xsk.send([rng.randbytes(rng.choice([60, 1500, 4000])) for _ in range(rng.randint(1, ROWS))])
    xsk.kick()
    xdp_collect(xsk.sender)
    xsk.waiting()
    xsk.calls()


def owners(xsk: PlainXsk) -> None:
    """Each chunk for tx that is ours is free once, and no other is."""
    free = xsk.records.free[: int(xsk.records.tx["nfree"][0])].tolist()
    ours = [k for k, state in enumerate(xsk.records.states[64:]) if state == OURS]
    assert sorted(free) == ours


def allowed(xsk: PlainXsk) -> Arena:
    arena = Arena()
    arena.allow("area", xsk.area.address, xsk.area.size, shared=True)
    for number, ring in enumerate(xsk.rings):
        arena.allow(f"ring {number}", ring.memory.address, ring.memory.size, shared=True)
    for name, array in (("states", xsk.records.states), ("places", xsk.records.places),
                        ("free", xsk.records.free), ("linear", xsk.records.linear),
                        ("counters", xsk.counters), ("rx", xsk.records.rx),
                        ("tx", xsk.records.tx)):
        arena.allow(name, array.ctypes.data, array.nbytes)
    return arena


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("part", range(4))
def test_nonsense(pieces: int, part: int) -> None:
    broken = set()
    for seed in range(part * CASES // 4, (part + 1) * CASES // 4):
        rng = random.Random(seed)
        with PlainXsk(pieces=pieces) as xsk:
            for _ in range(STEPS):
                if rng.random() < 0.3:
                    xsk.put(rng.randbytes(rng.choice([60, 1500, 4000])))
                scribble(rng, xsk)
                act(rng, xsk)
                owners(xsk)
                if xsk.error:  # nobody touches it any more
                    broken.add(XdpError(xsk.error))
                    break
    assert {XdpError.JUMP, XdpError.STRANGE_PLACE} <= broken


@pytest.mark.interpreted_only
@pytest.mark.parametrize("pieces", [1, 3])
def test_every_access(pieces: int) -> None:
    for seed in range(30):
        rng = random.Random(seed)
        with PlainXsk(pieces=pieces) as xsk:
            arena = allowed(xsk)
            xsk.batch.place([rng.randbytes(60)])
            for kind, array in (("rows", xsk.batch.batch.rows), ("chosen", xsk.batch.chosen)):
                arena.allow(kind, array.ctypes.data, array.nbytes)
            arena.allow("heads", int(xsk.batch.batch.record["heads"][0]), ROWS * 192)
            arena.allow("segments", int(xsk.batch.batch.record["segs"][0]), 1024 * 16)
            for _ in range(STEPS):
                scribble(rng, xsk)
                with arena:
                    got = xsk.receive_all()
                    xsk.kick()
                    xdp_collect(xsk.sender)
                    xsk.waiting()
                assert len(got) <= ROWS
                if xsk.error:
                    break
            # A frame is looked at once its head is private; a ring's flags are asked again.
            assert [d for d in arena.doubles if d.name != "area" and d.offset not in FLAGS] == []


@pytest.mark.parametrize(("address", "size", "options", "error"), [
    (64 * 2048, 60, 0, XdpError.STRANGE_PLACE),  # a chunk for tx
    (AREA, 60, 0, XdpError.STRANGE_PLACE),
    ((1 << 64) - 2048, 60, 0, XdpError.STRANGE_PLACE),
    (2048 + 256, 1793, 0, XdpError.BAD_LENGTH),
    (2048 + 256, 0xFFFFFFFF, 0, XdpError.BAD_LENGTH),
    (2048 + 256, 0, 0, XdpError.BAD_LENGTH),
])
def test_an_entry_that_is_wrong(address: int, size: int, options: int, error: XdpError) -> None:
    with PlainXsk() as xsk:
        xsk.rx.produce(0, 60, 0)
        xsk.rx.produce(address, size, options)
        assert len(xsk.receive()) == 1, "what came before is good"
        assert xsk.error == error


def test_a_chunk_twice() -> None:
    with PlainXsk() as xsk:
        xsk.rx.produce(0, 60, 0)
        xsk.rx.produce(100, 60, 0)
        assert len(xsk.receive()) == 1
        assert xsk.error == XdpError.STRANGE_PLACE
    with PlainXsk() as xsk:
        xsk.send([bytes(60)])
        xsk.sent()
        xsk.held *= 2
        xsk.complete()
        xdp_collect(xsk.sender)
        assert xsk.error == XdpError.STRANGE_PLACE
        owners(xsk)


def test_a_frame_without_an_end() -> None:
    with PlainXsk(pieces=3) as xsk:
        for k in range(64):
            xsk.rx.produce(2048 * k, 2048, XDP_PKT_CONTD)
        assert xsk.receive() == []
        assert xsk.error == XdpError.ENDLESS


def test_a_frame_of_too_many_bytes() -> None:
    with PlainXsk(pieces=3, frames=128) as xsk:
        for k in range(40):
            xsk.rx.produce(2048 * k, 2048, XDP_PKT_CONTD if k < 39 else 0)
        assert xsk.receive() == []
        assert xsk.error == XdpError.BAD_LENGTH
