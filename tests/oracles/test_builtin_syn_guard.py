# SPDX-License-Identifier: Apache-2.0
"""byway.syn_guard: every segment is what the plain guard makes of it; and a client and a server
that know nothing of it have a conversation."""

import random
import struct
from ipaddress import ip_address

import pytest

from byway import nf
from byway.functions.builtin.syn_guard import SynGuard
from byway.nf.outcome import Outcome
from byway.testing.builders import FLAGS, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both, has_right_sums
from tests.frames_wanted import frames_wanted
from tests.oracles.plain_syn_guard import (
    ACK,
    FIN,
    RST,
    SECOND,
    SIZES,
    SLOT,
    SYN,
    WORD,
    Guard,
    Said,
    Segment,
    halfsiphash,
)

CLIENT, SERVER = "02:00:00:00:00:01", "02:00:00:00:00:02"
PORT = 5  # the server's
LONG_AGO = 100 * SLOT


def frame_of(it: Segment, src: str = CLIENT, dst: str = SERVER) -> bytes:
    """A segment as a frame."""
    letters = "".join(letter for bit, letter in enumerate(FLAGS) if it.flags >> bit & 1)
    options = struct.pack(">BBH", 2, 4, it.size) if it.size else b""
    return tcp(it.src, it.dst, it.sport, it.dport, letters, it.data, seq=it.seq, ack=it.ack,
               window=it.window, tcp_options=options, eth_src=src, eth_dst=dst)


def segment_of(frame: bytes) -> Segment:
    """A frame as a segment; its checksums are right."""
    assert has_right_sums(frame)
    if frame[12] == 8:
        end, at, l4 = 14 + struct.unpack_from(">H", frame, 16)[0], 26, 34
    else:
        end, at, l4 = 54 + struct.unpack_from(">H", frame, 18)[0], 22, 54
    size = 4 if l4 == 34 else 16
    src, dst = (str(ip_address(frame[k:k + size])) for k in (at, at + size))
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from(">HHIIBBH", frame, l4)
    first, data = frame[l4 + 20:l4 + 4 * (offset >> 4)], frame[l4 + 4 * (offset >> 4):end]
    mss = struct.unpack(">H", first[2:])[0] if first[:2] == b"\x02\x04" else 0
    assert len(first) in (0, 4)
    return Segment(src, dst, sport, dport, flags, seq, ack, window, mss, data)


def key_of(both: Both) -> bytes:
    """The secret that both drew."""
    [key] = {tuple(values)[:2] for values in (
        [both.plain.instances[0].secret[k] for k in range(2)],
        [entry["value"] for entry in both.harness.instances[0].states["secret"].dump()])}
    return struct.pack("<II", *key)


def test_the_plain_hash_is_halfsiphash() -> None:
    # The reference implementation's first test vectors.
    key = bytes(range(8))
    assert struct.pack("<I", halfsiphash(key, b"")).hex() == "a9359f5b"
    assert struct.pack("<I", halfsiphash(key, b"\0")).hex() == "27475ab8"


# ---------------------------------------------------------------- against the plain guard
class Talk:
    """A guard, and the plain one with its secret."""

    def __init__(self, **parameters: object) -> None:
        self.both = Both(SynGuard, **parameters)
        self.now = LONG_AGO
        self.both.one(tcp("192.0.2.250", flags="S"), now=0, direction="tx")
        self.guard = Guard(key_of(self.both), **parameters)  # type: ignore[arg-type]

    def tx(self, it: Segment) -> Outcome:
        """A segment to the server; both guards say the same."""
        outcome = self.both.one(frame_of(it), now=self.now, direction="tx", port=3)
        self.guard.now = self.now
        self.compare(self.guard.tx(it), outcome)
        return outcome

    def rx(self, it: Segment) -> Outcome:
        """A segment from the server."""
        outcome = self.both.one(frame_of(it, SERVER, CLIENT), now=self.now, port=PORT)
        self.guard.now = self.now
        self.compare(self.guard.rx(it), outcome)
        return outcome

    def compare(self, wanted: Said, outcome: Outcome) -> None:
        """Is it what the plain guard said?"""
        if outcome.verdict.kind == "drop":
            assert outcome.reason == wanted.verdict
            return
        assert outcome.verdict.kind == wanted.verdict
        assert segment_of(outcome.frame) == wanted.segment
        if wanted.verdict == "reply":
            assert outcome.frame[:12] == bytes.fromhex("020000000001020000000002")
        copies = [(port, segment_of(frame)) for port, frame in outcome.copies]
        assert copies == ([(PORT, wanted.copy)] if wanted.copy else [])


class Flow:
    """A client and a server that say anything, mostly in order."""

    def __init__(self, chance: random.Random, number: int) -> None:
        self.chance = chance
        ends = ("10.0.0.1", "10.0.0.2") if number % 2 else ("fd00::1", "fd00::2")
        self.flow = (*ends, 40000 + number, 80)
        self.first, self.cookie, self.server = 0, 0, 0

    def to_server(self) -> Segment:
        """What the client says next."""
        chance = self.chance
        kind = chance.choice(["syn", "proof", "proof", "data", "data", "data", "fin", "reset"])
        if kind == "syn":
            self.first = chance.choice([self.first, chance.randrange(1 << 32), WORD])
            return Segment(*self.flow, SYN, self.first, size=chance.choice([0, *SIZES, 9000]),
                           data=chance.choice([b"", b"early"]))
        flags = {"fin": FIN | ACK, "reset": RST}.get(kind, ACK)
        ahead = 0 if kind == "proof" else chance.randrange(3000)
        ack = self.cookie + 1 + (0 if kind == "proof" else chance.randrange(3000))
        if chance.random() < 0.1:
            ack = chance.randrange(1 << 32)
        return Segment(*self.flow, flags, self.first + 1 + ahead & WORD, ack & WORD,
                       chance.randrange(1 << 16),
                       data=b"" if kind == "reset" else bytes(chance.choice([0, 1, 500])))

    def from_server(self) -> Segment:
        """What the server says next."""
        chance, (src, dst, sport, dport) = self.chance, self.flow
        kind = chance.choice(["syn", "syn", "data", "data", "fin", "reset"])
        if kind == "syn":
            self.server = chance.choice([self.server, chance.randrange(1 << 32)])
        flags = {"syn": SYN | ACK, "fin": FIN | ACK, "reset": RST | ACK}.get(kind, ACK)
        seq = self.server + (0 if kind == "syn" else chance.randrange(1, 3000))
        return Segment(dst, src, dport, sport, flags, seq & WORD,
                       self.first + chance.choice([1, 1, 1, 2]) & WORD,
                       chance.randrange(1 << 16),
                       size=1460 if kind == "syn" else 0,
                       data=b"" if kind in ("syn", "reset") else bytes(chance.choice([0, 700])))


@pytest.mark.parametrize("strict", [False, True])
def test_segments_in_any_order_are_what_the_plain_guard_makes_of_them(strict: bool) -> None:
    talk, chance, seen = Talk(strict=strict, mss=1400), random.Random(strict), set()
    flows = [Flow(chance, number) for number in range(3)]
    for _ in range(frames_wanted() // 2):
        talk.now += int(chance.choice([*[0] * 12, 0.13, 0.61, 0.61, 7.3, 70.7]) * SECOND)
        flow = chance.choice(flows)
        if chance.random() < 0.6:
            said = flow.to_server()
            outcome = talk.tx(said)
            if outcome.verdict == nf.REPLY:
                flow.cookie = segment_of(outcome.frame).seq
        else:
            outcome = talk.rx(flow.from_server())
        seen.add(outcome.reason or outcome.verdict.kind)
    assert seen >= {"pass", "reply", "opening", "not the guard's connection"}
    assert ("no such connection" in seen) == strict
    assert talk.both.value("proven") > 0


# ---------------------------------------------------------------- a whole conversation
@pytest.mark.parametrize("ends", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_a_conversation_through_the_proxy(ends: tuple[str, str]) -> None:
    src, dst = ends
    talk = Talk()
    there, back = (src, dst, 40000, 80), (dst, src, 80, 40000)
    answer = segment_of(talk.tx(Segment(*there, SYN, 100, size=1460)).frame)
    assert (answer.window, answer.ack, answer.size) == (0, 101, 1460)
    opened = segment_of(talk.tx(Segment(*there, ACK, 101, answer.seq + 1 & WORD, 5000)).frame)
    assert (opened.flags, opened.seq, opened.window, opened.size) == (SYN, 100, 5000, 1460)
    outcome = talk.rx(Segment(*back, SYN | ACK, 7, 101, 6000, 1400))
    [(port, copy)] = outcome.copies
    assert port == PORT
    assert copy[:12] == bytes.fromhex("020000000002020000000001")  # to the server
    assert segment_of(copy)._replace(window=0) == Segment(*there, ACK, 101, 8, 0)
    assert segment_of(outcome.frame) == Segment(*back, ACK, answer.seq + 1 & WORD, 101, 6000)
    request = segment_of(talk.tx(Segment(*there, ACK, 101, answer.seq + 1 & WORD,
                                         data=b"GET")).frame)
    assert (request.ack, request.data) == (8, b"GET")
    reply = segment_of(talk.rx(Segment(*back, ACK, 8, 104, data=b"found")).frame)
    assert (reply.seq, reply.data) == (answer.seq + 1 & WORD, b"found")
    talk.rx(Segment(*back, FIN | ACK, 13, 104))
    talk.tx(Segment(*there, FIN | ACK, 104, answer.seq + 7 & WORD))
    last = segment_of(talk.rx(Segment(*back, ACK, 14, 105)).frame)
    assert last.seq == answer.seq + 7 & WORD


def test_a_cookie_is_good_for_its_slot_and_the_next() -> None:
    for later, good in ((0, True), (SLOT, True), (2 * SLOT - SECOND, False), (2 * SLOT, False)):
        talk = Talk()
        talk.now += SLOT - SECOND
        answer = segment_of(talk.tx(Segment("10.0.0.1", "10.0.0.2", 1, 80, SYN, 9)).frame)
        talk.now += later + (SECOND if later == 2 * SLOT - SECOND else 0)
        proof = Segment("10.0.0.1", "10.0.0.2", 1, 80, ACK, 10, answer.seq + 1 & WORD)
        assert (segment_of(talk.tx(proof).frame).flags == SYN) == good


def test_syns_take_no_place_and_a_full_table_lets_no_more_through() -> None:
    plain = nf.Plain(SynGuard)
    table = plain.instances[0].connections
    [answer] = plain.run([tcp(flags="S", seq=9)], direction="tx")
    assert (answer.verdict, len(table)) == (nf.REPLY, 0)
    for k in range(table.capacity):
        assert table.make(nf.Flow(4, k, 1, 6, 2, 3))
    proof = tcp(flags="A", seq=10, ack=segment_of(answer.frame).seq + 1)
    [outcome] = plain.run([proof], direction="tx")
    assert (outcome.reason, table.full) == ("table full", 1)


def test_in_calm_times_syns_pass() -> None:
    both = Both(SynGuard, above=2)
    verdicts = [both.one(tcp(flags="S", sport=k), direction="tx", now=1).verdict
                for k in range(4)]
    assert verdicts == [nf.PASS, nf.PASS, nf.REPLY, nf.REPLY]
    assert both.one(tcp(flags="S"), direction="tx", now=2 * SECOND).verdict == nf.PASS
    assert both.value("challenged") == 2


def test_another_port_is_not_guarded() -> None:
    both = Both(SynGuard, port=443)
    for frame in (tcp(flags="S"), tcp(dport=80), udp(dport=443), tcp(flags="S", dport=443)[:40]):
        assert both.one(frame, direction="tx").frame == frame
        assert both.one(frame).frame == frame
    assert both.one(tcp(flags="S", dport=443), direction="tx").verdict == nf.REPLY


# ---------------------------------------------------------------- authentication
@pytest.mark.parametrize("ends", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_a_source_that_resets_with_the_cookie_is_trusted(ends: tuple[str, str]) -> None:
    src, dst = ends
    both = Both(SynGuard, mode="authenticate", trust=100.0)
    syn = Segment(src, dst, 40000, 80, SYN, 100)
    outcome = both.one(frame_of(syn), direction="tx")
    answer = segment_of(outcome.frame)
    assert (outcome.verdict, answer.flags) == (nf.REPLY, SYN | ACK)
    assert answer.ack not in (100, 101)
    wrong = Segment(src, dst, 40000, 80, RST, answer.ack + 1 & WORD)
    assert both.one(frame_of(wrong), direction="tx").verdict == nf.PASS
    assert both.one(frame_of(syn), direction="tx").verdict == nf.REPLY
    proof = Segment(src, dst, 40000, 80, RST, answer.ack)
    assert both.one(frame_of(proof), direction="tx").verdict == nf.DROP("proof")
    other = frame_of(syn._replace(sport=40001))
    assert both.one(other, direction="tx").frame == other
    assert both.one(other, direction="tx", now=99 * SECOND).verdict == nf.PASS
    assert both.one(other, direction="tx", now=190 * SECOND).verdict == nf.PASS  # was not idle
    assert both.one(other, direction="tx", now=300 * SECOND).verdict == nf.REPLY
    stranger = frame_of(syn._replace(src="10.0.0.9" if src == "10.0.0.1" else "fd00::9"))
    assert both.one(stranger, direction="tx", now=190 * SECOND).verdict == nf.REPLY


def test_what_a_client_did_send_is_never_asked_back() -> None:
    both = Both(SynGuard, mode="authenticate")
    first = segment_of(both.one(frame_of(Segment("10.0.0.1", "10.0.0.2", 1, 80, SYN, 5)),
                                direction="tx").frame)
    unlucky = Segment("10.0.0.1", "10.0.0.2", 1, 80, SYN, first.ack - 1 & WORD)
    asked = segment_of(both.one(frame_of(unlucky), direction="tx").frame).ack
    assert asked == first.ack ^ 1 << 31
    proof = Segment("10.0.0.1", "10.0.0.2", 1, 80, RST, asked)
    assert both.one(frame_of(proof), direction="tx").verdict == nf.DROP("proof")


def test_other_segments_pass_where_sources_are_authenticated() -> None:
    both = Both(SynGuard, mode="authenticate", strict=True)
    for flags in ("A", "SA", "FA", "R"):
        frame = tcp(flags=flags)
        assert both.one(frame, direction="tx").frame == frame
        assert both.one(frame).frame == frame


@pytest.mark.parametrize("mode", ["proxy", "authenticate"])
def test_any_frame_fares_the_same_both_ways(mode: str) -> None:
    both = Both(SynGuard, mode=mode)
    frames = list(generated(frames_wanted() // 4, seed=11))
    for outcome in [*both.run(frames, direction="tx"), *both.run(frames)]:
        assert outcome.fault is None
