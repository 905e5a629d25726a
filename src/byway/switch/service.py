# SPDX-License-Identifier: Apache-2.0
"""Services: virtual machines or containers that what a port sends and gets has to pass.

Used by worker (stages of ports: ``services_own``, ``services_rx``, ``services_tx``,
``service_back``); uses population.py (whose an address is), fdb.py, decide.py. service_memory.py
makes the records.

Theory of operation
-------------------
A service is done by one or more *appliances*. Each joins two ports of the switch, its *left* and
its *right* one, as a bridge does: what goes in at one comes out at the other, with the addresses
that it had. The ports that have a service are its *inside*, all else is outside:

    inside port -> left [appliance] right -> outside         what the port sends (rx)
    inside port <- left [appliance] right <- outside         what is for it (tx)

What one inside port sends to another does not pass. A port may have several services, one behind
the other. Frames to groups (broadcast, multicast) pass on their way out; to an inside port they go
directly, as there is one of them for each port and an appliance could not tell them apart.

Where a frame belongs that comes back is said by its addresses, which the control thread knows: the
source of what comes from inside (right), the destination of what goes there (left). It goes on
behind the service: the row's origin is the port where it once came in (RETURNED_RX: its stages were
passed, but for the router), or its way ends at the inside port (RETURNED_TX: no service again). So
the forwarding database is neither asked nor taught by what comes back, and nobody learns a guest's
address on an appliance's port. These two ports are no members of their network: nothing is flooded
to them, or the appliance would close a loop.

The frames of a flow, and those of its other direction, pass the same appliance: the hash of both
ends says which of SLOTS words; in each stands an appliance that works. Of a fragment, or where the
service says so, only the addresses count. Where no appliance works (a slot is 0), frames go on
without the service, or are dropped: as the service says.

Bad guests. A port with services can send only from the addresses that it is known to have, and gets
only what is for them; what an appliance sends from or to other addresses, of its own, is dropped.
Who is inside is told by the port that a frame came in on, not by its source address.

Threads: STEPS and BACK never change: a port's word in STAGES leads to others. SERVICE changes word
by word. *Probes*, frames of the control thread that come back, are noted in BACK.heard.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    add64,
    ld16be,
    ld32be,
    ld64,
    ld64_once,
    ld64be,
    st64,
    st64_rel,
    unlikely,
    wadd64,
)
from byway.packet.batch import (
    CLONES,
    HEAD,
    MIN_FRAME,
    RETURNED_RX,
    RETURNED_TX,
    UNDECIDED,
    R,
    batch_at,
    copy_row,
    dropped,
    origin_word,
)
from byway.packet.counters import count_drops
from byway.packet.flow import mixed
from byway.packet.layers import (
    TCP,
    UDP,
    is_fragment,
    l3_of,
    l4_of,
    layers,
    protocol_of,
    version_of,
)
from byway.packet.reason import Reason
from byway.switch.decide import ETHERTYPE, GROUP_BIT, MAC_MASK, over_mtu
from byway.switch.fdb import lookup
from byway.switch.network import network_at
from byway.switch.population import remote_port

_RUNT = int(Reason.RUNT)
_OVER_MTU = int(Reason.OVER_MTU)
_DOWN = int(Reason.SERVICE_DOWN)
_ADDRESS = int(Reason.SERVICE_ADDRESS)
_STRAY = int(Reason.SERVICE_STRAY)
_PROBE = int(Reason.SERVICE_PROBE)

SLOTS = 256
MOST = 8  # services of a port
LEFT, RIGHT = 0, 1
BYPASS, ADDRESSES = 1, 2  # flags of a service
SLOT_USED = 1 << 32  # in a slot: left port number | right << 16
PROBE = 0x88B5  # Ethernet type for local experiments (IEEE 802, 9.2.4)
PROBE_BYTES = 30  # Ethernet header, the service's secret, a number

# slots: int64[SLOTS]. flags: as above. bypassed, blocked: frames that found no appliance.
SERVICE, service_at, V = record("service", ["slots", "flags", "bypassed", "blocked"])
# homes: POPULATION of the addresses of ports with services. steps: int64[], STEPS by port number.
HOMES, homes_at, H = record("homes", ["homes", "steps"])
# What a port with services has. known: HOMES. Its services, from the port outwards, are in
# ``count`` words from STEPS_FIRST on.
STEPS, steps_at, T = record("steps", ["known", "network", "port", "count"], size=8 * (4 + MOST))
STEPS_FIRST = 32
# What an appliance's port has. side: LEFT or RIGHT. secret: of probes; heard: address of the word
# in which the number of the last probe is noted.
BACK, back_at, K = record("back", ["known", "service", "side", "network", "port", "secret",
                                   "heard"])


# ---------------------------------------------------------------- who is where
@kernel
def home_of(known, network, key):
    """-> STEPS of the port that ``key`` (MAC << 16) is an address of; 0: of none with services."""
    if key & GROUP_BIT != 0:
        return 0
    port = remote_port(ld64(known + H.homes), network, key)
    return 0 if port < 0 else ld64_once(ld64(known + H.steps) + 8 * port)


@kernel
def step_of(steps, service):
    """-> which of a port's services it is, from 0 on; -1: the port does not have it."""
    found = -1
    if steps != 0:
        for k in range(ld64(steps + T.count)):
            if ld64(steps + STEPS_FIRST + 8 * k) == service:
                found = k
    return found


@kernel
def ends_hash(row, addresses):
    """-> a non-negative number, the same for the frames of a flow in both directions.
    ``addresses``: not 0 where ports are not to count."""
    head = ld64(row + R.head)
    found = layers(row)
    if found < 0 or version_of(found) == 0:
        a, b = ld64be(head) & MAC_MASK, ld64be(head + 6) & MAC_MASK
        return mixed(min(a, b), max(a, b))
    l3, l4 = l3_of(found), l4_of(found)
    protocol = protocol_of(found)
    if version_of(found) == 4:
        a, b = ld32be(head + l3 + 12), ld32be(head + l3 + 16)
    else:
        a = mixed(ld64be(head + l3 + 8), ld64be(head + l3 + 16))
        b = mixed(ld64be(head + l3 + 24), ld64be(head + l3 + 32))
    if addresses == 0 and not is_fragment(found) and (protocol == TCP or protocol == UDP) \
            and l4 + 4 <= min(ld64(row + R.len), HEAD):
        a = wadd64(a, ld16be(head + l4) << 32)
        b = wadd64(b, ld16be(head + l4 + 2) << 32)
    return mixed(min(a, b), max(a, b))


@kernel
def pass_by(service, row, side):
    """-> the number of the port, on that side of an appliance, that a frame is to go out of;
    UNDECIDED: it goes on without the service; or dropped(reason)."""
    flags = ld64_once(service + V.flags)
    slot = ends_hash(row, flags & ADDRESSES) & SLOTS - 1
    word = ld64_once(ld64(service + V.slots) + 8 * slot)
    if word != 0:
        return word >> 16 * side & 0xFFFF
    if flags & BYPASS != 0:
        add64(service + V.bypassed, 1)
        return UNDECIDED
    add64(service + V.blocked, 1)
    return dropped(_DOWN)


@kernel
def outward(steps, row, first):
    """Where a frame goes next that its port sent, and that has passed the services before number
    ``first``; as ``pass_by``, UNDECIDED where it has passed all."""
    t = steps_at(steps)
    other = home_of(t.known, t.network, ld64be(ld64(row + R.head)) & MAC_MASK)
    for k in range(first, t.count):
        service = ld64(steps + STEPS_FIRST + 8 * k)
        if step_of(other, service) >= 0:
            break
        out = pass_by(service, row, LEFT)
        if out != UNDECIDED:
            return out
    return UNDECIDED


@kernel
def inward(steps, row, last, origin):
    """Where a frame goes next that is for a port, came in on port ``origin``, and has still to pass
    the services from number ``last`` on inwards; as ``outward``."""
    t = steps_at(steps)
    other = home_of(t.known, t.network, ld64be(ld64(row + R.head) + 6) & MAC_MASK)
    if other != 0 and ld64(other + T.port) != origin:
        other = 0  # a borrowed address
    k = last
    while k >= 0:
        service = ld64(steps + STEPS_FIRST + 8 * k)
        if step_of(other, service) < 0:
            out = pass_by(service, row, RIGHT)
            if out != UNDECIDED:
                return out
        k -= 1
    return UNDECIDED


# ---------------------------------------------------------------- stages
@kernel
def services_own(steps, batch):
    """Drop what came in on a port with services from an address that is not the port's, before
    anybody learns it."""
    t = steps_at(steps)
    b = batch_at(batch)
    homes = ld64(t.known + H.homes)
    known = 0
    for k in range(b.n):
        row = b.rows + 64 * k
        if ld64(row + R.out) != UNDECIDED or ld64(row + R.len) < MIN_FRAME:
            continue
        source = ld64be(ld64(row + R.head) + 6) & MAC_MASK
        if source != known or source == 0:
            if unlikely(remote_port(homes, t.network, source) != t.port):
                st64(row + R.out, dropped(_ADDRESS))
                continue
            known = source


@kernel
def services_rx(steps, batch):
    """Send what came in on a port with services to the first of them."""
    b = batch_at(batch)
    longest = network_at(b.here).max_frame
    for k in range(b.n):
        row = b.rows + 64 * k
        if ld64(row + R.out) != UNDECIDED or ld64(row + R.len) < MIN_FRAME:
            continue  # decided, or decide drops it
        head = ld64(row + R.head)
        if unlikely(over_mtu(row, head, longest)):
            st64(row + R.out, dropped(_OVER_MTU))
        else:
            st64(row + R.out, outward(steps, row, 0))


@kernel
def services_tx(steps, batch, selected, n, counters):
    """Send those of n rows that are for a port with services to the last of them, as copies
    (BATCH.clones); -> how many are left of the list."""
    t = steps_at(steps)
    b = batch_at(batch)
    if b.returned & RETURNED_TX != 0:
        return n
    homes = ld64(t.known + H.homes)
    kept = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        key = ld64be(ld64(row + R.head)) & MAC_MASK
        out = UNDECIDED
        if key & GROUP_BIT == 0:
            if unlikely(remote_port(homes, t.network, key) != t.port):
                out = dropped(_ADDRESS)
            else:
                out = inward(steps, row, t.count - 1, b.origin)
        if out >= 0 and b.nclones >= CLONES:
            out = dropped(_DOWN)
        if out == UNDECIDED:
            st64(selected + 8 * kept, row)
            kept += 1
        elif out >= 0:
            copy = b.clones + 64 * b.nclones
            b.nclones += 1
            copy_row(row, copy)
            st64(copy + R.out, out)
        else:
            count_drops(counters, dropped(out), 1)
    return kept


@kernel
def is_probe(back, row):
    """Has a probe of ours come back? Then that is noted."""
    head = ld64(row + R.head)
    if ld16be(head + ETHERTYPE) != PROBE or ld64(row + R.len) < PROBE_BYTES \
            or ld64be(head + MIN_FRAME) != ld64(back + K.secret):
        return False
    st64_rel(ld64(back + K.heard), ld64be(head + MIN_FRAME + 8))
    return True


@kernel
def from_inside(back, row):
    """Have a frame that came back at the right go on; -> its origin word, or -1."""
    k = back_at(back)
    steps = home_of(k.known, k.network, ld64be(ld64(row + R.head) + 6) & MAC_MASK)
    step = step_of(steps, k.service)
    if step < 0:
        return -1
    st64(row + R.out, outward(steps, row, step + 1))
    return origin_word(k.network, ld64(steps + T.port)) | RETURNED_RX


@kernel
def from_outside(back, row, fdb):
    """Have a frame that came back at the left go on; -> its origin word, or -1."""
    k = back_at(back)
    head = ld64(row + R.head)
    steps = home_of(k.known, k.network, ld64be(head) & MAC_MASK)
    step = step_of(steps, k.service)
    if step < 0:
        return -1
    origin = lookup(fdb, ld64be(head + 6) & MAC_MASK)
    if origin < 0:
        origin = k.port  # nobody's, as a router's address
    out = inward(steps, row, step - 1, origin)
    st64(row + R.out, ld64(steps + T.port) if out == UNDECIDED else out)
    return origin_word(k.network, origin) | RETURNED_TX


@kernel
def service_back(back, batch):
    """Say of each row that came in on an appliance's port where it belongs (BATCH.origins), and
    where it goes next."""
    k = back_at(back)
    b = batch_at(batch)
    net = network_at(b.here)
    for j in range(b.n):
        row = b.rows + 64 * j
        if ld64(row + R.out) != UNDECIDED:
            continue
        if ld64(row + R.len) < MIN_FRAME:
            st64(row + R.out, dropped(_RUNT))
        elif over_mtu(row, ld64(row + R.head), net.max_frame):
            st64(row + R.out, dropped(_OVER_MTU))
        elif unlikely(is_probe(back, row)):
            st64(row + R.out, dropped(_PROBE))
        else:
            word = from_inside(back, row) if k.side == RIGHT else from_outside(back, row, net.fdb)
            if word == -1:
                st64(row + R.out, dropped(_STRAY))
            else:
                st64(b.origins + 8 * j, word)
