# SPDX-License-Identifier: Apache-2.0
"""Translations under attack: floods from front end and guest, and changes under way."""

import gc
import itertools
import random
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from byway.machine.jit import INTERPRETED, prepare
from byway.machine.layout import address_of
from byway.packet.reason import Reason
from byway.testing.iotlb_kernels import iova_to_host, miss_iova, watch_iova
from byway.vhost.front_channel import INVALIDATE, UPDATE
from byway.vhost.iotlb import QUESTIONS, Iotlb
from byway.vhost.messages import ProtocolError, Refused
from byway.vhost.payloads import Iotlb as Translation
from byway.virtio.iotlb import MAX_RANGES, PAGE, SLOTS
from tests.unit.vhost.fake_iommu import HOST, MEMORY, USER, FakeClock, FakeMemory

SEEDS = range(3 if INTERPRETED else 12)
MESSAGES = 4000
LONGEST = 0.25  # seconds of CPU time that one message may take (it takes below 5 ms)
KERNELS = (iova_to_host, miss_iova, watch_iova)
EDGES = (0, 1, 4095, PAGE, 1 << 32, 1 << 47, (1 << 51) - PAGE, 1 << 51, 1 << 63, (1 << 64) - 1,
         (1 << 64) - PAGE)


def number(seed: random.Random) -> int:
    """A 64-bit number that somebody hostile would choose."""
    kind = seed.randrange(4)
    if kind == 0:
        return seed.choice(EDGES)
    if kind == 1:
        return seed.randrange(1 << seed.randrange(1, 65))
    return seed.randrange(1 << 16) * PAGE


def message(seed: random.Random) -> Translation:
    user = USER + seed.randrange(MEMORY // PAGE) * PAGE if seed.random() < 0.8 else number(seed)
    size = seed.choice([PAGE, PAGE, 16 * PAGE, 17 * PAGE, number(seed)])
    return Translation(number(seed), size, user, seed.choice([1, 2, 3, 3, 3, seed.randrange(256)]),
                       seed.choice([UPDATE] * 6 + [INVALIDATE, seed.randrange(256)]))


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """No compiler while time is taken."""
    prepare(KERNELS)


@pytest.fixture
def frozen() -> Iterator[None]:
    """Nobody looks at what other tests have left: that takes longer."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_grows_and_nothing_leads_elsewhere(seed: int) -> None:
    """Any messages, any misses, any answers: bounded tables, bounded time, our memory only."""
    chance, clock, asked, recent, found = random.Random(seed), FakeClock(), [], [0] * 8, 0
    iotlb = Iotlb(FakeMemory(), lambda: None, clock.now)  # type: ignore[arg-type]
    iotlb.hear(-1, clock.later)
    iotlb.ask = lambda iova, permission: asked.append((iova, permission)) or chance.random() < 0.5
    for _ in range(MESSAGES):
        began = time.thread_time()
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                sent = message(chance)
                recent[chance.randrange(8)] = sent.iova
                with suppress(Refused):
                    iotlb.take(sent)
            case 4:
                iova, write = signed(number(chance)), chance.randrange(2)
                assert miss_iova(iotlb.table, iova, write) in (
                    Reason.BAD_ADDRESS, Reason.NO_TRANSLATION)
                iotlb.serve()
            case 5:
                iotlb.refused(*(chance.choice(asked) if asked else (0, 1)))
            case 6:
                with suppress(ProtocolError):
                    host = iotlb.locate(chance.choice(recent), chance.randrange(1, 16 * 32768))
                    assert host is None or HOST <= host < HOST + MEMORY
            case 7:
                clock.advance(chance.random())
        assert time.thread_time() - began < LONGEST
        host = iova_to_host(iotlb.table, signed(chance.choice(recent)), 1, chance.randrange(2))
        assert host == 0 or HOST <= host < HOST + MEMORY
        found += host != 0
        assert len(iotlb) <= MAX_RANGES
        assert len(iotlb._questions) <= QUESTIONS
        assert len(iotlb._refused) <= SLOTS
        assert len(iotlb._noes) <= QUESTIONS
        assert len(clock.timers) <= 1
    assert found > MESSAGES // 100
    assert iotlb.misses > MESSAGES // 100
    iotlb.close()


def signed(value: int) -> int:
    return int(struct.unpack("=q", struct.pack("=Q", value))[0])


def test_a_front_end_that_maps_page_after_page() -> None:
    """No two are neighbours; then each is cut out of one large range. Time stays the same."""
    iotlb = Iotlb(FakeMemory(), lambda: None)  # type: ignore[arg-type]
    began = time.thread_time()
    for k in range(2 * MAX_RANGES):
        iotlb.take(Translation(2 * k * PAGE, PAGE, USER, 3, UPDATE))
    assert len(iotlb) == MAX_RANGES
    iotlb.take(Translation(0, (1 << 64) - 1, 0, 0, INVALIDATE))
    assert len(iotlb) == 0
    iotlb.take(Translation(0, MEMORY, USER, 3, UPDATE))
    for k in range(MEMORY // PAGE // 2):
        iotlb.take(Translation(2 * k * PAGE, PAGE, 0, 0, INVALIDATE))
    assert len(iotlb) == MEMORY // PAGE // 2
    assert time.thread_time() - began < 30


def test_a_guest_that_misses_everything() -> None:
    """It has as many questions as there are slots, however many addresses it makes up."""
    asked: list[tuple[int, int]] = []
    iotlb = Iotlb(FakeMemory(), lambda: None)  # type: ignore[arg-type]
    iotlb.ask = lambda iova, permission: asked.append((iova, permission)) is None
    for page in range(20_000 if not INTERPRETED else 2000):
        miss_iova(iotlb.table, page * PAGE, page & 1)
        if page % 100 == 0:
            iotlb.serve()
    assert len(asked) == SLOTS
    iotlb.close()


@pytest.mark.compiled_only
def test_a_worker_sees_the_old_or_the_new_place() -> None:
    """While the control thread changes one page's place, and takes it away again and again."""
    iotlb = Iotlb(FakeMemory(), lambda: None)  # type: ignore[arg-type]
    iova, looks = 0x1234567000, 100_000
    totals, over = np.zeros(6, np.int64), threading.Event()

    def work() -> None:
        while not over.is_set():
            results = np.zeros(6, np.int64)
            results[0] = HOST
            watch_iova(iotlb.table, iova, looks, address_of(results))
            totals[:] += results

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for change in itertools.count():
            if change >= 10_000 and totals[1:5].any():
                break
            if change % 5 == 4:
                iotlb.take(Translation(iova, PAGE, 0, 0, INVALIDATE))
            else:
                iotlb.take(Translation(iova, PAGE, USER + change % 5 * PAGE, 3, UPDATE))
    finally:  # also where the page is never seen at one of its places, and time is over
        over.set()
        worker.join()
    assert totals[5] == 0
    assert totals.sum() % looks == 0
