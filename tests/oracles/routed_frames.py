# SPDX-License-Identifier: Apache-2.0
"""Frames of all kinds that a router distinguishes, drawn at random.

Used by test_router.py and the hostile test of the router.
"""

import ipaddress
import random
import struct
from collections.abc import Sequence

from byway.testing.frames import checksum

MAC = 0x020000000001  # a gateway's
GUEST = 0x020000000100

IPV4 = ["10.0.0.2", "10.0.0.1", "10.0.1.1", "10.0.1.2", "10.0.1.9", "10.0.9.2", "10.0.9.3",
        "10.0.1.255", "10.0.0.0", "10.5.1.1", "10.5.6.7", "8.8.8.8", "172.16.0.1", "172.16.5.5",
        "172.17.0.1", "127.0.0.1", "224.0.0.5", "255.255.255.255", "0.0.0.0", "169.254.169.254",
        "240.0.0.1", "0.1.2.3"]
IPV6 = ["fd00:1::2", "fd00:1::1", "fd00:2::1", "fd00:2::2", "fd00:2::9", "fd00:5::1", "2001:db8::1",
        "fe80::ff:fe00:1", "fe80::1", "ff02::1", "ff02::1:ff00:1", "ff0e::5", "::", "::1",
        "::ffff:10.0.1.2"]
GUESTS4 = ["10.0.0.2", "172.16.5.5", "192.0.2.7"]
GUESTS6 = ["fd00:1::2", "2001:db8:9::1", "fe80::2"]


def often(r: random.Random, likely: Sequence[str], all_: Sequence[str]) -> bytes:
    """One of the likely texts, or any, as an address."""
    return ipaddress.ip_address(r.choice(likely if r.random() < 0.8 else all_)).packed


def number(mac: int) -> bytes:
    """A MAC address."""
    return mac.to_bytes(6, "big")


def text(mac: int) -> str:
    """A MAC address as scapy writes it."""
    return number(mac).hex(":")


def summed(header: bytes) -> bytes:
    """An IPv4 header with its checksum."""
    header = header[:10] + bytes(2) + header[12:]
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:]


def payload(r: random.Random) -> bytes:
    """What is behind IP: of any length."""
    return r.randbytes(r.choice([0, 4, 8, 20, 60, 100, 300, 560, 572, 580, 700, 1240, 1460, 1480]))


def transport(r: random.Random, protocol: int, source: bytes, to: bytes) -> bytes:
    """A header and data of a protocol."""
    if protocol == 1:
        made = bytes([r.choice([8, 8, 8, 0, 3, 5, 11, 13, 200]), r.choice([0, 0, 0, 1]), 0, 0])
        made += payload(r)
        return made[:2] + struct.pack(">H", checksum(made)) + made[4:]
    if protocol == 58:
        made = bytes([r.choice([128, 128, 128, 129, 1, 2, 4, 100, 137]), r.choice([0, 0, 1]), 0, 0])
        made += payload(r)
        return icmpv6(made, source, to)
    return payload(r)


def icmpv6(message: bytes, source: bytes, to: bytes) -> bytes:
    """The message with its checksum."""
    pseudo = source + to + struct.pack(">II", len(message), 58)
    return message[:2] + struct.pack(">H", checksum(pseudo + message)) + message[4:]


def options(r: random.Random) -> bytes:
    """IPv4 options: mostly none."""
    if r.random() < 0.8:
        return b""
    made = b"".join(r.choice([b"\x01", b"\x07\x07\x04" + bytes(4), b"\x94\x04\0\0", b"\x83\x07\x04"
                              + bytes(4), b"\x89\x03\x04", b"\x44\x08\x05" + bytes(5), b"\x07\x01",
                              b"\x07\xff", b"\0"]) for _ in range(r.randrange(4)))[:40]
    return made + bytes(-len(made) % 4)


def ipv4(r: random.Random) -> bytes:
    """A packet."""
    chosen = options(r)
    protocol = r.choice([6, 17, 1, 1, 47, 89])
    source, to = often(r, GUESTS4, IPV4), often(r, IPV4[:15], IPV4)
    data = transport(r, protocol, source, to)
    size = 20 + len(chosen)
    fragment = r.choice([0] * 6 + [0x4000, 0x2000, 0x2010, 0x10, 0x8000])
    total = size + len(data) + r.choice([0] * 12 + [-1, 1, -len(data), -size])
    header = struct.pack(">BBHHHBBH4s4s", 0x40 | size // 4, 0, max(0, total), r.randrange(65536),
                         fragment, r.choice([64, 64, 64, 255, 2, 1, 0]), protocol, 0, source, to)
    return summed(header + chosen) + data


def ipv6(r: random.Random) -> bytes:
    """A packet."""
    protocol = r.choice([6, 17, 58, 58, 58, 89])
    source, to = often(r, GUESTS6, IPV6), often(r, ["fd00:1::1", *IPV6[:9]], IPV6)
    data = transport(r, protocol, source, to)
    chain = b""
    kind = protocol
    for _ in range(r.choice([0, 0, 0, 0, 1, 2])):
        header = r.choice([0, 43, 44, 60])
        length = 8 if header == 44 else r.choice([8, 8, 16, 80])
        chain = bytes([kind, 0 if header == 44 else length // 8 - 1]) + r.randbytes(length - 2) \
            + chain
        kind = header
    length = len(chain) + len(data) + r.choice([0] * 12 + [-1, 1, -len(data)])
    return struct.pack(">IHBB", 6 << 28 | r.randrange(1 << 28), max(0, length), kind,
                       r.choice([64, 64, 64, 255, 2, 1, 0])) + source + to + chain + data


def discovery(r: random.Random) -> bytes:
    """A message of neighbour discovery."""
    kind = r.choice([135] * 5 + [136, 136, 133, 134, 137])
    source = often(r, [*GUESTS6, "::"], IPV6)
    target = often(r, ["fd00:1::1", "fd00:1::1", "fe80::ff:fe00:1", "fd00:1::9"], IPV6)
    to = r.choice([target, bytes.fromhex("ff02000000000000000000 01ff") + target[-3:],
                   ipaddress.ip_address("ff02::1").packed])
    flags = r.choice([0, 0, 0x40, 0x60, 0xE0])
    message = bytes([kind, r.choice([0] * 9 + [1]), 0, 0, flags, 0, 0, 0]) + target
    message += b"".join(bytes([r.choice([1, 2, 14]), r.choice([1] * 9 + [2, 0])]) + r.randbytes(6)
                        for _ in range(r.choice([0, 0, 1, 1, 1, 2, 7])))
    message = icmpv6(message, source, to)
    length = len(message) + r.choice([0] * 9 + [-1, 8, -8])
    return struct.pack(">IHBB", 6 << 28, max(0, length), 58, r.choice([255] * 9 + [64])) \
        + source + to + message


def arp(r: random.Random, gateway: int) -> bytes:
    """A message."""
    header = struct.pack(">HHBBH", r.choice([1] * 9 + [6]), 0x800, 6, r.choice([4] * 9 + [16]),
                         r.choice([1, 1, 1, 2, 2, 3]))
    return header + number(r.choice([GUEST, GUEST, gateway])) + often(r, GUESTS4, IPV4) + bytes(6) \
        + often(r, IPV4[:4], IPV4) + bytes(r.choice([0, 18]))


def frame(r: random.Random, gateway: int) -> bytes:
    """A frame, most of them to the gateway at MAC address ``gateway``, some of them spoiled."""
    kind = r.choice([0x800] * 5 + [0x86DD] * 5 + [0x806] * 2 + [0xDD] * 3 + [0x8100])
    if kind == 0x800:
        content = ipv4(r)
    elif kind == 0x86DD:
        content = ipv6(r)
    elif kind == 0xDD:
        kind, content = 0x86DD, discovery(r)
    else:
        content = arp(r, gateway)
    to = number(gateway)
    asks = content[:1] == b"\0" or (kind == 0x86DD and content[7:8] == b"\xff")
    if r.random() < (0.5 if asks else 0.03):
        to = r.choice([b"\xff" * 6, bytes.fromhex("3333ff000001"), number(GUEST + 1)])
    source = r.choice([number(GUEST)] * 40 + [number(gateway), bytes(6), b"\x03" + bytes(5)])
    made = to + source + struct.pack(">H", kind) + content
    if r.random() < 0.5:
        made = made.ljust(60, b"\0")
    if r.random() < 0.1:
        made = made[: r.randrange(1, len(made) + 1)]
    if r.random() < 0.1:
        at = r.randrange(min(len(made), 90))
        made = made[:at] + bytes([r.randrange(256)]) + made[at + 1 :]
    return made
