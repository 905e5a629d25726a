# SPDX-License-Identifier: Apache-2.0
"""The stages of trunks, meters and uplinks one by one, as tests call them: cached entries of int64
arguments.

Used by tests of switch.trunk, switch.meter, switch.uplink, ports.tunnel_uplink, packet.reshape and
packet.row_sum; see the function that each one calls.
"""

from byway.machine.jit import kernel
from byway.packet.reshape import insert, shorten, strip
from byway.packet.row_sum import sum_row
from byway.ports.tunnel_uplink import wrap_rows
from byway.switch.meter import meter_in, meter_out, meter_rx, meter_tx
from byway.switch.trunk import trunk_rx, trunk_tx
from byway.switch.uplink import uplink_rx


@kernel(entry=True)
def strip_row(row, at, n):
    """Take n bytes out of a row."""
    strip(row, at, n)
    return 0


@kernel(entry=True)
def shorten_row(row, n):
    """Leave the first n bytes of a row."""
    shorten(row, n)
    return 0


@kernel(entry=True)
def sum_of_row(row, start, n):
    """-> the sum over n bytes of a row."""
    return sum_row(row, start, n)


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


@kernel(entry=True)
def uplink_in(uplink, batch):
    """Take out of a batch what is for the uplink."""
    uplink_rx(uplink, batch)
    return 0


@kernel(entry=True)
def wrap_selected(way, batch, selected, n):
    """Make packets to a tunnel's host of selected rows; -> how many."""
    return wrap_rows(way, batch, selected, n)
