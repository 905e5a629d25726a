# SPDX-License-Identifier: Apache-2.0
"""The uplink, into Byway: a port on which Byway itself has an address, and its tunnels end.

Used by worker, before all other stages but the trunk's; control fills the record. The other
direction is ports/tunnel_uplink.py. RFC 7348, 791, 8200, 768, 6935 (UDP without checksum over
IPv6), 6040.

Theory of operation
-------------------
The port is a member of its network as any other. Of its frames these end here: those to the
uplink's own MAC address, and the ARP requests and neighbour solicitations that ask for its own IP
address. All others are left to the switch.

A VXLAN packet from a known host, of a known network, becomes the frame inside: its outer headers
are taken off in place, and the row comes from that host's tunnel from then on (BATCH.origins).
Everything outside is checked before it is believed: IP's version, lengths and checksum, no
fragments (a tunnel's end does not put them together), UDP's length and, where there is one, its
checksum. What the port's peer said is left to do on the frame (packet.offload) speaks of the inner
frame if it reaches that far; it is held against it then, since nobody has yet.

Answers to questions: uplink_answers.py. Whatever else is sent to the uplink's own address, and
answers that were learned from, is dropped (TO_UPLINK).

Limits: IPv6 extension headers are not looked behind. Tags are the trunk's to take off: the stage
may stand on a trunk's sub-port, as it looks only at rows of its own origin. Several datagrams that
come as one large one (UDP GSO, as interfaces of one machine hand it on) are to be cut before.
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    add64,
    ld8,
    ld16be,
    ld32be,
    ld64,
    ld64_acq,
    ld64be,
    likely,
    shr64,
    st64,
    unlikely,
)
from byway.packet.batch import (
    HEAD,
    MIN_FRAME,
    UNDECIDED,
    R,
    batch_at,
    dropped,
    origin_word,
)
from byway.packet.checksum import folded, sum_bytes, swapped
from byway.packet.counters import C
from byway.packet.layers import IPV4, IPV6, UDP
from byway.packet.offload import (
    DATA_VALID,
    GSO_UDP_L4,
    NEEDS_CSUM,
    UDP_HEADER,
    checked,
    word_csum_start,
    word_gso,
)
from byway.packet.reason import Reason
from byway.packet.reshape import shorten, strip
from byway.packet.row_sum import sum_row
from byway.packet.tunnels import COUNTS, PORT, find_remote, network_of
from byway.packet.unfinished import left_undone
from byway.packet.vxlan import HEADER, combine_ecn, vni_of
from byway.switch.arp import L3, is_arp
from byway.switch.nd import ICMPV6, icmpv6_type
from byway.switch.uplink_answers import (
    MAPPED,
    K,
    arp_said,
    echo,
    echo6,
    is_discovery,
    is_own,
    nd_said,
    uplink_at,
)

_UNKNOWN_VNI, _UNKNOWN_TUNNEL = int(Reason.UNKNOWN_VNI), int(Reason.UNKNOWN_TUNNEL)
_BAD_TUNNEL, _CONGESTED = int(Reason.BAD_TUNNEL), int(Reason.CONGESTED)
_TO_UPLINK, _BAD_OFFLOAD = int(Reason.TO_UPLINK), int(Reason.BAD_OFFLOAD)

_ICMP = 1
_ICMP_HEADER = 8
_FRAGMENT = 0x3FFF
_GROUP = 1 << 40  # of a MAC address of 48 bits


# ---------------------------------------------------------------- out of the tunnel
@kernel
def good_sum(uplink, row, l4, length):
    """Is the UDP checksum of the datagram of ``length`` bytes at ``l4`` right, or not to be
    looked at? (0: its sender made none; and what the port's peer has checked, or is still to do.)
    """
    head = ld64(row + R.head)
    if ld64(row + R.offload) & (NEEDS_CSUM | DATA_VALID) != 0:
        return True
    if ld16be(head + l4 + 6) == 0:
        return ld64(uplink + K.strict) == 0
    version = ld8(head + L3) >> 4
    addresses = sum_bytes(head + L3 + 12, 8) if version == 4 else sum_bytes(head + L3 + 8, 32)
    pseudo = addresses + swapped(UDP) + swapped(length)
    return folded(pseudo + sum_row(row, l4, length)) == 0xFFFF


@kernel
def set_offload(batch, row):
    """What is left to do on the frame that was in the tunnel; -> 0, or the reason to drop it."""
    word = ld64(row + R.offload)
    if word & NEEDS_CSUM == 0:
        word = left_undone(row)
        st64(row + R.offload, word)
    else:
        word = checked(row)
        if unlikely(word < 0):
            return _BAD_OFFLOAD
        st64(row + R.offload, word)
    batch_at(batch).offloads |= word
    return 0


@kernel
def decapsulate(uplink, batch, row, l4, high, low, ecn):
    """The row's UDP datagram at ``l4``, from an address, becomes the frame in it; -> its origin
    word, or -1 and why not in R.out."""
    u = uplink_at(uplink)
    head = ld64(row + R.head)
    length = ld16be(head + l4 + 4)
    start = l4 + UDP_HEADER + HEADER
    word = ld64(row + R.offload)
    reason = 0
    entry = 0
    port = 0
    network = 0
    if l4 + length < start + MIN_FRAME or not good_sum(uplink, row, l4, length) \
            or (word_gso(word) != 0 and word_csum_start(word) < start):
        reason = _BAD_TUNNEL
    else:
        entry = find_remote(u.remotes, high, low)
        vni = vni_of(head + l4 + UDP_HEADER)
        network = network_of(u.vnis, max(vni, 0))
        if entry != 0:
            port = ld64_acq(entry + PORT)  # once: the host may go meanwhile
        if port <= 0:
            reason = _UNKNOWN_TUNNEL
        elif vni < 0:
            reason = _BAD_TUNNEL
        elif network < 0:
            reason = _UNKNOWN_VNI
    if likely(reason == 0):
        if unlikely(ld64(row + R.len) > l4 + length):
            shorten(row, l4 + length)
        strip(row, 0, start)
        reason = set_offload(batch, row)
        if not combine_ecn(head, min(ld64(row + R.len), HEAD), ecn):
            reason = _CONGESTED
    if unlikely(reason != 0):
        st64(row + R.out, dropped(reason))
        return -1
    counters = ld64(entry + COUNTS)
    if counters != 0:
        add64(counters + C.frames, 1)
        add64(counters + C.bytes, ld64(row + R.len))
    return origin_word(network, port - 1)


# ---------------------------------------------------------------- to our own address
@kernel
def own_ipv4(uplink, batch, row):
    """An IPv4 packet to our MAC address; -> the origin word of the frame that it held, or -1."""
    head = ld64(row + R.head)
    n = ld64(row + R.len)
    ip = head + L3
    if n < L3 + 20:
        st64(row + R.out, dropped(_BAD_TUNNEL))
        return -1
    header = 4 * (ld8(ip) & 15)
    l4 = L3 + header
    end = L3 + ld16be(ip + 2)
    if ld8(ip) >> 4 != 4 or header < 20 or end < l4 + UDP_HEADER or end > n \
            or folded(sum_bytes(ip, header)) != 0xFFFF or ld16be(ip + 6) & _FRAGMENT != 0:
        st64(row + R.out, dropped(_BAD_TUNNEL))
        return -1
    st64(row + R.out, dropped(_TO_UPLINK))
    if not is_own(uplink, 0, MAPPED | ld32be(ip + 16)):
        return -1
    protocol = ld8(ip + 9)
    if likely(protocol == UDP):
        if ld16be(head + l4 + 2) == uplink_at(uplink).udp_port:
            if l4 + ld16be(head + l4 + 4) > end:
                st64(row + R.out, dropped(_BAD_TUNNEL))
                return -1
            st64(row + R.out, UNDECIDED)
            return decapsulate(uplink, batch, row, l4, 0, MAPPED | ld32be(ip + 12), ld8(ip + 1) & 3)
    elif protocol == _ICMP:
        echo(uplink, row, l4)
    return -1


@kernel
def own_ipv6(uplink, batch, row):
    """As ``own_ipv4``, for IPv6."""
    head = ld64(row + R.head)
    n = ld64(row + R.len)
    ip = head + L3
    l4 = L3 + 40
    if n < l4 or ld8(ip) >> 4 != 6 or l4 + ld16be(ip + 4) > n or ld16be(ip + 4) < UDP_HEADER:
        st64(row + R.out, dropped(_BAD_TUNNEL))
        return -1
    st64(row + R.out, dropped(_TO_UPLINK))
    protocol = ld8(ip + 6)
    if protocol == ICMPV6:
        kind = icmpv6_type(row)
        if is_discovery(kind):
            nd_said(uplink, row, kind, batch_at(batch).now)
            return -1
    if not is_own(uplink, ld64be(ip + 24), ld64be(ip + 32)):
        return -1
    if likely(protocol == UDP):
        if ld16be(head + l4 + 2) == uplink_at(uplink).udp_port:
            if ld16be(head + l4 + 4) > ld16be(ip + 4):
                st64(row + R.out, dropped(_BAD_TUNNEL))
                return -1
            st64(row + R.out, UNDECIDED)
            return decapsulate(uplink, batch, row, l4, ld64be(ip + 8), ld64be(ip + 16),
                               ld8(ip + 1) >> 4 & 3)
    elif protocol == ICMPV6:
        echo6(uplink, row)
    return -1


@kernel
def own_frame(uplink, batch, row):
    """A frame to our MAC address; -> the origin word of the frame that it held, or -1."""
    kind = ld16be(ld64(row + R.head) + 12)
    if likely(kind == IPV4):
        return own_ipv4(uplink, batch, row)
    if kind == IPV6:
        return own_ipv6(uplink, batch, row)
    st64(row + R.out, dropped(_TO_UPLINK))
    if is_arp(row):
        arp_said(uplink, row, batch_at(batch).now)
    return -1


@kernel
def group_frame(uplink, batch, row):
    """A frame to a group: answer it where it asks for us, learn from it."""
    if is_arp(row):
        arp_said(uplink, row, batch_at(batch).now)
        return
    kind = icmpv6_type(row)
    if is_discovery(kind):
        nd_said(uplink, row, kind, batch_at(batch).now)


# ---------------------------------------------------------------- the stage
@kernel
def to_be_cut(uplink, row):
    """Does the row hold many datagrams in one, for the uplink's own MAC address?"""
    return word_gso(ld64(row + R.offload)) == GSO_UDP_L4 and ld64(row + R.out) == UNDECIDED \
        and shr64(ld64be(ld64(row + R.head)), 16) == ld64(uplink + K.mac)


@kernel
def uplink_rx(uplink, batch):
    """Take out of a batch what is for the uplink itself: tunnels' frames, questions, answers."""
    u = uplink_at(uplink)
    b = batch_at(batch)
    rows, origins, own, mac = b.rows, b.origins, u.origin, u.mac
    for k in range(b.n):
        row = rows + 64 * k
        if ld64(row + R.out) != UNDECIDED or ld64(row + R.len) < MIN_FRAME \
                or ld64(origins + 8 * k) != own:
            continue
        destination = shr64(ld64be(ld64(row + R.head)), 16)
        if likely(destination == mac):
            word = own_frame(uplink, batch, row)
            if likely(word >= 0):
                st64(origins + 8 * k, word)
            elif unlikely(ld64(row + R.out) == UNDECIDED):  # it is not to be switched here
                st64(row + R.out, dropped(_UNKNOWN_TUNNEL))
        elif destination & _GROUP != 0:
            group_frame(uplink, batch, row)
