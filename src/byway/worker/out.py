# SPDX-License-Identifier: Apache-2.0
"""Out of the switch: rows to one port, through its stages where it has any.

Used by deliver.py and flood.py; uses ports (delivering) and, by their address in the plan, the
stages of staging.py.

Stages may drop rows, or put others in their place; the list that they are given is a private one,
because whoever floods goes on with the same rows to the next port. Where several workers deliver to
a port, its first tx queue's lock is held for the stages: the counters are that queue's.

A mirror's copies, and those that network functions make, go without the stages of the port that
gets them, so they make no loops; but where it is a trunk's sub-port, or a tunnel, they do get the
tag, or the outer headers, without which they would be somebody else's frames.
"""

from byway.machine.jit import kernel
from byway.machine.lock import acquire
from byway.machine.mem import add64, fence, ld64, likely, st64, st64_rel, unlikely
from byway.machine.system import call5
from byway.packet.batch import B, R, batch_at
from byway.packet.counters import C, count_drops
from byway.packet.reason import Reason
from byway.packet.segment import F, finish_begin, finish_next
from byway.ports.dispatch import tell_tx
from byway.ports.record import P, T, port_at
from byway.ports.tx import port_tx
from byway.switch.stages import stages_at
from byway.worker.plan import plan_at

_PORT_DOWN = int(C.drops) + 8 * int(Reason.PORT_DOWN)  # where they are counted


@kernel
def real_port(destination):
    """The PORT whose queues the frames for a PORT go to."""
    stages = ld64(destination + P.stages)
    if likely(stages == 0):
        return destination
    parent = stages_at(stages).parent
    return parent if parent != 0 else destination


@kernel
def mirror_to(plan, number, batch, selected, n):
    """Have port ``number`` get a copy of n rows, and know of it."""
    destination = ld64(plan_at(plan).ports + 8 * number)
    if destination != 0 and n > 0:
        port_tx(destination, batch, selected, n)
        fence()
        tell_tx(destination)


@kernel
def through_stages(plan, destination, batch, selected, n):
    """Have n rows of a private list go through the tx stages of a port; -> how many are left."""
    p = port_at(destination)
    lock = p.txqs + T.lock
    if p.shared != 0:
        acquire(lock)
    kept = call5(plan_at(plan).tx_stages, p.stages, batch, selected, n, ld64(p.txqs + T.counters))
    if p.shared != 0:
        st64_rel(lock, 0)
    return kept


@kernel
def led_tx(plan, destination, batch, selected, n):
    """Deliver n rows of a private list by the way that leads to a port: a trunk's tag, a tunnel's
    outer headers."""
    b = batch_at(batch)
    b.bare = 1
    kept = through_stages(plan, destination, batch, selected, n)
    b.bare = 0
    port_tx(real_port(destination), batch, selected, kept)


@kernel
def send_clone(plan, destination, batch, selected):
    """Deliver one copy, the only row of a private list, past the stages of its port."""
    stages = ld64(destination + P.stages)
    if likely(stages == 0 or (stages_at(stages).trunk == 0 and stages_at(stages).way == 0)):
        port_tx(destination, batch, selected, 1)
    elif stages_at(stages).way == 0 or ld64(ld64(selected) + R.offload) == 0:
        led_tx(plan, destination, batch, selected, 1)
    else:  # on a frame that gets outer headers nothing may be left to do
        finisher = batch_at(batch).finisher
        reason = finish_begin(finisher, ld64(selected), 0)
        if reason != 0:
            count_drops(ld64(port_at(destination).txqs + T.counters), reason, 1)
        else:
            lot = finish_next(finisher)
            while lot > 0:
                led_tx(plan, destination, batch, ld64(finisher + F.selected), lot)
                lot = finish_next(finisher)
    fence()
    tell_tx(real_port(destination))


@kernel
def send_clones(plan, batch, counters):
    """Have ports get the copies that network functions made of frames. Those for a port that is not
    there are counted as drops (several workers may do so)."""
    b = batch_at(batch)
    n = b.nclones
    b.nclones = 0
    for k in range(n):
        b.clone = b.clones + 64 * k
        destination = ld64(plan_at(plan).ports + 8 * ld64(b.clone + R.out))
        if unlikely(destination == 0):
            add64(counters + _PORT_DOWN, 1)
        else:
            send_clone(plan, destination, batch, batch + B.clone)


@kernel
def staged_tx(plan, destination, batch, selected, n):
    """Deliver what the stages of a port leave of n rows."""
    p = port_at(destination)
    passed = batch_at(batch).passed
    for k in range(n):
        st64(passed + 8 * k, ld64(selected + 8 * k))
    kept = through_stages(plan, destination, batch, passed, n)
    if kept > 0:
        mirror = stages_at(p.stages).mirror_tx
        if mirror != 0:
            mirror_to(plan, mirror - 1, batch, passed, kept)
        port_tx(real_port(destination), batch, passed, kept)
    if unlikely(batch_at(batch).nclones != 0):  # after the rows, which may lie where copies will
        send_clones(plan, batch, ld64(p.txqs + T.counters))


@kernel
def finished_tx(plan, destination, batch, selected, n):
    """As ``staged_tx``, for a tunnel over an uplink: on a frame that gets outer headers nothing may
    be left to do, so that is done before (packet.segment)."""
    finisher = batch_at(batch).finisher
    k = 0
    while k < n:
        first = k
        while k < n and ld64(ld64(selected + 8 * k) + R.offload) == 0:
            k += 1
        if k > first:
            staged_tx(plan, destination, batch, selected + 8 * first, k - first)
        if k < n:
            reason = finish_begin(finisher, ld64(selected + 8 * k), 0)
            if reason != 0:
                count_drops(ld64(port_at(destination).txqs + T.counters), reason, 1)
            else:
                lot = finish_next(finisher)
                while lot > 0:
                    staged_tx(plan, destination, batch, ld64(finisher + F.selected), lot)
                    lot = finish_next(finisher)
            k += 1


@kernel
def out_tx(plan, destination, batch, selected, n):
    """Deliver n rows to the PORT at ``destination``; what it does not take is counted there."""
    stages = ld64(destination + P.stages)
    if likely(stages == 0):
        port_tx(destination, batch, selected, n)
    elif batch_at(batch).offloads != 0 and stages_at(stages).way != 0:
        finished_tx(plan, destination, batch, selected, n)
    else:
        staged_tx(plan, destination, batch, selected, n)
