# SPDX-License-Identifier: Apache-2.0
"""An AF_XDP socket: its area of chunks (UMEM), its four rings, and the records for the kernels.

Used by af_xdp.py; the frames are af_xdp_kernels.py's. Source: Linux,
Documentation/networking/af_xdp.rst and include/uapi/linux/if_xdp.h; offsets are pinned by
tests/spec/test_xdp.py.

A socket serves one queue of one interface. It is made in the interface's network namespace, and
keeps that alive until it is closed; it works wherever it is used.
"""

import ctypes
import errno
import mmap
import os
import resource
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.ports.af_xdp_kernels import (
    DESCRIPTOR,
    DESCRIPTORS,
    KERNELS,
    OURS,
    PLACE,
    XDP_RX,
    XDP_TX,
)

AF_XDP, SOL_XDP = 44, 283
_MMAP_OFFSETS, _RX_RING, _TX_RING, _UMEM_REG = 1, 2, 3, 4
_FILL_RING, _COMPLETION_RING, _STATISTICS, _OPTIONS, _MAX_TX_BUDGET = 5, 6, 7, 8, 9
_COPY, _ZERO_COPY, _USE_NEED_WAKEUP, _USE_SG = 2, 4, 8, 0x10
_PAGE_OFFSETS = {_RX_RING: 0, _TX_RING: 0x8000_0000,  # where mmap(2) finds each ring
                 _FILL_RING: 0x1_0000_0000, _COMPLETION_RING: 0x1_8000_0000}
_UMEM = struct.Struct("=QQIIII")  # struct xdp_umem_reg: address, bytes, chunk, headroom, flags, -
_ADDRESS = struct.Struct("=HHIII")  # struct sockaddr_xdp: family, flags, ifindex, queue, umem's fd
_OFFSETS = struct.Struct("=16Q")  # struct xdp_mmap_offsets: RX, TX, FILL, COMPLETION
_INT = struct.Struct("=I")
COUNTERS = ("rx_dropped", "rx_invalid_descs", "tx_invalid_descs", "rx_ring_full",
            "rx_fill_ring_empty", "tx_ring_empty")  # struct xdp_statistics
HEADROOM = 256  # XDP_PACKET_HEADROOM: of each chunk, in front of a frame that comes in
_TX_BUDGET = 256  # frames that one system call sends, where the kernel lets us say
_SO_SNDBUFFORCE = 33
_SNDBUF = 1 << 30
MAX_PIECES = 17  # that every kernel takes for one frame (MAX_SKB_FRAGS)

_libc = ctypes.CDLL(None, use_errno=True)


class ZeroCopyError(OSError):
    """The driver cannot move frames between chunks and wire by itself."""


class QueueTakenError(OSError):
    """Another AF_XDP socket has the queue."""


class NoMemoryError(OSError):
    """More memory would be locked than the limit allows (RLIMIT_MEMLOCK)."""


@dataclass(frozen=True)
class Ring:
    """Addresses of a ring's words and of its entries, and how many those are."""

    producer: int
    consumer: int
    flags: int
    entries: int
    size: int


@dataclass
class Records:
    """XDP_RX and XDP_TX over an area and four rings, with all that they point to.

    ``frames`` chunks of ``chunk`` bytes for each way, both powers of two.
    """

    area: int
    chunk: int
    frames: int
    rings: Sequence[Ring]  # RX, TX, FILL, COMPLETION
    fd: int
    rx_counters: int
    tx_counters: int
    pieces: int = 1
    rx: Any = field(default_factory=lambda: alloc(XDP_RX, 1))
    tx: Any = field(default_factory=lambda: alloc(XDP_TX, 1))

    def __post_init__(self) -> None:
        self.states = alloc(np.dtype("u1"), 2 * self.frames)
        self.places = alloc(np.dtype("<i8"), (DESCRIPTOR // 8 + 1) * DESCRIPTORS)
        self.free = alloc(np.dtype("<i8"), self.frames)
        self.linear = alloc(np.dtype("u1"), self.chunk * self.pieces)
        self.free[:] = np.arange(self.frames)[::-1]
        incoming, outgoing, fill, done = self.rings
        rx, tx, n = self.rx[0], self.tx[0], self.frames
        for row, ring in ((rx, incoming), (tx, outgoing)):
            row["fd"], row["umem"], row["shift"] = self.fd, self.area, self.chunk.bit_length() - 1
            row["chunks"], row["ring"], row["mask"] = n, ring.entries, ring.size - 1
            row["producer"], row["consumer"] = ring.producer, ring.consumer
        rx["states"], rx["counters"] = address_of(self.states), self.rx_counters
        rx["fill_ring"], rx["fill_mask"] = fill.entries, fill.size - 1
        rx["fill_producer"], rx["fill_flags"] = fill.producer, fill.flags
        rx["places"] = address_of(self.places)
        rx["taken"] = address_of(self.places) + DESCRIPTOR * DESCRIPTORS
        rx["sender"] = address_of(self.tx)
        tx["states"], tx["counters"] = address_of(self.states[n:]), self.tx_counters
        tx["first"], tx["flags"] = n, outgoing.flags
        tx["done_ring"], tx["done_mask"] = done.entries, done.size - 1
        tx["done_producer"], tx["done_consumer"] = done.producer, done.consumer
        tx["free"], tx["nfree"] = address_of(self.free), n
        tx["pieces"], tx["linear"] = self.pieces, address_of(self.linear)
        tx["copying"] = 1

    def fill(self) -> None:
        """Give the kernel all chunks for rx; once, before the socket is bound."""
        ring = self.rings[2]
        places = (ctypes.c_uint64 * ring.size).from_address(ring.entries)
        places[: self.frames] = [k * self.chunk for k in range(self.frames)]
        self.states[: self.frames] = KERNELS
        self.states[self.frames :] = OURS
        self.rx["fill_next"] = self.frames
        ctypes.c_uint32.from_address(ring.producer).value = self.frames


@dataclass(frozen=True)
class Wanted:
    """What a socket is to be. ``zero_copy`` None: where the driver can."""

    ifindex: int
    queue: int
    frames: int  # chunks, each way: a power of two
    chunk: int  # bytes: 2048 or 4096
    pieces: int  # chunks that a frame may take; above 1 the kernel must know frames in pieces
    zero_copy: bool | None


class Xsk:
    """A socket that is bound to a queue. To be made in the interface's namespace."""

    def __init__(self, wanted: Wanted, rx_counters: int, tx_counters: int) -> None:
        self.zero_copy = False
        self._maps: list[mmap.mmap] = []
        self._socket = socket.socket(AF_XDP, socket.SOCK_RAW)
        try:
            area = self._register(wanted)
            rings = self._make_rings(wanted.frames)
            self.records = Records(area, wanted.chunk, wanted.frames, rings,
                                   self._socket.fileno(), rx_counters, tx_counters, wanted.pieces)
            self.records.fill()
            self._bind(wanted)
        except BaseException:
            self.close()
            raise
        self.records.tx["copying"] = not self.zero_copy

    def _register(self, wanted: Wanted) -> int:
        size = 2 * wanted.frames * wanted.chunk
        # The kernel holds these pages: there is nothing to be gained by asking for them one by one.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        self._maps.append(mmap.mmap(-1, size, flags=flags))
        area = _address(self._maps[0])
        registration = _UMEM.pack(area, size, wanted.chunk, 0, 0, 0)
        try:
            self._socket.setsockopt(SOL_XDP, _UMEM_REG, registration)
        except OSError as error:
            if error.errno not in (errno.ENOBUFS, errno.ENOMEM, errno.EPERM):
                raise
            limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
            raise NoMemoryError(error.errno, f"{size} bytes are to be locked in memory, the limit"
                                             f" is {limit}") from None
        return area

    def _make_rings(self, frames: int) -> list[Ring]:
        for ring in _PAGE_OFFSETS:
            self._socket.setsockopt(SOL_XDP, ring, _INT.pack(frames))
        told = self._socket.getsockopt(SOL_XDP, _MMAP_OFFSETS, _OFFSETS.size)
        if len(told) < _OFFSETS.size:  # before Linux 5.4 rings had no flags
            raise OSError(errno.EOPNOTSUPP, "this kernel's AF_XDP is older than Linux 5.4")
        offsets = _OFFSETS.unpack(told)
        made = []
        for k, (ring, place) in enumerate(_PAGE_OFFSETS.items()):
            producer, consumer, entries, flags = offsets[4 * k : 4 * k + 4]
            each = DESCRIPTOR if ring in (_RX_RING, _TX_RING) else PLACE
            self._maps.append(mmap.mmap(
                self._socket.fileno(), entries + frames * each, offset=place,
                flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))
            start = _address(self._maps[-1])
            made.append(Ring(start + producer, start + consumer, start + flags, start + entries,
                             frames))
        return made

    def _bind(self, wanted: Wanted) -> None:
        flags = _USE_NEED_WAKEUP | (_USE_SG if wanted.pieces > 1 else 0)
        if wanted.zero_copy is not None:
            flags |= _ZERO_COPY if wanted.zero_copy else _COPY
        address = _ADDRESS.pack(AF_XDP, flags, wanted.ifindex, wanted.queue, 0)
        if _libc.bind(self._socket.fileno(), address, _ADDRESS.size):
            code = ctypes.get_errno()
            if code == errno.EBUSY:
                raise QueueTakenError(code, os.strerror(code))
            if code in (errno.EOPNOTSUPP, errno.EINVAL) and wanted.zero_copy:
                raise ZeroCopyError(code, os.strerror(code))
            raise OSError(code, os.strerror(code))
        told = self._socket.getsockopt(SOL_XDP, _OPTIONS, _INT.size)
        self.zero_copy = bool(_INT.unpack(told)[0] & 1)
        self._send_without_limits()

    def _send_without_limits(self) -> None:
        """A receiver that stands still must not stop everybody's frames; and fewer system calls
        where the kernel sends more in each than its default of 32 (it may not know how)."""
        for level, option, value in ((socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SNDBUF),
                                     (SOL_XDP, _MAX_TX_BUDGET, _TX_BUDGET)):
            try:
                self._socket.setsockopt(level, option, _INT.pack(value))
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOPROTOOPT, errno.EINVAL, errno.EACCES):
                    raise

    def fileno(self) -> int:
        """The socket's file: each arriving frame makes an edge on it."""
        return self._socket.fileno()

    def statistics(self) -> dict[str, int]:
        """What the kernel counted: frames that it dropped, and why."""
        size = 8 * len(COUNTERS)
        told = self._socket.getsockopt(SOL_XDP, _STATISTICS, size)
        return dict(zip(COUNTERS, struct.unpack(f"={len(told) // 8}Q", told), strict=False))

    def kicks(self) -> int:
        """System calls that were made for it, to send and to go on receiving."""
        return int(self.records.tx["kicks"][0]) + int(self.records.rx["kicks"][0])

    def error(self) -> int:
        """What is wrong with it (an XdpError), 0: nothing."""
        return int(self.records.rx["error"][0] or self.records.tx["error"][0])

    def close(self) -> None:
        """Give everything back; no worker may use it any more. Idempotent."""
        self._socket.close()
        while self._maps:
            self._maps.pop().close()


def _address(area: mmap.mmap) -> int:
    """Where a mapping lies."""
    return int(np.frombuffer(area, np.uint8).ctypes.data)
