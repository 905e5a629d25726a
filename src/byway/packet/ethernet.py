# SPDX-License-Identifier: Apache-2.0
"""Ethernet's sizes (IEEE 802.3, without the frame check sequence).

Used by ports (buffers, longest frame delivered), switch (MTU check) and byway.testing.
"""

HEADER = 14
VLAN_TAG = 4
MAX_TAGS = 2


def untagged_frame(mtu: int) -> int:
    """Bytes of the longest frame without VLAN tags."""
    return HEADER + mtu


def longest_frame(mtu: int) -> int:
    """Bytes of the longest frame with as many VLAN tags as are let through."""
    return HEADER + MAX_TAGS * VLAN_TAG + mtu
