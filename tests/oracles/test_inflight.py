# SPDX-License-Identifier: Apache-2.0
"""A back end that is killed after any store: no buffer is lost, none comes back twice.

The journal of Byway's device (virtio/inflight.py), the document's own way of tracking (oracles/
inflight.py), and the recovery after either (vhost/recovery.py), which is killed as well.
"""

import random
from collections.abc import Callable

import numpy as np
import pytest

from byway.machine.layout import address_of, alloc
from byway.machine.mem import ld16, ld64, st64, st64_rel
from byway.vhost import recovery
from byway.vhost.inflight import part_bytes
from byway.vhost.ring import Ring
from byway.virtio.inflight import journal_begin, journal_commit
from byway.virtio.ring import PACKED_START, VQ, vq_at
from tests.oracles.inflight import (
    AVAIL,
    NEXT,
    USED,
    Killed,
    PackedDriver,
    PackedTracker,
    Room,
    SplitDriver,
    SplitTracker,
    cut,
)

Driver = PackedDriver | SplitDriver


def begin(part: Room, queue_size: int, driver: Driver, base: int) -> Ring:
    """A back end takes the ring up; -> the ring, at its position."""
    ring = driver.ring(base)
    assert recovery.start(part.address, queue_size, ring, 0) == ""
    return ring


# ---------------------------------------------------------------- Byway's device


class Device:
    """What Byway's kernels do to a packed ring, with the journal around each publication."""

    def __init__(self, driver: PackedDriver, part: Room, position: int) -> None:
        self._vq = alloc(VQ, 1)
        self._queue = address_of(self._vq)
        self._driver = driver
        q = vq_at(self._queue)
        q.desc, q.size, q.inflight, q.used_idx = (driver.desc, driver.size, part.address, position)

    def turn(self, most: int) -> int:
        """Return up to ``most`` chains as one batch; -> how many."""
        q, size = vq_at(self._queue), self._driver.size
        slot, wrap = q.used_idx & 0x7FFF, q.used_idx >> 15
        words, total = [], 0
        while len(words) < most and total < size:
            at = self._driver.desc + 16 * slot
            flags = ld16(at + 14)
            if flags & (AVAIL | USED) != (AVAIL if wrap else USED):
                break
            done = AVAIL | USED if wrap else 0
            words.append((at + 8, ld16(at + 12) << 32 | done << 48))
            more = True
            while more:
                more = bool(ld16(self._driver.desc + 16 * slot + 14) & NEXT)
                slot, total = slot + 1, total + 1
                if slot == size:
                    slot, wrap = 0, 1 - wrap
        if words:
            journal_begin(self._queue, total)
            for at, word in words[1:]:
                st64(at, word)
            st64_rel(*words[0])
            q.used_idx = slot | wrap << 15
            journal_commit(self._queue, total)
        return len(words)


def scenario(seed: int) -> tuple[int, list[int], list[int]]:
    """Ring size; lengths of the chains offered; sizes of the batches."""
    rng = random.Random(seed)
    size = rng.choice((1, 2, 3, 5, 8))
    lengths = [rng.randint(1, min(3, size)) for _ in range(14)]
    return size, lengths, [rng.randint(1, 4) for _ in range(14)]


def drive(driver: Driver, lengths: list[int], turn: Callable[[int], object],
          batches: list[int]) -> None:
    """Offer everything that is left, a device's turn after each time the ring was filled."""
    for most in batches * 20:
        while driver.made < len(lengths) and driver.offer(lengths[driver.made]):
            pass
        turn(most)
        driver.poll()
        if len(driver.back) == len(lengths):
            return


def judge(driver: Driver, lengths: list[int], ordered: bool) -> None:
    assert sorted(driver.back) == list(range(len(lengths))), "each once"
    assert driver.waiting == {}
    if ordered:
        assert driver.back == list(range(len(lengths)))


def killed_once(seed: int, after: int, again: int | None) -> bool:
    """Byway's device is killed after so many stores, and the next one while it recovers.

    -> whether it lived that long.
    """
    size, lengths, batches = scenario(seed)
    driver = PackedDriver(size, PACKED_START)
    part = Room(part_bytes(size + 1, True))
    device = Device(driver, part, begin(part, size + 1, driver, PACKED_START).base)
    stores = [0]

    def turn(most: int) -> None:
        with cut(after - stores[0]) as counted:
            try:
                device.turn(most)
            finally:
                stores[0] += counted.n

    try:
        drive(driver, lengths, turn, batches)
        return False
    except Killed:
        driver.poll()
        if again is not None:
            try:
                with cut(again):
                    begin(part, size + 1, driver, 0x1234 % size)
            except Killed:
                driver.poll()
    while driver.made < len(lengths) and driver.offer(lengths[driver.made]):
        pass  # a driver goes on, whoever lives
    device = Device(driver, part, begin(part, size + 1, driver, 0).base)
    drive(driver, lengths, device.turn, batches)
    judge(driver, lengths, ordered=True)
    return True


@pytest.mark.interpreted_only
@pytest.mark.parametrize("seed", range(6))
def test_byways_device_killed_after_every_store(seed: int) -> None:
    after = 0
    while killed_once(seed, after, None):
        after += 1
    assert after > 100


@pytest.mark.interpreted_only
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_in_its_recovery(seed: int) -> None:
    rng = random.Random(seed)
    after = 0
    while killed_once(seed, after, rng.randrange(30)):
        after += 1
    assert after > 100


@pytest.mark.interpreted_only
def test_between_batches_the_journal_is_empty() -> None:
    size, lengths, batches = scenario(4)
    driver = PackedDriver(size, PACKED_START)
    part = Room(part_bytes(size, True))
    device = Device(driver, part, begin(part, size, driver, PACKED_START).base)
    drive(driver, lengths, device.turn, batches)
    state = ld64(part.address + 16)
    assert state & 0xFFFF == state >> 16 & 0xFFFF == driver.used_slot
    assert state >> 32 == driver.used_wrap * 0x101
    assert ld64(part.address + 8) >> 32 == 0, "the list of free entries begins at 0"
    entries = part.bytes[32 : 32 + 32 * size].reshape(size, 32)
    assert entries[:, 0].max() == 0
    assert (entries[:, 2] == range(1, size + 1)).all()


# ---------------------------------------------------------------- other back ends


def foreign(seed: int, packed: bool, after: int, again: int | None) -> bool:
    """A back end that follows the document is killed; Byway takes over, and is killed once too.

    -> whether it lived that long.
    """
    rng = random.Random(seed)
    size, lengths, batches = scenario(seed)
    if not packed:
        size = 1 << size.bit_length()
    position = rng.choice((0x8000, size - 1)) if packed else rng.choice((0, 0xFFFD))
    driver: Driver = PackedDriver(size, position) if packed else SplitDriver(size, position)
    part = Room(part_bytes(size, packed))
    begin(part, size, driver, position)
    tracker = (PackedTracker(driver, part.address, position) if isinstance(driver, PackedDriver)
               else SplitTracker(driver, part.address, position))
    stores = [0]

    def turn(most: int) -> None:
        with cut(after - stores[0]) as counted:
            try:
                while rng.randrange(4) and tracker.receive():
                    pass
                chosen = rng.sample(tracker.flying, min(most, len(tracker.flying)))
                if chosen:
                    tracker.supply(chosen)
            finally:
                stores[0] += counted.n

    try:
        drive(driver, lengths, turn, batches)
        return False
    except Killed:
        driver.poll()
        if again is not None:
            try:
                with cut(again):
                    begin(part, size, driver, 0)
            except Killed:
                driver.poll()
    ring = begin(part, size, driver, 0)
    driver.poll()
    if isinstance(driver, PackedDriver):
        drive(driver, lengths, Device(driver, part, ring.base).turn, batches)
    else:
        # From here on in order, as Byway's device works: the position is the used index.
        unused = Room(part_bytes(size, False))
        mine = SplitTracker(driver, unused.address, ring.base)

        def in_order(most: int) -> None:
            while mine.receive():
                mine.supply(mine.flying[:1])

        drive(driver, lengths, in_order, batches)
    judge(driver, lengths, ordered=False)
    return True


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=pytest.mark.interpreted_only)])
@pytest.mark.parametrize("seed", range(8))
def test_another_back_end_killed_after_every_store(seed: int, packed: bool) -> None:
    rng = random.Random(seed)
    after = 0
    while foreign(seed, packed, after, rng.choice((None, rng.randrange(40)))):
        after += 1
    assert after > 50


@pytest.mark.parametrize("size", [256, 32768])
def test_a_ring_full_of_chains_in_flight(size: int) -> None:
    """As many as there can be, taken in any order: they lie in the ring in the order in which they
    were taken, as their driver wrote them."""
    driver = PackedDriver(size, PACKED_START | 3)
    part = Room(part_bytes(size, True))
    begin(part, size, driver, PACKED_START | 3)
    order = np.random.default_rng(size).permutation(size)
    entries = part.bytes[32 : 32 + 32 * size].view(recovery.PACKED_ENTRY_TYPE)
    entries["inflight"], entries["num"], entries["last"] = 1, 1, np.arange(size)
    entries["counter"][order] = np.arange(size)
    entries["id"], entries["addr"], entries["len"] = np.arange(size), np.arange(size) << 12, 77
    entries["flags"] = 2 | AVAIL
    part.bytes[12:16] = 255
    assert begin(part, size, driver, 0).base == PACKED_START | 3
    ring = driver.memory.bytes[: 16 * size].view(np.dtype([
        ("addr", "<u8"), ("len", "<u4"), ("id", "<u2"), ("flags", "<u2")]))
    assert (np.roll(ring["id"], -3) == order).all()
    assert (ring["addr"] == ring["id"].astype(np.uint64) << 12).all()
    assert (ring["len"] == 77).all()
    assert (ring["flags"][3:] == 2 | AVAIL).all()
    assert (ring["flags"][:3] == 2 | USED).all(), "of the next lap"
    assert not entries["inflight"].any()
    assert (entries["next"] == np.arange(1, size + 1)).all()
