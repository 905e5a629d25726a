# SPDX-License-Identifier: Apache-2.0
"""Ethernet, VLAN tags and ARP: kernels that read and set their fields.

Used by fields.py (which says what each is); see parse_kernels.py for the word ``frame``. Nothing
here is covered by a checksum.
"""

from byway.functions.parse_kernels import (
    ARP_BIT,
    ETHERNET_BIT,
    HAS_ARP,
    HAS_ETHERNET,
    HAS_VLAN,
    VLAN_BIT,
    if_bit,
    l2_of,
)
from byway.machine.formula import formula, logical
from byway.machine.jit import kernel
from byway.machine.mem import (
    ld16be,
    ld32,
    ld32be,
    ld64,
    ld64be,
    shr64,
    st16be,
    st32,
    st32be,
    st64,
)
from byway.packet.batch import R
from byway.packet.layers import l3_of

_MAC = (1 << 48) - 1
_VLAN = 0xFFF
_PRIORITY = 13  # shift


@kernel
def put_mac(at, mac):
    """Write a MAC address."""
    st16be(at, mac >> 32)
    st32be(at + 2, mac)


# ---------------------------------------------------------------- Ethernet
@formula
def get_eth_dst(row, frame):
    """-> MAC address."""
    return logical(ld64be(ld64(row + R.head) + l2_of(frame)), 16) & if_bit(frame, ETHERNET_BIT)


@kernel
def set_eth_dst(row, frame, value):
    """Set a MAC address."""
    if frame & HAS_ETHERNET != 0:
        put_mac(ld64(row + R.head) + l2_of(frame), value)


@formula
def get_eth_src(row, frame):
    """-> MAC address."""
    return ld64be(ld64(row + R.head) + l2_of(frame) + 4) & _MAC & if_bit(frame, ETHERNET_BIT)


@kernel
def set_eth_src(row, frame, value):
    """Set a MAC address."""
    if frame & HAS_ETHERNET != 0:
        put_mac(ld64(row + R.head) + l2_of(frame) + 6, value)


@formula
def get_eth_type(row, frame):
    """-> Ethernet type behind the tags."""
    return ld16be(ld64(row + R.head) + l3_of(frame) - 2) & if_bit(frame, ETHERNET_BIT)


@kernel
def set_eth_type(row, frame, value):
    """Set the Ethernet type."""
    if frame & HAS_ETHERNET != 0:
        st16be(ld64(row + R.head) + l3_of(frame) - 2, value)


@kernel
def do_swap_eth(row, frame, batch):
    """Exchange the MAC addresses; -> 1."""
    if frame & HAS_ETHERNET != 0:
        head = ld64(row + R.head)
        target, source = ld64be(head), ld64be(head + 4) & _MAC
        put_mac(head, source)
        put_mac(head + 6, shr64(target, 16))
    return 1


# ---------------------------------------------------------------- the outer VLAN tag
@formula
def get_has_vlan(row, frame):
    """-> bool."""
    return frame >> VLAN_BIT & 1


@formula
def get_vlan_id(row, frame):
    """-> 12 bits."""
    return ld16be(ld64(row + R.head) + l2_of(frame) + 14) & _VLAN & if_bit(frame, VLAN_BIT)


@kernel
def set_vlan_id(row, frame, value):
    """Set 12 bits."""
    if frame & HAS_VLAN != 0:
        at = ld64(row + R.head) + l2_of(frame) + 14
        st16be(at, ld16be(at) & ~_VLAN | value & _VLAN)


@formula
def get_vlan_pcp(row, frame):
    """-> 3 bits."""
    return ld16be(ld64(row + R.head) + l2_of(frame) + 14) >> _PRIORITY & if_bit(
        frame, VLAN_BIT)


@kernel
def set_vlan_pcp(row, frame, value):
    """Set 3 bits."""
    if frame & HAS_VLAN != 0:
        at = ld64(row + R.head) + l2_of(frame) + 14
        st16be(at, ld16be(at) & (1 << _PRIORITY) - 1 | (value & 7) << _PRIORITY)


# ---------------------------------------------------------------- ARP
@formula
def get_is_arp(row, frame):
    """-> bool."""
    return frame >> ARP_BIT & 1


@formula
def get_arp_op(row, frame):
    """-> 16 bits."""
    return ld16be(ld64(row + R.head) + l3_of(frame) + 6) & if_bit(frame, ARP_BIT)


@kernel
def set_arp_op(row, frame, value):
    """Set 16 bits."""
    if frame & HAS_ARP != 0:
        st16be(ld64(row + R.head) + l3_of(frame) + 6, value)


@formula
def get_arp_sender_mac(row, frame):
    """-> MAC address."""
    return logical(ld64be(ld64(row + R.head) + l3_of(frame) + 8), 16) & if_bit(frame, ARP_BIT)


@kernel
def set_arp_sender_mac(row, frame, value):
    """Set a MAC address."""
    if frame & HAS_ARP != 0:
        put_mac(ld64(row + R.head) + l3_of(frame) + 8, value)


@formula
def get_arp_sender_ip(row, frame):
    """-> IPv4 address."""
    return ld32be(ld64(row + R.head) + l3_of(frame) + 14) & if_bit(frame, ARP_BIT)


@kernel
def set_arp_sender_ip(row, frame, value):
    """Set an IPv4 address."""
    if frame & HAS_ARP != 0:
        st32be(ld64(row + R.head) + l3_of(frame) + 14, value)


@formula
def get_arp_target_mac(row, frame):
    """-> MAC address."""
    return ld64be(ld64(row + R.head) + l3_of(frame) + 16) & _MAC & if_bit(frame, ARP_BIT)


@kernel
def set_arp_target_mac(row, frame, value):
    """Set a MAC address."""
    if frame & HAS_ARP != 0:
        put_mac(ld64(row + R.head) + l3_of(frame) + 18, value)


@formula
def get_arp_target_ip(row, frame):
    """-> IPv4 address."""
    return ld32be(ld64(row + R.head) + l3_of(frame) + 24) & if_bit(frame, ARP_BIT)


@kernel
def set_arp_target_ip(row, frame, value):
    """Set an IPv4 address."""
    if frame & HAS_ARP != 0:
        st32be(ld64(row + R.head) + l3_of(frame) + 24, value)


# ---------------------------------------------------------------- neighbours
@kernel
def exchange32(at):
    """Two neighbours of 32 bits change places."""
    first = ld32(at)
    st32(at, ld32(at + 4))
    st32(at + 4, first)


@kernel
def exchange128(at):
    """Two neighbours of 128 bits change places."""
    for k in range(0, 16, 8):
        first = ld64(at + k)
        st64(at + k, ld64(at + 16 + k))
        st64(at + 16 + k, first)
