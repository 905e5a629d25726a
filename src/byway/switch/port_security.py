# SPDX-License-Identifier: Apache-2.0
"""Port security: a guest may speak only as who it is, and may not play DHCP server or router.

Used by worker (staging.py: one call for each run) and control, which makes one for each port that
has it. Uses address_pairs.py, and arp.py and nd.py for where fields are.

Theory of operation
-------------------
A port has pairs of a MAC address and a prefix of IP addresses. Of every frame that comes in:

* the source MAC address is in a pair (SPOOFED_MAC);
* the source IP address is in a pair with that MAC address (SPOOFED_IP). Before a guest has one it
  may ask for it: DHCP from 0.0.0.0 (RFC 2131, 4.1); duplicate address detection, router
  solicitations and multicast reports from :: (RFC 4862, 5.4.2; RFC 4861, 4.1; RFC 3590). The
  link-local address made of each MAC address is in the pairs; others have to be configured;
* what ARP and neighbour discovery say is in a pair (SPOOFED_ARP): an ARP message's sender, what a
  probe wants to have, an advertisement's target, the link-layer addresses in options;
* it is no answer of a DHCP server (DHCP_SERVER: RFC 2131, RFC 8415) and no router advertisement
  (ROUTER_ADVERT: RFC 6105), unless the port is trusted with them.

Ways around. VLAN tags (two at the most) are looked through, whether anybody takes them off or not.
IPv6's extension headers are, up to the protocol, as long as they lie in the head (RFC 7112, 7113).
What hides its protocol is dropped (HIDDEN_HEADER): more tags, IP or ARP in 802.2 LLC/SNAP (RFC
1042), headers that do not end in the head and in the packet, a first fragment without ports (the
padding behind a packet is not looked at: its receiver takes it off). Of later fragments only
the source address is checked: without the first one, which was held against all of this, nobody can
put them together, and nothing in the middle of a datagram changes what its beginning said (an
overlap of fragments is forbidden, RFC 5722; IPv4's ports lie in the first 8 bytes, which only a
first fragment has).

What a port sends from steadily costs two comparisons: the MAC and IP address of the last frame that
passed are remembered while a run is looked at.

Limits: MAX_PAIRS pairs a port. ARP for other hardware or protocols than IPv4 over Ethernet is
refused, and so is a solicitation or advertisement that does not fit into the head.
"""

from collections.abc import Collection, Sequence

from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import ld8, ld16be, ld32be, ld64, ld64be, mul64, shr64, st64, unlikely
from byway.packet.batch import HEAD, MIN_FRAME, UNDECIDED, R, batch_at, dropped
from byway.packet.layers import (
    FRAGMENT,
    HIDDEN,
    HOP_BY_HOP,
    IPV4,
    IPV6,
    OPTIONS,
    ROUTING,
    SERVICE_VLAN,
    UDP,
    VLAN,
)
from byway.packet.offload import word_gso
from byway.packet.reason import Reason
from byway.switch.address_pairs import IPV4_MAPPED, has_mac, has_pair, pairs_of
from byway.switch.arp import ARP, ARP_BYTES, ARP_ETHERNET_IPV4, REQUEST
from byway.switch.nd import (
    ADVERTISEMENT,
    ICMPV6,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
    SOLICITATION,
    SOURCE_LINK,
    TARGET_LINK,
)

_SPOOFED_MAC, _SPOOFED_IP = int(Reason.SPOOFED_MAC), int(Reason.SPOOFED_IP)
_SPOOFED_ARP, _HIDDEN_HEADER = int(Reason.SPOOFED_ARP), int(Reason.HIDDEN_HEADER)
_DHCP_SERVER, _ROUTER_ADVERT = int(Reason.DHCP_SERVER), int(Reason.ROUTER_ADVERT)
PASSES = 0  # no reason to drop

# pairs: address of n times PAIR. trusted: flags.
SECURITY, security_at, S = record("security", ["pairs", "n", "trusted"])
TRUSTED_DHCP, TRUSTED_RA = 1, 2
# What passed last, in the batch's scratch: MAC << 16, high and low half of its IP address.
LAST_HIGH, LAST_LOW = 8, 16

MAC_MASK = ~0xFFFF
DHCP4_SERVER, DHCP4_CLIENT = 67, 68
DHCP6_CLIENT, DHCP6_SERVER = 546, 547
OLD_TAG = 0x9100  # a service tag from before IEEE 802.1ad
LENGTHS = 0x600  # below it stands a length, and IEEE 802.2 follows
SNAP = 0xAAAA03
AUTHENTICATION, MOBILITY, HIP, SHIM6 = 51, 135, 139, 140  # extension headers (RFC 7045)
MLD_REPORT, MLD_DONE, MLD2_REPORT = 131, 132, 143
LATER = 1 << 20  # of ``upper``: a fragment that is not the first
OFFSET4 = 0x1FFF


@kernel
def allows(record, mac, version, high, low):
    """May the port have this IP address with ``mac`` (<< 16)?"""
    s = security_at(record)
    return has_pair(s.pairs, s.n, mac, version, high, low)


@kernel
def speaks(record, last, mac, version, high, low):
    """As ``allows``, for the source of a frame: remembered where it may."""
    if ld64(last) == mac and ld64(last + LAST_LOW) == low and ld64(last + LAST_HIGH) == high:
        return True
    if not allows(record, mac, version, high, low):
        return False
    st64(last, mac)
    st64(last + LAST_HIGH, high)
    st64(last + LAST_LOW, low)
    return True


@kernel
def is_trusted(record, flag):
    """Is the port trusted with it?"""
    return ld64(record + S.trusted) & flag != 0


# ---------------------------------------------------------------- ARP
@kernel
def judge_arp(record, head, l3, n):
    """-> why an ARP message at ``l3`` of n bytes is dropped, or PASSES."""
    arp = head + l3
    if l3 + ARP_BYTES > n or shr64(ld64be(arp), 16) != ARP_ETHERNET_IPV4:
        return _SPOOFED_ARP
    ip = ld32be(arp + 14)
    if ip == 0 and ld16be(arp + 6) == REQUEST:  # a probe (RFC 5227, 2.1.1)
        ip = ld32be(arp + 24)
    if allows(record, ld64be(arp + 8) & MAC_MASK, 4, 0, IPV4_MAPPED | ip):
        return PASSES
    return _SPOOFED_ARP


# ---------------------------------------------------------------- IPv4
@kernel
def judge_ipv4(record, last, mac, head, l3, n):
    """-> why an IPv4 packet at ``l3`` (up to n) is dropped, or PASSES."""
    ip = head + l3
    if l3 + 20 > n or ld8(ip) >> 4 != 4 or ld8(ip) & 15 < 5:
        return _SPOOFED_IP
    source = ld32be(ip + 12)
    asks = False
    if ld8(ip + 9) == UDP and ld16be(ip + 6) & OFFSET4 == 0:
        udp = ip + 4 * (ld8(ip) & 15)
        if udp + 4 > head + n:
            return _HIDDEN_HEADER
        sender, receiver = ld16be(udp), ld16be(udp + 2)
        if (sender == DHCP4_SERVER or receiver == DHCP4_CLIENT) \
                and not is_trusted(record, TRUSTED_DHCP):
            return _DHCP_SERVER
        asks = sender == DHCP4_CLIENT and receiver == DHCP4_SERVER
    if (source == 0 and asks) or speaks(record, last, mac, 4, 0, IPV4_MAPPED | source):
        return PASSES
    return _SPOOFED_IP


# ---------------------------------------------------------------- IPv6
@kernel
def header_length(kind, at):
    """Bytes of the extension header of this kind at ``at``, 0: it is none (RFC 8200, 4)."""
    if kind == HOP_BY_HOP or kind == ROUTING or kind == OPTIONS or kind == MOBILITY or kind == HIP \
            or kind == SHIM6:
        return 8 * (ld8(at + 1) + 1)
    if kind == FRAGMENT:
        return 8
    if kind == AUTHENTICATION:
        return 4 * (ld8(at + 1) + 2)
    return 0


@kernel
def upper(head, l3, n):
    """Where the protocol's header is behind IPv6's: its offset | protocol << 8 (HIDDEN where it
    does not show in n bytes), | LATER for a fragment that does not have it."""
    kind = ld8(head + l3 + 6)
    at = l3 + 40
    for _ in range(HEAD // 8):
        if at + 8 > n:
            break  # the reads below stay in the head: extension headers have 8 bytes at least
        length = header_length(kind, head + at)
        if length == 0:
            break
        if kind == FRAGMENT and ld16be(head + at + 2) >> 3 != 0:
            return at | kind << 8 | LATER
        kind = ld8(head + at)
        at += length
    if at > n or (at + 8 > n and header_length(kind, head) != 0):
        return HIDDEN << 8
    return at | kind << 8


@kernel
def judge_options(mac, head, at, end, kind):
    """-> the link-layer address (<< 16) that the options of type ``kind`` name, ``mac`` where none
    does, 0 where they are malformed or name different ones."""
    named = mac
    seen = False
    for _ in range(HEAD // 8):
        if at >= end:
            break
        length = 8 * ld8(head + at + 1)
        if length == 0 or at + length > end:
            return 0
        if ld8(head + at) == kind:
            other = mul64(ld64be(head + at), 1 << 16)
            if seen and other != named:
                return 0
            named = other
            seen = True
        at += length
    return named


@kernel
def judge_nd(record, mac, head, l3, at, n):
    """-> why a solicitation or advertisement at ``at`` is dropped, or PASSES."""
    kind = ld8(head + at)
    end = l3 + 40 + ld16be(head + l3 + 4)
    fixed = 8 if kind == ROUTER_SOLICITATION else 24
    if end > n or at + fixed > end:
        return _SPOOFED_ARP
    high, low = ld64be(head + l3 + 8), ld64be(head + l3 + 16)
    unspecified = high == 0 and low == 0
    option = TARGET_LINK if kind == ADVERTISEMENT else SOURCE_LINK
    named = judge_options(mac, head, at + fixed, end, option)
    if named == 0:
        return _SPOOFED_ARP
    if kind == ADVERTISEMENT or (kind == SOLICITATION and unspecified):
        high, low = ld64be(head + at + 8), ld64be(head + at + 16)
    elif unspecified:  # a router solicitation, of whom nothing is known yet
        return PASSES if named == mac else _SPOOFED_ARP
    return PASSES if allows(record, named, 6, high, low) else _SPOOFED_ARP


@kernel
def judge_icmpv6(record, mac, head, l3, at, n):
    """-> why an ICMPv6 message at ``at`` is dropped, whatever its source, or PASSES."""
    kind = ld8(head + at)
    if kind == ROUTER_ADVERTISEMENT and not is_trusted(record, TRUSTED_RA):
        return _ROUTER_ADVERT
    if kind == ROUTER_SOLICITATION or kind == SOLICITATION or kind == ADVERTISEMENT:
        return judge_nd(record, mac, head, l3, at, n)
    return PASSES


@kernel
def may_be_nobody(protocol, head, at):
    """May a packet have the unspecified address as its source? (A later fragment's protocol is
    FRAGMENT.)"""
    if protocol != ICMPV6:
        return False
    kind = ld8(head + at)
    return kind == SOLICITATION or kind == ROUTER_SOLICITATION or kind == MLD_REPORT \
        or kind == MLD_DONE or kind == MLD2_REPORT


@kernel
def judge_ipv6(record, last, mac, head, l3, n):
    """-> why an IPv6 packet at ``l3`` (up to n) is dropped, or PASSES."""
    if l3 + 40 > n or ld8(head + l3) >> 4 != 6:
        return _SPOOFED_IP
    found = upper(head, l3, n)
    at, protocol = found & 0xFF, found >> 8 & 0xFF
    first = found & LATER == 0
    if first and (protocol == HIDDEN or ((protocol == UDP or protocol == ICMPV6) and at + 4 > n)):
        return _HIDDEN_HEADER
    if first and protocol == ICMPV6:
        reason = judge_icmpv6(record, mac, head, l3, at, n)
        if reason != PASSES:
            return reason
    if first and protocol == UDP and not is_trusted(record, TRUSTED_DHCP) \
            and (ld16be(head + at) == DHCP6_SERVER or ld16be(head + at + 2) == DHCP6_CLIENT):
        return _DHCP_SERVER
    high, low = ld64be(head + l3 + 8), ld64be(head + l3 + 16)
    if high == 0 and low == 0:
        return PASSES if may_be_nobody(protocol, head, at) else _SPOOFED_IP
    if high == 0 and shr64(low, 32) == 0xFFFF:  # an IPv4 address is none of IPv6's
        return _SPOOFED_IP
    return PASSES if speaks(record, last, mac, 6, high, low) else _SPOOFED_IP


# ---------------------------------------------------------------- frames
@kernel
def is_hidden(kind, head, l3, n):
    """Could somebody find IP or ARP in a frame that seems to have neither?"""
    if kind == VLAN or kind == SERVICE_VLAN or kind == OLD_TAG:
        return True
    if kind >= LENGTHS or l3 + 8 > n:
        return False
    organisation = ld32be(head + l3 + 2) & 0xFFFFFF
    return ld32be(head + l3) >> 8 == SNAP and (organisation == 0 or organisation == 0xF8)


@kernel
def packet_end(row, kind, head, l3, n):
    """Where the IP packet at ``l3`` ends, in the first n bytes of its frame. What is behind is
    padding, which its receiver takes off: it must not stand for a header that is in another
    fragment. (How long a packet is that is to be cut is not what its header says.)"""
    if unlikely(word_gso(ld64(row + R.offload)) != 0):
        return n
    if kind == IPV4:
        return min(n, l3 + ld16be(head + l3 + 2))
    return min(n, l3 + 40 + ld16be(head + l3 + 4))


@kernel
def judge(record, last, row):
    """-> why a frame is dropped, or PASSES."""
    head = ld64(row + R.head)
    n = min(ld64(row + R.len), HEAD)
    if n < MIN_FRAME:
        return PASSES  # it is a runt: others say so
    mac = ld64be(head + 6) & MAC_MASK
    s = security_at(record)
    if unlikely(ld64(last) != mac and not has_mac(s.pairs, s.n, mac)):
        return _SPOOFED_MAC
    l3 = 14
    kind = ld16be(head + 12)
    for _ in range(2):
        if (kind == VLAN or kind == SERVICE_VLAN) and l3 + 4 <= n:
            kind = ld16be(head + l3 + 2)
            l3 += 4
    if kind == IPV4 or kind == IPV6:
        n = packet_end(row, kind, head, l3, n)
    if kind == IPV4:
        return judge_ipv4(record, last, mac, head, l3, n)
    if kind == IPV6:
        return judge_ipv6(record, last, mac, head, l3, n)
    if kind == ARP:
        return judge_arp(record, head, l3, n)
    return _HIDDEN_HEADER if is_hidden(kind, head, l3, n) else PASSES


@kernel
def security_rx(record, batch):
    """Drop what the port may not send of a run's undecided rows."""
    b = batch_at(batch)
    last = b.scratch
    st64(last, -1)  # no MAC << 16
    for k in range(b.n):
        row = b.rows + 64 * k
        if ld64(row + R.out) == UNDECIDED:
            reason = judge(record, last, row)
            if unlikely(reason != PASSES):
                st64(row + R.out, dropped(reason))


class PortSecurity:
    """What one port may do; never changes (another one is made). ``address``: of its record."""

    def __init__(self, pairs: Sequence[tuple[int, str | None]],
                 trusted: Collection[str] = ()) -> None:
        """``pairs``: (MAC address as a number of 48 bits, IP address or prefix; None: any).
        ``trusted``: with "dhcp", "ra". ValueError: no or too many pairs, no IP address, another
        word."""
        flags = {"dhcp": TRUSTED_DHCP, "ra": TRUSTED_RA}
        if unknown := set(trusted) - set(flags):
            raise ValueError(f'trusted with {", ".join(sorted(unknown))}: there are dhcp and ra')
        self._pairs = pairs_of(pairs)
        self.record = alloc(SECURITY, 1)
        row = self.record[0]
        row["pairs"], row["n"] = address_of(self._pairs), len(self._pairs)
        row["trusted"] = sum(flags[word] for word in set(trusted))
        self.address = address_of(self.record)
