# SPDX-License-Identifier: Apache-2.0
"""Frames that nobody would write down: what a network function has to live with.

    for frame in generated(5000, seed=1): ...

Used by `byway nf check` and by tests of network functions. The same seed gives the same frames. Of
three frames one is right; one is nearly right: some bytes are changed, mostly those that say how
long something is or what follows it; one is cut, in each header of each shape in turn. Addresses
and ports are few, so that tables get hits; frames have 14 bytes at least, as the switch sees to.
"""

import random
import struct
from collections.abc import Callable, Iterator

from byway.testing import builders

MIN_FRAME = 14
HEADERS = 128  # bytes of a frame in which headers are looked for
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01")
V4 = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.9.3.4", "192.0.2.1", "0.0.0.0", "255.255.255.255",
      "224.0.0.1", "127.0.0.1")
V6 = ("fd00::1", "fd00::2", "fd01::9", "fe80::1", "::", "ff02::1", "64:ff9b::a00:1",
      "::ffff:10.0.0.1")
PORTS = (0, 1, 53, 67, 68, 80, 443, 4789, 6081, 40000, 40001, 65535)
TAGS = ((), (), (), (), (5,), (0x6005,), (5, 6), (5, 6, 7))
FLAGS = ("S", "S", "SA", "A", "A", "PA", "FA", "R", "RA", "", "SFRPAUEC")
SIZES = (0, 0, 1, 5, 18, 64, 100, 500, 1400)
BYTES = (0, 1, 2, 4, 5, 6, 8, 15, 16, 17, 44, 47, 58, 60, 127, 128, 253, 254, 255)
IPV4_OPTIONS = (b"", b"", b"", b"\x01\x01\x01\x00", b"\x44\x04\x05\x00" + bytes(36))
EXTENSIONS = ((), (), (), ((0, bytes([0]) + bytes(6)),), ((60, bytes([1]) + bytes(14)),),
              ((43, bytes([0]) + bytes(6)), (60, bytes([0]) + bytes(6))))
DNS_QUERY = (struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0)
             + b"\x03www\x07example\x03org\x00" + struct.pack(">HH", 1, 1))
DHCP_DISCOVER = (struct.pack(">BBBBI", 1, 1, 6, 0, 99) + bytes(20) + bytes.fromhex("020000000001")
                 + bytes(202) + b"\x63\x82\x53\x63\x35\x01\x01\xff")


def _number(rng: random.Random, bits: int) -> int:
    """Any number of so many bits, the lowest and the highest ones more often."""
    most = (1 << bits) - 1
    return rng.choice((0, 1, most, rng.randint(0, most), rng.randint(0, most)))


def _outside(rng: random.Random) -> builders.Outside:
    return {"eth_src": rng.choice(MACS[:3]), "eth_dst": rng.choice(MACS), "vlan": rng.choice(TAGS),
            "ttl": rng.choice((0, 1, 2, 64, 64, 64, 255)), "ident": _number(rng, 16),
            "dscp": rng.choice((0, 0, 46, 63)), "ecn": rng.choice((0, 0, 1, 3)),
            "options": rng.choice(IPV4_OPTIONS), "extensions": rng.choice(EXTENSIONS)}


def _addresses(rng: random.Random) -> tuple[str, str]:
    known = V4 if rng.random() < 0.6 else V6
    return rng.choice(known), rng.choice(known)


def _data(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice(SIZES))


def _tcp(rng: random.Random) -> bytes:
    src, dst = _addresses(rng)
    return builders.tcp(src, dst, rng.choice(PORTS), rng.choice(PORTS), rng.choice(FLAGS),
                        _data(rng), seq=_number(rng, 32), ack=_number(rng, 32),
                        window=_number(rng, 16),
                        tcp_options=rng.choice((b"", b"\x02\x04\x05\xb4", bytes(40))),
                        **_outside(rng))


def _udp(rng: random.Random) -> bytes:
    src, dst = _addresses(rng)
    return builders.udp(src, dst, rng.choice(PORTS), rng.choice(PORTS), _data(rng),
                        **_outside(rng))


def _without_sum(rng: random.Random) -> bytes:
    """UDP over IPv4 whose sender made no checksum: the field is 0 and has to stay so."""
    frame = bytearray(builders.udp(rng.choice(V4), rng.choice(V4), rng.choice(PORTS),
                                   rng.choice(PORTS), _data(rng)))
    frame[40:42] = bytes(2)
    return bytes(frame)


def _dns(rng: random.Random) -> bytes:
    src, dst = _addresses(rng)
    return builders.udp(src, dst, rng.choice(PORTS), 53, DNS_QUERY, **_outside(rng))


def _dhcp(rng: random.Random) -> bytes:
    return builders.udp("0.0.0.0", "255.255.255.255", 68, 67, DHCP_DISCOVER,
                        eth_src=rng.choice(MACS[:3]), eth_dst=MACS[3])


def _icmp(rng: random.Random) -> bytes:
    return builders.icmp(rng.choice(V4), rng.choice(V4), rng.choice((0, 3, 5, 8, 11, 12)),
                         rng.choice((0, 1, 3, 4)), _number(rng, 16), _number(rng, 16), _data(rng),
                         **_outside(rng))


def _icmpv6(rng: random.Random) -> bytes:
    kind = rng.choice((1, 2, 3, 128, 129, 135, 136))
    return builders.icmpv6(rng.choice(V6), rng.choice(V6), kind, rng.choice((0, 1, 4)),
                           _number(rng, 16), _number(rng, 16), _data(rng),
                           **_outside(rng))


def _error(rng: random.Random) -> bytes:
    """An ICMP or ICMPv6 error; of the packet that it quotes as much as routers do, or less."""
    octets = rng.choice((8, 20, 27, 28, 36, 40, 48, 64, 200))
    if rng.random() < 0.5:
        about = builders.tcp(rng.choice(V4), rng.choice(V4), rng.choice(PORTS), rng.choice(PORTS)) \
            if rng.random() < 0.5 else builders.icmp(rng.choice(V4), rng.choice(V4))
        return builders.icmp_error(rng.choice(V4), about, rng.choice((3, 11, 12)),
                                   rng.choice((0, 1, 3, 4)), rng.choice((0, 1280, 1400)), octets)
    about = builders.udp(rng.choice(V6), rng.choice(V6), rng.choice(PORTS), rng.choice(PORTS))
    return builders.icmp_error(rng.choice(V6), about, rng.choice((1, 2, 3, 4)), 0,
                               rng.choice((0, 1280, 70000)), octets)


def _arp(rng: random.Random) -> bytes:
    return builders.arp(rng.choice(V4), rng.choice(V4), rng.choice((0, 1, 1, 2, 3)),
                        rng.choice(MACS), rng.choice(MACS), eth_src=rng.choice(MACS[:3]),
                        vlan=rng.choice(TAGS))


def _fragment(rng: random.Random) -> bytes:
    src, dst = _addresses(rng)
    return builders.ip(src, dst, rng.choice((6, 17)), rng.randbytes(64),
                       fragment=(8 * rng.choice((0, 0, 1, 185)), rng.random() < 0.5),
                       **_outside(rng))


def _tunnelled(rng: random.Random) -> bytes:
    within = rng.choice((_tcp, _udp, _arp, _icmpv6))(rng)
    put = rng.choice((builders.vxlan, builders.vxlan, builders.geneve, builders.gre))
    return put(within)


def _other(rng: random.Random) -> bytes:
    """Neither IP nor ARP: another ethertype, or a length and LLC; or another protocol of IP."""
    choice = rng.randrange(3)
    if choice == 0:
        src, dst = _addresses(rng)
        return builders.ip(src, dst, rng.choice((0, 2, 47, 59, 89, 132, 255)), _data(rng),
                           **_outside(rng))
    kind = rng.choice((0, 38, 1500, 0x88CC, 0x88B5, 0xFFFF, 0x8100, 0x88A8))
    return builders.ethernet(_data(rng), kind, vlan=rng.choice(TAGS))


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(MIN_FRAME + rng.choice(SIZES))


SHAPES: dict[str, Callable[[random.Random], bytes]] = {
    "tcp": _tcp, "udp": _udp, "udp without a checksum": _without_sum, "dns": _dns, "dhcp": _dhcp,
    "icmp": _icmp, "icmpv6": _icmpv6, "icmp error": _error, "arp": _arp, "fragment": _fragment,
    "tunnelled": _tunnelled, "other": _other, "noise": _noise}
# How often each is made.
_DRAWN = ("tcp",) * 6 + ("udp",) * 4 + ("dns", "dhcp", "icmp", "icmpv6", "icmp error", "icmp error",
          "arp", "arp", "fragment", "tunnelled", "tunnelled", "udp without a checksum", "other",
          "noise")


def shaped(rng: random.Random) -> bytes:
    """A frame of any shape, as its sender meant it."""
    return SHAPES[rng.choice(_DRAWN)](rng)


def spoiled(rng: random.Random, frame: bytes) -> bytes:
    """The frame with some bytes of its headers changed, and bytes behind it or missing."""
    changed = bytearray(frame)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(min(len(changed), HEADERS))
        changed[at] = rng.choice(BYTES) if rng.random() < 0.7 else rng.randrange(256)
    end = rng.choice((0, 0, 0, -1, -8, 1, 20))
    if end < 0:
        return bytes(changed[: max(MIN_FRAME, len(changed) + end)])
    return bytes(changed) + rng.randbytes(end)


def cuts(rng: random.Random) -> Iterator[bytes]:
    """Frames of every shape in turn, cut at every place of their headers, without end."""
    while True:
        for make in SHAPES.values():
            frame = make(rng)
            places = list(range(MIN_FRAME, min(len(frame), HEADERS)))
            rng.shuffle(places)
            for at in places[:6]:
                yield frame[:at]


def generated(count: int, seed: int = 1) -> list[bytes]:
    """``count`` frames, always the same ones for a seed."""
    rng = random.Random(seed)
    cut = cuts(rng)
    made = []
    for k in range(count):
        kind = k % 3
        if kind == 2:
            made.append(next(cut))
        else:
            frame = shaped(rng)
            made.append(spoiled(rng, frame) if kind else frame)
    return made
