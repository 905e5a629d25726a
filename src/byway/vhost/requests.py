# SPDX-License-Identifier: Apache-2.0
"""The front end's requests, one at a time, each with its reply in time.

Used by the front end's files; uses messages, payloads, connection and the back end's channel.

It believes nothing: a reply must come within ``timeout`` seconds, answer the request, have the
flags and one of the sizes that the specification gives it, and carry the file descriptors that it
may. Where acknowledgements can be had (REPLY_ACK), everything is acknowledged. While a reply is
waited for, what the back end asks on its own channel is taken, so that it may wait for us
meanwhile.
"""

import select
import socket
import time
from collections.abc import Collection, Sequence

from byway.vhost.connection import Closed, Connection, Message
from byway.vhost.front_channel import FrontChannel
from byway.vhost.messages import (
    NEED_REPLY,
    REPLY,
    VERSION,
    ProtocolError,
    ProtocolFeature,
    Request,
)
from byway.vhost.payloads import unpack_u64


class RequestRefused(ProtocolError):
    """The back end says that it does not do a request; the conversation may go on."""

    def __init__(self, request: Request, why: str) -> None:
        super().__init__(f"the back end refused {request.name} ({why})")
        self.request = request


class Requests:
    """Exchanges with a back end over a connected socket, which it owns.

    ``protocol_features``: what was negotiated (bits). ``channel``: on which the back end asks.
    """

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        sock.setblocking(False)
        self._connection = Connection(sock)
        self._timeout = timeout
        self.protocol_features = 0
        self.channel: FrontChannel | None = None

    def fileno(self) -> int:
        """The socket's descriptor: readable where the back end hung up."""
        return self._connection.fileno()

    def took(self, feature: ProtocolFeature) -> bool:
        """Was the protocol feature negotiated?"""
        return bool(self.protocol_features >> feature & 1)

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._connection.close()
        if self.channel:
            self.channel.close()

    # ------------------------------------------------------------ exchanges

    def _send(self, request: Request, flags: int, payload: bytes, fds: Sequence[int]) -> None:
        if not self._wait(select.POLLOUT, self._timeout):
            raise ProtocolError(f"the back end does not read: {request.name} cannot be sent "
                                f"within {self._timeout:g} s")
        self._connection.send(request, flags, payload, fds)

    def _wait(self, events: int, seconds: float) -> bool:
        """Whether the socket becomes ready in time; Closed where it is closed on this side."""
        if self.fileno() < 0:
            raise Closed("the connection was closed on this side")
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.fileno(), events)
        if self.channel and self.channel.fileno() >= 0:
            poll.register(self.channel.fileno(), select.POLLIN)
        while True:
            left = max(0.0, end - time.monotonic())
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            if self.fileno() in ready:
                return True
            if not ready or not left:
                return False
            self.take_asked()

    def take_asked(self) -> None:
        """Note what the back end asked on its channel (which it may close)."""
        assert self.channel
        try:
            self.channel.handle()
        except Closed:
            self.channel.close()

    def _message(self, request: Request) -> Message:
        """The reply to ``request``, whose fds the caller takes or closes."""
        end = time.monotonic() + self._timeout
        message: Message | None = None
        while message is None:
            if not self._wait(select.POLLIN, end - time.monotonic()):
                raise ProtocolError(f"no reply to {request.name} within {self._timeout:g} s")
            message = self._connection.receive()
        return message

    def _reply(self, request: Request, sizes: Collection[int], fds: int = 0) -> Message:
        """The reply, of one of ``sizes`` bytes and with at most ``fds`` file descriptors."""
        message = self._message(request)
        problem = ""
        if message.request != request:
            problem = f"{request.name} was answered with {message.name}"
        elif message.flags != VERSION | REPLY:
            problem = (f"the reply to {request.name} has flags {message.flags:#x}, not "
                       f"{VERSION | REPLY:#x}")
        elif len(message.payload) not in sizes:
            expected = " or ".join(str(size) for size in sorted(sizes))
            problem = (f"the reply to {request.name} has {len(message.payload)} bytes, not "
                       f"{expected}")
        elif len(message.fds) > fds:
            problem = f"the reply to {request.name} carries file descriptors"
        if problem:
            message.close()
            raise ProtocolError(problem)
        return message

    def _get(self, request: Request, payload: bytes = b"", size: int = 8) -> bytes:
        """A request that is answered with ``size`` bytes of data."""
        self._send(request, VERSION, payload, ())
        return self._reply(request, (size,)).payload

    def _set(self, request: Request, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """A request without data in return; acknowledged where that was negotiated."""
        if not self.took(ProtocolFeature.REPLY_ACK):
            self._send(request, VERSION, payload, fds)
            return
        self._send(request, VERSION | NEED_REPLY, payload, fds)
        if result := unpack_u64(self._reply(request, (8,)).payload):
            raise RequestRefused(request, f"result {result}")

    def _need(self, feature: ProtocolFeature, request: Request) -> None:
        """ProtocolError where ``request`` means nothing, because nobody agreed on ``feature``."""
        if not self.took(feature):
            raise ProtocolError(f"{request.name} needs {feature.name}, which was not negotiated")

    def _sync(self) -> None:
        """Return when the back end has done everything sent so far."""
        if not self.took(ProtocolFeature.REPLY_ACK):
            self._get(Request.GET_FEATURES)
