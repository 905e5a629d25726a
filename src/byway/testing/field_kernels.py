# SPDX-License-Identifier: Apache-2.0
"""All that a network function can do with a frame, as tests call it: entries of int64 arguments.

Used by tests that hold the kernels of byway.functions.fields against the plain frame. The order is
that of SLOTS, SETTABLE and the tables of fields.py.
"""

from byway.functions import frame_kernels as frames
from byway.functions import ip_kernels as ip
from byway.functions import length_kernels as lengths
from byway.functions import link_kernels as link
from byway.functions import payload_kernels as payload
from byway.functions import shape_kernels as shape
from byway.functions import transport_kernels as transport
from byway.functions.parse_kernels import (
    parse,
    parse_again,
    parse_inner,
    parse_out,
    parse_quoted,
)
from byway.functions.sum_kernels import (
    quoted_after,
    quoted_before,
)
from byway.machine.jit import kernel
from byway.machine.mem import st64

WORDS = 62  # that read_all writes
# Where read_all writes each number; one of 128 bits takes two words, the upper half first.
SLOTS = {
    "eth_dst": 0, "eth_src": 1, "eth_type": 2, "has_vlan": 3, "vlan_id": 4, "vlan_pcp": 5,
    "is_arp": 6, "arp_op": 7, "arp_sender_mac": 8, "arp_sender_ip": 9, "arp_target_mac": 10,
    "arp_target_ip": 11, "is_ip": 12, "is_ipv4": 13, "is_ipv6": 14, "ip_protocol": 15,
    "ip_ttl": 16, "ip_dscp": 17, "ip_ecn": 18, "is_fragment": 19, "is_first_fragment": 20,
    "ipv4_src": 21, "ipv4_dst": 22, "ipv4_id": 23, "ipv4_length": 24, "ipv6_src": 25,
    "ipv6_dst": 27, "ipv6_flow_label": 29, "l3_offset": 30, "l4_offset": 31, "is_tcp": 32,
    "is_udp": 33, "is_icmp": 34, "is_icmpv6": 35, "l4_src": 36, "l4_dst": 37, "tcp_seq": 38,
    "tcp_ack": 39, "tcp_flags": 40, "tcp_window": 41, "tcp_data_offset": 42, "is_tcp_syn": 43,
    "is_tcp_fin": 44, "is_tcp_rst": 45, "udp_length": 46, "icmp_type": 47, "icmp_code": 48,
    "icmp_id": 49, "icmp_seq": 50, "icmp_mtu": 51, "is_vxlan": 52, "vxlan_vni": 53,
    "payload_offset": 54, "length": 55, "port": 56, "network": 57, "vni": 58, "direction": 59,
    "is_gso": 60, "flow_hash": 61,
}
SETTABLE = (
    "eth_dst", "eth_src", "eth_type", "vlan_id", "vlan_pcp", "arp_op", "arp_sender_mac",
    "arp_sender_ip", "arp_target_mac", "arp_target_ip", "ip_ttl", "ip_dscp", "ip_ecn", "ipv4_src",
    "ipv4_dst", "ipv4_id", "ipv6_src", "ipv6_dst", "ipv6_flow_label", "l4_src", "l4_dst",
    "tcp_seq", "tcp_ack", "tcp_flags", "tcp_window", "tcp_data_offset", "icmp_type", "icmp_code",
    "icmp_id", "icmp_seq", "icmp_mtu", "vxlan_vni",
)
# What is set in one step, an address and a port, as set_one counts them: behind the others.
JOINED = (("ipv4_src", "l4_src"), ("ipv4_dst", "l4_dst"))


@kernel
def read_link(row, frame, batch, out):
    """Write down these numbers."""
    st64(out + 0, link.get_eth_dst(row, frame))
    st64(out + 8, link.get_eth_src(row, frame))
    st64(out + 16, link.get_eth_type(row, frame))
    st64(out + 24, 1 if link.get_has_vlan(row, frame) else 0)
    st64(out + 32, link.get_vlan_id(row, frame))
    st64(out + 40, link.get_vlan_pcp(row, frame))
    st64(out + 48, 1 if link.get_is_arp(row, frame) else 0)
    st64(out + 56, link.get_arp_op(row, frame))
    st64(out + 64, link.get_arp_sender_mac(row, frame))
    st64(out + 72, link.get_arp_sender_ip(row, frame))
    st64(out + 80, link.get_arp_target_mac(row, frame))
    st64(out + 88, link.get_arp_target_ip(row, frame))
    return 0


@kernel
def read_ip(row, frame, batch, out):
    """Write down these numbers."""
    st64(out + 96, 1 if ip.get_is_ip(row, frame) else 0)
    st64(out + 104, 1 if ip.get_is_ipv4(row, frame) else 0)
    st64(out + 112, 1 if ip.get_is_ipv6(row, frame) else 0)
    st64(out + 120, ip.get_ip_protocol(row, frame))
    st64(out + 128, ip.get_ip_ttl(row, frame))
    st64(out + 136, ip.get_ip_dscp(row, frame))
    st64(out + 144, ip.get_ip_ecn(row, frame))
    st64(out + 152, 1 if ip.get_is_fragment(row, frame) else 0)
    st64(out + 160, 1 if ip.get_is_first_fragment(row, frame) else 0)
    st64(out + 168, ip.get_ipv4_src(row, frame))
    st64(out + 176, ip.get_ipv4_dst(row, frame))
    st64(out + 184, ip.get_ipv4_id(row, frame))
    st64(out + 192, ip.get_ipv4_length(row, frame))
    st64(out + 200, ip.get_ipv6_src_high(row, frame))
    st64(out + 208, ip.get_ipv6_src_low(row, frame))
    st64(out + 216, ip.get_ipv6_dst_high(row, frame))
    st64(out + 224, ip.get_ipv6_dst_low(row, frame))
    st64(out + 232, ip.get_ipv6_flow_label(row, frame))
    st64(out + 240, ip.get_l3_offset(row, frame))
    st64(out + 248, ip.get_l4_offset(row, frame))
    return 0


@kernel
def read_transport(row, frame, batch, out):
    """Write down these numbers."""
    st64(out + 256, 1 if transport.get_is_tcp(row, frame) else 0)
    st64(out + 264, 1 if transport.get_is_udp(row, frame) else 0)
    st64(out + 272, 1 if transport.get_is_icmp(row, frame) else 0)
    st64(out + 280, 1 if transport.get_is_icmpv6(row, frame) else 0)
    st64(out + 288, transport.get_l4_src(row, frame))
    st64(out + 296, transport.get_l4_dst(row, frame))
    st64(out + 304, transport.get_tcp_seq(row, frame))
    st64(out + 312, transport.get_tcp_ack(row, frame))
    st64(out + 320, transport.get_tcp_flags(row, frame))
    st64(out + 328, transport.get_tcp_window(row, frame))
    st64(out + 336, transport.get_tcp_data_offset(row, frame))
    st64(out + 344, 1 if transport.get_is_tcp_syn(row, frame) else 0)
    st64(out + 352, 1 if transport.get_is_tcp_fin(row, frame) else 0)
    st64(out + 360, 1 if transport.get_is_tcp_rst(row, frame) else 0)
    st64(out + 368, transport.get_udp_length(row, frame))
    st64(out + 376, transport.get_icmp_type(row, frame))
    st64(out + 384, transport.get_icmp_code(row, frame))
    st64(out + 392, transport.get_icmp_id(row, frame))
    st64(out + 400, transport.get_icmp_seq(row, frame))
    st64(out + 408, transport.get_icmp_mtu(row, frame))
    st64(out + 416, 1 if transport.get_is_vxlan(row, frame) else 0)
    st64(out + 424, transport.get_vxlan_vni(row, frame))
    st64(out + 432, transport.get_payload_offset(row, frame))
    return 0


@kernel
def read_frame(row, frame, batch, out):
    """Write down these numbers."""
    st64(out + 440, frames.get_length(row, frame))
    st64(out + 448, frames.get_port(row, frame, batch))
    st64(out + 456, frames.get_network(row, frame, batch))
    st64(out + 464, frames.get_vni(row, frame, batch))
    st64(out + 472, frames.get_direction(row, frame))
    st64(out + 480, 1 if frames.get_is_gso(row, frame) else 0)
    st64(out + 488, frames.get_flow_hash(row, frame))
    return 0


@kernel
def set_link(row, frame, which, high, low):
    """Set the number that SETTABLE has at ``which``, if it is one of these."""
    if which == 0:
        link.set_eth_dst(row, frame, low)
    elif which == 1:
        link.set_eth_src(row, frame, low)
    elif which == 2:
        link.set_eth_type(row, frame, low)
    elif which == 3:
        link.set_vlan_id(row, frame, low)
    elif which == 4:
        link.set_vlan_pcp(row, frame, low)
    elif which == 5:
        link.set_arp_op(row, frame, low)
    elif which == 6:
        link.set_arp_sender_mac(row, frame, low)
    elif which == 7:
        link.set_arp_sender_ip(row, frame, low)
    elif which == 8:
        link.set_arp_target_mac(row, frame, low)
    elif which == 9:
        link.set_arp_target_ip(row, frame, low)


@kernel
def set_ip(row, frame, which, high, low):
    """Set the number that SETTABLE has at ``which``, if it is one of these."""
    if which == 10:
        ip.set_ip_ttl(row, frame, low)
    elif which == 11:
        ip.set_ip_dscp(row, frame, low)
    elif which == 12:
        ip.set_ip_ecn(row, frame, low)
    elif which == 13:
        ip.set_ipv4_src(row, frame, low)
    elif which == 14:
        ip.set_ipv4_dst(row, frame, low)
    elif which == 15:
        ip.set_ipv4_id(row, frame, low)
    elif which == 16:
        ip.set_ipv6_src(row, frame, high, low)
    elif which == 17:
        ip.set_ipv6_dst(row, frame, high, low)
    elif which == 18:
        ip.set_ipv6_flow_label(row, frame, low)


@kernel
def set_transport(row, frame, which, high, low):
    """Set the number that SETTABLE has at ``which``, if it is one of these."""
    if which == 19:
        transport.set_l4_src(row, frame, low)
    elif which == 20:
        transport.set_l4_dst(row, frame, low)
    elif which == 21:
        transport.set_tcp_seq(row, frame, low)
    elif which == 22:
        transport.set_tcp_ack(row, frame, low)
    elif which == 23:
        transport.set_tcp_flags(row, frame, low)
    elif which == 24:
        transport.set_tcp_window(row, frame, low)
    elif which == 25:
        transport.set_tcp_data_offset(row, frame, low)
    elif which == 26:
        transport.set_icmp_type(row, frame, low)
    elif which == 27:
        transport.set_icmp_code(row, frame, low)
    elif which == 28:
        transport.set_icmp_id(row, frame, low)
    elif which == 29:
        transport.set_icmp_seq(row, frame, low)
    elif which == 30:
        transport.set_icmp_mtu(row, frame, low)
    elif which == 31:
        transport.set_vxlan_vni(row, frame, low)
    elif which == 32:
        transport.set_source(row, frame, high, low)
    elif which == 33:
        transport.set_destination(row, frame, high, low)


@kernel(entry=True)
def word_of(row, view, frame):
    """-> the word of a frame (view 0), of inner (1), of quoted (2), or of a frame that changed its
    shape (3)."""
    if view == 1:
        return parse_inner(row, frame)
    if view == 2:
        return parse_quoted(row, frame)
    if view == 3:
        return parse_again(row, frame)
    return parse_out(row) if frame != 0 else parse(row)


@kernel(entry=True)
def read_all(row, frame, batch, out):
    """Write down all numbers of FIELDS; see SLOTS."""
    read_link(row, frame, batch, out)
    read_ip(row, frame, batch, out)
    read_transport(row, frame, batch, out)
    read_frame(row, frame, batch, out)
    return 0


@kernel(entry=True)
def set_one(row, frame, quoted, which, high, low):
    """Set what SETTABLE, then JOINED, have at ``which``; ``quoted``: not 0 where ``frame`` is the
    word of a quoted packet."""
    kept = quoted_before(row, frame) if quoted != 0 else 0
    set_link(row, frame, which, high, low)
    set_ip(row, frame, which, high, low)
    set_transport(row, frame, which, high, low)
    if quoted != 0:
        quoted_after(row, frame, kept)
    return 0


@kernel(entry=True)
def call_method(row, frame, batch, which, a, b, c):
    """Call the method that METHODS has at ``which``; -> its answer."""
    answer = 0
    if which == 0:
        answer = frames.do_u8(row, frame, batch, a)
    elif which == 1:
        answer = frames.do_u16(row, frame, batch, a)
    elif which == 2:
        answer = frames.do_u32(row, frame, batch, a)
    elif which == 3:
        answer = frames.do_set_u8(row, frame, batch, a, b)
    elif which == 4:
        answer = frames.do_set_u16(row, frame, batch, a, b)
    elif which == 5:
        answer = frames.do_set_u32(row, frame, batch, a, b)
    elif which == 6:
        answer = link.do_swap_eth(row, frame, batch)
    elif which == 7:
        answer = ip.do_swap_ip(row, frame, batch)
    elif which == 8:
        answer = transport.do_swap_l4(row, frame, batch)
    elif which == 9:
        answer = 1 if shape.do_push_vlan(row, frame, batch, a) else 0
    elif which == 10:
        answer = 1 if shape.do_pop_vlan(row, frame, batch) else 0
    elif which == 11:
        answer = 1 if shape.do_decapsulate(row, frame, batch, a) else 0
    elif which == 12:
        answer = 1 if shape.do_replace_l3(row, frame, batch, a, b, c) else 0
    elif which == 13:
        answer = 1 if lengths.do_resize(row, frame, batch, a) else 0
    elif which == 14:
        answer = lengths.do_fix(row, frame, batch)
    return answer


@kernel(entry=True)
def call_payload(row, frame, batch, which, a, b, c):
    """Call what PAYLOAD has at ``which``; -> its answer."""
    answer = 0
    if which == 0:
        answer = payload.do_payload_length(row, frame, batch)
    elif which == 1:
        answer = payload.do_payload_u8(row, frame, batch, a)
    elif which == 2:
        answer = payload.do_payload_u16(row, frame, batch, a)
    elif which == 3:
        answer = payload.do_payload_u32(row, frame, batch, a)
    elif which == 4:
        answer = payload.do_payload_set_u8(row, frame, batch, a, b)
    elif which == 5:
        answer = payload.do_payload_set_u16(row, frame, batch, a, b)
    elif which == 6:
        answer = payload.do_payload_set_u32(row, frame, batch, a, b)
    return answer
