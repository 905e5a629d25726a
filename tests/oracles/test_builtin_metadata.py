# SPDX-License-Identifier: Apache-2.0
"""byway.metadata: a guest's documents, fetched by a TCP of a few lines; and whatever else comes."""

import random
import struct

import pytest

from byway import nf
from byway.functions.builtin.metadata import Metadata
from byway.functions.builtin.metadata_tables import ALL, amazon, tables
from byway.nf.outcome import Outcome
from byway.testing.builders import arp, icmp, tcp
from byway.testing.generated import generated
from tests.both_ways import Both, has_right_sums
from tests.frames_wanted import frames_wanted

THERE, GUEST, GATEWAY = "169.254.169.254", "02:00:00:00:00:01", "02:00:00:00:00:fe"
FIN, SYN, RST, ACK = 1, 2, 4, 16
DOCUMENTS: dict[str, dict[str, str | bytes]] = {
    GUEST: amazon({"instance-id": "i-1", "public-keys/0/openssh-key": "ssh-ed25519 AAAA"},
                  user_data=bytes(range(256)) * 64),
    "02:00:00:00:00:02": {"/latest/meta-data/instance-id": "i-2"},
    ALL: {"/all": "for all", "/empty": "", "/latest/meta-data/instance-id": "i-0"},
}


def server(**parameters: object) -> Both:
    """A server of these documents."""
    both = Both(Metadata, **parameters)
    made = tables(DOCUMENTS)
    both.put("text", [(0, made["text"])])
    both.put("documents", made["documents"].items())
    return both


class Segment:
    """A TCP segment that came back."""

    def __init__(self, outcome: Outcome) -> None:
        assert outcome.verdict == nf.REPLY
        assert has_right_sums(outcome.frame)
        end = 14 + struct.unpack_from(">H", outcome.frame, 16)[0]
        self.seq, self.ack = struct.unpack_from(">II", outcome.frame, 38)
        self.flags = outcome.frame[47]
        self.data = outcome.frame[34 + 4 * (outcome.frame[46] >> 4):end]
        self.frame = outcome.frame


class Client:
    """A guest's TCP, one connection."""

    def __init__(self, both: Both, mac: str = GUEST, port: int = 40000, first: int = 7,
                 chance: random.Random | None = None) -> None:
        self.both, self.mac, self.port, self.chance = both, mac, port, chance
        self.seq, self.ack = first, 0

    def say(self, flags: str, data: bytes = b"") -> Outcome:
        """Send a segment."""
        frame = tcp("10.0.0.1", THERE, self.port, 80, flags, data, seq=self.seq, ack=self.ack,
                    eth_src=self.mac, eth_dst=GATEWAY)
        length = len(data) + ("S" in flags) + ("F" in flags)
        self.seq = self.seq + length & 0xFFFFFFFF
        return self.both.one(frame)

    def connect(self) -> None:
        """The handshake."""
        answer = Segment(self.say("S"))
        assert (answer.flags, answer.ack) == (SYN | ACK, self.seq)
        self.ack = answer.seq + 1 & 0xFFFFFFFF
        assert self.say("A").reason == "acknowledgement"

    def get(self, path: str) -> tuple[str, bytes]:
        """The status and body of a document."""
        self.connect()
        request = f"GET {path} HTTP/1.1\r\nHost: {THERE}\r\n\r\n".encode()
        begin, got = self.ack, b""
        answer = Segment(self.say("PA", request))
        while True:
            assert answer.ack == self.seq
            offset = answer.seq - begin & 0xFFFFFFFF
            assert offset <= len(got)
            assert got[offset:] == answer.data[:len(got) - offset]
            taken = got[:offset] + answer.data
            last = answer.flags & FIN
            if self.chance and self.chance.random() < 0.3:  # lost, or taken in part
                taken, last = taken[:len(got) + self.chance.randrange(3)], 0
            got = max(got, taken, key=len)
            self.ack = begin + len(got) + (1 if last else 0) & 0xFFFFFFFF
            if last:
                break
            answer = Segment(self.say("A"))
        end = Segment(self.say("FA"))
        assert (end.flags, end.ack, end.seq) == (ACK, self.seq, self.ack)
        head, _, body = got.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        return head.split(b"\r\n")[0].decode(), body


def test_every_document_arrives_whatever_is_lost() -> None:
    both, chance, fetched = server(segment=500), random.Random(1), 0
    paths = sorted({path for documents in DOCUMENTS.values() for path in documents} | {"/none"})
    for port in range(1024, 65535):
        mac = chance.choice([GUEST, "02:00:00:00:00:02", "02:00:00:00:00:03"])
        path = chance.choice(paths)
        wanted = DOCUMENTS.get(mac, {}).get(path, DOCUMENTS[ALL].get(path))
        status, body = Client(both, mac, port, chance.randrange(1 << 32), chance).get(path)
        if wanted is None:
            assert (status, body) == ("HTTP/1.1 404 Not Found", b"not found\n")
        else:
            octets = wanted.encode() if isinstance(wanted, str) else wanted
            assert (status, body) == ("HTTP/1.1 200 OK", octets)
        fetched += 6 + len(body) // 300
        if fetched > frames_wanted():
            break
    assert both.value("requests") > 20


def test_directories_are_listed() -> None:
    both = server()
    assert Client(both).get("/latest/meta-data/")[1] == b"instance-id\npublic-keys/"
    assert Client(both, port=2).get("/2009-04-04/meta-data/public-keys/0")[1] == b"openssh-key"


def test_what_a_server_does_not_expect_is_reset() -> None:
    both = server()
    lone = Client(both)
    answer = Segment(lone.say("PA", b"GET / HTTP/1.1\r\n\r\n"))  # without a handshake
    assert (answer.flags, answer.ack) == (RST | ACK, lone.seq)
    client = Client(both)
    client.connect()
    answer = Segment(client.say("PA", b"PUT /latest/api/token HTTP/1.1\r\n\r\n"))
    assert (answer.flags, answer.seq) == (RST | ACK, client.ack)
    assert both.value("requests") == 0


def test_without_documents_every_request_is_reset() -> None:
    client = Client(Both(Metadata))
    client.connect()
    assert Segment(client.say("PA", b"GET / HTTP/1.1\r\n\r\n")).flags == RST | ACK


def test_an_entry_goes_with_a_reset_and_with_time() -> None:
    both = server(segment=500)
    for later, flags in ((0, "R"), (31 * 10**9, "")):
        client = Client(both)
        client.connect()
        client.say("PA", b"GET /latest/user-data HTTP/1.1\r\n\r\n")
        if flags:
            assert client.say(flags).reason == "reset"
        client.ack += 500
        frame = tcp("10.0.0.1", THERE, 40000, 80, "A", seq=client.seq, ack=client.ack)
        assert Segment(both.one(frame, now=later)).flags == RST | ACK


def test_arp_and_pings_are_answered() -> None:
    both = server()
    reply = both.one(arp("10.0.0.1", THERE, eth_src=GUEST, sender_mac=GUEST))
    assert reply.verdict == nf.REPLY
    assert reply.frame[:42] == arp(THERE, "10.0.0.1", 2, "02:00:00:00:a9:fe", GUEST,
                                   eth_src="02:00:00:00:a9:fe", eth_dst=GUEST)[:42]
    pong = both.one(icmp("10.0.0.1", THERE, eth_src=GUEST, eth_dst=GATEWAY))
    assert pong.frame == icmp(THERE, "10.0.0.1", 0, eth_src=GATEWAY, eth_dst=GUEST)


@pytest.mark.parametrize("frame", [
    arp(), tcp(flags="S"), tcp(dst=THERE, dport=443, flags="S"), icmp(dst=THERE, kind=0)])
def test_what_is_not_for_it_passes(frame: bytes) -> None:
    outcome = server().one(frame)
    assert (outcome.verdict, outcome.frame) == (nf.PASS, frame)


def test_any_frame_fares_the_same_both_ways() -> None:
    both = server(address="10.0.0.2")
    for outcome in both.run(generated(frames_wanted(), seed=10)):
        assert outcome.fault is None
