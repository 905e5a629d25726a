# SPDX-License-Identifier: Apache-2.0
"""TCP, UDP, ICMP and VXLAN: kernels that read and set their fields.

Used by fields.py (which says what each is); see parse_kernels.py for the word ``frame``, and
sum_kernels.py for the checksums.
"""

from byway.functions.parse_kernels import (
    HAS_ICMP,
    HAS_ICMPV6,
    HAS_PORTS,
    HAS_TCP,
    HAS_UDP,
    HAS_WHOLE_TCP,
    vxlan_at,
)
from byway.functions.sum_kernels import adjust_covered, change16, change32
from byway.machine.jit import kernel
from byway.machine.mem import (
    ld8,
    ld16,
    ld16be,
    ld32,
    ld32be,
    ld64,
    st16be,
    st32be,
)
from byway.packet.batch import R
from byway.packet.layers import l3_of, l4_of

_MESSAGE = HAS_ICMP | HAS_ICMPV6
_SYN, _FIN, _RST, _ACK = 0x02, 0x01, 0x04, 0x10
_FRAGMENTATION_NEEDED, _TOO_BIG = 0x0304, 2


@kernel(inline=True)
def set_word(row, frame, at, value):
    """Set the word of 16 bits at ``at`` of the transport's header, which is there."""
    place = ld64(row + R.head) + l4_of(frame) + at
    old = ld16(place)
    st16be(place, value)
    adjust_covered(row, frame, change16(old, ld16(place)))


@kernel(inline=True)
def set_long(row, frame, at, value):
    """Set the word of 32 bits at ``at`` of the transport's header, which is there."""
    place = ld64(row + R.head) + l4_of(frame) + at
    old = ld32(place)
    st32be(place, value)
    adjust_covered(row, frame, change32(old, ld32(place)))


# ---------------------------------------------------------------- what there is
@kernel
def get_is_tcp(row, frame):
    """-> bool."""
    return frame & HAS_TCP != 0


@kernel
def get_is_udp(row, frame):
    """-> bool."""
    return frame & HAS_UDP != 0


@kernel
def get_is_icmp(row, frame):
    """-> bool."""
    return frame & HAS_ICMP != 0


@kernel
def get_is_icmpv6(row, frame):
    """-> bool."""
    return frame & HAS_ICMPV6 != 0


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
@kernel
def get_l4_src(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame)) if frame & HAS_PORTS != 0 else 0


@kernel(inline=True)
def set_l4_src(row, frame, value):
    """Set 16 bits."""
    if frame & HAS_PORTS != 0:
        set_word(row, frame, 0, value)


@kernel
def get_l4_dst(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 2) if frame & HAS_PORTS != 0 else 0


@kernel(inline=True)
def set_l4_dst(row, frame, value):
    """Set 16 bits."""
    if frame & HAS_PORTS != 0:
        set_word(row, frame, 2, value)


@kernel
def do_swap_l4(row, frame, batch):
    """Exchange the ports, which no sum sees; -> 1."""
    if frame & HAS_PORTS != 0:
        at = ld64(row + R.head) + l4_of(frame)
        st32be(at, ld16be(at + 2) << 16 | ld16be(at))
    return 1


@kernel
def get_tcp_seq(row, frame):
    """-> 32 bits."""
    return ld32be(ld64(row + R.head) + l4_of(frame) + 4) if frame & HAS_WHOLE_TCP != 0 else 0


@kernel
def set_tcp_seq(row, frame, value):
    """Set 32 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        set_long(row, frame, 4, value)


@kernel
def get_tcp_ack(row, frame):
    """-> 32 bits."""
    return ld32be(ld64(row + R.head) + l4_of(frame) + 8) if frame & HAS_WHOLE_TCP != 0 else 0


@kernel
def set_tcp_ack(row, frame, value):
    """Set 32 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        set_long(row, frame, 8, value)


@kernel
def get_tcp_flags(row, frame):
    """-> 8 bits."""
    return ld8(ld64(row + R.head) + l4_of(frame) + 13) if frame & HAS_WHOLE_TCP != 0 else 0


@kernel
def set_tcp_flags(row, frame, value):
    """Set 8 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        offset = ld8(ld64(row + R.head) + l4_of(frame) + 12)
        set_word(row, frame, 12, offset << 8 | value & 0xFF)


@kernel
def get_tcp_data_offset(row, frame):
    """-> words of 4 bytes."""
    return ld8(ld64(row + R.head) + l4_of(frame) + 12) >> 4 if frame & HAS_WHOLE_TCP != 0 else 0


@kernel
def set_tcp_data_offset(row, frame, value):
    """Set 4 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        word = ld16be(ld64(row + R.head) + l4_of(frame) + 12)
        set_word(row, frame, 12, word & 0x0FFF | (value & 15) << 12)


@kernel
def get_tcp_window(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 14) if frame & HAS_WHOLE_TCP != 0 else 0


@kernel
def set_tcp_window(row, frame, value):
    """Set 16 bits."""
    if frame & HAS_WHOLE_TCP != 0:
        set_word(row, frame, 14, value)


@kernel
def get_is_tcp_syn(row, frame):
    """-> bool."""
    return get_tcp_flags(row, frame) & (_SYN | _ACK) == _SYN


@kernel
def get_is_tcp_fin(row, frame):
    """-> bool."""
    return get_tcp_flags(row, frame) & _FIN != 0


@kernel
def get_is_tcp_rst(row, frame):
    """-> bool."""
    return get_tcp_flags(row, frame) & _RST != 0


@kernel
def get_udp_length(row, frame):
    """-> bytes."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 4) if frame & HAS_UDP != 0 else 0


# ---------------------------------------------------------------- ICMP and ICMPv6
@kernel
def get_icmp_type(row, frame):
    """-> 8 bits."""
    return ld8(ld64(row + R.head) + l4_of(frame)) if frame & _MESSAGE != 0 else 0


@kernel
def set_icmp_type(row, frame, value):
    """Set 8 bits."""
    if frame & _MESSAGE != 0:
        code = ld8(ld64(row + R.head) + l4_of(frame) + 1)
        set_word(row, frame, 0, (value & 0xFF) << 8 | code)


@kernel
def get_icmp_code(row, frame):
    """-> 8 bits."""
    return ld8(ld64(row + R.head) + l4_of(frame) + 1) if frame & _MESSAGE != 0 else 0


@kernel
def set_icmp_code(row, frame, value):
    """Set 8 bits."""
    if frame & _MESSAGE != 0:
        kind = ld8(ld64(row + R.head) + l4_of(frame))
        set_word(row, frame, 0, kind << 8 | value & 0xFF)


@kernel
def get_icmp_id(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 4) if frame & _MESSAGE != 0 else 0


@kernel
def set_icmp_id(row, frame, value):
    """Set 16 bits."""
    if frame & _MESSAGE != 0:
        set_word(row, frame, 4, value)


@kernel
def get_icmp_seq(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l4_of(frame) + 6) if frame & _MESSAGE != 0 else 0


@kernel
def set_icmp_seq(row, frame, value):
    """Set 16 bits."""
    if frame & _MESSAGE != 0:
        set_word(row, frame, 6, value)


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
        set_word(row, frame, 6, value)
    elif frame & HAS_ICMPV6 != 0 and ld8(at) == _TOO_BIG:
        set_long(row, frame, 4, value)


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
        old = ld32(place)
        st32be(place, (value & 0xFFFFFF) << 8 | ld32be(place) & 0xFF)
        adjust_covered(row, frame, change32(old, ld32(place)))
