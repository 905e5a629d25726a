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
here. A record says what they become. Each connection has two: its packets' and its answers'; the
one is the *twin* of the other, and its key is the other's result turned round. So a packet of a
known flow costs one look-up. Who has been sent nothing gets nothing through: the filter depends on
address and port, as does the table (RFC 4787, 5).

The outside port depends on the inside address and port only (RFC 4787, 4.1): ``bindings`` has it,
and ``owners`` says whose a port is. It is the inside port, where that is free and allowed, and any
other one otherwise. ``forwards``, filled from outside, leads ports of the outside address to inside
servers.

TCP connections that are answered go from the table ``brief`` into ``lasting``, and back when they
end: what is half open or dead does not hold room for hours. Entries are kept alive by packets of
either direction: once a second a flow touches its twin and its binding. Where a binding is gone
before its connection, its port may be taken for others; not for the same peer.

ICMP: of queries the identifier is the port. Errors follow the packet that they quote. Fragments
follow their first one, by ``pieces``; those that come before it are dropped.
"""

from typing import Annotated, Literal

from byway import nf
from byway.functions.builtin.nat44_packets import (
    BOTH,
    DESTINATION,
    SOURCE,
    is_answer,
    is_error,
    is_query,
    quoted_destination_port,
    quoted_source_port,
    quotes_ports,
    rewrite,
    rewrite_error,
)

ICMP, TCP = 1, 6
ASKS, ANSWERS, ENDS = 0, 1, 2  # a TCP flow: whose packets it has, or that it ends
NONE = -1  # no port
MOST_TRIES = 64  # ports that are looked at for a free one
GROUPS = 7  # the first three bits of group addresses, and of some that nobody has
SECOND_BITS = 30  # nanoseconds of a second, roughly

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

    brief = nf.Map(key=("ipv4", "u32", "ipv4", "u8"), capacity=131072, idle="timeout", value={
        "src": "ipv4", "dst": "ipv4", "sport": "u16", "dport": "u16", "changes": "u8",
        "state": "u8", "touched": "u64"})
    lasting = nf.Map(key=("ipv4", "u32", "ipv4", "u8"), capacity=131072, idle="established", value={
        "src": "ipv4", "dst": "ipv4", "sport": "u16", "dport": "u16", "changes": "u8",
        "touched": "u64"})
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
        return self.translate(frame)

    def tx(self, frame):
        """What leaves."""
        if frame.ipv4_src not in self.inside or not frame.is_ipv4:
            return nf.PASS
        if frame.ipv4_dst in self.inside:
            return nf.PASS
        return self.translate(frame)

    def translate(self, frame):
        """Find the flow of a packet, make it if it may be, and do what it says."""
        if frame.is_fragment:
            return self.piece(frame)
        if is_error(frame):
            return self.error(frame)
        return self.whole(frame)

    def whole(self, frame):
        """A packet that is whole, or the first fragment of one."""
        sport = frame.l4_src
        dport = frame.l4_dst
        if frame.is_tcp:
            return self.tcp(frame, sport, dport)
        if not frame.is_udp:
            if not frame.is_icmp:
                return nf.DROP("protocol")
            if is_query(frame.icmp_type):
                sport = frame.icmp_id
            elif is_answer(frame.icmp_type):
                dport = frame.icmp_id
            else:
                return nf.DROP("protocol")
        flow = self.brief.find((frame.ipv4_src, sport << 16 | dport, frame.ipv4_dst,
                                frame.ip_protocol))
        if not flow:
            return self.open(frame, sport, dport)
        if nf.now() >> SECOND_BITS != flow.touched:
            flow.touched = nf.now() >> SECOND_BITS
            self.touch(flow.src, flow.sport, flow.dst, flow.dport, flow.changes, frame.ip_protocol)
        return rewrite(frame, flow.changes, flow.src, flow.sport, flow.dst, flow.dport)

    # ------------------------------------------------------------ TCP
    def tcp(self, frame, sport, dport):
        """A TCP segment: first looked for among the connections that last."""
        src = frame.ipv4_src
        dst = frame.ipv4_dst
        flow = self.lasting.find((src, sport << 16 | dport, dst, TCP))
        if not flow:
            return self.tcp_brief(frame, sport, dport)
        if nf.now() >> SECOND_BITS != flow.touched:
            flow.touched = nf.now() >> SECOND_BITS
            self.touch(flow.src, flow.sport, flow.dst, flow.dport, flow.changes, TCP)
        verdict = rewrite(frame, flow.changes, flow.src, flow.sport, flow.dst, flow.dport)
        if frame.is_tcp_fin or frame.is_tcp_rst:
            self.end(src, sport, dst, dport)
        return verdict

    def tcp_brief(self, frame, sport, dport):
        """A segment of a connection that begins, ends, or is not known."""
        src = frame.ipv4_src
        dst = frame.ipv4_dst
        flow = self.brief.find((src, sport << 16 | dport, dst, TCP))
        if not flow:
            if frame.is_tcp_rst:
                return nf.DROP("no flow")
            return self.open(frame, sport, dport)
        if nf.now() >> SECOND_BITS != flow.touched:
            flow.touched = nf.now() >> SECOND_BITS
            self.touch(flow.src, flow.sport, flow.dst, flow.dport, flow.changes, TCP)
        if flow.state == ENDS and frame.is_tcp_syn:
            return self.open(frame, sport, dport)
        answered = flow.state == ANSWERS and frame.tcp_flags & 0x15 == 0x10
        verdict = rewrite(frame, flow.changes, flow.src, flow.sport, flow.dst, flow.dport)
        if answered:
            self.last(src, sport, dst, dport)
        return verdict

    def last(self, src, sport, dst, dport):
        """A connection is answered: it and its twin are kept for long from now on."""
        for _ in range(2):
            old = self.brief.find((src, sport << 16 | dport, dst, TCP))
            if not old:
                return
            new = self.lasting.make((src, sport << 16 | dport, dst, TCP))
            if not new:
                return
            new.src = old.src
            new.dst = old.dst
            new.sport = old.sport
            new.dport = old.dport
            new.changes = old.changes
            self.brief.delete((src, sport << 16 | dport, dst, TCP))
            src = new.dst
            dst = new.src
            sport = new.dport
            dport = new.sport

    def end(self, src, sport, dst, dport):
        """A connection ends: it and its twin are kept for a while."""
        for _ in range(2):
            old = self.lasting.find((src, sport << 16 | dport, dst, TCP))
            if not old or not self.enter(src, sport, dst, dport, TCP, old.src, old.sport, old.dst,
                                         old.dport, old.changes, ENDS):
                return
            self.lasting.delete((src, sport << 16 | dport, dst, TCP))
            twin = self.brief.find((src, sport << 16 | dport, dst, TCP))
            src = twin.dst
            dst = twin.src
            sport = twin.dport
            dport = twin.sport

    # ------------------------------------------------------------ new flows
    def open(self, frame, sport, dport):
        """The first packet of a flow: may it be, and what becomes of it?"""
        src = frame.ipv4_src
        dst = frame.ipv4_dst
        protocol = frame.ip_protocol
        if dst == self.outside:
            if frame.is_icmp:
                return self.stranger()
            return self.open_in(frame, src, sport, dport, protocol)
        if frame.is_icmp and is_answer(frame.icmp_type):
            return nf.DROP("no flow")
        if dst >> 29 == GROUPS:
            return nf.PASS
        port = self.port_for(src, sport, dst, dport, protocol)
        if port < 0:
            return nf.DROP("no free port")
        if not self.pair(src, sport, dst, dport, protocol, self.outside, port, dst, dport, SOURCE):
            return nf.DROP("no room")
        return rewrite(frame, SOURCE, self.outside, port, dst, dport)

    def open_in(self, frame, src, sport, dport, protocol):
        """The first packet of a flow to the outside address: for a forwarded port, or hairpin."""
        forward = self.forwards.find((protocol, dport))
        target = forward.ip
        target_port = forward.port
        if src not in self.inside:
            if target == 0:
                return self.stranger()
            if not self.pair(src, sport, self.outside, dport, protocol, src, sport, target,
                             target_port, DESTINATION):
                return nf.DROP("no room")
            return rewrite(frame, DESTINATION, src, sport, target, target_port)
        port = self.port_for(src, sport, self.outside, dport, protocol)
        if port < 0:
            return nf.DROP("no free port")
        if target == 0:
            owner = self.owners.peek((dport, protocol))
            # Who calls may be called back: the note stands under a key that no packet has.
            if not self.enter(self.outside, dport, self.outside, port, protocol, 0, 0, 0, 0, 0, 0):
                return nf.DROP("no room")
            if not owner or port == dport or (self.outside, port << 16 | dport, self.outside,
                             protocol) not in self.brief:
                return self.stranger()
            target = owner.ip
            target_port = owner.port
        if not self.pair(src, sport, self.outside, dport, protocol, self.outside, port, target,
                         target_port, BOTH):
            return nf.DROP("no room")
        return rewrite(frame, BOTH, self.outside, port, target, target_port)

    def stranger(self):
        """A packet for the outside address that belongs to no flow."""
        if self.unknown == "pass":
            return nf.PASS
        return nf.DROP("no flow")

    def pair(self, src, sport, dst, dport, protocol, new_src, new_sport, new_dst, new_dport,
             changes):
        """Enter a flow and its twin; -> is there room for both, and is the twin no other's?"""
        if not self.is_free(new_dst, new_dport, new_src, new_sport, protocol, dst, dport, src,
                            sport):
            return False
        back = SOURCE | DESTINATION
        if changes != BOTH:
            back = BOTH - changes
        if not self.enter(src, sport, dst, dport, protocol, new_src, new_sport, new_dst, new_dport,
                          changes, ASKS):
            return False
        if not self.enter(new_dst, new_dport, new_src, new_sport, protocol, dst, dport, src, sport,
                          back, ANSWERS):
            self.brief.delete((src, sport << 16 | dport, dst, protocol))
            return False
        self.opened.add()
        return True

    def enter(self, src, sport, dst, dport, protocol, new_src, new_sport, new_dst, new_dport,
              changes, state):
        """Enter one record; -> is there room?"""
        flow = self.brief.make((src, sport << 16 | dport, dst, protocol))
        if not flow:
            return False
        flow.src = new_src
        flow.dst = new_dst
        flow.sport = new_sport
        flow.dport = new_dport
        flow.changes = changes
        flow.state = state
        flow.touched = nf.now() >> SECOND_BITS
        return True

    def touch(self, src, sport, dst, dport, changes, protocol):
        """A flow with this result is used: so are its twin and its binding."""
        if protocol == TCP:
            self.lasting.find((dst, dport << 16 | sport, src, protocol))
        self.brief.find((dst, dport << 16 | sport, src, protocol))
        if changes & SOURCE:
            owner = self.owners.find((sport, protocol))
            self.bindings.find((owner.ip, owner.port, protocol))
        if changes & DESTINATION:
            binding = self.bindings.find((dst, dport, protocol))
            self.owners.find((binding.port, protocol))

    # ------------------------------------------------------------ ports
    def port_for(self, src, sport, peer, peer_port, protocol):
        """The outside port (or identifier) of an inside one, for a peer; -1: none is free."""
        binding = self.bindings.find((src, sport, protocol))
        if binding and self.is_free(peer, peer_port, self.outside, binding.port, protocol, peer,
                                    peer_port, src, sport):
            self.owners.find((binding.port, protocol))
            return binding.port
        count = self.last_port - self.first_port + 1
        if count < 1:
            return NONE
        port = sport
        if protocol != ICMP and (port < self.first_port or port > self.last_port):
            port = self.first_port + nf.random(count)
        for _ in range(min(MOST_TRIES, count)):
            if (port, protocol) not in self.owners and (protocol, port) not in self.forwards:
                if self.is_free(peer, peer_port, self.outside, port, protocol, peer, peer_port,
                                src, sport):
                    return self.bind(src, sport, port, protocol)
            port = self.first_port + nf.random(count)
        return NONE

    def is_free(self, src, sport, dst, dport, protocol, new_src, new_sport, new_dst, new_dport):
        """Is no flow known with these ends that has another result?"""
        flow = self.brief.peek((src, sport << 16 | dport, dst, protocol))
        if flow and flow.changes != 0:
            return (flow.src == new_src and flow.sport == new_sport
                    and flow.dst == new_dst and flow.dport == new_dport)
        lasting = self.lasting.peek((src, sport << 16 | dport, dst, protocol))
        return not lasting or (lasting.src == new_src and lasting.sport == new_sport
                               and lasting.dst == new_dst and lasting.dport == new_dport)

    def bind(self, src, sport, port, protocol):
        """The outside port belongs to the inside one from now on; -> it, or -1: no room."""
        owner = self.owners.make((port, protocol))
        binding = self.bindings.make((src, sport, protocol))
        if not owner or not binding:
            self.owners.delete((port, protocol))
            return NONE
        owner.ip = src
        owner.port = sport
        binding.port = port
        return port

    # ------------------------------------------------------------ fragments and errors
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
        verdict = self.whole(frame)
        if frame.ipv4_src != src or frame.ipv4_dst != dst:
            self.pieces.delete((src, dst, number, protocol))
            known = self.pieces.make((src, dst, number, protocol))
            known.src = frame.ipv4_src
            known.dst = frame.ipv4_dst
        return verdict

    def error(self, frame):
        """An ICMP error: it goes the way of answers to the packet that it quotes, and keeps nothing
        alive (RFC 5508, 4)."""
        if not quotes_ports(frame):
            return nf.DROP("no flow")
        src = frame.quoted.ipv4_dst
        dst = frame.quoted.ipv4_src
        protocol = frame.quoted.ip_protocol
        ports = quoted_destination_port(frame) << 16 | quoted_source_port(frame)
        inside = frame.ipv4_src == src or frame.ipv4_src in self.inside
        flow = self.brief.peek((src, ports, dst, protocol))
        if flow and flow.changes != 0:
            self.errors.add()
            return rewrite_error(frame, inside, flow.src, flow.sport, flow.dst, flow.dport)
        lasting = self.lasting.peek((src, ports, dst, protocol))
        if lasting:
            self.errors.add()
            return rewrite_error(frame, inside, lasting.src, lasting.sport, lasting.dst,
                                 lasting.dport)
        if frame.ipv4_dst != self.outside:
            return nf.DROP("no flow")
        return self.stranger()
