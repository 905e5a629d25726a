# SPDX-License-Identifier: Apache-2.0
"""Frames through the back end under test: out of a session, into it, and what became of them.

Used by the checks of back ends that look at data. Every frame carries a tag of 8 bytes, so that it
is known again whatever the back end did to its addresses, and whatever else is on the network.
Without a way back (a peer, or a loopback) a frame that goes out is judged by its used entry only,
and nothing can come in: checks that need it are `Unable`.
"""

import struct
import time
from collections.abc import Sequence

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import Frame, Session, Setup
from byway.conform.outcome import Failed, Unable
from byway.conform.ring import PAUSE

OURS, THEIRS = b"\x02\0\0\0\xc0\x01", b"\x02\0\0\0\xc0\x02"
ETHERTYPE = b"\x88\xb5"  # IEEE 802, local experimental
MARK = b"byway"
SETTLE = 0.05  # seconds after which a frame that was not to come is taken not to come


def payload(tag: int, size: int) -> bytes:
    """``size`` bytes of content that begin with a tag, and are different all along."""
    head = MARK + struct.pack(">I", tag)
    body = bytes((tag * 7 + k * 13 + (k >> 8)) & 0xFF for k in range(max(0, size - len(head))))
    return (head + body)[: max(size, len(head))]


class Traffic:
    """A running session, and what sends to it and hears from it."""

    def __init__(self, bench: Bench, setup: Setup, *, run: bool = True) -> None:
        self.bench = bench
        bench.learn()
        self.session = Session(bench, setup, bench.connect())
        bench.keep(self.session)
        self.peer = bench.peer()
        if self.peer:
            self.peer.frames()
        if run:
            self.session.run()

    @property
    def far(self) -> Session | None:
        """Whoever hears what the session sends: the peer, the session itself, or nobody."""
        return self.peer or (self.session if self.bench.loopback else None)

    def tag(self) -> int:
        """A number that no frame had before."""
        return next(self.bench.tags)

    def frame(self, size: int = 60, inward: bool = False, tag: int = 0) -> bytes:
        """A frame of ``size`` bytes to the other side."""
        to, source = (OURS, THEIRS) if inward else (THEIRS, OURS)
        return to + source + ETHERTYPE + payload(tag or self.tag(), size - 14)

    # ------------------------------------------------------------ out of the session
    def out(self, size: int = 60, **how: object) -> None:
        """A frame goes out, is used, and arrives unchanged where there is a way to see."""
        frame = self.frame(size)
        self.session.sent(frame, **how)
        self.heard(frame)

    def push(self, size: int = 60, **how: object) -> None:
        """A frame goes out and is used; nobody looks where it arrives."""
        self.session.sent(self.frame(size), **how)
        if self.peer:
            self.peer.frames()

    def collect(self, count: int) -> list[bytes]:
        """What comes out at the far side: up to ``count`` frames, in order."""
        got: list[bytes] = []
        end = time.monotonic() + self.bench.timeout
        while self.far is not None and len(got) < count and time.monotonic() < end:
            got += [frame.data for frame in self.far.frames() if MARK in frame.data]
            time.sleep(PAUSE)
        return got

    def heard(self, frame: bytes) -> None:
        """This frame, which was used, arrives unchanged at the far side, if there is one."""
        if self.far is None:
            return
        got = self.far.await_frame(frame[14:23], self.bench.timeout)
        if got is None:
            raise Failed(f"a frame of {len(frame)} bytes was used, but never came out at the other "
                         "side")
        same(frame, got.data)

    def not_heard(self, frame: bytes) -> None:
        """This frame does not arrive."""
        if self.far is not None and self.far.await_frame(frame[14:23], SETTLE):
            raise Failed("the frame came out at the other side")

    # ------------------------------------------------------------ into the session
    def inject(self, frame: bytes, header: bytes = b"") -> None:
        """The far side sends a frame towards the session."""
        if self.far is None:
            raise Unable("nothing sends frames here: give --peer SOCKET or --loopback")
        self.far.sent(frame, header=header)

    def into(self, size: int = 60) -> Frame:
        """A frame comes in unchanged; -> it as received."""
        frame = self.frame(size, inward=True)
        self.inject(frame)
        return self.arrives(frame)

    def arrives(self, frame: bytes) -> Frame:
        """This frame comes in at the session, unchanged."""
        got = self.session.await_frame(frame[14:23], self.bench.timeout)
        if got is None:
            raise Failed(f"a frame of {len(frame)} bytes for the driver did not arrive within "
                         f"{self.bench.timeout:g} s")
        same(frame, got.data)
        return got

    def arrives_not(self, frame: bytes) -> None:
        """This frame does not come in."""
        expect(self.session.await_frame(frame[14:23], SETTLE) is None,
               "the frame was delivered")

    def warm(self) -> "Traffic":
        """Until frames come in: a back end may take a moment to take the rings up."""
        if self.far is None:
            raise Unable("nothing sends frames here: give --peer SOCKET or --loopback")
        end = time.monotonic() + self.bench.timeout
        while time.monotonic() < end:
            frame = self.frame(inward=True)
            self.inject(frame)
            if self.session.await_frame(frame[14:23], SETTLE):
                return self
        raise Failed(f"no frame reached the driver within {self.bench.timeout:g} s of the start")

    def both_ways(self, sizes: Sequence[int] = (60, 300, 1514)) -> str:
        """Frames out, and in where that can be; -> what was seen."""
        for size in sizes:
            self.out(size)
        if self.far is None:
            return f"{len(sizes)} frames used"
        self.warm()
        for size in sizes:
            self.into(size)
        return f"{len(sizes)} frames out and in, unchanged"

    def clean(self, *kinds: str) -> None:
        """Nothing of these kinds was wrong in the session's rings."""
        for ring in self.session.rings:
            for kind in kinds:
                expect(not ring.wrong(kind), ring.wrong(kind))


def same(sent: bytes, got: bytes) -> None:
    """Failed where a frame did not keep its content (a loopback may change the addresses)."""
    if sent[12:] != got[12 : len(sent)]:
        at = next((k for k in range(12, len(sent)) if sent[k : k + 1] != got[k : k + 1]), 0)
        raise Failed(f"a frame of {len(sent)} bytes came back as {len(got)} bytes that differ from "
                     f"byte {at} on")
    if len(got) > len(sent) and len(got) > 60:
        raise Failed(f"a frame of {len(sent)} bytes came back with {len(got)}")
