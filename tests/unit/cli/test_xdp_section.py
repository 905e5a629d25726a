# SPDX-License-Identifier: Apache-2.0
"""What `byway port show` says of an af-xdp port beyond what every port has."""

from byway.cli.port import _section


def test_a_line_for_each_fact_that_says_something() -> None:
    facts = {"mode": "skb", "zero_copy": False, "kernel": {"rx_dropped": 0, "tx_ring_empty": 3},
             "switched_off": {"eth0 in c1": ["tx-vlan-hw-insert", "tx-gso-list"]}}
    assert _section("xdp", facts) == [
        "xdp",
        "  mode: skb",
        "  zero copy: False",
        "  kernel: tx_ring_empty 3",
        "  switched off: eth0 in c1 tx-vlan-hw-insert tx-gso-list",
    ]
