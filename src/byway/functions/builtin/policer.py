# SPDX-License-Identifier: Apache-2.0
"""``byway.policer``: colours frames by two rates (RFC 2697, RFC 2698), remarks them, drops the red.

A built-in network function, written on the author's page (byway.nf) alone.

Theory of operation
-------------------
Two buckets of tokens. ``srtcm``, the single rate three colour marker (RFC 2697): tokens come at the
committed rate into the first bucket, and when that is full into the second. ``trtcm``, the two rate
marker (RFC 2698): the first fills at the committed rate, the second at the peak rate. A frame is
green, yellow or red by which of them hold enough for it; what is red takes nothing.

A token stands for a bit and a thousand-millionth of a second: a rate in bits a second times
nanoseconds is tokens, without a division and nothing is rounded. A bucket of 2^28 bytes is 2.1e18
tokens, so the sum of both and as much again stays below 2^63.

The size of a frame is that of its packet: without Ethernet header and tags (RFC 2697, 1), with the
padding of a short frame. A large frame that is still to be cut counts as it is.
"""

from typing import Annotated, Literal

from byway import nf

GREEN, YELLOW, RED = 0, 1, 2
SECOND = 1_000_000_000
KEEP = -1  # for a DSCP: leave it
# Places in the meter's array.
COMMITTED, EXCESS, LAST, STARTED = 0, 1, 2, 3

Rate = Annotated[int, nf.Range(1, 1_000_000_000_000)]  # bits a second
Burst = Annotated[int, nf.Range(0, 1 << 28)]  # bytes
Dscp = Annotated[int, nf.Range(-1, 63)]


@nf.function
class Policer:
    """Colour frames green, yellow and red by rate; remark by colour, drop the red."""

    mode: Literal["srtcm", "trtcm"] = "srtcm"
    committed_rate: Rate = 1_000_000_000  # CIR
    committed_burst: Burst = 125_000  # CBS
    excess_burst: Burst = 125_000  # EBS; for trtcm the peak burst, PBS
    peak_rate: Rate = 2_000_000_000  # PIR, for trtcm
    colour_aware: bool = False  # a frame gets no better colour than its DSCP tells
    drop_red: bool = True
    af: bool = False  # frames of an AF class get the drop precedence of their colour (RFC 2597)
    green_dscp: Dscp = -1
    yellow_dscp: Dscp = -1
    red_dscp: Dscp = -1

    meter = nf.Array(value="u64", size=4)
    green = nf.Counter()
    yellow = nf.Counter()
    red = nf.Counter()

    def process(self, frame):
        self.fill()
        before = GREEN
        if self.colour_aware and frame.is_ip:
            before = self.colour_before(frame.ip_dscp)
        cost = 8 * max(frame.length - frame.l3_offset, 0) * SECOND
        if self.mode == "srtcm":
            colour = self.single_rate(cost, before)
        else:
            colour = self.two_rates(cost, before)
        if colour == GREEN:
            self.green.add()
            self.mark(frame, GREEN, self.green_dscp)
            return nf.PASS
        if colour == YELLOW:
            self.yellow.add()
            self.mark(frame, YELLOW, self.yellow_dscp)
            return nf.PASS
        self.red.add()
        if self.drop_red:
            return nf.DROP("red")
        self.mark(frame, RED, self.red_dscp)
        return nf.PASS

    def single_rate(self, cost, before):
        """The colour by RFC 2697, 3; takes the tokens."""
        if before == GREEN and self.meter[COMMITTED] >= cost:
            self.meter[COMMITTED] -= cost
            return GREEN
        if before != RED and self.meter[EXCESS] >= cost:
            self.meter[EXCESS] -= cost
            return YELLOW
        return RED

    def two_rates(self, cost, before):
        """The colour by RFC 2698, 3; takes the tokens."""
        if before == RED or self.meter[EXCESS] < cost:
            return RED
        self.meter[EXCESS] -= cost
        if before == YELLOW or self.meter[COMMITTED] < cost:
            return YELLOW
        self.meter[COMMITTED] -= cost
        return GREEN

    def fill(self):
        """Put in the tokens of the time since the last frame. Full at first, and never fuller than
        the bursts, which may have been changed."""
        now = nf.now()
        most = 8 * self.committed_burst * SECOND
        most_excess = 8 * self.excess_burst * SECOND
        if self.meter[STARTED] == 0:
            self.meter[STARTED] = 1
            self.meter[COMMITTED] = most
            self.meter[EXCESS] = most_excess
            self.meter[LAST] = now
        passed = now - self.meter[LAST]
        self.meter[LAST] = now
        if self.mode == "srtcm":
            # What the first bucket does not hold goes into the second.
            level = self.meter[COMMITTED] + tokens(passed, self.committed_rate, most + most_excess)
            self.meter[EXCESS] = min(self.meter[EXCESS] + max(level - most, 0), most_excess)
            self.meter[COMMITTED] = min(level, most)
        else:
            level = self.meter[COMMITTED] + tokens(passed, self.committed_rate, most)
            self.meter[COMMITTED] = min(level, most)
            level = self.meter[EXCESS] + tokens(passed, self.peak_rate, most_excess)
            self.meter[EXCESS] = min(level, most_excess)

    def colour_before(self, dscp):
        """The colour that a DSCP tells: one of those set here, or AF's drop precedence."""
        if dscp == self.red_dscp:
            return RED
        if dscp == self.yellow_dscp:
            return YELLOW
        if dscp == self.green_dscp:
            return GREEN
        if is_af(dscp):
            return (dscp >> 1 & 3) - 1
        return GREEN

    def mark(self, frame, colour, dscp):
        """Write the colour's DSCP, or within an AF class its drop precedence."""
        if not frame.is_ip:
            return
        if self.af and is_af(frame.ip_dscp):
            frame.ip_dscp = frame.ip_dscp & 0x38 | (colour + 1) << 1
        elif dscp != KEEP:
            frame.ip_dscp = dscp


def tokens(passed, rate, most):
    """What comes in ``passed`` nanoseconds, or ``most`` and a little where that is less."""
    if passed <= 0:
        return 0
    return min(passed, most // rate + 1) * rate


def is_af(dscp):
    """Is it a code point of AF11 to AF43 (RFC 2597, 6)?"""
    return dscp & 1 == 0 and dscp & 6 != 0 and dscp >> 3 >= 1 and dscp >> 3 <= 4
