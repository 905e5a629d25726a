# SPDX-License-Identifier: Apache-2.0
"""A message in pieces is one for a peer that is slow to read as well; uses conform's own checks.

Nobody waits here: the wire's clock goes on by its pauses, and by that clock the peer reads.
"""

import socket
from typing import cast

import pytest

from byway.conform import wire
from byway.conform.backend.bench import Bench
from byway.conform.backend.transport import fragmented_header
from byway.vhost.messages import HEADER, REPLY, VERSION, Request
from byway.vhost.payloads import pack_u64

SLOW = 1.0  # seconds from one look of the peer's to the next


class SlowPeer:
    """The wire's clock, and the peer at its other end; ``connect`` makes it a bench."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        self.now = self.looked = 0.0
        self.pieces: list[bytes] = []
        self.wire = wire.Wire(near, timeout=10.0)

    def connect(self) -> wire.Wire:
        return self.wire

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.looked + SLOW:
            self.looked = self.now
            self.pieces.append(self.far.recv(100))
            if sum(map(len, self.pieces)) == HEADER.size:
                self.far.send(HEADER.pack(Request.GET_FEATURES, VERSION | REPLY, 8) + pack_u64(0))


def test_a_piece_is_read_before_the_next_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = SlowPeer()
    monkeypatch.setattr(wire, "time", peer)
    with peer.far:
        fragmented_header(cast(Bench, peer))
        assert [len(piece) for piece in peer.pieces] == [1] * HEADER.size
        peer.wire.close()
