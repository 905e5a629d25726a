# SPDX-License-Identifier: Apache-2.0
"""Meters: how much a port may send and be sent, as bits, frames, and broadcasts a second.

Used by worker (``meter_rx`` and ``meter_tx`` among the stages) and by control, which makes them.
What is too much is dropped (a policer: nothing waits): RATE, or BROADCAST_RATE.

Theory of operation
-------------------
A limit is a *bucket*: one word, ``used``, the time up to which what has passed uses the rate up.
Each frame that passes moves it on by what the frame costs at that rate. It is never further back
than ``depth``, the burst. A frame passes while ``used`` lies before now: so the last one may be
larger than what was left (a frame to be cut into segments is larger than a small burst), and those
that come later pay for it. In any time T there pass at most rate * (T + burst) and one frame more;
a port that sends more than that all the time gets the rate, whatever the size of its frames.

Time is the processor's time stamp counter, read once a run, since the batch's clock is as coarse
as a burst. It is counted in units of 1/16 tick from the making of the meter on: fine enough for
small frames at 100 Gbit/s, and an int64 lasts for years. What a frame costs has more digits behind
the point (``shift``), and is summed up in them over a run.

Bits are those of the frames from the destination address on, without preamble and checksum; a frame
to be cut counts as the frames that it makes, each with its headers. A frame counts against the
limits of broadcasts, frames and bits only if it passes all of them.

Threads: several workers may serve one port. Each reads the word, decides about its run, and adds
what passed by one atomic addition: nothing is lost, so the rate is kept; at the same moment each
may let a run pass that only one should have. A limit is changed by making another meter.
"""

from typing import Any

from byway.machine.clock import tsc
from byway.machine.jit import kernel
from byway.machine.layout import CACHE_LINE, address_of, alloc, record
from byway.machine.mem import add64, cas64, ld8, ld64, ld64_once, likely, st64, unlikely
from byway.machine.system import rdtsc
from byway.packet.batch import UNDECIDED, R, batch_at, dropped
from byway.packet.counters import count_drops
from byway.packet.layers import l4_of, layers, version_of
from byway.packet.offload import (
    FRAGMENT_HEADER,
    GSO_UDP,
    MAX_SEGMENTS,
    header_bytes,
    word_gso,
    word_gso_size,
)
from byway.packet.reason import Reason

_RATE = int(Reason.RATE)
_BROADCAST_RATE = int(Reason.BROADCAST_RATE)

UNIT = 4  # 2^UNIT units are a tick
LONGEST_BURST = 10_000  # ms
_COST_BITS = 34  # what one bit or frame costs is below 2^34
_MOST_SHIFT = 20

# cost: of one bit or frame, in units << shift. depth: units. used: see above.
BUCKET, bucket_at, U = record("bucket", ["used", "cost", "shift", "depth"])
# Addresses of BUCKETs, 0 where there is no limit. start: tick that time is counted from.
METER, meter_at, M = record("meter", [
    "rx_bits", "rx_frames", "tx_bits", "tx_frames", "broadcast_frames", "start"])

_NO_LIMIT = 1  # what is left of a limit that is none


# ---------------------------------------------------------------- a bucket
@kernel
def left_in(bucket, now):
    """What is left in a bucket at ``now``, in units << shift; negative where too much is used."""
    if bucket == 0:
        return _NO_LIMIT
    u = bucket_at(bucket)
    used = ld64_once(bucket + U.used)
    oldest = now - u.depth
    if used < oldest:
        found = cas64(bucket + U.used, used, oldest)
        used = oldest if found == used else max(found, oldest)
    return (now - used) << u.shift


@kernel
def cost_of(bucket):
    """What a bit, or a frame, costs."""
    if bucket == 0:
        return 0
    return ld64(bucket + U.cost)


@kernel
def pay(bucket, cost):
    """What passed did cost so much."""
    if bucket != 0 and cost != 0:
        shift = ld64(bucket + U.shift)
        add64(bucket + U.used, (cost + (1 << shift >> 1)) >> shift)


# ---------------------------------------------------------------- a frame
@kernel
def ceiling_of(n, size):
    """n / size rounded up, at most MAX_SEGMENTS; by halving, since ``size`` is a guest's."""
    low = 1
    high = MAX_SEGMENTS
    while low < high:
        middle = (low + high) >> 1
        if middle * size >= n:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def frames_of(row):
    """How many frames a row makes on the wire, and their bytes: frames << 32 | bytes."""
    word = ld64(row + R.offload)
    length = ld64(row + R.len)
    kind = word_gso(word)
    if likely(kind == 0):
        return 1 << 32 | length
    header = header_bytes(row)
    size = word_gso_size(word)
    extra = 0
    if kind == GSO_UDP:  # fragments: IP's header in each, UDP's counts as payload
        found = layers(row)
        header = l4_of(found)
        size &= ~7
        if version_of(found) == 6:
            extra = FRAGMENT_HEADER
    frames = ceiling_of(length - header, size)
    octets = length + (frames - 1) * header + frames * extra
    return frames << 32 | octets


@kernel
def group_frame(row):
    """Is it a broadcast or multicast?"""
    return ld64(row + R.len) > 0 and ld8(ld64(row + R.head)) & 1 != 0


# ---------------------------------------------------------------- the stages
@kernel
def meter_in(meter, batch, tick):
    """As ``meter_rx``, at a time of the time stamp counter."""
    m = meter_at(meter)
    if m.rx_bits == 0 and m.rx_frames == 0 and m.broadcast_frames == 0:
        return
    b = batch_at(batch)
    now = (tick - m.start) << UNIT
    bits, frames = left_in(m.rx_bits, now), left_in(m.rx_frames, now)
    groups = left_in(m.broadcast_frames, now)
    bit_cost, frame_cost = cost_of(m.rx_bits), cost_of(m.rx_frames)
    group_cost = cost_of(m.broadcast_frames)
    bits_before, frames_before, groups_before = bits, frames, groups
    rows = b.rows
    for k in range(b.n):
        row = rows + 64 * k
        if unlikely(ld64(row + R.out) != UNDECIDED):
            continue
        made = frames_of(row)
        group = group_frame(row)
        if unlikely(group and groups <= 0):
            st64(row + R.out, dropped(_BROADCAST_RATE))
        elif unlikely(bits <= 0 or frames <= 0):
            st64(row + R.out, dropped(_RATE))
        else:
            bits -= 8 * (made & 0xFFFFFFFF) * bit_cost
            frames -= (made >> 32) * frame_cost
            if group:
                groups -= (made >> 32) * group_cost
    pay(m.rx_bits, bits_before - bits)
    pay(m.rx_frames, frames_before - frames)
    pay(m.broadcast_frames, groups_before - groups)


@kernel
def meter_out(meter, batch, selected, n, counters, tick):
    """As ``meter_tx``, at a time of the time stamp counter."""
    m = meter_at(meter)
    if m.tx_bits == 0 and m.tx_frames == 0:
        return n
    now = (tick - m.start) << UNIT
    bits, frames = left_in(m.tx_bits, now), left_in(m.tx_frames, now)
    bit_cost, frame_cost = cost_of(m.tx_bits), cost_of(m.tx_frames)
    bits_before, frames_before = bits, frames
    kept = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        if likely(bits > 0 and frames > 0):
            made = frames_of(row)
            bits -= 8 * (made & 0xFFFFFFFF) * bit_cost
            frames -= (made >> 32) * frame_cost
            st64(selected + 8 * kept, row)
            kept += 1
    pay(m.tx_bits, bits_before - bits)
    pay(m.tx_frames, frames_before - frames)
    if kept < n:
        count_drops(counters, _RATE, n - kept)
    return kept


@kernel
def meter_rx(meter, batch):
    """Drop of a run what the port sends too much."""
    meter_in(meter, batch, rdtsc())


@kernel
def meter_tx(meter, batch, selected, n, counters):
    """Drop of n selected rows what would be too much for the port; -> how many are left."""
    return meter_out(meter, batch, selected, n, counters, rdtsc())


# ---------------------------------------------------------------- Python
class Meter:
    """The limits of one port.

    ``hz``: ticks of the time stamp counter a second (machine.clock). ``burst``: ms, for how long
    a port that was silent may send at any speed. The others: bits or frames a second, 0: no limit.
    ``start``: the tick that time is counted from, now by default.
    """

    def __init__(self, hz: float, burst: int, *, rx_bits: int = 0, rx_frames: int = 0,
                 tx_bits: int = 0, tx_frames: int = 0, broadcast_frames: int = 0,
                 start: int | None = None) -> None:
        if not 1 <= burst <= LONGEST_BURST:
            raise ValueError(f"a burst of {burst} ms is not between 1 and {LONGEST_BURST}")
        limits = {"rx_bits": rx_bits, "rx_frames": rx_frames, "tx_bits": tx_bits,
                  "tx_frames": tx_frames, "broadcast_frames": broadcast_frames}
        self.record = alloc(METER, 1, CACHE_LINE)
        self.buckets = alloc(BUCKET, len(limits), CACHE_LINE)
        self.record["start"] = int(tsc()) if start is None else start
        for k, (name, rate) in enumerate(limits.items()):
            if rate < 0:
                raise ValueError(f"{name}: a rate of {rate} is negative; 0 is no limit")
            if rate > 0:
                self._fill(self.buckets[k], rate, hz, burst)
                self.record[name] = address_of(self.buckets[k:])
        self.address = address_of(self.record)

    def _fill(self, bucket: Any, rate: int, hz: float, burst: int) -> None:
        units = hz * (1 << UNIT)
        cost = units / rate
        shift = min(_MOST_SHIFT, max(0, _COST_BITS - int(cost).bit_length()))
        bucket["cost"] = round(cost * (1 << shift))
        bucket["shift"] = shift
        bucket["depth"] = round(units * burst / 1000)
        bucket["used"] = -bucket["depth"]
