# SPDX-License-Identifier: Apache-2.0
"""An IPv4 packet taken apart and put together, for oracles of functions that translate addresses.

Ethernet without tags, IPv4 without options. Checksums of what is whole are made anew; of what is
not (fragments, quoted packets), as RFC 1624 has it.
"""

import struct
from dataclasses import dataclass
from typing import Self

from byway.testing.frames import checksum

ICMP, TCP, UDP = 1, 6, 17
_SUMS = {ICMP: 2, TCP: 16, UDP: 6}
QUERIES, ANSWERS, ERRORS = (8, 13), (0, 14), (3, 11, 12)


def follow(held: int, old: bytes, new: bytes) -> int:
    """A checksum after some of what it covers has changed (RFC 1624, equation 3)."""
    words = [held ^ 0xFFFF]
    words += [word ^ 0xFFFF for word in struct.unpack(f">{len(old) // 2}H", old)]
    words += struct.unpack(f">{len(new) // 2}H", new)
    return checksum(struct.pack(f">{len(words)}H", *words))


@dataclass
class Packet:
    """An IPv4 packet; ``quoted``: it stands in an ICMP error."""

    header: bytearray
    body: bytearray
    quoted: bool = False

    @classmethod
    def of(cls, data: bytes, quoted: bool = False) -> Self:
        """The packet that ``data`` begins with."""
        end = len(data) if quoted else struct.unpack_from(">H", data, 2)[0]
        return cls(bytearray(data[:20]), bytearray(data[20:end]), quoted)

    @property
    def protocol(self) -> int:
        return self.header[9]

    @property
    def src(self) -> int:
        return int.from_bytes(self.header[12:16], "big")

    @property
    def dst(self) -> int:
        return int.from_bytes(self.header[16:20], "big")

    @property
    def ident(self) -> int:
        return int.from_bytes(self.header[4:6], "big")

    @property
    def place(self) -> int:
        """The fragment's flags and offset, without "don't fragment"."""
        return int.from_bytes(self.header[6:8], "big") & 0x3FFF

    @property
    def is_later(self) -> bool:
        return self.place & 0x1FFF != 0

    @property
    def kind(self) -> int:
        """ICMP's type; -1: it is another protocol."""
        return self.body[0] if self.protocol == ICMP else -1

    @property
    def ports(self) -> tuple[int, int]:
        """Of TCP and UDP; of ICMP the identifier is the port of who asks."""
        if self.protocol == ICMP:
            number = int.from_bytes(self.body[4:6], "big")
            if self.kind in QUERIES:
                return number, 0
            return 0, number if self.kind in ANSWERS else 0
        first, second = struct.unpack_from(">HH", self.body)
        return first, second

    def change(self, src: int, sport: int, dst: int, dport: int) -> None:
        """Give it other addresses and ports, and right checksums."""
        old = bytes(self.header[12:20])
        self.redirect(src, dst)
        if self.is_later:
            return
        before = bytes(self.body[:6])
        if self.protocol == ICMP:
            if self.kind in QUERIES + ANSWERS:
                number = sport if self.kind in QUERIES else dport
                self.body[4:6] = number.to_bytes(2, "big")
        else:
            self.body[:4] = struct.pack(">HH", sport, dport)
        pseudo = (old, bytes(self.header[12:20])) if self.protocol != ICMP else (b"", b"")
        self._sum(pseudo[0] + before, pseudo[1] + bytes(self.body[:6]))

    def redirect(self, src: int, dst: int) -> None:
        """Give the header other addresses, and its checksum."""
        self.header[12:20] = struct.pack(">II", src, dst)
        self.header[10:12] = bytes(2)
        self.header[10:12] = checksum(bytes(self.header)).to_bytes(2, "big")

    def _sum(self, before: bytes, after: bytes) -> None:
        at = _SUMS[self.protocol]
        held = int.from_bytes(self.body[at:at + 2], "big")
        if (at == 16 and len(self.body) < 20) or (self.protocol == UDP and held == 0):
            return
        if self.place or self.quoted:
            if self.protocol == UDP:  # the bytes before hold no checksum
                before, after = before[:-2], after[:-2]
            elif self.protocol == ICMP:
                before, after = before[-2:], after[-2:]
            value = follow(held, before, after)
        else:
            self.body[at:at + 2] = bytes(2)
            pseudo = b"" if self.protocol == ICMP else bytes(self.header[12:20]) + struct.pack(
                ">HH", self.protocol, len(self.body))
            value = checksum(pseudo + bytes(self.body))
        if value == 0 and self.protocol == UDP:
            value = 0xFFFF
        self.body[at:at + 2] = value.to_bytes(2, "big")

    def close(self) -> None:
        """Make the checksum of an ICMP error anew."""
        self.body[2:4] = bytes(2)
        self.body[2:4] = checksum(bytes(self.body)).to_bytes(2, "big")

    def __bytes__(self) -> bytes:
        return bytes(self.header + self.body)
