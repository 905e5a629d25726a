# SPDX-License-Identifier: Apache-2.0
"""A TPACKET_V2 receive ring as the Linux kernel fills it, and the queue of large frames beside it.

    with PacketRing() as ring:
        ring.put(frame, header=net_header(1, 0, 0, 34, 6), tag=5)
        ring.put_large(frame)
        frames = ring.receive()          # as a worker does it
        ring.sent()                      # what was sent, behind virtio headers

Used by tests of the af-packet port. A pair of Unix datagram sockets stands for the packet socket:
one message is one frame there too. The layouts are written out here a second time, from
include/uapi/linux/if_packet.h, and not taken from the kernels.
"""

import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from byway.machine.layout import address_of, alloc
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.ports.af_packet_kernels import PACKET
from byway.testing import socket_kernels
from byway.testing.frame_batch import Frame, FrameBatch, Unfinished
from byway.testing.guarded import Guarded

# struct tpacket2_hdr: tp_status, tp_len, tp_snaplen u32; tp_mac, tp_net u16; tp_sec, tp_nsec u32;
# tp_vlan_tci, tp_vlan_tpid u16; tp_padding u8[4].
TPACKET2_HDR = struct.Struct("=IIIHHIIHH4x")
TP_STATUS_USER, TP_STATUS_COPY = 1, 2
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 0x10, 0x40
PLACE = 96  # of a frame in its slot
NOTHING = bytes(10)  # the virtio header of a finished frame


class PacketRing:
    """``slots`` slots (a power of two, more than a batch) of ``size`` bytes between forbidden
    pages."""

    def __init__(self, slots: int = 128, size: int = 2048) -> None:
        self.slots, self.size = slots, size
        self.memory = Guarded(slots * size)
        self.view = self.memory.view
        self.head = 0
        self.kernel, self.port = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.kernel, self.port):
            end.setblocking(False)
        self.batch = FrameBatch()
        self.rx, self.tx = alloc(COUNTERS, 1), alloc(COUNTERS, 1)
        self.record = alloc(PACKET, 1)
        row = self.record[0]
        row["fd"], row["ring"] = self.port.fileno(), self.memory.ending(slots * size)
        row["slot"], row["mask"] = size, slots - 1
        row["rx"], row["tx"] = address_of(self.rx), address_of(self.tx)
        self.address = address_of(self.record)

    # ------------------------------------------------------------ the kernel's side
    def write(self, header: bytes, data: bytes = b"", at: int = PLACE) -> None:
        """Fill the next slot: its tpacket2_hdr, and bytes from ``at`` on."""
        start = len(self.view) - self.slots * self.size + self.head % self.slots * self.size
        self.view[start + at : start + at + len(data)] = bytearray(data)
        self.view[start : start + len(header)] = bytearray(header)
        self.head += 1

    def put(self, frame: bytes, header: bytes = NOTHING, tag: int = -1, tpid: int = 0,
            status: int = TP_STATUS_USER, length: int = -1) -> None:
        """A frame as the kernel stores it. ``tag``: a tag control word that it took out of the
        frame; ``tpid`` 0: it does not say of which kind; ``length``: of the frame on the wire."""
        if tag >= 0:
            status |= TP_STATUS_VLAN_VALID | (TP_STATUS_VLAN_TPID_VALID if tpid else 0)
        described = TPACKET2_HDR.pack(status, len(frame) if length < 0 else length, len(frame),
                                      PLACE, PLACE + 14, 0, 0, max(tag, 0), tpid)
        self.write(described, header + frame, PLACE - len(header))

    def put_large(self, frame: bytes, header: bytes = NOTHING) -> None:
        """A frame that is longer than a slot: its beginning there, all of it in the queue."""
        self.kernel.send(header + frame)
        room = self.size - PLACE
        self.put(frame[:room], NOTHING, status=TP_STATUS_USER | TP_STATUS_COPY, length=len(frame))

    def status(self) -> list[int]:
        """tp_status of every slot."""
        start = len(self.view) - self.slots * self.size
        return [int(self.view[start + k * self.size]) for k in range(self.slots)]

    def sent(self) -> list[bytes]:
        """The messages that the port sent since we asked."""
        found = []
        while True:
            try:
                found.append(self.kernel.recv(1 << 17))
            except BlockingIOError:
                return found

    # ------------------------------------------------------------ the port's side
    def receive_all(self) -> list[tuple[Unfinished, bytes] | Reason]:
        """One batch, given back: frames with what is left to do, or why one was dropped."""
        n = int(socket_kernels.packet_receive(self.address, self.batch.address))
        got = self.batch.content(n)
        socket_kernels.packet_return(self.address, self.batch.address)
        return got

    def receive(self) -> list[bytes]:
        """One batch, given back: frames only."""
        return [got[1] for got in self.receive_all() if not isinstance(got, Reason)]

    def waiting(self) -> bool:
        """Is there something in the ring?"""
        return bool(socket_kernels.packet_waiting(self.address))

    def send(self, frames: Sequence[Frame], pieces: Sequence[int] = (1,)) -> int:
        """Send at most a batch of frames; -> how many were taken."""
        n = self.batch.place(frames, pieces)
        return int(socket_kernels.packet_send(
            self.address, self.batch.address, self.batch.selected, n))

    @property
    def drops(self) -> dict[str, int]:
        """Frames that were not sent, by reason."""
        return drops_by_name(self.tx[0])

    def close(self) -> None:
        """Idempotent."""
        self.kernel.close()
        self.port.close()
        self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
