# SPDX-License-Identifier: Apache-2.0
"""The stages of trunks, meters and uplinks one by one, as tests call them: cached entries of int64
arguments.

Used by tests of switch.trunk, switch.meter, switch.uplink and packet.reshape; see the function that
each one calls.
"""

from byway.machine.jit import kernel
from byway.packet.reshape import insert, strip
from byway.switch.meter import meter_in, meter_out, meter_rx, meter_tx
from byway.switch.trunk import trunk_rx, trunk_tx


@kernel(entry=True)
def strip_row(row, at, n):
    """Take n bytes out of a row."""
    strip(row, at, n)
    return 0


@kernel(entry=True)
def insert_row(row, copy, seg, at, n):
    """Make a copy with n bytes more; -> behind its last segment."""
    return insert(row, copy, seg, at, n)


@kernel(entry=True)
def trunk_in(trunk, batch):
    """Take the tags off a batch."""
    trunk_rx(trunk, batch)
    return 0


@kernel(entry=True)
def trunk_out(trunk, batch, selected, n, counters):
    """Put the tag on selected rows; -> how many are left."""
    return trunk_tx(trunk, batch, selected, n, counters)


@kernel(entry=True)
def meter_batch(meter, batch, now):
    """Meter what came in at a time."""
    meter_in(meter, batch, now)
    return 0


@kernel(entry=True)
def meter_rows(meter, batch, selected, n, counters, now):
    """Meter what goes out at a time; -> how many are left."""
    return meter_out(meter, batch, selected, n, counters, now)


@kernel(entry=True)
def meter_batch_now(meter, batch):
    """Meter what came in now."""
    meter_rx(meter, batch)
    return 0


@kernel(entry=True)
def meter_rows_now(meter, batch, selected, n, counters):
    """Meter what goes out now; -> how many are left."""
    return meter_tx(meter, batch, selected, n, counters)
