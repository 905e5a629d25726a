# SPDX-License-Identifier: Apache-2.0
"""The front end's end of a vhost-user connection, free to say anything, strict in what it hears.

Used by the bench, the sessions and the checks of back ends; uses vhost. ``ask`` and ``get`` judge
a reply by what the specification says of replies ("Header", "REPLY_ACK"); ``raw`` sends bytes.
"""

import array
import fcntl
import os
import select
import socket
import termios
import time
from collections.abc import Sequence

from byway.conform.outcome import Failed, HungUp, Unable
from byway.vhost.connection import Closed, Connection, Message
from byway.vhost.messages import (
    HEADER,
    NEED_REPLY,
    REPLY,
    VERSION,
    ProtocolError,
    ProtocolFeature,
    request_name,
)
from byway.vhost.payloads import pack_u64, unpack_u64

QUIET = 0.15  # seconds in which nothing must come
PAUSE = 0.001  # seconds between two looks


class Wire:
    """One connection. ``timeout``: seconds within which whatever must come has to come."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._connection = Connection(sock)
        self.timeout = timeout
        self.protocol_features = 0

    # ------------------------------------------------------------ speaking
    def send(self, request: int, payload: bytes = b"", fds: Sequence[int] = (), *,
             flags: int = VERSION, size: int | None = None) -> None:
        """Send one message; ``size``: what its header claims, if not the truth."""
        size = len(payload) if size is None else size
        self.raw(HEADER.pack(request, flags, size) + payload, fds)

    def say(self, request: int, payload: bytes, fds: Sequence[int], flags: int, declared: int,
            cut: int) -> None:
        """Send a message that may be wrong: ``declared`` bytes claimed, ``cut`` sent (-1: all)."""
        size = len(payload) if declared < 0 else declared
        data = HEADER.pack(request & 0xFFFFFFFF, flags & 0xFFFFFFFF, size & 0xFFFFFFFF) + payload
        self.raw(data if cut < 0 else data[:cut], fds)

    def raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes, fds attached to the first of them."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        view = memoryview(data)
        try:
            while view:
                if not self._ready(select.POLLOUT, self.timeout):
                    raise Failed(f"it does not read: {len(view)} bytes could not be sent within "
                                 f"{self.timeout:g} s")
                sent = self._sock.sendmsg([view], rights, socket.MSG_NOSIGNAL)
                view, rights = view[sent:], []
        except (BrokenPipeError, ConnectionResetError) as error:
            raise HungUp("it hung up") from error

    def taken(self, seconds: float) -> bool:
        """Wait until the peer has read all that was sent, on a busy machine too; -> has it?"""
        unread, end = array.array("i", [0]), time.monotonic() + seconds
        while True:
            fcntl.ioctl(self._sock, termios.TIOCOUTQ, unread)
            if unread[0] == 0 or time.monotonic() > end:
                return unread[0] == 0
            time.sleep(PAUSE)

    # ------------------------------------------------------------ hearing
    def _ready(self, events: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._sock.fileno(), events)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def receive(self, seconds: float | None = None) -> Message | None:
        """The next message, None where none comes in time; HungUp at the end of the stream."""
        end = time.monotonic() + (self.timeout if seconds is None else seconds)
        try:
            while True:
                message = self._connection.receive()
                if message is not None:
                    return message
                if not self._ready(select.POLLIN, end - time.monotonic()):
                    return None
        except Closed as closed:
            raise HungUp(f"it hung up ({closed.reason})") from closed
        except ProtocolError as error:
            raise Failed(f"it sent {error.reason}") from error

    def reply(self, request: int, size: int | None = 8, fds: bool = False) -> Message:
        """The reply to a request, judged."""
        name = request_name(request)
        message = self.receive()
        if message is None:
            raise Failed(f"no reply to {name} within {self.timeout:g} s")
        if message.request != request:
            message.close()
            raise Failed(f"{name} was answered with {message.name}")
        if message.flags != VERSION | REPLY:
            message.close()
            raise Failed(f"the reply to {name} has flags {message.flags:#x}, not 0x5")
        if size is not None and len(message.payload) != size:
            message.close()
            raise Failed(f"the reply to {name} has {len(message.payload)} bytes, not {size}")
        if message.fds and not fds:
            message.close()
            raise Failed(f"the reply to {name} carries file descriptors")
        return message

    def get(self, request: int, payload: bytes = b"", size: int = 8,
            fds: Sequence[int] = ()) -> bytes:
        """Ask for data; -> the payload of the reply."""
        self.send(request, payload, fds)
        return self.reply(request, size).payload

    def get_u64(self, request: int) -> int:
        """Ask for an integer."""
        return unpack_u64(self.get(request))

    # ------------------------------------------------------------ being acknowledged
    def took(self, feature: ProtocolFeature) -> bool:
        """Whether this protocol feature was negotiated."""
        return bool(self.protocol_features >> feature & 1)

    @property
    def acked(self) -> bool:
        """Whether acknowledgements can be had."""
        return self.took(ProtocolFeature.REPLY_ACK)

    def ask(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> int:
        """Send with NEED_REPLY; -> the result, 0 for done."""
        self.send(request, payload, fds, flags=VERSION | NEED_REPLY)
        return unpack_u64(self.reply(request).payload)

    def set(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """A request that has to be done; acknowledged where that was negotiated."""
        if not self.acked:
            self.send(request, payload, fds)
        elif result := self.ask(request, payload, fds):
            raise Failed(f"{request_name(request)} was refused (result {result})")

    def refuses(self, request: int, payload: bytes = b"", fds: Sequence[int] = (), *,
                flags: int = VERSION, size: int | None = None) -> str:
        """Send what cannot be done; -> how it was refused. Failed where it was accepted."""
        if not self.acked:
            self.send(request, payload, fds, flags=flags, size=size)
            if self.hung_up(2 * QUIET):
                return "it hung up"
            raise Unable("without REPLY_ACK only a closed connection can say no, and it went on")
        try:
            self.send(request, payload, fds, flags=flags | NEED_REPLY, size=size)
            result = unpack_u64(self.reply(request).payload)
        except HungUp:
            return "it hung up"
        if result == 0:
            raise Failed(f"{request_name(request)} was acknowledged as done")
        return f"refused with result {result:#x}"

    # ------------------------------------------------------------ silence
    def quiet(self, seconds: float = QUIET) -> None:
        """Nothing comes for so long, and the connection stays."""
        message = self.receive(seconds)
        if message is not None:
            message.close()
            raise Failed(f"unasked, it sent {message.name} with {len(message.payload)} bytes")

    def hung_up(self, seconds: float) -> bool:
        """Whether it hangs up within so many seconds; what it says until then is dropped."""
        end = time.monotonic() + seconds
        try:
            while True:
                message = self.receive(max(0.0, end - time.monotonic()))
                if message is not None:
                    message.close()
                elif time.monotonic() >= end:
                    return False
        except HungUp:
            return True

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._connection.close()


class Leash:
    """An fd to give away: tells when every copy of it has been closed."""

    def __init__(self) -> None:
        self._end, self.fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def let_go(self) -> None:
        """Close our own copy. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def closed(self, seconds: float) -> bool:
        """Whether nobody holds a copy any more, within so many seconds."""
        self.let_go()
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Let go of both ends."""
        self.let_go()
        os.close(self._end)


def u64(value: int) -> bytes:
    """The payload of an integer."""
    return pack_u64(value)
