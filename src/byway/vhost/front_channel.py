# SPDX-License-Identifier: Apache-2.0
"""The front end's end of the channel on which a back end asks ("Back-end message types").

Used by the front end, which hands the other end over with SET_BACKEND_REQ_FD; uses connection,
messages and payloads.

A back end may ask for a translation (IOTLB miss), say that the configuration changed, or offer a
host notifier. Nothing here waits: what was asked is noted, and acknowledged where the back end
wants that; the answer to a miss is a message on the main socket, which the front end sends when it
is not in the middle of another exchange. Both ends may therefore wait for each other's
acknowledgement without a dead-lock.

What a back end may ask is bounded: ``MISSES`` misses are remembered, one more is forgotten (the
back end asks again).
"""

import socket
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from byway.vhost.connection import Connection, Message
from byway.vhost.messages import NEED_REPLY, REPLY, VERSION, ProtocolError
from byway.vhost.payloads import Iotlb, pack_u64

MESSAGES_A_TURN = 16
MISSES = 64
MISS, UPDATE, INVALIDATE, ACCESS_FAIL = 1, 2, 3, 4  # Iotlb.kind
READ, WRITE, READ_WRITE = 1, 2, 3  # Iotlb.permission


class Asked(IntEnum):
    """Back-end message types."""

    IOTLB_MSG = 1
    CONFIG_CHANGE_MSG = 2
    VRING_HOST_NOTIFIER_MSG = 3
    VRING_CALL = 4
    VRING_ERR = 5
    SHARED_OBJECT_ADD = 6
    SHARED_OBJECT_REMOVE = 7
    SHARED_OBJECT_LOOKUP = 8
    SHMEM_MAP = 9
    SHMEM_UNMAP = 10


class _Shape(NamedTuple):
    payload: int  # bytes
    fds: int  # at the most
    served: bool = False


_SHAPES = {
    Asked.IOTLB_MSG: _Shape(32, 0, served=True),
    Asked.CONFIG_CHANGE_MSG: _Shape(0, 0, served=True),
    Asked.VRING_HOST_NOTIFIER_MSG: _Shape(24, 1),
    Asked.VRING_CALL: _Shape(8, 0),
    Asked.VRING_ERR: _Shape(8, 0),
    Asked.SHARED_OBJECT_ADD: _Shape(16, 0),
    Asked.SHARED_OBJECT_REMOVE: _Shape(16, 0),
    Asked.SHARED_OBJECT_LOOKUP: _Shape(16, 0),
    Asked.SHMEM_MAP: _Shape(40, 1),
    Asked.SHMEM_UNMAP: _Shape(40, 0),
}


class FrontChannel:
    """One channel. ``theirs`` is the end for the back end, until ``handed_over``.

    ``reaches(iova)``: is there a translation? A miss without one is refused (as QEMU does).

    ``misses``: what is to be translated; ``config_changes``, ``access_failures``: how often the
    back end said so; ``refused``: names of what it asked for in vain.
    """

    def __init__(self, reaches: Callable[[int], bool] = lambda iova: True) -> None:
        self._reaches = reaches
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._connection = Connection(ours)
        self.misses: list[Iotlb] = []
        self.config_changes = 0
        self.access_failures = 0
        self.refused: set[str] = set()

    def fileno(self) -> int:
        """Our end: readable where the back end asked something, or hung up."""
        return self._connection.fileno()

    def handed_over(self) -> None:
        """The back end has its end: ours notices when it closes that."""
        self.theirs.close()

    def handle(self) -> None:
        """Take what was asked, a few messages at the most. ProtocolError or Closed: no more will
        come."""
        for _ in range(MESSAGES_A_TURN):
            message = self._connection.receive()
            if message is None:
                return
            try:
                self._take(message)
            finally:
                message.close()

    def _take(self, message: Message) -> None:
        asked, shape = _known(message)
        done = shape.served
        if asked == Asked.IOTLB_MSG:
            done = self._translation(Iotlb.unpack(message.payload))
        elif asked == Asked.CONFIG_CHANGE_MSG:
            self.config_changes += 1
        else:
            self.refused.add(asked.name.lower())
        if message.flags & NEED_REPLY:
            self._connection.send(asked, VERSION | REPLY, pack_u64(0 if done else 1))

    def _translation(self, iotlb: Iotlb) -> bool:
        """Note what is to be translated; -> whether it will be."""
        if iotlb.kind == ACCESS_FAIL:
            self.access_failures += 1
            return True
        if iotlb.kind != MISS or not READ <= iotlb.permission <= READ_WRITE:
            raise ProtocolError(f"the back end sent an IOTLB message of type {iotlb.kind}, "
                                f"permission {iotlb.permission}")
        if not self._reaches(iotlb.iova):
            return False
        if iotlb not in self.misses and len(self.misses) < MISSES:
            self.misses.append(iotlb)
        return True

    def close(self) -> None:
        """Close both ends. Idempotent."""
        self.theirs.close()
        self._connection.close()


def _known(message: Message) -> tuple[Asked, _Shape]:
    """What the message is; ProtocolError where it is nothing that a back end may say."""
    try:
        asked = Asked(message.request)
    except ValueError:
        raise ProtocolError(f"the back end asked for {message.request}, which is no request") \
            from None
    shape = _SHAPES[asked]
    if message.flags & REPLY:
        raise ProtocolError(f"the back end sent {asked.name} as a reply")
    if len(message.payload) != shape.payload:
        raise ProtocolError(f"the back end's {asked.name} has {len(message.payload)} bytes, not "
                            f"{shape.payload}")
    if len(message.fds) > shape.fds:
        raise ProtocolError(f"the back end's {asked.name} carries {len(message.fds)} file "
                            "descriptors")
    return asked, shape


