# SPDX-License-Identifier: Apache-2.0
"""Flooding: a frame to all other ports of its network, with bounded work a pass.

Used by deliver.py (frames to flood) and loop.py (the backlog's turn); uses the plan, the backlog
and the ports.

Theory of operation
-------------------
Work is counted in *units*, about what it takes to put a frame into a virtqueue (100 ns); a system
call is dearer, and so are long frames. All floods of a pass together may spend AT_ONCE: a few dozen
members, a whole batch of frames. What is left then waits in the worker's backlog, and each pass
spends another PER_PASS on it: the source whose turn it is goes on where it stopped, then the next.
Busy ports thus wait some tenths of a millisecond for a network with thousands of members, not for
as long as the flood takes. A worker with a backlog does not sleep.

Who gets a frame: the members of the network at the moment in which it was flooded. They stand in
the order of their stamps, so two numbers say it all: who joined up to ``stamp`` has it, who joined
later and up to ``until`` is still to get it. Members may leave meanwhile (they get nothing), others
join (with stamps beyond ``until``: they get nothing either), the list may be made anew, the network
may go. Nobody gets a frame twice. The frames are copies, so the source may leave as well.

Order: the frames that one source floods stay in order, because those that come while others wait
wait behind them. A frame to one port may overtake an earlier one from the same source that is
flooded and waits.

Tunnels are members like ports, so a frame goes once to each host that has a port in its network.
What came out of a tunnel goes into none (split horizon): all hosts send to all.

Drops: a frame that would have to wait, and has no room, is counted at its source
(FLOOD_BACKLOG), although some may have got it already. Whether there is anybody to flood to is
asked at the beginning.
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence, ld64, st64, unlikely
from byway.packet.batch import R, batch_at, origin_word
from byway.packet.counters import count_drops
from byway.packet.reason import Reason
from byway.ports.dispatch import tell_tx
from byway.ports.record import Kind, P, T, X
from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.network import (
    GONE,
    NETWORK,
    member_port,
    member_stamp,
    members_after,
    network_at,
)
from byway.worker.backlog import B, C, advance, backlog_at, cell_of, keep, lay_out, source_of, waits
from byway.worker.backlog import S as SOURCE
from byway.worker.out import out_tx, real_port
from byway.worker.plan import enter, plan_at

_NO_DESTINATION = int(Reason.NO_DESTINATION)
_PORT_DOWN = int(Reason.PORT_DOWN)
_FLOOD_BACKLOG = int(Reason.FLOOD_BACKLOG)
_TAP, _UDP = int(Kind.TAP), int(Kind.UDP)
_PACKET, _XDP = int(Kind.PACKET), int(Kind.XDP)
_TUNNEL = int(Kind.TUNNEL)
NETWORK_SIZE = NETWORK.itemsize

AT_ONCE = 4096  # units that the floods of a pass may spend, before what is left waits
PER_PASS = 1024  # units that a pass spends on what waits
CALL = 12  # units of a system call
UNIT_BYTES = 1024  # bytes that are copied in a unit


@kernel
def price(port, n, octets):
    """Units that it takes to deliver n frames of ``octets`` bytes together to a port."""
    kind = ld64(ld64(port + P.txqs) + T.kind)
    units = n + octets // UNIT_BYTES
    if kind == _TAP or kind == _UDP:
        units += CALL * n
    elif kind == _PACKET or kind == _XDP:
        units += CALL
    elif kind == _TUNNEL:
        units += CALL + CALL // 2 * n
    return units


@kernel
def gets(member, own):
    """Does a member of the network (GONE: none) get what port ``own`` floods?"""
    return member != GONE and member != own and (member < FIRST_TUNNEL or own < FIRST_TUNNEL)


@kernel
def spread(plan, network, own, stamp, until, batch, selected, n):
    """Deliver n rows to the members that joined after ``stamp`` and up to ``until``, but for port
    ``own``, as long as there are units to spend; -> the stamp of the last who has them, ``until``
    where all have."""
    p = plan_at(plan)
    b = backlog_at(p.backlog)
    net = network_at(network)
    members, count = net.members, net.nmembers
    octets = 0
    for k in range(n):
        octets += ld64(ld64(selected + 8 * k) + R.len)
    k = members_after(members, count, stamp)
    while k < count:
        entry = ld64(members + 8 * k)
        if member_stamp(entry) > until:
            break
        member = member_port(entry)
        if member != GONE:
            if b.spare <= 0:
                return stamp
            b.spare -= 1
            destination = ld64(p.ports + 8 * member)
            if gets(member, own) and destination != 0:
                out_tx(plan, destination, batch, selected, n)
                fence()
                tell_tx(real_port(destination))
                b.spare -= price(destination, n, octets)
            stamp = member_stamp(entry)
        k += 1
    return until


@kernel
def nobody(plan, network, own):
    """Why there is nobody to flood to: a drop reason, 0 where there is somebody."""
    ports = plan_at(plan).ports
    net = network_at(network)
    reason = _NO_DESTINATION
    for k in range(net.nmembers):
        member = member_port(ld64(net.members + 8 * k))
        if gets(member, own):
            if ld64(ports + 8 * member) != 0:
                return 0
            reason = _PORT_DOWN
    return reason


@kernel
def last_stamp(network):
    """The stamp of the member that joined last (there is one)."""
    net = network_at(network)
    k = net.nmembers - 1
    while member_port(ld64(net.members + 8 * k)) == GONE:
        k -= 1
    return member_stamp(ld64(net.members + 8 * k))


@kernel
def flood(plan, rxq, batch, selected, n):
    """Deliver n rows to every other port of the network and notify them, now or later."""
    p = plan_at(plan)
    b = batch_at(batch)
    own, number = b.origin, b.network
    network = p.networks + NETWORK_SIZE * number
    reason = nobody(plan, network, own)
    if unlikely(reason != 0):
        count_drops(ld64(rxq + X.counters), reason, n)
        return
    until = last_stamp(network)
    stamp = 0
    if not waits(p.backlog, own):
        stamp = spread(plan, network, own, 0, until, batch, selected, n)
    if stamp < until:
        for k in range(n):
            if not keep(p.backlog, own, number, stamp, until, ld64(selected + 8 * k)):
                count_drops(ld64(rxq + X.counters), _FLOOD_BACKLOG, n - k)
                break


@kernel
def may_spend(plan, units):
    """The floods that come may spend so much at once."""
    st64(plan_at(plan).backlog + B.spare, units)


@kernel
def flood_on(plan, batch, units):
    """Spend ``units`` on what waits; -> False where nothing did."""
    p = plan_at(plan)
    b = backlog_at(p.backlog)
    if b.first == 0:
        return False
    b.spare = units
    while b.spare > 0 and b.first != 0:
        own = b.first - 1
        frame = cell_of(p.backlog, ld64(source_of(p.backlog, own) + SOURCE.first))
        network = enter(plan, batch, origin_word(ld64(frame + C.network), own))
        stamp, until = ld64(frame + C.stamp), ld64(frame + C.until)
        n = lay_out(p.backlog, own, batch)
        stamp = spread(plan, network, own, stamp, until, batch, b.selected, n)
        advance(p.backlog, own, n, stamp)
    return True
