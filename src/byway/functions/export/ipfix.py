# SPDX-License-Identifier: Apache-2.0
"""IPFIX messages (RFC 7011) that tell a collector of flows, over UDP.

Used by the listener of byway.flow_export. Uses nothing.

A message is a header and sets. A *template set* says which information elements (RFC 7012; numbers
of IANA's registry) a record has, in order; a *data set* names a template and holds records. Over
UDP either may get lost, so templates are sent again every TEMPLATE_SECONDS (RFC 7011, 8.4), and the
header's sequence number, the data records sent before, lets the collector see what it missed.
"""

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

VERSION = 10  # RFC 7011, 3.1
HEADER = struct.Struct("!HHIII")  # version, length, export time, sequence number, domain
SET_HEADER = struct.Struct("!HH")  # id, length with this header
TEMPLATE_SET = 2
TEMPLATES = {4: 256, 6: 257}  # template ids below 256 are reserved (3.4.1), by IP version
TEMPLATE_SECONDS = 60.0
PAYLOAD = 1400  # bytes of a datagram; it must not be fragmented (10.3.3)

# Why a flow's record was made (element 136).
IDLE_TIMEOUT, ACTIVE_TIMEOUT, END_OF_FLOW, FORCED_END, NO_ROOM = 1, 2, 3, 4, 5

# Element number and bytes, in the order in which _record writes them.
_ADDRESSES = {4: ((8, 4), (12, 4)), 6: ((27, 16), (28, 16))}
_ICMP = {4: 32, 6: 139}  # icmpTypeCodeIPv4, icmpTypeCodeIPv6
_REST = struct.Struct("!HHBBBHIQQQQB")


def _elements(version: int) -> tuple[tuple[int, int], ...]:
    return (*_ADDRESSES[version],
            (7, 2), (11, 2),  # sourceTransportPort, destinationTransportPort
            (4, 1), (5, 1),  # protocolIdentifier, ipClassOfService
            (6, 1), (_ICMP[version], 2),  # tcpControlBits (in reduced size, 6.2)
            (10, 4),  # ingressInterface
            (1, 8), (2, 8),  # octetDeltaCount, packetDeltaCount
            (152, 8), (153, 8),  # flowStartMilliseconds, flowEndMilliseconds
            (136, 1))  # flowEndReason


@dataclass(frozen=True, slots=True)
class Flow:
    """What was seen of a flow since it was told of the last time. ``start``, ``end``: seconds since
    1970 of the first and last packet. ``octets``: of IP. ``icmp``: type << 8 | code. ``tos``: the
    DSCP and ECN byte. ``tcp_flags``: FIN to CWR, all that were seen. ``port``: number of the port
    that it came in on."""

    source: Address
    target: Address
    protocol: int
    packets: int
    octets: int
    start: float
    end: float
    source_port: int = 0
    target_port: int = 0
    tcp_flags: int = 0
    icmp: int = 0
    tos: int = 0
    port: int = 0
    reason: int = ACTIVE_TIMEOUT


class Exporter:
    """One observation domain: makes messages. ``domain``: its number, any of 32 bits."""

    def __init__(self, domain: int = 0, payload: int = PAYLOAD) -> None:
        self.domain = domain
        self.sequence = 0  # data records sent so far
        self._payload = payload
        self._told = float("-inf")

    def messages(self, flows: Sequence[Flow], now: float) -> Iterator[bytes]:
        """The messages that tell of these flows at ``now`` (seconds since 1970), each for one
        datagram; templates first where it is time for them."""
        if now - self._told >= TEMPLATE_SECONDS:
            self._told = now
            yield self._message(template_set(), 0, now)
        for version, template in TEMPLATES.items():
            records = [_record(flow) for flow in flows if flow.source.version == version]
            size = sum(length for _, length in _elements(version))
            lot = (self._payload - HEADER.size - SET_HEADER.size) // size
            for first in range(0, len(records), lot):
                some = records[first:first + lot]
                body = b"".join(some)
                yield self._message(
                    SET_HEADER.pack(template, SET_HEADER.size + len(body)) + body, len(some), now)

    def _message(self, sets: bytes, records: int, now: float) -> bytes:
        header = HEADER.pack(VERSION, HEADER.size + len(sets), int(now) & 0xFFFFFFFF,
                             self.sequence & 0xFFFFFFFF, self.domain)
        self.sequence += records
        return header + sets


def template_set() -> bytes:
    """The set that describes the records of both IP versions (RFC 7011, 3.4.1)."""
    body = b""
    for version, template in TEMPLATES.items():
        elements = _elements(version)
        body += struct.pack("!HH", template, len(elements))
        body += b"".join(struct.pack("!HH", *element) for element in elements)
    return SET_HEADER.pack(TEMPLATE_SET, SET_HEADER.size + len(body)) + body


def _record(flow: Flow) -> bytes:
    return flow.source.packed + flow.target.packed + _REST.pack(
        flow.source_port, flow.target_port, flow.protocol, flow.tos, flow.tcp_flags, flow.icmp,
        flow.port, flow.octets, flow.packets, round(flow.start * 1000), round(flow.end * 1000),
        flow.reason)
