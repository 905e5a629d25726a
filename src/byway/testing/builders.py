# SPDX-License-Identifier: Apache-2.0
"""Frames by name, for tests of network functions: lengths and checksums are right.

    from byway.testing.builders import tcp, udp, vxlan

    tcp("10.0.0.1", "10.0.0.2", sport=40000, dport=80, flags="S")
    udp("fd00::1", "fd00::2", data=b"hello", vlan=(5,))
    vxlan(tcp("192.168.0.1", "192.168.0.2"), vni=7)

Used by authors' tests, by generated.py and by `byway nf bench`. Plain Python, nothing compiled.
IP addresses are text (IPv4 or IPv6: both of a frame the same), MAC addresses text. Every builder
takes the options of ``Outside``. Frames are padded to 60 bytes, as a network card would.
RFC 791, 792, 768, 826, 2784, 4443, 7348, 8200, 8926, 9293; IEEE 802.1Q.
"""

import ipaddress
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from byway.packet.pcapfile import read_frames
from byway.testing.frames import checksum, mac

ICMP, TCP, UDP, GRE, ICMPV6, FRAGMENT = 1, 6, 17, 47, 58, 44
VLAN, ARP, IPV4, IPV6, BRIDGED = 0x8100, 0x0806, 0x0800, 0x86DD, 0x6558
VXLAN_PORT, GENEVE_PORT = 4789, 6081
ETH_SRC, ETH_DST = "02:00:00:00:00:01", "02:00:00:00:00:02"
SRC, DST = "10.0.0.1", "10.0.0.2"
MIN_FRAME = 60
# The letters of TCP's flags, lowest bit first (RFC 9293, 3.1; RFC 3168).
FLAGS = "FSRPAUEC"
ECHO_REQUEST, ECHO_REPLY, UNREACHABLE = 8, 0, 3


class Outside(TypedDict, total=False):
    """What may be said of any frame: its Ethernet header, its VLAN tags from the outermost (ids, or
    whole tag control words), and what stands in its IP header."""

    eth_src: str
    eth_dst: str
    vlan: Sequence[int]
    ttl: int
    ident: int
    dscp: int
    ecn: int
    options: bytes
    extensions: Sequence[tuple[int, bytes]]


def ethernet(payload: bytes, ethertype: int, **outside: Unpack[Outside]) -> bytes:
    """Any payload in an Ethernet frame, with its VLAN tags."""
    tags = b"".join(struct.pack(">HH", VLAN, tag) for tag in outside.get("vlan", ()))
    frame = (mac(outside.get("eth_dst", ETH_DST)) + mac(outside.get("eth_src", ETH_SRC)) + tags
             + struct.pack(">H", ethertype) + payload)
    return frame.ljust(MIN_FRAME, b"\0")


def ip_packet(src: str, dst: str, protocol: int, body: bytes, *,
              fragment: tuple[int, bool] | None = None, **outside: Unpack[Outside]) -> bytes:
    """An IP packet. ``fragment``: (offset in bytes, whether more follow) of a piece.

    ``options``: IPv4's, a multiple of 4 bytes. ``extensions``: IPv6's headers in order, each with
    its number and what follows its first byte. ValueError where the addresses do not fit.
    """
    source, destination = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    if source.version != destination.version:
        raise ValueError(f"{src} and {dst} are not of the same IP version")
    traffic = outside.get("dscp", 0) << 2 | outside.get("ecn", 0)
    if source.version == 6:
        return _ipv6(source.packed + destination.packed, protocol, body, fragment, traffic, outside)
    options = outside.get("options", b"")
    offset, more = fragment or (0, False)
    header = struct.pack(
        ">BBHHHBBH", 0x45 + len(options) // 4, traffic, 20 + len(options) + len(body),
        outside.get("ident", 1), offset >> 3 | more << 13, outside.get("ttl", 64), protocol, 0,
    ) + source.packed + destination.packed + options
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + body


def _ipv6(addresses: bytes, protocol: int, body: bytes, fragment: tuple[int, bool] | None,
          traffic: int, outside: Outside) -> bytes:
    chain = list(outside.get("extensions", ()))
    if fragment:
        chain.append((FRAGMENT, struct.pack(">BHI", 0, fragment[0] | fragment[1],
                                            outside.get("ident", 1))))
    kinds = [number for number, _ in chain] + [protocol]
    between = b"".join(bytes([kinds[k + 1]]) + rest for k, (_, rest) in enumerate(chain))
    return struct.pack(">IHBB", 6 << 28 | traffic << 20, len(between) + len(body), kinds[0],
                       outside.get("ttl", 64)) + addresses + between + body


def ip(src: str, dst: str, protocol: int, body: bytes, *,
       fragment: tuple[int, bool] | None = None, **outside: Unpack[Outside]) -> bytes:
    """A frame with an IP packet of any protocol, or with a piece of one."""
    version = ipaddress.ip_address(src).version
    packet = ip_packet(src, dst, protocol, body, fragment=fragment, **outside)
    return ethernet(packet, IPV4 if version == 4 else IPV6, **outside)


def _summed(src: str, dst: str, protocol: int, body: bytes, at: int) -> bytes:
    """The body with its checksum, over the pseudo-header too, written at ``at``."""
    addresses = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed
    value = checksum(addresses + struct.pack(">II", len(body), protocol) + body)
    if protocol == UDP and value == 0:
        value = 0xFFFF
    return body[:at] + struct.pack(">H", value) + body[at + 2:]


def tcp(src: str = SRC, dst: str = DST, sport: int = 40000, dport: int = 80, flags: str = "A",
        data: bytes = b"", *, seq: int = 1, ack: int = 1, window: int = 8192,
        tcp_options: bytes = b"", **outside: Unpack[Outside]) -> bytes:
    """A TCP segment; ``flags`` of "FSRPAUEC"; ``tcp_options``: a multiple of 4 bytes."""
    bits = sum(1 << FLAGS.index(letter) for letter in flags)
    body = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, (5 + len(tcp_options) // 4) << 4,
                       bits, window, 0, 0) + tcp_options + data
    return ip(src, dst, TCP, _summed(src, dst, TCP, body, 16), **outside)


def udp(src: str = SRC, dst: str = DST, sport: int = 40000, dport: int = 53,
        data: bytes = b"byway", **outside: Unpack[Outside]) -> bytes:
    """A UDP datagram."""
    body = struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data
    return ip(src, dst, UDP, _summed(src, dst, UDP, body, 6), **outside)


def icmp(src: str = SRC, dst: str = DST, kind: int = ECHO_REQUEST, code: int = 0,
         number: int = 1, seq: int = 1, data: bytes = b"byway",
         **outside: Unpack[Outside]) -> bytes:
    """An ICMP message; an echo request unless told otherwise."""
    body = struct.pack(">BBHHH", kind, code, 0, number, seq) + data
    return ip(src, dst, ICMP, body[:2] + struct.pack(">H", checksum(body)) + body[4:], **outside)


def icmp_error(src: str, about: bytes, kind: int = UNREACHABLE, code: int = 3, mtu: int = 0,
               octets: int = 64, **outside: Unpack[Outside]) -> bytes:
    """The ICMP or ICMPv6 error that a router at ``src`` sends about the frame ``about`` (IP, no
    tags) to whom it came from; it quotes ``octets`` bytes of it. ICMPv6 has other kinds."""
    packet = about[14:]
    if packet[0] >> 4 == 4:
        dst = str(ipaddress.IPv4Address(packet[12:16]))
        return icmp(src, dst, kind, code, 0, mtu, packet[:octets], **outside)
    dst = str(ipaddress.IPv6Address(packet[8:24]))
    return icmpv6(src, dst, kind, code, mtu >> 16, mtu & 0xFFFF, packet[:octets], **outside)


def icmpv6(src: str = "fd00::1", dst: str = "fd00::2", kind: int = 128, code: int = 0,
           number: int = 1, seq: int = 1, data: bytes = b"byway",
           **outside: Unpack[Outside]) -> bytes:
    """An ICMPv6 message; an echo request unless told otherwise."""
    body = struct.pack(">BBHHH", kind, code, 0, number, seq) + data
    return ip(src, dst, ICMPV6, _summed(src, dst, ICMPV6, body, 2), **outside)


def arp(sender_ip: str = SRC, target_ip: str = DST, op: int = 1, sender_mac: str = ETH_SRC,
        target_mac: str = "00:00:00:00:00:00", **outside: Unpack[Outside]) -> bytes:
    """An ARP message: a request (1, to everybody) or a reply (2)."""
    body = (struct.pack(">HHBBH", 1, IPV4, 6, 4, op) + mac(sender_mac)
            + ipaddress.IPv4Address(sender_ip).packed + mac(target_mac)
            + ipaddress.IPv4Address(target_ip).packed)
    if "eth_dst" not in outside and op == 1:
        outside["eth_dst"] = "ff:ff:ff:ff:ff:ff"
    return ethernet(body, ARP, **outside)


def vxlan(inner: bytes, vni: int = 7, src: str = "192.0.2.1", dst: str = "192.0.2.2",
          sport: int = 50000, **outside: Unpack[Outside]) -> bytes:
    """A frame in VXLAN (RFC 7348)."""
    return udp(src, dst, sport, VXLAN_PORT, struct.pack(">II", 0x08 << 24, vni << 8) + inner,
               **outside)


def geneve(inner: bytes, vni: int = 7, src: str = "192.0.2.1", dst: str = "192.0.2.2",
           sport: int = 50000, geneve_options: bytes = b"", **outside: Unpack[Outside]) -> bytes:
    """A frame in Geneve (RFC 8926); its options are a multiple of 4 bytes."""
    header = struct.pack(">BBHI", len(geneve_options) // 4, 0, BRIDGED, vni << 8) + geneve_options
    return udp(src, dst, sport, GENEVE_PORT, header + inner, **outside)


def gre(inner: bytes, src: str = "192.0.2.1", dst: str = "192.0.2.2", *,
        ethertype: int = BRIDGED, key: int | None = None, **outside: Unpack[Outside]) -> bytes:
    """A frame in GRE (RFC 2784; a key: RFC 2890), or what ``ethertype`` says ``inner`` is."""
    header = struct.pack(">HH", 0x2000 if key is not None else 0, ethertype)
    if key is not None:
        header += struct.pack(">I", key)
    return ip(src, dst, GRE, header + inner, **outside)


def from_pcap(path: str | Path) -> list[bytes]:
    """The frames of a capture file. PcapError: it is none; OSError: it cannot be read."""
    return list(read_frames(Path(path)))
