# SPDX-License-Identifier: Apache-2.0
"""Frames whose checksum their sender left to be completed, as guests send them, fare like whole
ones; and large frames that are still to be cut do no harm."""

from dataclasses import replace
from typing import Any

import pytest

from byway import nf
from byway.functions.builtin.decap import Decap
from byway.functions.builtin.dhcp import Dhcp
from byway.functions.builtin.metadata import Metadata
from byway.functions.builtin.policer import Policer
from byway.functions.builtin.router import Router
from byway.functions.builtin.shaper import Shaper
from byway.functions.builtin.syn_guard import SynGuard
from byway.functions.harness import same
from byway.nf.outcome import Outcome
from byway.testing.builders import tcp, udp, vxlan
from byway.testing.frame_batch import Unfinished
from byway.testing.frames import checksum
from tests.both_ways import Both, has_right_sums

NEEDS_CSUM, GSO_TCPV4, GSO_UDP = 1, 1, 5
MAC = "02:00:00:00:00:fe"
DISCOVER = (b"\x01\x01\x06\0" + bytes(24) + bytes.fromhex("020000000001") + bytes(202)
            + b"\x63\x82\x53\x63\x35\x01\x01\xff")


def begun(frame: bytes) -> tuple[bytes, nf.Undone]:
    """A frame of TCP or UDP, untagged, as one that leaves its checksum open."""
    six = frame[12] == 0x86
    l4, protocol = (54, frame[20]) if six else (34, frame[23])
    offset = 16 if protocol == 6 else 6
    end = (54 + int.from_bytes(frame[18:20], "big")) if six \
        else 14 + int.from_bytes(frame[16:18], "big")
    pseudo = (frame[22:54] if six else frame[26:34]) + (end - l4).to_bytes(4, "big") \
        + bytes([0, 0, 0, protocol])
    held = (checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
    place = l4 + offset
    return frame[:place] + held + frame[place + 2:], nf.Undone(
        NEEDS_CSUM, csum_start=l4, csum_offset=offset)


def finished(frame: bytes, undone: nf.Undone) -> bytes:
    """The frame with its checksum completed."""
    if not undone.flags & NEEDS_CSUM:
        return frame
    end = 54 + int.from_bytes(frame[18:20], "big") if frame[12] == 0x86 \
        else 14 + int.from_bytes(frame[16:18], "big")
    place = undone.csum_start + undone.csum_offset
    value = checksum(frame[undone.csum_start:end])
    return frame[:place] + value.to_bytes(2, "big") + frame[place + 2:]


def run(both: Both, frame: bytes, undone: nf.Undone, **where: Any) -> tuple[Outcome, nf.Undone]:
    """What becomes of an unfinished frame, and what is left to do."""
    word = Unfinished(undone.flags, undone.gso_type, undone.gso_size, undone.csum_start,
                      undone.csum_offset).word
    direction = where.get("direction", "rx")
    given = nf.Frame(frame, port=1, network=1, undone=undone, direction=direction)
    plain = both.plain.frame(given, where.get("now", 0), direction)
    [compiled] = both.harness.run([frame], offload=word, **where)
    assert same(compiled, plain), f"translated: {compiled}\nplain: {plain}"
    return plain, given.undone


def routed() -> Both:
    both = Both(Router, mac=MAC, address="10.0.0.254", address6="fd00::fe")
    both.put("routes", [("10.0.0.0/8", 0)])
    both.put("routes6", [("fd00::/16", 0)])
    both.put("neighbours", [("10.1.0.1", "02:00:00:00:00:09")])
    return both


def served() -> Both:
    both = Both(Metadata)
    both.put("text", [(0, [0x61626364] * 400)])
    both.put("documents", [("00:00:00:00:00:00,0", {"at": 0, "length": 1600})])
    return both


ANSWER = {"ttl": 64, "eth_dst": MAC}
CASES = {
    "policer": (lambda: Both(Policer, green_dscp=10), tcp(data=b"abc"), {}),
    "policer6": (lambda: Both(Policer, green_dscp=10), tcp("fd00::1", "fd00::2"), {}),
    "shaper": (lambda: Both(Shaper, mark_from=0, limit=50_000), tcp(ecn=1, data=b"x"), {}),
    "decap": (lambda: Both(Decap), vxlan(tcp()), {}),
    "router": (routed, tcp("10.0.0.1", "10.1.0.1", data=bytes(100), **ANSWER), {}),
    "expired": (routed, tcp("10.0.0.1", "10.1.0.1", data=bytes(900), eth_dst=MAC, ttl=1), {}),
    "expired6": (routed, udp("fd00::1", "fd00::2", data=bytes(1300), eth_dst=MAC, ttl=1), {}),
    "asked": (routed, tcp("10.0.0.1", "10.1.0.2", data=bytes(900), eth_dst=MAC), {}),
    "asked6": (routed, udp("fd00::1", "fd00::2", data=bytes(900), eth_dst=MAC), {}),
    "syn": (lambda: Both(SynGuard), tcp(flags="S"), {"direction": "tx"}),
    "syn6": (lambda: Both(SynGuard), tcp("fd00::1", "fd00::2", flags="S"), {"direction": "tx"}),
    "dhcp": (lambda: Both(Dhcp, first="10.0.0.9", last="10.0.0.9"),
             udp("0.0.0.0", "255.255.255.255", 68, 67, DISCOVER), {}),
    "metadata": (served, tcp(dst="169.254.169.254", flags="S"), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_unfinished_frame_ends_as_a_whole_one_does(case: str) -> None:
    make, frame, where = CASES[case]
    whole, _ = run(make(), frame, nf.Undone(), **where)
    assert whole.verdict.kind in ("pass", "reply")
    assert has_right_sums(whole.frame)
    open_frame, undone = begun(frame)
    outcome, left = run(make(), open_frame, undone, **where)
    assert outcome.verdict == whole.verdict
    made = finished(outcome.frame, left)
    if not case.startswith("expired"):  # an error quotes what it got
        assert made == whole.frame
    assert has_right_sums(made)


@pytest.mark.parametrize("case", ["proof", "request"])
def test_a_conversation_of_unfinished_segments(case: str) -> None:
    make, frame, where = CASES["syn" if case == "proof" else "metadata"]
    both = make()
    answer, left = run(both, *begun(frame), **where)
    seq = int.from_bytes(finished(answer.frame, left)[38:42], "big")
    if case == "proof":
        reply, left = run(both, *begun(tcp(flags="A", seq=2, ack=seq + 1)), direction="tx")
        assert finished(reply.frame, left)[47] == 2
        server = tcp("10.0.0.2", "10.0.0.1", 80, 40000, "SA", seq=9, ack=2)
        reply, left = run(both, *begun(server))
        [(port, copy)] = reply.copies
        assert port == 1
        assert has_right_sums(finished(copy, left))
    else:
        request = tcp(dst="169.254.169.254", flags="PA", seq=2, ack=seq + 1, data=b"GET / ")
        reply, left = run(both, *begun(request))
        assert reply.frame[54:1454] == b"abcd" * 350
    assert has_right_sums(finished(reply.frame, left))


LARGE = tcp("10.0.0.1", "10.1.0.1", data=bytes(9000), eth_dst=MAC)


@pytest.mark.parametrize("ttl", [1, 64])
@pytest.mark.parametrize("to", ["10.1.0.1", "10.1.0.2", "192.0.2.1", "10.0.0.254"])
def test_a_large_frame_is_routed_whole_or_answered_by_a_small_one(ttl: int, to: str) -> None:
    both = routed()
    frame, undone = begun(tcp("10.0.0.1", to, data=bytes(9000), eth_dst=MAC, ttl=ttl))
    undone = replace(undone, gso_type=GSO_TCPV4, gso_size=1400)
    outcome, left = run(both, frame, undone)
    if ttl == 64 and to == "10.1.0.1":
        assert (outcome.verdict, len(outcome.frame), left) == (nf.PASS, len(frame), undone)
    else:
        assert len(outcome.frame) <= 14 + 576
        assert left.gso_type == 0
        assert has_right_sums(finished(outcome.frame, left))


def test_a_large_frame_never_becomes_a_segment_of_the_guards() -> None:
    both = Both(SynGuard)
    [answer] = both.run([tcp(flags="S")], direction="tx")
    seq = int.from_bytes(answer.frame[38:42], "big")
    frame, undone = begun(tcp(flags="A", seq=2, ack=seq + 1, data=bytes(4000)))
    undone = replace(undone, gso_type=GSO_TCPV4, gso_size=1400)
    outcome, left = run(both, frame, undone, direction="tx")
    assert len(outcome.frame) < 100
    assert left.gso_type == 0
    later, _ = run(both, frame, undone, direction="tx", now=10**9)
    assert later.reason == "opening"


def test_large_udp_frames_are_not_taken_for_one_tunnelled_frame() -> None:
    frame, undone = begun(vxlan(tcp(data=bytes(3000))))
    outcome, _ = run(Both(Decap), frame, replace(undone, gso_type=GSO_UDP, gso_size=1400))
    assert outcome.reason == "several tunnelled frames in one"
