# SPDX-License-Identifier: Apache-2.0
"""A turn of a hot rx queue: one batch, to wherever its frames go.

Used by loop.py; uses ports (dispatch), switch (decide) and deliver.py.

A batch is shared by the hot queues of one port, those that this worker serves: what is paid for
each batch, and above all for each destination in it, is paid once for eight frames from each of
four queues, as for 32 from one. What came from which queue is its share: each gets its own buffers
back. A queue that was looked at has had its turn in this pass, unless there was room for a part
only of what it has.
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence, ld64, ld64_once, st64, unlikely
from byway.packet.batch import ROWS, SEGMENTS, R, batch_at, clear, look, origin_word, set_row
from byway.packet.offload import check_offloads
from byway.ports.dispatch import queue_give_back, queue_rx, tell_rx
from byway.ports.record import P, X
from byway.switch.decide import decide
from byway.switch.fdb import CLOCK_SHIFT
from byway.switch.stages import S
from byway.virtio.borrow import MAX_OCTETS, MAX_PIECES
from byway.worker.deliver import deliver, tell_lines
from byway.worker.plan import HOT, enter, plan_at
from byway.worker.record import (
    HOT_ENTRY,
    HOT_GAVE,
    HOT_PASS,
    SHARE,
    SHARE_FIRST,
    SHARE_ROWS,
    C,
    worker_at,
)
from byway.worker.staged import send_chained, send_staged

ENOUGH = ROWS * 3 // 4  # a batch with so many rows is not worth another look


@kernel
def has_room(batch):
    """Is there room for what another queue may have, a few frames at least of whatever kind?"""
    b = batch_at(batch)
    return (b.n < ENOUGH and b.nsegs <= SEGMENTS // 2 and b.octets <= MAX_OCTETS // 2
            and b.made <= MAX_PIECES // 2)


@kernel
def send_batch(worker, rxq, now):
    """Look at the batch that came in on ``rxq`` (and its siblings), decide, deliver; ->
    destinations to be told."""
    w = worker_at(worker)
    batch = w.batch
    b = batch_at(batch)
    b.ticks = now
    b.now = now >> CLOCK_SHIFT
    look(batch)
    port = ld64(rxq + X.port)
    stages = ld64(port + P.stages)
    chain = 0
    if unlikely(stages != 0):
        chain = ld64_once(stages + S.alone)
        if chain == 0:
            return send_staged(w.plan, rxq, batch, w.sort)
    if unlikely(b.offloads != 0):
        check_offloads(batch)
    network = enter(w.plan, batch, origin_word(ld64(port + P.network), ld64(port + P.index)))
    if unlikely(chain != 0):
        send_chained(w.plan, rxq, batch, chain)
    decide(batch, network, b.origin)
    return deliver(w.plan, rxq, batch, w.sort)


@kernel
def send_one(worker, now):
    """Send the control thread's frame."""
    w = worker_at(worker)
    rxq = ld64(w.control + C.origin)
    clear(w.batch)
    b = batch_at(w.batch)
    b.n = 1
    set_row(b.rows, ld64(w.control + C.frame), ld64(w.control + C.length))
    if ld64(w.control + C.out) != 0:
        st64(b.rows + R.out, ld64(w.control + C.out) - 1)
    lines = send_batch(worker, rxq, now)
    fence()
    tell_lines(w.plan, w.sort, lines)
    st64(w.control + C.length, 0)


@kernel
def take(worker, entry, now):
    """Take what a hot queue has, as far as there is room in the batch."""
    w = worker_at(worker)
    rxq = ld64(entry)
    first = batch_at(w.batch).n
    n = queue_rx(rxq, w.batch)
    if n > 0:
        st64(entry + HOT_GAVE, now)
        share = w.shares + SHARE * w.nshares
        st64(share, rxq)
        st64(share + SHARE_FIRST, first)
        st64(share + SHARE_ROWS, n)
        w.nshares += 1


@kernel
def take_siblings(worker, entry, now):
    """Take what the other hot queues of the same port have, if they have not had their turn. One
    that fills the batch still has it before it."""
    w = worker_at(worker)
    states = plan_at(w.plan).state
    sibling = ld64(ld64(entry) + X.sibling)
    while sibling != ld64(entry) and has_room(w.batch):
        state = ld64(states + 8 * ld64(sibling + X.number))
        if state >= HOT:
            other = w.hot + HOT_ENTRY * (state - HOT)
            if ld64(other + HOT_PASS) != w.passes:
                take(worker, other, now)
                if batch_at(w.batch).n < ROWS:
                    st64(other + HOT_PASS, w.passes)
        sibling = ld64(sibling + X.sibling)


@kernel
def serve(worker, entry, now):
    """One batch from the rx queue of a hot entry, and from its siblings, to wherever it goes; ->
    rows."""
    w = worker_at(worker)
    clear(w.batch)
    w.nshares = 0
    st64(entry + HOT_PASS, w.passes)
    take(worker, entry, now)
    if unlikely(ld64(ld64(entry) + X.sibling) != 0):
        take_siblings(worker, entry, now)
    if w.nshares == 0:
        return 0
    n = batch_at(w.batch).n
    lines = send_batch(worker, ld64(w.shares), now)
    for k in range(w.nshares):
        share = w.shares + SHARE * k
        queue_give_back(ld64(share), w.batch, ld64(share + SHARE_FIRST), ld64(share + SHARE_ROWS))
    fence()  # one for all that is told now
    for k in range(w.nshares):
        tell_rx(ld64(w.shares + SHARE * k))
    tell_lines(w.plan, w.sort, lines)
    w.gave += w.nshares
    return n
