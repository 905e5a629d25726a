# SPDX-License-Identifier: Apache-2.0
"""``byway.dhcp``: gives a network's guests their addresses.

A built-in network function, written on the author's page (byway.nf) alone; for the chain of a
network, or of ports. Uses dhcp_messages.py, which reads and writes options, and router_messages.py,
which answers ARP.

Theory of operation
-------------------
A DHCP server (RFC 2131, RFC 2132) in front of everything: a request becomes its answer, and never
reaches the network. A guest gets the address that ``hosts`` has for its MAC address; else the one
that it had before; else the one that it asks for; else any that is free from ``first`` to ``last``.
Addresses in ``hosts`` are best kept out of that range. An address is free if nobody else has a
lease for it, or was offered it in the last minute, or has said that somebody uses it (DHCPDECLINE).

Leases are kept by address in ``leases`` as long as they last, and so is who had what in ``known``,
for a week after it was used. A guest that renews what the server has forgotten, because it was made
anew, keeps its address if nobody else has it.

A message is believed only of the MAC address that the frame came from: so a guest can take no more
addresses than port security lets it have MAC addresses. Messages that came through a relay are left
to others. Sixty bytes of options are sent, always the same ones, whatever the guest asked for.
"""

from typing import Annotated

from byway import nf
from byway.functions.builtin.dhcp_messages import (
    ACK,
    DECLINE,
    DISCOVER,
    INFORM,
    MESSAGE_TYPE,
    NAK,
    OFFER,
    OPTIONS,
    RELEASE,
    REQUEST,
    REQUESTED_ADDRESS,
    SERVER,
    begin_answer,
    find_option,
    is_request,
    put_address,
    put_byte,
    put_routes,
    put_word,
)
from byway.functions.builtin.router_messages import answer_arp

SECOND = 1_000_000_000
TRIES = 4096  # addresses looked at to find a free one
NOBODY = 0xFFFFFFFFFFFF  # who an address is kept for that somebody uses without a lease
EVERYBODY = 0xFFFFFFFF
BOOTP_SERVER, BOOTP_CLIENT = 67, 68
# Options (RFC 2132; RFC 3442).
MASK, ROUTER, DNS, MTU, LEASE_TIME, END = 1, 3, 6, 26, 51, 255
CLIENT, YOURS = 12, 16  # places in the message: addresses, MAC address
HARDWARE = 28
BROADCAST_FLAG = 0x8000


@nf.function
class Dhcp:
    """Answer DHCP for a network, from a table of hosts and a range of addresses."""

    server: nf.IPv4 = nf.IPv4("10.0.0.1")
    mac: nf.Mac = nf.Mac("02:00:00:00:00:fd")  # the server's; ARP for it is answered
    prefix: Annotated[int, nf.Range(1, 32)] = 24
    first: nf.IPv4 = nf.IPv4("0.0.0.0")  # of zeros: only those in ``hosts`` get one
    last: nf.IPv4 = nf.IPv4("0.0.0.0")
    router: nf.IPv4 = nf.IPv4("0.0.0.0")  # of zeros, as below: not told
    dns: nf.IPv4 = nf.IPv4("0.0.0.0")
    dns2: nf.IPv4 = nf.IPv4("0.0.0.0")
    mtu: Annotated[int, nf.Range(0, 65535)] = 0
    metadata: bool = False  # tell the way to 169.254.169.254: it is on this network
    lease: nf.Seconds = nf.Seconds(3600)  # at most ten days
    budget = 6000

    hosts = nf.Map(key="mac", value="ipv4", capacity=65536)
    leases = nf.Map(key="ipv4", value="mac", capacity=65536, age="lease")
    offered = nf.Map(key="ipv4", value="mac", capacity=65536, age=60)
    known = nf.Map(key="mac", value="ipv4", capacity=65536, idle=604_800)

    offers = nf.Counter()
    acks = nf.Counter()
    naks = nf.Counter()

    def process(self, frame):
        if frame.is_arp:
            if frame.arp_op != 1 or frame.arp_target_ip != self.server:
                return nf.PASS
            answer_arp(frame, self.mac, self.server)
            return nf.REPLY
        if not is_request(frame):
            return nf.PASS
        if frame.ipv4_dst != self.server and frame.ipv4_dst != EVERYBODY:
            return nf.PASS
        mac = frame.payload.u16(HARDWARE) << 32 | frame.payload.u32(HARDWARE + 2)
        if mac != frame.eth_src:
            return nf.DROP("another's MAC address")
        at = find_option(frame, SERVER, 4)
        if at != 0 and frame.payload.u32(at) != self.server:
            return nf.PASS  # to another server
        at = find_option(frame, MESSAGE_TYPE, 1)
        kind = frame.payload.u8(at) if at != 0 else 0
        at = find_option(frame, REQUESTED_ADDRESS, 4)
        requested = frame.payload.u32(at) if at != 0 else 0
        if kind == DISCOVER:
            return self.discover(frame, mac, requested)
        if kind == REQUEST:
            return self.request(frame, mac, requested)
        if kind == INFORM:
            return self.answer(frame, ACK, 0)
        return self.give_back(frame, kind, mac, requested)

    # ------------------------------------------------------------ what guests say
    def discover(self, frame, mac, requested):
        """A guest looks for servers: it is offered an address (RFC 2131, 4.3.1)."""
        address = self.address_for(mac, requested)
        if address == 0:
            return nf.DROP("no address left")
        self.offered.delete(address)
        if not self.offered.set(address, mac):
            return nf.DROP("table full")
        self.offers.add()
        return self.answer(frame, OFFER, address)

    def request(self, frame, mac, requested):
        """A guest wants the address that it was offered, or to keep the one that it has (RFC 2131,
        4.3.2)."""
        address = requested
        if address == 0:
            address = frame.payload.u32(CLIENT)
        fixed = self.hosts.get(mac)
        if address == 0 or (fixed != address if fixed != 0 else not self.is_free(address, mac)):
            self.naks.add()
            return self.answer(frame, NAK, 0)
        self.offered.delete(address)
        self.leases.delete(address)  # made anew: its age begins again
        if not self.leases.set(address, mac):
            return nf.DROP("table full")
        self.known.set(mac, address)
        self.acks.add()
        return self.answer(frame, ACK, address)

    def give_back(self, frame, kind, mac, requested):
        """A guest gives its address back, or found that somebody else has it."""
        if kind == RELEASE:
            address = frame.payload.u32(CLIENT)
            if self.leases.get(address) == mac:
                self.leases.delete(address)
            return nf.DROP("released")
        if kind == DECLINE:
            if self.leases.get(requested) == mac or self.offered.get(requested) == mac:
                self.offered.delete(requested)
                self.leases.delete(requested)
                self.leases.set(requested, NOBODY)
                self.known.delete(mac)
            return nf.DROP("declined")
        return nf.DROP("no request")

    # ------------------------------------------------------------ addresses
    def address_for(self, mac, requested):
        """The address that a guest is offered, or 0."""
        fixed = self.hosts.get(mac)
        if fixed != 0:
            return fixed
        before = self.known.get(mac)
        if self.is_free(before, mac):
            return before
        if self.is_free(requested, mac):
            return requested
        if self.first == 0 or self.last < self.first:
            return 0
        size = self.last - self.first + 1
        start = nf.hash(mac) % size
        for i in range(min(size, TRIES)):
            address = self.first + (start + i) % size
            if self.is_free(address, mac):
                return address
        return 0

    def is_free(self, address, mac):
        """May an address of the range be this guest's?"""
        if address == 0 or address < self.first or address > self.last:
            return False
        if address == self.server or address == self.router:
            return False
        holder = self.leases.get(address, mac)
        return holder == mac and self.offered.get(address, mac) == mac

    # ------------------------------------------------------------ the answer
    def answer(self, frame, kind, address):
        """The message becomes the server's answer, with an address, or without one."""
        client = frame.payload.u32(CLIENT)
        to_all = kind == NAK or frame.payload.u16(10) & BROADCAST_FLAG != 0
        guest = frame.eth_src
        if not begin_answer(frame, kind == NAK):
            return nf.DROP("too short")
        frame.payload.set_u32(YOURS, address)
        at = put_byte(frame, OPTIONS, MESSAGE_TYPE, kind)
        at = put_address(frame, at, SERVER, self.server)
        if kind != NAK:
            at = self.put_settings(frame, at, address)
        frame.payload.set_u8(at, END)
        frame.eth_dst = self.mac
        frame.eth_src = guest
        frame.ipv4_src = self.server
        frame.ipv4_dst = address if client == 0 else client
        if to_all or frame.ipv4_dst == 0:
            frame.ipv4_dst = EVERYBODY
            frame.eth_src = 0xFFFFFFFFFFFF
        frame.l4_src = BOOTP_SERVER
        frame.l4_dst = BOOTP_CLIENT
        frame.ip_ttl = 64
        frame.fix()
        return nf.REPLY

    def put_settings(self, frame, at, address):
        """Write what a guest is to know; -> where the next option goes."""
        if address != 0:
            at = put_address(frame, at, LEASE_TIME, self.lease // SECOND)
        at = put_address(frame, at, MASK, EVERYBODY << (32 - self.prefix) & EVERYBODY)
        if self.router != 0:
            at = put_address(frame, at, ROUTER, self.router)
        if self.dns != 0:
            at = put_address(frame, at, DNS, self.dns)
            if self.dns2 != 0:
                frame.payload.set_u8(at - 5, 8)
                frame.payload.set_u32(at, self.dns2)
                at += 4
        if self.mtu != 0:
            at = put_word(frame, at, MTU, self.mtu)
        if self.metadata:
            at = put_routes(frame, at, self.router)
        return at
