# SPDX-License-Identifier: Apache-2.0
"""The kernel as a back end: /dev/vhost-net, one file for each queue pair.

Used by the vhost-kernel port; uses virtio (features). Source: Linux, include/uapi/linux/vhost.h
and vhost_types.h; drivers/vhost/{vhost,net}.c.

    device = KernelVhost()
    features = device.negotiate(mask(Feature.VERSION_1, Feature.MRG_RXBUF))
    device.set_memory([(region.address, region.size, gpa)])
    device.start_ring(0, 256, 0, desc, avail, used, kick, call)
    device.start_ring(1, ...)
    device.attach(tap_fd)

It is the same conversation as vhost-user's, spoken in ioctls, and each is answered at once. What
differs: addresses are virtual addresses of this process, which must go on living (SET_OWNER binds
its memory); the order is fixed (nothing before the owner; size and base only while no socket is
attached); there is no message to enable a ring: attaching the socket does.

Bit 27 is a trap: here it is no ANY_LAYOUT but "vhost makes the virtio header, the socket has
none" (VHOST_NET_F_VIRTIO_NET_HDR). A tap with IFF_VNET_HDR makes the header, so it is never taken.
The header is then 10 or 12 bytes, as for every driver, and the tap must be told (TUNSETVNETHDRSZ).
"""

import fcntl
import os
import struct
from collections.abc import Sequence
from enum import Enum

from byway.virtio.features import Feature, mask

DEVICE = "/dev/vhost-net"
RX, TX = 0, 1  # the rings of a pair, as the driver counts them

_U64, _STATE, _FILE = struct.Struct("=Q"), struct.Struct("=II"), struct.Struct("=Ii")
_ADDRESS = struct.Struct("=IIQQQQ")  # index, flags, desc, used, avail, log
_TABLE, _REGION = struct.Struct("=II"), struct.Struct("=QQQQ")
_NONE, _WRITE, _READ = 0, 1, 2  # asm-generic/ioctl.h, from the caller's point of view


class Ioctl(Enum):
    """The ioctls: number, direction, size of the argument as the number says it."""

    GET_FEATURES = 0x00, _READ, 8
    SET_FEATURES = 0x00, _WRITE, 8
    SET_OWNER = 0x01, _NONE, 0
    RESET_OWNER = 0x02, _NONE, 0
    SET_MEM_TABLE = 0x03, _WRITE, 8  # and the regions, which the number does not count
    SET_VRING_NUM = 0x10, _WRITE, 8
    SET_VRING_ADDR = 0x11, _WRITE, 40
    SET_VRING_BASE = 0x12, _WRITE, 8
    GET_VRING_BASE = 0x12, _READ | _WRITE, 8
    SET_VRING_KICK = 0x20, _WRITE, 8
    SET_VRING_CALL = 0x21, _WRITE, 8
    SET_VRING_ERR = 0x22, _WRITE, 8
    NET_SET_BACKEND = 0x30, _WRITE, 8

    @property
    def request(self) -> int:
        """The ioctl's encoding: direction, size, type 0xAF, number."""
        number, direction, size = self.value
        return direction << 30 | size << 16 | 0xAF << 8 | number


# What belongs to the rings and to vhost itself. All other bits are the tap's business or ours.
RING_FEATURES = mask(
    Feature.MRG_RXBUF, Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.VERSION_1,
    Feature.RING_PACKED, Feature.IN_ORDER)


class KernelVhost:
    """One queue pair's device: ring 0 receives, ring 1 transmits.

    ``offered``: the ring features that the kernel has; ``features``: those taken.
    Every method raises OSError where the kernel refuses.
    """

    def __init__(self, path: str = DEVICE) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.features = 0
        try:
            self._call(Ioctl.SET_OWNER)
            self.offered = self._u64(Ioctl.GET_FEATURES) & RING_FEATURES
        except OSError:
            self.close()
            raise

    def _call(self, ioctl: Ioctl, argument: bytes = b"") -> bytes:
        """-> the argument as the kernel left it."""
        try:
            if not argument:
                fcntl.ioctl(self._fd, ioctl.request, 0)
                return b""
            buffer = bytearray(argument)
            fcntl.ioctl(self._fd, ioctl.request, buffer)
            return bytes(buffer)
        except OSError as error:
            raise OSError(error.errno, f"{ioctl.name}: {os.strerror(error.errno or 0)}") from error

    def _u64(self, ioctl: Ioctl) -> int:
        return int(_U64.unpack(self._call(ioctl, bytes(8)))[0])

    def negotiate(self, wanted: int) -> int:
        """Take the ring features of ``wanted`` that are offered; -> those."""
        self.features = self.offered & wanted
        self._call(Ioctl.SET_FEATURES, _U64.pack(self.features))
        return self.features

    def set_memory(self, regions: Sequence[tuple[int, int, int]]) -> None:
        """What descriptors may point to: (host address, bytes, guest address) each."""
        table = b"".join(_REGION.pack(gpa, size, address, 0) for address, size, gpa in regions)
        self._call(Ioctl.SET_MEM_TABLE, _TABLE.pack(len(regions), 0) + table)

    def start_ring(self, index: int, size: int, base: int, desc: int, avail: int, used: int,
                   kick: int, call: int) -> None:
        """Hand over ring ``index`` (RX or TX); it does nothing before ``attach``. The ring's memory
        is initialised: the kernel reads the used index from it. Event fds stay the caller's."""
        self._call(Ioctl.SET_VRING_NUM, _STATE.pack(index, size))
        self._call(Ioctl.SET_VRING_BASE, _STATE.pack(index, base))
        self._call(Ioctl.SET_VRING_ADDR, _ADDRESS.pack(index, 0, desc, used, avail, 0))
        self._call(Ioctl.SET_VRING_CALL, _FILE.pack(index, call))
        self._call(Ioctl.SET_VRING_KICK, _FILE.pack(index, kick))

    def attach(self, tap: int) -> None:
        """Let frames pass between the rings and one queue of a tap."""
        for index in (RX, TX):
            self._call(Ioctl.NET_SET_BACKEND, _FILE.pack(index, tap))

    def detach(self) -> None:
        """When this returns the kernel touches the rings no more."""
        for index in (RX, TX):
            self._call(Ioctl.NET_SET_BACKEND, _FILE.pack(index, -1))

    def position(self, index: int) -> int:
        """The avail index at which a ring goes on; after ``detach``."""
        return int(_STATE.unpack(self._call(Ioctl.GET_VRING_BASE, _STATE.pack(index, 0)))[1])

    def close(self) -> None:
        """The kernel lets go of rings and memory. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
