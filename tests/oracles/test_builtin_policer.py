# SPDX-License-Identifier: Apache-2.0
"""byway.policer against RFC 2697 and RFC 2698, written down with fractions of a byte."""

import random
from fractions import Fraction
from typing import Any

import pytest

from byway import nf
from byway.functions.builtin.policer import Policer
from byway.testing.builders import arp, ethernet, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both, has_right_sums
from tests.frames_wanted import frames_wanted

GREEN, YELLOW, RED = 10, 12, 14  # AF11, AF12, AF13
MS = 1_000_000
AS_DSCP = {"drop_red": False, "green_dscp": GREEN, "yellow_dscp": YELLOW, "red_dscp": RED}

# Committed rate, committed burst, excess or peak burst, peak rate.
METERS = ((8_000, 1500, 1500, 16_000), (999_999, 3000, 0, 7_777_777), (10**12, 0, 1 << 28, 10**12),
          (100_000_000, 100_000, 10_000, 8_000), (8_000, 1 << 28, 1 << 28, 1))


class Meter:
    """The two RFCs' own words: tokens in bytes, time in seconds."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.tc = Fraction(given["committed_burst"])
        self.te = Fraction(given["excess_burst"])
        self.at = Fraction(0)

    def colour(self, size: int, at: Fraction, before: int) -> int:
        """The colour of a packet of ``size`` bytes that comes at ``at``."""
        passed, self.at = at - self.at, at
        cir = Fraction(self.given["committed_rate"], 8)
        if self.given["mode"] == "srtcm":
            full = self.tc + cir * passed
            self.tc = min(full, Fraction(self.given["committed_burst"]))
            self.te = min(self.te + full - self.tc, Fraction(self.given["excess_burst"]))
            return self._single(size, before)
        pir = Fraction(self.given["peak_rate"], 8)
        self.tc = min(self.tc + cir * passed, Fraction(self.given["committed_burst"]))
        self.te = min(self.te + pir * passed, Fraction(self.given["excess_burst"]))
        return self._two(size, before)

    def _single(self, size: int, before: int) -> int:
        if before == GREEN and self.tc >= size:
            self.tc -= size
            return GREEN
        if before in (GREEN, YELLOW) and self.te >= size:
            self.te -= size
            return YELLOW
        return RED

    def _two(self, size: int, before: int) -> int:
        if before == RED or self.te < size:
            return RED
        self.te -= size
        if before == YELLOW or self.tc < size:
            return YELLOW
        self.tc -= size
        return GREEN


def dscp_of(frame: bytes) -> int:
    return frame[15] >> 2


@pytest.mark.parametrize("mode", ["srtcm", "trtcm"])
@pytest.mark.parametrize("aware", [False, True])
def test_colours_are_those_of_the_rfcs(mode: str, aware: bool) -> None:
    chance = random.Random(f"{mode}{aware}")
    seen = set()
    for committed_rate, committed_burst, excess_burst, peak_rate in METERS:
        given = {"mode": mode, "colour_aware": aware, "committed_rate": committed_rate,
                 "committed_burst": committed_burst, "excess_burst": excess_burst,
                 "peak_rate": peak_rate}
        both, meter, now = Both(Policer, **AS_DSCP, **given), Meter(given), 0
        for _ in range(frames_wanted() // 4 // len(METERS)):
            now += chance.choice([0, 0, 1, 1000, MS, 20 * MS, 10**12])
            dscp = chance.choice([0, GREEN, YELLOW, RED])
            frame = udp(data=bytes(chance.randrange(18, 1400)), dscp=dscp)
            before = dscp if aware and dscp else GREEN
            wanted = meter.colour(len(frame) - 14, Fraction(now, 10**9), before)
            outcome = both.one(frame, now=now)
            assert (outcome.verdict, dscp_of(outcome.frame)) == (nf.PASS, wanted)
            assert has_right_sums(outcome.frame)
            seen.add(wanted)
    assert seen == {GREEN, YELLOW, RED}


def test_what_is_red_is_dropped_and_counted() -> None:
    both = Both(Policer, committed_rate=8000, committed_burst=100, excess_burst=100)
    outcomes = both.run([tcp(data=bytes(60)) for _ in range(3)])
    assert [one.verdict for one in outcomes] == [nf.PASS, nf.PASS, nf.DROP("red")]
    assert [both.value(name) for name in ("green", "yellow", "red")] == [1, 1, 1]


def test_it_fills_up_at_the_committed_rate() -> None:
    both = Both(Policer, committed_rate=800_000, committed_burst=100, excess_burst=0)
    frame = tcp(data=bytes(60))  # a packet of 100 bytes: a millisecond
    assert [both.one(frame, now=now).verdict.kind for now in
            (0, MS - 1, MS, MS + 1, 2 * MS)] == ["pass", "drop", "pass", "drop", "pass"]


def test_without_a_dscp_for_the_colour_a_frame_stays_as_it_is() -> None:
    both = Both(Policer)
    frame = tcp(dscp=46, ecn=1)
    assert both.one(frame).frame == frame


def test_within_an_af_class_only_the_drop_precedence_changes() -> None:
    both = Both(Policer, af=True, green_dscp=0, committed_rate=8000, committed_burst=100,
                excess_burst=100, drop_red=False)
    frames = [tcp(data=bytes(60), dscp=34, ecn=2) for _ in range(3)]  # AF41
    outcomes = both.run([*frames, tcp(dscp=46, data=bytes(60))])
    assert [dscp_of(one.frame) for one in outcomes] == [34, 36, 38, 46]  # AF41, AF42, AF43; EF
    assert all(one.frame[15] & 3 == 2 for one in outcomes[:3])
    assert dscp_of(both.one(tcp(dscp=46), now=10**12).frame) == 0  # EF is no AF class


def test_a_frame_that_is_not_ip_is_metered_and_not_marked() -> None:
    both = Both(Policer, green_dscp=8, committed_burst=46, excess_burst=0, committed_rate=8)
    frame = arp()
    outcomes = both.run([frame, frame])
    assert outcomes[0].frame == frame
    assert [one.verdict.kind for one in outcomes] == ["pass", "drop"]


def test_colours_are_read_from_ipv6_and_af_too() -> None:
    both = Both(Policer, colour_aware=True)
    af13 = udp("fd00::1", "fd00::2", dscp=14)
    assert both.one(af13).verdict == nf.DROP("red")
    assert both.one(udp("fd00::1", "fd00::2", dscp=12)).verdict == nf.PASS
    assert both.value("yellow") == 1


def test_bursts_made_smaller_hold_less_at_once() -> None:
    both = Both(Policer, committed_burst=10_000, excess_burst=0, committed_rate=8)
    assert both.one(ethernet(bytes(46), 0x1234)).verdict == nf.PASS
    both.set("committed_burst", 40)
    assert both.one(ethernet(bytes(46), 0x1234)).verdict == nf.DROP("red")


def test_any_frame_is_metered_and_nothing_goes_wrong() -> None:
    both = Both(Policer, green_dscp=8, committed_rate=80_000, committed_burst=300,
                excess_burst=300)
    for k, frame in enumerate(generated(frames_wanted(), seed=5)):
        assert both.one(frame, now=k * 10_000).fault is None
    assert both.value("green")
    assert both.value("yellow")
    assert both.value("red")
