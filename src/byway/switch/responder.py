# SPDX-License-Identifier: Apache-2.0
"""The responder: who asks for an address that the population knows is answered by the switch.

Used by worker (staging.py: one call for each run) and control, which makes one for the switch. Uses
population.py, arp.py, nd.py and events.py.

Theory of operation
-------------------
A network that spans hosts would carry every ARP request (RFC 826) and every neighbour solicitation
(RFC 4861) to all of them. The population knows the answer: the row becomes the reply, in place, and
goes back to the port that asked, and to nobody else. The reply says what the owner's own would.

Answered are broadcast requests from local ports for an address that the network's population knows.
Not answered, but forwarded as any frame, is:

* what the population does not know;
* what is asked of one station (to a unicast address): it asks whether that one is still there;
* what the owner asks itself: its own probe (RFC 5227, 2.1.1; RFC 4862, 5.4) must not find that its
  address is taken. The owner is who sends from the MAC address that has the IP address, or from the
  port that this MAC address is behind (a virtual router's, RFC 5798, is not its port's own);
* announcements: sender and target are the same address (RFC 5227, 2.3), or nothing is asked;
* link-local addresses. Each station finds and defends those by itself: IPv4's answers are broadcast
  for this (RFC 3927, 2.5), and IPv6's are routers' as well, of which an answer would have to say
  that they are some (RFC 4861, 7.2.5);
* what came out of a tunnel: its own host would have answered;
* what is malformed, or has VLAN tags: the population is that of the network itself.

Who says of itself, in an ARP message or in neighbour discovery, what the population does not know,
or knows otherwise, is told to control (SAID): so addresses move (a gratuitous ARP, VRRP's new
master), once control agrees. The sender in the message must be the sender of the frame. What it may
say port security has checked before, where the port has it.

Threads: the counters are the only thing that workers write here.
"""

from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import (
    add64,
    ld8,
    ld16be,
    ld32be,
    ld64,
    ld64be,
    mul64,
    shr64,
    st64,
)
from byway.packet.batch import MIN_FRAME, UNDECIDED, R, batch_at
from byway.packet.layers import IPV6
from byway.switch.arp import (
    ARP,
    OPERATION,
    REPLY,
    REQUEST,
    SENDER_IP,
    SENDER_MAC,
    TARGET_IP,
    is_arp,
    write_arp,
)
from byway.switch.events import SAID, tell
from byway.switch.fdb import FIRST_TUNNEL, lookup
from byway.switch.nd import (
    ADVERTISEMENT,
    OVERRIDE,
    SOLICITATION,
    SOURCE,
    SOURCE_LINK,
    TARGET,
    TARGET_LINK,
    advertise,
    icmpv6_type,
    is_valid,
    link_option,
)
from byway.switch.network import LEARNING, RESPONDS, network_at
from byway.switch.population import Population, neighbour

# population: address of the POPULATION. arp, nd: requests that were answered. unknown: requests for
# addresses that nobody is known to have. own: requests for an address of whoever asked.
RESPONDER, _responder_at, A = record("responder", ["population", "arp", "nd", "unknown", "own"])

MAPPED = 0xFFFF << 32  # the low half of an IPv4 address, ::ffff:a.b.c.d
GROUP = 1  # of an Ethernet address's first byte
LINK_LOCAL4, LINK_LOCAL6 = 0xA9FE, 0x3FA  # 169.254/16 (RFC 3927), fe80::/10 (RFC 4291, 2.5.6)
LOOPBACK4, MULTICAST4 = 127, 224
MULTICAST6 = 0xFF


@kernel
def is_spoken_for(high, low):
    """May the population answer for this address? Not for those that are no station's (RFC 1122,
    3.2.1.3; RFC 4291, 2.5) or are link-local."""
    if high == 0:
        first = low >> 24 & 0xFF
        return low >> 32 == 0xFFFF and first != 0 and first != LOOPBACK4 and first < MULTICAST4 \
            and low >> 16 & 0xFFFF != LINK_LOCAL4
    return shr64(high, 56) != MULTICAST6 and shr64(high, 54) != LINK_LOCAL6


@kernel
def said(record, batch, row, mac, high, low):
    """A frame says that an address belongs to ``mac``: have control know if that is news."""
    b = batch_at(batch)
    net = network_at(b.here)
    key = mul64(mac, 1 << 16)
    if mac == 0 or mac >> 40 & GROUP != 0 or key == net.gateway \
            or shr64(ld64be(ld64(row + R.head) + 6), 16) != mac:
        return
    if b.origin >= FIRST_TUNNEL and net.flags & LEARNING == 0:
        return
    if is_spoken_for(high, low) \
            and neighbour(ld64(record + A.population), b.network, high, low) != mac:
        tell(b.events, b.now, SAID, b.network, b.origin, mac, high, low)


@kernel
def owner_of(record, batch, row, sender, high, low):
    """-> the MAC address to answer with who asks for an address, 0: not to be answered."""
    b = batch_at(batch)
    net = network_at(b.here)
    head = ld64(row + R.head)
    if b.origin >= FIRST_TUNNEL or net.flags & RESPONDS == 0 or ld8(head) & GROUP == 0 \
            or not is_spoken_for(high, low):
        return 0
    owner = neighbour(ld64(record + A.population), b.network, high, low)
    key = mul64(owner, 1 << 16)
    if owner == 0 or key == net.gateway:
        add64(record + A.unknown, 1)
        return 0
    if owner == sender or owner == shr64(ld64be(head + 6), 16) or lookup(net.fdb, key) == b.origin:
        add64(record + A.own, 1)
        return 0
    return owner


@kernel
def hear_arp(record, batch, row):
    """An ARP message: what it says is told, what it asks is answered."""
    head = ld64(row + R.head)
    operation = ld16be(head + OPERATION)
    if operation != REQUEST and operation != REPLY:
        return
    sender = shr64(ld64be(head + SENDER_MAC), 16)
    sender_ip, wanted = ld32be(head + SENDER_IP), ld32be(head + TARGET_IP)
    said(record, batch, row, sender, 0, MAPPED | sender_ip)
    if operation != REQUEST or wanted == sender_ip:
        return
    owner = owner_of(record, batch, row, sender, 0, MAPPED | wanted)
    if owner != 0:
        write_arp(row, REPLY, shr64(ld64be(head + 6), 16), owner, wanted, sender, sender_ip)
        st64(row + R.out, batch_at(batch).origin)
        add64(record + A.arp, 1)


@kernel
def hear_nd(record, batch, row):
    """An ICMPv6 message: as ``hear_arp``, if it is neighbour discovery's."""
    kind = icmpv6_type(row)
    if (kind != SOLICITATION and kind != ADVERTISEMENT) or not is_valid(row, kind):
        return
    head = ld64(row + R.head)
    high, low = ld64be(head + TARGET), ld64be(head + TARGET + 8)
    if kind == ADVERTISEMENT:
        if high != 0:  # no IPv4 address in disguise
            said(record, batch, row, link_option(head, TARGET_LINK), high, low)
        return
    sender = link_option(head, SOURCE_LINK)
    source_high, source_low = ld64be(head + SOURCE), ld64be(head + SOURCE + 8)
    if source_high != 0:
        said(record, batch, row, sender, source_high, source_low)
    if high == 0:
        return
    owner = owner_of(record, batch, row, sender, high, low)
    if owner != 0:
        advertise(row, owner, OVERRIDE)
        st64(row + R.out, batch_at(batch).origin)
        add64(record + A.nd, 1)


@kernel
def responder_rx(record, batch):
    """Answer what can be answered of a run's undecided rows."""
    b = batch_at(batch)
    if network_at(b.here).population == 0:
        return
    for k in range(b.n):
        row = b.rows + 64 * k
        if ld64(row + R.out) == UNDECIDED and ld64(row + R.len) >= MIN_FRAME:
            kind = ld16be(ld64(row + R.head) + 12)
            if kind == IPV6:
                hear_nd(record, batch, row)
            elif kind == ARP and is_arp(row):
                hear_arp(record, batch, row)


class Responder:
    """The responder of a switch. ``address``: of its record, for STAGES.responder of every port
    in a network that has a population."""

    def __init__(self, population: Population) -> None:
        self._population = population  # the record points to it
        self.record = alloc(RESPONDER, 1)
        self.record["population"] = population.address
        self.address = address_of(self.record)

    def statistics(self) -> dict[str, int]:
        """Requests since the start: answered (arp, nd), for unknown addresses, for one's own."""
        return {name: int(self.record[name][0]) for name in ("arp", "nd", "unknown", "own")}
