# SPDX-License-Identifier: Apache-2.0
"""Which connection a frame belongs to: its key, from the guest's point of view, and what to ask.

Used by groups.py (the stage), which looks for the key. Uses packet.layers, connections.py (SEEK).

Theory of operation
-------------------
``note`` reads a row's private head and fills a SEEK: the two addresses (guest, remote), ``flow``
and ``what`` to do. A frame that needs no look at the table is decided here (``what`` <= 0):

* ARP and RARP pass: port security looks at them. What is neither they nor IP is dropped, since no
  rule can be about it (IP may be hidden in it).
* What IPv6 cannot do without passes: neighbour discovery with hop limit 255 (RFC 4861, 6.1, 7.1: no
  router forwarded it) and multicast listener messages with hop limit 1 (RFC 3810, 5); and DHCP of a
  client, in both directions.

Everything else is one of

    FLOW       the key of a connection. Ports are what TCP, UDP, SCTP, DCCP and UDP-Lite have; of an
               ICMP query its identifier, and its type with who asked (RFC 5508, 3.1); else 0.
    RELATED    an ICMP error (RFC 5508, 4; RFC 4443, 2.4): the key of the packet inside, which the
               error's receiver must have sent.
    RULES      no connection can be made of it: rules alone decide about each frame.
    LATER      a piece of a datagram without its first bytes: the key of its first piece.

with FIRST added for a first piece, ANSWER for an ICMP answer, which begins no connection.

Fragments. The first piece must hold the transport header (RFC 1858, RFC 7112) and is looked at as a
whole packet is. Where it passes, later pieces of the same datagram pass in the same direction. No
later piece may lie where the transport header is (offsets below 24 bytes), and what comes before
its first piece does not pass. So pieces tell nothing else than what was allowed.

IPv6 frames with IPv4-mapped addresses are dropped: on the wire there are none (RFC 4942, 2.2), and
here such addresses mean IPv4.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld16, ld16be, ld32be, ld64, ld64be, likely, st64
from byway.packet.batch import HEAD, R, dropped
from byway.packet.layers import (
    FRAGMENT,
    HIDDEN,
    HOP_BY_HOP,
    OPTIONS,
    ROUTING,
    TCP,
    UDP,
    ipv4_layers,
    ipv6_layers,
    is_fragment,
    l3_of,
    l4_of,
    layers,
    protocol_of,
    version_of,
)
from byway.packet.reason import Reason
from byway.switch.connections import V6, S

_NOT_ALLOWED = int(Reason.NOT_ALLOWED)
PASS = 0
FLOW, RELATED, RULES, LATER = 1, 2, 3, 4
KIND, FIRST, ANSWER = 7, 8, 16
FOUND = 8  # ``what`` is kind and flags, and from this bit on what ``layers`` found

# ``flow``: guest port | remote port << 16 | zone << 32 | protocol << 48 | V6 | PIECE | TO_GUEST.
# Of pieces: identification in the low 32 bits, and their direction.
PIECE, TO_GUEST = 1 << 57, 1 << 58
MAPPED = 0xFFFF << 32
ARP, RARP = 0x0806, 0x8035
ICMP, ICMPV6, DCCP, SCTP, UDP_LITE = 1, 58, 33, 132, 136
TCP_HEADER, SHORT_HEADER = 20, 8
FIRST_OFFSET = 3  # the least offset of a later piece, in units of 8 bytes
_IPV4_LE, _FRAGMENT_LE = 0x0008, 0xFF3F  # as ld16 loads them
# ICMP types that ask, as bits: echo, timestamp, information, mask. An answer's is one more.
_ASKS = 1 << 8 | 1 << 13 | 1 << 15 | 1 << 17
_ERRORS4 = 1 << 3 | 1 << 11 | 1 << 12
ECHO6 = 128
_LAST_ERROR6 = 4
ASKED_BY_REMOTE = 1 << 8  # with an ICMP query's type, in the place of the remote port


@kernel
def has_ports(protocol):
    """Does the protocol's header begin with a source and a destination port?"""
    return protocol == TCP or protocol == UDP or protocol == DCCP or protocol == SCTP \
        or protocol == UDP_LITE


@kernel(inline=True)
def flow_of(zone, protocol, guest_port, remote_port):
    """The ``flow`` of a key, without the bits for IPv6 and for pieces."""
    return guest_port | remote_port << 16 | zone << 32 | protocol << 48


@kernel
def is_dhcp(source, destination, version, to_guest):
    """A DHCP client's message, or a server's to it (RFC 2131, 4.1; RFC 8415, 7.2)?"""
    client, server = (68, 67) if version == 4 else (546, 547)
    if to_guest:
        return source == server and destination == client
    return source == client and destination == server


@kernel
def note(row, seek, zone, to_guest):
    """Fill the SEEK of a row that a guest sent, or is to get (``to_guest``)."""
    head = ld64(row + R.head)
    if likely(ld16(head + 12) == _IPV4_LE and ld8(head + 14) == 0x45
              and ld64(row + R.len) >= 34 + TCP_HEADER and ld16(head + 20) & _FRAGMENT_LE == 0):
        protocol = ld8(head + 23)
        if likely(protocol == TCP or protocol == UDP):
            near, far = (30, 26) if to_guest else (26, 30)
            near_port, far_port = (36, 34) if to_guest else (34, 36)
            guest_port, remote_port = ld16be(head + near_port), ld16be(head + far_port)
            if likely(protocol == TCP or guest_port != 68):
                st64(seek + S.guest_high, 0)
                st64(seek + S.guest_low, MAPPED | ld32be(head + near))
                st64(seek + S.remote_high, 0)
                st64(seek + S.remote_low, MAPPED | ld32be(head + far))
                st64(seek + S.flow, flow_of(zone, protocol, guest_port, remote_port))
                found = 14 | 34 << 8 | protocol << 16 | 4 << 24
                st64(seek + S.what, FLOW | found << FOUND)
                return
    note_any(row, seek, zone, to_guest)


@kernel
def note_addresses(seek, at, version, reverse):
    """Note the addresses of the IP header at ``at``, the guest's being the source, or (``reverse``)
    the destination; -> False where they are no addresses of this version."""
    near, far = (S.remote_high, S.guest_high) if reverse else (S.guest_high, S.remote_high)
    if version == 4:
        st64(seek + near, 0)
        st64(seek + near + 8, MAPPED | ld32be(at + 12))
        st64(seek + far, 0)
        st64(seek + far + 8, MAPPED | ld32be(at + 16))
        return True
    for k in range(2):
        st64(seek + near + 8 * k, ld64be(at + 8 + 8 * k))
        st64(seek + far + 8 * k, ld64be(at + 24 + 8 * k))
    return not ((ld64(seek + near) == 0 and ld64(seek + near + 8) >> 32 == 0xFFFF)
                or (ld64(seek + far) == 0 and ld64(seek + far + 8) >> 32 == 0xFFFF))


@kernel
def note_any(row, seek, zone, to_guest):
    """As ``note``, for any frame."""
    head = ld64(row + R.head)
    found = layers(row)
    what = dropped(_NOT_ALLOWED)
    st64(seek + S.flow, 0)
    if found >= 0:
        version = version_of(found)
        if version == 0:
            kind = ld16be(head + l3_of(found) - 2)
            if kind == ARP or kind == RARP:
                what = PASS
        elif note_addresses(seek, head + l3_of(found), version, to_guest):
            if is_fragment(found):
                what = fragment(row, seek, zone, found, to_guest)
            else:
                what = transport(row, seek, zone, found, to_guest)
    st64(seek + S.what, what)


@kernel
def transport(row, seek, zone, found, to_guest):
    """Note what the transport header says; -> what to do."""
    head, l4, protocol = ld64(row + R.head), l4_of(found), protocol_of(found)
    n = min(ld64(row + R.len), HEAD)
    v6 = V6 if version_of(found) == 6 else 0
    if protocol == HIDDEN:
        st64(seek + S.flow, flow_of(zone, HIDDEN, 0, 0) | v6)
        return RULES | found << FOUND
    if (protocol == ICMP and v6 == 0) or (protocol == ICMPV6 and v6 != 0):
        return icmp(row, seek, zone, found, to_guest) if l4 + SHORT_HEADER <= n \
            else dropped(_NOT_ALLOWED)
    source = 0
    destination = 0
    if has_ports(protocol):
        if l4 + (TCP_HEADER if protocol == TCP else SHORT_HEADER) > n:
            return dropped(_NOT_ALLOWED)
        source, destination = ld16be(head + l4), ld16be(head + l4 + 2)
        if protocol == UDP and is_dhcp(source, destination, version_of(found), to_guest):
            return PASS
    if to_guest:
        st64(seek + S.flow, flow_of(zone, protocol, destination, source) | v6)
    else:
        st64(seek + S.flow, flow_of(zone, protocol, source, destination) | v6)
    return FLOW | found << FOUND


# ---------------------------------------------------------------- ICMP
@kernel
def is_vital(kind, hops, to_guest):
    """An ICMPv6 message without which IPv6 does not work (RFC 4890, 4.4.1)? Advertisements of
    routers, and queries for listeners, go to guests only; questions for routers from them only."""
    if kind == 135 or kind == 136:
        return hops == 255
    if kind == 131 or kind == 132 or kind == 143:
        return hops == 1
    if to_guest:
        return (kind == 134 and hops == 255) or (kind == 130 and hops == 1)
    return kind == 133 and hops == 255


@kernel
def query_type(kind, v6):
    """The type of the question that an ICMP message is, or (+ 256) that it answers; 0: neither."""
    if v6 != 0:
        if kind == ECHO6:
            return kind
        return ECHO6 | 256 if kind == ECHO6 + 1 else 0
    if kind == 0:
        return 8 | 256
    if kind < 32 and _ASKS >> kind & 1 != 0:
        return kind
    return kind - 1 | 256 if 13 < kind < 32 and _ASKS >> (kind - 1) & 1 != 0 else 0


@kernel
def query_flow(zone, protocol, question, number, asked_by_remote):
    """The ``flow`` of a query: ``question`` of ``query_type``, ``number`` its identifier."""
    asker = ASKED_BY_REMOTE if asked_by_remote else 0
    return flow_of(zone, protocol, number, question & 0xFF | asker)


@kernel
def icmp(row, seek, zone, found, to_guest):
    """Note what an ICMP message belongs to; -> what to do."""
    head, l4, protocol = ld64(row + R.head), l4_of(found), protocol_of(found)
    v6 = V6 if version_of(found) == 6 else 0
    kind, code = ld8(head + l4), ld8(head + l4 + 1)
    # For the rules, in the place of ports: as if the frame began something.
    st64(seek + S.flow, query_flow(zone, protocol, kind, 0, to_guest) | v6)
    error = 1 <= kind <= _LAST_ERROR6 if v6 != 0 else kind < 32 and _ERRORS4 >> kind & 1 != 0
    if error:
        if is_fragment(found):
            return dropped(_NOT_ALLOWED)
        return RELATED | found << FOUND
    if v6 != 0 and not is_fragment(found) \
            and is_vital(kind, ld8(head + l3_of(found) + 7), to_guest):
        return PASS
    question = query_type(kind, v6)
    if question == 0 or code != 0:
        return RULES | found << FOUND
    answer = question >> 8 != 0
    st64(seek + S.flow, query_flow(zone, protocol, question, ld16be(head + l4 + 4),
                                   answer != to_guest) | v6)
    return FLOW | (ANSWER if answer else 0) | found << FOUND


@kernel
def inner_key(row, seek, zone, found, to_guest):
    """Note the key of the packet that an ICMP error is about; -> False where it has none, or was
    not sent by whom the error is for."""
    head, l3 = ld64(row + R.head), l3_of(found)
    n = min(ld64(row + R.len), HEAD)
    at = l4_of(found) + SHORT_HEADER
    inner = ipv6_layers(head, n, at) if version_of(found) == 6 else ipv4_layers(head, n, at)
    if inner < 0:
        return False
    version, protocol, l4 = version_of(inner), protocol_of(inner), l4_of(inner)
    far, mine, size = (l3 + 16, at + 12, 4) if version == 4 else (l3 + 24, at + 8, 16)
    for k in range(0, size, 4):
        if ld32be(head + far + k) != ld32be(head + mine + k):
            return False
    later = ld16be(head + at + 6) & 0x1FFF != 0 if version == 4 else is_fragment(inner)
    if later or protocol == HIDDEN or l4 + SHORT_HEADER > n \
            or not note_addresses(seek, head + at, version, not to_guest):
        return False
    v6 = V6 if version == 6 else 0
    if (protocol == ICMP and v6 == 0) or (protocol == ICMPV6 and v6 != 0):
        question = query_type(ld8(head + l4), v6)
        st64(seek + S.flow, query_flow(zone, protocol, question, ld16be(head + l4 + 4),
                                       (question >> 8 != 0) == to_guest) | v6)
        return question != 0
    near_port = 0
    far_port = 0
    if has_ports(protocol):
        near_port, far_port = ld16be(head + l4), ld16be(head + l4 + 2)
    if to_guest:
        st64(seek + S.flow, flow_of(zone, protocol, near_port, far_port) | v6)
    else:
        st64(seek + S.flow, flow_of(zone, protocol, far_port, near_port) | v6)
    return True


# ---------------------------------------------------------------- fragments
@kernel
def fragment_header(head, n, l3):
    """Where the fragment header of the IPv6 packet at ``l3`` is, or 0."""
    protocol = ld8(head + l3 + 6)
    at = l3 + 40
    for _ in range(HEAD // 8):
        if protocol == FRAGMENT or at + 8 > n:
            break
        if protocol != HOP_BY_HOP and protocol != ROUTING and protocol != OPTIONS:
            break
        protocol = ld8(head + at)
        at += 8 * (ld8(head + at + 1) + 1)
    return at if protocol == FRAGMENT and at + 8 <= n else 0


@kernel
def piece_flow(row, zone, found, to_guest):
    """The ``flow`` of a fragment's datagram (its protocol only where all pieces say the same)."""
    head, l3 = ld64(row + R.head), l3_of(found)
    way = PIECE | (TO_GUEST if to_guest else 0)
    if version_of(found) == 4:
        return flow_of(zone, ld8(head + l3 + 9), 0, 0) | ld16be(head + l3 + 4) | way
    at = fragment_header(head, min(ld64(row + R.len), HEAD), l3)
    number = ld32be(head + at + 4) if at != 0 else 0
    return flow_of(zone, FRAGMENT, 0, 0) | number | way | V6


@kernel
def piece_place(row, found):
    """Where a fragment lies: its offset in units of 8 bytes << 1 | more follow; -1: malformed."""
    head, l3 = ld64(row + R.head), l3_of(found)
    if version_of(found) == 4:
        word = ld16be(head + l3 + 6)
        return (word & 0x1FFF) << 1 | word >> 13 & 1
    at = fragment_header(head, min(ld64(row + R.len), HEAD), l3)
    if at == 0:
        return -1
    word = ld16be(head + at + 2)
    return word >> 3 << 1 | word & 1


@kernel
def packet_end(head, l3, version):
    """Where the IP packet at ``l3`` says that it ends."""
    return l3 + (ld16be(head + l3 + 2) if version == 4 else 40 + ld16be(head + l3 + 4))


@kernel
def fragment(row, seek, zone, found, to_guest):
    """Note what a fragment belongs to; -> what to do."""
    place = piece_place(row, found)
    if place < 0:
        return dropped(_NOT_ALLOWED)
    if place >> 1 != 0:
        if place >> 1 < FIRST_OFFSET:
            return dropped(_NOT_ALLOWED)
        st64(seek + S.flow, piece_flow(row, zone, found, to_guest))
        return LATER | found << FOUND
    protocol = protocol_of(found)
    size = TCP_HEADER if protocol == TCP else SHORT_HEADER
    end = packet_end(ld64(row + R.head), l3_of(found), version_of(found))
    if protocol == HIDDEN or l4_of(found) + size > end:
        return dropped(_NOT_ALLOWED)
    what = transport(row, seek, zone, found, to_guest)
    if what > 0 and place & 1 != 0:
        what |= FIRST
    return what


