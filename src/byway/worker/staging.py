# SPDX-License-Identifier: Apache-2.0
"""The stages of ports, one after the other: a compiled unit of its own.

Used by staged.py and deliver.py, which reach it by its address in the plan; uses the stages in
switch.

    rx_stages(plan, rxq, batch)                              # frames that came in
    kept = tx_stages(stages, batch, selected, n, counters)   # frames that are to go out

Most switches have ports without stages, and their first start shall not wait for the compiler. So
this is not part of the worker's loop: it is compiled beside it (by another process, at the same
time) and loaded when a port has stages for the first time.

A batch of a trunk port, or out of a tunnel, holds frames of several networks. First it is found out
where each row belongs (BATCH.origins); then each *run*, rows in a row with the same origin, goes
through the stages of its port as a batch of its own. A stage decides (an answer, a drop) or leaves
the row undecided; the router gives rows another origin.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64
from byway.packet.batch import batch_at, origin_port, origin_word
from byway.packet.offload import check_offloads
from byway.ports.record import Kind, P, X
from byway.ports.tunnel_uplink import wrap_rows
from byway.switch.decide import learn_sources
from byway.switch.groups import groups_rx, groups_tx
from byway.switch.meter import meter_rx, meter_tx
from byway.switch.port_security import security_rx
from byway.switch.responder import responder_rx
from byway.switch.router import router_rx
from byway.switch.stages import stages_at
from byway.switch.trunk import trunk_rx, trunk_tx
from byway.switch.uplink import uplink_rx
from byway.worker.plan import enter, plan_at

_TUNNEL = int(Kind.TUNNEL)


@kernel
def find_origins(rxq, batch):
    """Which network, and which port of it, each row came from."""
    b = batch_at(batch)
    port = ld64(rxq + X.port)
    if ld64(rxq + X.kind) == _TUNNEL:  # who received them knows
        return
    word = origin_word(ld64(port + P.network), ld64(port + P.index))
    for k in range(b.n):
        st64(b.origins + 8 * k, word)
    s = stages_at(ld64(port + P.stages))
    if s.trunk != 0:
        trunk_rx(s.trunk, batch)
    if s.uplink != 0:
        uplink_rx(s.uplink, batch)


@kernel
def run_stages(stages, batch, network, port):
    """Have one run go through the stages of the port that it came from."""
    s = stages_at(stages)
    if s.meter != 0:
        meter_rx(s.meter, batch)
    if s.security != 0:
        security_rx(s.security, batch)
    if s.responder != 0 or s.router != 0:
        learn_sources(batch, network, port)
    if s.responder != 0:
        responder_rx(s.responder, batch)
    if s.groups != 0:
        groups_rx(s.groups, batch)
    if s.router != 0:
        router_rx(s.router, batch)


def rx_stages(plan, rxq, batch):
    """Find out where the rows of a batch belong, and have each run go through its stages; -> 0."""
    find_origins(rxq, batch)
    p = plan_at(plan)
    b = batch_at(batch)
    if b.offloads != 0:  # now that the frames are those that go on
        check_offloads(batch)
    rows, origins, n = b.rows, b.origins, b.n
    k = 0
    while k < n:
        first = k
        word = ld64(origins + 8 * k)
        while k < n and ld64(origins + 8 * k) == word:
            k += 1
        port = ld64(p.ports + 8 * origin_port(word))
        if port != 0 and ld64(port + P.stages) != 0:
            b.rows = rows + 64 * first
            b.origins = origins + 8 * first
            b.n = k - first
            network = enter(plan, batch, word)
            run_stages(ld64(port + P.stages), batch, network, b.origin)
    b.rows, b.origins, b.n = rows, origins, n
    return 0


def tx_stages(stages, batch, selected, n, counters):
    """Have n rows of a list go through the stages of the port that they are for; -> how many are
    left of the list."""
    s = stages_at(stages)
    if s.groups != 0:
        n = groups_tx(s.groups, batch, selected, n, counters)
    if s.meter != 0:
        n = meter_tx(s.meter, batch, selected, n, counters)
    if s.trunk != 0:
        n = trunk_tx(s.trunk, batch, selected, n, counters)
    if s.way != 0:
        n = wrap_rows(s.way, batch, selected, n)
    return n
