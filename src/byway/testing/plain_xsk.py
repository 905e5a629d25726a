# SPDX-License-Identifier: Apache-2.0
"""The Linux kernel's side of an AF_XDP socket, slow and obvious, over plain memory.

    with PlainXsk() as xsk:
        xsk.put(frame)                  # the kernel received a frame
        frames = xsk.receive()          # as a worker does it
        xsk.send([frame])
        assert xsk.sent() == [frame]    # the kernel sends what is in the TX ring
        xsk.complete()                  # and says that it has gone

Used by tests of the af-xdp port. The layouts are written out here a second time, from Linux'
include/uapi/linux/if_xdp.h, and not taken from the kernels. A pair of Unix datagram sockets stands
for the socket: each system call that asks the kernel to send is an empty message there.
"""

import ctypes
import socket
import struct
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from byway.machine.layout import address_of, alloc
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.ports.xsk import Records, Ring
from byway.testing import xdp_kernels
from byway.testing.frame_batch import Frame, FrameBatch, Unfinished
from byway.testing.guarded import Guarded

XDP_DESC = struct.Struct("=QII")  # struct xdp_desc: addr, len, options
PLACE = struct.Struct("=Q")
XDP_PKT_CONTD = 1
XDP_RING_NEED_WAKEUP = 1
HEADROOM = 256  # XDP_PACKET_HEADROOM
RING_WORDS = 64  # bytes from one word of a ring to the next


class PlainRing:
    """A ring in memory of its own; ``position``: how far the kernel has written or read it."""

    def __init__(self, entry: struct.Struct, size: int) -> None:
        self.entry, self.size, self.position = entry, size, 0
        self.memory = Guarded(4 * RING_WORDS + entry.size * size)
        self.entries = self.memory.ending(entry.size * size)
        words = self.memory.address
        self.ring = Ring(words, words + RING_WORDS, words + 2 * RING_WORDS, self.entries, size)

    def word(self, address: int) -> ctypes.c_uint32:
        """One of the ring's words."""
        return ctypes.c_uint32.from_address(address)

    def produce(self, *values: int) -> None:
        """Write an entry and say so, as the kernel does it."""
        self.write(self.position, *values)
        self.position += 1
        self.word(self.ring.producer).value = self.position

    def write(self, number: int, *values: int) -> None:
        """Write an entry without saying so."""
        at = self.entries + self.entry.size * (number % self.size)
        ctypes.memmove(at, self.entry.pack(*values), self.entry.size)

    def consume(self) -> list[tuple[int, ...]]:
        """Read all new entries, as the kernel does it."""
        found = []
        while self.position & 0xFFFFFFFF != self.word(self.ring.producer).value:
            at = self.entries + self.entry.size * (self.position % self.size)
            found.append(self.entry.unpack(ctypes.string_at(at, self.entry.size)))
            self.position += 1
        self.word(self.ring.consumer).value = self.position & 0xFFFFFFFF
        return found


class PlainXsk:
    """A socket with ``frames`` chunks of ``chunk`` bytes each way. Rings and area lie between
    forbidden pages. ``start``: where all positions begin."""

    def __init__(self, frames: int = 64, chunk: int = 2048, pieces: int = 1,
                 start: int = 0) -> None:
        self.frames, self.chunk = frames, chunk
        self.area = Guarded(2 * frames * chunk)
        self.rx, self.tx = PlainRing(XDP_DESC, frames), PlainRing(XDP_DESC, frames)
        self.fill, self.done = PlainRing(PLACE, frames), PlainRing(PLACE, frames)
        self.rings = (self.rx, self.tx, self.fill, self.done)
        self.kernel, self.port = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.kernel, self.port):
            end.setblocking(False)
        self.counters = alloc(COUNTERS, 2)
        self.batch = FrameBatch()
        self.records = Records(
            self.area.address, chunk, frames, [ring.ring for ring in self.rings],
            self.port.fileno(), address_of(self.counters), address_of(self.counters[1:]), pieces)
        self.records.fill()
        self.records.tx["max_frame"] = chunk * pieces
        self.receiver = address_of(self.records.rx)
        self.sender = address_of(self.records.tx)
        self.empty: deque[int] = deque()
        self.held: list[int] = []  # places whose frames the kernel has sent
        if start:
            self._begin_at(start)

    def _begin_at(self, start: int) -> None:
        """As after ``start`` frames each way: counters of 32 bits go round."""
        self.empty.extend(place for place, in self.fill.consume())
        for ring in self.rings:
            ring.position = start
            ring.word(ring.ring.producer).value = ring.word(ring.ring.consumer).value = start
        rx, tx = self.records.rx[0], self.records.tx[0]
        rx["next"] = rx["fill_next"] = tx["next"] = tx["done_next"] = start

    # ------------------------------------------------------------ the kernel's side
    def put(self, frame: bytes) -> bool:
        """A frame has come; False: there is no chunk for it."""
        self.empty.extend(place for place, in self.fill.consume())
        room = self.chunk - HEADROOM
        pieces = [frame[k : k + room] for k in range(0, len(frame), room)]
        if len(self.empty) < len(pieces):
            return False
        for piece in pieces:
            place = self.empty.popleft() + HEADROOM
            ctypes.memmove(self.area.address + place, piece, len(piece))
            more = 0 if piece is pieces[-1] else XDP_PKT_CONTD
            self.rx.produce(place, len(piece), more)
        return True

    def sent(self) -> list[bytes]:
        """The frames in the TX ring; they have gone once ``complete`` says so."""
        frames = [b""]
        for place, length, options in self.tx.consume():
            assert self.frames * self.chunk <= place < 2 * self.frames * self.chunk
            assert 0 < length <= self.chunk
            frames[-1] += ctypes.string_at(self.area.address + place, length)
            self.held.append(place)
            if not options & XDP_PKT_CONTD:
                frames.append(b"")
        assert frames.pop() == b"", "a frame without an end"
        return frames

    def complete(self, count: int | None = None) -> None:
        """``count`` chunks have gone (None: all that were sent)."""
        count = len(self.held) if count is None else count
        for place in self.held[:count]:
            self.done.produce(place)
        del self.held[:count]

    def wake_wanted(self, ring: PlainRing, wanted: bool = True) -> None:
        """The kernel looks at a ring only when it is told to."""
        ring.word(ring.ring.flags).value = XDP_RING_NEED_WAKEUP if wanted else 0

    def calls(self) -> int:
        """System calls to send, since we asked."""
        count = 0
        while True:
            try:
                self.kernel.recv(16)
            except BlockingIOError:
                return count
            count += 1

    # ------------------------------------------------------------ the port's side
    def receive_all(self) -> list[tuple[Unfinished, bytes] | Reason]:
        """One batch, given back: frames with what is left to do."""
        n = int(xdp_kernels.xdp_receive(self.receiver, self.batch.address))
        got = self.batch.content(n)
        xdp_kernels.xdp_return(self.receiver, self.batch.address)
        return got

    def receive(self) -> list[bytes]:
        """One batch, given back: frames only."""
        return [got[1] for got in self.receive_all() if not isinstance(got, Reason)]

    def waiting(self) -> bool:
        """Must the worker not sleep?"""
        return bool(xdp_kernels.xdp_waits(self.receiver))

    def send(self, frames: Sequence[Frame], pieces: Sequence[int] = (1,)) -> int:
        """Send at most a batch of frames, which lie in so many pieces; -> how many were taken."""
        n = self.batch.place(frames, pieces)
        return int(xdp_kernels.xdp_send(self.sender, self.batch.address, self.batch.selected, n))

    def kick(self) -> None:
        """Have the kernel send."""
        xdp_kernels.xdp_flush(self.sender)

    @property
    def error(self) -> int:
        """An XdpError, 0: none."""
        return int(self.records.rx["error"][0] or self.records.tx["error"][0])

    @property
    def drops(self) -> dict[str, int]:
        """Frames that were not sent, by reason."""
        return drops_by_name(self.counters[1])

    def close(self) -> None:
        """Idempotent."""
        self.kernel.close()
        self.port.close()
        for ring in self.rings:
            ring.memory.close()
        self.area.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
