# SPDX-License-Identifier: Apache-2.0
"""Meters against plain fractions; the rate that passes; what a port's neighbours may not lose."""

import threading
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.clock import measure_hz
from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS, UNDECIDED, dropped
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.offload import GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4
from byway.packet.reason import Reason
from byway.switch.meter import LONGEST_BURST, Meter
from byway.testing.finishing import Finishing
from byway.testing.frame_batch import Frame, FrameBatch
from byway.testing.offload_frames import TCP, UDP, Shape
from byway.testing.stage_kernels import (
    meter_batch,
    meter_batch_now,
    meter_rows,
    meter_rows_now,
)

HZ = 3_000_000_000
MS = HZ // 1000
EXAMPLES = 40 if INTERPRETED else 200


def frame(length: int, group: bool = False) -> bytes:
    return (b"\xff" if group else b"\x02") + bytes(length - 1)


class Metered:
    """A meter and a batch to be metered."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.frames = FrameBatch()
        self.counters = alloc(COUNTERS, 1)

    def rx(self, given: Sequence[Frame], tick: int) -> list[Reason | None]:
        """Why each frame was dropped, None if not."""
        n = self.frames.place(given)
        rows = self.frames.batch.rows[:n]
        rows["out"] = UNDECIDED
        meter_batch(self.meter.address, self.frames.address, tick)
        return [None if out == UNDECIDED else Reason(dropped(int(out))) for out in rows["out"]]

    def tx(self, given: Sequence[Frame], tick: int) -> list[bool]:
        """Whether each frame may go out."""
        n = self.frames.place(given)
        before = [int(a) for a in self.frames.chosen[:n]]
        kept = meter_rows(self.meter.address, self.frames.address, self.frames.selected, n,
                          address_of(self.counters), tick)
        left = [int(a) for a in self.frames.chosen[:kept]]
        assert left == [a for a in before if a in left], "in order"
        return [a in left for a in before]


class PlainBucket:
    """A bucket as the text has it: time as fractions of a second."""

    def __init__(self, rate: int, burst: int) -> None:
        self.rate, self.burst = rate, Fraction(burst, 1000)
        self.used = -self.burst

    def begin(self, now: Fraction) -> None:
        self.now = now
        self.used = max(self.used, now - self.burst)

    def has(self) -> bool:
        return not self.rate or self.used < self.now

    def pay(self, n: int) -> None:
        if self.rate:
            self.used += Fraction(n, self.rate)


batches = st.lists(st.tuples(
    st.integers(0, 40),  # ms since the last batch
    st.lists(st.tuples(st.sampled_from([14, 60, 333, 1514, 9000]), st.booleans()), min_size=1,
             max_size=12)), max_size=20)


# Rates by which a bit and a frame take whole units, so that the fractions are exact.
@settings(max_examples=EXAMPLES, deadline=None)
@given(bits=st.sampled_from([0, 10_000, 1_000_000, 8_000_000]),
       frames=st.sampled_from([0, 50, 1000]), groups=st.sampled_from([0, 20, 400]),
       burst=st.sampled_from([1, 7, 100]), steps=batches)
def test_like_fractions(bits: int, frames: int, groups: int, burst: int,
                        steps: list[tuple[int, list[tuple[int, bool]]]]) -> None:
    made = Metered(Meter(HZ, burst, rx_bits=bits, rx_frames=frames, broadcast_frames=groups,
                         tx_bits=bits, tx_frames=frames, start=1000))
    rx = [PlainBucket(rate, burst) for rate in (bits, frames, groups)]
    tx = [PlainBucket(rate, burst) for rate in (bits, frames)]
    now = 0
    dropped_tx = 0
    for wait, sent in steps:
        now += wait
        expected: list[Reason | None] = []
        passed: list[bool] = []
        for bucket in rx + tx:
            bucket.begin(Fraction(now, 1000))
        for length, group in sent:
            if group and not rx[2].has():
                expected.append(Reason.BROADCAST_RATE)
            elif not (rx[0].has() and rx[1].has()):
                expected.append(Reason.RATE)
            else:
                expected.append(None)
                rx[0].pay(8 * length)
                rx[1].pay(1)
                rx[2].pay(int(group))
            passed.append(tx[0].has() and tx[1].has())
            if passed[-1]:
                tx[0].pay(8 * length)
                tx[1].pay(1)
        given = [frame(length, group) for length, group in sent]
        assert made.rx(given, 1000 + now * MS) == expected
        assert made.tx(given, 1000 + now * MS) == passed
        dropped_tx += passed.count(False)
    assert drops_by_name(made.counters[0]).get("rate", 0) == dropped_tx


@pytest.mark.parametrize("rate", [2_000_000, 1_000_000_007, 40_000_000_000, 400_000_000_000])
@pytest.mark.parametrize("length", [60, 1514])
def test_the_rate_is_what_passes(rate: int, length: int) -> None:
    """Twice as much is sent as may pass, in batches with odd times between."""
    made = Metered(Meter(HZ, 1000, tx_bits=rate, start=0))
    batch = 32 * length * 8
    step = int(HZ * batch / rate / 2) | 1
    tick, passed, rounds = 1000 * MS, 0, 200
    given = [frame(length)] * 32
    made.meter.buckets[2]["used"] = tick * 16  # the burst is used up
    for _ in range(rounds):
        tick += step
        passed += sum(made.tx(given, tick))
    assert passed * length * 8 == pytest.approx(rate * rounds * step / HZ, rel=0.01)


def test_a_burst_and_one_frame() -> None:
    """After silence the burst passes at once, and the frame that ends it, however large."""
    made = Metered(Meter(HZ, 10, rx_bits=8_000_000, start=0))  # the burst: 10,000 bytes
    now = 1000 * MS
    assert made.rx([frame(1000)] * 12, now) == [None] * 10 + [Reason.RATE] * 2
    now += 1000 * MS
    assert made.rx([frame(60), frame(60_000), frame(60)], now) == [None, None, Reason.RATE]
    assert made.rx([frame(60)], now + 40 * MS) == [Reason.RATE], "it is still paid for"
    assert made.rx([frame(60)], now + 51 * MS) == [None]


def test_what_is_dropped_costs_nothing() -> None:
    """Broadcasts that are too many take nothing from the port's rate, nor the other way round."""
    made = Metered(Meter(HZ, 10, rx_frames=1000, broadcast_frames=100, start=0))
    assert made.rx([frame(60, group=True)] * 5 + [frame(60)] * 10, 0) == [
        None, *[Reason.BROADCAST_RATE] * 4, *[None] * 9, Reason.RATE]
    made = Metered(Meter(HZ, 10, rx_frames=100, broadcast_frames=200, start=0))
    assert made.rx([frame(60)] + [frame(60, group=True)] * 5, 0) == [None] + [Reason.RATE] * 5
    assert made.rx([frame(60, group=True)] * 2, 10 * MS) == [None, Reason.RATE]


def test_no_limit() -> None:
    made = Metered(Meter(HZ, 10, start=0))
    assert made.rx([frame(1514, group=True)] * ROWS, 0) == [None] * ROWS
    assert all(made.tx([frame(1514)] * ROWS, 0))


def test_what_was_dropped_is_not_counted() -> None:
    made = Metered(Meter(HZ, 10, rx_frames=100, start=0))
    n = made.frames.place([frame(60)] * 2)
    rows = made.frames.batch.rows[:n]
    rows["out"] = dropped(int(Reason.BAD_OFFLOAD)), UNDECIDED
    meter_batch(made.meter.address, made.frames.address, 0)
    assert rows["out"].tolist() == [dropped(int(Reason.BAD_OFFLOAD)), UNDECIDED]


def test_an_empty_row_is_no_broadcast() -> None:
    made = Metered(Meter(HZ, 10, broadcast_frames=1, start=0))
    made.frames.place([frame(60, group=True)])
    rows = made.frames.batch.rows[:1]
    rows["out"], rows["len"] = UNDECIDED, 0
    for _ in range(3):
        meter_batch(made.meter.address, made.frames.address, 0)
    assert rows["out"][0] == UNDECIDED


def test_a_clock_that_goes_back() -> None:
    """Processors' counters may differ a little: then it is as if no time had passed."""
    made = Metered(Meter(HZ, 10, rx_frames=1000, start=0))
    assert made.rx([frame(60)] * 11, 100 * MS) == [None] * 10 + [Reason.RATE]
    assert made.rx([frame(60)] * 2, 99 * MS) == [Reason.RATE] * 2
    assert made.rx([frame(60)] * 2, 101 * MS) == [None, Reason.RATE]


@pytest.mark.parametrize(("version", "protocol", "payload", "kind", "size"), [
    (4, TCP, 4000, GSO_TCPV4, 1448), (4, TCP, 1448, GSO_TCPV4, 1448),
    (6, TCP, 4 * 1428, GSO_TCPV6, 1428), (6, TCP, 4 * 1428 + 1, GSO_TCPV6, 1428),
    (4, UDP, 5000, GSO_UDP_L4, 1000), (6, UDP, 5000, GSO_UDP_L4, 1400),
    (4, UDP, 9000, GSO_UDP, 1480), (6, UDP, 9000, GSO_UDP, 1439), (4, UDP, 10_050, GSO_UDP, 1439)])
def test_a_frame_to_be_cut_counts_as_its_segments(
        version: int, protocol: int, payload: int, kind: int, size: int) -> None:
    """As bits and frames, exactly: the segments are made, and the same bill is paid for them."""
    shape = Shape(version=version, protocol=protocol, payload=bytes(payload))
    with Finishing() as finishing:
        finishing.place(shape.build(), shape.header(kind, size))
        assert finishing.check() is None
        made = Meter(HZ, 1000, rx_bits=1000, rx_frames=1000, start=0)
        meter_batch(made.address, finishing.batch.address, 0)
        segments = finishing.finish(0)
        assert isinstance(segments, list)
    bits = sum(8 * len(data) for data, _ in segments)
    depth = HZ * 16
    assert int(made.buckets[0]["used"]) == -depth + bits * HZ * 16 // 1000
    assert int(made.buckets[1]["used"]) == -depth + len(segments) * HZ * 16 // 1000


def test_now() -> None:
    """The stages themselves read the clock: after a burst nothing passes at once."""
    made = Metered(Meter(measure_hz(), 1000, rx_frames=2, tx_frames=2))
    n = made.frames.place([frame(60)] * 10)
    rows = made.frames.batch.rows[:n]
    rows["out"] = UNDECIDED
    meter_batch_now(made.meter.address, made.frames.address)
    assert 2 <= np.count_nonzero(rows["out"] == UNDECIDED) <= 4
    assert 2 <= meter_rows_now(made.meter.address, made.frames.address, made.frames.selected, n,
                               address_of(made.counters)) <= 4


@pytest.mark.compiled_only
def test_workers_share_a_limit() -> None:
    """Nothing that passed is forgotten: all that several workers let pass was paid for."""
    meter = Meter(HZ, 1000, tx_frames=1000, start=0)
    sides = [Metered(meter) for _ in range(4)]
    passed = [0] * 4

    def send(k: int) -> None:
        n = sides[k].frames.place([frame(60)] * 8)
        before = sides[k].frames.chosen.copy()
        for tick in range(0, 2000 * MS, MS):
            sides[k].frames.chosen[:] = before
            passed[k] += int(meter_rows(
                meter.address, sides[k].frames.address, sides[k].frames.selected, n,
                address_of(sides[k].counters), tick))

    threads = [threading.Thread(target=send, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The bucket was full, was filled by 2 s, and may have been overdrawn by a batch of each.
    assert 3000 - 8 <= sum(passed) <= 3000 + 4 * 8
    assert sum(drops_by_name(*(side.counters[0] for side in sides)).values()) \
        == 4 * 2000 * 8 - sum(passed)


@pytest.mark.parametrize("burst", [0, LONGEST_BURST + 1])
def test_bursts_that_there_are_not(burst: int) -> None:
    with pytest.raises(ValueError, match=f"burst of {burst} ms is not between 1 and"):
        Meter(HZ, burst, rx_bits=1)


def test_a_negative_rate() -> None:
    with pytest.raises(ValueError, match="tx_bits: a rate of -1 is negative"):
        Meter(HZ, 10, tx_bits=-1)
