# SPDX-License-Identifier: Apache-2.0
"""``byway.balancer``: one IPv4 address for many servers; Maglev hashing chooses (nf.Maglev).

A built-in network function, written on the author's page (byway.nf) alone.

Theory of operation
-------------------
``members`` says who serves, by number, with weight and health (``up``), ``servers`` where each
member is; both are filled from outside, health by whoever watches the servers. The hash of source
address and port (or of the address alone, ``affinity = "source"``) chooses the member: every switch
with the same members chooses the same one, and a change of members moves few flows.

``mode = "mac"``: only the MAC address is changed. Servers have the service's address themselves and
answer clients directly; the function need not see the answers. ``mode = "nat"``: the destination
becomes the server's own address and port, and answers are turned back: they have to come through
the same instance, so it stands in the chain of the network that the servers are in.

``flows`` keeps what was chosen: a flow stays with its member when members change, also with one
that is no longer up (it is drained; take it out of ``servers`` and the next packets go elsewhere).
Answers are found there, too. ``sticky = false`` (with "mac" only) does without.

The function answers ARP and echo requests for the service's address with ``mac``. ICMP errors about
answers go to the server that the quoted packet came from. Fragments cannot be told apart and are
dropped.
"""

from typing import Annotated, Literal

from byway import nf

ARP_REQUEST, ARP_REPLY = 1, 2
ECHO, ECHO_REPLY, TTL = 8, 0, 64
UNREACHABLE, EXPIRED, PARAMETER = 3, 11, 12
TO_SERVER, TO_CLIENT = 1, 2
SECOND_BITS = 30  # nanoseconds of a second, roughly
NOBODY = -1


@nf.function
class Balancer:
    """Spread the flows to one address over servers."""

    address: nf.IPv4
    mac: nf.Mac = nf.Mac("02:00:00:00:00:fe")
    port: Annotated[int, nf.Range(0, 65535)] = 0  # 0: all
    protocol: Literal["tcp", "udp", "both"] = "both"
    mode: Literal["mac", "nat"] = "nat"
    affinity: Literal["flow", "source"] = "flow"
    sticky: bool = True
    idle: nf.Seconds = nf.Seconds(900)

    members = nf.Maglev(capacity=256)
    servers = nf.Map(key="u32", value={"mac": "mac", "ip": "ipv4", "port": "u16"}, capacity=1024)
    flows = nf.Map(key=("ipv4", "u32", "ipv4", "u8"), capacity=131072, idle="idle", value={
        "to": "u8", "ip": "ipv4", "port": "u16", "member": "u32", "mac": "mac", "touched": "u64"})

    chosen = nf.Counter()

    def process(self, frame):
        """Requests to the service, and answers of its servers."""
        if frame.is_ipv4:
            if frame.ipv4_dst == self.address:
                return self.request(frame)
            if self.mode == "nat" and (frame.is_tcp or frame.is_udp):
                return self.answer(frame)
            return nf.PASS
        if frame.is_arp and frame.arp_op == ARP_REQUEST and frame.arp_target_ip == self.address:
            return self.arp(frame)
        return nf.PASS

    # ------------------------------------------------------------ requests
    def request(self, frame):
        """A packet for the service's address."""
        if frame.is_fragment:
            return nf.DROP("fragment")
        if frame.is_icmp:
            return self.icmp(frame)
        if not self.is_served(frame):
            return nf.DROP("not served")
        sport = frame.l4_src
        dport = frame.l4_dst
        if self.mode == "mac" and not self.sticky:
            member = self.members.pick(self.spread(frame, sport))
            server = self.servers.find(member)
            if member == NOBODY or not server:
                return nf.DROP("no server")
            frame.eth_dst = server.mac
            return nf.PASS
        flow = self.flows.find((frame.ipv4_src, sport << 16 | dport, self.address,
                                frame.ip_protocol))
        if not flow:
            return self.choose(frame, sport, dport)
        if nf.now() >> SECOND_BITS != flow.touched:
            if flow.member not in self.servers:
                return self.choose(frame, sport, dport)
            flow.touched = nf.now() >> SECOND_BITS
            self.flows.find((flow.ip, flow.port << 16 | sport, frame.ipv4_src, frame.ip_protocol))
        frame.eth_dst = flow.mac
        if self.mode == "nat":
            frame.ipv4_dst = flow.ip
            frame.l4_dst = flow.port
        return nf.PASS

    def is_served(self, frame):
        """Is it of the service's protocol, and for its port?"""
        if not frame.is_tcp and not frame.is_udp:
            return False
        if frame.is_tcp and self.protocol == "udp":
            return False
        if frame.is_udp and self.protocol == "tcp":
            return False
        return self.port == 0 or frame.l4_dst == self.port

    def spread(self, frame, sport):
        """The number by which a member is chosen."""
        if self.affinity == "source":
            return nf.hash(frame.ipv4_src)
        return nf.hash(frame.ipv4_src, sport, frame.ip_protocol)

    def choose(self, frame, sport, dport):
        """The first packet of a flow: a member is chosen."""
        member = self.members.pick(self.spread(frame, sport))
        server = self.servers.find(member)
        if member == NOBODY or not server:
            return nf.DROP("no server")
        client = frame.ipv4_src
        port = server.port
        if port == 0:
            port = dport
        if self.mode == "nat":
            back = self.flows.make((server.ip, port << 16 | sport, client, frame.ip_protocol))
            if not back:
                return nf.DROP("table full")
            if back.to == TO_CLIENT and back.port != dport:
                return nf.DROP("port in use")
            back.to = TO_CLIENT
            back.ip = self.address
            back.port = dport
            back.member = member
            back.touched = nf.now() >> SECOND_BITS
        flow = self.flows.make((client, sport << 16 | dport, self.address, frame.ip_protocol))
        if not flow:
            return nf.DROP("table full")
        flow.to = TO_SERVER
        flow.ip = server.ip
        flow.port = port
        flow.member = member
        flow.mac = server.mac
        flow.touched = nf.now() >> SECOND_BITS
        self.chosen.add()
        frame.eth_dst = server.mac
        if self.mode == "nat":
            frame.ipv4_dst = server.ip
            frame.l4_dst = port
        return nf.PASS

    # ------------------------------------------------------------ answers
    def answer(self, frame):
        """What a server answers comes from the service's address."""
        if frame.is_fragment:
            return nf.PASS
        sport = frame.l4_src
        dport = frame.l4_dst
        flow = self.flows.find((frame.ipv4_src, sport << 16 | dport, frame.ipv4_dst,
                                frame.ip_protocol))
        if not flow or flow.to != TO_CLIENT:
            return nf.PASS
        if nf.now() >> SECOND_BITS != flow.touched:
            flow.touched = nf.now() >> SECOND_BITS
            self.flows.find((frame.ipv4_dst, dport << 16 | flow.port, self.address,
                             frame.ip_protocol))
        frame.ipv4_src = flow.ip
        frame.l4_src = flow.port
        return nf.PASS

    # ------------------------------------------------------------ the service's address
    def icmp(self, frame):
        """Echo requests are answered; errors about answers go to the server."""
        kind = frame.icmp_type
        if kind == ECHO and frame.icmp_code == 0:
            frame.swap_ip()
            frame.ip_ttl = TTL
            frame.icmp_type = ECHO_REPLY
            frame.eth_dst = self.mac
            return nf.REPLY
        if kind != UNREACHABLE and kind != EXPIRED and kind != PARAMETER:
            return nf.DROP("not served")
        sport = frame.quoted.l4_dst
        dport = frame.quoted.l4_src
        if frame.quoted.ipv4_src != self.address:
            return nf.DROP("not served")
        flow = self.flows.find((frame.quoted.ipv4_dst, sport << 16 | dport, self.address,
                                frame.quoted.ip_protocol))
        if not flow:
            return nf.DROP("not served")
        frame.eth_dst = flow.mac
        if self.mode == "nat":
            frame.quoted.ipv4_src = flow.ip
            frame.quoted.l4_src = flow.port
            frame.ipv4_dst = flow.ip
        return nf.PASS

    def arp(self, frame):
        """An ARP request for the service's address becomes its reply (RFC 826)."""
        frame.arp_op = ARP_REPLY
        frame.arp_target_mac = frame.arp_sender_mac
        frame.arp_target_ip = frame.arp_sender_ip
        frame.arp_sender_mac = self.mac
        frame.arp_sender_ip = self.address
        frame.eth_dst = self.mac
        return nf.REPLY
