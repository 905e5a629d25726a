# SPDX-License-Identifier: Apache-2.0
"""Which kernel reads and sets what of a frame: the tables that the translator goes by.

Used by byway.functions.translate, by chains (``parse``) and by tests that hold each kernel against
the plain frame (nf/headers.py and nf/frame.py, where each name is explained).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from byway.functions import frame_kernels as frames
from byway.functions import ip_kernels as ip
from byway.functions import length_kernels as lengths
from byway.functions import link_kernels as link
from byway.functions import payload_kernels as payload
from byway.functions import shape_kernels as shape
from byway.functions import transport_kernels as l4
from byway.functions.parse_kernels import parse, parse_again, parse_inner, parse_out, parse_quoted
from byway.functions.sum_kernels import quoted_after, quoted_before

__all__ = ["FIELDS", "METHODS", "PAYLOAD", "VIEWS", "Field", "Method", "View", "parse",
           "parse_again", "parse_out"]

Kernel: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Field:
    """A number of a frame. ``get``: kernel (row, frame), with ``batch`` (row, frame, batch).
    ``set``: kernel (row, frame, value), None: it can be read only. ``high``: of a number of 128
    bits the kernel for the upper half, ``get`` being that for the lower; ``set`` takes (row, frame,
    high, low). ``joins``: by the field that was set right before, a kernel (row, frame, its value,
    value) that sets both. ``reshapes``: the frame is to be parsed again after it was set.
    ``choices``: the texts that 0, 1, ... stand for. ``truth``: True or False. ``frame_only``: not
    in inner or quoted."""

    get: Kernel
    set: Kernel | None = None
    high: Kernel | None = None
    joins: Mapping[str, Kernel] = field(default_factory=dict)
    reshapes: bool = False
    choices: tuple[str, ...] = ()
    truth: bool = False
    frame_only: bool = False
    batch: bool = False


@dataclass(frozen=True)
class Method:
    """What can be called. ``kernel``: (row, frame, [batch,] arguments). ``pure``: it changes
    nothing that could be seen. ``writes``: it changes the frame, or where its bytes lie (what goes
    out is a row that others may get as well); ``reshapes``: so that it is to be parsed again.
    ``answers``: whether it was done. ``views``: also in inner and quoted."""

    kernel: Kernel
    arguments: tuple[str, ...] = ()
    defaults: Mapping[str, int] = field(default_factory=dict)
    batch: bool = True
    reshapes: bool = False
    writes: bool = False
    pure: bool = False
    answers: bool = False
    views: bool = False


@dataclass(frozen=True)
class View:
    """Headers inside a frame. ``parse``: kernel (row, frame) -> their word. Where a field of them
    is set: ``kept = before(row, view)``, the field's kernel, ``after(row, view, kept)``; None where
    nothing can be set."""

    parse: Kernel
    before: Kernel | None = None
    after: Kernel | None = None


def _is(get: Kernel) -> Field:
    return Field(get, truth=True)


FIELDS: dict[str, Field] = {
    "eth_dst": Field(link.get_eth_dst, link.set_eth_dst),
    "eth_src": Field(link.get_eth_src, link.set_eth_src),
    "eth_type": Field(link.get_eth_type, link.set_eth_type, reshapes=True),
    "has_vlan": _is(link.get_has_vlan),
    "vlan_id": Field(link.get_vlan_id, link.set_vlan_id),
    "vlan_pcp": Field(link.get_vlan_pcp, link.set_vlan_pcp),
    "is_arp": _is(link.get_is_arp),
    "arp_op": Field(link.get_arp_op, link.set_arp_op),
    "arp_sender_mac": Field(link.get_arp_sender_mac, link.set_arp_sender_mac),
    "arp_sender_ip": Field(link.get_arp_sender_ip, link.set_arp_sender_ip),
    "arp_target_mac": Field(link.get_arp_target_mac, link.set_arp_target_mac),
    "arp_target_ip": Field(link.get_arp_target_ip, link.set_arp_target_ip),
    "is_ip": _is(ip.get_is_ip),
    "is_ipv4": _is(ip.get_is_ipv4),
    "is_ipv6": _is(ip.get_is_ipv6),
    "ip_protocol": Field(ip.get_ip_protocol),
    "ip_ttl": Field(ip.get_ip_ttl, ip.set_ip_ttl),
    "ip_dscp": Field(ip.get_ip_dscp, ip.set_ip_dscp),
    "ip_ecn": Field(ip.get_ip_ecn, ip.set_ip_ecn),
    "is_fragment": _is(ip.get_is_fragment),
    "is_first_fragment": _is(ip.get_is_first_fragment),
    "ipv4_src": Field(ip.get_ipv4_src, ip.set_ipv4_src),
    "ipv4_dst": Field(ip.get_ipv4_dst, ip.set_ipv4_dst),
    "ipv4_id": Field(ip.get_ipv4_id, ip.set_ipv4_id),
    "ipv4_length": Field(ip.get_ipv4_length),
    "ipv6_src": Field(ip.get_ipv6_src_low, ip.set_ipv6_src, high=ip.get_ipv6_src_high),
    "ipv6_dst": Field(ip.get_ipv6_dst_low, ip.set_ipv6_dst, high=ip.get_ipv6_dst_high),
    "ipv6_flow_label": Field(ip.get_ipv6_flow_label, ip.set_ipv6_flow_label),
    "is_tcp": _is(l4.get_is_tcp),
    "is_udp": _is(l4.get_is_udp),
    "is_icmp": _is(l4.get_is_icmp),
    "is_icmpv6": _is(l4.get_is_icmpv6),
    "l4_src": Field(l4.get_l4_src, l4.set_l4_src, joins={"ipv4_src": l4.set_source}),
    "l4_dst": Field(l4.get_l4_dst, l4.set_l4_dst, joins={"ipv4_dst": l4.set_destination}),
    "tcp_seq": Field(l4.get_tcp_seq, l4.set_tcp_seq),
    "tcp_ack": Field(l4.get_tcp_ack, l4.set_tcp_ack),
    "tcp_flags": Field(l4.get_tcp_flags, l4.set_tcp_flags),
    "tcp_window": Field(l4.get_tcp_window, l4.set_tcp_window),
    "tcp_data_offset": Field(l4.get_tcp_data_offset, l4.set_tcp_data_offset, reshapes=True),
    "is_tcp_syn": _is(l4.get_is_tcp_syn),
    "is_tcp_fin": _is(l4.get_is_tcp_fin),
    "is_tcp_rst": _is(l4.get_is_tcp_rst),
    "udp_length": Field(l4.get_udp_length),
    "icmp_type": Field(l4.get_icmp_type, l4.set_icmp_type),
    "icmp_code": Field(l4.get_icmp_code, l4.set_icmp_code),
    "icmp_id": Field(l4.get_icmp_id, l4.set_icmp_id),
    "icmp_seq": Field(l4.get_icmp_seq, l4.set_icmp_seq),
    "icmp_mtu": Field(l4.get_icmp_mtu, l4.set_icmp_mtu),
    "is_vxlan": _is(l4.get_is_vxlan),
    "vxlan_vni": Field(l4.get_vxlan_vni, l4.set_vxlan_vni),
    "l3_offset": Field(ip.get_l3_offset),
    "l4_offset": Field(ip.get_l4_offset),
    "payload_offset": Field(l4.get_payload_offset),
    "length": Field(frames.get_length, frame_only=True),
    "port": Field(frames.get_port, frame_only=True, batch=True),
    "network": Field(frames.get_network, frame_only=True, batch=True),
    "vni": Field(frames.get_vni, frame_only=True, batch=True),
    "direction": Field(frames.get_direction, choices=("rx", "tx"), frame_only=True),
    "is_gso": Field(frames.get_is_gso, truth=True, frame_only=True),
    "flow_hash": Field(frames.get_flow_hash, frame_only=True),
}

METHODS: dict[str, Method] = {
    "u8": Method(frames.do_u8, ("at",), pure=True),
    "u16": Method(frames.do_u16, ("at",), pure=True),
    "u32": Method(frames.do_u32, ("at",), pure=True),
    "set_u8": Method(frames.do_set_u8, ("at", "value"), reshapes=True, writes=True),
    "set_u16": Method(frames.do_set_u16, ("at", "value"), reshapes=True, writes=True),
    "set_u32": Method(frames.do_set_u32, ("at", "value"), reshapes=True, writes=True),
    "swap_eth": Method(link.do_swap_eth, writes=True),
    "swap_ip": Method(ip.do_swap_ip, writes=True),
    "swap_l4": Method(l4.do_swap_l4, writes=True),
    "push_vlan": Method(shape.do_push_vlan, ("vlan",), reshapes=True, writes=True, answers=True),
    "pop_vlan": Method(shape.do_pop_vlan, reshapes=True, writes=True, answers=True),
    "decapsulate": Method(shape.do_decapsulate, ("n",), reshapes=True, writes=True, answers=True),
    "replace_l3": Method(shape.do_replace_l3, ("n", "m", "eth_type"), {"eth_type": 0},
                         reshapes=True, writes=True, answers=True),
    "resize": Method(lengths.do_resize, ("n",), reshapes=True, writes=True, answers=True),
    "fix": Method(lengths.do_fix, writes=True),
}

PAYLOAD: dict[str, Method] = {
    "length": Method(payload.do_payload_length, pure=True),
    "u8": Method(payload.do_payload_u8, ("at",), writes=True, pure=True),
    "u16": Method(payload.do_payload_u16, ("at",), writes=True, pure=True),
    "u32": Method(payload.do_payload_u32, ("at",), writes=True, pure=True),
    "set_u8": Method(payload.do_payload_set_u8, ("at", "value"), writes=True),
    "set_u16": Method(payload.do_payload_set_u16, ("at", "value"), writes=True),
    "set_u32": Method(payload.do_payload_set_u32, ("at", "value"), writes=True),
}

VIEWS: dict[str, View] = {
    "inner": View(parse_inner),
    "quoted": View(parse_quoted, quoted_before, quoted_after),
}
