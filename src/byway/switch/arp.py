# SPDX-License-Identifier: Apache-2.0
"""ARP for IPv4 over Ethernet (RFC 826): where its fields are, and messages in the place of others.

Used by the responder, port security and the router; uses packet. Works on private heads only.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld16be, ld64, ld64be, memzero, shr64, st16be, st32be, st64, st64be
from byway.packet.batch import R
from byway.packet.ethernet import MIN_FRAME

L3 = 14  # where ARP or IP begins in a frame without VLAN tags
ARP = 0x0806
ARP_ETHERNET_IPV4 = 0x000108000604  # hardware Ethernet, protocol IPv4, address lengths 6 and 4
ARP_BYTES = 28
REQUEST, REPLY = 1, 2
# In an untagged frame.
OPERATION, SENDER_MAC, SENDER_IP, TARGET_MAC, TARGET_IP = 20, 22, 28, 32, 38


@kernel
def is_arp(row):
    """Does the row hold an untagged ARP message for IPv4 over Ethernet?"""
    head = ld64(row + R.head)
    return ld64(row + R.len) >= L3 + ARP_BYTES and ld16be(head + 12) == ARP \
        and shr64(ld64be(head + L3), 16) == ARP_ETHERNET_IPV4


@kernel
def set_macs(head, destination, source):
    """Write a frame's addresses, numbers of 48 bits."""
    st64be(head, destination << 16 | source >> 32)
    st32be(head + 8, source)


@kernel
def replace(row, n):
    """The row's frame is now the n bytes in its head, with nothing left to do."""
    st64(row + R.len, n)
    st64(row + R.addr, ld64(row + R.head))
    st64(row + R.nsegs, 0)
    st64(row + R.offload, 0)


@kernel
def write_arp(row, operation, destination, mac, ip, target_mac, target_ip):
    """The row becomes an ARP message to ``destination``, of the sender ``mac`` and ``ip`` (MAC
    addresses of 48 bits, IPv4 addresses of 32)."""
    head = ld64(row + R.head)
    memzero(head, MIN_FRAME)
    set_macs(head, destination, mac)
    st16be(head + 12, ARP)
    st64be(head + L3, ARP_ETHERNET_IPV4 << 16 | operation)
    st64be(head + SENDER_MAC, mac << 16)
    st32be(head + SENDER_IP, ip)
    st64be(head + TARGET_MAC, target_mac << 16)
    st32be(head + TARGET_IP, target_ip)
    replace(row, MIN_FRAME)
