# SPDX-License-Identifier: Apache-2.0
"""byway.decap: what scapy puts into a tunnel comes out, byte by byte; and what is no tunnel, or a
broken one, against a reader of the RFCs' headers in plain Python."""

import random
import struct
from ipaddress import ip_address

import pytest
from scapy.all import GRE, IP, UDP, Ether, IPv6, Raw
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.vxlan import VXLAN

from byway import nf
from byway.functions.builtin.decap import Decap
from byway.testing.builders import geneve, gre, ip, tcp, udp, vxlan
from byway.testing.frames import checksum
from byway.testing.generated import generated
from tests.both_ways import Both
from tests.frames_wanted import frames_wanted

INNER = tcp("192.168.0.1", "192.168.0.2", data=b"carried", eth_dst="02:00:00:00:00:77")
OUTER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
HERE = "192.0.2.2"


def outside(chance: random.Random) -> Ether:
    """An outer header, of IPv4 or IPv6."""
    if chance.random() < 0.5:
        return OUTER / IP(src="192.0.2.1", dst=HERE, ttl=chance.randrange(1, 256))
    return OUTER / IPv6(src="fd00::1", dst="fd00::2")


def tunnelled(chance: random.Random, inner: bytes) -> bytes:
    """A frame in a tunnel of any kind that carries frames, by scapy."""
    kind = chance.randrange(4)
    if kind == 0:
        made = UDP(sport=50000, dport=4789) / VXLAN(vni=chance.randrange(1 << 24), flags=8)
    elif kind == 1:
        options = [GeneveOptions(classid=1, type=2, data=bytes(4 * n))
                   for n in range(chance.randrange(3))]
        made = UDP(sport=50000, dport=6081) / GENEVE(
            vni=chance.randrange(1 << 24), proto=0x6558, options=options)
    elif kind == 2:
        made = GRE(proto=0x6558, key_present=1, key=chance.randrange(1 << 32))
    else:
        made = GRE(proto=0x6558, chksum_present=chance.randrange(2),
                   seqnum_present=chance.randrange(2))
    return bytes(outside(chance) / made / Raw(inner))


def test_whatever_scapy_wraps_comes_out() -> None:
    both, chance = Both(Decap), random.Random(1)
    inners = list(generated(frames_wanted(), seed=3))
    for inner in inners:
        outcome = both.one(tunnelled(chance, inner))
        assert (outcome.verdict, outcome.frame) == (nf.PASS, inner)
    assert both.value("taken_out") == len(inners)


@pytest.mark.parametrize("version", [4, 6])
def test_a_bare_packet_keeps_the_outer_ethernet_header(version: int) -> None:
    both = Both(Decap)
    src, dst = ("10.0.0.1", "10.0.0.2") if version == 4 else ("fd01::1", "fd01::2")
    inner = udp(src, dst, data=bytes(50))
    kind = 0x0800 if version == 4 else 0x86DD
    for frame in (gre(inner[14:], ethertype=kind), gre(inner[14:], "fd00::1", "fd00::2",
                                                      ethertype=kind, key=7)):
        outcome = both.one(frame)
        assert outcome.verdict == nf.PASS
        assert outcome.frame == frame[:12] + struct.pack(">H", kind) + inner[14:]


def test_erspan_has_a_header_of_its_own() -> None:
    frame = gre(bytes(8) + INNER, ethertype=0x88BE)
    assert Both(Decap).one(frame).frame == INNER


def test_only_what_is_asked_for_is_taken_out() -> None:
    both = Both(Decap, kind="vxlan", vni=7, local=HERE)
    assert both.one(vxlan(INNER)).frame == INNER
    for frame in (vxlan(INNER, vni=8), geneve(INNER), gre(INNER), vxlan(INNER, dst="192.0.2.3")):
        outcome = both.one(frame)
        assert (outcome.verdict, outcome.frame) == (nf.PASS, frame)


def test_a_key_chooses_the_tunnel_of_gre_and_nvgre() -> None:
    assert Both(Decap, vni=0x1234).one(gre(INNER, key=0x123456)).frame == INNER  # NVGRE: 24 bits
    bare = gre(INNER[14:], ethertype=0x0800, key=0x123456)
    assert Both(Decap, vni=0x123456).one(bare).frame[14:] == INNER[14:]
    assert Both(Decap, vni=0x1234).one(bare).frame == bare


def test_what_was_inside_can_go_to_a_port() -> None:
    both = Both(Decap, ports={"probe": 9}, to=nf.Port("probe"))
    assert both.one(vxlan(INNER)).verdict == nf.REDIRECT(9)
    assert both.one(tcp()).verdict == nf.PASS


@pytest.mark.parametrize(("frame", "reason"), [
    (udp(dport=4789, data=bytes(4)), "cut short"),
    (udp(dport=4789, data=bytes(8) + INNER), "malformed"),  # without the flag that says: a VNI
    (vxlan(INNER)[:60], "cut short"),
    (udp(dport=6081, data=b"\x40\0\x65\x58\0\0\0\0" + INNER), "malformed"),  # another version
    (udp(dport=6081, data=b"\0\x40\x65\x58\0\0\0\0" + INNER), "unknown critical option"),
    (udp(dport=6081, data=b"\0\x80\x65\x58\0\0\0\0" + INNER), "control frame"),
    (udp(dport=6081, data=b"\x3f\0\x65\x58\0\0\0\0" + bytes(252) + INNER), "headers too long"),
    (ip("192.0.2.1", HERE, 47, b"\0\x01\x65\x58" + INNER), "malformed"),  # version 1: PPTP
    (ip("192.0.2.1", HERE, 47, b"\x40\0\x65\x58" + INNER), "malformed"),  # RFC 1701's routing
    (ip("192.0.2.1", HERE, 47, b"\x80\0\x65\x58\x11\x11\0\0" + INNER), "malformed"),  # checksum
    (ip("192.0.2.1", HERE, 47, b"\0\0\x08\0" + bytes(22), options=bytes(16)), None),
    (ip("192.0.2.1", HERE, 47, b"\0\0\x65\x58" + INNER, fragment=(0, True)),
     "fragment of a tunnel's packet"),
])
def test_what_is_broken_is_dropped_with_its_reason(frame: bytes, reason: str | None) -> None:
    verdict = Both(Decap).one(frame).verdict
    assert verdict == (nf.DROP(reason) if reason else nf.PASS)


def test_a_gre_checksum_is_looked_at_whatever_the_length() -> None:
    both, chance = Both(Decap), random.Random(2)
    for size in [*range(14, 80), 1400, 8001]:
        inner = chance.randbytes(size)
        packet = b"\x80\0\x65\x58\0\0\0\0" + inner
        right = packet[:4] + struct.pack(">H", checksum(packet)) + packet[6:]
        frame = ip("192.0.2.1", HERE, 47, right)
        assert both.one(frame).frame == inner
        wrong = bytearray(frame)
        wrong[20 + 14 + 8 + chance.randrange(size)] ^= 1 + chance.randrange(255)
        assert both.one(bytes(wrong)).verdict == nf.DROP("malformed")


def test_protocols_that_nobody_knows_pass() -> None:
    frame = gre(INNER, ethertype=0x88CC)
    assert Both(Decap).one(frame).frame == frame


# ---------------------------------------------------------------- any frame
def plain_decap(frame: bytes) -> tuple[str, bytes]:
    """What is to become of a frame whose outer headers are whole: "pass", or a drop's reason."""
    at, kind = 14, frame[12:14]
    if kind == b"\x08\0":
        protocol, l4 = frame[at + 9], at + 4 * (frame[at] & 15)
        frame = frame[:at + struct.unpack_from(">H", frame, at + 2)[0]]
    else:
        protocol, l4 = frame[at + 6], at + 40
        frame = frame[:at + 40 + struct.unpack_from(">H", frame, at + 4)[0]]
    if protocol == 47:
        return plain_gre(frame, l4)
    start = l4 + 8
    if start + 8 > len(frame):
        return "cut short", frame
    first, carried = struct.unpack_from(">HH", frame, start)
    if frame[l4 + 2:l4 + 4] == struct.pack(">H", 4789):
        return carries(frame, start + 8, 0x6558) if first & 0x0800 else ("malformed", frame)
    if first >> 14:
        return "malformed", frame
    if first & 0x40:
        return "unknown critical option", frame
    if first & 0x80:
        return "control frame", frame
    return carries(frame, start + 8 + 4 * (first >> 8 & 63), carried)


def plain_gre(frame: bytes, start: int) -> tuple[str, bytes]:
    """As ``plain_decap``, for GRE at ``start``."""
    if start + 4 > len(frame):
        return "cut short", frame
    flags, carried = struct.unpack_from(">HH", frame, start)
    if flags & 0x4C07:
        return "malformed", frame
    inside = start + 4 + 4 * sum(1 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    if inside > len(frame):
        return "cut short", frame
    if flags & 0x8000 and checksum(frame[start:]):
        return "malformed", frame
    return carries(frame, inside, carried)


def carries(frame: bytes, inside: int, carried: int) -> tuple[str, bytes]:
    """What comes out, when it begins at ``inside``."""
    if carried == 0x88BE:
        inside += 8
    if carried in (0x6558, 0x88BE):
        if inside + 14 > len(frame):
            return "cut short", frame
        return ("headers too long", frame) if inside > 128 else ("pass", frame[inside:])
    if carried in (0x0800, 0x86DD):
        if inside + (20 if carried == 0x0800 else 40) > len(frame):
            return "cut short", frame
        return "pass", frame[:12] + struct.pack(">H", carried) + frame[inside:]
    return "pass", frame


def test_changed_and_cut_tunnels_are_what_a_plain_reader_makes_of_them() -> None:
    both, chance, seen = Both(Decap), random.Random(4), set()
    for _ in range(frames_wanted()):
        # An inner frame that is a packet, too: other protocol types show it as one.
        frame = bytearray(tunnelled(chance, chance.choice([INNER, INNER[14:], bytes(20)])))
        start = 34 if frame[12] == 8 else 54
        header = start + (0 if frame[23 if start == 34 else 20] == 47 else 8)
        for _ in range(chance.randrange(3)):
            frame[header + chance.randrange(8)] = chance.choice([0, 8, 0x20, 0x58, 0x80, 255])
        if chance.random() < 0.3:
            frame[header + 2:header + 4] = chance.choice([b"\x08\0", b"\x86\xdd", b"\x88\xbe"])
        if chance.random() < 0.3:
            del frame[chance.randrange(header, len(frame)):]
        reason, wanted = plain_decap(bytes(frame))
        outcome = both.one(bytes(frame))
        assert outcome.reason == ("" if reason == "pass" else reason), frame.hex()
        if reason == "pass":
            assert outcome.frame == wanted, frame.hex()
        seen.add(reason)
    assert seen >= {"pass", "cut short", "malformed", "control frame", "unknown critical option"}


def test_any_frame_fares_the_same_both_ways() -> None:
    both = Both(Decap)
    for outcome in both.run(generated(frames_wanted(), seed=7)):
        assert outcome.fault is None


def test_local_addresses_of_ipv6() -> None:
    both = Both(Decap, local6="fd00::2")
    assert ip_address("fd00::2") == ip_address(both.plain.instances[0].local6)
    assert both.one(gre(INNER, "fd00::1", "fd00::2")).frame == INNER
    other = gre(INNER, "fd00::1", "fd00::3")
    assert both.one(other).frame == other
