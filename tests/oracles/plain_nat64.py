# SPDX-License-Identifier: Apache-2.0
"""Stateless translation as RFC 7915 has it, for test_nat64.py: whole packets, taken apart and made
anew, every checksum with them.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from byway.testing.frames import checksum

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
HOPS, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60
# (type, code) of ICMPv6: of ICMP. Code None: any, and it stays.
TO_ICMP = {(128, None): (8, None), (129, None): (0, None), (1, 0): (3, 1), (1, 1): (3, 10),
           (1, 2): (3, 1), (1, 3): (3, 1), (1, 4): (3, 3), (2, None): (3, 4), (3, None): (11, None),
           (4, 0): (12, 0), (4, 1): (3, 2)}
TO_ICMPV6 = {(8, None): (128, None), (0, None): (129, None), (11, None): (3, None),
             (12, 0): (4, 0), (12, 2): (4, 0), (3, 2): (4, 1), (3, 3): (1, 4), (3, 4): (2, 0),
             **{(3, code): (1, 1) for code in (9, 10, 13, 15)},
             **{(3, code): (1, 0) for code in (0, 1, 5, 6, 7, 8, 11, 12)}}
POINTERS4 = {0: 0, 1: 1, 4: 2, 5: 2, 6: 9, 7: 8, **dict.fromkeys(range(8, 24), 12),
             **dict.fromkeys(range(24, 40), 16)}
POINTERS6 = {0: 0, 1: 1, 2: 4, 3: 4, 8: 7, 9: 6, **dict.fromkeys(range(12, 16), 8),
             **dict.fromkeys(range(16, 20), 24)}
SUMS = {TCP: 16, UDP: 6}
TRANSLATED_ECHO = {128: 8, 129: 0, 8: 128, 0: 129}


class Refused(Exception):
    """The packet is dropped, for this reason."""


@dataclass
class Packet:
    """An IP packet, whatever its version. ``fragment``: offset in units, more, identification."""

    src: bytes
    dst: bytes
    traffic: int
    hops: int
    protocol: int
    body: bytes
    fragment: tuple[int, int, int] | None = None


def read4(data: bytes, quoted: bool = False) -> Packet:
    """An IPv4 packet."""
    end = len(data) if quoted else struct.unpack_from(">H", data, 2)[0]
    place, start = struct.unpack_from(">H", data, 6)[0], 4 * (data[0] & 15)
    for at in range(20, start):
        if data[at] in (131, 137) and data[at + 2] <= data[at + 1]:
            raise Refused("source route")
        if data[at] not in (1,):
            break
    number = struct.unpack_from(">H", data, 4)[0]
    piece = (place & 0x1FFF, place >> 13 & 1, number) if place & 0x3FFF else None
    return Packet(data[12:16], data[16:20], data[1], data[8], data[9], data[start:end], piece)


def read6(data: bytes, quoted: bool = False) -> Packet:
    """An IPv6 packet."""
    end = len(data) if quoted else 40 + struct.unpack_from(">H", data, 4)[0]
    kind, at, piece = data[6], 40, None
    while kind in (HOPS, ROUTING, FRAGMENT, OPTIONS):
        if kind == ROUTING and data[at + 3]:
            raise Refused("extension headers")
        size = 8 if kind == FRAGMENT else 8 * (data[at + 1] + 1)
        if kind == FRAGMENT:
            place, number = struct.unpack_from(">HxxH", data, at + 2)
            piece = place >> 3, place & 1, number
        kind, at = data[at], at + size
        if piece and piece[0]:
            break
    first = struct.unpack_from(">I", data)[0]
    return Packet(data[8:24], data[24:40], first >> 20 & 0xFF, data[7], kind, data[at:end], piece)


def write4(packet: Packet, number: int, flags: int) -> bytes:
    """As IPv4."""
    header = struct.pack(">BBHHHBBH", 0x45, packet.traffic, 20 + len(packet.body) & 0xFFFF, number,
                         flags, packet.hops, packet.protocol, 0) + packet.src + packet.dst
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + packet.body


def write6(packet: Packet) -> bytes:
    """As IPv6, with a fragment header where it is a fragment."""
    body, kind = packet.body, packet.protocol
    if packet.fragment:
        offset, more, number = packet.fragment
        body = struct.pack(">BxHI", kind, offset << 3 | more, number) + body
        kind = FRAGMENT
    return struct.pack(">IHBB", 6 << 28 | packet.traffic << 20, len(body), kind, packet.hops) \
        + packet.src + packet.dst + body


def moved_sum(packet: Packet, old: bytes, new: bytes) -> bytes:
    """The body with a checksum that follows a change of addresses: the rest may not be there."""
    at = SUMS.get(packet.protocol)
    if at is None or len(packet.body) < at + 2 or (packet.fragment and packet.fragment[0]):
        return packet.body
    held = struct.unpack_from(">H", packet.body, at)[0]
    if packet.protocol == UDP and held == 0:
        return packet.body
    words = struct.pack(">H", held ^ 0xFFFF) + bytes(byte ^ 0xFF for byte in old) + new
    value = checksum(words)
    if packet.protocol == UDP and value == 0:
        value = 0xFFFF
    return packet.body[:at] + value.to_bytes(2, "big") + packet.body[at + 2:]


@dataclass
class PlainNat64:
    """``prefix``: 12 bytes; ``pairs``: IPv4 address: IPv6 address."""

    prefix: bytes
    pairs: dict[bytes, bytes]
    is_host: Callable[[bytes], bool]

    def four(self, address: bytes) -> bytes:
        for short, long in self.pairs.items():
            if long == address:
                return short
        if address[:12] != self.prefix or address[12:] == bytes(4):
            raise Refused("address without IPv4")
        return address[12:]

    def six(self, address: bytes) -> bytes:
        return self.pairs.get(address, self.prefix + address)

    def of(self, data: bytes, length: int, number: int) -> bytes | None:
        """The packet translated, None where it is left alone. ``number``: the identification that
        chance gave the result, if it has one. Raises Refused."""
        if data[0] >> 4 == 6:
            return self.to4(read6(data), number) if data[24:36] == self.prefix else None
        if not self.is_host(data[16:20]) and data[16:20] not in self.pairs:
            return None
        return self.to6(read4(data))

    # ------------------------------------------------------------ to IPv4
    def to4(self, packet: Packet, number: int) -> bytes:
        old = packet.src + packet.dst
        made = Packet(self.four(packet.src), self.four(packet.dst), packet.traffic, packet.hops,
                      packet.protocol, packet.body, packet.fragment)
        if packet.protocol == ICMP:
            raise Refused("protocol")
        if packet.protocol == ICMPV6:
            if packet.fragment:
                raise Refused("ICMP in fragments")
            made.protocol, made.body = ICMP, self.icmp(packet.body)
            return write4(made, number, 0)
        made.body = moved_sum(packet, old, made.src + made.dst)
        if packet.fragment:
            offset, more, number = packet.fragment
            return write4(made, number, offset | more << 13)
        if 20 + len(made.body) > 1260:
            return write4(made, 0, 0x4000)
        return write4(made, number, 0)

    def icmp(self, body: bytes) -> bytes:
        kind, code = body[:2]
        found = TO_ICMP.get((kind, None)) or TO_ICMP.get((kind, code))
        if found is None:
            raise Refused("ICMP without a counterpart")
        word = struct.unpack_from(">I", body, 4)[0]
        rest = body[8:]
        if kind not in (128, 129):
            word = self._word4(kind, code, word)
            try:
                about = read6(rest, quoted=True)
                about.src, about.dst = self.four(about.src), self.four(about.dst)
            except Refused as refused:
                raise Refused("quotes what has no IPv4") from refused
            if about.fragment or rest[0] >> 4 != 6:
                raise Refused("quotes what has no IPv4")
            self._echo(about, ICMPV6, ICMP)
            inner = len(rest) - len(about.body)
            length = struct.unpack_from(">H", rest, 4)[0] + 40 - inner + 20
            rest = self._header(write4(about, 0, 0x4000), length)
        made = struct.pack(">BBHI", found[0], code if found[1] is None and kind == 3 else
                           found[1] or 0, 0, word) + rest
        return made[:2] + checksum(made).to_bytes(2, "big") + made[4:]

    @staticmethod
    def _word4(kind: int, code: int, word: int) -> int:
        """The second word of an error."""
        if kind == 2:
            return min(max(word - 20, 68), 0xFFFF)
        if (kind, code) != (4, 0):
            return 0
        if word not in POINTERS4:
            raise Refused("ICMP without a counterpart")
        return POINTERS4[word] << 24

    @staticmethod
    def _header(packet: bytes, length: int) -> bytes:
        """The quoted header, whose length is that of the packet when it was whole."""
        header = packet[:2] + (length & 0xFFFF).to_bytes(2, "big") + packet[4:10] + bytes(2) \
            + packet[12:20]
        return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + packet[20:]

    @staticmethod
    def _echo(about: Packet, old: int, new: int) -> None:
        if about.protocol == old:
            about.protocol = new
            known = (128, 129) if old == ICMPV6 else (8, 0)
            if len(about.body) >= 8 and about.body[0] in known:
                about.body = bytes([TRANSLATED_ECHO[about.body[0]]]) + about.body[1:]

    # ------------------------------------------------------------ to IPv6
    def to6(self, packet: Packet) -> bytes:
        old = packet.src + packet.dst
        made = Packet(self.six(packet.src), self.six(packet.dst), packet.traffic, packet.hops,
                      packet.protocol, packet.body, packet.fragment)
        if packet.protocol == ICMP:
            if packet.fragment:
                raise Refused("ICMP in fragments")
            made.protocol = ICMPV6
            body = self.icmpv6(packet.body)[:1280 - 40] if packet.body[0] not in (0, 8) else \
                self.icmpv6(packet.body)
            pseudo = made.src + made.dst + struct.pack(">II", len(body), ICMPV6)
            made.body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
            return write6(made)
        if packet.protocol in (HOPS, ROUTING, FRAGMENT, ICMPV6, OPTIONS):
            raise Refused("protocol")
        bare = packet.protocol == UDP and packet.body[6:8] == b"\0\0"
        if bare and packet.fragment and not packet.fragment[0]:
            raise Refused("UDP fragment without checksum")
        made.body = moved_sum(packet, old, made.src + made.dst)
        if bare and not packet.fragment:
            pseudo = made.src + made.dst + struct.pack(">II", len(made.body), UDP)
            value = checksum(pseudo + made.body) or 0xFFFF
            made.body = made.body[:6] + value.to_bytes(2, "big") + made.body[8:]
        return write6(made)

    def icmpv6(self, body: bytes) -> bytes:
        """The message, its checksum 0."""
        kind, code = body[:2]
        found = TO_ICMPV6.get((kind, None)) or TO_ICMPV6.get((kind, code))
        if found is None:
            raise Refused("ICMP without a counterpart")
        word = struct.unpack_from(">I", body, 4)[0]
        rest = body[8:]
        if kind not in (0, 8):
            if kind == 12 and word >> 24 not in POINTERS6:
                raise Refused("ICMP without a counterpart")
            word = {2: max((word & 0xFFFF) + 20, 1280), 4: 6 if kind == 3 else
                    POINTERS6.get(word >> 24, 0)}.get(found[0], 0)
            about = read4(rest, quoted=True)
            if about.fragment:
                raise Refused("quotes what is not IPv4")
            about.src, about.dst = self.six(about.src), self.six(about.dst)
            self._echo(about, ICMP, ICMPV6)
            inner = 4 * (rest[0] & 15)
            length = struct.unpack_from(">H", rest, 2)[0] - inner
            rest = write6(about)
            rest = rest[:4] + (length & 0xFFFF).to_bytes(2, "big") + rest[6:]
        return struct.pack(">BBHI", found[0], code if kind == 11 else found[1] or 0, 0, word) + rest
