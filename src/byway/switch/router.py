# SPDX-License-Identifier: Apache-2.0
"""The router: what a guest sends to its gateway goes on into the network where its destination is.

Used by worker (a stage of ports; ``router_rx``); uses router_checks.py, gateway.py (what
the gateway answers itself), icmp_errors.py, router_limits.py, routes.py (the
way), population.py (MAC addresses). routing.py makes the records.

Theory of operation
-------------------
Each host routes what its own guests send, on the port where it comes in. A network's gateway is the
same on all hosts, so a packet crosses at most one tunnel, in the network of its destination, and
the host there only switches it.

A frame to the gateway's MAC is checked (RFC 1812, 5.2.2; RFC 8200), and the way of its destination
looked up. It is then the router's own (answered), or goes on: TTL, checksum and MAC addresses are
changed in the row's head, and the row's origin becomes (network of the next hop, the router's port
there). So it is decided about in that network like a frame that a router behind a port has sent.
Nothing is kept of it, and no packet is handled twice in a pass: a loop of routes ends by TTL.

Where nobody knows the next hop's MAC address, the packet is dropped, and the row becomes the
request for it, from the gateway to all of that network. The answer comes back to the gateway of
whichever host the next hop is at; what it says has been noted for the population before (it is
heard on the port). Where that host did not ask, the answer is passed on to all of the network: some
other host has, and without a cluster it has no other way to know.

By the book: source-routed packets and link-local, loopback, multicast and reserved addresses are
not routed, nor a subnet's broadcast (RFC 2644). Other IPv4 options, hop-by-hop options and
fragments go on as they are. A packet that does not fit the MTU of its way out is answered with
"fragmentation needed" or "packet too big"; of a frame that is to be cut into segments that is the
longest segment. The router never makes fragments and cuts no other segments than the sender said,
so in IPv4, too, every packet is treated as if it were marked "do not fragment". It sends no
redirects and no router advertisements.

Not served: tagged frames, and frames from tunnels (their host has routed them), unless the gateway
says so. A local guest that sends from the gateway's MAC is not heard (SPOOFED_MAC).
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16,
    ld16be,
    ld32be,
    ld64,
    ld64_acq,
    ld64be,
    likely,
    shr64,
    st8,
    st16,
    st64,
    unlikely,
)
from byway.packet.batch import (
    FLOOD,
    HEAD,
    MIN_FRAME,
    UNDECIDED,
    R,
    batch_at,
    dropped,
    origin_word,
)
from byway.packet.checksum import adjusted
from byway.packet.counters import count_drops
from byway.packet.layers import IPV4, IPV6, TCP, UDP
from byway.packet.reason import Reason
from byway.switch.arp import (
    ARP,
    L3,
    OPERATION,
    REPLY,
    REQUEST,
    SENDER_IP,
    is_arp,
    set_macs,
    write_arp,
)
from byway.switch.decide import GROUP_BIT, MAC_MASK
from byway.switch.echo import ECHO, ECHO6, echo_reply, echo_reply_ipv6
from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.gateway import (
    G,
    arp_heard,
    is_own,
    nd_heard,
    own_mac,
    write_solicitation,
)
from byway.switch.icmp_errors import (
    BEYOND_SCOPE6,
    EXPIRED,
    EXPIRED6,
    ICMP,
    NET_UNREACHABLE,
    NO_ROUTE6,
    PORT_UNREACHABLE,
    PORT_UNREACHABLE6,
    PROTOCOL_UNREACHABLE,
    TOO_BIG,
    TOO_BIG6,
    send_error,
)
from byway.switch.nd import (
    ADVERTISEMENT,
    ICMPV6,
    L4,
    REDIRECT,
    ROUTER_SOLICITATION,
    TARGET,
    icmpv6_type,
    is_valid,
)
from byway.switch.population import neighbour
from byway.switch.router_checks import checked_ipv4, checked_ipv6, packet_length
from byway.switch.router_limits import X, may_ask, may_send_request, router_at, was_asked
from byway.switch.routes import DISCARD, FORWARD, LOCAL, MAPPED, Q, route_at, route_of

_MARTIAN = int(Reason.MARTIAN)
_NO_NEIGHBOUR = int(Reason.NO_NEIGHBOUR)
_NO_ROUTE = int(Reason.NO_ROUTE)
_OVER_MTU = int(Reason.OVER_MTU)
_SPOOFED_MAC = int(Reason.SPOOFED_MAC)
_TO_GATEWAY = int(Reason.TO_GATEWAY)
_TTL_EXPIRED = int(Reason.TTL_EXPIRED)

MORE_OR_OFFSET = 0x3FFF  # of a fragment
LINK_LOCAL6 = 0x3FA  # the first 10 bits of fe80::/10
BROADCAST = (1 << 48) - 1


# ---------------------------------------------------------------- for the router itself
@kernel
def local_ipv4(row, batch, router, gateway):
    """A packet to one of the router's own addresses."""
    head = ld64(row + R.head)
    ip = head + L3
    l4 = L3 + 4 * (ld8(ip) & 15)
    protocol = ld8(ip + 9)
    st64(row + R.out, dropped(_TO_GATEWAY))
    if ld16be(ip + 6) & MORE_OR_OFFSET != 0:
        return
    if protocol == ICMP:
        if ld16be(ip + 2) >= l4 - L3 + 8 and ld16be(head + l4) == ECHO << 8:
            echo_reply(row, own_mac(gateway), l4)
            st64(row + R.out, batch_at(batch).origin)
    elif protocol == TCP or protocol == UDP:
        send_error(row, batch, router, gateway, PORT_UNREACHABLE, 0, _TO_GATEWAY)
    else:
        send_error(row, batch, router, gateway, PROTOCOL_UNREACHABLE, 0, _TO_GATEWAY)


@kernel
def local_ipv6(row, batch, router, gateway):
    """As ``local_ipv4``, for IPv6."""
    head = ld64(row + R.head)
    ip = head + L3
    protocol = ld8(ip + 6)
    st64(row + R.out, dropped(_TO_GATEWAY))
    if protocol == ICMPV6:
        if ld16be(ip + 4) >= 8 and ld16be(head + L4) == ECHO6 << 8:
            echo_reply_ipv6(row, own_mac(gateway))
            st64(row + R.out, batch_at(batch).origin)
    elif protocol == TCP or protocol == UDP:
        send_error(row, batch, router, gateway, PORT_UNREACHABLE6, 0, _TO_GATEWAY)


# ---------------------------------------------------------------- the next hop
@kernel
def ask(row, batch, router, route, high, low):
    """The packet is dropped; the row becomes the request for its next hop's MAC address."""
    q = route_at(route)
    b = batch_at(batch)
    if not may_ask(router, batch, ld64(q.gateway + G.number), high, low):
        st64(row + R.out, dropped(_NO_NEIGHBOUR))
        return False
    count_drops(b.counters, _NO_NEIGHBOUR, 1)
    if high == 0:
        write_arp(row, REQUEST, BROADCAST, own_mac(q.gateway), ld64(q.source + 8) & 0xFFFFFFFF, 0,
                  low & 0xFFFFFFFF)
    else:
        write_solicitation(row, q.gateway, q.source, high, low)
    return True


@kernel
def lower_ttl(row, ip, version):
    """Take one from TTL or hop limit; IPv4's checksum stays right (RFC 1624)."""
    if version == 4:
        old = ld16(ip + 8)
        st8(ip + 8, ld8(ip + 8) - 1)
        st16(ip + 10, adjusted(ld16(ip + 10), old, ld16(ip + 8)))
    else:
        st8(ip + 7, ld8(ip + 7) - 1)


@kernel
def forward(row, batch, router, route, high, low):
    """Send a packet on; -> has the row another origin now?"""
    q = route_at(route)
    if q.via_high | q.via_low != 0:
        high = q.via_high
        low = q.via_low
    mac = neighbour(router_at(router).population, ld64(q.gateway + G.number), high, low)
    if unlikely(mac == 0):
        return ask(row, batch, router, route, high, low)
    head = ld64(row + R.head)
    lower_ttl(row, head + L3, 4 if ld16be(head + 12) == IPV4 else 6)
    set_macs(head, mac, own_mac(q.gateway))
    return True


@kernel
def route_packet(row, batch, router, gateway, version):
    """An IP packet to the gateway, which was checked; -> the GATEWAY by which it goes on, or 0."""
    head = ld64(row + R.head)
    ip = head + L3
    high = 0
    low = MAPPED | ld32be(ip + 16)
    ttl = ld8(ip + 8)
    if version == 6:
        high = ld64be(ip + 24)
        low = ld64be(ip + 32)
        ttl = ld8(ip + 7)
        if unlikely(shr64(high, 54) == LINK_LOCAL6):  # the same prefix on every network
            if is_own(gateway, high, low):
                local_ipv6(row, batch, router, gateway)
            else:
                st64(row + R.out, dropped(_MARTIAN))
            return 0
    route = route_of(ld64(gateway + G.routes), high, low)
    kind = ld64(route + Q.kind)
    out = ld64(route + Q.gateway)
    if unlikely(kind != FORWARD):
        if kind == LOCAL and version == 4:
            local_ipv4(row, batch, router, gateway)
        elif kind == LOCAL:
            local_ipv6(row, batch, router, gateway)
        elif kind == DISCARD:
            st64(row + R.out, dropped(_MARTIAN))
        else:
            send_error(row, batch, router, gateway, NET_UNREACHABLE if version == 4 else NO_ROUTE6,
                       0, _NO_ROUTE)
        return 0
    if unlikely(ttl <= 1):
        send_error(row, batch, router, gateway, EXPIRED if version == 4 else EXPIRED6, 0,
                   _TTL_EXPIRED)
        return 0
    if unlikely(version == 6 and shr64(ld64be(ip + 8), 54) == LINK_LOCAL6):
        send_error(row, batch, router, gateway, BEYOND_SCOPE6, 0, _MARTIAN)
        return 0
    mtu = ld64(out + G.mtu)
    if unlikely(packet_length(row, ip, version) > mtu):
        send_error(row, batch, router, gateway, TOO_BIG if version == 4 else TOO_BIG6, mtu,
                   _OVER_MTU)
        return 0
    if forward(row, batch, router, route, high, low):
        return out
    return 0


# ---------------------------------------------------------------- the frames of a run
@kernel
def answered(row, batch, router, gateway, high, low):
    """Somebody answers the gateway: here, or on another host, it has asked. (Nobody needs more than
    HEAD bytes for that, and how long a frame may be is not looked at where it is flooded.)"""
    b = batch_at(batch)
    number = ld64(gateway + G.number)
    if b.vni != 0 and b.origin < FIRST_TUNNEL and ld64(row + R.len) <= HEAD \
            and not was_asked(router, batch, number, high, low) and may_send_request(router, batch):
        st64(row + R.out, FLOOD)
    else:
        st64(row + R.out, dropped(_TO_GATEWAY))


@kernel
def to_gateway(row, batch, router, gateway, tunnelled, serves):
    """A frame to the gateway's MAC; -> the GATEWAY by which it goes on, or 0."""
    head = ld64(row + R.head)
    kind = ld16be(head + 12)
    reason = _TO_GATEWAY
    if not serves:
        st64(row + R.out, dropped(_TO_GATEWAY))
        return 0
    if kind == IPV4:
        reason = checked_ipv4(row)
        if likely(reason == 0):
            return route_packet(row, batch, router, gateway, 4)
    elif kind == IPV6:
        message = icmpv6_type(row)
        if unlikely(message >= ROUTER_SOLICITATION and message <= REDIRECT):
            if nd_heard(row, batch, gateway, tunnelled, serves):
                return 0
            if message == ADVERTISEMENT and is_valid(row, message):
                answered(row, batch, router, gateway, ld64be(head + TARGET),
                         ld64be(head + TARGET + 8))
                return 0
        else:
            reason = checked_ipv6(row)
            if likely(reason == 0):
                return route_packet(row, batch, router, gateway, 6)
    elif is_arp(row):
        if arp_heard(row, batch, gateway, tunnelled, serves):
            return 0
        if ld16be(head + OPERATION) == REPLY:
            answered(row, batch, router, gateway, 0, MAPPED | ld32be(head + SENDER_IP))
            return 0
    st64(row + R.out, dropped(reason))
    return 0


@kernel
def router_rx(router, batch):
    """Route what a run's rows have for the gateway of their network, and answer for it.

    ``router``: ROUTER. A row gets an answer or a reason in R.out, or another origin, or stays as it
    is.
    """
    b = batch_at(batch)
    networks = ld64_acq(router + X.networks)
    if b.network >= ld64(networks):
        return
    gateway = ld64(networks + 8 + 8 * b.network)
    if gateway == 0:
        return
    mac = ld64(gateway + G.mac)
    tunnelled = b.origin >= FIRST_TUNNEL
    serves = not tunnelled or ld64(gateway + G.tunnels) != 0
    for k in range(b.n):
        row = b.rows + 64 * k
        if ld64(row + R.out) != UNDECIDED or ld64(row + R.len) < MIN_FRAME:
            continue
        head = ld64(row + R.head)
        source = ld64be(head + 6) & MAC_MASK
        destination = ld64be(head) & MAC_MASK
        if unlikely(source & GROUP_BIT != 0 or source == 0):
            continue  # decide has a reason for these
        if unlikely(source == mac and not tunnelled):
            st64(row + R.out, dropped(_SPOOFED_MAC))
        elif destination == mac:
            out = to_gateway(row, batch, router, gateway, tunnelled, serves)
            if out != 0:
                word = origin_word(ld64(out + G.number), ld64(out + G.port))
                st64(b.origins + 8 * k, word)
        elif destination & GROUP_BIT != 0:
            if ld16be(head + 12) == ARP:
                if is_arp(row):
                    arp_heard(row, batch, gateway, tunnelled, serves)
            else:
                nd_heard(row, batch, gateway, tunnelled, serves)
