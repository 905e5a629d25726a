# SPDX-License-Identifier: Apache-2.0
"""What byway.syn_guard is to do, over segments as named tuples and a dictionary of connections.

Used by test_builtin_syn_guard. HalfSipHash is written from its description, over bytes.
"""

import struct
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

FIN, SYN, RST, ACK = 1, 2, 4, 16
SLOT, SECOND = 64 * 10**9, 10**9
SIZES = (536, 1220, 1440, 1460)
WORD = 0xFFFFFFFF


def halfsiphash(key: bytes, data: bytes) -> int:
    """HalfSipHash-2-4, 32 bits out; ``key``: 8 bytes."""
    k0, k1 = struct.unpack("<II", key)
    v = [k0, k1, 0x6C796765 ^ k0, 0x74656462 ^ k1]

    def rounds(n: int) -> None:
        for _ in range(n):
            v[0] = v[0] + v[1] & WORD
            v[1] = (v[1] << 5 | v[1] >> 27) & WORD
            v[1] ^= v[0]
            v[0] = (v[0] << 16 | v[0] >> 16) & WORD
            v[2] = v[2] + v[3] & WORD
            v[3] = (v[3] << 8 | v[3] >> 24) & WORD
            v[3] ^= v[2]
            v[0] = v[0] + v[3] & WORD
            v[3] = (v[3] << 7 | v[3] >> 25) & WORD
            v[3] ^= v[0]
            v[2] = v[2] + v[1] & WORD
            v[1] = (v[1] << 13 | v[1] >> 19) & WORD
            v[1] ^= v[2]
            v[2] = (v[2] << 16 | v[2] >> 16) & WORD

    whole = len(data) // 4 * 4
    last = data[whole:].ljust(3, b"\0") + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<I", data[:whole] + last):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[1] ^ v[3]


class Segment(NamedTuple):
    """A TCP segment."""

    src: str
    dst: str
    sport: int
    dport: int
    flags: int
    seq: int
    ack: int = 0
    window: int = 8192
    size: int = 0  # the segment size option; 0: none
    data: bytes = b""


class Said(NamedTuple):
    """What becomes of a segment: "pass", "reply", or the reason of a drop; the segment then; and
    the one that the server gets besides."""

    verdict: str
    segment: Segment
    copy: Segment | None = None


@dataclass
class Connection:
    """One through the proxy."""

    cookie: int
    first: int
    since: int
    moved: int = -1  # -1: the server has not answered
    fins: int = 0


@dataclass
class Guard:
    """The guard as a proxy."""

    key: bytes
    mss: int = 1460
    strict: bool = False
    now: int = 0
    sent: int = -(1 << 62)
    connections: dict[tuple[str, str, int, int], Connection] = field(default_factory=dict)
    closing: dict[tuple[str, str, int, int], tuple[int, int]] = field(default_factory=dict)

    def cookie(self, flow: tuple[str, str, int, int], first: int, index: int, slot: int) -> int:
        """The cookie of a client that began with ``first``."""
        src, dst, sport, dport = flow
        addresses = ip_address(src).packed + ip_address(dst).packed
        words = [*struct.unpack(f">{len(addresses) // 4}I", addresses), sport << 16 | dport, first,
                 (slot << 2 | index) & WORD]
        made = halfsiphash(self.key, struct.pack(f"<{len(words)}I", *words))
        return index << 30 | (slot & 1) << 29 | made & 0x1FFFFFFF

    # ------------------------------------------------------------ to the server
    def tx(self, it: Segment) -> Said:
        """A segment to the server."""
        flow = it.src, it.dst, it.sport, it.dport
        known = self.connections.get(flow)
        if it.flags & (SYN | ACK) == SYN:
            return self.syn(it, flow, known)
        if known is None:
            return self.unknown(it, flow)
        if known.moved < 0:
            if it.flags & RST or self.now - known.since < SECOND // 2:
                return Said("opening", it)
            known.since = self.now
            return Said("pass", self.opener(it, known))
        known.fins |= it.flags & FIN
        if it.flags & RST or known.fins == 3:
            self.closing[flow] = known.moved, self.now
            del self.connections[flow]
        return Said("pass", it._replace(ack=it.ack + known.moved & WORD))

    def syn(self, it: Segment, flow: tuple[str, str, int, int], known: Connection | None) -> Said:
        """A SYN."""
        if known and known.moved >= 0:
            return Said("pass", it)
        self.connections.pop(flow, None)
        self.sent = self.now
        index = max([k for k, size in enumerate(SIZES) if size <= it.size], default=0)
        return Said("reply", Segment(it.dst, it.src, it.dport, it.sport, SYN | ACK, self.cookie(
            flow, it.seq, index, self.now // SLOT), it.seq + 1 & WORD, 0, self.mss))

    def unknown(self, it: Segment, flow: tuple[str, str, int, int]) -> Said:
        """A segment of no connection that is in the table."""
        first, cookie = it.seq - 1 & WORD, it.ack - 1 & WORD
        slots = (self.now // SLOT, self.now // SLOT - 1)
        if it.flags & (ACK | RST) == ACK and self.now - self.sent < 2 * SLOT and cookie in [
                self.cookie(flow, first, cookie >> 30, slot) for slot in slots]:
            self.closing.pop(flow, None)
            made = self.connections[flow] = Connection(cookie, first, self.now)
            return Said("pass", self.opener(it, made))
        moved, then = self.closing.get(flow, (0, -(1 << 62)))
        if self.now - then <= 30 * SECOND:
            return Said("pass", it._replace(ack=it.ack + moved & WORD))
        return Said("no such connection" if self.strict else "pass", it)

    def opener(self, it: Segment, known: Connection) -> Segment:
        """The SYN to the server."""
        return it._replace(flags=SYN, seq=known.first, ack=0, size=SIZES[known.cookie >> 30],
                           data=b"")

    # ------------------------------------------------------------ from the server
    def rx(self, it: Segment) -> Said:
        """A segment from the server."""
        flow = it.dst, it.src, it.dport, it.sport
        known = self.connections.get(flow)
        if known is None:
            moved, then = self.closing.get(flow, (0, -(1 << 62)))
            if self.now - then > 30 * SECOND:
                return Said("pass", it)
            return Said("pass", it._replace(seq=it.seq - moved & WORD))
        if it.flags & RST:
            del self.connections[flow]
            seq = known.cookie + 1 if known.moved < 0 else it.seq - known.moved
            return Said("pass", it._replace(seq=seq & WORD))
        if it.flags & (SYN | ACK) == SYN | ACK:
            if it.ack != known.first + 1 & WORD:
                return Said("not the guard's connection", it)
            if known.moved < 0:
                known.moved = it.seq - known.cookie & WORD
            back = Segment(it.dst, it.src, it.dport, it.sport, ACK, it.ack, it.seq + 1 & WORD)
            return Said("pass", it._replace(flags=ACK, seq=known.cookie + 1 & WORD, data=b"",
                                            size=0), back)
        known.fins |= 2 * (it.flags & FIN)
        if known.moved < 0:
            return Said("opening", it)
        return Said("pass", it._replace(seq=it.seq - known.moved & WORD))
