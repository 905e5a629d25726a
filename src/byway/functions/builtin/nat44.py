# SPDX-License-Identifier: Apache-2.0
"""``byway.nat44``: many inside hosts share one outside IPv4 address (NAPT; RFC 4787, 5382, 5508).

A built-in network function, written on the author's page (byway.nf) alone. Uses nat44_packets.py,
which reads and rewrites packets.

Theory of operation
-------------------
It stands in the chain of the port to the outside: ``tx`` sees what leaves and ``rx`` what comes in,
with one state. Where inside hosts are to reach each other by the outside address (hairpin), the
same instance also stands in the chain of their network: it tells by addresses what is to be done.

A *flow* is source, destination, their ports and the protocol, as a packet shows them when it comes
here. An entry says what they become, in one word. Each connection has two: its packets' and its
answers'; the one is the *twin* of the other, and its key is the other's result turned round. So a
packet of a known flow costs one look-up, of one cache line. Who has been sent nothing gets nothing
through: the filter depends on address and port, as does the table (RFC 4787, 5).

An *end* is an address and a port as one number: address | port << 32.

The outside port depends on the inside address and port only (RFC 4787, 4.1): ``bindings`` has it,
and ``owners`` says whose a port is. It is the inside port, where that is free and allowed, and any
other one otherwise. ``forwards``, filled from outside, leads ports of the outside address to inside
servers.

TCP connections that are answered go from the table ``brief`` into ``lasting``, and back when they
end: what is half open or dead does not hold room for hours. Once a second the first packet of a
flow, in either direction, keeps it, its twin and its binding alive. Where a binding is gone before
its connection, its port may be taken for others; not for the same peer.

ICMP: of queries the identifier is the port. Errors follow the packet that they quote. Fragments
follow their first one, by ``pieces``; those that come before it are dropped.
"""

from typing import Annotated, Literal

from byway import nf
from byway.functions.builtin.nat44_flows import (
    ANSWERS,
    BOTH,
    CHANGES,
    DESTINATION,
    ENDS,
    KEPT,
    LOW,
    NOTE,
    RESULT,
    SECOND_BITS,
    SECONDS,
    SOURCE,
    STATE,
    TCP,
    enter,
    keep,
    known,
    pair,
    port_for,
    source_after,
    target_after,
)
from byway.functions.builtin.nat44_packets import (
    ICMP,
    UDP,
    is_answer,
    is_error,
    is_query,
    quoted_destination_port,
    quoted_source_port,
    quotes_ports,
    rewrite_error,
    rewrite_icmp,
    source_of,
    target_of,
)

FIN_RST = 5  # TCP's flags
GROUPS = 7  # the first three bits of group addresses, and of some that nobody has

Number16 = Annotated[int, nf.Range(1, 65535)]


@nf.function
class Nat44:
    """Translate between inside IPv4 hosts and one outside address."""

    outside: nf.IPv4
    inside: nf.Prefix4 = nf.Prefix4("10.0.0.0/8")
    first_port: Number16 = 1024
    last_port: Number16 = 65535
    timeout: nf.Seconds = nf.Seconds(300)  # without a packet: UDP, ICMP, and TCP half open or ended
    established: nf.Seconds = nf.Seconds(7440)  # TCP (RFC 5382, REQ-5)
    unknown: Literal["drop", "pass"] = "drop"  # what comes for the outside address and no flow

    brief = nf.Map(key=("ipv4", "u16", "ipv4", "u16", "u8"), value="u64", capacity=131072,
                   idle="timeout")
    lasting = nf.Map(key=("ipv4", "u16", "ipv4", "u16", "u8"), value="u64", capacity=131072,
                     idle="established")
    hairpins = nf.Map(key=("u64", "u64", "u8"), value="u16", capacity=4096, idle="established")
    bindings = nf.Map(key=("ipv4", "u16", "u8"), value={"port": "u16"}, capacity=65536,
                      idle="timeout")
    owners = nf.Map(key=("u16", "u8"), value={"ip": "ipv4", "port": "u16"}, capacity=65536,
                    idle="timeout")
    forwards = nf.Map(key=("u8", "u16"), value={"ip": "ipv4", "port": "u16"}, capacity=1024)
    pieces = nf.Map(key=("ipv4", "ipv4", "u16", "u8"), value={"src": "ipv4", "dst": "ipv4"},
                    capacity=4096, age=30)

    opened = nf.Counter()
    errors = nf.Counter()

    def rx(self, frame):
        """What comes from outside; and from inside, where hosts call each other's outside port."""
        if frame.ipv4_dst != self.outside or not frame.is_ipv4:
            return nf.PASS
        if frame.ipv4_src == self.outside:
            return nf.DROP("spoofed")
        # Most packets are of flows that were kept in this second: that is all about them.
        word = 0
        if frame.is_udp:
            word = self.brief.get((frame.ipv4_src, frame.l4_src, frame.ipv4_dst, frame.l4_dst, UDP))
        elif frame.is_tcp and frame.tcp_flags & FIN_RST == 0:
            word = self.lasting.get((frame.ipv4_src, frame.l4_src, frame.ipv4_dst, frame.l4_dst,
                                     TCP))
        if ((word >> KEPT ^ nf.now() >> SECOND_BITS) & SECONDS != 0 or frame.is_fragment
                or word >> CHANGES & 3 != DESTINATION):
            return self.translate(frame)
        frame.ipv4_dst = word
        frame.l4_dst = word >> 32
        return nf.PASS

    def tx(self, frame):
        """What leaves."""
        if frame.ipv4_src not in self.inside or not frame.is_ipv4:
            return nf.PASS
        if frame.ipv4_dst in self.inside:
            return nf.PASS
        # Most packets are of flows that were kept in this second: that is all about them.
        word = 0
        if frame.is_udp:
            word = self.brief.get((frame.ipv4_src, frame.l4_src, frame.ipv4_dst, frame.l4_dst, UDP))
        elif frame.is_tcp and frame.tcp_flags & FIN_RST == 0:
            word = self.lasting.get((frame.ipv4_src, frame.l4_src, frame.ipv4_dst, frame.l4_dst,
                                     TCP))
        if ((word >> KEPT ^ nf.now() >> SECOND_BITS) & SECONDS != 0 or frame.is_fragment
                or word >> CHANGES & 3 != SOURCE):
            return self.translate(frame)
        frame.ipv4_src = word
        frame.l4_src = word >> 32
        return nf.PASS

    def translate(self, frame):
        """Find the flow of a packet, make it if it may be, and do what it says."""
        if frame.is_fragment:
            return self.piece(frame)
        return self.whole(frame)

    def whole(self, frame):
        """A packet that is whole, or the first fragment of one."""
        source = source_of(frame)
        target = target_of(frame)
        if frame.is_udp:
            return self.go(frame, known(self, source, target, UDP), source, target, UDP)
        if frame.is_tcp:
            return self.tcp(frame, source, target)
        if not frame.is_icmp:
            return nf.DROP("protocol")
        return self.icmp(frame)

    def go(self, frame, word, source, target, protocol):
        """A packet of UDP or TCP, with what its flow says; 0: it is not known."""
        if word == 0:
            return self.open(frame, source, target, protocol)
        keep(self, source, target, protocol)
        return self.both_ends(frame, word, source, target, protocol)

    def both_ends(self, frame, word, source, target, protocol):
        """Give a packet of UDP or TCP what its flow says."""
        if word >> CHANGES & SOURCE:
            new_source = source_after(self, word, source, target, protocol)
            frame.ipv4_src = new_source
            frame.l4_src = new_source >> 32
        if word >> CHANGES & DESTINATION:
            frame.ipv4_dst = word
            frame.l4_dst = word >> 32
        return nf.PASS

    # ------------------------------------------------------------ TCP
    def tcp(self, frame, source, target):
        """A TCP segment: of a connection that lasts, begins, ends, or is not known."""
        word = self.lasting.get((source, source >> 32, target, target >> 32, TCP))
        if word != 0:
            if frame.tcp_flags & FIN_RST != 0:
                self.end(source, target)
            return self.go(frame, word, source, target, TCP)
        word = self.brief.get((source, source >> 32, target, target >> 32, TCP))
        if word == 0 and frame.is_tcp_rst:
            return nf.DROP("no flow")
        state = word >> STATE & 3
        if state == ENDS and frame.is_tcp_syn:
            return self.open(frame, source, target, TCP)
        if word != 0 and state == ANSWERS and frame.tcp_flags & 0x15 == 0x10:
            self.last(source, target)
        return self.go(frame, word, source, target, TCP)

    def last(self, source, target):
        """A connection is answered: it and its twin are kept for long from now on."""
        for _ in range(2):
            word = self.brief.get((source, source >> 32, target, target >> 32, TCP))
            if word == 0 or not self.lasting.set((source, source >> 32, target, target >> 32, TCP),
                                                 word):
                return
            self.brief.delete((source, source >> 32, target, target >> 32, TCP))
            twin = target_after(self, word, target)
            target = source_after(self, word, source, target, TCP)
            source = twin

    def end(self, source, target):
        """A connection ends: it and its twin are kept for a while."""
        for _ in range(2):
            word = self.lasting.get((source, source >> 32, target, target >> 32, TCP))
            if word == 0 or not enter(self, source, target, TCP, word & RESULT | ENDS << STATE):
                return
            self.lasting.delete((source, source >> 32, target, target >> 32, TCP))
            twin = target_after(self, word, target)
            target = source_after(self, word, source, target, TCP)
            source = twin

    # ------------------------------------------------------------ new flows
    def open(self, frame, source, target, protocol):
        """The first packet of a flow: may it be, and what becomes of it?"""
        if frame.ipv4_dst == self.outside:
            return self.open_in(frame, source, target, protocol)
        if frame.ipv4_dst >> 29 == GROUPS:
            return nf.PASS
        port = port_for(self, source, target, protocol)
        if port < 0:
            return nf.DROP("no free port")
        word = self.outside | port << 32 | SOURCE << CHANGES
        if not pair(self, source, target, protocol, word, port):
            return nf.DROP("no room")
        if protocol == ICMP:
            return rewrite_icmp(frame, self.outside | port << 32, target)
        return self.both_ends(frame, word, source, target, protocol)

    def open_in(self, frame, source, target, protocol):
        """The first packet of a flow to the outside address: for a forwarded port, or hairpin."""
        if protocol == ICMP:
            return self.stranger()
        dport = target >> 32
        forward = self.forwards.find((protocol, dport))
        end = forward.ip | forward.port << 32
        if frame.ipv4_src not in self.inside:
            if forward.ip == 0:
                return self.stranger()
            word = end | DESTINATION << CHANGES
            if not pair(self, source, target, protocol, word, 0):
                return nf.DROP("no room")
            return self.both_ends(frame, word, source, target, protocol)
        port = port_for(self, source, target, protocol)
        if port < 0:
            return nf.DROP("no free port")
        if forward.ip == 0:
            # Who calls may be called back: the note stands under a key that no packet has.
            if not enter(self, target, self.outside | port << 32, protocol, NOTE << STATE):
                return nf.DROP("no room")
            owner = self.owners.peek((dport, protocol))
            if not owner or port == dport or self.brief.get(
                    (self.outside, port, self.outside, dport, protocol)) == 0:
                return self.stranger()
            end = owner.ip | owner.port << 32
        word = end | BOTH << CHANGES
        if not pair(self, source, target, protocol, word, port):
            return nf.DROP("no room")
        return self.both_ends(frame, word, source, target, protocol)

    def stranger(self):
        """A packet for the outside address that belongs to no flow."""
        if self.unknown == "pass":
            return nf.PASS
        return nf.DROP("no flow")

    # ------------------------------------------------------------ fragments and ICMP
    def piece(self, frame):
        """A fragment goes where the first one of its datagram went."""
        src = frame.ipv4_src
        dst = frame.ipv4_dst
        number = frame.ipv4_id
        protocol = frame.ip_protocol
        if not frame.is_first_fragment:
            known = self.pieces.find((src, dst, number, protocol))
            if not known:
                if dst == self.outside:
                    return self.stranger()
                return nf.DROP("fragment before its first")
            frame.ipv4_src = known.src
            frame.ipv4_dst = known.dst
            return nf.PASS
        if is_error(frame):
            return nf.DROP("protocol")
        verdict = self.whole(frame)
        if frame.ipv4_src != src or frame.ipv4_dst != dst:
            self.pieces.delete((src, dst, number, protocol))
            known = self.pieces.make((src, dst, number, protocol))
            known.src = frame.ipv4_src
            known.dst = frame.ipv4_dst
        return verdict

    def icmp(self, frame):
        """A query goes by its identifier, an error by the packet that it quotes."""
        source = frame.ipv4_src
        target = frame.ipv4_dst
        if is_query(frame.icmp_type):
            source |= frame.icmp_id << 32
        elif is_answer(frame.icmp_type):
            target |= frame.icmp_id << 32
        elif is_error(frame):
            return self.error(frame)
        else:
            return nf.DROP("protocol")
        word = known(self, source, target, ICMP)
        if word == 0:
            if is_answer(frame.icmp_type) and frame.ipv4_dst != self.outside:
                return nf.DROP("no flow")
            return self.open(frame, source, target, ICMP)
        keep(self, source, target, ICMP)
        return rewrite_icmp(frame, source_after(self, word, source, target, ICMP),
                            target_after(self, word, target))

    def error(self, frame):
        """An ICMP error: it goes the way of answers to the packet that it quotes, and keeps nothing
        alive (RFC 5508, 4)."""
        if not quotes_ports(frame):
            return nf.DROP("no flow")
        source = frame.quoted.ipv4_dst | quoted_destination_port(frame) << 32
        target = frame.quoted.ipv4_src | quoted_source_port(frame) << 32
        protocol = frame.quoted.ip_protocol
        word = known(self, source, target, protocol)
        if word >> CHANGES & 3 == 0:
            if frame.ipv4_dst != self.outside:
                return nf.DROP("no flow")
            return self.stranger()
        self.errors.add()
        inside = frame.ipv4_src == source & LOW or frame.ipv4_src in self.inside
        return rewrite_error(frame, inside, source_after(self, word, source, target, protocol),
                             target_after(self, word, target))
