# SPDX-License-Identifier: Apache-2.0
"""TCP, UDP, ICMP and VXLAN: kernels that read and set their fields.

Used by fields.py (which says what each is); see parse_kernels.py for the word ``frame``, and
sum_kernels.py for the checksums.
"""

from byway.functions.ip_kernels import put_ipv4_address
from byway.functions.parse_kernels import (
    HAS_ICMP,
    HAS_ICMPV6,
    HAS_PORTS,
    HAS_TCP,
    HAS_UDP,
    HAS_WHOLE_TCP,
    ICMP_BIT,
    ICMPV6_BIT,
    TCP_BIT,
    UDP_BIT,
    WHOLE_TCP_BIT,
    if_bit,
    vxlan_at,
)
from byway.functions.sum_kernels import adjust_transport, put16, put32
from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16be,
    ld32be,
    ld64,
    st32be,
)
from byway.packet.batch import R
from byway.packet.layers import l3_of, l4_of

_MESSAGE = HAS_ICMP | HAS_ICMPV6
_FRAGMENTATION_NEEDED, _TOO_BIG = 0x0304, 2


@formula
def l4_at(row, frame, at):
    """The address of the byte at ``at`` of the transport's header."""
    return ld64(row + R.head) + l4_of(frame) + at


# ---------------------------------------------------------------- what there is
@formula
def get_is_tcp(row, frame):
    """-> bool."""
    return frame >> TCP_BIT & 1


@formula
def get_is_udp(row, frame):
    """-> bool."""
    return frame >> UDP_BIT & 1


@formula
def get_is_icmp(row, frame):
    """-> bool."""
    return frame >> ICMP_BIT & 1


@formula
def get_is_icmpv6(row, frame):
    """-> bool."""
    return frame >> ICMPV6_BIT & 1


@kernel
def get_payload_offset(row, frame):
    """-> bytes."""
    l4 = l4_of(frame)
    if frame & HAS_TCP != 0:
        header = 20
        if frame & HAS_WHOLE_TCP != 0:
            header = max(4 * (ld8(ld64(row + R.head) + l4 + 12) >> 4), 20)
        return min(l4 + header, ld64(row + R.len))
    if frame & (HAS_UDP | _MESSAGE) != 0:
        return l4 + 8
    return l4 if l4 != 0 else l3_of(frame)


# ---------------------------------------------------------------- TCP and UDP
@formula
def get_l4_src(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame)) & (
        if_bit(frame, TCP_BIT) | if_bit(frame, UDP_BIT))


@kernel(inline=True)
def set_l4_src(row, frame, value):
    """Set 16 bits."""
    if frame & HAS_PORTS != 0:
        adjust_transport(row, frame, put16(l4_at(row, frame, 0), value), 0)


@formula
def get_l4_dst(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 2) & (
        if_bit(frame, TCP_BIT) | if_bit(frame, UDP_BIT))


@kernel(inline=True)
def set_l4_dst(row, frame, value):
    """Set 16 bits."""
    if frame & HAS_PORTS != 0:
        adjust_transport(row, frame, put16(l4_at(row, frame, 2), value), 0)


@kernel(inline=True)
def put_port(row, frame, at, value):
    """Set the port at ``at`` of the header; -> the change that the checksum is to follow."""
    return put16(l4_at(row, frame, at), value) if frame & HAS_PORTS != 0 else 0


@kernel(inline=True)
def set_source(row, frame, address, port):
    """Set ``ipv4_src``, then ``l4_src``: with one step of the checksum."""
    pseudo = put_ipv4_address(row, frame, 12, address)
    adjust_transport(row, frame, put_port(row, frame, 0, port), pseudo)


@kernel(inline=True)
def set_destination(row, frame, address, port):
    """Set ``ipv4_dst``, then ``l4_dst``: with one step of the checksum."""
    pseudo = put_ipv4_address(row, frame, 16, address)
    adjust_transport(row, frame, put_port(row, frame, 2, port), pseudo)


@kernel
def do_swap_l4(row, frame, batch):
    """Exchange the ports, which no sum sees; -> 1."""
    if frame & HAS_PORTS != 0:
        at = ld64(row + R.head) + l4_of(frame)
        st32be(at, ld16be(at + 2) << 16 | ld16be(at))
    return 1


@formula
def get_tcp_seq(row, frame):
    """-> 32 bits."""
    return ld32be(ld64(row + R.head) + l4_of(frame) + 4) & if_bit(frame, WHOLE_TCP_BIT)


@kernel
def set_tcp_seq(row, frame, value):
    """Set 32 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        adjust_transport(row, frame, put32(l4_at(row, frame, 4), value), 0)


@formula
def get_tcp_ack(row, frame):
    """-> 32 bits."""
    return ld32be(ld64(row + R.head) + l4_of(frame) + 8) & if_bit(frame, WHOLE_TCP_BIT)


@kernel
def set_tcp_ack(row, frame, value):
    """Set 32 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        adjust_transport(row, frame, put32(l4_at(row, frame, 8), value), 0)


@formula
def get_tcp_flags(row, frame):
    """-> 8 bits."""
    return ld8(ld64(row + R.head) + l4_of(frame) + 13) & if_bit(frame, WHOLE_TCP_BIT)


@kernel
def set_tcp_flags(row, frame, value):
    """Set 8 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        offset = ld8(ld64(row + R.head) + l4_of(frame) + 12)
        adjust_transport(row, frame, put16(l4_at(row, frame, 12), offset << 8 | value & 0xFF), 0)


@formula
def get_tcp_data_offset(row, frame):
    """-> words of 4 bytes."""
    return ld8(ld64(row + R.head) + l4_of(frame) + 12) >> 4 & if_bit(frame, WHOLE_TCP_BIT)


@kernel
def set_tcp_data_offset(row, frame, value):
    """Set 4 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        word = ld16be(ld64(row + R.head) + l4_of(frame) + 12)
        word = word & 0x0FFF | (value & 15) << 12
        adjust_transport(row, frame, put16(l4_at(row, frame, 12), word), 0)


@formula
def get_tcp_window(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 14) & if_bit(frame, WHOLE_TCP_BIT)


@kernel
def set_tcp_window(row, frame, value):
    """Set 16 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        adjust_transport(row, frame, put16(l4_at(row, frame, 14), value), 0)


@formula
def get_is_tcp_syn(row, frame):
    """-> bool."""
    return get_tcp_flags(row, frame) >> 1 & ~(get_tcp_flags(row, frame) >> 4) & 1


@formula
def get_is_tcp_fin(row, frame):
    """-> bool."""
    return get_tcp_flags(row, frame) & 1


@formula
def get_is_tcp_rst(row, frame):
    """-> bool."""
    return get_tcp_flags(row, frame) >> 2 & 1


@formula
def get_udp_length(row, frame):
    """-> bytes."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 4) & if_bit(frame, UDP_BIT)


# ---------------------------------------------------------------- ICMP and ICMPv6
@formula
def get_icmp_type(row, frame):
    """-> 8 bits."""
    return ld8(ld64(row + R.head) + l4_of(frame)) & (
        if_bit(frame, ICMP_BIT) | if_bit(frame, ICMPV6_BIT))


@kernel
def set_icmp_type(row, frame, value):
    """Set 8 bits."""
    if frame & _MESSAGE != 0:
        code = ld8(ld64(row + R.head) + l4_of(frame) + 1)
        adjust_transport(row, frame, put16(l4_at(row, frame, 0), (value & 0xFF) << 8 | code), 0)


@formula
def get_icmp_code(row, frame):
    """-> 8 bits."""
    return ld8(ld64(row + R.head) + l4_of(frame) + 1) & (
        if_bit(frame, ICMP_BIT) | if_bit(frame, ICMPV6_BIT))


@kernel
def set_icmp_code(row, frame, value):
    """Set 8 bits."""
    if frame & _MESSAGE != 0:
        kind = ld8(ld64(row + R.head) + l4_of(frame))
        adjust_transport(row, frame, put16(l4_at(row, frame, 0), kind << 8 | value & 0xFF), 0)


@formula
def get_icmp_id(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 4) & (
        if_bit(frame, ICMP_BIT) | if_bit(frame, ICMPV6_BIT))


@kernel
def set_icmp_id(row, frame, value):
    """Set 16 bits."""
    if frame & _MESSAGE != 0:
        adjust_transport(row, frame, put16(l4_at(row, frame, 4), value), 0)


@formula
def get_icmp_seq(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 6) & (
        if_bit(frame, ICMP_BIT) | if_bit(frame, ICMPV6_BIT))


@kernel
def set_icmp_seq(row, frame, value):
    """Set 16 bits."""
    if frame & _MESSAGE != 0:
        adjust_transport(row, frame, put16(l4_at(row, frame, 6), value), 0)


@kernel
def get_icmp_mtu(row, frame):
    """-> bytes."""
    at = ld64(row + R.head) + l4_of(frame)
    if frame & HAS_ICMP != 0 and ld16be(at) == _FRAGMENTATION_NEEDED:
        return ld16be(at + 6)
    if frame & HAS_ICMPV6 != 0 and ld8(at) == _TOO_BIG:
        return ld32be(at + 4)
    return 0


@kernel
def set_icmp_mtu(row, frame, value):
    """Set 16 bits, or 32 in ICMPv6."""
    at = ld64(row + R.head) + l4_of(frame)
    if frame & HAS_ICMP != 0 and ld16be(at) == _FRAGMENTATION_NEEDED:
        adjust_transport(row, frame, put16(l4_at(row, frame, 6), value), 0)
    elif frame & HAS_ICMPV6 != 0 and ld8(at) == _TOO_BIG:
        adjust_transport(row, frame, put32(l4_at(row, frame, 4), value), 0)


# ---------------------------------------------------------------- VXLAN
@kernel
def get_is_vxlan(row, frame):
    """-> bool."""
    return vxlan_at(row, frame) != 0


@kernel
def get_vxlan_vni(row, frame):
    """-> 24 bits."""
    at = vxlan_at(row, frame)
    return ld32be(ld64(row + R.head) + at + 4) >> 8 if at != 0 else 0


@kernel
def set_vxlan_vni(row, frame, value):
    """Set 24 bits."""
    at = vxlan_at(row, frame)
    if at != 0:
        place = ld64(row + R.head) + at + 4
        change = put32(place, (value & 0xFFFFFF) << 8 | ld32be(place) & 0xFF)
        adjust_transport(row, frame, change, 0)
