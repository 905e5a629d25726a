# SPDX-License-Identifier: Apache-2.0
"""The vhost-user front end: plays the part of a virtual machine monitor.

Used by the virtio-user port, by byway.testing's fake guest, and by anybody who wants to drive a
vhost-user back end from Python; uses messages, payloads, connection, machine (regions, sockets).

    region = Region.create(size)
    front = FrontEnd.connect("/tmp/vm1.sock")
    features = front.negotiate(mask(Feature.VERSION_1, Feature.MRG_RXBUF))
    front.set_memory([region], [0])
    front.start_ring(0, 256, 0, desc, avail, used, kick, call)
    front.enable_ring(0, True)
    ...
    base = front.stop_ring(0)
    front.close()

It blocks, each exchange for at most ``timeout`` seconds, so an event loop runs it in a thread. It
believes nothing: a reply must come in time, answer the request, have the flags and the size that
the specification gives it, and carry no file descriptor. Where acknowledgements can be had
(REPLY_ACK), everything is acknowledged. After ProtocolError or Closed only ``close`` is of use.
"""

import select
import socket
import time
from collections.abc import Sequence
from typing import Self

from byway.machine import unixsocket
from byway.machine.regions import Region
from byway.vhost.connection import Closed, Connection, Message
from byway.vhost.messages import (
    MAX_TABLE_REGIONS,
    NEED_REPLY,
    REPLY,
    VERSION,
    ProtocolError,
    ProtocolFeature,
    Request,
)
from byway.vhost.payloads import (
    MemoryRegion,
    RingFile,
    VringAddress,
    VringState,
    pack_memory_table,
    pack_u64,
    unpack_u64,
)
from byway.virtio.features import Feature, has, mask


def protocol_mask(*features: ProtocolFeature) -> int:
    """The word with the bits of ``features``."""
    return sum(1 << f for f in features)


# What this front end makes use of by itself. Callers of set_status and add_region ask for STATUS
# and CONFIGURE_MEM_SLOTS in addition.
PROTOCOL_FEATURES = protocol_mask(
    ProtocolFeature.MQ, ProtocolFeature.REPLY_ACK, ProtocolFeature.NET_MTU,
    ProtocolFeature.RESET_DEVICE)


class FrontEnd:
    """One conversation with a back end over a connected socket, which it owns.

    ``offered``, ``protocol_offered``: what the back end has; ``features``, ``protocol_features``:
    what was taken of it; ``queue_num``: its answer to GET_QUEUE_NUM, 1 without it.
    """

    def __init__(self, sock: socket.socket, timeout: float = 5.0) -> None:
        sock.setblocking(False)
        self._connection = Connection(sock)
        self._timeout = timeout
        self.offered = 0
        self.features = 0
        self.protocol_offered = 0
        self.protocol_features = 0
        self.queue_num = 1
        self._running: set[int] = set()

    @classmethod
    def connect(cls, path: str, timeout: float = 5.0) -> Self:
        """Connect to a back end that listens at ``path``; SocketError where none does."""
        return cls(unixsocket.connect(path, timeout), timeout)

    @classmethod
    def accept(cls, listener: socket.socket, timeout: float = 5.0) -> Self:
        """Wait for a back end to connect to ``listener``; TimeoutError where none comes."""
        if not _wait(listener.fileno(), select.POLLIN, timeout):
            raise TimeoutError(f"no back end connected within {timeout:g} s")
        return cls(listener.accept()[0], timeout)

    def fileno(self) -> int:
        """The socket's descriptor: readable where the back end hung up."""
        return self._connection.fileno()

    # ------------------------------------------------------------ exchanges

    def _send(self, request: Request, flags: int, payload: bytes, fds: Sequence[int]) -> None:
        if not _wait(self.fileno(), select.POLLOUT, self._timeout):
            raise ProtocolError(f"the back end does not read: {request.name} cannot be sent "
                                f"within {self._timeout:g} s")
        self._connection.send(request, flags, payload, fds)

    def _reply(self, request: Request, size: int) -> bytes:
        """The reply's payload, ``size`` bytes of it."""
        end = time.monotonic() + self._timeout
        message: Message | None = None
        while message is None:
            if not _wait(self.fileno(), select.POLLIN, end - time.monotonic()):
                raise ProtocolError(f"no reply to {request.name} within {self._timeout:g} s")
            message = self._connection.receive()
        unexpected = len(message.fds)
        message.close()
        if message.request != request:
            raise ProtocolError(f"{request.name} was answered with {message.name}")
        if message.flags != VERSION | REPLY:
            raise ProtocolError(f"the reply to {request.name} has flags {message.flags:#x}, not "
                                f"{VERSION | REPLY:#x}")
        if len(message.payload) != size:
            raise ProtocolError(f"the reply to {request.name} has {len(message.payload)} bytes, "
                                f"not {size}")
        if unexpected:
            raise ProtocolError(f"the reply to {request.name} carries file descriptors")
        return message.payload

    def _get(self, request: Request, payload: bytes = b"", size: int = 8) -> bytes:
        self._send(request, VERSION, payload, ())
        return self._reply(request, size)

    def _set(self, request: Request, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """A request without data in return; acknowledged where that was negotiated."""
        if not self._took(ProtocolFeature.REPLY_ACK):
            self._send(request, VERSION, payload, fds)
            return
        self._send(request, VERSION | NEED_REPLY, payload, fds)
        if result := unpack_u64(self._reply(request, 8)):
            raise ProtocolError(f"the back end refused {request.name} (result {result})")

    def _took(self, feature: ProtocolFeature) -> bool:
        return bool(self.protocol_features >> feature & 1)

    def _sync(self) -> None:
        """Return when the back end has done everything sent so far."""
        if not self._took(ProtocolFeature.REPLY_ACK):
            self._get(Request.GET_FEATURES)

    # ------------------------------------------------------------ features

    def negotiate(self, wanted: int, protocol_wanted: int = PROTOCOL_FEATURES) -> int:
        """Agree on features; -> those taken, of ``wanted`` and of what is offered.

        PROTOCOL_FEATURES (bit 30) is taken wherever it is offered.
        """
        self.offered = unpack_u64(self._get(Request.GET_FEATURES))
        if has(self.offered, Feature.PROTOCOL_FEATURES):
            wanted |= mask(Feature.PROTOCOL_FEATURES)
            self.protocol_offered = unpack_u64(self._get(Request.GET_PROTOCOL_FEATURES))
            taken = self.protocol_offered & protocol_wanted
            self._set(Request.SET_PROTOCOL_FEATURES, pack_u64(taken))
            self.protocol_features = taken
            if self._took(ProtocolFeature.MQ):
                self.queue_num = unpack_u64(self._get(Request.GET_QUEUE_NUM))
        self._set(Request.SET_OWNER)
        self.features = self.offered & wanted
        self._set(Request.SET_FEATURES, pack_u64(self.features))
        return self.features

    def set_mtu(self, mtu: int) -> None:
        """Tell the guest's MTU in bytes; ProtocolError where the back end refuses it.

        Nothing is sent to a back end that does not know NET_MTU.
        """
        if self._took(ProtocolFeature.NET_MTU):
            self._set(Request.NET_SET_MTU, pack_u64(mtu))

    def set_status(self, status: int) -> None:
        """The device status byte (VIRTIO 1.2, 2.1); only where STATUS was negotiated."""
        self._set(Request.SET_STATUS, pack_u64(status))

    def get_status(self) -> int:
        """The device status byte as the back end has it; only where STATUS was negotiated."""
        return unpack_u64(self._get(Request.GET_STATUS))

    # ------------------------------------------------------------ memory

    def set_memory(self, regions: Sequence[Region], gpas: Sequence[int]) -> None:
        """Share regions (made by Region.create), each at a guest address.

        User addresses are the host addresses of this process. When this returns, the back end
        has mapped them and let go of all earlier ones.
        """
        if len(regions) > MAX_TABLE_REGIONS:
            raise ValueError(f"{len(regions)} regions; a table takes {MAX_TABLE_REGIONS}")
        table = [_describe(r, gpa) for r, gpa in zip(regions, gpas, strict=True)]
        self._set(Request.SET_MEM_TABLE, pack_memory_table(table), [r.fd for r in regions])
        self._sync()

    def max_regions(self) -> int:
        """How many regions the back end takes; only with CONFIGURE_MEM_SLOTS."""
        return unpack_u64(self._get(Request.GET_MAX_MEM_SLOTS))

    def add_region(self, region: Region, gpa: int) -> None:
        """Share one region more; only with CONFIGURE_MEM_SLOTS."""
        self._set(Request.ADD_MEM_REG, _describe(region, gpa).pack_single(), [region.fd])
        self._sync()

    def remove_region(self, region: Region, gpa: int) -> None:
        """Share a region no longer; only with CONFIGURE_MEM_SLOTS."""
        self._set(Request.REM_MEM_REG, _describe(region, gpa).pack_single())
        self._sync()

    # ------------------------------------------------------------ rings

    def start_ring(self, index: int, size: int, base: int, desc: int, avail: int, used: int,
                   kick: int, call: int) -> None:
        """Hand over a ring of ``size`` entries, at avail index ``base``.

        ``desc``, ``avail``, ``used``: host addresses inside shared regions. ``kick``, ``call``:
        event fds, -1 for none (we never kick; we poll). They stay the caller's, and become
        non-blocking. The ring does nothing before ``enable_ring`` if bit 30 was taken.
        """
        self._set(Request.SET_VRING_NUM, VringState(index, size).pack())
        self._set(Request.SET_VRING_BASE, VringState(index, base).pack())
        self._set(Request.SET_VRING_ADDR, VringAddress(index, 0, desc, used, avail).pack())
        self._ring_file(Request.SET_VRING_CALL, index, call)
        # Last: back ends take it for the start.
        self._ring_file(Request.SET_VRING_KICK, index, kick)
        self._running.add(index)

    def _ring_file(self, request: Request, index: int, fd: int) -> None:
        self._set(request, RingFile(index, fd >= 0).pack(), [fd] if fd >= 0 else [])

    def set_call(self, index: int, call: int) -> None:
        """Change the call fd of a ring (-1: none)."""
        self._ring_file(Request.SET_VRING_CALL, index, call)

    def enable_ring(self, index: int, on: bool) -> None:
        """Let frames pass a ring, or none; at once where bit 30 was not taken."""
        if has(self.features, Feature.PROTOCOL_FEATURES):
            self._set(Request.SET_VRING_ENABLE, VringState(index, int(on)).pack())
            self._sync()

    def stop_ring(self, index: int) -> int:
        """Take a ring back; -> the avail index the back end would continue from."""
        state = VringState.unpack(self._get(Request.GET_VRING_BASE, VringState(index, 0).pack()))
        if state.index != index:
            raise ProtocolError(f"GET_VRING_BASE of ring {index} was answered for ring "
                                f"{state.index}")
        self._running.discard(index)
        return state.num

    def reset(self) -> None:
        """Stop and disable every ring, and reset the device where the back end can.

        Afterwards ``negotiate`` or SET_FEATURES again, and start rings anew.
        """
        for index in sorted(self._running):
            self.enable_ring(index, False)
            self.stop_ring(index)
        if self._took(ProtocolFeature.RESET_DEVICE):
            self._set(Request.RESET_DEVICE)
            self._sync()

    def close(self) -> None:
        """Hang up. Idempotent. Memory stays shared until the back end has noticed."""
        self._connection.close()


def _describe(region: Region, gpa: int) -> MemoryRegion:
    return MemoryRegion(gpa, region.size, region.address, 0)


def _wait(fd: int, events: int, seconds: float) -> bool:
    """Whether ``fd`` becomes ready in time; Closed where it is closed on this side."""
    if fd < 0:
        raise Closed("the connection was closed on this side")
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(max(0.0, seconds) * 1000))
