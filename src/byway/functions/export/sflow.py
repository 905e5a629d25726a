# SPDX-License-Identifier: Apache-2.0
"""sFlow datagrams, version 5 (sflow.org, "sFlow Version 5", July 2004): samples of frames.

Used by the listener of byway.sampler. Uses nothing.

Everything is XDR (RFC 4506): numbers of 32 bits in network order, bytes padded to a multiple of 4.
A datagram holds *flow samples*; each says how one frame was chosen (one of ``rate``, out of a
``pool`` of frames so far) and has the frame's first bytes as they were on the wire.
"""

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

VERSION = 5
FLOW_SAMPLE = 1  # enterprise 0, format 1
RAW_HEADER = 1  # flow data: enterprise 0, format 1
ETHERNET = 1  # header protocol ETHERNET-ISO8023
FCS = 4  # a frame's length counts it, what is sampled has it stripped
IF_INDEX = 0  # class of a data source: an interface
UNKNOWN_OUTPUT = 0  # the interface that it went out of is not known
PAYLOAD = 1400  # bytes of a datagram


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame that was chosen. ``header``: its first bytes; ``length``: of the frame, without FCS;
    ``rate``: one of so many is chosen; ``pool``: frames that could have been chosen so far;
    ``lost``: samples so far that there was no room for; ``port``: where it came in (number)."""

    header: bytes
    length: int
    rate: int
    pool: int
    lost: int = 0
    port: int = 0


class Agent:
    """What sends samples: ``address`` names it to the collector, wherever its datagrams come
    from."""

    def __init__(self, address: Address, sub_agent: int = 0, payload: int = PAYLOAD) -> None:
        self._begin = struct.pack("!II", VERSION, 1 if address.version == 4 else 2)
        self._begin += address.packed + struct.pack("!I", sub_agent)
        self._payload = payload
        self._datagrams = 0
        self._samples: dict[int, int] = {}  # so far, by port: numbered for each source

    def datagrams(self, samples: Sequence[Sample], uptime: float) -> Iterator[bytes]:
        """The datagrams for these samples; ``uptime``: seconds that the agent is up."""
        room = self._payload - len(self._begin) - 12
        lot: list[bytes] = []
        for sample in samples:
            made = self._sample(sample)
            if lot and sum(map(len, lot)) + len(made) > room:
                yield self._datagram(lot, uptime)
                lot = []
            lot.append(made)
        if lot:
            yield self._datagram(lot, uptime)

    def _datagram(self, samples: list[bytes], uptime: float) -> bytes:
        self._datagrams += 1
        return self._begin + struct.pack(
            "!III", self._datagrams & 0xFFFFFFFF, int(uptime * 1000) & 0xFFFFFFFF,
            len(samples)) + b"".join(samples)

    def _sample(self, sample: Sample) -> bytes:
        number = self._samples[sample.port] = self._samples.get(sample.port, 0) + 1
        raw = struct.pack("!IIII", ETHERNET, sample.length + FCS, FCS, len(sample.header))
        raw += sample.header + bytes(-len(sample.header) % 4)
        body = struct.pack(
            "!8I", number & 0xFFFFFFFF, IF_INDEX << 24 | sample.port & 0xFFFFFF, sample.rate,
            sample.pool & 0xFFFFFFFF, sample.lost & 0xFFFFFFFF, sample.port, UNKNOWN_OUTPUT, 1)
        body += struct.pack("!II", RAW_HEADER, len(raw)) + raw
        return struct.pack("!II", FLOW_SAMPLE, len(body)) + body
