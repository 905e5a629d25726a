# SPDX-License-Identifier: Apache-2.0
"""The channel on which a back end asks, against raw sockets."""

import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from byway.testing.conversation import FileKind
from byway.testing.dialogue import Files
from byway.vhost.back_channel import MAX_QUEUED, MAX_UNANSWERED, BackChannel
from byway.vhost.front_channel import FrontChannel
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import Iotlb

HEADER = struct.Struct("=III")
QUESTION = 12 + 32


class FakeLoop:
    """Remembers who wants to read and write."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], object]] = {}
        self.writers: dict[int, Callable[[], object]] = {}

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        self.writers[fd] = callback

    def remove_writer(self, fd: int) -> bool:
        return self.writers.pop(fd, None) is not None


class World:
    """A channel and the front end's socket."""

    def __init__(self, acknowledged: bool = True) -> None:
        self.loop = FakeLoop()
        self.refused: list[tuple[int, int]] = []
        self.front, back = socket.socketpair()
        self.front.settimeout(5)
        self.fd = back.detach()
        self.channel = BackChannel(self.fd, self.loop, acknowledged=acknowledged,
                                   refused=lambda *asked: self.refused.append(asked))

    def read(self, n: int = QUESTION) -> bytes:
        data = b""
        while len(data) < n:
            data += self.front.recv(n - len(data))
        return data

    def answer(self, data: bytes) -> None:
        self.front.sendall(data)
        if receive := self.loop.readers.get(self.fd):
            receive()


@pytest.fixture
def world() -> Iterator[World]:
    before = len(os.listdir("/proc/self/fd"))
    made = World()
    yield made
    made.channel.close()
    made.channel.close()
    made.front.close()
    assert made.loop.readers == made.loop.writers == {}
    assert len(os.listdir("/proc/self/fd")) <= before


def reply(result: int = 0, request: int = 1, flags: int = 5, size: int = 8) -> bytes:
    return HEADER.pack(request, flags, size) + struct.pack("=Q", result)


def test_a_miss(world: World) -> None:
    """IOTLB message of type 1 with IOVA and permission; flags: version 1, NEED_REPLY."""
    assert world.channel.miss(0x5000, 2)
    data = world.read()
    assert HEADER.unpack_from(data) == (1, 0x9, 32)
    assert struct.unpack("=QQQBB6x", data[12:]) == (0x5000, 0, 0, 2, 1)
    world.answer(reply())
    assert world.refused == []


def test_answers_belong_to_questions_in_order(world: World) -> None:
    for iova in (0x1000, 0x2000, 0x3000):
        world.channel.miss(iova, 1)
    world.channel.config_changed()
    world.channel.miss(0x4000, 1)
    half = reply(1)
    world.answer(reply(0) + reply(1) + half[:7])
    assert world.refused == [(0x2000, 1)]
    world.answer(half[7:] + reply(1, request=2) + reply((1 << 64) - 1))
    assert world.refused == [(0x2000, 1), (0x3000, 1), (0x4000, 1)]
    assert world.channel.open


def test_a_configuration_change(world: World) -> None:
    assert world.channel.config_changed()
    assert world.read(12) == HEADER.pack(2, 0x9, 0)


def test_without_acknowledgements() -> None:
    world = World(acknowledged=False)
    for _ in range(2 * MAX_UNANSWERED):
        assert world.channel.miss(0x5000, 1)
        assert HEADER.unpack_from(world.read()) == (1, 0x1, 32)
    world.answer(reply())
    assert world.channel.reason == "an answer to no question"
    assert not world.channel.open
    world.front.close()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (reply(request=2), "an answer with header 2, 0x5, 8 to IOTLB_MSG"),
        (reply(flags=1), "header 1, 0x1, 8"),
        (reply(flags=0xD), "header 1, 0xd, 8"),
        (reply(size=32), "header 1, 0x5, 32"),
        (reply() + reply(), "an answer to no question"),
        (b"\xff" * 20, "header 4294967295"),
    ],
)
def test_an_answer_that_is_none(world: World, data: bytes, reason: str) -> None:
    world.channel.miss(0x5000, 1)
    world.answer(data)
    assert reason in world.channel.reason
    assert not world.channel.open
    assert not world.channel.miss(0x6000, 1)
    assert not world.channel.config_changed()


def test_the_front_end_hangs_up(world: World) -> None:
    world.front.close()
    world.loop.readers[world.fd]()
    assert "closed the channel" in world.channel.reason
    assert not world.channel.miss(0x5000, 1)


def test_the_front_end_hangs_up_before_a_question(world: World) -> None:
    world.front.close()
    assert not world.channel.miss(0x5000, 1)
    assert "broke" in world.channel.reason


def test_a_front_end_that_acknowledges_nothing(world: World) -> None:
    asked = [world.channel.miss(k << 12, 1) for k in range(MAX_UNANSWERED + 5)]
    assert asked == [True] * MAX_UNANSWERED + [False] * 5
    world.read(MAX_UNANSWERED * QUESTION)
    world.answer(reply())
    assert world.channel.miss(0, 1)


def test_a_front_end_that_does_not_read() -> None:
    """Its socket is full, then our queue; nobody waits, and nothing is lost or cut."""
    world = World(acknowledged=False)
    os.set_blocking(world.fd, True)  # as a front end could do with a second descriptor
    sent = 0
    while world.channel.miss(sent << 12, 1):
        sent += 1
    assert list(world.loop.writers) == [world.fd]
    assert len(world.channel._queue) == MAX_QUEUED
    for k in range(sent):
        iova, *_ = struct.unpack_from("=Q", world.read(), 12)
        assert iova == k << 12
        if flush := world.loop.writers.get(world.fd):
            flush()
    assert world.loop.writers == {}
    world.channel.close()
    world.front.close()


def test_descriptors_on_an_answer_are_closed(world: World) -> None:
    world.channel.miss(0x5000, 1)
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(world.front, [reply()], [world.front.fileno()] * 3)
    world.loop.readers[world.fd]()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert world.channel.open


@pytest.mark.parametrize("kind", [
    FileKind.EVENT, FileKind.MEMORY, FileKind.PIPE, FileKind.DISK, FileKind.DIRECTORY,
    FileKind.DEVICE])
def test_what_is_no_socket(files: Files, kind: FileKind) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProtocolError, match="channel for questions"):
        BackChannel(os.dup(files.get(kind)), FakeLoop(), acknowledged=True,
                    refused=lambda iova, permission: None)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(("family", "kind"), [
    (socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_SEQPACKET),
    (socket.AF_INET, socket.SOCK_STREAM)])
def test_another_socket(family: int, kind: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProtocolError, match="no Unix stream socket"):
        BackChannel(socket.socket(family, kind).detach(), FakeLoop(), acknowledged=True,
                    refused=lambda iova, permission: None)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_both_ends_understand_each_other() -> None:
    front = FrontChannel()
    loop = FakeLoop()
    channel = BackChannel(front.theirs.detach(), loop, acknowledged=True,
                          refused=lambda iova, permission: None)
    channel.miss(0x5000, 2)
    channel.config_changed()
    front.handle()
    assert front.misses == [Iotlb(0x5000, 0, 0, 2, 1)]
    assert front.config_changes == 1
    for receive in list(loop.readers.values()):
        receive()
    assert channel.open
    channel.close()
    front.close()
