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
the row undecided; the router gives rows another origin. Who is to get copies of a row goes by where
it came from, so that is noted before (BATCH.mirrors). A run that comes back from a service was here
before: it goes on behind the services.

Control changes the fields of a port's STAGES while a worker goes by them: each is read once.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, ld64_once, st64
from byway.packet.batch import RETURNED_RX, RETURNED_TX, batch_at, origin_port, origin_word
from byway.packet.offload import check_offloads
from byway.ports.record import Kind, P, X
from byway.ports.tunnel_uplink import wrap_rows
from byway.switch.chain import chain_out, run_chain
from byway.switch.decide import learn_sources
from byway.switch.groups import groups_rx, groups_tx
from byway.switch.meter import meter_rx, meter_tx
from byway.switch.port_security import security_rx
from byway.switch.responder import responder_rx
from byway.switch.router import router_rx
from byway.switch.service import service_back, services_own, services_rx, services_tx
from byway.switch.stages import S
from byway.switch.trunk import trunk_rx, trunk_tx
from byway.switch.uplink import uplink_rx
from byway.worker.plan import enter, plan_at

_TUNNEL = int(Kind.TUNNEL)


@kernel
def find_origins(plan, rxq, batch):
    """Which network, and which port of it, each row came from."""
    b = batch_at(batch)
    port = ld64(rxq + X.port)
    if ld64(rxq + X.kind) == _TUNNEL:  # who received them knows
        return
    word = origin_word(ld64(port + P.network), ld64(port + P.index))
    for k in range(b.n):
        st64(b.origins + 8 * k, word)
    stages = ld64(port + P.stages)
    trunk, uplink = ld64_once(stages + S.trunk), ld64_once(stages + S.uplink)
    if trunk != 0:
        trunk_rx(trunk, batch)
    if uplink != 0:
        uplink_rx(uplink, batch)
    service = ld64_once(stages + S.service)
    if service != 0:
        enter(plan, batch, word)
        service_back(service, batch)


@kernel
def run_stages(stages, batch, network, port):
    """Have one run go through the stages of the port that it came from."""
    meter, security = ld64_once(stages + S.meter), ld64_once(stages + S.security)
    responder, groups = ld64_once(stages + S.responder), ld64_once(stages + S.groups)
    router, chain = ld64_once(stages + S.router), ld64_once(stages + S.chain_rx)
    services = ld64_once(stages + S.services)
    if meter != 0:
        meter_rx(meter, batch)
    if security != 0:
        security_rx(security, batch)
    if services != 0:
        services_own(services, batch)
    if responder != 0 or router != 0 or services != 0:
        learn_sources(batch, network, port)
    if responder != 0:
        responder_rx(responder, batch)
    if groups != 0:
        groups_rx(groups, batch)
    if chain != 0:
        run_chain(chain, batch)
    if services != 0:
        services_rx(services, batch)
    if router != 0:
        router_rx(router, batch)


@kernel
def run_rest(stages, batch):
    """Have one run that comes back from a service go through what stands behind the services."""
    router = ld64_once(stages + S.router)
    if router != 0:
        router_rx(router, batch)


def rx_stages(plan, rxq, batch):
    """Find out where the rows of a batch belong, and have each run go through its stages; -> 0."""
    find_origins(plan, rxq, batch)
    p = plan_at(plan)
    b = batch_at(batch)
    if b.offloads != 0:  # now that the frames are those that go on
        check_offloads(batch)
    rows, origins, mirrors, n = b.rows, b.origins, b.mirrors, b.n
    k = 0
    while k < n:
        first = k
        word = ld64(origins + 8 * k)
        while k < n and ld64(origins + 8 * k) == word:
            k += 1
        port = ld64(p.ports + 8 * origin_port(word))
        stages = ld64_once(port + P.stages) if port != 0 else 0
        returned = word & (RETURNED_RX | RETURNED_TX)
        mirror = ld64_once(stages + S.mirror_rx) if stages != 0 and returned == 0 else 0
        for j in range(first, k):
            st64(mirrors + 8 * j, mirror)
        if stages != 0:
            b.rows = rows + 64 * first
            b.origins = origins + 8 * first
            b.mirrors = mirrors + 8 * first
            b.n = k - first
            network = enter(plan, batch, word)
            if returned == 0:
                run_stages(stages, batch, network, b.origin)
            else:
                run_rest(stages, batch)
    b.rows, b.origins, b.mirrors, b.n = rows, origins, mirrors, n
    return 0


def tx_stages(stages, batch, selected, n, counters):
    """Have n rows of a list go through the stages of the port that they are for; -> how many are
    left of the list. Copies (BATCH.bare) only get what leads them there: a tag, outer headers."""
    bare = batch_at(batch).bare
    groups, meter = ld64_once(stages + S.groups), ld64_once(stages + S.meter)
    trunk, way = ld64_once(stages + S.trunk), ld64_once(stages + S.way)
    chain, services = ld64_once(stages + S.chain_tx), ld64_once(stages + S.services)
    if services != 0 and bare == 0:
        n = services_tx(services, batch, selected, n, counters)
    if chain != 0 and bare == 0:
        n = chain_out(chain, batch, selected, n, counters)
    if groups != 0 and bare == 0:
        n = groups_tx(groups, batch, selected, n, counters)
    if meter != 0 and bare == 0:
        n = meter_tx(meter, batch, selected, n, counters)
    if trunk != 0:
        n = trunk_tx(trunk, batch, selected, n, counters)
    if way != 0:
        n = wrap_rows(way, batch, selected, n)
    return n
