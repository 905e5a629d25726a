# SPDX-License-Identifier: Apache-2.0
"""The router, slow and obvious: frames are taken apart by struct, answers are built by scapy.

Used by test_router.py. What a frame becomes, without limits of how much the router sends.
"""

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6Unknown,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from byway.packet.reason import Reason
from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.routing import Gateway, Router
from byway.testing.frames import checksum
from byway.testing.routed import Outcome
from tests.oracles.routed_frames import summed, text

HEAD = 128
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
NOT_SOURCES = [ipaddress.ip_network(text) for text in (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/64", "ff00::/8")]
NOT_DESTINATIONS = [*NOT_SOURCES, ipaddress.ip_network("fe80::/10")]


@dataclass(frozen=True)
class Way:
    """A route: by which network and which next hop (None: the destination)."""

    prefix: ipaddress.IPv4Network | ipaddress.IPv6Network
    network: int
    via: Ip | None = None


class PlainRouter:
    """``neighbours``: MAC addresses by network and IP address."""

    def __init__(self, gateways: Sequence[Gateway], routers: Sequence[Router],
                 neighbours: dict[tuple[int, str], int]) -> None:
        self.gateways = {g.network: g for g in gateways}
        self.routers = routers
        self.neighbours = {(n, ipaddress.ip_address(ip)): mac
                           for (n, ip), mac in neighbours.items()}

    # ------------------------------------------------------------ what is known
    def own(self, network: int) -> list[Ip]:
        """Addresses of the gateway in a network."""
        return [i.ip for i in self.gateways[network].interfaces()]

    def together(self, network: int) -> Router:
        """The router that a network is joined by."""
        return next((r for r in self.routers if network in r.networks), Router((network,)))

    def ways(self, network: int) -> list[Way]:
        """All routes that a network's gateway knows."""
        made = []
        for number in self.together(network).networks:
            for i in self.gateways[number].interfaces():
                if not (i.version == 6 and i.ip.is_link_local):
                    made.append(Way(i.network, number))
        for to, via in self.together(network).routes:
            hop = ipaddress.ip_address(via)
            number = next(w.network for w in made if w.via is None and hop in w.prefix)
            made.append(Way(ipaddress.ip_network(to), number, hop))
        return made

    def way(self, network: int, to: Ip) -> Way | None:
        """The longest prefix that holds an address."""
        found = [w for w in self.ways(network) if to.version == w.prefix.version and to in w.prefix]
        return max(found, key=lambda w: w.prefix.prefixlen, default=None)

    def is_end(self, network: int, to: Ip) -> bool:
        """Is it a subnet's broadcast address, or its old form of all zeros?"""
        return any(
            to.version == 4 and w.via is None and w.prefix.prefixlen <= 30
            and to in (w.prefix.network_address, w.prefix.broadcast_address)
            for w in self.ways(network))

    def speaks_from(self, network: int, to: Ip) -> Ip | None:
        """The own address for a message to a station."""
        same = [i for i in self.gateways[network].interfaces() if i.version == to.version]
        near = [i for i in same if to in i.network]
        return next((i.ip for i in near + same), None)

    # ------------------------------------------------------------ frames
    def outcome(self, frame: bytes, network: int, port: int, vni: int = 0) -> Outcome:
        """What becomes of a frame without offloads that has come from a port."""
        untouched = Outcome(frame, network, port)
        if network not in self.gateways or len(frame) < 14:
            return untouched
        mac = self.gateways[network].mac.to_bytes(6, "big")
        if frame[6] & 1 or frame[6:12] == bytes(6):
            return untouched
        tunnelled = port >= FIRST_TUNNEL
        if frame[6:12] == mac and not tunnelled:
            return Outcome(frame, network, port, Reason.SPOOFED_MAC)
        self.at, self.port, self.vni, self.tunnelled = network, port, vni, tunnelled
        self.serves = not tunnelled or self.gateways[network].tunnels
        if frame[:6] == mac:
            return self.to_gateway(frame)
        if frame[0] & 1:
            return self.arp(frame) or self.discovery(frame) or untouched
        return untouched

    def drop(self, frame: bytes, reason: Reason) -> Outcome:
        """Not delivered."""
        return Outcome(frame, self.at, self.port, reason)

    def reply(self, packet: Packet, asker: bytes) -> Outcome:
        """Back to where the frame came from."""
        ether = Ether(dst=asker.hex(":"), src=text(self.gateways[self.at].mac))
        return Outcome(bytes(ether / packet), self.at, self.port, answer=True)

    def to_gateway(self, frame: bytes) -> Outcome:
        """A frame to our MAC address."""
        kind = frame[12:14]
        if self.serves and kind == b"\x08\x00":
            return self.ipv4(frame)
        if self.serves and kind == b"\x86\xdd":
            if self.nd_type(frame) is None:
                return self.ipv6(frame)
            return self.discovery(frame) or self.answered(frame) \
                or self.drop(frame, Reason.TO_GATEWAY)
        if self.serves and kind == b"\x08\x06":
            return self.arp(frame) or self.answered(frame) or self.drop(frame, Reason.TO_GATEWAY)
        return self.drop(frame, Reason.TO_GATEWAY)

    def answered(self, frame: bytes) -> Outcome | None:
        """An answer to a request of the gateway, on this host or another."""
        if frame[12:14] == b"\x08\x06":
            if self.parse_arp(frame) is None or frame[20:22] != b"\0\x02":
                return None
        elif self.nd_type(frame) != 136 or not self.is_valid(frame):
            return None
        if self.vni and not self.tunnelled and len(frame) <= 128:
            return Outcome(frame, self.at, self.port, flood=True)
        return self.drop(frame, Reason.TO_GATEWAY)

    # ------------------------------------------------------------ ARP and ND
    def parse_arp(self, frame: bytes) -> ARP | None:
        if len(frame) < 42 or frame[12:20] != bytes.fromhex("0806 0001 0800 06 04"):
            return None
        return ARP(frame[14:42])

    def arp(self, frame: bytes) -> Outcome | None:
        """An ARP message that concerns us."""
        found = self.parse_arp(frame)
        if found is None:
            return None
        own = [str(ip) for ip in self.own(self.at)]
        ours = text(self.gateways[self.at].mac)
        if found.psrc in own and not (self.tunnelled and found.hwsrc == ours):
            return self.drop(frame, Reason.SPOOFED_ARP)
        if not self.serves or found.op != 1 or found.pdst not in own:
            return None
        made = self.reply(ARP(op=2, hwsrc=ours, psrc=found.pdst, hwdst=found.hwsrc,
                              pdst=found.psrc), frame[6:12])
        return Outcome(made.frame.ljust(60, b"\0"), self.at, self.port, answer=True)

    def nd_type(self, frame: bytes) -> int | None:
        """The type of a message of neighbour discovery."""
        if len(frame) < 62 or frame[12:14] != b"\x86\xdd" or frame[14] >> 4 != 6 \
                or frame[20] != 58 or not 133 <= frame[54] <= 137:
            return None
        return frame[54]

    def is_valid(self, frame: bytes) -> bool:
        """RFC 4861, 7.1.1 and 7.1.2."""
        length = struct.unpack_from(">H", frame, 18)[0]
        message = frame[54 : 54 + length]
        if length < 24 or len(message) < length or 54 + length > HEAD or frame[21] != 255 \
                or message[1] != 0 or message[8] == 0xFF:
            return False
        source, to = frame[22:38], frame[38:54]
        at, options = 24, []
        while at < length:
            if at + 1 >= length or message[at + 1] == 0:
                return False
            options.append(message[at])
            at += 8 * message[at + 1]
        nodes = bytes.fromhex("ff02 0000 0000 0000 0000 0001 ff")
        if message[0] == 135 and source == bytes(16) and (to[:13] != nodes or 1 in options):
            return False
        if message[0] == 136 and to[0] == 0xFF and message[4] & 0x40:
            return False
        pseudo = source + to + struct.pack(">II", length, 58)
        return at == length and checksum(pseudo + message) == 0

    def discovery(self, frame: bytes) -> Outcome | None:
        """A message of neighbour discovery that concerns us."""
        kind = self.nd_type(frame)
        if kind is None:
            return None
        own = [ip.packed for ip in self.own(self.at)]
        if frame[22:38] in own and not self.tunnelled:
            return self.drop(frame, Reason.SPOOFED_ARP)
        if kind not in (135, 136) or len(frame) < 78 or frame[62:78] not in own:
            return None
        if kind == 136:
            return self.drop(frame, Reason.SPOOFED_ARP)
        if not self.serves:
            return None
        if not self.is_valid(frame):
            return self.drop(frame, Reason.BAD_IP)
        target, asker = ipaddress.IPv6Address(frame[62:78]), ipaddress.IPv6Address(frame[22:38])
        alone = asker == ipaddress.IPv6Address("::")
        packet = IPv6(src=str(target), dst="ff02::1" if alone else str(asker), hlim=255) \
            / ICMPv6ND_NA(R=1, S=0 if alone else 1, O=1, tgt=str(target)) \
            / ICMPv6NDOptDstLLAddr(lladdr=text(self.gateways[self.at].mac))
        return self.reply(packet, bytes.fromhex("333300000001") if alone else frame[6:12])

    # ------------------------------------------------------------ IP
    def ipv4(self, frame: bytes) -> Outcome:
        """A packet to be routed, or for us."""
        size = 4 * (frame[14] & 15) if len(frame) >= 34 else 0
        if size < 20 or frame[14] >> 4 != 4 or 14 + size > len(frame):
            return self.drop(frame, Reason.BAD_IP)
        total = struct.unpack_from(">H", frame, 16)[0]
        if not size <= total <= len(frame) - 14 or checksum(frame[14 : 14 + size]) != 0:
            return self.drop(frame, Reason.BAD_IP)
        source, to = (ipaddress.IPv4Address(frame[k : k + 4]) for k in (26, 30))
        if any(source in p for p in NOT_SOURCES if p.version == 4) \
                or not self.options_fit(frame[34 : 14 + size]):
            return self.drop(frame, Reason.MARTIAN)
        if to in self.everywhere():
            return self.local4(frame, size, total)
        return self.onward(frame, source, to, frame[22], total)

    def options_fit(self, options: bytes) -> bool:
        at = 0
        while at < len(options) and options[at] != 0:
            if options[at] == 1:
                at += 1
                continue
            length = options[at + 1] if at + 1 < len(options) else 0
            if length < 2 or at + length > len(options) or options[at] in (131, 137):
                return False
            at += length
        return True

    def everywhere(self) -> list[Ip]:
        """All addresses of the router, but no link-local IPv6 ones of other networks."""
        own = [ip for number in self.together(self.at).networks for ip in self.own(number)
               if not (ip.version == 6 and ip.is_link_local)]
        return own + [ip for ip in self.own(self.at) if ip.version == 6]

    def local4(self, frame: bytes, size: int, total: int) -> Outcome:
        gone = self.drop(frame, Reason.TO_GATEWAY)
        if struct.unpack_from(">H", frame, 20)[0] & 0x3FFF:
            return gone
        if frame[23] == 1:
            if total < size + 8 or frame[14 + size : 16 + size] != b"\x08\0":
                return gone
            return self.echo(frame, 14 + size, b"\0")
        return self.error(frame, 3, 3 if frame[23] in (6, 17) else 2, Reason.TO_GATEWAY)

    def echo(self, frame: bytes, l4: int, kind: bytes) -> Outcome:
        """The reply, with the checksum of the request as wrong as it was."""
        old, = struct.unpack_from(">H", frame, l4 + 2)
        changed = frame[:l4] + kind + frame[l4 + 1 :]
        before, = struct.unpack_from(">H", frame, l4)
        after, = struct.unpack_from(">H", changed, l4)
        total = (old ^ 0xFFFF) + (before ^ 0xFFFF) + after
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        made = struct.pack(">H", total ^ 0xFFFF or 0xFFFF)
        changed = changed[: l4 + 2] + made + changed[l4 + 4 :]
        if frame[14] >> 4 == 4:
            ip = changed[14:22] + b"\x40" + changed[23:24] + b"\0\0" + changed[30:34] \
                + changed[26:30] + changed[34:l4]
            ip = summed(ip)
        else:
            ip = changed[14:21] + b"\x40" + changed[38:54] + changed[22:38]
        mac = self.gateways[self.at].mac.to_bytes(6, "big")
        made = frame[6:12] + mac + frame[12:14] + ip + changed[l4:]
        return Outcome(made, self.at, self.port, answer=True)

    def ipv6(self, frame: bytes) -> Outcome:
        """A packet to be routed, or for us."""
        if len(frame) < 54 or frame[14] >> 4 != 6:
            return self.drop(frame, Reason.BAD_IP)
        payload, = struct.unpack_from(">H", frame, 18)
        if 54 + payload > len(frame):
            return self.drop(frame, Reason.BAD_IP)
        source, to = (ipaddress.IPv6Address(frame[k : k + 16]) for k in (22, 38))
        if any(ip in p for ip in (source, to) for p in NOT_SOURCES if p.version == 6):
            return self.drop(frame, Reason.MARTIAN)
        if to in self.everywhere():
            if frame[20] == 58 and payload >= 8 and frame[54:56] == b"\x80\0":
                return self.echo(frame, 54, b"\x81")
            if frame[20] in (6, 17):
                return self.error(frame, 1, 4, Reason.TO_GATEWAY)
            return self.drop(frame, Reason.TO_GATEWAY)
        return self.onward(frame, source, to, frame[21], 40 + payload)

    def onward(self, frame: bytes, source: Ip, to: Ip, ttl: int, length: int) -> Outcome:
        """A packet that is not ours."""
        v4 = to.version == 4
        static = [w for w in self.ways(self.at) if w.via is not None]
        way = self.way(self.at, to)
        if self.is_end(self.at, to) or (to in ipaddress.ip_network("fe80::/10") and not v4):
            return self.drop(frame, Reason.MARTIAN)
        for p in NOT_DESTINATIONS:
            if p.version == to.version and to in p and not any(
                    w.prefix.version == to.version and to in w.prefix
                    and w.prefix.prefixlen >= p.prefixlen for w in static):
                return self.drop(frame, Reason.MARTIAN)
        if way is None:
            return self.error(frame, 3 if v4 else 1, 0, Reason.NO_ROUTE)
        if ttl <= 1:
            return self.error(frame, 11 if v4 else 3, 0, Reason.TTL_EXPIRED)
        if not v4 and source in ipaddress.ip_network("fe80::/10"):
            return self.error(frame, 1, 2, Reason.MARTIAN)
        out = self.gateways[way.network]
        if length > out.mtu:
            return self.error(frame, 3 if v4 else 2, 4 if v4 else 0, Reason.OVER_MTU, out.mtu)
        hop = way.via or to
        mac = self.neighbours.get((way.network, hop))
        if mac is None:
            return self.ask(out, hop)
        if v4:
            size = 4 * (frame[14] & 15)
            ip = frame[14:22] + bytes([ttl - 1]) + frame[23:]
            ip = summed(ip[:size]) + ip[size:]
        else:
            ip = frame[14:21] + bytes([ttl - 1]) + frame[22:]
        macs = mac.to_bytes(6, "big") + out.mac.to_bytes(6, "big")
        return Outcome(macs + frame[12:14] + ip, way.network, out.port)

    def ask(self, out: Gateway, hop: Ip) -> Outcome:
        """The request for the MAC address of a next hop."""
        ours = text(out.mac)
        own = self.speaks_from(out.network, hop)
        if hop.version == 4:
            made = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=ours) / ARP(
                op=1, hwsrc=ours, psrc=str(own), hwdst="00:00:00:00:00:00", pdst=str(hop)))
            return Outcome(made.ljust(60, b"\0"), out.network, out.port)
        last = hop.packed[-3:]
        nodes = ipaddress.IPv6Address(bytes.fromhex("ff02000000000000000000 01ff") + last)
        made = bytes(Ether(dst="33:33:ff:" + last.hex(":"), src=ours)
                     / IPv6(src=str(own), dst=str(nodes), hlim=255) / ICMPv6ND_NS(tgt=str(hop))
                     / ICMPv6NDOptSrcLLAddr(lladdr=ours))
        return Outcome(made, out.network, out.port)

    # ------------------------------------------------------------ errors
    def may_be_about(self, frame: bytes) -> bool:
        """Is a packet one that errors may be about?"""
        if frame[14] >> 4 == 4:
            l4 = 14 + 4 * (frame[14] & 15)
            if struct.unpack_from(">H", frame, 20)[0] & 0x1FFF:
                return False
            return frame[23] != 1 or (
                l4 < len(frame) and frame[l4] not in (3, 4, 5, 11, 12))
        head, protocol, at, fragment = frame[:HEAD], frame[20], 54, False
        while protocol in (0, 43, 44, 60):
            if at + 8 > len(head):
                return False
            length = 8 if protocol == 44 else 8 * (head[at + 1] + 1)
            if at + length > len(head):
                return False
            fragment |= protocol == 44
            protocol, at = head[at], at + length
        if protocol != 58:
            return protocol != 255
        return at < len(head) and not fragment and head[at] >= 128 and head[at] != 137

    def error(self, frame: bytes, kind: int, code: int, reason: Reason, mtu: int = 0) -> Outcome:
        """The packet is dropped and an error is sent, if it may be."""
        v4 = frame[14] >> 4 == 4
        asker = ipaddress.ip_address(frame[26:30] if v4 else frame[22:38])
        own = self.speaks_from(self.at, asker)
        if not self.may_be_about(frame) or own is None:
            return self.drop(frame, reason)
        if v4:
            length, = struct.unpack_from(">H", frame, 16)
            quoted = frame[14 : 14 + length][: HEAD - 42]
            packet = IP(tos=0xC0, id=0, flags="DF", ttl=64, src=str(own), dst=str(asker), proto=1) \
                / Raw(bytes(ICMP(type=kind, code=code, nexthopmtu=mtu) / Raw(quoted))
                      if kind == 3 else bytes(ICMP(type=kind, code=code) / Raw(quoted)))
        else:
            length, = struct.unpack_from(">H", frame, 18)
            quoted = frame[14 : 54 + length][: HEAD - 62]
            packet = IPv6(src=str(own), dst=str(asker), hlim=64, nh=58) / ICMPv6Unknown(
                type=kind, code=code, msgbody=struct.pack(">I", mtu) + quoted)
        return self.reply(packet, frame[6:12])
