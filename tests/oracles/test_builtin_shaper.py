# SPDX-License-Identifier: Apache-2.0
"""byway.shaper against a queue with fractions; and the rate that a sender that listens gets."""

import random
from fractions import Fraction
from math import sqrt

from byway import nf
from byway.functions.builtin.shaper import Shaper
from byway.testing.builders import arp, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both, has_right_sums
from tests.frames_wanted import frames_wanted

MS = 1_000_000
ECN = 3


class Queue:
    """A queue in front of a link, in bytes."""

    def __init__(self, rate: int) -> None:
        self.rate, self.bytes, self.at = rate, Fraction(0), 0

    def length(self, now: int) -> Fraction:
        """What waits, now."""
        self.bytes = max(Fraction(0), self.bytes - Fraction((now - self.at) * self.rate, 8 * 10**9))
        self.at = now
        return self.bytes


def test_signals_come_as_often_as_the_queue_is_long() -> None:
    rate, mark_from, limit = 65_000_000, 5000, 50_000
    both, queue, chance = Both(Shaper, rate=rate, mark_from=mark_from, limit=limit), Queue(rate), \
        random.Random(1)
    now, expected, spread, signals, full = 0, 0.0, 0.0, 0, 0
    for _ in range(frames_wanted()):
        now += chance.choice([0, 10_000, 100_000, 140_000])
        ecn = chance.choice([0, 0, 1, 1, 1, 2, 2, 2, 3])
        frame = udp(data=bytes(chance.randrange(18, 1400)), ecn=ecn)
        outcome = both.one(frame, now=now)
        length = queue.length(now)
        dropped = outcome.verdict.kind == "drop"
        if length + len(frame) > limit:
            full += 1
            assert outcome.verdict == nf.DROP("over the limit")
            continue
        share = max(0.0, float(length - mark_from) / (limit - mark_from))
        if dropped:
            assert ecn == 0
            assert outcome.verdict == nf.DROP("early")
        else:
            queue.bytes += len(frame)
            assert has_right_sums(outcome.frame)
            assert outcome.frame[15] & 3 in (ecn, ECN if ecn else 0)
        if ecn == ECN:
            continue  # nobody sees whether it was marked once more
        expected += share
        spread += share * (1 - share)
        signals += dropped or outcome.frame[15] & 3 != ecn
    assert abs(signals - expected) < 6 * sqrt(spread) + 1
    assert signals > 20
    assert full > 0


def test_below_the_mark_nothing_happens_to_a_frame() -> None:
    both = Both(Shaper, rate=8_000_000, mark_from=100_000, limit=200_000)
    frames = [tcp(data=bytes(900), ecn=1), udp(), arp()] * 30
    assert [one.frame for one in both.run(frames)] == frames
    assert both.value("marked") == 0


def test_what_passes_in_a_time_is_the_rate_and_the_limit_at_most() -> None:
    both = Both(Shaper, rate=8_000_000, mark_from=10_000, limit=20_000)  # 1,000 bytes each ms
    frame = tcp(data=bytes(946), ecn=1)
    passed = sum(len(one.frame) for now in range(1000) for one in
                 both.run([frame] * 3, now=now * MS) if one.verdict.kind == "pass")
    assert 1_000_000 <= passed <= 1_020_000


def test_without_ecn_capable_senders_are_dropped_early_too() -> None:
    both = Both(Shaper, rate=8_000, mark_from=0, limit=2000, ecn=False)
    reasons = [one.verdict.reason for one in both.run([tcp(ecn=1, data=bytes(46))] * 100)]
    assert set(reasons) == {"", "early", "over the limit"}
    assert both.value("marked") == 0


def test_what_is_marked_already_passes_as_it_is_and_is_not_counted() -> None:
    both = Both(Shaper, rate=8_000, mark_from=0, limit=10_000)
    frames = [tcp(ecn=ECN, data=bytes(46))] * 90
    assert [one.frame for one in both.run(frames)] == frames
    assert both.value("marked") == 0


def test_a_mark_beyond_the_limit_means_no_marks_at_all() -> None:
    both = Both(Shaper, rate=8_000, mark_from=10_000, limit=200)
    assert [one.verdict.reason for one in both.run([tcp(data=bytes(46))] * 3)] == [
        "", "", "over the limit"]


def test_any_frame_passes_through_and_nothing_goes_wrong() -> None:
    both = Both(Shaper, rate=8_000_000, mark_from=500, limit=20_000)
    for k, frame in enumerate(generated(frames_wanted(), seed=6)):
        assert both.one(frame, now=k * 30_000).fault is None
    assert both.value("marked") > 0
