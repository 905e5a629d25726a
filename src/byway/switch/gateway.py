# SPDX-License-Identifier: Apache-2.0
"""A network's gateway: its addresses, and its answers to ARP and neighbour solicitations.

Used by router.py and icmp_errors.py; uses arp.py, nd.py. Works on private heads only.

Theory of operation
-------------------
The gateway has the same MAC and IP addresses on every host (a distributed anycast gateway), so a
guest finds it wherever it is moved. Whoever asks for one of its addresses on a local port is
answered by its own host, at once and at that port only (BATCH.origin): the row becomes the answer.

Requests (RFC 826) and solicitations (RFC 4861, 7.2.3) for our addresses are answered, sent to all
or to our MAC; so is who wants an address for itself (RFC 5227, 2.1; RFC 4862, 5.4), for it is
taken. Who says on a local port that one of our addresses is its own is not heard (SPOOFED_ARP), or
other guests' packets to the gateway would go to it.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    ld16be,
    ld32be,
    ld64,
    ld64be,
    shr64,
    st64,
)
from byway.packet.batch import R, batch_at, dropped
from byway.packet.reason import Reason
from byway.switch.arp import (
    OPERATION,
    REPLY,
    REQUEST,
    SENDER_IP,
    SENDER_MAC,
    TARGET_IP,
    write_arp,
)
from byway.switch.nd import (
    ADVERTISEMENT,
    IS_ROUTER,
    ND_FRAME,
    NODES_HIGH,
    NODES_LOW,
    NODES_MAC,
    NODES_MASK,
    OVERRIDE,
    REDIRECT,
    ROUTER_SOLICITATION,
    SOLICITATION,
    SOURCE,
    TARGET,
    advertise,
    icmpv6_type,
    is_valid,
    send_message,
    write_message,
)
from byway.switch.routes import MAPPED

_BAD_IP = int(Reason.BAD_IP)
_SPOOFED_ARP = int(Reason.SPOOFED_ARP)

# number: of the network. port: the router's port number there. mac: MAC << 16. mtu: the longest IP
# packet. routes: ROUTES. addresses: n times ADDRESS. tunnels: 1 where frames from tunnels are
# served as local ones are.
GATEWAY, gateway_at, G = record("gateway", [
    "number", "port", "mac", "mtu", "routes", "addresses", "n", "tunnels"])
# An own address, then the mask of its subnet: four words (IPv4 as ::ffff:a.b.c.d).
ADDRESS = 32


# ---------------------------------------------------------------- addresses
@kernel
def is_own(gateway, high, low):
    """Is it an address of the gateway in this network?"""
    g = gateway_at(gateway)
    own = False
    for k in range(g.n):
        at = g.addresses + ADDRESS * k
        if ld64(at) == high and ld64(at + 8) == low:
            own = True
    return own


@kernel
def speaks_from(gateway, high, low):
    """-> the address of the ADDRESS from which the gateway speaks to a station: the one in its
    subnet, else the first of its version; 0 where there is none."""
    g = gateway_at(gateway)
    mapped = high == 0
    first = 0
    near = 0
    for k in range(g.n):
        at = g.addresses + ADDRESS * k
        own_high = ld64(at)
        if (own_high == 0) == mapped:
            if first == 0:
                first = at
            differs = (own_high ^ high) & ld64(at + 16) | (ld64(at + 8) ^ low) & ld64(at + 24)
            if near == 0 and differs == 0:
                near = at
    return near if near != 0 else first


@kernel
def own_mac(gateway):
    """The gateway's MAC address, a number of 48 bits."""
    return shr64(ld64(gateway + G.mac), 16)


# ---------------------------------------------------------------- ARP
@kernel
def arp_claims(row, gateway, tunnelled):
    """Does somebody else say that one of the gateway's addresses is its own?"""
    head = ld64(row + R.head)
    if tunnelled and shr64(ld64be(head + SENDER_MAC), 16) == own_mac(gateway):
        return False  # the gateway on another host
    return is_own(gateway, 0, MAPPED | ld32be(head + SENDER_IP))


@kernel
def arp_heard(row, batch, gateway, tunnelled, serves):
    """An ARP message: answer it if it asks for the gateway; -> is the row decided?"""
    head = ld64(row + R.head)
    if arp_claims(row, gateway, tunnelled):
        st64(row + R.out, dropped(_SPOOFED_ARP))
        return True
    wanted = ld32be(head + TARGET_IP)
    if not serves or ld16be(head + OPERATION) != REQUEST \
            or not is_own(gateway, 0, MAPPED | wanted):
        return False
    write_arp(row, REPLY, shr64(ld64be(head + 6), 16), own_mac(gateway), wanted,
              shr64(ld64be(head + SENDER_MAC), 16), ld32be(head + SENDER_IP))
    st64(row + R.out, batch_at(batch).origin)
    return True


# ---------------------------------------------------------------- neighbour discovery
@kernel
def nd_heard(row, batch, gateway, tunnelled, serves):
    """An untagged IPv6 frame to a group or to the gateway: answer it if it solicits us; -> is the
    row decided?"""
    kind = icmpv6_type(row)
    if kind < ROUTER_SOLICITATION or kind > REDIRECT:
        return False
    head = ld64(row + R.head)
    if not tunnelled and is_own(gateway, ld64be(head + SOURCE), ld64be(head + SOURCE + 8)):
        st64(row + R.out, dropped(_SPOOFED_ARP))
        return True
    if (kind != SOLICITATION and kind != ADVERTISEMENT) or ld64(row + R.len) < ND_FRAME \
            or not is_own(gateway, ld64be(head + TARGET), ld64be(head + TARGET + 8)):
        return False
    if kind == ADVERTISEMENT:
        st64(row + R.out, dropped(_SPOOFED_ARP))
        return True
    if not serves:
        return False
    if is_valid(row, kind):
        advertise(row, own_mac(gateway), IS_ROUTER | OVERRIDE)
        st64(row + R.out, batch_at(batch).origin)
    else:
        st64(row + R.out, dropped(_BAD_IP))
    return True


@kernel
def write_solicitation(row, gateway, source, high, low):
    """The row becomes a neighbour solicitation for an address, from our own ADDRESS ``source``
    (RFC 4861, 7.2.2)."""
    write_message(row, own_mac(gateway), SOLICITATION, 0, high, low)
    node = low & ~NODES_MASK
    send_message(row, NODES_MAC | node, ld64(source), ld64(source + 8), NODES_HIGH,
                 NODES_LOW | node)
