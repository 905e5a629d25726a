# SPDX-License-Identifier: Apache-2.0
"""A network's gateway: its addresses, and its answers to ARP requests and echo requests.

Used by router.py, gateway_nd.py and icmp_errors.py; uses packet. Works on private heads only.

Theory of operation
-------------------
The gateway has the same MAC and IP addresses on every host (a distributed anycast gateway), so a
guest finds it wherever it is moved. Whoever asks for one of its addresses on a local port is
answered by its own host, at once and at that port only (BATCH.origin): the row becomes the answer.

ARP (RFC 826): requests for our addresses, broadcast or to our MAC, are answered; probes of who
wants an address for itself (RFC 5227, 2.1) as well, for it is taken. Who says on a local port that
one of our addresses is its own is not heard (SPOOFED_ARP), or other guests' packets to the gateway
would go to it.

Echo requests (RFC 792): the reply is the frame with other headers; its data stays where it is. So
the data of a request may have any length, and a wrong checksum stays wrong in the reply.

Limits: requests in fragments are not answered; IPv4 options are in the reply as they came.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    ld16,
    ld16be,
    ld32,
    ld32be,
    ld64,
    ld64be,
    memzero,
    shr64,
    st8,
    st16,
    st16be,
    st32,
    st32be,
    st64,
    st64be,
)
from byway.packet.batch import R, batch_at, dropped
from byway.packet.checksum import adjusted, ipv4_checksum
from byway.packet.ethernet import MIN_FRAME
from byway.packet.offload import NEEDS_CSUM
from byway.packet.reason import Reason
from byway.switch.routes import MAPPED

_SPOOFED_ARP = int(Reason.SPOOFED_ARP)

# number: of the network. port: the router's port number there. mac: MAC << 16. mtu: the longest IP
# packet. routes: ROUTES. addresses: n times ADDRESS. tunnels: 1 where frames from tunnels are
# served as local ones are.
GATEWAY, gateway_at, G = record("gateway", [
    "number", "port", "mac", "mtu", "routes", "addresses", "n", "tunnels"])
# An own address, then the mask of its subnet: four words (IPv4 as ::ffff:a.b.c.d).
ADDRESS = 32

L3 = 14  # where IP begins: the gateway speaks no VLAN tags
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
ARP_ETHERNET_IPV4 = 0x000108000604  # hardware Ethernet, protocol IPv4, address lengths 6 and 4
ARP_BYTES = 42
REQUEST, REPLY = 1, 2
OPERATION, SENDER_MAC, SENDER_IP, TARGET_MAC, TARGET_IP = 20, 22, 28, 32, 38  # in the frame
TTL = 64
ECHO, ECHO_REPLY = 8, 0


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


@kernel
def set_macs(head, destination, source):
    """Write a frame's addresses, numbers of 48 bits."""
    st64be(head, destination << 16 | source >> 32)
    st32be(head + 8, source)


# ---------------------------------------------------------------- a row becomes another frame
@kernel
def replace(row, n):
    """The row's frame is now the n bytes in its head, with nothing left to do."""
    st64(row + R.len, n)
    st64(row + R.addr, ld64(row + R.head))
    st64(row + R.nsegs, 0)
    st64(row + R.offload, 0)


@kernel
def write_arp(row, gateway, operation, destination, target_mac, target_ip, own_ip):
    """The row becomes an ARP message of the gateway (RFC 826); MACs of 48 bits, IPs of 32."""
    head = ld64(row + R.head)
    mac = own_mac(gateway)
    memzero(head, MIN_FRAME)
    set_macs(head, destination, mac)
    st16be(head + 12, ARP)
    st64be(head + 14, ARP_ETHERNET_IPV4 << 16 | operation)
    st64be(head + SENDER_MAC, mac << 16)
    st32be(head + SENDER_IP, own_ip)
    st64be(head + TARGET_MAC, target_mac << 16)
    st32be(head + TARGET_IP, target_ip)
    replace(row, MIN_FRAME)


# ---------------------------------------------------------------- ARP
@kernel
def is_arp(row):
    """Does the row hold an ARP message for IPv4 over Ethernet?"""
    head = ld64(row + R.head)
    return ld64(row + R.len) >= ARP_BYTES and ld16be(head + 12) == ARP \
        and shr64(ld64be(head + 14), 16) == ARP_ETHERNET_IPV4


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
    sender = shr64(ld64be(head + SENDER_MAC), 16)
    write_arp(row, gateway, REPLY, shr64(ld64be(head + 6), 16), sender,
              ld32be(head + SENDER_IP), wanted)
    st64(row + R.out, batch_at(batch).origin)
    return True


# ---------------------------------------------------------------- echo
@kernel
def echo_type(row, field, kind):
    """Write the ICMP type at ``field`` and keep the checksum behind it right, unless that is still
    to be completed: then the type is in the sum."""
    old = ld16(field)
    st8(field, kind)
    if ld64(row + R.offload) & NEEDS_CSUM == 0:
        st16(field + 2, adjusted(ld16(field + 2), old, ld16(field)))


@kernel
def echo_reply(row, batch, gateway, l4):
    """The IPv4 echo request in the row becomes the reply (RFC 792)."""
    head = ld64(row + R.head)
    set_macs(head, shr64(ld64be(head + 6), 16), own_mac(gateway))
    ip = head + L3
    source, destination = ld32(ip + 12), ld32(ip + 16)
    st32(ip + 12, destination)
    st32(ip + 16, source)
    st8(ip + 8, TTL)
    ipv4_checksum(ip, l4 - L3)
    echo_type(row, head + l4, ECHO_REPLY)
    st64(row + R.out, batch_at(batch).origin)
