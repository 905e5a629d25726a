# SPDX-License-Identifier: Apache-2.0
"""IPv4 and IPv6: kernels that read and set their fields.

Used by fields.py (which says what each is); see parse_kernels.py for the word ``frame``, and
sum_kernels.py for the checksums.
"""

from byway.functions.link_kernels import exchange32, exchange128
from byway.functions.parse_kernels import (
    FRAGMENT_BIT,
    HAS_ICMP,
    IP_BIT,
    IPV4_BIT,
    IPV6_BIT,
    IS_IPV4,
    IS_IPV6,
    LATER_BIT,
    if_bit,
)
from byway.functions.sum_kernels import adjust, adjust_transport, put16, put32, taken
from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16be,
    ld32be,
    ld64,
    ld64be,
    st8,
    st16be,
    st32be,
    st64be,
)
from byway.packet.batch import R
from byway.packet.checksum import folded, sum_bytes
from byway.packet.layers import l3_of, l4_of

IPV4_SUM = 10  # where the header's checksum stands


# ---------------------------------------------------------------- what there is
@formula
def get_is_ip(row, frame):
    """-> bool."""
    return frame >> IP_BIT & 1


@formula
def get_is_ipv4(row, frame):
    """-> bool."""
    return frame >> IPV4_BIT & 1


@formula
def get_is_ipv6(row, frame):
    """-> bool."""
    return frame >> IPV6_BIT & 1


@formula
def get_ip_protocol(row, frame):
    """-> 8 bits."""
    return frame >> 16 & 0xFF


@formula
def get_is_fragment(row, frame):
    """-> bool."""
    return frame >> FRAGMENT_BIT & 1


@formula
def get_is_first_fragment(row, frame):
    """-> bool."""
    return frame >> FRAGMENT_BIT & ~(frame >> LATER_BIT) & 1


@formula
def get_l3_offset(row, frame):
    """-> bytes."""
    return l3_of(frame)


@formula
def get_l4_offset(row, frame):
    """-> bytes."""
    return l4_of(frame)


# ---------------------------------------------------------------- both versions
@formula
def set_ipv4_word(ip, at, value):
    """Set the word of 16 bits at ``at`` of an IPv4 header, network byte order; -> 0."""
    return adjust(ip + IPV4_SUM, put16(ip + at, value))


@formula
def get_ip_ttl(row, frame):
    """-> 8 bits."""
    return ld8(ld64(row + R.head) + l3_of(frame) + 7 + (frame >> IPV4_BIT & 1)) & if_bit(
        frame, IP_BIT)


@kernel
def set_ip_ttl(row, frame, value):
    """Set 8 bits."""
    ip = ld64(row + R.head) + l3_of(frame)
    if frame & IS_IPV4 != 0:
        set_ipv4_word(ip, 8, (value & 0xFF) << 8 | ld8(ip + 9))
    elif frame & IS_IPV6 != 0:
        st8(ip + 7, value)


@formula
def traffic_class(row, frame):
    """-> IPv4's type of service, or IPv6's traffic class: 8 bits."""
    return ld16be(ld64(row + R.head) + l3_of(frame)) >> 4 * (frame >> IPV6_BIT & 1) & 0xFF & if_bit(
        frame, IP_BIT)


@kernel
def set_traffic_class(row, frame, value):
    """Set 8 bits."""
    ip = ld64(row + R.head) + l3_of(frame)
    if frame & IS_IPV4 != 0:
        set_ipv4_word(ip, 0, ld8(ip) << 8 | value)
    elif frame & IS_IPV6 != 0:
        st16be(ip, ld16be(ip) & 0xF00F | value << 4)


@formula
def get_ip_dscp(row, frame):
    """-> 6 bits."""
    return traffic_class(row, frame) >> 2


@kernel
def set_ip_dscp(row, frame, value):
    """Set 6 bits."""
    set_traffic_class(row, frame, (value & 63) << 2 | traffic_class(row, frame) & 3)


@formula
def get_ip_ecn(row, frame):
    """-> 2 bits."""
    return traffic_class(row, frame) & 3


@kernel
def set_ip_ecn(row, frame, value):
    """Set 2 bits."""
    set_traffic_class(row, frame, traffic_class(row, frame) & 0xFC | value & 3)


@kernel
def do_swap_ip(row, frame, batch):
    """Exchange the addresses, which no sum sees; -> 1."""
    ip = ld64(row + R.head) + l3_of(frame)
    if frame & IS_IPV4 != 0:
        exchange32(ip + 12)
    elif frame & IS_IPV6 != 0:
        exchange128(ip + 8)
    return 1


# ---------------------------------------------------------------- IPv4
@formula
def get_ipv4_src(row, frame):
    """-> IPv4 address."""
    return ld32be(ld64(row + R.head) + l3_of(frame) + 12) & if_bit(frame, IPV4_BIT)


@formula
def get_ipv4_dst(row, frame):
    """-> IPv4 address."""
    return ld32be(ld64(row + R.head) + l3_of(frame) + 16) & if_bit(frame, IPV4_BIT)


@kernel(inline=True)
def put_ipv4_address(row, frame, at, value):
    """Set the IPv4 address at ``at`` of the header; -> the change that the transport's checksum is
    to follow."""
    change = 0
    if frame & IS_IPV4 != 0:
        ip = ld64(row + R.head) + l3_of(frame)
        change = put32(ip + at, value)
        adjust(ip + IPV4_SUM, change)
        if frame & HAS_ICMP != 0:
            change = 0
    return change


@kernel(inline=True)
def set_ipv4_src(row, frame, value):
    """Set an IPv4 address."""
    adjust_transport(row, frame, 0, put_ipv4_address(row, frame, 12, value))


@kernel(inline=True)
def set_ipv4_dst(row, frame, value):
    """Set an IPv4 address."""
    adjust_transport(row, frame, 0, put_ipv4_address(row, frame, 16, value))


@formula
def get_ipv4_id(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l3_of(frame) + 4) & if_bit(frame, IPV4_BIT)


@kernel
def set_ipv4_id(row, frame, value):
    """Set 16 bits."""
    if frame & IS_IPV4 != 0:
        set_ipv4_word(ld64(row + R.head) + l3_of(frame), 4, value)


@formula
def get_ipv4_length(row, frame):
    """-> bytes."""
    return ld16be(ld64(row + R.head) + l3_of(frame) + 2) & if_bit(frame, IPV4_BIT)


# ---------------------------------------------------------------- IPv6
@formula
def get_ipv6_word(row, frame, at):
    """-> the 64 bits at ``at`` of the IPv6 header."""
    return ld64be(ld64(row + R.head) + l3_of(frame) + at) & if_bit(frame, IPV6_BIT)


@formula
def get_ipv6_src_high(row, frame):
    """-> the upper half."""
    return get_ipv6_word(row, frame, 8)


@formula
def get_ipv6_src_low(row, frame):
    """-> the lower half."""
    return get_ipv6_word(row, frame, 16)


@formula
def get_ipv6_dst_high(row, frame):
    """-> the upper half."""
    return get_ipv6_word(row, frame, 24)


@formula
def get_ipv6_dst_low(row, frame):
    """-> the lower half."""
    return get_ipv6_word(row, frame, 32)


@kernel
def set_ipv6_address(row, frame, at, high, low):
    """Set the address at ``at`` of the IPv6 header."""
    if frame & IS_IPV6 == 0:
        return
    address = ld64(row + R.head) + l3_of(frame) + at
    change = taken(address, 16)
    st64be(address, high)
    st64be(address + 8, low)
    adjust_transport(row, frame, 0, change + folded(sum_bytes(address, 16)))


@kernel
def set_ipv6_src(row, frame, high, low):
    """Set an IPv6 address."""
    set_ipv6_address(row, frame, 8, high, low)


@kernel
def set_ipv6_dst(row, frame, high, low):
    """Set an IPv6 address."""
    set_ipv6_address(row, frame, 24, high, low)


@formula
def get_ipv6_flow_label(row, frame):
    """-> 20 bits."""
    return ld32be(ld64(row + R.head) + l3_of(frame)) & 0xFFFFF & if_bit(frame, IPV6_BIT)


@kernel
def set_ipv6_flow_label(row, frame, value):
    """Set 20 bits."""
    if frame & IS_IPV6 != 0:
        ip = ld64(row + R.head) + l3_of(frame)
        st32be(ip, ld32be(ip) & ~0xFFFFF | value & 0xFFFFF)
