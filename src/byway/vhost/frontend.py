# SPDX-License-Identifier: Apache-2.0
"""The vhost-user front end: plays the part of a virtual machine monitor.

Used by the virtio-user port, by byway.testing's fake guest, and by anybody who wants to drive a
vhost-user back end from Python; uses sharing (memory, log, in-flight region), requests (exchanges),
messages, payloads, machine (regions, sockets).

    region = Region.create(size)
    front = FrontEnd.connect("/tmp/vm1.sock")
    features = front.negotiate(mask(Feature.VERSION_1, Feature.MRG_RXBUF))
    front.set_memory([region], [0])
    front.start_ring(0, 256, 0, desc, avail, used, kick, call)
    front.enable_ring(0, True)
    front.driver_ok()
    ...
    base = front.stop_ring(0)
    front.close()

It blocks, each exchange for at most ``timeout`` seconds, so an event loop runs it in a thread.
After ProtocolError or Closed only ``close`` is of use, except after RequestRefused.

Back ends differ, and the order above suits all of them: the owner before the features, features
before memory, memory before addresses, the call before the kick (which DPDK and others take for
the start), enabling after that, DRIVER_OK last (DPDK waits for it where STATUS was negotiated).
"""

import select
import socket
import struct
from typing import Self

from byway.machine import unixsocket
from byway.vhost.messages import VERSION, ProtocolError, ProtocolFeature, Request
from byway.vhost.payloads import RingFile, VringAddress, VringState, pack_u64, unpack_u64
from byway.vhost.requests import RequestRefused
from byway.vhost.sharing import Sharing
from byway.virtio.features import Feature, has, mask
from byway.virtio.ring import MAX_SIZE, WRAP
from byway.virtio.status import Status


def protocol_mask(*features: ProtocolFeature) -> int:
    """The word with the bits of ``features``."""
    return sum(1 << f for f in features)


# What this front end makes use of by itself. Callers of set_status, add_region, get_config and so
# on ask for STATUS, CONFIGURE_MEM_SLOTS, CONFIG in addition.
PROTOCOL_FEATURES = protocol_mask(
    ProtocolFeature.MQ, ProtocolFeature.REPLY_ACK, ProtocolFeature.NET_MTU,
    ProtocolFeature.RESET_DEVICE)
MAX_RINGS = 256  # ring indices have 8 bits
MAX_CONFIG = 256  # bytes of the configuration space in a message
_CONFIG = struct.Struct("=III")  # offset, size, flags ("Virtio device config space")
_LOGGED = 1  # flag of a vring address


class FrontEnd(Sharing):
    """One conversation with a back end over a connected socket, which it owns.

    ``offered``, ``protocol_offered``: what the back end has; ``features``, ``protocol_features``:
    what was taken of it; ``queue_num``: its answer to GET_QUEUE_NUM, 1 without it.
    """

    def __init__(self, sock: socket.socket, timeout: float = 5.0) -> None:
        super().__init__(sock, timeout)
        self.offered = 0
        self.features = 0
        self.protocol_offered = 0
        self.queue_num = 1
        self._sizes: dict[int, int] = {}  # of the rings that run

    @classmethod
    def connect(cls, path: str, timeout: float = 5.0) -> Self:
        """Connect to a back end that listens at ``path``; SocketError where none does."""
        return cls(unixsocket.connect(path, timeout), timeout)

    @classmethod
    def accept(cls, listener: socket.socket, timeout: float = 5.0) -> Self:
        """Wait for a back end to connect to ``listener``; TimeoutError where none comes."""
        poll = select.poll()
        poll.register(listener.fileno(), select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise TimeoutError(f"no back end connected within {timeout:g} s")
        return cls(listener.accept()[0], timeout)

    # ------------------------------------------------------------ features

    def negotiate(self, wanted: int, protocol_wanted: int = PROTOCOL_FEATURES) -> int:
        """Agree on features; -> those taken, of ``wanted`` and of what is offered.

        PROTOCOL_FEATURES (bit 30) is taken wherever it is offered. With STATUS the back end is
        told of each step, and asked whether it can live with the features; ``driver_ok`` is then
        the last word before frames pass.
        """
        self.look(protocol_wanted)
        self.own()
        return self.take(wanted)

    def look(self, protocol_wanted: int = PROTOCOL_FEATURES) -> int:
        """The first part of ``negotiate``: what is offered; -> the features.

        A caller that chooses by what is there goes on with ``own`` and ``take``.
        """
        self.offered = unpack_u64(self._get(Request.GET_FEATURES))
        if has(self.offered, Feature.PROTOCOL_FEATURES):
            self.protocol_offered = unpack_u64(self._get(Request.GET_PROTOCOL_FEATURES))
            taken = self.protocol_offered & protocol_wanted
            self._set(Request.SET_PROTOCOL_FEATURES, pack_u64(taken))
            self.protocol_features = taken
            if self.took(ProtocolFeature.MQ):
                self.queue_num = unpack_u64(self._get(Request.GET_QUEUE_NUM))
                if not 0 < self.queue_num <= MAX_RINGS:
                    raise ProtocolError(f"the back end says that it has {self.queue_num} queues")
        return self.offered

    def own(self) -> None:
        """The second part of ``negotiate``: this front end owns the device."""
        self._set(Request.SET_OWNER)

    def take(self, wanted: int) -> int:
        """The last part of ``negotiate``: set the features; -> those taken."""
        if self.took(ProtocolFeature.STATUS):
            self.set_status(Status.ACKNOWLEDGE | Status.DRIVER)
        self.set_features(self.offered & (wanted | mask(Feature.PROTOCOL_FEATURES)))
        if self.took(ProtocolFeature.STATUS):
            self.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
            if not self.get_status() & Status.FEATURES_OK:
                raise ProtocolError("the back end cannot live with the features "
                                    f"{self.features:#x} that it offered (no FEATURES_OK)")
        return self.features

    def set_features(self, features: int) -> None:
        """SET_FEATURES by itself: again while rings run, only LOG_ALL may change."""
        self._set(Request.SET_FEATURES, pack_u64(features))
        self.features = features

    def set_mtu(self, mtu: int) -> None:
        """Tell the guest's MTU in bytes; ProtocolError where the back end refuses it.

        Nothing is sent to a back end that does not know NET_MTU.
        """
        if self.took(ProtocolFeature.NET_MTU):
            self._set(Request.NET_SET_MTU, pack_u64(mtu))

    def set_status(self, status: int) -> None:
        """The device status byte (VIRTIO 1.2, 2.1); only where STATUS was negotiated."""
        self._need(ProtocolFeature.STATUS, Request.SET_STATUS)
        self._set(Request.SET_STATUS, pack_u64(status))

    def get_status(self) -> int:
        """The device status byte as the back end has it; only where STATUS was negotiated."""
        self._need(ProtocolFeature.STATUS, Request.GET_STATUS)
        status = unpack_u64(self._get(Request.GET_STATUS))
        if status > 0xFF:
            raise ProtocolError(f"a device status of {status:#x}, which is more than 8 bits")
        return status

    def driver_ok(self) -> None:
        """All is set up: frames may pass. Nothing is sent without STATUS."""
        if self.took(ProtocolFeature.STATUS):
            self.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK
                            | Status.DRIVER_OK)
            self._sync()

    # ------------------------------------------------------------ configuration space

    def get_config(self, offset: int, size: int) -> bytes:
        """``size`` bytes of the device's configuration space; only with CONFIG.

        RequestRefused where the back end has none there.
        """
        self._need(ProtocolFeature.CONFIG, Request.GET_CONFIG)
        if not 0 < size <= MAX_CONFIG:
            raise ValueError(f"{size} bytes; a message takes 1 to {MAX_CONFIG}")
        payload = _CONFIG.pack(offset, size, 0) + bytes(size)
        self._send(Request.GET_CONFIG, VERSION, payload, ())
        # "Zero length indicates an error".
        reply = self._reply(Request.GET_CONFIG, (0, _CONFIG.size, len(payload))).payload
        if len(reply) != len(payload) or _CONFIG.unpack_from(reply)[:2] != (offset, size):
            raise RequestRefused(Request.GET_CONFIG,
                                 f"no configuration space of {size} bytes at {offset}")
        return reply[_CONFIG.size :]

    def set_config(self, offset: int, data: bytes, migrating: bool = False) -> None:
        """Write into the device's configuration space; only with CONFIG."""
        self._need(ProtocolFeature.CONFIG, Request.SET_CONFIG)
        self._set(Request.SET_CONFIG, _CONFIG.pack(offset, len(data), int(migrating)) + data)

    # ------------------------------------------------------------ rings

    def start_ring(self, index: int, size: int, base: int, desc: int, avail: int, used: int,
                   kick: int, call: int, *, err: int = -1, log: int | None = None) -> None:
        """Hand over a ring of ``size`` entries, at avail position ``base``.

        ``base``: an index, or with RING_PACKED slot | WRAP. ``desc``, ``avail``, ``used``: host
        addresses inside shared regions (packed: the descriptors, the driver's and the device's
        event suppression). ``kick``, ``call``, ``err``: event fds, -1 for none (we never kick; we
        poll). They stay the caller's, and become non-blocking. ``log``: the used ring's guest
        address, where writes to it are to be logged. The ring does nothing before ``enable_ring``
        if bit 30 was taken.
        """
        packed = has(self.features, Feature.RING_PACKED)
        self._set(Request.SET_VRING_NUM, VringState(index, size).pack())
        # "SET_VRING_BASE": the used position is the upper half of a packed ring's number.
        both = base | base << 16 if packed else base
        self._set(Request.SET_VRING_BASE, VringState(index, both).pack())
        self.set_addresses(index, desc, avail, used, log)
        if err >= 0:
            self._ring_file(Request.SET_VRING_ERR, index, err)
        self._ring_file(Request.SET_VRING_CALL, index, call)
        self._ring_file(Request.SET_VRING_KICK, index, kick)
        self._sizes[index] = size
        if has(self.features, Feature.ACCESS_PLATFORM):
            for region, gpa in self.regions:
                self.update_iotlb(gpa, region.size, region.address)

    def set_addresses(self, index: int, desc: int, avail: int, used: int,
                      log: int | None = None) -> None:
        """SET_VRING_ADDR by itself: while a ring runs, to switch its logging on or off."""
        parts = [desc, used, avail]
        if has(self.features, Feature.ACCESS_PLATFORM):
            parts = [self.guest_address(part) for part in parts]
        flags = 0 if log is None else _LOGGED
        desc, used, avail = parts
        address = VringAddress(index, flags, desc, used, avail, log or 0)
        self._set(Request.SET_VRING_ADDR, address.pack())

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
        """Take a ring back; -> the avail position that the back end would continue from, in the
        form of ``start_ring``'s base."""
        state = VringState.unpack(self._get(Request.GET_VRING_BASE, VringState(index, 0).pack()))
        if state.index != index:
            raise ProtocolError(f"GET_VRING_BASE of ring {index} was answered for ring "
                                f"{state.index}")
        size = self._sizes.pop(index, MAX_SIZE)
        if not has(self.features, Feature.RING_PACKED):
            if state.num > 0xFFFF:
                raise ProtocolError(f"ring {index} stopped at {state.num:#x}, which is no index")
            return state.num
        # Some back ends fill the lower half only; a drained ring has both halves alike.
        if (state.num & (WRAP - 1)) >= size:
            raise ProtocolError(f"ring {index} stopped at slot {state.num & (WRAP - 1)} of {size}")
        return state.num & 0xFFFF

    def reset(self) -> None:
        """Stop and disable every ring, and reset the device where the back end can.

        Afterwards ``negotiate`` or SET_FEATURES again, and start rings anew.
        """
        for index in sorted(self._sizes):
            self.enable_ring(index, False)
            self.stop_ring(index)
        if self.took(ProtocolFeature.STATUS):
            self.set_status(0)
        if self.took(ProtocolFeature.RESET_DEVICE):
            self._set(Request.RESET_DEVICE)
            self._sync()
