# SPDX-License-Identifier: Apache-2.0
"""Every drop reason happens in some test: in a scenario's counters, or in a test named here."""

import ast
import tomllib

from byway.packet.reason import Reason
from tests.architecture.sources import ROOT, dotted, tree

# What needs a peer that breaks the rules: the test, which asserts the reason.
ELSEWHERE = {
    Reason.BAD_ADDRESS: "tests/unit/virtio/test_walk.py",
    Reason.BAD_CHAIN: "tests/unit/virtio/test_walk.py",
    Reason.BAD_DIRECTION: "tests/unit/virtio/test_walk.py",
    Reason.LONG_CHAIN: "tests/unit/virtio/test_walk.py",
    Reason.BAD_LENGTH: "tests/oracles/test_driver.py",
    Reason.BAD_OFFLOAD: "tests/unit/packet/test_offload.py",
    Reason.NO_TRANSLATION: "tests/oracles/test_behind_iommu.py",
    Reason.INTERFACE_DOWN: "tests/unit/ports/test_tap_kernels.py",
    Reason.REFUSED: "tests/unit/ports/test_tap_kernels.py",
    Reason.TRUNCATED: "tests/unit/ports/test_af_packet_kernels.py",
    Reason.RING_FULL: "tests/unit/ports/test_udp.py",
    Reason.FLOOD_BACKLOG: "tests/oracles/test_flood.py",
    Reason.RATE: "tests/unit/switch/test_meter.py",
    Reason.BROADCAST_RATE: "tests/unit/switch/test_meter.py",
    Reason.TO_UPLINK: "tests/unit/switch/test_uplink.py",
    Reason.UNKNOWN_VNI: "tests/unit/ports/test_tunnel_kernels.py",
    Reason.UNKNOWN_TUNNEL: "tests/unit/ports/test_tunnel_kernels.py",
    Reason.BAD_TUNNEL: "tests/unit/ports/test_tunnel_kernels.py",
    Reason.TOO_BIG: "tests/unit/ports/test_tunnel_send.py",
    Reason.SEND_REFUSED: "tests/unit/ports/test_tunnel_send.py",
    Reason.LOCAL_MAC: "tests/oracles/test_remote_decisions.py",
    Reason.UNKNOWN_UNICAST: "tests/oracles/test_remote_decisions.py",
    Reason.SPOOFED_MAC: "tests/spec/test_port_security.py",
    Reason.SPOOFED_IP: "tests/spec/test_port_security.py",
    Reason.SPOOFED_ARP: "tests/spec/test_port_security.py",
    Reason.DHCP_SERVER: "tests/spec/test_port_security.py",
    Reason.ROUTER_ADVERT: "tests/spec/test_port_security.py",
    Reason.HIDDEN_HEADER: "tests/spec/test_port_security.py",
    Reason.NOT_ALLOWED: "tests/unit/switch/test_groups.py",
    Reason.BAD_STATE: "tests/spec/test_tcp_states.py",
    Reason.CONNECTIONS: "tests/hostile/test_groups.py",
    Reason.CONGESTED: "tests/unit/ports/test_tunnel_kernels.py",
    Reason.NO_ROUTE: "tests/unit/switch/test_router.py",
    Reason.TTL_EXPIRED: "tests/unit/switch/test_router.py",
    Reason.NO_NEIGHBOUR: "tests/unit/switch/test_router.py",
    Reason.TO_GATEWAY: "tests/unit/switch/test_router.py",
    Reason.BAD_IP: "tests/unit/switch/test_router.py",
    Reason.MARTIAN: "tests/unit/switch/test_router.py",
    Reason.FUNCTION: "tests/unit/functions/test_verdicts.py",
    Reason.FUNCTION_FAULT: "tests/unit/functions/test_verdicts.py",
    Reason.SERVICE_DOWN: "tests/unit/switch/test_service.py",
    Reason.SERVICE_ADDRESS: "tests/unit/switch/test_service.py",
    Reason.SERVICE_STRAY: "tests/unit/switch/test_service.py",
    Reason.SERVICE_PROBE: "tests/unit/switch/test_service.py",
}


def in_scenarios() -> set[Reason]:
    """The reasons that some scenario counts."""
    names = {reason.name.lower(): reason for reason in Reason}
    found = set()
    for path in (ROOT / "tests" / "scenarios").glob("*.toml"):
        for counted in tomllib.loads(path.read_text())["counters"].values():
            words = {word.partition("=")[0] for word in counted.split()}
            found |= {reason for name, reason in names.items() if name in words}
    return found


def test_every_reason_happens() -> None:
    assert in_scenarios().isdisjoint(ELSEWHERE), "the table names what a scenario shows already"
    assert in_scenarios() | set(ELSEWHERE) == set(Reason)


def test_the_table_is_true() -> None:
    for reason, place in ELSEWHERE.items():
        used = {dotted(node) for node in ast.walk(tree(ROOT / place))}
        assert f"Reason.{reason.name}" in used, f"{place} says nothing of {reason.name}"
