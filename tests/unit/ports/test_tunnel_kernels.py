# SPDX-License-Identifier: Apache-2.0
"""Frames out of tunnels: what a plain socket sends becomes rows, and what is wrong is counted."""

import ipaddress
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from byway.machine.layout import address_of
from byway.packet.batch import ROWS
from byway.packet.offload import GSO_TCPV4, GSO_TCPV6
from byway.packet.reason import Reason
from byway.packet.vxlan import CE, ECT_0, ECT_1
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.offload_frames import ACK, PSH, UDP, Shape
from byway.testing.tunnel_kernels import tunnel_waiting
from tests.unit.ports.tunnel_bench import HEADER, LONGEST, NETWORK, TUNNEL, VNI, Bench, frame


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


def test_what_comes_out(bench: Bench) -> None:
    sent = [frame(n) for n in (14, 60, 128, 129, 1514, 9000)]
    for data in sent:
        bench.tell(HEADER + data)
    assert bench.receive() == [(FINISHED, data) for data in sent]
    assert bench.origins == [(NETWORK, TUNNEL)] * 6
    assert (bench.rx["frames"][0], bench.rx["bytes"][0]) == (6, sum(map(len, sent)))
    assert (bench.host["frames"][0], bench.host["bytes"][0]) == (6, sum(map(len, sent)))
    assert bench.receive() == []


def test_reserved_bits_mean_nothing(bench: Bench) -> None:
    bench.tell(b"\xff\xff\xff\xff" + VNI.to_bytes(3, "big") + b"\xff" + frame(60))
    assert bench.receive() == [(FINISHED, frame(60))]


def test_what_is_malformed(bench: Bench) -> None:
    for data in (b"", b"\x08", HEADER[:7], HEADER, HEADER + frame(13), b"\0" * 8 + frame(60),
                 b"\xf7" + HEADER[1:] + frame(60)):
        bench.tell(data)
    assert bench.receive() == [Reason.BAD_TUNNEL] * 7
    assert bench.origins == [(0, TUNNEL)] * 7
    assert (bench.rx["frames"][0], bench.host["frames"][0]) == (0, 0)


def test_a_network_that_is_not_here(bench: Bench) -> None:
    for vni in (0, 1, VNI - 1, VNI + 1, 0xFFFFFF):
        bench.tell(b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0" + frame(60))
    assert bench.receive() == [Reason.UNKNOWN_VNI] * 5


def test_a_host_that_is_not_known(bench: Bench) -> None:
    address = ipaddress.ip_address(bench.wanted.address).packed
    bench.remotes.drop(address)
    try:
        bench.tell(HEADER + frame(60))
        bench.tell((HEADER + frame(92)) * 10, size=100)
        assert bench.receive() == [Reason.UNKNOWN_TUNNEL] * 2
        assert bench.origins == [(0, 0xC000)] * 2
        assert bench.drops() == {"unknown_tunnel": 9}  # the rows are counted by who asked for them
    finally:
        bench.remotes.set(address, TUNNEL, address_of(bench.host))
    bench.tell(HEADER + frame(60))
    assert bench.receive() == [(FINISHED, frame(60))]


def test_many_in_one_message(bench: Bench) -> None:
    sent = [frame(600, k) for k in range(50)] + [frame(60)]
    bench.tell(b"".join(HEADER + data for data in sent), size=608)
    assert bench.receive() == [(FINISHED, data) for data in sent]


def test_more_than_a_batch_waits(bench: Bench) -> None:
    sent = [[frame(600, k + 60 * j) for k in range(60)] for j in range(5)]
    for lot in sent:
        bench.tell(b"".join(HEADER + data for data in lot), size=608)
    got = []
    while rows := bench.receive():
        assert len(rows) <= ROWS
        got += rows
        if len(got) < 300:
            assert tunnel_waiting(bench.queue.address) == 1
    assert got == [(FINISHED, data) for lot in sent for data in lot]
    assert tunnel_waiting(bench.queue.address) == 0


def test_a_pass_is_bounded(bench: Bench) -> None:
    for _ in range(20):
        bench.tell(HEADER + frame(60000))
    counts = [len(bench.receive()) for _ in range(5)]
    assert sum(counts) == 20
    assert max(counts) == 9


def test_an_idle_queue_knows_what_waits(bench: Bench) -> None:
    assert tunnel_waiting(bench.queue.address) == 0
    bench.tell(HEADER + frame(60))
    assert tunnel_waiting(bench.queue.address) == 1
    assert len(bench.receive()) == 1


@pytest.mark.parametrize("outer", [ECT_0, ECT_1, CE])
def test_congestion_is_told_inside(bench: Bench, outer: int) -> None:
    able = bytearray(Shape(4, payload=bytes(100)).build(complete=True))
    bench.tell(HEADER + bytes(able), ecn=outer)
    bench.tell(HEADER + frame(60), ecn=outer)
    got = bench.receive()
    assert got[0] == (Reason.CONGESTED if outer == CE else (FINISHED, bytes(able)))
    assert got[1] == (FINISHED, frame(60))
    v6 = bytearray(Shape(6, payload=bytes(100)).build(complete=True))
    v6[15] |= ECT_0 << 4
    expected = bytearray(v6)
    expected[15] = v6[15] & 0xCF | outer << 4
    bench.tell(HEADER + bytes(v6), ecn=outer)
    assert bench.receive() == [(FINISHED, bytes(expected))]


# ---------------------------------------------------------------- TCP
def flow(version: int, sizes: Sequence[int]) -> list[bytes]:
    made, sequence = [], 1
    for k, size in enumerate(sizes):
        flags = ACK | PSH if k == len(sizes) - 1 else ACK
        made.append(Shape(version, sequence=sequence, ident=1 + k, flags=flags,
                          payload=os.urandom(size)).build(complete=True))
        sequence += size
    return made


@pytest.mark.parametrize("version", [4, 6])
def test_segments_of_one_message_become_one_frame(bench: Bench, version: int) -> None:
    frames = flow(version, [1000] * 40 + [7])
    stride = len(frames[0]) + 8
    bench.tell(b"".join(HEADER + data for data in frames), size=stride)
    ((todo, data),) = bench.receive()  # type: ignore[misc]
    shape = Shape(version)
    gso = GSO_TCPV4 if version == 4 else GSO_TCPV6
    assert todo == Unfinished(1, gso, 1000, shape.l4, 16)
    assert data[shape.header_bytes :] == b"".join(one[shape.header_bytes :] for one in frames)
    assert bench.frames.batch.record["offloads"][0] != 0
    assert bench.rx["frames"][0] == 1


def test_flows_in_one_message_stay_apart(bench: Bench) -> None:
    first = flow(4, [1000] * 3)
    other = [Shape(4, ports=(1, 2), payload=bytes(1000)).build(complete=True)]
    bench.tell(b"".join(HEADER + data for data in [*first, *other, *flow(4, [1000] * 2)]),
               size=len(first[0]) + 8)
    got = bench.receive()
    assert [len(data) for _, data in got] == [3054, 1054, 2054]  # type: ignore[misc]
    bench.queue.record["join"] = 0
    bench.tell(b"".join(HEADER + data for data in first), size=len(first[0]) + 8)
    assert bench.receive() == [(FINISHED, data) for data in first]


def test_a_damaged_segment_stays_damaged(bench: Bench) -> None:
    frames = flow(4, [1000] * 5)
    frames[2] = frames[2][:500] + bytes([frames[2][500] ^ 1]) + frames[2][501:]
    bench.tell(b"".join(HEADER + data for data in frames), size=len(frames[0]) + 8)
    got = bench.receive()
    assert [len(data) for _, data in got] == [2054, 1054, 2054]  # type: ignore[misc]
    assert got[1] == (FINISHED, frames[2])


def lots(bench: Bench, frames: Sequence[bytes], *ends: int) -> list[bytes]:
    """Send the frames in as many messages; -> the payloads of what came out, checked whole."""
    first = 0
    for end in ends:
        lot = [HEADER + data for data in frames[first:end]]
        bench.tell(b"".join(lot), size=len(lot[0]) if len(lot) > 1 else 0)
        first = end
    header = Shape(6 if frames[0][12:14] == b"\x86\xdd" else 4).header_bytes
    got = []
    for todo, data in bench.receive():  # type: ignore[misc]
        got.append(data[header:])
        shape = Shape(4 if header == 54 else 6)
        if todo != FINISHED:
            sequence = int.from_bytes(data[shape.l4 + 4 : shape.l4 + 8], "big")
            whole = replace(shape, sequence=sequence,
                            ident=int.from_bytes(data[18:20], "big") if header == 54 else 1,
                            flags=data[shape.l4 + 13], payload=data[header:])
            assert data == whole.build(complete=False)
    return got


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("ends", [(44, 46), (44, 45, 46), (23, 46), (40, 43, 46)])
def test_a_frame_in_several_messages(bench: Bench, version: int, ends: tuple[int, ...]) -> None:
    """More than UDP carries at once, as a large frame is with all its headers."""
    frames = flow(version, [1398] * 45 + [700])
    got = lots(bench, frames, *ends)
    header = Shape(version).header_bytes
    assert got == [b"".join(one[header:] for one in frames)]
    assert bench.rx["frames"][0] == len(ends)


def test_what_does_not_go_on_in_the_next_message(bench: Bench) -> None:
    frames = flow(4, [1000] * 6)
    spoiled = [*frames[:4], frames[4][:600] + b"!" + frames[4][601:], frames[5]]
    assert list(map(len, lots(bench, spoiled, 3, 4, 5, 6))) == [4000, 1000, 1000]
    assert list(map(len, lots(bench, spoiled, 4, 6))) == [4000, 1000, 1000]
    gap = [*frames[:3], *frames[4:]]
    assert list(map(len, lots(bench, gap, 3, 5))) == [3000, 2000]
    pushed = [*flow(4, [1000] * 3), *frames[3:]]
    assert list(map(len, lots(bench, pushed, 3, 6))) == [3000, 3000]
    short = [*flow(4, [1000, 1000, 10]), *flow(4, [1000] * 3)]
    assert list(map(len, lots(bench, short, 3, 6))) == [2010, 3000]
    smaller = [*frames[:3], *flow(4, [500] * 12)[6:8]]
    assert list(map(len, lots(bench, smaller, 3, 5))) == [3000, 1000]
    assert list(map(len, lots(bench, [*frames[:1], *frames[1:]], 1, 6))) == [1000, 5000]


def test_no_longer_than_ip_says(bench: Bench) -> None:
    frames = flow(4, [1400] * 60)
    assert list(map(len, lots(bench, frames, 40, 46, 60))) == [46 * 1400, 14 * 1400]


# ---------------------------------------------------------------- what was left undone
@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_that_was_left_undone(bench: Bench, version: int) -> None:
    shape = Shape(version, payload=b"x" * 100)
    bench.tell(HEADER + shape.build())
    bench.tell(HEADER + replace(shape, protocol=UDP).build())
    assert bench.receive() == [
        (Unfinished(1, 0, 0, shape.l4, 16), shape.build()),
        (Unfinished(1, 0, 0, shape.l4, 6), replace(shape, protocol=UDP).build())]


@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize("version", [4, 6])
def test_a_large_frame_in_one_datagram(
        bench: Bench, version: int, tags: tuple[int, ...]) -> None:
    """As Linux hands it over between interfaces of one machine."""
    shape = Shape(version, payload=bytes(30000), tags=tags)
    bench.tell(HEADER + shape.build())
    gso = GSO_TCPV4 if version == 4 else GSO_TCPV6
    size = LONGEST + 4 * len(tags) - shape.header_bytes
    assert bench.receive() == [(Unfinished(1, gso, size, shape.l4, 16), shape.build())]
    bench.tell(HEADER + shape.build(complete=True))
    assert bench.receive() == [(FINISHED, shape.build(complete=True))]
