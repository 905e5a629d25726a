# SPDX-License-Identifier: Apache-2.0
"""Frames from and to a tap's file. A socket pair that keeps messages apart stands in for it, and
other files for the errors that a tap can answer."""

import mmap
import os
import select
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from byway.machine.layout import address_of, alloc
from byway.packet.batch import HEAD, ROWS
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.offload import DATA_VALID, GSO_TCPV4, GSO_UDP_L4, MALFORMED, NEEDS_CSUM
from byway.packet.reason import Reason
from byway.packet.segment import Finisher
from byway.ports.tap_kernels import HEADER, TAP, Fault
from byway.testing.finishing import net_header
from byway.testing.frame_batch import FINISHED, Frame, FrameBatch, Unfinished
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.offload_frames import TCP, UDP, Shape
from byway.testing.tap_kernels import tap_receive, tap_send


def frame(n: int) -> bytes:
    """A frame of n bytes, all different."""
    payload = bytes((k * 7 + n) & 0xFF for k in range(n - 14))
    return ethernet(BROADCAST, b"\x02\0\0\0\0\x01", TEST_ETHERTYPE, payload)


class Bench:
    """A batch, and the record of one queue."""

    def __init__(self) -> None:
        self.frames = FrameBatch()
        self.finisher = Finisher()
        self.frames.batch.record["finisher"] = self.finisher.address
        self.record, self.rx, self.tx = alloc(TAP, 1), alloc(COUNTERS, 1), alloc(COUNTERS, 1)
        self.record["rx"], self.record["tx"] = address_of(self.rx), address_of(self.tx)

    def use(self, file: int) -> None:
        self.record["file"], self.record["error"] = file, 0
        self.rx[:], self.tx[:] = 0, 0

    def receive(self) -> list[tuple[Unfinished, bytes] | Reason]:
        n = tap_receive(address_of(self.record), self.frames.address)
        return self.frames.content(n)

    def send(self, frames: list[Frame], pieces: int = 1) -> int:
        n = self.frames.place(frames, (pieces,))
        return int(tap_send(address_of(self.record), self.frames.address, self.frames.selected, n))

    @property
    def error(self) -> int:
        return int(self.record["error"][0])

    def drops(self) -> dict[str, int]:
        return drops_by_name(self.tx[0])


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.fixture
def peer(bench: Bench) -> Iterator[socket.socket]:
    """The other end of a file that gives and takes whole messages."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    bench.use(ours.fileno())
    with ours, theirs:
        yield theirs


# ---------------------------------------------------------------- into Byway
def test_what_is_read(bench: Bench, peer: socket.socket) -> None:
    assert bench.receive() == []
    sent = [frame(n) for n in (14, 60, HEAD, HEAD + 1, 1514, 9014)]
    for data in sent:
        peer.send(bytes(HEADER) + data)
    assert bench.receive() == [(FINISHED, data) for data in sent]
    assert bench.frames.batch.record["offloads"][0] == 0
    assert bench.receive() == []
    assert (bench.rx["frames"][0], bench.rx["bytes"][0]) == (6, sum(map(len, sent)))
    assert bench.error == 0


def test_what_the_header_says(bench: Bench, peer: socket.socket) -> None:
    tcp = Shape(payload=bytes(5000))
    peer.send(tcp.header(GSO_TCPV4, 1000) + tcp.build())
    peer.send(net_header(DATA_VALID) + tcp.build())
    peer.send(net_header(0, GSO_TCPV4, 1000, 34, 16) + tcp.build())  # GSO without a checksum
    made = bench.receive()
    assert made[0] == (Unfinished(NEEDS_CSUM, GSO_TCPV4, 1000, 34, 16), tcp.build())
    assert made[1] == (Unfinished(DATA_VALID), tcp.build())
    assert bench.frames.batch.rows["offload"][2] == MALFORMED
    assert bench.frames.batch.record["offloads"][0] != 0


def test_no_more_than_a_batch_is_read(bench: Bench, peer: socket.socket) -> None:
    for _ in range(ROWS + 5):
        peer.send(bytes(HEADER) + frame(60))
    assert [len(bench.receive()) for _ in range(3)] == [ROWS, 5, 0]


@pytest.mark.parametrize(("payload", "size", "most"), [(65535 - 40, 1400, 8), (20000, 50, 4)])
def test_a_pass_is_bounded(
        bench: Bench, peer: socket.socket, payload: int, size: int, most: int) -> None:
    """By bytes, and by segments: whatever a container sends, others are not kept waiting."""
    large = Shape(payload=bytes(payload))
    for _ in range(most + 2):
        peer.send(large.header(GSO_TCPV4, size) + large.build())
    assert [len(bench.receive()) for _ in range(3)] == [most, 2, 0]


def test_the_longest_frame(bench: Bench, peer: socket.socket) -> None:
    longest = Shape(payload=bytes(65535 - 40), tags=(5, 6))
    peer.send(longest.header(GSO_TCPV4, 1400) + longest.build())
    ((todo, data),) = bench.receive()  # type: ignore[misc]
    assert (todo.gso_size, data) == (1400, longest.build())


def test_files_that_cannot_be_read(bench: Bench) -> None:
    with open("/proc/self/mem", "rb", buffering=0) as memory:  # nothing is at address 0: EIO
        bench.use(memory.fileno())
        assert bench.receive() == []
        assert bench.error == Fault.UNREADABLE
        bench.use(memory.fileno())
    assert bench.receive() == []
    assert bench.error == Fault.GONE


# ---------------------------------------------------------------- out of Byway
@pytest.mark.parametrize("pieces", [1, 2, 7, 16])
def test_what_is_written(bench: Bench, peer: socket.socket, pieces: int) -> None:
    sent = [frame(n) for n in (60, HEAD - 1, HEAD, HEAD + 1, 200, 1514, 9014)]
    assert bench.send(list(sent), pieces) == len(sent)
    assert [peer.recv(65536) for _ in sent] == [bytes(HEADER) + data for data in sent]
    assert (bench.tx["frames"][0], bench.tx["bytes"][0]) == (7, sum(map(len, sent)))
    assert (bench.drops(), bench.error) == ({}, 0)


def test_the_head_that_was_looked_at_is_what_is_sent(bench: Bench, peer: socket.socket) -> None:
    data = frame(1514)
    n = bench.frames.place([data])
    memory, _ = bench.frames.sources()[0]
    assert memory != int(bench.frames.batch.rows["head"][0])
    other = np.zeros(1514, np.uint8)
    bench.frames.batch.rows["addr"][0] = address_of(other)
    tap_send(address_of(bench.record), bench.frames.address, bench.frames.selected, n)
    assert peer.recv(65536) == bytes(HEADER) + data[:HEAD] + bytes(1514 - HEAD)


@pytest.mark.parametrize(("shape", "gso", "size"), [
    (Shape(payload=bytes(4000)), 0, 0), (Shape(payload=b"x"), 0, 0),
    (Shape(payload=bytes(4000), tcp_options=bytes(12), tags=(7,)), GSO_TCPV4, 1400),
    (Shape(payload=bytes(4000), protocol=UDP), GSO_UDP_L4, 1000)])
def test_what_is_left_to_do_is_said(bench: Bench, peer: socket.socket, shape: Shape, gso: int,
                                    size: int) -> None:
    offset = 16 if shape.protocol == TCP else 6
    todo = Unfinished(NEEDS_CSUM, gso, size, shape.l4, offset)
    assert bench.send([(todo, shape.build())], 3) == 1
    header = shape.header(gso, size)
    if gso == 0:  # the header ends with the checksum then
        header = header[:2] + (shape.l4 + offset + 2).to_bytes(2, "little") + header[4:]
    assert peer.recv(65536) == header + shape.build()


# ---------------------------------------------------------------- what is not taken
def test_no_room(bench: Bench, peer: socket.socket) -> None:
    written = bench.send([frame(1514)] * ROWS)
    while written == ROWS:
        bench.use(int(bench.record["file"][0]))
        written = bench.send([frame(1514)] * ROWS)
    assert bench.drops() == {"no_buffers": ROWS - written}
    assert (bench.tx["frames"][0], bench.error) == (written, 0)


def test_an_interface_that_is_down(bench: Bench) -> None:
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # at address 0: EIO, as a tap says
        bench.use(memory.fileno())
        assert bench.send([frame(60), frame(1514)]) == 0
        assert bench.drops() == {Reason.INTERFACE_DOWN.name.lower(): 2}
        assert bench.error == 0, "it may be set up again"


def test_frames_that_the_kernel_refuses(bench: Bench) -> None:
    """What has something left to do is finished and tried again, in pieces that are refused too."""
    shape = Shape(payload=bytes(4000))
    todo = Unfinished(NEEDS_CSUM, GSO_TCPV4, 1000, shape.l4, 16)
    with select.epoll() as nothing:  # takes no bytes: EINVAL
        bench.use(nothing.fileno())
        assert bench.send([frame(60), (todo, shape.build()), frame(1514)]) == 0
    assert bench.drops() == {Reason.REFUSED.name.lower(): 1 + 4 + 1}
    assert bench.error == 0


def test_memory_that_the_sender_took_away(bench: Bench, peer: socket.socket) -> None:
    file = os.memfd_create("taken")
    os.ftruncate(file, mmap.PAGESIZE)
    with mmap.mmap(file, mmap.PAGESIZE) as memory:
        n = bench.frames.place([frame(200), frame(1514), frame(300)])
        view = np.frombuffer(memory, np.uint8)
        bench.frames.batch.rows["addr"][1] = address_of(view)
        os.ftruncate(file, 0)
        sent = tap_send(address_of(bench.record), bench.frames.address, bench.frames.selected, n)
        del view
    os.close(file)
    assert (sent, bench.drops(), bench.error) == (2, {"bad_address": 1}, 0)
    assert [peer.recv(65536)[HEADER:] for _ in range(2)] == [frame(200), frame(300)]


def test_an_interface_that_is_gone(bench: Bench, peer: socket.socket) -> None:
    bench.use(peer.fileno())
    peer.close()  # EBADF; a tap whose interface went answers EBADFD
    assert bench.send([frame(60), frame(1514)]) == 0
    assert bench.drops() == {"port_down": 2}
    assert bench.error == Fault.GONE
