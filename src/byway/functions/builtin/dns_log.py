# SPDX-License-Identifier: Apache-2.0
"""``byway.dns_log``: notes what is asked of DNS servers, and what they answer (RFC 1035).

A built-in network function, written on the author's page (byway.nf) alone: it looks into the
payload.

The function finds messages by their UDP port, checks that the header and the question can be what
they say, and tells of them; the listener, a process of its own, writes a line of JSON for each.
Messages over TCP are not looked into: they may begin and end anywhere in a frame.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TextIO

from byway import nf

HEADER = 12  # RFC 1035, 4.1.1
LONGEST_NAME, LONGEST_LABEL = 255, 63  # 2.3.4
ANSWER = 0x8000  # QR
TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA",
         33: "SRV", 35: "NAPTR", 43: "DS", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 252: "AXFR",
         255: "ANY"}
CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


@nf.function
class DnsLog:
    """Note DNS queries and answers."""

    file: nf.Text = nf.Text("")  # where lines are appended; empty: the switch's own log
    port: Annotated[int, nf.Range(1, 65535)] = 53
    log: Literal["both", "queries", "answers"] = "both"
    budget = 300

    queries = nf.Counter()
    answers = nf.Counter()
    malformed = nf.Counter()
    messages = nf.Event(source="ipv4", target="ipv4", source6="ipv6", target6="ipv6",
                        version="u8", source_port="u16", target_port="u16", type="u16",
                        message="bytes:270", capacity=4096)

    def process(self, frame):
        if frame.is_udp and not frame.is_fragment:
            if frame.l4_dst == self.port or frame.l4_src == self.port:
                self.look(frame)
        return nf.PASS

    def look(self, frame):
        """Note the message, if it is one."""
        end = name_end(frame)
        if end < 0:
            self.malformed.add()
            return
        if frame.payload.u16(2) & ANSWER:
            self.answers.add()
            if self.log == "queries":
                return
        else:
            self.queries.add()
            if self.log == "answers":
                return
        version = 4 if frame.is_ipv4 else 6
        self.messages.emit(
            source=frame.ipv4_src, target=frame.ipv4_dst, source6=frame.ipv6_src,
            target6=frame.ipv6_dst, version=version, source_port=frame.l4_src,
            target_port=frame.l4_dst, type=frame.payload.u16(end), message=frame.payload)

    @staticmethod
    async def listen(session: Any) -> None:
        """Write a line for each message."""
        path = str(session.parameters["file"])
        file = open(path, "a", encoding="ascii", buffering=1) if path else None  # noqa: SIM115
        try:
            async for event in session.events("messages"):
                write(file, session, line_of(event, session.since_1970(event["time"])))
        finally:
            if file:
                file.close()


def name_end(frame):
    """Where the name of the question ends in the payload; -1: this is no DNS message with one."""
    length = frame.payload.length
    if length < HEADER + 5 or frame.payload.u16(4) != 1:
        return -1
    at = HEADER
    size = frame.payload.u8(at)
    while size != 0:
        at += size + 1
        if size > LONGEST_LABEL or at - HEADER >= LONGEST_NAME or at + 5 > length:
            return -1
        size = frame.payload.u8(at)
    return at + 1


def name_of(message: bytes) -> str:
    """The name in a message's question, as zone files write it (RFC 1035, 5.1)."""
    labels, at = [], HEADER
    while at < len(message) and message[at]:
        label = message[at + 1:at + 1 + message[at]]
        labels.append("".join(
            "\\" + chr(octet) if octet in b'."\\' else chr(octet) if 0x21 <= octet <= 0x7E
            else f"\\{octet:03d}" for octet in label))
        at += message[at] + 1
    return ".".join(labels) + "."


def line_of(event: Mapping[str, Any], when: float) -> dict[str, Any]:
    """What is noted of a message."""
    message = bytes.fromhex(event["message"])
    flags, answers = int.from_bytes(message[2:4], "big"), int.from_bytes(message[6:8], "big")
    six = "6" if event["version"] == 6 else ""
    kind = int(event["type"])
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds"),
        "source": event[f"source{six}"], "source_port": event["source_port"],
        "target": event[f"target{six}"], "target_port": event["target_port"],
        "id": int.from_bytes(message[:2], "big"), "name": name_of(message),
        "type": TYPES.get(kind, f"TYPE{kind}"), "kind": "answer" if flags & ANSWER else "query"}
    if flags & ANSWER:
        line["code"] = CODES.get(flags & 15, str(flags & 15))
        line["answers"] = answers
    return line


def write(file: TextIO | None, session: Any, line: Mapping[str, Any]) -> None:
    """Append a line, or tell it the switch's log."""
    text = json.dumps(line)
    if file is None:
        session.log(text)
    else:
        file.write(text + "\n")
