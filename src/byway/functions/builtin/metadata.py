# SPDX-License-Identifier: Apache-2.0
"""``byway.metadata``: tells guests about themselves, by HTTP at 169.254.169.254.

A built-in network function, written on the author's page (byway.nf) alone; for the chain of a
network, or of ports. metadata_tables.py makes its tables; router_messages.py answers ARP and pings.

Theory of operation
-------------------
A web server of a few documents, in TCP as small as it can be (RFC 9293): one segment of the guest
becomes one segment of the answer. A SYN is answered without keeping anything: the sequence number
is a hash of the connection. The segment with the request, which must have the path in it, finds its
document by the guest's MAC address and a hash of the path, then the document for all, then the one
that says "not found". From then on there is an entry in ``replies``: each acknowledgement of the
guest fetches the next piece from where it acknowledges, the last one with FIN. There is one segment
on the way at a time, and what is lost the guest's next acknowledgement fetches again. If that never
comes, the entry is idle for half a minute and is gone; what comes then is reset.

Documents are whole HTTP answers in ``text``, four bytes a word, made outside. A piece begins at a
multiple of four bytes: some bytes may be sent twice.

Whose document a guest sees depends on its MAC address: with port security that is its own.
"""

from typing import Annotated

from byway import nf
from byway.functions.builtin.router_messages import answer_arp, echo_reply
from byway.functions.builtin.syn_messages import turn

WORD = 0xFFFFFFFF
FIN, SYN, RST, PUSH, ACK = 1, 2, 4, 8, 16
GET = 0x47455420  # "GET "
SPACE = 32
START, FACTOR = 0x811C9DC5, 0x01000193  # FNV-1a, 32 bits
LONGEST_PATH = 255
WINDOW = 8192
ECHO = 8
NOT_FOUND = 0  # the hash under which the answer to unknown paths is
# Places in ``secret``.
KEY, DRAWN = 0, 1


@nf.function
class Metadata:
    """Answer guests' HTTP requests for metadata, from a table of documents."""

    address: nf.IPv4 = nf.IPv4("169.254.169.254")
    mac: nf.Mac = nf.Mac("02:00:00:00:a9:fe")
    port: Annotated[int, nf.Range(1, 65535)] = 80
    segment: Annotated[int, nf.Range(500, 8900)] = 1400  # bytes of a piece

    budget = 3000

    text = nf.Array(value="u32", size=1 << 20)
    documents = nf.Map(key=("mac", "u32"), value={"at": "u32", "length": "u32"}, capacity=65536)
    replies = nf.Map(key="flow", value={"at": "u32", "length": "u32", "first": "u32"},
                     capacity=4096, idle=30)
    secret = nf.Array(value="u64", size=2)

    requests = nf.Counter()
    not_found = nf.Counter()

    def process(self, frame):
        if frame.is_arp:
            if frame.arp_op != 1 or frame.arp_target_ip != self.address:
                return nf.PASS
            answer_arp(frame, self.mac, self.address)
            return nf.REPLY
        if frame.ipv4_dst != self.address or frame.is_fragment or frame.is_gso:
            return nf.PASS
        if frame.is_icmp and frame.icmp_type == ECHO:
            echo_reply(frame, frame.eth_dst)
            return nf.REPLY
        if not frame.is_tcp or frame.l4_dst != self.port:
            return nf.PASS
        if frame.is_tcp_rst:
            self.replies.delete(frame.flow)
            return nf.DROP("reset")
        if frame.is_tcp_syn:
            first = self.first(frame)
            return self.say(frame, first, frame.tcp_seq + 1 & WORD, SYN | ACK)
        return self.segment_of(frame)

    def segment_of(self, frame):
        """A segment of a connection: the request, an acknowledgement, an end."""
        length = frame.payload.length
        after = frame.tcp_seq + length + (1 if frame.is_tcp_fin else 0) & WORD
        entry = self.replies.find(frame.flow)
        if entry:
            done = frame.tcp_ack - entry.first & WORD
            if done < entry.length:
                return self.piece(frame, entry.at, entry.length, entry.first, done, after)
            if frame.is_tcp_fin:
                self.replies.delete(frame.flow)
                return self.say(frame, frame.tcp_ack, after, ACK)
            return nf.DROP("acknowledgement")
        first = self.first(frame) + 1 & WORD
        if frame.tcp_ack == first and length == 0 and not frame.is_tcp_fin:
            return nf.DROP("acknowledgement")
        if frame.is_tcp_fin and length == 0:
            return self.say(frame, frame.tcp_ack, after, ACK)
        if frame.tcp_ack != first or frame.payload.u32(0) != GET:
            return self.say(frame, frame.tcp_ack, after, RST | ACK)
        return self.request(frame, first, after)

    def request(self, frame, first, after):
        """The request: its document is looked for, and the first piece sent."""
        self.requests.add()
        name = path_hash(frame)
        document = self.documents.find((frame.eth_src, name))
        if not document:
            document = self.documents.find((0, name))
        if not document:
            self.not_found.add()
            document = self.documents.find((0, NOT_FOUND))
        at = document.at
        length = document.length
        entry = self.replies.make(frame.flow)
        if length == 0 or not entry:
            return self.say(frame, frame.tcp_ack, after, RST | ACK)
        entry.at = at
        entry.length = length
        entry.first = first
        return self.piece(frame, at, length, first, 0, after)

    def piece(self, frame, at, length, first, done, after):
        """The frame becomes the piece of a document, ``length`` bytes from the word ``at`` on, that
        follows what is ``done``; ``after``: what of the guest's is acknowledged."""
        begin = done & ~3
        n = min(length - begin, self.segment & ~3)
        frame.resize(frame.l4_offset + 20 + (n + 3 & ~3))
        header(frame, first + begin & WORD, after, ACK | PUSH | (FIN if begin + n == length else 0))
        for i in range((n + 3) // 4):
            frame.payload.set_u32(4 * i, self.text[at + begin // 4 + i])
        frame.resize(frame.l4_offset + 20 + n)
        return self.sent(frame)

    def say(self, frame, seq, ack, flags):
        """The frame becomes a segment without data."""
        frame.resize(frame.l4_offset + 20)
        header(frame, seq, ack, flags)
        return self.sent(frame)

    def sent(self, frame):
        """The frame goes back, from the server."""
        turn(frame)
        frame.ip_ttl = 64
        frame.fix()
        return nf.REPLY

    def first(self, frame):
        """The server's first sequence number for a frame's connection."""
        if self.secret[DRAWN] == 0:
            self.secret[KEY] = nf.random(1 << 62)
            self.secret[DRAWN] = 1
        return nf.hash(self.secret[KEY], frame.ipv4_src, frame.l4_src)


def header(frame, seq, ack, flags):
    """Write a TCP header without options."""
    l4 = frame.l4_offset
    frame.set_u32(l4 + 4, seq)
    frame.set_u32(l4 + 8, ack)
    frame.set_u32(l4 + 12, 5 << 28 | flags << 16 | WINDOW)
    frame.set_u32(l4 + 16, 0)


def path_hash(frame):
    """FNV-1a, 32 bits, of the path in a request line."""
    name = START
    for i in range(4, 4 + LONGEST_PATH):
        byte = frame.payload.u8(i)
        if byte <= SPACE:
            break
        name = (name ^ byte) * FACTOR & WORD
    return name
