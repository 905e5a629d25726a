# SPDX-License-Identifier: Apache-2.0
"""The headers of test traffic's frames, written and read at full speed.

Used by traffic.py. What identifies a test frame, its kind, number and pattern, follows the headers
of one of three forms:

    PLAIN     Ethernet with the test ethertype: one flow for each pair of stations
    IN_UDP    Ethernet, IPv4, UDP: as many flows as there are ports
    IN_TCP    Ethernet, IPv4, TCP, its checksum left to do, and longer ones left to be cut

A station's IPv4 address is 10 and the last three bytes of its MAC address. RFC 791, 768, 9293.
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16be,
    ld64be,
    shr64,
    st16be,
    st32be,
    st64be,
)
from byway.packet.ethernet import HEADER
from byway.packet.offload import GSO_TCPV4, NEEDS_CSUM, TCP_CHECKSUM
from byway.testing.frames import IPV4, TEST_ETHERTYPE

PLAIN, IN_UDP, IN_TCP = 0, 1, 2
OTHER = -1
_IP_HEADER, _UDP_HEADER, _TCP_HEADER = 20, 8, 20
_UDP, _TCP = 17, 6
_L4 = HEADER + _IP_HEADER
FLOW_PLACES = 4096
LONGEST_HEADERS = _IP_HEADER + _TCP_HEADER  # behind Ethernet's


@kernel
def headers_of(form):
    """Bytes between the Ethernet header and what identifies a test frame."""
    if form == IN_UDP:
        return _IP_HEADER + _UDP_HEADER
    return _IP_HEADER + _TCP_HEADER if form == IN_TCP else 0


@kernel
def form_of(head, length, least):
    """The form of a frame by its first bytes; OTHER for none, or for one too short: ``least`` bytes
    follow the headers."""
    ethertype = ld16be(head + 12)
    form = OTHER
    if ethertype == TEST_ETHERTYPE:
        form = PLAIN
    elif ethertype == IPV4 and length >= _L4 and ld8(head + HEADER) == 0x45:
        protocol = ld8(head + HEADER + 9)
        if protocol == _UDP:
            form = IN_UDP
        elif protocol == _TCP:
            form = IN_TCP
    if length < HEADER + headers_of(form) + least:
        return OTHER
    return form


@kernel
def ports_of(head, form):
    """Source port << 16 | destination port; 0 for a form without."""
    if form == PLAIN:
        return 0
    return ld16be(head + _L4) << 16 | ld16be(head + _L4 + 2)


@kernel
def source_of(head):
    """The source address << 16."""
    return ld64be(head + 6) & ~0xFFFF


@kernel
def folded(total):
    """A sum of 16-bit words in 16 bits (RFC 1071)."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@kernel
def sum_of(at, n):
    """The sum of the 16-bit words of n bytes (an even number)."""
    total = 0
    for k in range(0, n, 2):
        total += ld16be(at + k)
    return total


@kernel
def station_ip(mac):
    """The IPv4 address of a station; its MAC address is given << 16."""
    return 0x0A000000 | (shr64(mac, 16) & 0xFFFFFF)


@kernel
def write_headers(at, length, destination, source, form, ports, gso_size):
    """Write the headers of a test frame of ``length`` bytes; -> its offload word.

    ``destination``, ``source``: MAC addresses << 16. ``gso_size``: longest payload of a segment
    (IN_TCP).
    """
    st64be(at, destination)
    st64be(at + 6, source)
    if form == PLAIN:
        st16be(at + 12, TEST_ETHERTYPE)
        return 0
    ip = at + HEADER
    st16be(at + 12, IPV4)
    st16be(ip, 0x4500)
    st16be(ip + 2, (length - HEADER) & 0xFFFF)
    st32be(ip + 4, 0x4000)  # identification 0, do not fragment
    st16be(ip + 8, 64 << 8 | (_UDP if form == IN_UDP else _TCP))
    st16be(ip + 10, 0)
    st32be(ip + 12, station_ip(source))
    st32be(ip + 16, station_ip(destination))
    st16be(ip + 10, ~folded(sum_of(ip, _IP_HEADER)) & 0xFFFF)
    l4 = at + _L4
    st32be(l4, ports)
    if form == IN_UDP:
        st32be(l4 + 4, (length - _L4) << 16)  # no checksum
        return 0
    st64be(l4 + 4, 0)  # sequence and acknowledgement
    st32be(l4 + 12, 0x5010FFFF)  # 5 words, ACK, window
    pseudo = sum_of(ip + 12, 8) + _TCP + length - _L4
    st32be(l4 + 16, folded(pseudo) << 16)
    word = NEEDS_CSUM | _L4 << 32 | TCP_CHECKSUM << 48
    if length > _L4 + _TCP_HEADER + gso_size:
        word |= GSO_TCPV4 << 8 | gso_size << 16
    return word


@kernel
def flow_place(source, ports):
    """Where the order of a flow is kept: 0 to FLOW_PLACES - 1. Stations whose addresses end with
    the same four bits share, as do every 256th flow's ports."""
    return (shr64(source, 16) & 0xF) << 8 | (ports >> 16) & 0xFF

