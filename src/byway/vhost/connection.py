# SPDX-License-Identifier: Apache-2.0
"""One vhost-user connection: framing, and the file descriptors that ride on messages.

Used by the back end, the front end and byway.testing; uses messages.

A message is a header of 12 bytes and its payload; fds are attached to the header's bytes
("Header", "Communication"). The header is read by a recvmsg of its own, never a byte more: the
kernel would attach the fds of a following message to whatever that call returned. Both parts may
come in pieces, so what arrived is kept between two calls.

Every fd that arrived belongs to exactly one owner: this connection while its message is
incomplete, then the Message, then whoever took it out of the Message.
"""

import array
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from byway.vhost.messages import (
    FLAGS_MASK,
    HEADER,
    MAX_FDS,
    MAX_PAYLOAD,
    VERSION,
    VERSION_MASK,
    ProtocolError,
    request_name,
)

_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class Closed(Exception):
    """The peer is gone; ``reason`` says in the middle of what."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Message:
    """One message and its fds; fds nobody took are closed by ``close()``."""

    request: int
    flags: int
    payload: bytes = b""
    fds: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The request by name."""
        return request_name(self.request)

    def take_fd(self) -> int:
        """The first fd, which belongs to the caller now; -1 where there is none."""
        return self.fds.pop(0) if self.fds else -1

    def close(self) -> None:
        """Close the fds that nobody took. Idempotent."""
        _close_all(self.fds)


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


class Connection:
    """Sends and receives whole messages over a stream socket, which it owns.

    The socket may be non-blocking or have a timeout; see ``receive``.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._header = bytearray()
        self._payload = bytearray()
        self._fds: list[int] = []

    def fileno(self) -> int:
        """The socket's descriptor, -1 after ``close()``."""
        return self._sock.fileno()

    def receive(self) -> Message | None:
        """The next message, or None where it is not complete yet (would block, or timed out).

        Raises Closed at the end of the stream, ProtocolError for a header that cannot be one;
        in both cases every fd that came with the message is closed.
        """
        try:
            return self._receive()
        except (Closed, ProtocolError):
            _close_all(self._fds)
            raise
        except (BlockingIOError, TimeoutError):
            return None
        except OSError as error:
            _close_all(self._fds)
            raise Closed(f"the connection broke: {error.strerror}") from error

    def _receive(self) -> Message:
        while len(self._header) < HEADER.size:
            self._read(self._header, HEADER.size, _FD_SPACE)
        request, flags, size = HEADER.unpack(self._header)
        if flags & VERSION_MASK != VERSION:
            raise ProtocolError(f"a message of version {flags & VERSION_MASK}, not {VERSION}")
        if flags & ~FLAGS_MASK:
            raise ProtocolError(f"unknown flags {flags:#x} in the header of "
                                f"{request_name(request)}")
        if size > MAX_PAYLOAD:
            raise ProtocolError(f"{request_name(request)} with {size} bytes of payload, more "
                                f"than {MAX_PAYLOAD}")
        while len(self._payload) < size:
            self._read(self._payload, size, 0)
        message = Message(request, flags, bytes(self._payload), self._fds)
        self._header, self._payload, self._fds = bytearray(), bytearray(), []
        return message

    def _read(self, part: bytearray, size: int, fd_space: int) -> None:
        """Append to ``part``, up to ``size`` bytes; fds are taken where there is space for them.

        Without space the kernel itself closes what was attached.
        """
        data, ancillary, flags, _ = self._sock.recvmsg(size - len(part), fd_space,
                                                       socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("more file descriptors than a message can have, or attached to "
                                "a payload, or none free in this process (ulimit -n)")
        if len(self._fds) > MAX_FDS:
            raise ProtocolError(f"more than {MAX_FDS} file descriptors on one message")
        if not data:
            read = len(self._header) + len(self._payload)
            where = f" in the middle of a message (after {read} bytes)" if read else ""
            raise Closed(f"the peer closed the connection{where}")
        part += data

    def send(self, request: int, flags: int, payload: bytes = b"",
             fds: Sequence[int] = ()) -> None:
        """Send one message; the fds stay the caller's.

        ProtocolError where the socket takes no more (its peer does not read), Closed where the
        peer is gone. After either, nothing more can be sent.
        """
        data = memoryview(HEADER.pack(request, flags | VERSION, len(payload)) + payload)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self._sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            while sent < len(data):
                sent += self._sock.send(data[sent:], socket.MSG_NOSIGNAL)
        except (BlockingIOError, TimeoutError) as error:
            raise ProtocolError(f"the peer does not read: {request_name(request)} cannot be "
                                "sent") from error
        except OSError as error:
            raise Closed(f"{request_name(request)} cannot be sent: {error.strerror}") from error

    def close(self) -> None:
        """Close the socket and the fds of an incomplete message. Idempotent."""
        _close_all(self._fds)
        self._sock.close()
