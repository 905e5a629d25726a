# SPDX-License-Identifier: Apache-2.0
"""What the checks of a back end work with: the way to its socket, and what is known of it.

Used by the runner and every check of a back end; uses wire. A check opens connections and
sessions; all that it opened is closed after it. A second session, to the other port of the same
switch (``peer``), stays open from check to check.

A back end may need a moment to notice that the last conversation ended and hang up on the next one
meanwhile: `connect` tries again until the timeout, and counts in ``rebuffs``.
"""

import itertools
import random
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from byway.conform.outcome import Failed, Gone, HungUp, NotApplicable
from byway.conform.wire import Wire, u64
from byway.machine import unixsocket
from byway.vhost.messages import ProtocolFeature, Request
from byway.virtio.features import Feature, has

if TYPE_CHECKING:
    from byway.conform.backend.session import Session

LEAST_MEMORY = 4 << 20  # a peer that has less left is begun anew
RETRY = 0.02  # seconds between two attempts to connect


class Door:
    """Where a peer is met: ``server``: we listen at the path; else we connect to it."""

    def __init__(self, path: str, server: bool, timeout: float) -> None:
        self.path, self.timeout = path, timeout
        self._listener = unixsocket.listen(path) if server else None

    @property
    def patience(self) -> float:
        """Seconds to wait for a peer: one that dials tries again only now and then."""
        return max(self.timeout, 10.0) if self._listener else self.timeout

    def open(self, seconds: float) -> socket.socket | None:
        """A connected socket, None where nobody comes in time (SocketError: never will)."""
        if self._listener is None:
            return unixsocket.connect(self.path, max(seconds, 0.01))
        poll = select.poll()
        poll.register(self._listener.fileno(), select.POLLIN)
        if not poll.poll(max(0.0, seconds) * 1000):
            return None
        return self._listener.accept()[0]

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._listener:
            unixsocket.close(self._listener)
            self._listener = None


class Bench:
    """One back end under test. ``seed`` decides everything that is random."""

    def __init__(self, path: str, *, server: bool = False, peer: str | None = None,
                 loopback: bool = False, timeout: float = 2.0, seed: int = 1) -> None:
        self.timeout, self.loopback, self.seed = timeout, loopback, seed
        self._door = Door(path, server, timeout)
        try:
            self._peer_door = Door(peer, server, timeout) if peer else None
        except OSError:
            self._door.close()
            raise
        self._peer: Session | None = None
        self._open = ExitStack()
        self._probed: Wire | None = None
        self.tags = itertools.count(1)
        self.rebuffs = 0
        self.offered = 0
        self.protocol_offered = 0
        self.known = False

    # ------------------------------------------------------------ connections
    def connect(self) -> Wire:
        """A connection on which GET_FEATURES was answered; closed after the check."""
        wire, self._probed = self._probed, None
        if wire is None or wire.hung_up(0):
            wire = self._dial(self._door)
        self._open.callback(wire.close)
        return wire

    def _dial(self, door: Door) -> Wire:
        end = time.monotonic() + door.patience
        reason = "nobody came"
        while True:
            try:
                sock = door.open(end - time.monotonic())
                if sock is not None:
                    wire = Wire(sock, self.timeout)
                    wire.get_u64(Request.GET_FEATURES)
                    return wire
            except HungUp as error:
                self.rebuffs += 1
                reason = str(error)
            except OSError as error:
                reason = str(error)
            if time.monotonic() > end:
                raise Gone(f"no connection to {door.path} within {door.patience:g} s: {reason}")
            time.sleep(RETRY)

    def intrude(self) -> socket.socket:
        """A second connection beside the one that runs (OSError: there is none to be had)."""
        sock = self._door.open(0.2)
        if sock is None:
            raise TimeoutError(110, "it dials no second time")
        return sock

    def negotiated(self, protocol: int = 1 << ProtocolFeature.REPLY_ACK) -> Wire:
        """A connection with an owner and those of these protocol features that are offered."""
        self.learn()
        wire = self.connect()
        if has(self.offered, Feature.PROTOCOL_FEATURES):
            wire.get_u64(Request.GET_PROTOCOL_FEATURES)
            taken = self.protocol_offered & protocol
            wire.send(Request.SET_PROTOCOL_FEATURES, u64(taken))
            wire.protocol_features = taken
        wire.set(Request.SET_OWNER)
        return wire

    def learn(self) -> None:
        """Find out what is offered, once."""
        if self.known:
            return
        wire = self.connect()
        self.offered = wire.get_u64(Request.GET_FEATURES)
        if has(self.offered, Feature.PROTOCOL_FEATURES):
            self.protocol_offered = wire.get_u64(Request.GET_PROTOCOL_FEATURES)
        wire.close()
        self.known = True

    def probe(self) -> None:
        """Gone where nobody answers at the socket; the connection serves the next check."""
        if self._probed is None:
            self._probed = self._dial(self._door)

    # ------------------------------------------------------------ what it needs to offer
    def need(self, *features: Feature | ProtocolFeature) -> None:
        """NotApplicable where one of these is not offered."""
        self.learn()
        for feature in features:
            words = self.offered if isinstance(feature, Feature) else self.protocol_offered
            if not words >> feature & 1:
                raise NotApplicable(f"did not offer {feature.name}")

    # ------------------------------------------------------------ the other port
    @property
    def has_way_back(self) -> bool:
        """Whether frames can come back to us."""
        return self.loopback or self._peer_door is not None

    def peer(self) -> "Session | None":
        """The session with the other port, None where there is none."""
        from byway.conform.backend.session import PEER, Session

        if self._peer_door is None:
            return None
        if self._peer is not None and (self._peer.wire.hung_up(0)
                                       or self._peer.memory.left() < LEAST_MEMORY):
            self._peer.close()
            self._peer = None
        if self._peer is None:
            self._peer = Session(self, replace(PEER, pairs=self._peer_pairs()),
                                 self._dial(self._peer_door))
            self._peer.run()
        return self._peer

    def _peer_pairs(self) -> int:
        """Two where there are so many: a back end may pass frames from queue to queue."""
        if not has(self.offered, Feature.MQ) or not self.protocol_offered >> ProtocolFeature.MQ & 1:
            return 1
        assert self._peer_door
        wire = self._dial(self._peer_door)
        try:
            wire.send(Request.SET_PROTOCOL_FEATURES, u64(1 << ProtocolFeature.MQ))
            return min(2, wire.get_u64(Request.GET_QUEUE_NUM))
        finally:
            wire.close()

    # ------------------------------------------------------------ the length of a check
    def random(self, name: str) -> random.Random:
        """The random numbers of a check: the same for the same seed."""
        return random.Random(f"{self.seed} {name}")

    def keep(self, closing: object) -> None:
        """Close this after the check."""
        self._open.callback(closing.close)  # type: ignore[attr-defined]

    def clear(self) -> None:
        """Close what the check opened."""
        self._open.close()
        self._open = ExitStack()

    @contextmanager
    def check(self) -> Iterator[None]:
        """For the length of a check: what it opens is closed after it."""
        try:
            yield
        finally:
            self.clear()

    def close(self) -> None:
        """Close everything. Idempotent."""
        self.clear()
        if self._probed:
            self._probed.close()
        if self._peer:
            self._peer.close()
            self._peer = None
        self._door.close()
        if self._peer_door:
            self._peer_door.close()


def expect(so: bool, otherwise: str) -> None:
    """Failed with ``otherwise`` where it is not so."""
    if not so:
        raise Failed(otherwise)
