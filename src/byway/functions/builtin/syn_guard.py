# SPDX-License-Identifier: Apache-2.0
"""``byway.syn_guard``: keeps floods of SYNs from a server, by SYN cookies.

A built-in network function, written on the author's page (byway.nf) alone; for the chain of the
server's port. Uses syn_messages.py for the segments that it makes.

Theory of operation
-------------------
A SYN with a forged source costs its sender nothing and the server a place in its table. The guard
answers SYNs itself and keeps nothing about them: what it would have to remember is in a *cookie*,
32 bits that only it can make, which a client that is really there sends back.

``proxy``: the guard answers with a SYN-ACK whose sequence number is the cookie (RFC 4987, 3.6), and
a window of 0. The ACK that brings the cookie back becomes the SYN to the server. The server's
SYN-ACK is acknowledged by the guard, and becomes the ACK that opens the client's window. From then
on sequence numbers from the server, and acknowledgements of them, are moved by the difference of
the server's and the cookie. Options but the segment size are not negotiated: no window scaling, no
selective acknowledgements, no time stamps.

``authenticate``: the guard answers with an acknowledgement of something that the client never sent,
the cookie. A client that is there resets that (RFC 9293, 3.10.7.3) with the cookie as its sequence
number; its address is trusted from then on, and the SYN, when it is repeated, goes to the server.
The client notices nothing but the time to the repetition, and connections are the server's own.

A cookie is made for a slot of 64 seconds and is good in the next one, too. SYNs up to ``above`` a
second go to the server unguarded. An ACK that belongs to nothing known goes to the server, since it
may be of a connection that is older than the guard or came in unguarded; with ``strict`` it does
not. Cookies are looked for only in the two slots after one was sent: that a stranger's ACK is taken
for one by chance has a probability of 2^-29. The hash is HalfSipHash-2-4 (Aumasson and Bernstein,
2012) with a key drawn at the first SYN.

Limits: a connection through the proxy that is silent for ``idle`` is forgotten, and does not go on
afterwards. When the table is full, new ones do not come through (counted: "table full").
"""

from typing import Annotated, Literal

from byway import nf
from byway.functions.builtin.syn_messages import (
    ACK,
    RST,
    SYN_ACK,
    becomes_syn,
    becomes_syn_ack,
    completes,
    mss_index,
    mss_of,
    turn,
)

WORD = 0xFFFFFFFF
SLOT = 64 * 1_000_000_000  # ns
RETRY = 500_000_000  # ns after which a SYN to the server is repeated
OPENING, OPEN = 1, 2
BOTH = 3  # FINs of both sides: 1 the client's, 2 the server's
MOVED = 1 << 32  # in ``closing``: there is an entry, its difference below
# Places in ``secret``: the key's two words, whether it is drawn, when the last cookie was sent.
KEY0, KEY1, DRAWN, SENT = 0, 1, 2, 3
MOST_WORDS = 11  # that a cookie is made of: IPv6's addresses, ports, sequence number, slot
# HalfSipHash.
START2, START3, FINAL = 0x6C796765, 0x74656462, 0xFF


@nf.function
class SynGuard:
    """Answer SYNs with cookies, and let only clients that are there through to the server."""

    mode: Literal["proxy", "authenticate"] = "proxy"
    above: Annotated[int, nf.Range(0, 1_000_000_000)] = 0  # SYNs a second that pass unguarded
    port: Annotated[int, nf.Range(0, 65535)] = 0  # guard this TCP port only; 0: all
    mss: Annotated[int, nf.Range(536, 9000)] = 1460  # what clients are told
    strict: bool = False  # drop what belongs to nothing known
    idle: nf.Seconds = nf.Seconds(3600)
    trust: nf.Seconds = nf.Seconds(3600)

    connections = nf.Map(key="flow",
                         value={"state": "u8", "fins": "u8", "cookie": "u32", "first": "u32",
                                "moved": "u32", "since": "u64"},
                         capacity=65536, idle="idle")
    closing = nf.Map(key="flow", value="u64", capacity=65536, idle=30)
    trusted = nf.Map(key=("u64", "u64"), value="u8", capacity=65536, idle="trust")
    calm = nf.Bucket()
    secret = nf.Array(value="u64", size=4)
    words = nf.Array(value="u32", size=MOST_WORDS)

    challenged = nf.Counter()
    proven = nf.Counter()

    # ------------------------------------------------------------ to the server
    def tx(self, frame):
        if not frame.is_tcp or frame.is_fragment:
            return nf.PASS
        if self.port != 0 and frame.l4_dst != self.port:
            return nf.PASS
        if self.mode == "authenticate":
            return self.authenticate(frame)
        entry = self.connections.find(frame.flow)
        if frame.is_tcp_syn:
            if entry and entry.state == OPEN:
                return nf.PASS  # the server answers it, and so learns whether its client forgot it
            self.connections.delete(frame.flow)
            return self.syn(frame)
        if not entry:
            return self.unknown(frame)
        if entry.state == OPENING:
            if frame.is_tcp_rst or frame.is_gso or nf.now() - entry.since < RETRY:
                return nf.DROP("opening")
            entry.since = nf.now()
            becomes_syn(frame, entry.first, mss_of(entry.cookie >> 30))
            return nf.PASS
        moved = entry.moved
        fins = entry.fins | (1 if frame.is_tcp_fin else 0)
        entry.fins = fins
        if frame.is_tcp_rst or fins == BOTH:
            self.closing.set(frame.flow, MOVED | moved)
            self.connections.delete(frame.flow)
        frame.tcp_ack = frame.tcp_ack + moved & WORD
        return nf.PASS

    def syn(self, frame):
        """A SYN to the server is answered, or goes on in calm times."""
        if self.above > 0 and self.calm.take(1, self.above, self.above):
            return nf.PASS
        self.challenged.add()
        self.secret[SENT] = nf.now()
        first = frame.tcp_seq
        slot = nf.now() // SLOT
        if self.mode == "authenticate":
            asked = self.cookie(frame, 0, 0, slot)
            if asked == first + 1 & WORD:
                asked ^= 1 << 31  # what the client has sent would be no reason for a reset
            becomes_syn_ack(frame, asked ^ WORD, asked, self.mss)
        else:
            cookie = self.cookie(frame, first, mss_index(frame), slot)
            becomes_syn_ack(frame, cookie, first + 1 & WORD, self.mss)
        return nf.REPLY

    def unknown(self, frame):
        """A segment to the server of no connection in the table; its ACK may bring a cookie."""
        first = frame.tcp_seq - 1 & WORD
        cookie = frame.tcp_ack - 1 & WORD
        if frame.tcp_flags & (ACK | RST) != ACK or not self.is_mine(frame, first, cookie):
            moved = self.closing.get(frame.flow)
            if moved != 0:
                frame.tcp_ack = frame.tcp_ack + moved & WORD
                return nf.PASS
            if self.strict:
                return nf.DROP("no such connection")
            return nf.PASS
        entry = self.connections.make(frame.flow)
        if not entry:
            return nf.DROP("table full")
        self.closing.delete(frame.flow)
        self.proven.add()
        entry.state = OPENING
        entry.cookie = cookie
        entry.first = first
        entry.since = nf.now()
        becomes_syn(frame, first, mss_of(cookie >> 30))
        return nf.PASS

    def authenticate(self, frame):
        """A segment to the server: SYNs of trusted sources pass; a reset may bring a cookie."""
        high = nf.high(frame.ipv6_src)
        low = nf.low(frame.ipv6_src) | frame.ipv4_src
        if frame.is_tcp_syn:
            if (high, low) in self.trusted:
                self.trusted.set((high, low), 1)  # not idle
                return nf.PASS
            return self.syn(frame)
        if not frame.is_tcp_rst or not self.are_cookies_about():
            return nf.PASS
        slot = nf.now() // SLOT
        for before in range(2):
            off = self.cookie(frame, 0, 0, slot - before) ^ frame.tcp_seq
            if off == 0 or off == 1 << 31:
                if not self.trusted.set((high, low), 1):
                    return nf.DROP("table full")
                self.proven.add()
                return nf.DROP("proof")
        return nf.PASS

    # ------------------------------------------------------------ from the server
    def rx(self, frame):
        if self.mode == "authenticate" or not frame.is_tcp or frame.is_fragment:
            return nf.PASS
        if self.port != 0 and frame.l4_src != self.port:
            return nf.PASS
        turn(frame)  # the tables name the client first
        entry = self.connections.find(frame.flow)
        state = entry.state
        first = entry.first
        cookie = entry.cookie
        moved = entry.moved
        if not entry:
            state = OPEN
            moved = self.closing.get(frame.flow)
        elif frame.is_tcp_rst:
            self.connections.delete(frame.flow)
        elif frame.tcp_flags & SYN_ACK == SYN_ACK:
            if frame.tcp_ack == first + 1 & WORD and state == OPENING:
                entry.state = OPEN
                entry.moved = frame.tcp_seq - cookie & WORD
        elif frame.is_tcp_fin:
            entry.fins = entry.fins | 2
        known = 1 if entry else 0
        turn(frame)
        if known == 0 and moved == 0:
            return nf.PASS
        if frame.is_tcp_rst and state == OPENING:
            frame.tcp_seq = cookie + 1 & WORD
            return nf.PASS
        if known == 1 and frame.tcp_flags & SYN_ACK == SYN_ACK:
            if frame.tcp_ack != first + 1 & WORD:
                return nf.DROP("not the guard's connection")
            completes(frame, first, cookie)
            return nf.PASS
        if state == OPENING:
            return nf.DROP("opening")
        frame.tcp_seq = frame.tcp_seq - moved & WORD
        return nf.PASS

    # ------------------------------------------------------------ cookies
    def are_cookies_about(self):
        """Has one been sent that may still come back?"""
        return self.secret[DRAWN] != 0 and nf.now() - self.secret[SENT] < 2 * SLOT

    def is_mine(self, frame, first, cookie):
        """Is it a cookie of this or the last slot, for the connection that the frame is of?"""
        if not self.are_cookies_about():
            return False
        slot = nf.now() // SLOT
        slot -= (slot ^ cookie >> 29) & 1
        return self.cookie(frame, first, cookie >> 30, slot) == cookie

    def cookie(self, frame, first, index, slot):
        """The cookie for the connection of a frame to the server, its client's first sequence
        number, the number of its segment size, and a slot of time."""
        if self.secret[DRAWN] == 0:
            self.secret[KEY0] = nf.random(1 << 32)
            self.secret[KEY1] = nf.random(1 << 32)
            self.secret[DRAWN] = 1
        n = 2
        if frame.is_ipv6:
            n = 8
            for i in range(8):
                self.words[i] = frame.u32(frame.l3_offset + 8 + 4 * i)
        else:
            self.words[0] = frame.ipv4_src
            self.words[1] = frame.ipv4_dst
        self.words[n] = frame.l4_src << 16 | frame.l4_dst
        self.words[n + 1] = first
        self.words[n + 2] = (slot << 2 | index) & WORD
        return index << 30 | (slot & 1) << 29 | self.hash(n + 3) & 0x1FFFFFFF

    def hash(self, n):
        """HalfSipHash-2-4 of the first ``n`` words, with the secret key."""
        v0 = self.secret[KEY0]
        v1 = self.secret[KEY1]
        v2 = START2 ^ v0
        v3 = START3 ^ v1
        for i in range(n + 3):
            word = 0
            if i < n:
                word = self.words[i]
            elif i == n:
                word = 4 * n << 24
            elif i == n + 1:
                v2 ^= FINAL  # and four rounds with nothing put in
            v3 ^= word
            for _ in range(2):
                v0 = v0 + v1 & WORD
                v1 = rotated(v1, 5) ^ v0
                v0 = rotated(v0, 16)
                v2 = v2 + v3 & WORD
                v3 = rotated(v3, 8) ^ v2
                v0 = v0 + v3 & WORD
                v3 = rotated(v3, 7) ^ v0
                v2 = v2 + v1 & WORD
                v1 = rotated(v1, 13) ^ v2
                v2 = rotated(v2, 16)
            v0 ^= word
        return v1 ^ v3


def rotated(word, bits):
    """A word of 32 bits, rotated to the left."""
    return (word << bits | word >> 32 - bits) & WORD
