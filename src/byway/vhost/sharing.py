# SPDX-License-Identifier: Apache-2.0
"""What a front end shares with its back end: memory, the dirty log, the in-flight region.

Used by the front end, which adds rings and features; uses requests and payloads.

Memory is shared by regions, each at a guest address; user addresses are the host addresses of this
process. With ACCESS_PLATFORM the back end sees no guest addresses but translates each through its
IOTLB: our IOMMU maps every guest address to itself, so a translation names the region's piece, and
what lies in no region is never answered.

The in-flight region is a file that the back end fills with what it has taken and not yet given
back. It outlives the connection here, and a back end that comes back gets it again.
"""

import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from byway.machine.regions import Region
from byway.vhost.front_channel import INVALIDATE, READ_WRITE, UPDATE, FrontChannel
from byway.vhost.messages import (
    MAX_TABLE_REGIONS,
    VERSION,
    ProtocolError,
    ProtocolFeature,
    Request,
)
from byway.vhost.payloads import (
    Inflight,
    Iotlb,
    Log,
    MemoryRegion,
    pack_memory_table,
    unpack_u64,
)
from byway.vhost.requests import Requests

MAX_INFLIGHT = 1 << 28  # bytes: 64 rings of 32768 entries of 32 bytes, four times over


@dataclass
class InflightFile:
    """The in-flight region: what the back end said of it, and its file, which is ours to close."""

    shape: Inflight
    fd: int

    def close(self) -> None:
        """Forget it. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Sharing(Requests):
    """The part of FrontEnd that shares. ``regions``: (region, guest address) of all that is."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        super().__init__(sock, timeout)
        self.regions: list[tuple[Region, int]] = []

    # ------------------------------------------------------------ memory

    def set_memory(self, regions: Sequence[Region], gpas: Sequence[int]) -> None:
        """Share regions (made by Region.create), each at a guest address.

        When this returns, the back end has mapped them and let go of all earlier ones.
        """
        if len(regions) > MAX_TABLE_REGIONS:
            raise ValueError(f"{len(regions)} regions; a table takes {MAX_TABLE_REGIONS}")
        shared = list(zip(regions, gpas, strict=True))
        table = [_describe(r, gpa) for r, gpa in shared]
        self._set(Request.SET_MEM_TABLE, pack_memory_table(table), [r.fd for r in regions])
        self._sync()
        self.regions = shared

    def max_regions(self) -> int:
        """How many regions the back end takes; only with CONFIGURE_MEM_SLOTS."""
        self._need(ProtocolFeature.CONFIGURE_MEM_SLOTS, Request.GET_MAX_MEM_SLOTS)
        return unpack_u64(self._get(Request.GET_MAX_MEM_SLOTS))

    def add_region(self, region: Region, gpa: int) -> None:
        """Share one region more; only with CONFIGURE_MEM_SLOTS."""
        self._need(ProtocolFeature.CONFIGURE_MEM_SLOTS, Request.ADD_MEM_REG)
        self._set(Request.ADD_MEM_REG, _describe(region, gpa).pack_single(), [region.fd])
        self._sync()
        self.regions.append((region, gpa))

    def remove_region(self, region: Region, gpa: int) -> None:
        """Share a region no longer; only with CONFIGURE_MEM_SLOTS."""
        self._need(ProtocolFeature.CONFIGURE_MEM_SLOTS, Request.REM_MEM_REG)
        self._set(Request.REM_MEM_REG, _describe(region, gpa).pack_single())
        self._sync()
        self.regions = [one for one in self.regions if one != (region, gpa)]

    def guest_address(self, host: int) -> int:
        """The guest address of a host address in a shared region; ValueError where it is in
        none."""
        for region, gpa in self.regions:
            if 0 <= host - region.address < region.size:
                return gpa + host - region.address
        raise ValueError(f"{host:#x} lies in no region that is shared")

    # ------------------------------------------------------------ IOTLB

    def open_channel(self) -> None:
        """Give the back end a channel on which it may ask; only with BACKEND_REQ.

        Whoever waits for the front end's socket waits for ``channel`` as well, and calls
        ``answer``.
        """
        self._need(ProtocolFeature.BACKEND_REQ, Request.SET_BACKEND_REQ_FD)
        channel = self.channel = FrontChannel(lambda iova: bool(self._translations(iova)))
        self._set(Request.SET_BACKEND_REQ_FD, b"", [channel.theirs.fileno()])
        channel.handed_over()

    def answer(self) -> None:
        """Take what the back end asked, and answer the misses; waits for nothing."""
        if not self.channel:
            return
        if self.channel.fileno() >= 0:
            self.take_asked()
        misses, self.channel.misses = self.channel.misses, []
        for miss in misses:
            for update in self._translations(miss.iova):
                self._connection.send(Request.IOTLB_MSG, VERSION, update.pack())

    def _translations(self, iova: int) -> list[Iotlb]:
        """The region that ``iova`` lies in, as one update; none where it lies in no region."""
        return [Iotlb(gpa, r.size, r.address, READ_WRITE, UPDATE) for r, gpa in self.regions
                if 0 <= iova - gpa < r.size]

    def update_iotlb(self, iova: int, size: int, user: int, permission: int = READ_WRITE) -> None:
        """Tell a translation: ``size`` bytes at ``iova`` are those at host address ``user``."""
        self._iotlb(Iotlb(iova, size, user, permission, UPDATE))

    def invalidate_iotlb(self, iova: int, size: int) -> None:
        """Take translations back; when this returns the back end uses none of them."""
        self._iotlb(Iotlb(iova, size, 0, 0, INVALIDATE))

    def _iotlb(self, message: Iotlb) -> None:
        self._set(Request.IOTLB_MSG, message.pack())
        self._sync()

    # ------------------------------------------------------------ the dirty log

    def set_log(self, fd: int, size: int, offset: int = 0) -> None:
        """Share the dirty log, ``size`` bytes of the file ``fd``; only with LOG_SHMFD.

        It is used from the moment at which LOG_ALL is among the features. QEMU and DPDK answer
        with nothing, libvhost-user with an integer that means nothing.
        """
        self._need(ProtocolFeature.LOG_SHMFD, Request.SET_LOG_BASE)
        self._send(Request.SET_LOG_BASE, VERSION, Log(size, offset).pack(), [fd])
        self._reply(Request.SET_LOG_BASE, (0, 8, 16))

    def set_log_fd(self, fd: int) -> None:
        """The event fd that the back end may write after it has logged."""
        self._set(Request.SET_LOG_FD, b"", [fd])

    # ------------------------------------------------------------ in flight

    def get_inflight(self, queues: int, queue_size: int) -> InflightFile | None:
        """Have the back end make an in-flight region for ``queues`` rings; None where it wants
        none. Only with INFLIGHT_SHMFD, after the features were set (they say the layout)."""
        self._need(ProtocolFeature.INFLIGHT_SHMFD, Request.GET_INFLIGHT_FD)
        asked = Inflight(0, 0, queues, queue_size)
        self._send(Request.GET_INFLIGHT_FD, VERSION, asked.pack(), ())
        # Peers whose compilers pack the structure leave its tail out.
        message = self._reply(Request.GET_INFLIGHT_FD, (20, 24), fds=1)
        try:
            shape = Inflight.unpack(message.payload.ljust(24, b"\0"))
            if not shape.size and not message.fds:
                return None
            if problem := _wrong_inflight(shape, message.fds):
                raise ProtocolError(f"the back end's in-flight region {problem}")
            return InflightFile(Inflight(shape.size, shape.offset, queues, queue_size),
                                message.take_fd())
        finally:
            message.close()

    def set_inflight(self, inflight: InflightFile) -> None:
        """Give the back end its in-flight region (back); before rings start."""
        self._need(ProtocolFeature.INFLIGHT_SHMFD, Request.SET_INFLIGHT_FD)
        self._set(Request.SET_INFLIGHT_FD, inflight.shape.pack(), [inflight.fd])

    # ------------------------------------------------------------ the device

    def send_rarp(self, mac: bytes) -> None:
        """Have the back end announce ``mac`` (6 bytes) to the network; only with RARP."""
        self._need(ProtocolFeature.RARP, Request.SEND_RARP)
        self._set(Request.SEND_RARP, mac.ljust(8, b"\0"))


def _describe(region: Region, gpa: int) -> MemoryRegion:
    return MemoryRegion(gpa, region.size, region.address, 0)


def _wrong_inflight(shape: Inflight, fds: list[int]) -> str:
    """What is wrong with an in-flight region, as the end of a sentence ("": nothing)."""
    if not fds:
        return "comes without a file"
    if not 0 < shape.size <= MAX_INFLIGHT or shape.offset + shape.size >= 1 << 62:
        return f"has {shape.size} bytes at offset {shape.offset}"
    status = os.fstat(fds[0])
    if not stat.S_ISREG(status.st_mode):
        return "is no memory file"
    if status.st_size < shape.offset + shape.size:
        return f"is said to have {shape.size} bytes, more than its file"
    return ""
