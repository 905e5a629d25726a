# SPDX-License-Identifier: Apache-2.0
"""Frames for tests: what is built is what is parsed, and Scapy agrees."""

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from byway.testing.frames import (
    ARP_REQUEST,
    BROADCAST,
    ECHO_REQUEST,
    Arp,
    Echo,
    checksum,
    ethernet,
    mac,
)

ONE, TWO = mac("02:00:00:00:00:01"), mac("02:00:00:00:00:02")


def test_arp() -> None:
    ask = Arp(ARP_REQUEST, ONE, "10.0.0.1", bytes(6), "10.0.0.2")
    frame = ask.frame(BROADCAST)
    assert Arp.parse(frame) == ask
    other = Ether(frame)
    assert other.dst == "ff:ff:ff:ff:ff:ff"
    assert (other[ARP].op, other[ARP].psrc, other[ARP].pdst) == (1, "10.0.0.1", "10.0.0.2")


def test_echo() -> None:
    ping = Echo(ECHO_REQUEST, "10.0.0.1", "10.0.0.2", 7, 9, b"an odd number of bytes!!!")
    frame = ping.frame(TWO, ONE)
    assert Echo.parse(frame) == ping
    other = Ether(frame)
    sums = other[IP].chksum, other[ICMP].chksum
    del other[IP].chksum, other[ICMP].chksum
    again = Ether(bytes(other))
    assert (again[IP].chksum, again[ICMP].chksum) == sums
    assert (other[ICMP].id, other[ICMP].seq) == (7, 9)


@pytest.mark.parametrize("frame", [
    b"", bytes(60), ethernet(TWO, ONE, 0x0800, bytes(46)), ethernet(TWO, ONE, 0x0806, bytes(46))])
def test_what_is_neither(frame: bytes) -> None:
    assert Arp.parse(frame) is None
    assert Echo.parse(frame) is None


def test_an_echo_with_a_wrong_checksum() -> None:
    frame = bytearray(Echo(ECHO_REQUEST, "10.0.0.1", "10.0.0.2", 7, 9).frame(TWO, ONE))
    frame[43] ^= 1
    assert Echo.parse(bytes(frame)) is None


def test_sizes_and_sums() -> None:
    assert len(ethernet(TWO, ONE, 0x88B5, b"")) == 60
    assert len(ethernet(TWO, ONE, 0x88B5, bytes(100))) == 114
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071, 3
