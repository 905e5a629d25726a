# SPDX-License-Identifier: Apache-2.0
"""The uplink: a port on which Byway itself has a MAC and an IP address, for its tunnels.

Used by the overlay (overlay.py); uses switch.uplink and ports.tunnel_uplink, whose records it
fills. The workers do what each frame needs; here is what happens once a second or less: whom to
ask for a MAC address, and when to forget it.

Theory of operation
-------------------
A tunnel's *next hop* is the remote host itself, or the gateway where there is one: then everything
goes by way of the gateway. All tunnels with one next hop share its record.

A next hop's address is asked for (ARP, or neighbour discovery) once a second until it is known.
REACHABLE seconds after it was last heard of it is asked again, at the address that is known;
nobody else is disturbed. After PROBES questions without an answer everybody is asked, and after as
many again the address is forgotten: frames are dropped (NO_NEIGHBOUR) instead of being sent to
nobody. So a host that comes back at another MAC address is found within seconds, and one that says
so itself (gratuitous ARP, unsolicited advertisement) at once.

``tick`` answers the frames that are to leave by the uplink's port (or sub-port, which tags them);
who calls it sends them. The headers of tunnels have the tag, since their frames go to the trunk
port at once.

Threads: all of it belongs to the control thread; workers write a next hop's ``mac`` and ``heard``.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.packet.batch import origin_word
from byway.packet.ethernet import BROADCAST, HEADER, MIN_FRAME, VLAN_TAG
from byway.packet.layers import IPV4, IPV6, UDP, VLAN
from byway.packet.nexthop import NEXT_HOP
from byway.packet.tunnels import Remotes, Vnis, words_of
from byway.packet.vxlan import HEADER as VXLAN_HEADER
from byway.packet.vxlan import IP_HEADER, PORT, longest_inner
from byway.ports.tunnel_uplink import WAY
from byway.switch.uplink_answers import UPLINK

ASK_AGAIN = 1.0  # seconds
REACHABLE = 30.0
PROBES = 3
MAX_HOPS = 1 << 14
_DONT_FRAGMENT = 0x4000
_ARP = 0x0806
_ICMPV6, _ND_TTL = 58, 255


@dataclass(frozen=True)
class UplinkAddress:
    """What Byway has on its uplink: ``ip`` of 4 or 16 bytes, ``mac`` of 6; ``mtu`` of IP there.

    ``port``: UDP's, for VXLAN. ``gateway``: by way of whom everything goes, None: all hosts are on
    the link. ``tag``: the VLAN that the uplink is in, 0: none. ``sums``: is UDP's checksum made?
    ``strict``: are datagrams without one not taken? ``dont_fragment``: may routers not cut the
    packets (IPv4; IPv6's never may)?
    """

    ip: bytes
    mac: bytes
    mtu: int
    port: int = PORT
    gateway: bytes | None = None
    tag: int = 0
    sums: bool = False
    strict: bool = False
    dont_fragment: bool = True
    ttl: int = 64

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return 4 if len(self.ip) == 4 else 6


def mac_for(ip: bytes) -> bytes:
    """A MAC address for who has this IP address: locally administered, the same at each start."""
    return b"\x02\xb1" + hashlib.sha256(b"byway uplink " + ip).digest()[:4]


class _Hop:
    """A next hop, and when it was asked for."""

    def __init__(self, ip: bytes, number: int) -> None:
        self.ip = ip
        self.number = number
        self.users = 0
        self.asked: float | None = None
        self.confirmed = 0.0
        self.heard = 0
        self.probes = 0


class Uplink:
    """The uplink of one switch.

    ``number``, ``network``: of its port in plans, or of a trunk's sub-port.
    ``settle`` returns when every worker has ended the pass it is in. ``address`` is that of the
    stage's record (switch.stages).
    """

    def __init__(self, own: UplinkAddress, number: int, network: int, vnis: Vnis,
                 remotes: Remotes, settle: Callable[[], None]) -> None:
        if len(own.mac) != 6 or own.mac[0] & 1 or not any(own.mac):
            raise ValueError(f"{own.mac.hex(':')} is no address of one station")
        if own.gateway is not None and len(own.gateway) != len(own.ip):
            raise ValueError("the gateway's address is of another version of IP")
        self.own = own
        self._settle = settle
        self._hops: dict[bytes, _Hop] = {}
        self._free = list(range(MAX_HOPS - 1, -1, -1))
        self._table = Remotes(settle)
        self._records = alloc(NEXT_HOP, MAX_HOPS, CACHE_LINE)  # given page by page where used
        self._ways: dict[bytes, tuple[Any, Any, _Hop]] = {}
        self.record = alloc(UPLINK, 1, CACHE_LINE)
        row = self.record[0]
        row["mac"] = int.from_bytes(own.mac, "big")
        row["high"], row["low"] = words_of(own.ip)
        row["origin"] = origin_word(network, number)
        row["udp_port"], row["strict"] = own.port, own.strict
        row["vnis"], row["remotes"] = vnis.address, remotes.address
        row["hops"], row["nexthops"] = self._table.address, address_of(self._records)
        self.address = address_of(self.record)

    # ------------------------------------------------------------ tunnels
    def way(self, remote: bytes, counters: int) -> int:
        """How frames get to a remote host (4 or 16 bytes of IP address); what goes there is counted
        in the COUNTERS at ``counters``. -> the address of its WAY, for the tunnel's stages."""
        if len(remote) != len(self.own.ip):
            raise ValueError(f"a host with an address of {len(remote)} bytes, and an uplink with"
                             f" one of {len(self.own.ip)}")
        if remote in self._ways:
            self.drop(remote)
        hop = self._hop(self.own.gateway or remote)
        template = np.frombuffer(self._headers(remote), np.uint8).copy()
        record = alloc(WAY, 1, CACHE_LINE)
        row, own = record[0], self.own
        row["template"], row["overhead"] = address_of(template), len(template)
        row["l3"] = HEADER + (VLAN_TAG if own.tag else 0)
        row["l4"] = int(row["l3"]) + IP_HEADER[own.version]
        row["version"], row["tx"] = own.version, counters
        row["hop"] = address_of(self._records[hop.number:])
        row["longest"] = longest_inner(own.mtu, own.version)
        row["sums"] = own.sums
        row["numbered"] = own.version == 4 and not own.dont_fragment
        hop.users += 1
        self._ways[remote] = record, template, hop
        return address_of(record)

    def drop(self, remote: bytes) -> None:
        """Nothing goes to this host any more: no worker uses its WAY. Idempotent."""
        if (way := self._ways.pop(remote, None)) is None:
            return
        hop = way[2]
        hop.users -= 1
        if hop.users == 0:
            self._table.drop(hop.ip)
            self._settle()  # nobody is about to write to the record
            self._records[hop.number] = 0
            self._free.append(hop.number)
            del self._hops[hop.ip]

    def _hop(self, ip: bytes) -> _Hop:
        if ip not in self._hops:
            hop = self._hops[ip] = _Hop(ip, self._free.pop())
            self._table.set(ip, hop.number)
        return self._hops[ip]

    def neighbours(self) -> dict[bytes, bytes | None]:
        """The next hops by IP address, with their MAC addresses (None: not known)."""
        return {ip: self._mac(hop) for ip, hop in self._hops.items()}

    def _mac(self, hop: _Hop) -> bytes | None:
        mac = int(self._records[hop.number]["mac"])
        return mac.to_bytes(6, "big") if mac else None

    # ------------------------------------------------------------ neighbours
    def tick(self, now: float, most: int = 64) -> list[bytes]:
        """What is to be sent at a time (seconds, any clock that only goes on), at most so many
        frames: once a second, and when there is another way. Who waits longest is first."""
        frames: list[bytes] = []
        for hop in sorted(self._hops.values(), key=lambda hop: hop.asked or 0.0):
            if len(frames) == most:
                break
            if frame := self._question(hop, now):
                frames.append(frame)
        return frames

    def _question(self, hop: _Hop, now: float) -> bytes | None:
        record = self._records[hop.number]
        if int(record["heard"]) != hop.heard:
            hop.heard, hop.confirmed, hop.probes = int(record["heard"]), now, 0
        mac = self._mac(hop)
        if hop.asked is not None and now - hop.asked < ASK_AGAIN:
            return None
        if mac is not None and now - hop.confirmed < REACHABLE:
            return None
        if mac is not None and hop.probes == 2 * PROBES:
            record["mac"] = 0
            mac = None
        hop.asked = now
        hop.probes += mac is not None
        return self._ask(hop.ip, mac if hop.probes <= PROBES else None)

    def _ask(self, ip: bytes, mac: bytes | None) -> bytes:
        """A question for a next hop's address: to ``mac``, or to all."""
        if self.own.version == 4:
            return self._ethernet(mac or BROADCAST, _ARP, _arp(self.own.mac, self.own.ip, ip))
        group = b"\xff\x02" + bytes(9) + b"\x01\xff" + ip[-3:]
        message = _solicitation(self.own.mac, self.own.ip, ip, ip if mac else group)
        return self._ethernet(mac or b"\x33\x33\xff" + ip[-3:], IPV6, message)

    def announcement(self) -> bytes:
        """The frame that tells the link where the own address is now: gratuitous ARP (RFC 5227, 3)
        or an unsolicited advertisement (RFC 4861, 7.2.6)."""
        own = self.own
        if own.version == 4:
            return self._ethernet(BROADCAST, _ARP, _arp(own.mac, own.ip, own.ip))
        everybody = b"\xff\x02" + bytes(13) + b"\x01"
        body = b"\x20\0\0\0" + own.ip + b"\x02\x01" + own.mac  # override; target link-layer address
        return self._ethernet(b"\x33\x33\0\0\0\x01", IPV6,
                              _icmpv6(136, own.ip, everybody, body))

    # ------------------------------------------------------------ bytes
    def _ethernet(self, destination: bytes, kind: int, payload: bytes) -> bytes:
        """A frame as it is given to the port, or sub-port: a tag is the trunk's to put on."""
        return (destination + self.own.mac + struct.pack(">H", kind) + payload).ljust(
            MIN_FRAME, b"\0")

    def _headers(self, remote: bytes) -> bytes:
        """The outer headers to a host, as far as they are the same for all frames."""
        own = self.own
        udp = struct.pack(">HHHH", 0, own.port, 0, 0)
        if own.version == 4:
            flags = _DONT_FRAGMENT if own.dont_fragment else 0
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, flags, own.ttl, UDP, 0)
        else:
            ip = struct.pack(">IHBB", 6 << 28, 0, UDP, own.ttl)
        tag = struct.pack(">HH", VLAN, own.tag) if own.tag else b""
        kind = struct.pack(">H", IPV4 if own.version == 4 else IPV6)
        ethernet = bytes(6) + own.mac + tag + kind
        return ethernet + ip + own.ip + remote + udp + bytes(VXLAN_HEADER)


def _arp(mac: bytes, own: bytes, wanted: bytes) -> bytes:
    """An ARP request (RFC 826)."""
    return struct.pack(">HHBBH", 1, IPV4, 6, 4, 1) + mac + own + bytes(6) + wanted


def _solicitation(mac: bytes, own: bytes, wanted: bytes, destination: bytes) -> bytes:
    """A neighbour solicitation in IPv6 (RFC 4861, 4.3)."""
    return _icmpv6(135, own, destination, bytes(4) + wanted + b"\x01\x01" + mac)


def _icmpv6(kind: int, source: bytes, destination: bytes, body: bytes) -> bytes:
    """A message of neighbour discovery with its IPv6 header."""
    message = bytes([kind, 0, 0, 0]) + body
    pseudo = source + destination + struct.pack(">II", len(message), _ICMPV6)
    words = struct.unpack(f">{(len(pseudo) + len(message)) // 2}H", pseudo + message)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = struct.pack(">IHBB", 6 << 28, len(message), _ICMPV6, _ND_TTL) + source + destination
    return header + message[:2] + struct.pack(">H", total ^ 0xFFFF) + message[4:]
