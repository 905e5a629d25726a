# SPDX-License-Identifier: Apache-2.0
"""IP packets for tests of stages that look at flows: IPv4, IPv6, TCP, UDP, ICMP, fragments.

    packet = Packet("10.0.0.1", "10.0.0.2", TCP, tcp(40000, 80, SYN))
    frame = packet.frame()

Plain bytes in, plain bytes out; nothing compiled. Addresses are text. Checksums of transport
headers are left 0: no stage looks at them.
"""

import functools
import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from byway.testing.frames import checksum

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
FRAGMENT = 44
GUEST_MAC, REMOTE_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def tcp(source: int, destination: int, flags: int, data: bytes = b"") -> bytes:
    """A TCP segment (RFC 9293, 3.1)."""
    return struct.pack(">HHIIBBHHH", source, destination, 1, 1, 0x50, flags, 8192, 0, 0) + data


def udp(source: int, destination: int, data: bytes = b"byway") -> bytes:
    """A UDP datagram (RFC 768)."""
    return struct.pack(">HHHH", source, destination, 8 + len(data), 0) + data


def icmp(kind: int, code: int = 0, number: int = 0, data: bytes = b"byway") -> bytes:
    """An ICMP or ICMPv6 message; ``number``: the identifier of a query."""
    return struct.pack(">BBHHH", kind, code, 0, number, 1) + data


@functools.cache
def ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address, which tests write many times."""
    return ipaddress.ip_address(address)


@dataclass(frozen=True)
class Packet:
    """An IP packet. ``piece``: (identification, offset in bytes, more follow) of a fragment."""

    source: str
    destination: str
    protocol: int
    body: bytes
    hops: int = 64
    piece: tuple[int, int, bool] | None = None
    tags: tuple[int, ...] = ()
    headers: tuple[tuple[int, bytes], ...] = ()  # IPv6's: number, and all but its first byte

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip(self.source).version

    def packet(self) -> bytes:
        """The packet's bytes."""
        source, destination = ip(self.source).packed, ip(self.destination).packed
        if self.version == 6:
            return self._ipv6(source, destination)
        number, offset, more = self.piece or (1, 0, False)
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(self.body), number,
                             offset >> 3 | more << 13, self.hops, self.protocol, 0, source,
                             destination)
        return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + self.body

    def _ipv6(self, source: bytes, destination: bytes) -> bytes:
        chain = list(self.headers)
        if self.piece:
            number, offset, more = self.piece
            chain.append((FRAGMENT, struct.pack(">BHI", 0, offset | more, number)))
        kinds = [kind for kind, _ in chain] + [self.protocol]
        body = b"".join(bytes([kinds[k + 1]]) + rest for k, (_, rest) in enumerate(chain))
        body += self.body
        return struct.pack(">IHBB16s16s", 6 << 28, len(body), kinds[0], self.hops, source,
                           destination) + body

    def frame(self) -> bytes:
        """The packet in an Ethernet frame, padded to 60 bytes."""
        tags = b"".join(struct.pack(">HH", 0x8100, tag) for tag in self.tags)
        kind = b"\x08\x00" if self.version == 4 else b"\x86\xdd"
        return (REMOTE_MAC + GUEST_MAC + tags + kind + self.packet()).ljust(60, b"\0")

    def error(self, source: str, kind: int, code: int = 0, octets: int = 48) -> "Packet":
        """An ICMP error about this packet, from ``source`` to whom it came from."""
        protocol = ICMP if self.version == 4 else ICMPV6
        body = icmp(kind, code, data=self.packet()[:octets])
        return Packet(source, self.source, protocol, body)

    def pieces(self, number: int, sizes: Sequence[int]) -> list["Packet"]:
        """The packet cut into fragments: the bytes that each holds, and one more for the rest."""
        made, at = [], 0
        for size in (*sizes, len(self.body)):
            end = min(at + size, len(self.body))
            made.append(replace(self, body=self.body[at:end],
                                piece=(number, at, end < len(self.body))))
            at = end
        return made
