# SPDX-License-Identifier: Apache-2.0
"""What a rule means, and what is said of one that cannot be."""

from typing import Any

import pytest

from byway.nf import RuleError, Rules
from byway.nf.frame import Frame
from byway.nf.rules import Rule
from byway.testing.builders import arp, ethernet, icmp, icmpv6, ip, tcp, udp, vxlan

SYN, ACK = tcp("10.0.0.1", "10.9.0.2", 4000, 80, "S"), tcp("10.0.0.1", "10.9.0.2", 4000, 80, "A")
PIECE = ip("10.0.0.1", "10.9.0.2", 17, bytes(64), fragment=(64, True))


@pytest.mark.parametrize(("rule", "yes", "no"), [
    ({}, (SYN, arp(), ethernet(b"", 0x88CC)), ()),
    ({"source": "10.0.0.0/24"}, (SYN, PIECE), (udp("10.0.1.1", "10.9.0.2"), arp())),
    ({"source": "any", "destination": "10.9.0.2"}, (SYN,), (tcp("10.9.0.2", "10.0.0.1"),)),
    ({"destination": "fd00::/16"}, (udp("fd01::1", "fd00::1"),), (udp("fd00::1", "fd01::1"), SYN)),
    ({"protocol": "udp"}, (udp(), udp("fd00::1", "fd00::2"), PIECE), (SYN, arp())),
    ({"protocol": 47}, (ip("10.0.0.1", "10.0.0.2", 47, b""),), (SYN,)),
    ({"destination_ports": 80}, (SYN, udp(dport=80)), (udp(dport=81), PIECE, icmp())),
    ({"source_ports": "0-65535"}, (SYN, udp()), (PIECE, icmp())),
    ({"protocol": "udp", "source_ports": "10-20"}, (udp(sport=10), udp(sport=20)),
     (udp(sport=9), udp(sport=21), tcp(sport=15))),
    ({"protocol": "tcp", "tcp_flags": "SYN/SYN,ACK"}, (SYN,), (ACK, tcp(flags="SA"), udp())),
    ({"protocol": "tcp", "tcp_flags": "/SYN"}, (ACK, tcp(flags="")), (SYN,)),
    ({"protocol": "icmp", "icmp_type": 8}, (icmp(), icmp(code=3)), (icmp(kind=0), icmpv6())),
    ({"protocol": "icmpv6", "icmp_type": 128, "icmp_code": 0}, (icmpv6(),), (icmpv6(code=1),)),
    ({"eth_type": 0x0806}, (arp(), arp(vlan=(5,))), (SYN,)),
    ({"eth_type": 0x0800}, (SYN, ethernet(b"", 0x0800)), (udp("fd00::1", "fd00::2"),)),
    ({"source": "192.0.2.1"}, (vxlan(SYN),), (SYN,)),
])
def test_which_frames_a_rule_means(rule: dict[str, Any], yes: tuple[bytes, ...],
                                   no: tuple[bytes, ...]) -> None:
    made = Rule.given({"value": 1, **rule})
    assert [made.matches(Frame(one)) for one in yes] == [True] * len(yes)
    assert [made.matches(Frame(one)) for one in no] == [False] * len(no)
    assert Rule.given(made.shown()) == made


@pytest.mark.parametrize(("rule", "message"), [
    ({"src": "10.0.0.1"}, "a rule has no 'src'"),
    ({"source": "10.0.0.1/8"}, "source: 10.0.0.1/8 has host bits set"),
    ({"source": "10.0.0.0/8", "destination": "fd00::/8"}, "make two rules"),
    ({"protocol": "ipx"}, "protocol: 'ipx' is unknown; write icmp, tcp"),
    ({"protocol": 256}, "protocol: 256 is no number from 0 to 255"),
    ({"protocol": "icmp", "source_ports": 5}, "ports and tcp_flags go with protocol tcp or udp"),
    ({"source_ports": "20-10"}, "source_ports: '20-10' is no port"),
    ({"source_ports": True}, "source_ports: True is no port"),
    ({"tcp_flags": "SYN/SYN"}, 'tcp_flags goes with protocol = "tcp"'),
    ({"protocol": "tcp", "tcp_flags": "SYN"}, "'SYN' is not like"),
    ({"protocol": "tcp", "tcp_flags": "SYN/ACK"}, "'SYN/ACK' is not like"),
    ({"icmp_type": 8}, "icmp_type goes with protocol"),
    ({"protocol": "icmp", "icmp_code": 8}, "icmp_code goes with icmp_type"),
    ({"protocol": "icmp", "icmp_type": 8, "source": "fd00::1"}, "icmp goes with IPv4 addresses"),
    ({"eth_type": 0x0806, "source": "10.0.0.1"}, "eth_type goes with nothing of IP"),
    ({"value": "allow"}, "value: 'allow' is unknown; write 'drop' or 'pass'"),
    ({"value": 2}, "value: 2 is no number from 0 to 1"),
])
def test_what_is_said_of_a_rule_that_cannot_be(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(RuleError) as caught:
        Rules(values=("drop", "pass")).put(1, {"value": 1, **rule})
    assert message in str(caught.value)


def test_what_is_no_rule_and_no_place() -> None:
    rules = Rules(capacity=3, values=("drop", "pass"))
    for place, rule, message in ((1, "drop", "'drop' is no rule"), ("first", {}, "'first'"),
                                 (-1, {}, "-1"), (None, {}, "a rule has a place")):
        with pytest.raises(RuleError, match=message):
            rules.put(place, rule)
    with pytest.raises(ValueError, match="capacity=16001"):
        Rules(capacity=16001)


def test_the_lowest_place_counts() -> None:
    rules = Rules(values=("drop", "pass"))
    assert rules.put(20, {"value": "pass"})
    assert rules.put("10", {"value": "drop", "source": "10.0.0.1"})
    assert rules.match(Frame(SYN), 9) == 0
    assert rules.match(Frame(arp()), 9) == 1
    assert rules.entries() == [(10, {"value": "drop", "source": "10.0.0.1/32", "hits": 1}),
                               (20, {"value": "pass", "hits": 1})]
    assert rules.fill(dict(rules.entries()))
    assert rules.fresh(None).match(Frame(SYN), 9) == 9
