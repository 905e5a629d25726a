# SPDX-License-Identifier: Apache-2.0
"""IPv4 and IPv6: kernels that read and set their fields.

Used by fields.py (which says what each is); see parse_kernels.py for the word ``frame``, and
sum_kernels.py for the checksums.
"""

from byway.functions.link_kernels import exchange32, exchange128
from byway.functions.parse_kernels import (
    IS_FRAGMENT,
    IS_IP,
    IS_LATER,
    VERSION,
    VERSION_4,
    VERSION_6,
)
from byway.functions.sum_kernels import adjust, adjust_pseudo, change16, change32, taken
from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16,
    ld16be,
    ld32,
    ld32be,
    ld64,
    ld64be,
    st8,
    st16be,
    st32be,
    st64be,
)
from byway.packet.batch import R
from byway.packet.checksum import sum_bytes
from byway.packet.layers import l3_of, l4_of, protocol_of

IPV4_SUM = 10  # where the header's checksum stands


# ---------------------------------------------------------------- what there is
@kernel
def get_is_ip(row, frame):
    """-> bool."""
    return frame & IS_IP != 0


@kernel
def get_is_ipv4(row, frame):
    """-> bool."""
    return frame & VERSION == VERSION_4


@kernel
def get_is_ipv6(row, frame):
    """-> bool."""
    return frame & VERSION == VERSION_6


@kernel
def get_ip_protocol(row, frame):
    """-> 8 bits."""
    return protocol_of(frame)


@kernel
def get_is_fragment(row, frame):
    """-> bool."""
    return frame & IS_FRAGMENT != 0


@kernel
def get_is_first_fragment(row, frame):
    """-> bool."""
    return frame & (IS_FRAGMENT | IS_LATER) == IS_FRAGMENT


@kernel
def get_l3_offset(row, frame):
    """-> bytes."""
    return l3_of(frame)


@kernel
def get_l4_offset(row, frame):
    """-> bytes."""
    return l4_of(frame)


# ---------------------------------------------------------------- both versions
@kernel
def set_ipv4_word(ip, at, value):
    """Set the word of 16 bits at ``at`` of an IPv4 header, network byte order."""
    old = ld16(ip + at)
    st16be(ip + at, value)
    adjust(ip + IPV4_SUM, change16(old, ld16(ip + at)))


@kernel
def get_ip_ttl(row, frame):
    """-> 8 bits."""
    ip = ld64(row + R.head) + l3_of(frame)
    if frame & VERSION == VERSION_4:
        return ld8(ip + 8)
    if frame & VERSION == VERSION_6:
        return ld8(ip + 7)
    return 0


@kernel
def set_ip_ttl(row, frame, value):
    """Set 8 bits."""
    ip = ld64(row + R.head) + l3_of(frame)
    if frame & VERSION == VERSION_4:
        set_ipv4_word(ip, 8, (value & 0xFF) << 8 | ld8(ip + 9))
    elif frame & VERSION == VERSION_6:
        st8(ip + 7, value)


@kernel
def traffic_class(row, frame):
    """-> IPv4's type of service, or IPv6's traffic class: 8 bits."""
    ip = ld64(row + R.head) + l3_of(frame)
    if frame & VERSION == VERSION_4:
        return ld8(ip + 1)
    if frame & VERSION == VERSION_6:
        return ld16be(ip) >> 4 & 0xFF
    return 0


@kernel
def set_traffic_class(row, frame, value):
    """Set 8 bits."""
    ip = ld64(row + R.head) + l3_of(frame)
    if frame & VERSION == VERSION_4:
        set_ipv4_word(ip, 0, ld8(ip) << 8 | value)
    elif frame & VERSION == VERSION_6:
        st16be(ip, ld16be(ip) & 0xF00F | value << 4)


@kernel
def get_ip_dscp(row, frame):
    """-> 6 bits."""
    return traffic_class(row, frame) >> 2


@kernel
def set_ip_dscp(row, frame, value):
    """Set 6 bits."""
    set_traffic_class(row, frame, (value & 63) << 2 | traffic_class(row, frame) & 3)


@kernel
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
    if frame & VERSION == VERSION_4:
        exchange32(ip + 12)
    elif frame & VERSION == VERSION_6:
        exchange128(ip + 8)
    return 1


# ---------------------------------------------------------------- IPv4
@kernel
def get_ipv4_src(row, frame):
    """-> IPv4 address."""
    if frame & VERSION != VERSION_4:
        return 0
    return ld32be(ld64(row + R.head) + l3_of(frame) + 12)


@kernel
def get_ipv4_dst(row, frame):
    """-> IPv4 address."""
    if frame & VERSION != VERSION_4:
        return 0
    return ld32be(ld64(row + R.head) + l3_of(frame) + 16)


@kernel(inline=True)
def set_ipv4_address(row, frame, at, value):
    """Set the address at ``at`` of the IPv4 header."""
    if frame & VERSION != VERSION_4:
        return
    ip = ld64(row + R.head) + l3_of(frame)
    old = ld32(ip + at)
    st32be(ip + at, value)
    change = change32(old, ld32(ip + at))
    adjust(ip + IPV4_SUM, change)
    adjust_pseudo(row, frame, change)


@kernel(inline=True)
def set_ipv4_src(row, frame, value):
    """Set an IPv4 address."""
    set_ipv4_address(row, frame, 12, value)


@kernel(inline=True)
def set_ipv4_dst(row, frame, value):
    """Set an IPv4 address."""
    set_ipv4_address(row, frame, 16, value)


@kernel
def get_ipv4_id(row, frame):
    """-> 16 bits."""
    if frame & VERSION != VERSION_4:
        return 0
    return ld16be(ld64(row + R.head) + l3_of(frame) + 4)


@kernel
def set_ipv4_id(row, frame, value):
    """Set 16 bits."""
    if frame & VERSION == VERSION_4:
        set_ipv4_word(ld64(row + R.head) + l3_of(frame), 4, value)


@kernel
def get_ipv4_length(row, frame):
    """-> bytes."""
    if frame & VERSION != VERSION_4:
        return 0
    return ld16be(ld64(row + R.head) + l3_of(frame) + 2)


# ---------------------------------------------------------------- IPv6
@kernel
def get_ipv6_word(row, frame, at):
    """-> the 64 bits at ``at`` of the IPv6 header."""
    if frame & VERSION != VERSION_6:
        return 0
    return ld64be(ld64(row + R.head) + l3_of(frame) + at)


@kernel
def get_ipv6_src_high(row, frame):
    """-> the upper half."""
    return get_ipv6_word(row, frame, 8)


@kernel
def get_ipv6_src_low(row, frame):
    """-> the lower half."""
    return get_ipv6_word(row, frame, 16)


@kernel
def get_ipv6_dst_high(row, frame):
    """-> the upper half."""
    return get_ipv6_word(row, frame, 24)


@kernel
def get_ipv6_dst_low(row, frame):
    """-> the lower half."""
    return get_ipv6_word(row, frame, 32)


@kernel
def set_ipv6_address(row, frame, at, high, low):
    """Set the address at ``at`` of the IPv6 header."""
    if frame & VERSION != VERSION_6:
        return
    address = ld64(row + R.head) + l3_of(frame) + at
    change = taken(address, 16)
    st64be(address, high)
    st64be(address + 8, low)
    adjust_pseudo(row, frame, change + sum_bytes(address, 16))


@kernel
def set_ipv6_src(row, frame, high, low):
    """Set an IPv6 address."""
    set_ipv6_address(row, frame, 8, high, low)


@kernel
def set_ipv6_dst(row, frame, high, low):
    """Set an IPv6 address."""
    set_ipv6_address(row, frame, 24, high, low)


@kernel
def get_ipv6_flow_label(row, frame):
    """-> 20 bits."""
    if frame & VERSION != VERSION_6:
        return 0
    return ld32be(ld64(row + R.head) + l3_of(frame)) & 0xFFFFF


@kernel
def set_ipv6_flow_label(row, frame, value):
    """Set 20 bits."""
    if frame & VERSION == VERSION_6:
        ip = ld64(row + R.head) + l3_of(frame)
        st32be(ip, ld32be(ip) & ~0xFFFFF | value & 0xFFFFF)
