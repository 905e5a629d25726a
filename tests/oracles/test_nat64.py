# SPDX-License-Identifier: Apache-2.0
"""byway.nat64 against plain_nat64.py: packets of both versions, errors, fragments."""

import ipaddress
import random
import struct

from byway.functions.builtin.nat64 import Nat64
from byway.testing.builders import Outside, icmp, icmp_error, icmpv6, ip, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both, has_right_sums
from tests.frames_wanted import frames_wanted
from tests.oracles.plain_nat64 import PlainNat64, Refused

PREFIX = "2001:db8:64::"
HOSTS = ipaddress.IPv4Network("192.0.2.0/24")
PAIRS = {"198.51.100.9": "2001:db8::9", "192.0.2.77": "2001:db8::77"}
V4 = ("10.0.0.1", "192.0.2.5", "198.51.100.9", "192.0.2.77", "0.0.0.0")
V6 = (f"{PREFIX}a00:1", f"{PREFIX}c000:205", "2001:db8::9", "2001:db8::77", "2001:db8::1", PREFIX)
EXTENSIONS = ((), (), (), ((0, bytes([0]) + bytes(6)),), ((60, bytes([1]) + bytes(14)),),
              ((43, bytes([0]) + bytes(6)),), ((43, bytes([0, 0, 1]) + bytes(4)),))
OPTIONS = (b"", b"", b"", b"\1\1\1\0", b"\x83\x07\x04\x0a\0\0\1\0", b"\1\x89\x07\x08\x0a\0\0\1")
KINDS, KINDS6 = (8, 8, 0, 13, 17), (128, 128, 129, 135, 130)
IP = 14


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _frame(rng: random.Random) -> bytes:
    """A packet of either version, of any kind."""
    known = rng.choice((V4, V6))
    src, dst = rng.choice(known), rng.choice(known[:2] if rng.random() < 0.8 else known)
    around: Outside = {
        "ttl": rng.choice((1, 64, 255)), "dscp": rng.choice((0, 46)), "ecn": rng.choice((0, 1)),
        "ident": rng.randrange(1 << 16), "options": rng.choice(OPTIONS),
        "extensions": rng.choice(EXTENSIONS)}
    data = rng.randbytes(rng.choice((0, 1, 2, 7, 100, 1232, 1300)))
    kind = rng.randrange(8)
    if kind == 0:
        return tcp(src, dst, 4000, 80, data=data, **around)
    if kind == 1:
        frame = bytearray(udp(src, dst, 4000, 53, data, **around))
        if known is V4 and rng.random() < 0.3:
            at = IP + 20 + len(around["options"]) + 6
            frame[at:at + 2] = bytes(2)
        return bytes(frame)
    if kind == 2:
        if known is V4:
            return icmp(src, dst, rng.choice(KINDS), 0, 7, 9, data, **around)
        return icmpv6(src, dst, rng.choice(KINDS6), 0, 7, 9, data, **around)
    if kind == 3:
        protocol = rng.choice((6, 17, 17, 17, 47, 0, 58, 1, 132))
        at = 8 * rng.choice((0, 0, 1, 100))
        piece = (at, at == 0 or rng.random() < 0.5) if rng.random() < 0.7 else None
        if protocol == 0 and known is V6:
            protocol = 50
        if protocol == 0 or (protocol in (1, 58) and not piece):
            around["options"] = b""
        held = bytes(2) if piece and rng.random() < 0.7 else b"\1\2"
        body = rng.randbytes(6) + held + rng.randbytes(64)
        return ip(src, dst, protocol, body, fragment=piece, **around)
    return _error(rng, known, src, dst)


def _error(rng: random.Random, known: tuple[str, ...], src: str, dst: str) -> bytes:
    """An ICMP or ICMPv6 error about a packet from ``dst``."""
    to = rng.choice(known)
    about = (udp(dst, to, 4000, 53) if rng.random() < 0.5 else
             icmp(dst, to) if known is V4 else icmpv6(dst, to))
    if rng.random() < 0.1:
        about = ip(dst, to, 17, bytes(32), fragment=(0, True))
    octets, mtu = rng.choice((48, 60, 200)), rng.choice((0, 500, 1280, 1500, 65535))
    if known is V4:
        return icmp_error(src, about, rng.choice((3, 3, 3, 11, 12)), rng.randrange(17), mtu, octets)
    mtu = rng.choice((0, 1, 4, 6, 7, 30, 40, 1280, 1500, 70000))  # of a problem: where it is
    return icmp_error(src, about, rng.choice((1, 2, 3, 4)), rng.randrange(6), mtu, octets)


def test_it_does_what_the_plain_one_does() -> None:
    both = Both(Nat64, prefix=PREFIX, hosts=str(HOSTS))
    both.put("pairs4", [(short, {"ip": long}) for short, long in PAIRS.items()])
    both.put("pairs6", [(long, short) for short, long in PAIRS.items()])
    plain = PlainNat64(_packed(PREFIX)[:12],
                       {_packed(short): _packed(long) for short, long in PAIRS.items()},
                       lambda address: ipaddress.IPv4Address(address) in HOSTS)
    rng = random.Random(1)
    seen: dict[str, int] = {}
    for _ in range(frames_wanted()):
        frame = _frame(rng)
        outcome = both.one(frame)
        number = struct.unpack_from(">H", outcome.frame, IP + 4)[0]
        try:
            wanted = plain.of(frame[IP:], len(frame) - IP, number)
            told = "left" if wanted is None else f"to {wanted[0] >> 4}"
        except Refused as refused:
            wanted, told = None, str(refused)
        seen[told] = seen.get(told, 0) + 1
        if outcome.verdict.kind == "drop":
            assert outcome.reason == told, frame.hex()
        elif wanted is None:
            assert (told, outcome.frame) == ("left", frame), (told, frame.hex())
        else:
            kind = b"\x08\0" if wanted[0] >> 4 == 4 else b"\x86\xdd"
            assert outcome.frame == frame[:12] + kind + wanted, (frame.hex(), wanted.hex())
    assert set(seen) >= {"left", "to 4", "to 6", "address without IPv4", "extension headers",
                         "protocol", "ICMP in fragments", "ICMP without a counterpart",
                         "quotes what has no IPv4", "quotes what is not IPv4", "source route",
                         "UDP fragment without checksum"}, seen


def test_translated_and_plain_agree_on_any_frame() -> None:
    both = Both(Nat64, hosts="10.0.0.0/8")
    for frame in generated(frames_wanted(), 64):
        both.one(frame)


def test_there_and_back_is_the_same_packet() -> None:
    both = Both(Nat64, prefix=PREFIX, hosts=str(HOSTS))
    frame = tcp(f"{PREFIX}c000:205", f"{PREFIX}a00:1", 4000, 80, data=b"there" * 20)
    there = both.one(frame).frame
    assert has_right_sums(there)
    back = both.one(there[:IP] + there[IP:26] + there[30:34] + there[26:30] + there[34:]).frame
    assert has_right_sums(back)
    assert back[IP + 8:IP + 40] == frame[IP + 24:IP + 40] + frame[IP + 8:IP + 24]
    assert back[IP + 40:IP + 60] == frame[IP + 40:IP + 60]
