# SPDX-License-Identifier: Apache-2.0
"""A batch from a port with stages, or out of a tunnel: its rows may belong to several networks.

Used by loop.py; uses, by its address in the plan, the unit of stages (staging.py), then decide and
deliver as for any batch, once for each run of rows with the same origin.
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence, ld64, likely, st64, unlikely
from byway.machine.system import call3
from byway.packet.batch import FLOOD, UNDECIDED, R, batch_at
from byway.packet.counters import count_drops
from byway.packet.offload import TAKES_CSUM
from byway.packet.segment import F, finish_begin, finish_next
from byway.ports.record import P, X
from byway.switch.chain import run_chain
from byway.switch.decide import decide
from byway.switch.stages import stages_at
from byway.switch.uplink import to_be_cut
from byway.worker.deliver import deliver, tell_lines
from byway.worker.out import mirror_to, send_clones
from byway.worker.plan import enter, plan_at


@kernel
def mirror_rows(plan, batch, mirrors):
    """Who is to get a copy (``mirrors``, by row) has it: of all that was not dropped."""
    b = batch_at(batch)
    passed, rows = b.passed, b.rows
    to = 0
    n = 0
    for k in range(b.n):
        row = rows + 64 * k
        mirror = ld64(mirrors + 8 * k)
        out = ld64(row + R.out)
        if unlikely(mirror != 0) and (out >= FLOOD or out == UNDECIDED):
            if mirror != to and n > 0:
                mirror_to(plan, to - 1, batch, passed, n)
                n = 0
            to = mirror
            st64(passed + 8 * n, row)
            n += 1
    if n > 0:
        mirror_to(plan, to - 1, batch, passed, n)


@kernel
def send_chained(plan, rxq, batch, chain):
    """Have a batch from a port that has a chain, and no other stage for what comes in, go through
    it; then it is to be decided as any other."""
    b = batch_at(batch)
    b.npayloads = 0
    run_chain(chain, batch)
    if unlikely(b.nclones != 0):
        send_clones(plan, batch, ld64(rxq + X.counters))


@kernel
def send_part(plan, rxq, batch, sort):
    """Have the stages look at a batch, or a part of it, then decide and deliver it run by run; ->
    destinations of the last run, which are still to be told."""
    b = batch_at(batch)
    b.npayloads = 0
    call3(plan_at(plan).rx_stages, plan, rxq, batch)
    if unlikely(b.nclones != 0):
        send_clones(plan, batch, ld64(rxq + X.counters))
    rows, origins, mirrors, n = b.rows, b.origins, b.mirrors, b.n
    lines = 0
    k = 0
    while k < n:
        if lines > 0:
            fence()
            tell_lines(plan, sort, lines)
        first = k
        word = ld64(origins + 8 * k)
        while k < n and ld64(origins + 8 * k) == word:
            k += 1
        b.rows = rows + 64 * first
        b.n = k - first
        network = enter(plan, batch, word)
        mirror_rows(plan, batch, mirrors + 8 * first)
        decide(batch, network, b.origin)
        lines = deliver(plan, rxq, batch, sort)
    b.rows = rows
    b.n = n
    return lines


@kernel
def send_cut(plan, rxq, batch, sort, row):
    """Send a row that holds many datagrams for the uplink, as what it holds; all are told."""
    b = batch_at(batch)
    left = b.offloads
    reason = finish_begin(b.cutter, row, TAKES_CSUM)
    if reason != 0:
        count_drops(b.counters, reason, 1)
        return
    lot = finish_next(b.cutter)
    while lot > 0:
        b.rows = ld64(ld64(b.cutter + F.selected))
        b.n = lot
        b.offloads = left
        lines = send_part(plan, rxq, batch, sort)
        fence()
        tell_lines(plan, sort, lines)
        lot = finish_next(b.cutter)


@kernel
def send_staged(plan, rxq, batch, sort):
    """Send a batch that came in on a port with stages; -> destinations that are still to be told.

    What an uplink gets as one large frame of many datagrams is cut first (UDP GSO), by a finisher
    of its own: delivering needs the other one. So such a batch goes in parts, in order.
    """
    b = batch_at(batch)
    b.counters = ld64(rxq + X.counters)
    uplink = stages_at(ld64(ld64(rxq + X.port) + P.stages)).uplink
    if likely(uplink == 0 or b.offloads == 0):
        return send_part(plan, rxq, batch, sort)
    rows, n, left = b.rows, b.n, b.offloads
    lines = 0
    k = 0
    while k < n:
        first = k
        while k < n and not to_be_cut(uplink, rows + 64 * k):
            k += 1
        b.offloads = left
        if k > first:
            b.rows = rows + 64 * first
            b.n = k - first
            lines = send_part(plan, rxq, batch, sort)
        if k < n:
            if lines > 0:
                fence()
                tell_lines(plan, sort, lines)
                lines = 0
            send_cut(plan, rxq, batch, sort, rows + 64 * k)
            k += 1
    b.rows = rows
    b.n = n
    return lines
