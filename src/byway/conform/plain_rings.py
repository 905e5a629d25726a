# SPDX-License-Identifier: Apache-2.0
"""The rings of the plain back end, and a switch of such back ends.

Used by the checks of front ends and the tests. A ring is served when its kick fd is readable, and
after every message. A `PlainSwitch` has one port a socket; what a port's driver sends goes to the
next port, or back to itself where it is the only one.
"""

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Self

from byway.conform.device import DeviceRing, Taken, call
from byway.conform.outcome import Failed
from byway.conform.plain_back_end import DRIVER_OK, PlainConversation, RingState
from byway.machine import unixsocket
from byway.vhost.connection import Closed, Connection
from byway.vhost.messages import ProtocolError
from byway.virtio.features import Feature, has, header_length

QUEUE = 512  # frames that wait for receive buffers
NEEDS_CSUM = 1


class PlainBackEnd(PlainConversation):
    """A whole back end: messages and rings. ``sink``: where the driver's frames go."""

    def __init__(self, connection: Connection, sink: Callable[[bytes], None],
                 note: Callable[[str, str], None] = lambda rule, text: None) -> None:
        super().__init__(connection, note)
        self.sink = sink
        self.devices: dict[int, DeviceRing] = {}
        self.waiting: list[bytes] = []  # frames for the driver
        self.frames_in = self.frames_out = 0
        self.wants_kicks = True

    # ------------------------------------------------------------ which rings are served
    def ready(self, ring: RingState) -> bool:
        """Whether a ring may be touched."""
        driver = not self.status_seen or bool(self.status & DRIVER_OK)
        return bool(ring.started and ring.size and ring.address and self.features_set
                    and self.memory.areas and driver)

    def settle(self) -> None:
        """After each message: take up rings that are ready, leave those that are not."""
        for ring in self.rings:
            if not self.ready(ring):
                self.leave(ring)
            elif ring.index not in self.devices:
                address, user = ring.address, self.memory.gpa_of_user
                assert address
                self.devices[ring.index] = self.make_ring(
                    ring, user(address.desc), user(address.avail), user(address.used))
        self.serve()

    def make_ring(self, ring: RingState, desc: int, avail: int, used: int) -> DeviceRing:
        """The device's side of a ring that is ready."""
        return DeviceRing(self.memory, ring.index, ring.size, self.features, ring.base, desc,
                          avail, used, self.note)

    def leave(self, ring: RingState) -> None:
        """Do not touch a ring any more; it goes on where it is."""
        device = self.devices.pop(ring.index, None)
        if device is not None:
            ring.base = device.position

    def stop(self, ring: RingState) -> None:
        self.leave(ring)
        super().stop(ring)

    def on_set_vring_addr(self, message: object) -> None:
        for ring in self.rings:  # addresses may have changed
            self.leave(ring)
        super().on_set_vring_addr(message)  # type: ignore[arg-type]

    # ------------------------------------------------------------ serving
    def serve(self) -> None:
        """Move whatever can be moved; what is sent may come in again."""
        for ring in reversed(self.rings):
            device = self.devices.get(ring.index)
            if device is None:
                continue
            try:
                if ring.index % 2:
                    self.transmit(ring, device)
                elif ring.enabled and ring.index == 0:
                    self.receive(ring, device)
            except (Failed, struct.error) as error:
                self.note("driver.addresses", f"ring {ring.index}: {error}")
                self.devices.pop(ring.index)

    def transmit(self, ring: RingState, device: DeviceRing) -> None:
        """Take what the driver sends."""
        used: list[tuple[Taken, int]] = []
        while (taken := device.take()) is not None:
            data = b"" if taken.bad else device.content(taken)
            used.append((taken, 0))
            header = header_length(self.features)
            if ring.enabled and len(data) >= header + 14:
                self.frames_in += 1
                self.out(data[header:], data[:header])
            elif not taken.bad and len(data) < header:
                self.note("driver.header", f"a frame of {len(data)} bytes with its header")
            if taken.writable:
                self.note("driver.direction", f"ring {ring.index}: a writable descriptor in a "
                          "transmit ring")
        self.finish(ring, device, used)

    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        """Give chains back and call the driver if it wants to be."""
        if used:
            device.give_back(used)
            if self.should_call(device):
                call(ring.call)
        device.want_kicks(self.wants_kicks)

    def should_call(self, device: DeviceRing) -> bool:
        """Whether the driver is called for what was used."""
        return device.wants_call()

    def out(self, frame: bytes, header: bytes) -> None:
        self.judge_header(header)
        if header[0] & NEEDS_CSUM:
            frame = complete(frame, *struct.unpack_from("<HH", header, 6))
        self.sink(frame)

    def judge_header(self, header: bytes) -> None:
        """What a driver may say in the virtio header (5.1.6.2)."""
        if len(header) >= 12 and header[10:12] != b"\0\0":
            self.note("driver.header", f"num_buffers is {header[10:12].hex()} in a frame sent")
        if header[0] & ~NEEDS_CSUM:
            self.note("driver.header", f"flags {header[0]:#x} in a frame sent")
        if header[0] & NEEDS_CSUM and not has(self.features, Feature.CSUM):
            self.note("driver.unnegotiated", "NEEDS_CSUM without CSUM")
        if header[1] and not self.features & 0x7800 | self.features & 1 << Feature.HOST_USO:
            self.note("driver.unnegotiated", f"gso_type {header[1]} without a HOST_ feature")

    def deliver(self, frame: bytes) -> None:
        """A frame for the driver."""
        if len(self.waiting) < QUEUE and self.rings[0].enabled and 0 in self.devices:
            self.waiting.append(frame)

    def receive(self, ring: RingState, device: DeviceRing) -> None:
        """Give the driver what waits for it."""
        used: list[tuple[Taken, int]] = []
        while self.waiting and device.waiting():
            frame = self.waiting[0]
            chains = self.scatter(device, frame)
            if chains is None:
                break
            self.waiting.pop(0)
            used += chains
            self.frames_out += bool(chains[0][1])
        self.finish(ring, device, used)

    def scatter(self, device: DeviceRing, frame: bytes) -> list[tuple[Taken, int]] | None:
        """Write a frame into chains; None where there are not enough yet."""
        position = device.position
        size = header_length(self.features)
        rest = len(frame) + size
        chains: list[Taken] = []
        while rest > 0:
            taken = device.take()
            if taken is None:
                device.position = position
                return None
            if taken.bad or taken.readable:
                self.note("driver.direction", f"ring {device.index}: a readable descriptor in a "
                          "receive ring")
                return [*((one, 0) for one in chains), (taken, 0)]
            chains.append(taken)
            rest -= taken.room
            if rest > 0 and not has(self.features, Feature.MRG_RXBUF):
                return [(taken, 0)]  # too small: the frame is dropped
        data = self.header(len(chains))[:size] + frame
        answer = []
        for taken in chains:
            answer.append((taken, device.store(taken, data)))
            data = data[taken.room :]
        return answer

    def header(self, buffers: int) -> bytes:
        """The header of a frame for the driver (5.1.6.4.1)."""
        return bytes(10) + struct.pack("<H", buffers)

    def kicked(self, fd: int) -> None:
        """A kick fd is readable. What is wrong with it is the front end's loss."""
        with contextlib.suppress(OSError):
            os.eventfd_read(fd)

    @property
    def kicks(self) -> list[int]:
        """The kick fds of rings that are served."""
        return [r.kick for r in self.rings if r.kick >= 0 and r.index in self.devices]

    @property
    def polls(self) -> bool:
        """Whether a ring has to be looked at again and again."""
        return any(r.kick < 0 and r.index in self.devices for r in self.rings)

    def close(self) -> None:
        super().close()
        self.devices.clear()


def complete(frame: bytes, start: int, offset: int) -> bytes:
    """A frame with the checksum that its header asks for (5.1.6.2)."""
    if start + offset + 2 > len(frame):
        return frame
    data = frame[start:] + b"\0" * (len(frame[start:]) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = start + offset
    return frame[:at] + struct.pack(">H", ~total & 0xFFFF or 0xFFFF) + frame[at + 2 :]


class PlainSwitch:
    """Back ends behind sockets, served by a thread of their own until ``close``."""

    def __init__(self, paths: Sequence[str],
                 kinds: Sequence[type[PlainBackEnd]] = (PlainBackEnd,)) -> None:
        self._listeners = [unixsocket.listen(path) for path in paths]
        self._kinds = [kinds[k] if k < len(kinds) else PlainBackEnd for k in range(len(paths))]
        self.ports: list[PlainBackEnd | None] = [None for _ in paths]
        self._stop, self._stopping = os.pipe()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="plain switch", daemon=True)
        self._thread.start()

    def _sink(self, port: int) -> Callable[[bytes], None]:
        def sink(frame: bytes) -> None:
            other = self.ports[(port + 1) % len(self.ports)]
            if other is not None:
                other.deliver(frame)
                if other is not self.ports[port]:
                    other.serve()
        return sink

    def _run(self) -> None:
        try:
            while self._turn():
                continue
        except BaseException as error:
            self.error = error
            raise
        finally:
            for listener in self._listeners:
                unixsocket.close(listener)
            for left in self.ports:
                if left is not None:
                    left.close()

    def _turn(self) -> bool:
        poll = select.poll()
        for fd in (self._stop, *(sock.fileno() for sock in self._listeners)):
            poll.register(fd, select.POLLIN)
        live = [port for port in self.ports if port is not None]
        for port in live:
            for fd in (port.connection.fileno(), *port.kicks):
                poll.register(fd, select.POLLIN)
        polls = any(port.polls for port in live)
        ready = {fd for fd, _ in poll.poll(1 if polls else 200)}
        if self._stop in ready:
            return False
        for k, one in enumerate(self.ports):
            if one is not None:
                self._look(k, one, ready)
        for k, listener in enumerate(self._listeners):
            if listener.fileno() in ready:
                self._accept(k, listener)
        return True

    def _accept(self, k: int, listener: socket.socket) -> None:
        sock = listener.accept()[0]
        if self.ports[k] is not None:
            sock.close()
            return
        sock.setblocking(False)
        self.ports[k] = self._kinds[k](Connection(sock), self._sink(k))

    def _look(self, k: int, port: PlainBackEnd, ready: set[int]) -> None:
        for fd in ready & set(port.kicks):
            port.kicked(fd)
        try:
            if port.connection.fileno() in ready:
                while (message := port.connection.receive()) is not None:
                    port.handle(message)
            if ready or port.polls:
                port.serve()
        except (Closed, ProtocolError):
            port.close()
            self.ports[k] = None

    def close(self) -> None:
        """End the thread. Idempotent."""
        if self._thread.is_alive():
            os.write(self._stopping, b"x")
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        os.close(self._stop)
        os.close(self._stopping)
