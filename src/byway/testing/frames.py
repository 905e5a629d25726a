# SPDX-License-Identifier: Apache-2.0
"""Frames for tests and for the demo: Ethernet, ARP (RFC 826), ICMP echo (RFC 792), test frames.

Plain bytes in, plain bytes out; nothing compiled. MAC addresses are 6 bytes, IPv4 addresses text.
"""

import socket
import struct
from dataclasses import dataclass

BROADCAST = b"\xff" * 6
ARP, IPV4 = 0x0806, 0x0800
TEST_ETHERTYPE = 0x88B5  # IEEE 802, 9.2.4: local experimental
ARP_REQUEST, ARP_REPLY = 1, 2
ICMP, ECHO_REQUEST, ECHO_REPLY = 1, 8, 0
MIN_WIRE = 60  # what a NIC would pad to


def mac(text: str) -> bytes:
    """"02:00:00:00:00:01" -> 6 bytes."""
    return bytes.fromhex(text.replace(":", ""))


def ethernet(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    """A frame, padded to 60 bytes."""
    return (destination + source + struct.pack(">H", ethertype) + payload).ljust(MIN_WIRE, b"\0")


@dataclass(frozen=True)
class Arp:
    """An ARP message for IPv4 over Ethernet."""

    operation: int
    sender_mac: bytes
    sender_ip: str
    target_mac: bytes
    target_ip: str

    def frame(self, destination: bytes) -> bytes:
        """The message as a frame to ``destination``."""
        payload = struct.pack(">HHBBH", 1, IPV4, 6, 4, self.operation) + self.sender_mac \
            + socket.inet_aton(self.sender_ip) + self.target_mac + socket.inet_aton(self.target_ip)
        return ethernet(destination, self.sender_mac, ARP, payload)

    @classmethod
    def parse(cls, frame: bytes) -> "Arp | None":
        """The ARP message in a frame, None where it holds none."""
        if len(frame) < 42 or frame[12:20] != b"\x08\x06\0\x01\x08\0\x06\x04":
            return None
        return cls(struct.unpack_from(">H", frame, 20)[0], frame[22:28],
                   socket.inet_ntoa(frame[28:32]), frame[32:38], socket.inet_ntoa(frame[38:42]))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Echo:
    """An ICMP echo request or reply."""

    kind: int
    source: str
    destination: str
    number: int
    sequence: int
    data: bytes = b"byway"

    def frame(self, destination_mac: bytes, source_mac: bytes) -> bytes:
        """The message as an IPv4 frame."""
        body = struct.pack(">HH", self.number, self.sequence) + self.data
        icmp = struct.pack(">BBH", self.kind, 0,
                           checksum(bytes([self.kind, 0, 0, 0]) + body)) + body
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 0, 0, 64, ICMP, 0,
                             socket.inet_aton(self.source), socket.inet_aton(self.destination))
        header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
        return ethernet(destination_mac, source_mac, IPV4, header + icmp)

    @classmethod
    def parse(cls, frame: bytes) -> "Echo | None":
        """The ICMP echo message in a frame, None where it holds none or its checksum is wrong."""
        if len(frame) < 42 or frame[12:15] != b"\x08\x00\x45" or frame[23] != ICMP:
            return None
        length = struct.unpack_from(">H", frame, 16)[0]
        icmp = frame[34 : 14 + length]
        if icmp[0] not in (ECHO_REQUEST, ECHO_REPLY) or checksum(icmp) != 0:
            return None
        number, sequence = struct.unpack_from(">HH", icmp, 4)
        return cls(icmp[0], socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34]),
                   number, sequence, icmp[8:])
