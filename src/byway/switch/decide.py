# SPDX-License-Identifier: Apache-2.0
"""Deciding about a batch: check, learn, look up. Each frame gets an output port, or a reason.

Used by worker (one call a batch, between look and deliver). Works on the rows' private heads only,
so that no guest can change what was checked.

Consecutive frames of a batch mostly share their addresses: a source is learned, and a destination
looked up, once for a run of frames with the same one.

Where an address is that no port of this host has, the population says, and where it does not, what
was learned from tunnels. The population is large, and a batch's destinations may be all over it: so
its lines are asked for, for the whole batch, before the first row is decided.

What comes out of a tunnel is learned from only where the network learns, and not against the
population; and a source address that a guest of this host has is not believed.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld16be, ld64, ld64be, shr64, st64, unlikely
from byway.packet.batch import FLOOD, MIN_FRAME, UNDECIDED, R, batch_at, dropped
from byway.packet.ethernet import MAX_TAGS, VLAN_TAG
from byway.packet.offload import wire_length
from byway.packet.reason import Reason
from byway.switch.events import LEARNED, MOVED, tell
from byway.switch.fdb import FIRST_TUNNEL, NEW, SAME, learn, lookup
from byway.switch.network import DROP_UNKNOWN, LEARNING, network_at
from byway.switch.population import remote_near, remote_port

_RUNT = int(Reason.RUNT)
_OVER_MTU = int(Reason.OVER_MTU)
_BAD_SOURCE = int(Reason.BAD_SOURCE)
_RESERVED = int(Reason.RESERVED)
_SAME_PORT = int(Reason.SAME_PORT)
_LOCAL_MAC = int(Reason.LOCAL_MAC)
_UNKNOWN_UNICAST = int(Reason.UNKNOWN_UNICAST)

GROUP_BIT = 1 << 56  # of MAC << 16 in an int64: the first bit on the wire (IEEE 802, 8.2)
MAC_MASK = ~0xFFFF
RESERVED_FIRST = 0x0180C2000000 << 16  # 01-80-C2-00-00-00 to -0F (IEEE 802.1Q, table 8-1)
RESERVED_MASK = ~0xFFFFF
ETHERTYPE = 12
TPID_C, TPID_S = 0x8100, 0x88A8


@kernel
def over_mtu(row, head, longest):
    """Is a frame longer than ``longest`` too long even with its VLAN tags (at most MAX_TAGS)?

    What counts is how long it is on the wire, once it is cut into segments.
    """
    length = wire_length(row)
    allowed = longest
    at = head + ETHERTYPE
    for _ in range(MAX_TAGS):
        kind = ld16be(at)
        if kind != TPID_C and kind != TPID_S:
            break
        allowed += VLAN_TAG
        at += VLAN_TAG
    return length > allowed


@kernel
def from_tunnel(network, source, tunnel, now):
    """A frame with this source came out of a tunnel: learn where it is, if the network learns; ->
    False where the address is a local guest's."""
    net = network_at(network)
    if net.population != 0:
        told = remote_port(net.population, net.number, source)
        if told >= 0:
            return told >= FIRST_TUNNEL
    if net.flags & LEARNING != 0:
        learn(net.fdb, source, tunnel, now)
        return True
    found = lookup(net.fdb, source)
    return found < 0 or found >= FIRST_TUNNEL


@kernel
def route(network, destination, port):
    """Where frames for ``destination`` (MAC << 16) go: a port, FLOOD, or dropped(reason)."""
    net = network_at(network)
    if destination & GROUP_BIT != 0:
        if unlikely(destination & RESERVED_MASK == RESERVED_FIRST):
            return dropped(_RESERVED)
        return FLOOD
    found = lookup(net.fdb, destination)
    if (found < 0 or found >= FIRST_TUNNEL) and net.population != 0 and destination != 0:
        told = remote_port(net.population, net.number, destination)
        if told >= 0:
            found = told
    if found == port:
        return dropped(_SAME_PORT)
    if found < 0:
        return dropped(_UNKNOWN_UNICAST) if net.flags & DROP_UNKNOWN != 0 else FLOOD
    if unlikely(found >= FIRST_TUNNEL and port >= FIRST_TUNNEL):
        return dropped(_SAME_PORT)  # split horizon
    return found


@kernel
def tell_learned(batch, network, source, port, changed):
    """Have control know what was learned on a local port, where others must hear of it."""
    b = batch_at(batch)
    net = network_at(network)
    if net.population != 0:
        kind = LEARNED if changed == NEW else MOVED
        tell(b.events, b.now, kind, net.number, port, shr64(source, 16), 0, 0)


@kernel
def population_near(batch, network, address):
    """The population will be asked for addresses in the frames of a batch: that at ``address`` (0:
    destination, 6: source)."""
    b = batch_at(batch)
    net = network_at(network)
    known = 0
    for k in range(b.n):
        key = ld64be(ld64(b.rows + 64 * k + R.head) + address) & MAC_MASK
        if key != known and key & GROUP_BIT == 0:
            remote_near(net.population, net.number, key)
            known = key


@kernel
def learn_source(batch, source):
    """Learn that an address (MAC << 16) is where the rows at hand came from, as ``decide`` would.
    """
    b = batch_at(batch)
    net = network_at(b.here)
    if b.origin < FIRST_TUNNEL and source & GROUP_BIT == 0 and source != 0 \
            and source != net.gateway:
        changed = learn(net.fdb, source, b.origin, b.now)
        if changed != SAME:
            tell_learned(batch, b.here, source, b.origin, changed)


@kernel
def learn_sources(batch, network, port):
    """Learn where the undecided rows of a batch come from, as ``decide`` would: for those that a
    stage answers, or takes to another network, before they come there."""
    b = batch_at(batch)
    net = network_at(network)
    if port >= FIRST_TUNNEL and net.flags & LEARNING == 0:
        return
    known = 0
    for k in range(b.n):
        row = b.rows + 64 * k
        if ld64(row + R.out) == UNDECIDED and ld64(row + R.len) >= MIN_FRAME:
            source = ld64be(ld64(row + R.head) + 6) & MAC_MASK
            if source != known and source & GROUP_BIT == 0 and source != 0 \
                    and source != net.gateway:
                if port >= FIRST_TUNNEL:
                    from_tunnel(network, source, port, b.now)
                else:
                    changed = learn(net.fdb, source, port, b.now)
                    if changed != SAME:
                        tell_learned(batch, network, source, port, changed)
                known = source


@kernel
def decide(batch, network, port):
    """Decide about every undecided row of a batch that came in on ``port`` of ``network``."""
    b = batch_at(batch)
    net = network_at(network)
    rows, n, now = b.rows, b.n, b.now
    fdb, longest, gateway = net.fdb, net.max_frame, net.gateway
    tunnelled = port >= FIRST_TUNNEL
    if net.population != 0:
        population_near(batch, network, 6 if tunnelled else 0)
    known_source = -1  # not an address that a row can have (0 is: it must be refused)
    known_destination = -1
    out = UNDECIDED
    for k in range(n):
        row = rows + 64 * k
        if unlikely(ld64(row + R.out) != UNDECIDED):
            continue
        length = ld64(row + R.len)
        head = ld64(row + R.head)
        if unlikely(length > longest) and over_mtu(row, head, longest):
            st64(row + R.out, dropped(_OVER_MTU))
            continue
        if unlikely(length < MIN_FRAME):
            st64(row + R.out, dropped(_RUNT))
            continue
        destination = ld64be(head) & MAC_MASK
        source = ld64be(head + 6) & MAC_MASK
        if source != known_source:
            if unlikely(source & GROUP_BIT != 0 or source == 0):
                st64(row + R.out, dropped(_BAD_SOURCE))
                continue
            if unlikely(source == gateway):
                known_source = source  # a router's: it is everywhere, and nowhere
            elif unlikely(tunnelled):
                if not from_tunnel(network, source, port, now):
                    st64(row + R.out, dropped(_LOCAL_MAC))
                    continue
            else:
                changed = learn(fdb, source, port, now)
                if unlikely(changed != SAME):
                    tell_learned(batch, network, source, port, changed)
            known_source = source
            out = UNDECIDED  # what was learned may be what we look up
        if destination != known_destination or out == UNDECIDED:
            out = route(network, destination, port)
            known_destination = destination
        st64(row + R.out, out)
