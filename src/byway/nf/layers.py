# SPDX-License-Identifier: Apache-2.0
"""Where the headers of a frame begin, in plain Python.

Used by headers.py and frame.py. RFC 791, 8200, 9293, 768, 792, 4443, 7348; IEEE 802.1Q.

Only the first HEAD bytes count: that is how much of a frame the switch copies out before anything
looks at it. A header is there if all of it is.
"""

from dataclasses import dataclass, field

HEAD = 128
VLAN, SERVICE_VLAN, ARP, IPV4, IPV6 = 0x8100, 0x88A8, 0x0806, 0x0800, 0x86DD
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60
HIDDEN = 255  # the protocol of a frame whose extension headers do not end in its head
VXLAN_PORT = 4789
ERRORS = {4: (3, 4, 5, 11, 12), 6: (1, 2, 3, 4)}  # types of ICMP and ICMPv6 that quote a packet
_ARP = bytes.fromhex("0001 0800 06 04")  # Ethernet, IPv4, and how long their addresses are
_CHECKSUM = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}  # where it stands in the header


@dataclass
class Layers:
    """``l2``, ``l3``, ``l4``: where they begin, in bytes from the frame's start. ``version``: 4, 6
    or 0 (not IP). ``protocol``: IP's. ``later``: a fragment, but not the first. ``checksum``: where
    the transport's stands, 0: nowhere. ``starts``: where each header begins that is there."""

    l2: int = 0
    l3: int = 0
    l4: int = 0
    version: int = 0
    protocol: int = 0
    fragment: bool = False
    later: bool = False
    checksum: int = 0
    starts: dict[str, int] = field(default_factory=dict)

    def has(self, header: str) -> bool:
        """Is this header there?"""
        return header in self.starts

    def start(self, header: str) -> int:
        """Where it begins, -1 where it is not there."""
        return self.starts.get(header, -1)


NOTHING = Layers()


def number(head: bytes | bytearray, at: int, size: int) -> int:
    """``size`` bytes as a number, network byte order."""
    return int.from_bytes(head[at : at + size], "big")


def ethernet(head: bytes, l2: int = 0) -> Layers:
    """The headers of the Ethernet frame at ``l2`` in a frame's first HEAD bytes."""
    if l2 + 14 > len(head):
        return NOTHING
    found = Layers(l2=l2, l3=l2 + 14, starts={"eth": l2})
    kind = number(head, l2 + 12, 2)
    for _ in range(2):
        if kind in (VLAN, SERVICE_VLAN) and found.l3 + 4 <= len(head):
            found.starts.setdefault("vlan", l2 + 12)
            kind = number(head, found.l3 + 2, 2)
            found.l3 += 4
    if kind == ARP and found.l3 + 28 <= len(head) and head[found.l3 : found.l3 + 6] == _ARP:
        found.starts["arp"] = found.l3
    if kind == IPV4:
        _ipv4(head, found)
    if kind == IPV6:
        _ipv6(head, found)
    return found


def packet(head: bytes, l3: int, version: int) -> Layers:
    """The headers of the IP packet at ``l3`` that an ICMP error quotes: of TCP, the first 8 bytes
    will do."""
    found = Layers(l3=l3)
    if version == 4:
        _ipv4(head, found, quoted=True)
    else:
        _ipv6(head, found, quoted=True)
    return found if found.version else NOTHING


def _ipv4(head: bytes, found: Layers, quoted: bool = False) -> None:
    l3 = found.l3
    if l3 + 20 > len(head):
        return
    l4 = l3 + 4 * (head[l3] & 15)
    if head[l3] >> 4 != 4 or head[l3] & 15 < 5 or l4 > len(head):
        return
    found.version, found.l4, found.protocol = 4, l4, head[l3 + 9]
    found.starts["ipv4"] = l3
    place = number(head, l3 + 6, 2)
    found.fragment, found.later = place & 0x3FFF != 0, place & 0x1FFF != 0
    _transport(head, found, quoted)


def _ipv6(head: bytes, found: Layers, quoted: bool = False) -> None:
    l3 = found.l3
    if l3 + 40 > len(head) or head[l3] >> 4 != 6:
        return
    found.version = 6
    found.starts["ipv6"] = l3
    protocol, at = head[l3 + 6], l3 + 40
    while protocol in (HOP_BY_HOP, ROUTING, OPTIONS, FRAGMENT) and not found.later:
        if at + 8 > len(head):
            protocol = HIDDEN
            break
        length = 8 if protocol == FRAGMENT else 8 * (head[at + 1] + 1)
        if at + length > len(head):
            protocol = HIDDEN
            break
        if protocol == FRAGMENT:  # the unit of the offset is 8 bytes, in the upper 13 bits
            found.fragment = True
            found.later = number(head, at + 2, 2) & 0xFFF8 != 0
        protocol, at = head[at], at + length
    found.l4, found.protocol = at, protocol
    _transport(head, found, quoted)


def _transport(head: bytes, found: Layers, quoted: bool) -> None:
    """What stands at l4, in the first fragment or where there are none."""
    l4, protocol, there = found.l4, found.protocol, len(head) - found.l4
    if found.later or there < 8:
        return
    starts = found.starts
    if protocol == TCP and (there >= 20 or quoted):
        starts["tcp_ports"] = starts["ports"] = l4
        if there >= 20:
            starts["tcp"] = l4
    elif protocol == UDP:
        starts["udp"] = starts["ports"] = l4
    elif protocol == ICMP and found.version == 4:
        starts["icmp"] = l4
    elif protocol == ICMPV6 and found.version == 6:
        starts["icmpv6"] = l4
    else:
        return
    if protocol != TCP or there >= 20:
        found.checksum = l4 + _CHECKSUM[protocol]
