# SPDX-License-Identifier: Apache-2.0
"""A back end that is a script: its replies lie in the socket before the front end's request."""

import socket
from array import array

from byway.vhost import FrontEnd
from byway.vhost.connection import Connection, Message
from byway.vhost.frontend import protocol_mask
from byway.vhost.messages import HEADER, ProtocolFeature, Request
from byway.vhost.payloads import pack_u64
from byway.virtio.features import Feature, mask

R, P = Request, ProtocolFeature
ACK = protocol_mask(P.REPLY_ACK)
PROTOCOL_FEATURES = mask(Feature.PROTOCOL_FEATURES)


class Script:
    """The other end of a front end's socket."""

    def __init__(self, timeout: float = 10.0) -> None:
        ours, theirs = socket.socketpair()
        self.front = FrontEnd(ours, timeout)
        self.peer = theirs
        self.peer.setblocking(False)

    def close(self) -> None:
        """Both ends; idempotent, as the front end's close is."""
        for _ in range(2):
            self.front.close()
            self.peer.close()

    def reply(self, request: int, payload: bytes = b"", flags: int = 5,
              fds: tuple[int, ...] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        self.peer.sendmsg([HEADER.pack(request, flags, len(payload)) + payload], rights)

    def u64(self, request: int, value: int = 0) -> None:
        self.reply(request, pack_u64(value))

    def said(self) -> list[Message]:
        """What the front end sent."""
        connection, got = Connection(self.peer), []
        while message := connection.receive():
            message.close()
            got.append(message)
        return got

    def negotiate(self, features: int = PROTOCOL_FEATURES, protocol: int = ACK,
                  status: int = 11) -> None:
        """A negotiation with these offers, all of which are taken."""
        acknowledged = protocol & ACK
        self.u64(R.GET_FEATURES, features)
        self.u64(R.GET_PROTOCOL_FEATURES, protocol)
        if protocol & 1:
            self.u64(R.GET_QUEUE_NUM, 4)
        with_status = protocol & protocol_mask(P.STATUS)
        for request in (R.SET_OWNER, *[R.SET_STATUS][: with_status], R.SET_FEATURES,
                        *[R.SET_STATUS][: with_status]):
            if acknowledged:
                self.u64(request)
        if with_status:
            self.u64(R.GET_STATUS, status)
        self.front.negotiate(-1, protocol)
        self.said()
