# SPDX-License-Identifier: Apache-2.0
"""Delivering to a port: spread over its tx queues, finished where the peer cannot, one at a time.

Used by worker; uses dispatch.py for the queues, packet's choice by flow and finisher.

Theory of operation
-------------------
Three layers, each skipped where there is nothing for it to do.

``port_tx`` spreads: with several tx queues each frame goes to the one that its flow names,
so the order within a flow is kept, whichever rx queue it came from.

``locked_tx`` makes the queue ours: with several workers a lock is held for one batch.

``fitting_tx`` fits: a frame whose checksum or segmentation its sender left to be done passes as it
is where the peer takes that; else it is finished in software, in private memory (packet.segment).
"""

from byway.machine.jit import kernel
from byway.machine.lock import acquire
from byway.machine.mem import ld64, st64, st64_rel, unlikely
from byway.packet.batch import SPREAD_COUNTS, SPREAD_LIST, batch_at
from byway.packet.counters import count_drops
from byway.packet.flow import flow_queue
from byway.packet.offload import takes
from byway.packet.reason import Reason
from byway.packet.segment import F, finish_begin, finish_next, finisher_at
from byway.ports.dispatch import TXQ_SIZE, after_tx, queue_tx
from byway.ports.record import P, T, port_at

_NO_BUFFERS = int(Reason.NO_BUFFERS)


@kernel
def finished_tx(port, txq, batch, row):
    """Deliver one frame that has to be finished first; -> frames that it became."""
    finisher = batch_at(batch).finisher
    reason = finish_begin(finisher, row, ld64(txq + T.takes))
    if reason != 0:
        count_drops(ld64(txq + T.counters), reason, 1)
        return 0
    sent = 0
    while True:
        n = finish_next(finisher)
        if n == 0:
            return sent
        taken = queue_tx(port, txq, batch, ld64(finisher + F.selected), n)
        sent += taken
        if taken == 0:  # no use in cutting the rest
            f = finisher_at(finisher)
            if f.left > 0:
                count_drops(ld64(txq + T.counters), _NO_BUFFERS, (f.left + f.size - 1) // f.size)
            return sent


@kernel
def fitting_tx(port, txq, batch, selected, n):
    """Deliver n rows, of which some may have to be finished first; -> delivered."""
    mask = ld64(txq + T.takes)
    sent = 0
    k = 0
    while k < n:
        first = k
        while k < n and takes(ld64(selected + 8 * k), mask):
            k += 1
        if k > first:
            sent += queue_tx(port, txq, batch, selected + 8 * first, k - first)
        if k < n:
            sent += finished_tx(port, txq, batch, ld64(selected + 8 * k))
            k += 1
    return sent


@kernel
def locked_tx(port, txq, batch, selected, n):
    """Deliver n rows to one tx queue; -> delivered, the others are counted."""
    shared = ld64(port + P.shared) != 0
    if shared:
        acquire(txq + T.lock)
    sent = 0
    if unlikely(batch_at(batch).offloads != 0):
        sent = fitting_tx(port, txq, batch, selected, n)
    else:
        sent = queue_tx(port, txq, batch, selected, n)
    after_tx(port, txq)
    if shared:
        st64_rel(txq + T.lock, 0)
    return sent


@kernel(inline=True)
def add_row(room, q, row):
    """List a row as one that goes to queue q."""
    count = ld64(room + SPREAD_COUNTS + 8 * q)
    st64(room + SPREAD_LIST * q + 8 * count, row)
    st64(room + SPREAD_COUNTS + 8 * q, count + 1)


@kernel
def spread_tx(port, batch, selected, n):
    """Deliver n rows over a port's several tx queues; -> delivered."""
    p = port_at(port)
    ntx, txqs = p.ntx, p.txqs
    if unlikely(n == 0):
        return 0
    first = flow_queue(ld64(selected), ntx)
    same = 1  # rows that go to the same queue as the first
    while same < n and flow_queue(ld64(selected + 8 * same), ntx) == first:
        same += 1
    if same == n:  # a burst of one flow, or of flows that share a queue: nothing to list
        return locked_tx(port, txqs + TXQ_SIZE * first, batch, selected, n)
    room = batch_at(batch).spread
    for k in range(same):
        add_row(room, first, ld64(selected + 8 * k))
    for k in range(same, n):
        row = ld64(selected + 8 * k)
        add_row(room, flow_queue(row, ntx), row)
    sent = 0
    for q in range(ntx):
        count = ld64(room + SPREAD_COUNTS + 8 * q)
        if count > 0:
            st64(room + SPREAD_COUNTS + 8 * q, 0)
            sent += locked_tx(port, txqs + TXQ_SIZE * q, batch, room + SPREAD_LIST * q, count)
    return sent


@kernel
def port_tx(port, batch, selected, n):
    """Deliver the n rows listed at ``selected``; -> frames delivered, the others are counted."""
    p = port_at(port)
    if p.ntx == 1:
        return locked_tx(port, p.txqs, batch, selected, n)
    return spread_tx(port, batch, selected, n)
