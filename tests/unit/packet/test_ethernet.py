# SPDX-License-Identifier: Apache-2.0
"""packet/ethernet.py: lengths, and the frame of a guest that was moved, as scapy reads it."""

import pytest
from scapy.layers.l2 import ARP, Ether

from byway.packet.ethernet import longest_frame, rarp_frame, untagged_frame


def test_lengths() -> None:
    assert (untagged_frame(1500), longest_frame(1500)) == (1514, 1522)


def test_rarp_frame() -> None:
    mac = bytes.fromhex("525400123456")
    raw = rarp_frame(mac)
    frame = Ether(raw)
    assert len(raw) == 60
    assert (frame.dst, frame.src, frame.type) == ("ff:ff:ff:ff:ff:ff", "52:54:00:12:34:56", 0x8035)
    arp = ARP(raw[14:])
    assert (arp.hwtype, arp.ptype, arp.hwlen, arp.plen, arp.op) == (1, 0x0800, 6, 4, 3)
    assert (arp.hwsrc, arp.hwdst) == ("52:54:00:12:34:56",) * 2
    assert (arp.psrc, arp.pdst) == ("0.0.0.0",) * 2
    with pytest.raises(ValueError, match="5 bytes"):
        rarp_frame(mac[1:])
