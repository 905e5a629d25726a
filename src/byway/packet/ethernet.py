# SPDX-License-Identifier: Apache-2.0
"""Ethernet's sizes (IEEE 802.3, without the frame check sequence), and the frame that announces.

Used by ports (buffers, longest frame delivered, a guest that was moved), switch (MTU check) and
byway.testing.
"""

HEADER = 14
VLAN_TAG = 4
MAX_TAGS = 2
MIN_FRAME = 60
BROADCAST = b"\xff" * 6
# EtherType; then hardware Ethernet, protocol IPv4, address lengths 6 and 4, "request reverse"
# (RFC 903).
_RARP = bytes.fromhex("8035 0001 0800 06 04 0003")


def untagged_frame(mtu: int) -> int:
    """Bytes of the longest frame without VLAN tags."""
    return HEADER + mtu


def longest_frame(mtu: int) -> int:
    """Bytes of the longest frame with as many VLAN tags as are let through."""
    return HEADER + MAX_TAGS * VLAN_TAG + mtu


def rarp_frame(mac: bytes) -> bytes:
    """The frame by which a machine with address ``mac`` (6 bytes) tells everybody where it is.

    A reverse ARP request for itself, as hypervisors send it for a guest that they moved: every
    switch on its way learns the address, and nobody answers it.
    """
    if len(mac) != 6:
        raise ValueError(f"a MAC address of {len(mac)} bytes")
    nobody = bytes(4)
    return (BROADCAST + mac + _RARP + mac + nobody + mac + nobody).ljust(MIN_FRAME, b"\0")
