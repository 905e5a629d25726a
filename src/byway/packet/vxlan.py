# SPDX-License-Identifier: Apache-2.0
"""VXLAN (RFC 7348): its header, how much it costs of an MTU, and ECN across a tunnel (RFC 6040).

Used by ports (tunnel over UDP sockets), switch (tunnel over a port of Byway's own) and control (the
MTU of networks). Sizes here are bytes; an MTU is IP's: Ethernet's own header is not in it.

The header is 8 bytes: flags, of which only I (the VNI is valid) means something, 24 reserved bits,
24 bits of VNI, 8 reserved. Reserved bits are sent as 0 and ignored where they come from others
(RFC 7348, 5).
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld16, ld16be, ld32be, st8, st16, st64be
from byway.packet.checksum import folded
from byway.packet.ethernet import HEADER as ETHERNET
from byway.packet.ethernet import MAX_TAGS, VLAN_TAG
from byway.packet.layers import IPV4, IPV6, SERVICE_VLAN, VLAN

PORT = 4789  # RFC 7348, 5
HEADER = 8
MAX_VNI = (1 << 24) - 1
# The dynamic ports, of which a flow's hash chooses one (RFC 7348, 5; RFC 6335, 6).
FIRST_SOURCE, LAST_SOURCE = 49152, 65535
UDP_HEADER = 8
IP_HEADER = {4: 20, 6: 40}
_FLAGS = 0x08000000  # the first four bytes: I is set
_HEADER = 0x08000000 << 32

# ECN's two bits (RFC 3168, 5).
NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3


def overhead(version: int) -> int:
    """What a tunnel over IPv4 or IPv6 takes of the underlay's MTU: 50 or 70 bytes."""
    return IP_HEADER[version] + UDP_HEADER + HEADER + ETHERNET


def longest_inner(mtu: int, version: int) -> int:
    """Bytes of the longest frame that fits into the underlay's MTU once it is encapsulated."""
    return mtu - IP_HEADER[version] - UDP_HEADER - HEADER


# ---------------------------------------------------------------- header
@kernel
def put_vxlan(at, vni):
    """Write a VXLAN header."""
    st64be(at, _HEADER | vni << 8)


@kernel
def vni_of(at):
    """The VNI in the VXLAN header at ``at``, -1 where the header says that it holds none."""
    if ld32be(at) & _FLAGS == 0:
        return -1
    return ld32be(at + 4) >> 8


# ---------------------------------------------------------------- ECN
@kernel
def ip_at(frame, n):
    """Where IP begins in the Ethernet frame of which ``n`` bytes are at ``frame``, and its version:
    offset << 8 | 4 or 6; 0 where it is not IP."""
    at = ETHERNET
    if n < at + 2:
        return 0
    kind = ld16be(frame + at - 2)
    for _ in range(MAX_TAGS):
        if (kind == VLAN or kind == SERVICE_VLAN) and at + VLAN_TAG + 2 <= n:
            at += VLAN_TAG
            kind = ld16be(frame + at - 2)
    version = ld8(frame + at) >> 4
    if kind == IPV4 and version == 4 and at + 20 <= n:
        return at << 8 | 4
    if kind == IPV6 and version == 6 and at + 40 <= n:
        return at << 8 | 6
    return 0


@kernel
def inner_ecn(frame, n):
    """The ECN bits of the frame of which ``n`` bytes are at ``frame``, 0 where it is not IP: what
    the outer header gets (RFC 6040, 4.1, normal mode)."""
    found = ip_at(frame, n)
    if found == 0:
        return NOT_ECT
    bits = ld8(frame + (found >> 8) + 1)
    if found & 0xFF == 6:  # version, traffic class and flow label: the class ends in this byte
        bits >>= 4
    return bits & 3


@kernel
def set_ecn(frame, found, ecn):
    """Write the ECN bits of a frame for which ``ip_at`` answered ``found``."""
    ip = frame + (found >> 8)
    if found & 0xFF == 6:
        st8(ip + 1, ld8(ip + 1) & 0xCF | ecn << 4)
        return
    before = ld16(ip)
    st8(ip + 1, ld8(ip + 1) & 0xFC | ecn)
    total = (ld16(ip + 10) ^ 0xFFFF) + (before ^ 0xFFFF) + ld16(ip)  # RFC 1624, 3
    st16(ip + 10, folded(total) ^ 0xFFFF)


@kernel
def combine_ecn(frame, n, outer):
    """Tell the inner frame, of which ``n`` bytes are at ``frame``, what the outer header's ECN bits
    say; -> False where it is to be dropped (RFC 6040, 4.2, figure 4).

    What was congested on the way and cannot say so is dropped, as a router would have done. Frames
    that are not IP pass.
    """
    if outer & 1 == 0:  # neither CE nor ECT(1): the inner bits stay
        return True
    found = ip_at(frame, n)
    if found == 0:
        return True
    inner = inner_ecn(frame, n)
    if inner == NOT_ECT:
        return outer != CE
    if outer == CE and inner != CE:
        set_ecn(frame, found, CE)
    elif outer == ECT_1 and inner == ECT_0:
        set_ecn(frame, found, ECT_1)
    return True
