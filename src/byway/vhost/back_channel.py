# SPDX-License-Identifier: Apache-2.0
"""The back end's end of the channel on which it asks (SET_BACKEND_REQ_FD).

Used by the back end; uses messages, payloads and front_channel (the numbers of what may be asked).
vhost-user specification, "Back-end communication" and "Back-end message types".

The socket comes from the front end, which may keep a second descriptor of it and change its flags:
every call therefore says itself that it must not wait. What the socket does not take is queued, at
most MAX_QUEUED messages; where the front end acknowledges (REPLY_ACK), at most MAX_UNANSWERED are
under way. Beyond that nothing is sent and the caller is told: a peer that never reads costs some
kilobytes. A channel that breaks is closed and stays so (``reason`` says why); the conversation
itself goes on.
"""

import os
import socket
import stat
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from byway.vhost.front_channel import MISS, Asked
from byway.vhost.messages import HEADER, NEED_REPLY, REPLY, VERSION, ProtocolError
from byway.vhost.payloads import Iotlb, unpack_u64

MAX_QUEUED = 256
MAX_UNANSWERED = 256
_ANSWER = HEADER.size + 8  # bytes of an acknowledgement
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

Refusal = Callable[[int, int], None]


class Loop(Protocol):
    """What is needed of an event loop (asyncio's has it)."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> Any:
        """Call it whenever ``fd`` can be read."""

    def remove_reader(self, fd: int, /) -> Any:
        """No longer."""

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> Any:
        """Call it whenever ``fd`` can be written."""

    def remove_writer(self, fd: int, /) -> Any:
        """No longer."""


class BackChannel:
    """Asks the front end; owns ``fd`` from the beginning, also where it is refused
    (ProtocolError: it is no stream socket).

    ``acknowledged``: whether REPLY_ACK was negotiated. ``refused(iova, permission)``: the front
    end has no answer to a miss.
    """

    def __init__(self, fd: int, loop: Loop, *, acknowledged: bool, refused: Refusal) -> None:
        self._sock = _stream_socket(fd)
        self._loop = loop
        self._acknowledged = acknowledged
        self._refused = refused
        self._queue: deque[bytes] = deque()
        self._writing = False  # the loop tells when more can be written
        self._unanswered: deque[tuple[int, Iotlb | None]] = deque()
        self._answer = b""
        self.reason = ""
        loop.add_reader(self._sock.fileno(), self.receive)

    @property
    def open(self) -> bool:
        """Whether something can be asked at all."""
        return self._sock.fileno() >= 0

    # ------------------------------------------------------------ asking
    def miss(self, iova: int, permission: int) -> bool:
        """Ask for the translation of ``iova``; -> whether that was possible now."""
        question = Iotlb(iova, 0, 0, permission, MISS)
        return self._ask(Asked.IOTLB_MSG, question.pack(), question)

    def config_changed(self) -> bool:
        """Tell that the device's configuration space changed; -> whether that was possible now."""
        return self._ask(Asked.CONFIG_CHANGE_MSG, b"", None)

    def _ask(self, request: Asked, payload: bytes, question: Iotlb | None) -> bool:
        if (not self.open or len(self._queue) >= MAX_QUEUED
                or len(self._unanswered) >= MAX_UNANSWERED):
            return False
        flags = VERSION
        if self._acknowledged:
            flags |= NEED_REPLY
            self._unanswered.append((request, question))
        self._queue.append(HEADER.pack(request, flags, len(payload)) + payload)
        self.flush()
        return self.open

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._queue:
            data = self._queue[0]
            try:
                sent = self._sock.send(data, _FLAGS)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._break(f"the channel for questions broke: {error.strerror}")
                return
            if sent < len(data):
                self._queue[0] = data[sent:]
            else:
                self._queue.popleft()
        if bool(self._queue) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._sock.fileno(), self.flush)
            else:
                self._loop.remove_writer(self._sock.fileno())

    # ------------------------------------------------------------ answers
    def receive(self) -> None:
        """Take the acknowledgements that are there, a bounded number of them."""
        for _ in range(MAX_UNANSWERED):
            try:
                # A plain recv: descriptors that come along are closed by the Linux kernel.
                data = self._sock.recv(_ANSWER - len(self._answer), socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._break(f"the channel for questions broke: {error.strerror}")
                return
            if not data:
                self._break("the front end closed the channel for questions")
                return
            self._answer += data
            if len(self._answer) == _ANSWER:
                answer, self._answer = self._answer, b""
                try:
                    self._take(answer)
                except ProtocolError as error:
                    self._break(error.reason)
                    return

    def _take(self, answer: bytes) -> None:
        request, flags, size = HEADER.unpack_from(answer)
        if not self._unanswered:
            raise ProtocolError("an answer to no question")
        asked, question = self._unanswered.popleft()
        if (request, flags, size) != (asked, VERSION | REPLY, 8):
            raise ProtocolError(f"an answer with header {request}, {flags:#x}, {size} to "
                                f"{Asked(asked).name}")
        if unpack_u64(answer[HEADER.size:]) and question:
            self._refused(question.iova, question.permission)

    # ------------------------------------------------------------ its end
    def _break(self, reason: str) -> None:
        self.reason = reason
        self.close()

    def close(self) -> None:
        """Close the socket; nothing more is asked. Idempotent."""
        if self.open:
            self._loop.remove_reader(self._sock.fileno())
            if self._writing:
                self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
        self._queue.clear()
        self._unanswered.clear()
        self._writing = False


def _stream_socket(fd: int) -> socket.socket:
    """The Unix stream socket that a descriptor is; otherwise it is closed."""
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            sock = socket.socket(fileno=fd)
            if (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_STREAM):
                sock.setblocking(False)
                return sock
            sock.detach()
    except OSError as error:
        os.close(fd)
        raise ProtocolError(f"the channel for questions: {error.strerror}") from error
    os.close(fd)
    raise ProtocolError("the channel for questions is no Unix stream socket")
