# SPDX-License-Identifier: Apache-2.0
"""Offload words that lie, on frames that a stage decides about before the words are checked: what
is answered is checked as well."""

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from byway.packet.batch import FLOOD, UNDECIDED, dropped
from byway.packet.offload import GSO_TCPV4, NEEDS_CSUM
from byway.packet.reason import Reason
from byway.testing.frame_batch import FrameBatch, Unfinished
from byway.testing.offload_kernels import check
from tests.unit.switch.uplink_bed import HOST, OWN, OWN_MAC, PORT, Bed

WILD = Unfinished(NEEDS_CSUM, GSO_TCPV4, 100, 60000, 16)
BAD = dropped(int(Reason.BAD_OFFLOAD))


def ping(version: int) -> bytes:
    """An echo request to the uplink."""
    ether = Ether(src="02:00:00:00:00:09", dst=OWN_MAC.hex(":"))
    if version == 4:
        return bytes(ether / IP(src=".".join(map(str, HOST[4])), dst=".".join(map(str, OWN[4])))
                     / ICMP() / Raw(bytes(20)))
    return bytes(ether / IPv6(src="2001:db8::9", dst="2001:db8::1")
                 / ICMPv6EchoRequest(data=bytes(20)))


@pytest.mark.parametrize("version", [4, 6])
def test_an_echo(version: int) -> None:
    bed = Bed(version)
    frame = ping(version)
    # The true word: ICMP's checksum is to be completed, behind Ethernet and IP.
    true = Unfinished(NEEDS_CSUM, 0, 0, 34 if version == 4 else 54, 2)
    bed.place([frame, (WILD, frame), (true, frame)])
    bed.take()
    rows = bed.frames.batch.rows
    assert rows["out"][:3].tolist() == [PORT] * 3, "the uplink answers all of them"
    check(bed.frames.address)
    assert rows["out"][:3].tolist() == [PORT, BAD, PORT]
    assert rows["offload"][:3].tolist() == [0, 0, true.word]
    assert bed.frames.batch.record["offloads"][0] == true.word


def test_all_that_may_go_out() -> None:
    frames = FrameBatch()
    outs = [UNDECIDED, FLOOD, 0, PORT, dropped(int(Reason.RATE))]
    n = frames.place([(WILD, ping(4))] * len(outs))
    rows = frames.batch.rows
    rows["out"][:n] = outs
    check(frames.address)
    assert rows["out"][:n].tolist() == [BAD] * 4 + [dropped(int(Reason.RATE))]
