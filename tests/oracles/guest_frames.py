# SPDX-License-Identifier: Apache-2.0
"""Frames of guests, honest and not: ARP, DHCP, neighbour discovery, with tags, extension headers
and fragments, and with a few bytes changed. Hypothesis strategies; used by tests of stages."""

from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Ether

from tests.oracles.plain_port_security import Pairs

MACS = ["02:00:00:00:00:01", "fe:00:5e:00:01:01", "02:00:00:00:00:02"]
V4 = ["10.0.0.1", "10.0.0.2", "10.9.3.4", "0.0.0.0", "10.0.0.100"]
V6 = ["fd00::1", "fd00::2", "fd01::9", "::", "fe80::ff:fe00:1", "fe80::fc00:5eff:fe00:101",
      "::ffff:10.0.0.1"]
NUMBERS = [int(mac.replace(":", ""), 16) for mac in MACS]
PAIRS: list[Pairs] = [
    [(NUMBERS[0], "10.0.0.1"), (NUMBERS[0], "fd00::1"), (NUMBERS[0], "10.9.0.0/16"),
     (NUMBERS[1], "10.0.0.100/31"), (NUMBERS[0], "fd01::/64")],
    [(NUMBERS[0], None)],
    [(NUMBERS[1], "0.0.0.0/0"), (NUMBERS[0], "::/0")]]

macs, v4, v6 = st.sampled_from(MACS), st.sampled_from(V4), st.sampled_from(V6)
ports = st.sampled_from([67, 68, 546, 547, 80])
options = st.lists(st.one_of(st.builds(lambda m: ICMPv6NDOptSrcLLAddr(lladdr=m), macs),
                             st.builds(lambda m: ICMPv6NDOptDstLLAddr(lladdr=m), macs)), max_size=3)


def chain(*parts: object) -> bytes:
    packet = parts[0]
    for part in parts[1:]:
        packet = packet / part  # type: ignore[operator]
    return bytes(packet)  # type: ignore[call-overload]


udp = st.builds(lambda s, d: UDP(sport=s, dport=d), ports, ports)
upper = st.one_of(
    udp.map(lambda u: [u]), st.just([ICMPv6ND_RA()]),
    st.builds(lambda t, o: [ICMPv6ND_NS(tgt=t), *o], v6, options),
    st.builds(lambda t, o: [ICMPv6ND_NA(tgt=t), *o], v6, options),
    options.map(lambda o: [ICMPv6ND_RS(), *o]))
between = st.lists(st.one_of(
    st.just(IPv6ExtHdrDestOpt()),
    st.builds(lambda o, m: IPv6ExtHdrFragment(offset=o, m=m), st.sampled_from([0, 0, 3]),
              st.integers(0, 1))), max_size=3)
tags = st.lists(st.just(Dot1Q(vlan=3)), max_size=3)
inner = st.one_of(
    st.builds(lambda s, m, t, op: [ARP(hwsrc=m, psrc=s, pdst=t, op=op)], v4, macs, v4,
              st.integers(1, 2)),
    st.builds(lambda s, u: [IP(src=s, dst="10.0.0.9"), u], v4, udp),
    st.builds(lambda s, e, u: [IPv6(src=s, dst="fd00::9"), *e, *u], v6, between, upper),
    st.just([LLC(), SNAP(OUI=0, code=0x0800)]))
whole = st.builds(lambda m, t, i: chain(Ether(src=m, dst=MACS[2]), *t, *i), macs, tags, inner)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame that makes sense, or one that a few bytes or its end keep from that."""
    frame = bytearray(draw(whole))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2, 4]))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.one_of(
            st.sampled_from([0, 1, 2, 44, 58, 60, 255]), st.integers(0, 255)))
    if draw(st.integers(0, 4)) == 0:
        return bytes(frame[: draw(st.integers(0, len(frame)))])
    return bytes(frame) + draw(st.sampled_from([b"", bytes(18), bytes(100)]))
