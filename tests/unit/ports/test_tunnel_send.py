# SPDX-License-Identifier: Apache-2.0
"""Frames into tunnels: a plain socket gets what was sent, and whatever is refused is counted."""

import ctypes
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from byway.machine.layout import address_of
from byway.packet.batch import ROWS
from byway.packet.reason import Reason
from byway.packet.vxlan import CE, ECT_0, ECT_1
from byway.ports.tunnel_send import MOST
from byway.ports.underlay_sockets import name_of, sending
from byway.testing.offload_frames import Shape
from byway.testing.tunnel_kernels import tunnel_send
from tests.unit.ports.tunnel_bench import HEADER, LONGEST, Bench, frame, free_port


@pytest.fixture(scope="module", params=["127.0.0.1", "::1"])
def made(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.close()


@pytest.fixture
def bench(made: Bench) -> Bench:
    made.point_at(made.peer.getsockname()[1])
    made.queue.record["join"] = 1
    assert made.receive() == []
    return made


@pytest.mark.parametrize("pieces", [1, 2, 16])
def test_what_is_sent(bench: Bench, pieces: int) -> None:
    sent = [frame(n) for n in (14, 60, 127, 128, 129, 1000, LONGEST, 60)]
    assert bench.send(sent, pieces) == len(sent)
    assert bench.arrived(len(sent)) == [HEADER + data for data in sent]
    assert (bench.tx["frames"][0], bench.tx["bytes"][0]) == (8, sum(map(len, sent)))
    assert bench.drops() == {}


@pytest.mark.parametrize("count", [2, 3, 44, ROWS])
@pytest.mark.parametrize("last", [LONGEST, 500, 60])
def test_frames_of_one_length_are_one_message(bench: Bench, count: int, last: int) -> None:
    """Each arrives as it was; that they took one call is what the next test sees."""
    sent = [frame(LONGEST, k) for k in range(count - 1)] + [frame(last)]
    assert bench.send(sent) == count
    assert bench.arrived(count) == [HEADER + data for data in sent]


def test_one_message_arrives_as_one(bench: Bench) -> None:
    bench.peer.setsockopt(17, 104, 1)  # UDP_GRO
    try:
        sent = [frame(1000, k) for k in range(40)] + [frame(700)]
        assert bench.send(sent) == 41
        data, said, _, _ = bench.peer.recvmsg(65536, 64)
        assert said == [(17, 104, (1008).to_bytes(4, "little"))]
        assert data == b"".join(HEADER + one for one in sent)
        bench.point_at(bench.peer.getsockname()[1], most=1)
        assert bench.send(sent[:2]) == 2
        assert [len(bench.peer.recv(65536)) for _ in range(2)] == [1008, 1008]
    finally:
        bench.peer.setsockopt(17, 104, 0)


def test_a_longer_frame_begins_another_message(bench: Bench) -> None:
    sent = [frame(n, k) for k, n in enumerate([60, 60, 61, 61, 60, 60, 1400, 100, 100, 1400])]
    assert bench.send(sent) == len(sent)
    assert bench.arrived(len(sent)) == [HEADER + data for data in sent]


def test_frames_that_are_too_long(bench: Bench) -> None:
    sent = [frame(60), frame(LONGEST + 1), frame(60, 1), frame(9000), frame(60, 2)]
    assert bench.send(sent) == 3
    assert bench.arrived(3) == [HEADER + frame(60, k) for k in range(3)]
    assert bench.drops() == {Reason.TOO_BIG.name.lower(): 2}


def test_what_the_interface_does_not_take(bench: Bench) -> None:
    """More than UDP carries: refused alone and in a run, and the others go."""
    bench.point_at(bench.peer.getsockname()[1], longest=70000)
    assert bench.send([frame(60), frame(65530), frame(65530), frame(60)]) == 2
    assert bench.arrived(2) == [HEADER + frame(60)] * 2
    assert bench.drops() == {"too_big": 2}
    assert bench.sender["most"][0] == MOST


def test_a_way_that_does_not_cut(bench: Bench) -> None:
    """Without checksums the kernel makes no runs of datagrams: they go one by one from then on."""
    if ":" in bench.wanted.address:
        plain = sending(replace(bench.wanted, checksum="no", address="::1"))
        plain[0].setsockopt(17, 101, 1)
    else:
        plain = sending(replace(bench.wanted, checksum="no"))
    try:
        bench.sender["fd"] = plain[0].fileno()
        sent = [frame(100, k) for k in range(20)]
        for _ in range(2):
            assert bench.send(sent) == 20
            if ":" not in bench.wanted.address:
                assert bench.arrived(20) == [HEADER + data for data in sent]
                assert bench.sender["most"][0] == 1
    finally:
        for sock in plain:
            sock.close()


def test_memory_that_a_sender_took_away(bench: Bench) -> None:
    n = bench.frames.place([frame(1000, k) for k in range(5)])
    bench.frames.batch.rows["addr"][2] = 4096  # nothing is there
    sent = tunnel_send(address_of(bench.sender), bench.frames.address, bench.frames.selected, n)
    assert (sent, bench.drops()) == (4, {Reason.BAD_ADDRESS.name.lower(): 1})
    assert bench.arrived(4) == [HEADER + frame(1000, k) for k in (0, 1, 3, 4)]


def test_what_is_behind_a_refused_run_is_counted_once(bench: Bench) -> None:
    """It is looked at again, after the frames of the run have gone one by one."""
    n = bench.frames.place([frame(1000), frame(1000, 1), *[frame(LONGEST + 1), frame(500)] * 3])
    bench.frames.batch.rows["addr"][[1, 5]] = 4096  # nothing is there
    sent = tunnel_send(address_of(bench.sender), bench.frames.address, bench.frames.selected, n)
    assert (sent, bench.drops()) == (3, {"bad_address": 2, "too_big": 3})
    assert bench.arrived(3) == [HEADER + frame(1000), *[HEADER + frame(500)] * 2]


def test_nobody_there_is_no_error(bench: Bench) -> None:
    bench.point_at(free_port(bench.wanted.address))
    for _ in range(3):
        assert bench.send([frame(60)] * 10) == 10


def test_no_way_there(bench: Bench) -> None:
    wrong = "::ffff:192.0.2.1" if ":" in bench.wanted.address else "240.0.0.1"
    bench.name = ctypes.create_string_buffer(name_of(wrong, 4789))
    bench.sender["name"] = ctypes.addressof(bench.name)
    assert bench.send([frame(60)] * 3 + [frame(200)]) == 0
    assert bench.drops() == {Reason.SEND_REFUSED.name.lower(): 4}


def test_no_room(bench: Bench) -> None:
    """A socket buffer that holds nothing."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.setblocking(False)
        row = bench.sender[0]
        row["fd"], row["name"], row["name_bytes"], row["most"] = left.fileno(), 0, 0, 1
        sent = 0
        while not bench.drops():
            sent += bench.send([frame(1400)] * ROWS)
        assert bench.drops()[Reason.NO_BUFFERS.name.lower()] > 0
        assert bench.tx["frames"][0] == sent


@pytest.mark.parametrize("ecn", [0, ECT_0, ECT_1, CE])
@pytest.mark.parametrize("version", [4, 6])
def test_congestion_is_told_outside(bench: Bench, version: int, ecn: int) -> None:
    v6 = ":" in bench.wanted.address
    bench.peer.setsockopt(*((41, socket.IPV6_RECVTCLASS, 1) if v6 else (0, 13, 1)))
    inner = bytearray(Shape(version, payload=bytes(100)).build(complete=True))
    inner[15] |= ecn << (4 if version == 6 else 0)
    others = [bytes(inner), frame(len(inner)), bytes(inner)]  # what is not IP says nothing
    assert bench.send(others) == 3
    got = [bench.peer.recvmsg(65536, 64) for _ in others]
    assert [data for data, _, _, _ in got] == [HEADER + one for one in others]
    assert [said[0][2][0] for _, said, _, _ in got] == [ecn, 0, ecn]


@pytest.mark.compiled_only
def test_the_bench_measures_every_way(tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "bench" / "tunnel_sockets.py"
    subprocess.run([sys.executable, script, "--rounds", "1", "--json", tmp_path / "sockets.json"],
                   check=True, timeout=110, capture_output=True)
    found = json.loads((tmp_path / "sockets.json").read_text())
    assert len(found) == 2 * (2 + 2 + 3)
    assert all(samples[0] > 0 for samples in found.values())
