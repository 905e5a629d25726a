# SPDX-License-Identifier: Apache-2.0
"""``byway.flow_export``: counts packets by flow, and tells a collector by IPFIX (RFC 7011).

A built-in network function, written on the author's page (byway.nf) alone.

Theory of operation
-------------------
The function counts; the listener, a process of its own, reads the table of flows every ``interval``
seconds and tells the collector what has come to each since it told last. So a record of IPFIX is
about one interval of one flow, and nothing is told twice. A flow that had no packet for ``idle``
seconds leaves the table; as that is longer than an interval, what came last has been told before.
A frame whose flow finds no room is counted (``untold``) and goes on.

A flow is what has the same addresses, protocol and ports, one direction of it: the function sees
what comes in from a port. Of fragments, the addresses and the protocol alone are told.
"""

import asyncio
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from byway import nf
from byway.functions.export.collector import Collector
from byway.functions.export.ipfix import ACTIVE_TIMEOUT, END_OF_FLOW, Exporter, Flow

FIN_RST = 0x05
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}


@nf.function
class FlowExport:
    """Count the packets of each flow, and tell a collector of them."""

    collector: nf.Text = nf.Text("127.0.0.1:4739")
    domain: Annotated[int, nf.Range(0, 0xFFFFFFFF)] = 1  # observation domain
    interval: Annotated[nf.Seconds, nf.Range(1, 3600)] = nf.Seconds(10)
    idle: Annotated[nf.Seconds, nf.Range(2, 86400)] = nf.Seconds(30)

    flows = nf.Map(key="flow", capacity=32768, idle="idle", value={
        "packets": "u64", "octets": "u64", "first": "u64", "last": "u64", "flags": "u16",
        "tos": "u8", "icmp": "u16", "port": "u16"})
    untold = nf.Counter()
    other = nf.Counter()

    def process(self, frame):
        if not frame.is_ip:
            self.other.add()
            return nf.PASS
        flow = self.flows.make(frame.flow)
        if not flow:
            self.untold.add()
            return nf.PASS
        now = nf.now()
        if flow.packets == 0:
            flow.first = now
            flow.tos = frame.ip_dscp << 2 | frame.ip_ecn
            flow.port = frame.port
            flow.icmp = frame.icmp_type << 8 | frame.icmp_code
        flow.last = now
        flow.packets += 1
        flow.octets += packet_length(frame)
        flow.flags = flow.flags | frame.tcp_flags & 0xFF
        return nf.PASS

    @staticmethod
    async def listen(session: Any) -> None:
        """Tell the collector, every interval."""
        teller = Teller(int(session.parameters["domain"]))
        with Collector(str(session.parameters["collector"])) as collector:
            while True:
                await asyncio.sleep(float(session.parameters["interval"]))
                rows = await session.table("flows")
                for message in teller.messages(rows, session.since_1970):
                    collector.send(message)


def packet_length(frame):
    """Bytes of the IP packet as its header tells, or all there is where it is still to be cut."""
    there = frame.length - frame.l3_offset
    if frame.is_gso:
        return there
    if frame.is_ipv4:
        return min(frame.ipv4_length, there)
    return min(frame.u16(frame.l3_offset + 4) + 40, there)


class Teller:
    """What the collector has been told. ``domain``: number of the observation domain."""

    def __init__(self, domain: int) -> None:
        self._exporter = Exporter(domain)
        self._told: dict[tuple[str, int], tuple[int, int, int]] = {}

    def messages(self, rows: Iterable[Mapping[str, Any]], since_1970: Any) -> Iterable[bytes]:
        """The messages that tell what is new in the table of flows. ``rows``: of it, {"key":,
        "value":}. ``since_1970``: makes seconds since 1970 of the function's time; of now, where
        it is given none."""
        told, self._told = self._told, {}
        flows = []
        for row in rows:
            key, value = str(row["key"]), row["value"]
            name = key, int(value["first"])
            packets, octets, last = told.get(name, (0, 0, name[1]))
            self._told[name] = int(value["packets"]), int(value["octets"]), int(value["last"])
            if int(value["packets"]) > packets:
                begin = name[1] if packets == 0 else last
                flows.append(_flow(key, value, int(value["packets"]) - packets,
                                   int(value["octets"]) - octets, since_1970(begin),
                                   since_1970(int(value["last"]))))
        yield from self._exporter.messages(flows, since_1970())


def _flow(key: str, value: Mapping[str, Any], packets: int, octets: int, start: float, end: float
          ) -> Flow:
    protocol, source, source_port, target, target_port = re.split(r"\s+", key)
    flags = int(value["flags"])
    return Flow(
        ipaddress.ip_address(source), ipaddress.ip_address(target),
        _PROTOCOLS.get(protocol) or int(protocol), packets, octets, start, end, int(source_port),
        int(target_port), flags, int(value["icmp"]), int(value["tos"]), int(value["port"]),
        END_OF_FLOW if flags & FIN_RST else ACTIVE_TIMEOUT)
