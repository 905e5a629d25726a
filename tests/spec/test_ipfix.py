# SPDX-License-Identifier: Apache-2.0
"""IPFIX as RFC 7011 has it; read by scapy, which knows nothing of ours."""

import ipaddress
import struct

import pytest
from scapy.layers.netflow import NetflowDataflowsetV9, NetflowHeader, NetflowSession

from byway.functions.export.ipfix import (
    END_OF_FLOW,
    HEADER,
    PAYLOAD,
    TEMPLATE_SECONDS,
    Exporter,
    Flow,
    template_set,
)

NOW = 1_700_000_000.25


def flow(source: str = "10.0.0.1", target: str = "10.0.0.2", **fields: object) -> Flow:
    values: dict[str, object] = {
        "protocol": 6, "packets": 3, "octets": 1 << 33, "start": NOW - 5, "end": NOW - 1,
        "source_port": 40000, "target_port": 443, "tcp_flags": 0x1B, "tos": 0xB8, "port": 7,
        "reason": END_OF_FLOW} | fields
    return Flow(ipaddress.ip_address(source), ipaddress.ip_address(target), **values)


def records(messages: list[bytes]) -> list[object]:
    """What a collector that saw all of them makes of their data."""
    session = NetflowSession()
    found: list[object] = []
    for message in messages:
        packet = session.process(NetflowHeader(message))
        layer = packet
        while layer := layer.getlayer(NetflowDataflowsetV9):
            found += list(layer.records)
            layer = layer.payload
    return found


def test_header() -> None:
    message = list(Exporter(domain=9).messages([flow()], NOW))[1]
    assert struct.unpack_from("!HHIII", message) == (10, len(message), 1_700_000_000, 0, 9)


def test_template_comes_first_and_names_elements_of_the_registry() -> None:
    first = next(Exporter().messages([flow()], NOW))
    assert first[HEADER.size:] == template_set()
    identifier, length, template, fields = struct.unpack_from("!HHHH", template_set())
    assert (identifier, length, template, fields) == (2, len(template_set()), 256, 14)
    elements = [struct.unpack_from("!HH", template_set(), 8 + 4 * k) for k in range(fields)]
    assert elements == [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (5, 1), (6, 1), (32, 2), (10, 4),
                        (1, 8), (2, 8), (152, 8), (153, 8), (136, 1)]
    second = [struct.unpack_from("!HH", template_set(), 12 + 4 * fields + 4 * k)
              for k in range(fields)]
    assert struct.unpack_from("!HH", template_set(), 8 + 4 * fields) == (257, 14)
    assert second == [(27, 16), (28, 16), *elements[2:7], (139, 2), *elements[8:]]


def test_a_record_is_read_as_it_was_meant() -> None:
    one, = records(list(Exporter().messages([flow()], NOW)))
    assert (one.IPV4_SRC_ADDR, one.IPV4_DST_ADDR) == ("10.0.0.1", "10.0.0.2")
    assert (one.L4_SRC_PORT, one.L4_DST_PORT) == (40000, 443)
    assert (one.IN_PKTS, one.IN_BYTES) == (3, 1 << 33)
    assert one.PROTOCOL == 6


def test_ipv6_has_a_set_of_its_own() -> None:
    made = list(Exporter().messages([flow("fd00::1", "fd00::2"), flow()], NOW))
    assert len(made) == 3
    assert [struct.unpack_from("!H", one, HEADER.size)[0] for one in made] == [2, 256, 257]
    assert made[2][HEADER.size + 4:][:32] == (
        ipaddress.ip_address("fd00::1").packed + ipaddress.ip_address("fd00::2").packed)


def test_templates_again_after_their_time() -> None:
    exporter = Exporter()
    assert len(list(exporter.messages([flow()], NOW))) == 2
    assert len(list(exporter.messages([flow()], NOW + TEMPLATE_SECONDS - 1))) == 1
    assert len(list(exporter.messages([flow()], NOW + TEMPLATE_SECONDS))) == 2


def test_sequence_counts_the_data_records_before() -> None:
    exporter = Exporter()
    made = [*exporter.messages([flow()] * 5, NOW), *exporter.messages([flow()] * 2, NOW + 1)]
    made += list(exporter.messages([], NOW + 2 * TEMPLATE_SECONDS))
    assert [struct.unpack_from("!I", one, 8)[0] for one in made] == [0, 0, 5, 7]


@pytest.mark.parametrize("version", [4, 6])
def test_no_message_is_longer_than_a_datagram_and_none_of_the_flows_is_lost(version: int) -> None:
    ends = ("10.0.0.1", "10.0.0.2") if version == 4 else ("fd00::1", "fd00::2")
    made = list(Exporter().messages([flow(*ends, port=k) for k in range(100)], NOW))
    assert all(len(one) <= PAYLOAD for one in made)
    assert all(struct.unpack_from("!H", one, 2)[0] == len(one) for one in made)
    assert len(records(made)) == 100
