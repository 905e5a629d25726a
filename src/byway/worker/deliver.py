# SPDX-License-Identifier: Apache-2.0
"""Delivering a decided batch: rows are grouped by destination, one port_tx for each group.

Used by loop.py and staged.py. A group costs one publication and at most one notification, so
grouping is what makes many destinations cheap: the sort is linear in the rows, however many ports
there are.

Order: frames to one destination stay in order. A batch with a frame to flood is delivered in runs
of equal destinations instead, so that flooded and directed frames do not overtake each other, as
long as the flood does not have to wait (flood.py).
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence, ld64, likely, st64, unlikely
from byway.packet.batch import FLOOD, ROWS, UNDECIDED, R, batch_at, dropped
from byway.packet.counters import count_drops
from byway.packet.reason import Reason
from byway.ports.dispatch import tell_tx
from byway.ports.record import X
from byway.worker.flood import flood
from byway.worker.out import out_tx, real_port
from byway.worker.plan import plan_at

_PORT_DOWN = int(Reason.PORT_DOWN)

# Where a worker sorts: selected is int64[ROWS + 1][ROWS], one group of row addresses for each
# destination (the last for what was dropped), then counts and destinations, int64[ROWS] each.
GROUP = 8 * ROWS
COUNTS = GROUP * (ROWS + 1)
DESTINATIONS = COUNTS + 8 * ROWS
SORT_BYTES = DESTINATIONS + 8 * ROWS


@kernel
def send(plan, rxq, out, batch, selected, n):
    """Deliver n rows to port number ``out``; is it down, they are dropped, counted at ``rxq``."""
    destination = ld64(plan_at(plan).ports + 8 * out)
    if unlikely(destination == 0):
        count_drops(ld64(rxq + X.counters), _PORT_DOWN, n)
    else:
        out_tx(plan, destination, batch, selected, n)


@kernel
def tell(plan, out):
    """Notify port number ``out`` of what was delivered. After a full fence."""
    destination = ld64(plan_at(plan).ports + 8 * out)
    if destination != 0:
        tell_tx(real_port(destination))


@kernel
def deliver_runs(plan, rxq, batch, sort):
    """Deliver in runs of equal destinations (a batch with frames to flood)."""
    b = batch_at(batch)
    k = 0
    while k < b.n:
        out = ld64(b.rows + 64 * k + R.out)
        n = 0
        while k < b.n and ld64(b.rows + 64 * k + R.out) == out:
            st64(sort + 8 * n, b.rows + 64 * k)
            n += 1
            k += 1
        if out >= 0:
            send(plan, rxq, out, batch, sort, n)
            fence()
            tell(plan, out)
        elif out == FLOOD:
            flood(plan, rxq, batch, sort, n)
        else:
            count_drops(ld64(rxq + X.counters), dropped(out), n)


@kernel
def group(plan, batch, sort):
    """Sort the rows by destination; -> destinations, or -1 where there is something to flood.

    groups[out] is 1 + the line of ``out`` while it has one.
    """
    groups = plan_at(plan).groups
    b = batch_at(batch)
    rows, n = b.rows, b.n
    lines = 0
    line = 0  # of the current run, with its length so far
    length = 0
    current = UNDECIDED  # no decided row has it: the first row begins a run, FLOOD as well
    first = ld64(rows + R.out)
    if likely(first >= 0 and n > 0):  # a batch goes, mostly, to one destination
        while length < n and ld64(rows + 64 * length + R.out) == first:
            st64(sort + 8 * length, rows + 64 * length)
            length += 1
        st64(groups + 8 * first, 1)
        st64(sort + DESTINATIONS, first)
        current = first
        lines = 1
    for k in range(length, n):
        row = rows + 64 * k
        out = ld64(row + R.out)
        if unlikely(out != current):
            if current >= 0:
                st64(sort + COUNTS + 8 * line, length)
            current = out
            if unlikely(out < 0):
                if out == FLOOD:
                    clear(groups, sort, lines)
                    return -1
                continue
            line = ld64(groups + 8 * out) - 1
            length = 0
            if line < 0:
                line = lines
                lines += 1
                st64(groups + 8 * out, line + 1)
                st64(sort + DESTINATIONS + 8 * line, out)
            else:
                length = ld64(sort + COUNTS + 8 * line)
        if out >= 0:
            st64(sort + GROUP * line + 8 * length, row)
            length += 1
    if current >= 0:
        st64(sort + COUNTS + 8 * line, length)
    return lines


@kernel
def clear(groups, sort, lines):
    """Forget the destinations of a batch."""
    for line in range(lines):
        st64(groups + 8 * ld64(sort + DESTINATIONS + 8 * line), 0)


@kernel
def count_dropped(rxq, batch):
    """Count the rows that carry a drop reason, at a queue of the port that they came from."""
    b = batch_at(batch)
    for k in range(b.n):
        out = ld64(b.rows + 64 * k + R.out)
        if out < FLOOD:
            count_drops(ld64(rxq + X.counters), dropped(out), 1)


@kernel
def deliver(plan, rxq, batch, sort):
    """Deliver every row of a batch that came in on ``rxq``, or count why not.

    -> destinations that are to be told (``tell_lines``).
    """
    lines = group(plan, batch, sort)
    if unlikely(lines < 0):
        deliver_runs(plan, rxq, batch, sort)
        return 0
    total = 0
    for line in range(lines):
        n = ld64(sort + COUNTS + 8 * line)
        send(plan, rxq, ld64(sort + DESTINATIONS + 8 * line), batch, sort + GROUP * line, n)
        total += n
    clear(plan_at(plan).groups, sort, lines)
    if unlikely(total < batch_at(batch).n):
        count_dropped(rxq, batch)
    return lines


@kernel
def tell_lines(plan, sort, lines):
    """Notify the destinations of a batch. After a full fence."""
    for line in range(lines):
        tell(plan, ld64(sort + DESTINATIONS + 8 * line))
