# SPDX-License-Identifier: Apache-2.0
"""sFlow version 5 datagrams, read field by field as its XDR says ("sFlow Version 5", 2004)."""

import ipaddress
import struct

import pytest

from byway.functions.export.sflow import PAYLOAD, Agent, Sample


class Reader:
    """XDR (RFC 4506), read in order."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def number(self) -> int:
        return struct.unpack("!I", self.take(4))[0]

    def take(self, n: int) -> bytes:
        found, self._octets = self._octets[:n], self._octets[n:]
        assert len(found) == n
        return found

    def opaque(self) -> bytes:
        n = self.number()
        found = self.take(n)
        assert self.take(-n % 4) == bytes(-n % 4)
        return found

    @property
    def left(self) -> int:
        return len(self._octets)


def sample(header: bytes = b"\x02" * 60, **fields: int) -> Sample:
    values = {"length": len(header), "rate": 100, "pool": 1000, "port": 3} | fields
    return Sample(header, **values)


def opened(datagram: bytes, address: str = "10.0.0.9") -> tuple[Reader, int, int]:
    """A datagram after its header: the rest, its number, its samples."""
    reader = Reader(datagram)
    assert reader.number() == 5
    ip = ipaddress.ip_address(address)
    assert reader.number() == {4: 1, 6: 2}[ip.version]
    assert reader.take(len(ip.packed)) == ip.packed
    assert reader.number() == 0  # sub-agent
    number = reader.number()
    assert reader.number() == 2500  # uptime in milliseconds
    return reader, number, reader.number()


@pytest.mark.parametrize("address", ["10.0.0.9", "fd00::9"])
@pytest.mark.parametrize("length", [14, 61, 128])
def test_a_flow_sample(address: str, length: int) -> None:
    header = bytes(range(length))
    agent = Agent(ipaddress.ip_address(address))
    datagram, = agent.datagrams([sample(header, length=1514, lost=4)], 2.5)
    reader, number, samples = opened(datagram, address)
    assert (number, samples) == (1, 1)
    assert reader.number() == 1  # flow_sample
    assert reader.number() == reader.left
    assert [reader.number() for _ in range(8)] == [1, 3, 100, 1000, 4, 3, 0, 1]
    assert reader.number() == 1  # sampled_header
    assert reader.number() == reader.left
    assert [reader.number() for _ in range(3)] == [1, 1518, 4]  # Ethernet; FCS counts, stripped
    assert reader.opaque() == header
    assert reader.left == 0


def test_samples_are_numbered_for_each_source_and_datagrams_for_all() -> None:
    agent = Agent(ipaddress.ip_address("10.0.0.9"))
    made = [*agent.datagrams([sample(port=1), sample(port=2), sample(port=1)], 2.5),
            *agent.datagrams([sample(port=2)], 2.5)]
    numbers = []
    for expected, datagram in enumerate(made, 1):
        reader, number, samples = opened(datagram)
        assert number == expected
        for _ in range(samples):
            assert reader.number() == 1
            body = Reader(reader.opaque())
            numbers.append((body.number(), body.number()))
    assert numbers == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_many_samples_go_in_several_datagrams() -> None:
    made = list(Agent(ipaddress.ip_address("10.0.0.9")).datagrams([sample(b"\1" * 128)] * 50, 2.5))
    assert all(len(one) <= PAYLOAD for one in made)
    assert sum(opened(one)[2] for one in made) == 50
    assert list(Agent(ipaddress.ip_address("10.0.0.9")).datagrams([], 1.0)) == []
