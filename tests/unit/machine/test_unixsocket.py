# SPDX-License-Identifier: Apache-2.0
"""machine/unixsocket.py: which paths are taken, replaced and refused."""

import os
import socket
import stat
from pathlib import Path

import pytest

from byway.machine import unixsocket
from byway.machine.unixsocket import SocketError


def test_listen_and_connect(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener = unixsocket.listen(path)
    client = unixsocket.connect(path, 1.0)
    server, _ = listener.accept()
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    for sock in (client, server):
        sock.close()
    unixsocket.close(listener)
    assert not os.path.exists(path)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_mode(tmp_path: Path, mode: int) -> None:
    path = str(tmp_path / "s")
    before = os.umask(0o022)
    try:
        listener = unixsocket.listen(path, mode)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    unixsocket.close(listener)


def test_the_longest_path(tmp_path: Path) -> None:
    folder = os.fspath(tmp_path)
    longest = folder + "/" + "s" * (107 - len(os.fsencode(folder)) - 1)
    unixsocket.close(unixsocket.listen(longest))
    for act in (unixsocket.listen, unixsocket.connect):
        with pytest.raises(SocketError, match="108 bytes") as caught:
            act(longest + "s")
        assert "shorter" in caught.value.fix


def test_bytes_are_counted_not_characters(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="bytes"):
        unixsocket.listen(os.fspath(tmp_path) + "/" + "ü" * 60)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_no_path(path: str) -> None:
    with pytest.raises(SocketError, match="no path"):
        unixsocket.listen(path)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="does not exist") as caught:
        unixsocket.listen(str(tmp_path / "no" / "s"))
    assert "mkdir" in caught.value.fix


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(SocketError, match="no socket"):
        unixsocket.listen(str(path))
    assert path.read_text() == "precious"


def test_a_live_socket_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener = unixsocket.listen(path)
    with pytest.raises(SocketError, match="in use"):
        unixsocket.listen(path)
    unixsocket.close(listener)


def test_a_live_socket_with_a_full_backlog_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener = unixsocket.listen(path, backlog=0)
    waiting = unixsocket.connect(path, 1.0)
    with pytest.raises(SocketError, match="in use"):
        unixsocket.listen(path)
    waiting.close()
    unixsocket.close(listener)


def test_a_datagram_socket_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(SocketError, match="in use"):
            unixsocket.listen(path)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    unixsocket.close(unixsocket.listen(path))


def test_closing_leaves_the_successor_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    first = unixsocket.listen(path)
    os.unlink(path)
    second = unixsocket.listen(path)
    unixsocket.close(first)
    assert os.path.exists(path)
    unixsocket.close(second)


def test_closing_leaves_a_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = unixsocket.listen(str(path))
    path.unlink()
    path.write_text("new")
    unixsocket.close(listener)
    assert path.read_text() == "new"


def test_connect_says_why_not(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with pytest.raises(SocketError, match="does not exist"):
        unixsocket.connect(path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with pytest.raises(SocketError, match="nobody listens"):
        unixsocket.connect(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(SocketError, match="cannot connect"):
            unixsocket.connect(path)
