# SPDX-License-Identifier: Apache-2.0
"""vhost/connection.py: framing, and who owns which file descriptor."""

import os
import socket
from array import array
from collections.abc import Iterator

import pytest

from byway.vhost.connection import Closed, Connection
from byway.vhost.messages import HEADER, MAX_FDS, ProtocolError, Request


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection and its peer's socket; nothing may stay open."""
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(ours)
    yield connection, theirs
    connection.close()
    theirs.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def send(peer: socket.socket, data: bytes, fds: list[int] | None) -> None:
    rights = [] if fds is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
    peer.sendmsg([data], rights)


def test_there_and_back(pair: tuple[Connection, socket.socket]) -> None:
    ours, peer = pair
    theirs = Connection(peer)
    theirs.send(Request.SET_VRING_KICK, 8, b"12345678", [0, 1])
    message = ours.receive()
    assert message is not None
    assert (message.request, message.flags, message.payload) == (12, 9, b"12345678")
    assert message.name == "SET_VRING_KICK"
    assert [os.path.samestat(os.fstat(a), os.fstat(b))
            for a, b in zip(message.fds, (0, 1), strict=True)] == [True, True]
    assert not any(os.get_inheritable(fd) for fd in message.fds)
    taken = message.take_fd()
    message.close()
    message.close()
    os.fstat(taken)
    os.close(taken)
    assert message.take_fd() == -1


def test_nothing_yet(pair: tuple[Connection, socket.socket]) -> None:
    assert pair[0].receive() is None


def test_a_timeout_is_nothing_yet() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.01)
    connection = Connection(ours)
    assert connection.receive() is None
    connection.close()
    theirs.close()


def test_byte_by_byte(pair: tuple[Connection, socket.socket]) -> None:
    ours, peer = pair
    data = HEADER.pack(1, 1, 3) + b"abc"
    for i, byte in enumerate(data):
        assert ours.receive() is None
        send(peer, bytes([byte]), [0] if i == 0 else None)
    message = ours.receive()
    assert message is not None
    assert (message.payload, len(message.fds)) == (b"abc", 1)
    message.close()


def test_messages_back_to_back_keep_their_fds(pair: tuple[Connection, socket.socket]) -> None:
    ours, peer = pair
    for n in range(3):
        send(peer, HEADER.pack(n + 1, 1, n) + bytes(n), [0] * n or None)
    for n in range(3):
        message = ours.receive()
        assert message is not None
        assert (message.request, len(message.payload), len(message.fds)) == (n + 1, n, n)
        message.close()


def test_zero_file_descriptors_may_be_announced(pair: tuple[Connection, socket.socket]) -> None:
    """DPDK's virtio_user sends an empty SCM_RIGHTS with messages that carry no fd."""
    ours, peer = pair
    send(peer, HEADER.pack(3, 1, 0), [])
    message = ours.receive()
    assert message is not None
    assert message.fds == []


@pytest.mark.parametrize("flags", [0, 2, 3, 0x11, 0x80000001])
def test_wrong_flags(pair: tuple[Connection, socket.socket], flags: int) -> None:
    send(pair[1], HEADER.pack(1, flags, 0), [0, 1])
    with pytest.raises(ProtocolError, match=r"version|unknown flags"):
        pair[0].receive()


def test_too_much_payload(pair: tuple[Connection, socket.socket]) -> None:
    send(pair[1], HEADER.pack(1, 1, 4097), [0])
    with pytest.raises(ProtocolError, match="GET_FEATURES with 4097 bytes"):
        pair[0].receive()


@pytest.mark.parametrize("n", [MAX_FDS, MAX_FDS + 1, 253])
def test_too_many_file_descriptors(pair: tuple[Connection, socket.socket], n: int) -> None:
    send(pair[1], HEADER.pack(1, 1, 0), [0] * n)
    if n == MAX_FDS:
        message = pair[0].receive()
        assert message is not None
        message.close()
        return
    with pytest.raises(ProtocolError, match="more file descriptors"):
        pair[0].receive()


def test_too_many_file_descriptors_in_pieces(pair: tuple[Connection, socket.socket]) -> None:
    ours, peer = pair
    for byte in HEADER.pack(1, 1, 0)[:2]:
        send(peer, bytes([byte]), [0] * 20)
    with pytest.raises(ProtocolError, match="more than 32"):
        ours.receive()


def test_file_descriptors_on_a_payload(pair: tuple[Connection, socket.socket]) -> None:
    ours, peer = pair
    send(peer, HEADER.pack(1, 1, 4), None)
    assert ours.receive() is None
    send(peer, b"abcd", [0])
    with pytest.raises(ProtocolError, match="attached to a payload"):
        ours.receive()


@pytest.mark.parametrize("n", [0, 1, 11, 12, 13, 19])
def test_hang_up_in_the_middle(pair: tuple[Connection, socket.socket], n: int) -> None:
    ours, peer = pair
    if n:
        send(peer, (HEADER.pack(1, 1, 8) + bytes(8))[:n], [0, 1])
    peer.close()
    with pytest.raises(Closed, match=f"after {n} bytes" if n else "closed the connection$"):
        ours.receive()


def test_closing_closes_what_is_incomplete(pair: tuple[Connection, socket.socket]) -> None:
    ours, peer = pair
    send(peer, b"abc", [0, 1])
    assert ours.receive() is None
    assert ours.fileno() >= 0
    ours.close()
    ours.close()
    assert ours.fileno() == -1


def test_a_reset_connection_is_closed(pair: tuple[Connection, socket.socket]) -> None:
    ours, peer = pair
    ours.send(1, 1)  # unread data makes close a reset
    peer.close()
    with pytest.raises(Closed):
        ours.receive()


def test_sending_never_blocks(pair: tuple[Connection, socket.socket]) -> None:
    def fill() -> None:
        for _ in range(100_000):
            pair[0].send(Request.GET_FEATURES, 4, bytes(4096))

    with pytest.raises(ProtocolError, match="does not read: GET_FEATURES"):
        fill()


def test_sending_to_nobody(pair: tuple[Connection, socket.socket]) -> None:
    ours, peer = pair
    peer.close()
    with pytest.raises(Closed, match="GET_FEATURES cannot be sent"):
        ours.send(Request.GET_FEATURES, 4, bytes(8))
