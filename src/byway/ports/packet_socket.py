# SPDX-License-Identifier: Apache-2.0
"""An AF_PACKET socket on an interface, with its receive ring, for the af-packet port.

Used by af_packet.py; af_packet_kernels.py works on the ring. Sources: packet(7), socket(7),
Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h.
"""

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from byway.machine.layout import address_of
from byway.packet import offload
from byway.ports.af_packet_kernels import HEADER, SLOT_HEADER

SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_STATISTICS, PACKET_COPY_THRESH = 1, 5, 6, 7
PACKET_AUXDATA, PACKET_VERSION, PACKET_VNET_HDR, PACKET_FANOUT = 8, 10, 15, 18
PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING = 20, 23
PACKET_MR_PROMISC, TPACKET_V2, ETH_P_ALL = 1, 1, 3
FANOUT_HASH, FANOUT_UNIQUE_ID = 0, 0x2000
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_REQUEST = struct.Struct("=IIII")  # tpacket_req: block size, blocks, slot size, slots
_MEMBERSHIP = struct.Struct("=iHH8x")  # packet_mreq: interface, type, address length, address
STATISTICS = struct.Struct("=II")  # tpacket_stats: packets, drops

BLOCK = 1 << 16  # bytes that the kernel allocates at a time
RING = 2 << 20  # bytes of a ring, or MIN_SLOTS slots where that is more
MIN_SLOT, MIN_SLOTS = 2048, 256
# In front of a frame in its slot: the headers, and what aligns the network header (af_packet.c).
IN_FRONT = SLOT_HEADER + HEADER + 32
BUFFERS = 8 << 20  # bytes of frames on their way out, and of large ones on their way in
_USO_KERNEL = (6, 2)  # the first whose virtio headers know USO

# Not UFO: the kernel accepts such frames, and then loses those that it cannot cut itself.
TAKES = (offload.TAKES_CSUM | offload.TAKES_VALID | offload.TAKES_TSO4 | offload.TAKES_TSO6
         | offload.TAKES_ECN)
TAKES_USO = offload.TAKES_USO4 | offload.TAKES_USO6


def ring_shape(longest: int) -> tuple[int, int]:
    """(bytes of a slot, slots) of a ring for frames of ``longest`` bytes; powers of two."""
    slot = max(MIN_SLOT, 1 << (longest + IN_FRONT - 1).bit_length())
    return slot, max(MIN_SLOTS, RING // slot)


def kernel_takes(release: str) -> int:
    """What the kernel of that release takes from us unfinished: what the interface cannot finish,
    the kernel does before it hands a frame over."""
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    return TAKES | TAKES_USO if numbers >= _USO_KERNEL else TAKES


def use_large_buffers(sock: socket.socket, size: int) -> None:
    """Let a socket hold so many bytes each way; without CAP_NET_ADMIN as many as sysctl allows."""
    for force, usual in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, usual, size)


class PacketSocket:
    """A socket that takes part in what interface number ``index`` receives, and its ring.

    ``group``: the number of a fanout group to join, None: none, -1: a new one, whose number is then
    ``group``. Is to be made in the namespace of the interface. OSError: it is gone, or may not be
    used (CAP_NET_RAW).
    """

    def __init__(self, index: int, longest: int, group: int | None) -> None:
        self.size, self.slots = ring_shape(longest)
        self.group = group
        self._dropped = 0
        self._ring: mmap.mmap | None = None
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            self._set_up(index)
        except BaseException:
            self.close()
            raise

    def _set_up(self, index: int) -> None:
        self._socket.setblocking(False)
        use_large_buffers(self._socket, BUFFERS)
        # Before it is bound: until then it receives nothing, of no interface.
        for option, value in ((PACKET_VERSION, TPACKET_V2), (PACKET_VNET_HDR, 1),
                              (PACKET_COPY_THRESH, 1), (PACKET_AUXDATA, 1),
                              (PACKET_QDISC_BYPASS, 1), (PACKET_IGNORE_OUTGOING, 1)):
            self._socket.setsockopt(SOL_PACKET, option, value)
        length = self.size * self.slots
        self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, _REQUEST.pack(
            max(BLOCK, self.size), length // max(BLOCK, self.size), self.size, self.slots))
        self._ring = mmap.mmap(self._socket.fileno(), length)
        self.address = address_of(np.frombuffer(self._ring, np.uint8))
        self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP,
                                _MEMBERSHIP.pack(index, PACKET_MR_PROMISC, 0))
        self._bind(index)
        if self.group is not None:
            self._join()

    def _bind(self, index: int) -> None:
        # By number: Python's own bind takes a name, which by now may be another interface's.
        place = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(ETH_P_ALL), index, 0, 0, 0,
                            b"")
        if ctypes.CDLL(None, use_errno=True).bind(self._socket.fileno(), place, len(place)):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def _join(self) -> None:
        new = self.group == -1
        number = 0 if new or self.group is None else self.group
        kind = FANOUT_HASH | (FANOUT_UNIQUE_ID if new else 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_FANOUT, number | kind << 16)
        self.group = self._socket.getsockopt(SOL_PACKET, PACKET_FANOUT) & 0xFFFF

    def fileno(self) -> int:
        """The socket; every frame that comes makes it readable anew."""
        return self._socket.fileno()

    def dropped(self) -> int:
        """Frames so far that the kernel could not hand over: no free slot, or no virtio header
        says what they are."""
        if self._socket.fileno() >= 0:
            with suppress(OSError):  # ENETDOWN, once
                found = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS.size)
                self._dropped += STATISTICS.unpack(found)[1]  # reading clears it
        return self._dropped

    def close(self) -> None:
        """Give socket and ring back; nobody may touch the ring any more. Idempotent."""
        self.dropped()
        if self._ring:
            self._ring.close()
            self._ring = None
        self._socket.close()


def open_sockets(index: int, longest: int, count: int) -> Sequence[PacketSocket]:
    """``count`` sockets on one interface, among which frames are spread by flow. OSError."""
    made: list[PacketSocket] = []
    try:
        for k in range(count):
            group = None if count == 1 else made[0].group if k else -1
            made.append(PacketSocket(index, longest, group))
    except BaseException:
        for one in made:
            one.close()
        raise
    return made
