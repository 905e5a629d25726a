# SPDX-License-Identifier: Apache-2.0
"""The listeners of built-in functions: what becomes of what a function tells."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import RawPcapNgReader

from byway.functions.builtin.dns_log import DnsLog
from byway.functions.builtin.flow_export import FlowExport, Teller
from byway.functions.builtin.sampler import Sampler
from byway.functions.builtin.tap import Tap
from byway.functions.export.collector import Collector
from byway.functions.export.ipfix import HEADER
from byway.testing.builders import tcp, udp
from tests.sessions import STARTED, FakeSession

SECOND = 1_000_000_000
KEY = "tcp 10.0.0.1 40000 10.0.0.2 80"


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(10)
        yield made


def row(packets: int, octets: int, last: int, first: int = SECOND, key: str = KEY, **more: int
        ) -> dict[str, Any]:
    return {"key": key, "value": {"packets": packets, "octets": octets, "first": first,
                                  "last": last, "flags": 2, "tos": 0, "icmp": 0, "port": 3, **more}}


def told(teller: Teller, *rows: dict[str, Any]) -> list[tuple[int, ...]]:
    """What a message says of each flow: octets, packets, start and end in milliseconds, reason."""
    session = FakeSession({})
    found = []
    for message in teller.messages(rows, session.since_1970):
        if struct.unpack_from("!H", message, HEADER.size)[0] == 256:
            body = message[HEADER.size + 4:]
            size = 4 + 4 + 2 + 2 + 1 + 1 + 1 + 2 + 4 + 8 + 8 + 8 + 8 + 1
            found += [struct.unpack_from("!QQQQB", body, at + 21)
                      for at in range(0, len(body), size)]
    start = round(STARTED * 1000)
    return [(octets, packets, begin - start, end - start, reason)
            for octets, packets, begin, end, reason in found]


def test_a_flow_is_told_once_and_then_what_is_new() -> None:
    teller = Teller(1)
    assert told(teller, row(3, 300, 2 * SECOND)) == [(300, 3, 1000, 2000, 2)]
    assert told(teller, row(3, 300, 2 * SECOND)) == []
    assert told(teller, row(5, 350, 4 * SECOND, flags=3)) == [(50, 2, 2000, 4000, 3)]


def test_a_flow_that_left_the_table_and_came_again_is_a_new_one() -> None:
    teller = Teller(1)
    told(teller, row(9, 900, 2 * SECOND))
    assert told(teller, row(2, 80, 60 * SECOND, first=59 * SECOND)) == [(80, 2, 59000, 60000, 2)]
    assert told(teller) == []
    assert told(teller, row(2, 80, 60 * SECOND, first=59 * SECOND)) == [(80, 2, 59000, 60000, 2)]


def test_flow_export_tells_a_collector(receiver: socket.socket) -> None:
    session = FakeSession({"collector": f"127.0.0.1:{receiver.getsockname()[1]}", "domain": 5,
                           "interval": 0.01})
    session.tables["flows"] = [row(3, 300, 2 * SECOND)]

    async def listen() -> None:
        listening = asyncio.create_task(FlowExport.listen(session))
        await asyncio.get_running_loop().run_in_executor(None, receive)
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening

    messages = []

    def receive() -> None:
        messages.extend(receiver.recv(2000) for _ in range(2))

    asyncio.run(listen())
    assert [struct.unpack_from("!H", one, HEADER.size)[0] for one in messages] == [2, 256]
    assert struct.unpack_from("!I", messages[0], 12)[0] == 5


def test_the_sampler_sends_what_is_chosen(receiver: socket.socket) -> None:
    events = [{"time": k, "port": 3, "length": 1514, "rate": 10, "pool": 10 * k,
               "header": tcp().hex()} for k in range(150)]
    session = FakeSession({"collector": f"127.0.0.1:{receiver.getsockname()[1]}",
                           "agent": "10.0.0.9"}, {"samples": events})
    asyncio.run(Sampler.listen(session))
    receiver.setblocking(False)
    samples = 0
    with suppress(BlockingIOError):
        while True:
            datagram = receiver.recv(2000)
            samples += struct.unpack_from("!I", datagram, 24)[0]
            assert tcp() in datagram
    assert samples == 150


def test_dns_messages_are_lines_of_json(tmp_path: Path) -> None:
    question = bytes.fromhex("0007 0100 0001 0000 0000 0000 03777777 00 001c 0001")
    answer = question[:2] + bytes.fromhex("8183 0001 0002") + question[8:]
    event = {"time": SECOND, "version": 4, "source": "10.0.0.1", "target": "10.0.0.53",
             "source6": "::", "target6": "::", "source_port": 4000, "target_port": 53, "type": 28,
             "message": question.hex()}
    events = [event, {**event, "version": 6, "source6": "fd00::53", "target6": "fd00::1",
                      "type": 65000, "message": answer.hex()}]
    path = tmp_path / "dns.log"
    path.write_text("before\n")
    asyncio.run(DnsLog.listen(FakeSession({"file": str(path)}, {"messages": events})))
    before, *lines = path.read_text().splitlines()
    assert before == "before"
    asked, answered = map(json.loads, lines)
    assert asked == {
        "time": "2023-11-14T22:13:21.000+00:00", "source": "10.0.0.1", "source_port": 4000,
        "target": "10.0.0.53", "target_port": 53, "id": 7, "name": "www.", "type": "AAAA",
        "kind": "query"}
    assert (answered["source"], answered["type"], answered["kind"], answered["code"],
            answered["answers"]) == ("fd00::53", "TYPE65000", "answer", "NXDOMAIN", 2)
    session = FakeSession({"file": ""}, {"messages": events[:1]})
    asyncio.run(DnsLog.listen(session))
    assert json.loads(session.logged[0]) == asked


def test_copies_are_a_capture(tmp_path: Path) -> None:
    frames = [tcp(), udp(data=b"x" * 9)]
    events = [{"time": k * SECOND + 5, "port": 1 + 8 * k, "out": k, "length": 3000,
               "frame": frame.hex()} for k, frame in enumerate(frames)]
    path = tmp_path / "tap.pcapng"
    asyncio.run(Tap.listen(FakeSession({"file": str(path)}, {"frames": events})))
    read = list(RawPcapNgReader(str(path)))
    assert [data for data, _ in read] == frames
    assert [meta.wirelen for _, meta in read] == [3000, 3000]
    times = [meta.tshigh << 32 | meta.tslow for _, meta in read]
    assert times[1] - times[0] == pytest.approx(SECOND, abs=500)
    assert b"vm1" in path.read_bytes()
    asyncio.run(Tap.listen(FakeSession({"file": ""}, {"frames": events})))


@pytest.mark.parametrize("place", ["", "10.0.0.1", ":53", "10.0.0.1:0", "10.0.0.1:x", "a:70000"])
def test_a_collector_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="write"):
        Collector(place)


def test_a_collector_has_an_address_of_either_family() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
        made.bind(("::1", 0))
        made.settimeout(10)
        with Collector(f"[::1]:{made.getsockname()[1]}") as collector:
            collector.send(b"hello")
        assert made.recv(10) == b"hello"
