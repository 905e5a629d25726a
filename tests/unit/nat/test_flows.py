# SPDX-License-Identifier: Apache-2.0
"""What conntrack says of a flow (linux/netfilter/nfnetlink_conntrack.h), byte by byte."""

import ipaddress
import struct

import pytest

from byway.nat import Publication
from byway.nat.flows import Flow, _is_stale, forget, read_flow

TCP, UDP = 6, 17
CLIENT = b"\xc0\x00\x02\x09"  # 192.0.2.9
HOST = b"\xc0\x00\x02\x01"
CONTAINER = b"\x0a\x00\x00\x02"


def attribute(kind: int, data: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def ends(protocol: int, source: bytes, source_port: int, to: bytes, to_port: int) -> bytes:
    """A tuple: addresses 1 and 2 of IPv4, or 3 and 4 of IPv6, and ports in network order."""
    first = 1 if len(source) == 4 else 3
    ip = attribute(0x8001, attribute(first, source) + attribute(first + 1, to))
    ports = attribute(1, bytes([protocol]))
    ports += attribute(2, source_port.to_bytes(2, "big"))
    ports += attribute(3, to_port.to_bytes(2, "big"))
    return ip + attribute(0x8002, ports)


def message(original: bytes, reply: bytes) -> bytes:
    """Both tuples, and an attribute that is of no interest (CTA_STATUS)."""
    return attribute(0x8001, original) + attribute(3, bytes(4)) + attribute(0x8002, reply)


def flow(called: str, port: int, answers: str, answering: int) -> Flow:
    return Flow((ipaddress.ip_address(called), port), (ipaddress.ip_address(answers), answering),
                b"")


def test_a_flow_that_is_led_to_a_container() -> None:
    original = ends(UDP, CLIENT, 1234, HOST, 5000)
    found = read_flow(message(original, ends(UDP, CONTAINER, 50, CLIENT, 1234)))
    assert found == flow("192.0.2.1", 5000, "10.0.0.2", 50)._replace(original=original)
    assert found.translated


def test_a_flow_of_ipv6_that_is_not_translated() -> None:
    client, host = bytes(15) + b"\x09", bytes(15) + b"\x01"
    found = read_flow(message(ends(UDP, client, 1, host, 53), ends(UDP, host, 53, client, 1)))
    assert found is not None
    assert found.called == (ipaddress.ip_address("::1"), 53)
    assert not found.translated


def test_a_connection_is_none_of_our_business() -> None:
    original = ends(TCP, CLIENT, 1234, HOST, 5000)
    assert read_flow(message(original, ends(TCP, CONTAINER, 50, CLIENT, 1234))) is None


PORT = Publication("udp", 5000, "10.0.0.2", 50)
BOUND = Publication("udp", 5000, "10.0.0.2", 50, host="192.0.2.7")


@pytest.mark.parametrize(("one", "port", "withdrawn", "stale"), [
    (flow("192.0.2.1", 5000, "10.0.0.2", 50), PORT, True, True),
    (flow("192.0.2.1", 5000, "10.0.0.2", 50), PORT, False, False),  # as it is to be
    (flow("192.0.2.1", 5000, "10.0.0.3", 50), PORT, False, True),  # who had it before
    (flow("192.0.2.1", 5000, "10.0.0.3", 50), PORT, True, False),  # who has it by now
    (flow("127.0.0.1", 5000, "127.0.0.1", 5000), PORT, False, True),  # the host itself
    (flow("198.51.100.1", 5000, "198.51.100.1", 5000), PORT, False, False),  # another host's
    (flow("192.0.2.1", 5000, "10.0.0.2", 50), BOUND, True, False),  # another address of ours
])
def test_which_flows_are_forgotten(
    one: Flow, port: Publication, withdrawn: bool, stale: bool
) -> None:
    assert _is_stale(one, port, withdrawn) == stale


def test_nothing_is_asked_for_the_sake_of_tcp() -> None:
    assert forget("/nowhere", [Publication("tcp", 80, "10.0.0.2", 80)], withdrawn=True) == ""
    assert forget("/nowhere", [PORT], withdrawn=True) == (
        "UDP flows that there are go on as they did (No such file or directory)")
