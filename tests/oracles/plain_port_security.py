# SPDX-License-Identifier: Apache-2.0
"""Port security in plain Python that reads frames from front to back: what the kernels are held
against. Used by test_port_security.py."""

import ipaddress
from collections.abc import Sequence

from byway.packet.reason import Reason

HEAD = 128  # bytes of a frame that the switch looks at
Pairs = Sequence[tuple[int, str | None]]


class Naive:
    """One port's rules, as sets of prefixes by MAC address."""

    def __init__(self, pairs: Pairs, trusted: Sequence[str]) -> None:
        self.trusted = trusted
        self.prefixes: dict[bytes, list[object]] = {}
        for mac, prefix in pairs:
            octets = mac.to_bytes(6, "big")
            host = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
            own = self.prefixes.setdefault(octets, [])
            own.append(ipaddress.ip_network(b"\xfe\x80" + bytes(6) + host))
            own.append(None if prefix is None else ipaddress.ip_network(prefix, strict=False))

    def has(self, mac: bytes, ip: bytes) -> bool:
        address = ipaddress.ip_address(ip)
        return any(p is None or (p.version == address.version and address in p)
                   for p in self.prefixes.get(mac, []))

    def verdict(self, frame: bytes) -> Reason | None:
        frame = frame[:HEAD]
        if len(frame) < 14:
            return None
        mac, at = frame[6:12], 12
        if mac not in self.prefixes:
            return Reason.SPOOFED_MAC
        tags = 0
        while tags < 2 and frame[at : at + 2] in (b"\x81\0", b"\x88\xa8") and len(frame) >= at + 6:
            tags, at = tags + 1, at + 4
        kind, rest = frame[at : at + 2], frame[at + 2 :]
        if kind == b"\x08\x06":
            return self.arp(rest)
        if kind == b"\x08\0":
            return self.ipv4(mac, rest)
        if kind == b"\x86\xdd":
            return self.ipv6(mac, rest)
        snap = rest[:3] == b"\xaa\xaa\3" and rest[3:6] in (bytes(3), b"\0\0\xf8") and len(rest) > 7
        hidden = kind in (b"\x81\0", b"\x88\xa8", b"\x91\0") or (kind < b"\6\0" and snap)
        return Reason.HIDDEN_HEADER if hidden else None

    def arp(self, arp: bytes) -> Reason | None:
        if len(arp) < 28 or arp[:6] != b"\0\1\x08\0\6\4":
            return Reason.SPOOFED_ARP
        sender, ip = arp[8:14], arp[14:18]
        if ip == bytes(4) and arp[6:8] == b"\0\1":
            ip = arp[24:28]
        return None if self.has(sender, ip) else Reason.SPOOFED_ARP

    def ipv4(self, mac: bytes, ip: bytes) -> Reason | None:
        if len(ip) < 20 or ip[0] >> 4 != 4 or ip[0] & 15 < 5:
            return Reason.SPOOFED_IP
        ip = ip[: int.from_bytes(ip[2:4], "big")]  # what is behind is padding
        if len(ip) < 20:
            return Reason.SPOOFED_IP
        source, ports = ip[12:16], (0, 0)
        if ip[9] == 17 and (ip[6] & 31, ip[7]) == (0, 0):
            udp = ip[4 * (ip[0] & 15) :]
            if len(udp) < 4:
                return Reason.HIDDEN_HEADER
            ports = int.from_bytes(udp[:2], "big"), int.from_bytes(udp[2:4], "big")
            if (ports[0] == 67 or ports[1] == 68) and "dhcp" not in self.trusted:
                return Reason.DHCP_SERVER
        if (source == bytes(4) and ports == (68, 67)) or self.has(mac, source):
            return None
        return Reason.SPOOFED_IP

    def ipv6(self, mac: bytes, ip: bytes) -> Reason | None:
        if len(ip) < 40 or ip[0] >> 4 != 6:
            return Reason.SPOOFED_IP
        rest = ip[40 : 40 + int.from_bytes(ip[4:6], "big")]  # what is behind is padding
        source, kind, later = ip[8:24], ip[6], False
        while kind in (0, 43, 44, 51, 60, 135, 139, 140) and not later:
            if len(rest) < 8:
                return Reason.HIDDEN_HEADER
            if kind == 44 and int.from_bytes(rest[2:4], "big") >= 8:
                later = True
                break
            n = 8 if kind == 44 else 4 * rest[1] + 8 if kind == 51 else 8 * rest[1] + 8
            if len(rest) < n:
                return Reason.HIDDEN_HEADER
            kind, rest = rest[0], rest[n:]
        if not later and kind == 255:  # reserved (IANA); Byway's word for "it does not show"
            return Reason.HIDDEN_HEADER
        if not later and kind in (17, 58) and len(rest) < 4:
            return Reason.HIDDEN_HEADER
        icmp = rest[0] if not later and kind == 58 else -1
        if icmp == 134 and "ra" not in self.trusted:
            return Reason.ROUTER_ADVERT
        if icmp in (133, 135, 136) and not self.nd(mac, ip, source, rest):
            return Reason.SPOOFED_ARP
        if not later and kind == 17 and "dhcp" not in self.trusted and (
                rest[:2] == b"\2\x23" or rest[2:4] == b"\2\x22"):
            return Reason.DHCP_SERVER
        if source == bytes(16):
            return None if icmp in (131, 132, 133, 135, 143) else Reason.SPOOFED_IP
        if source[:12] == bytes(10) + b"\xff\xff":
            return Reason.SPOOFED_IP
        return None if self.has(mac, source) else Reason.SPOOFED_IP

    def nd(self, mac: bytes, ip: bytes, source: bytes, message: bytes) -> bool:
        kind, end = message[0], 40 + int.from_bytes(ip[4:6], "big")
        fixed = 8 if kind == 133 else 24
        if end > len(ip) or len(message) < fixed:
            return False
        named, options = set(), message[fixed:]
        while options:
            if len(options) < 2 or options[1] == 0 or len(options) < 8 * options[1]:
                return False
            if options[0] == (2 if kind == 136 else 1):
                named.add(options[2:8])
            options = options[8 * options[1] :]
        if len(named) > 1 or bytes(6) in named:
            return False
        who = named.pop() if named else mac
        if kind == 136 or (kind == 135 and source == bytes(16)):
            return self.has(who, message[8:24])
        if source == bytes(16):
            return who == mac
        return self.has(who, source)
