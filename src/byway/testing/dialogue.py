# SPDX-License-Identifier: Apache-2.0
"""A vhost-user front end played message by message against a BackEnd, in one thread.

Used by tests of the back end and by the conversation fuzzer; uses vhost. Public, for tests of
other back-end targets.

`IdleTarget` serves nothing and keeps the books of what the back end asked of it. `Files` holds
one file descriptor of each kind that a front end might attach. `Dialogue` is the two ends of a
socket with a BackEnd behind one of them, and the loop that it runs on.
"""

import ctypes
import os
import random
import socket
import tempfile
from array import array
from collections.abc import Sequence
from enum import Enum

from byway.testing.conversation import LOG_SIZE, MEMORY_SIZE, FileKind, Step
from byway.testing.loop import ManualLoop
from byway.vhost.backend import BackEnd
from byway.vhost.connection import Closed, Connection, Message
from byway.vhost.inflight import part_bytes
from byway.vhost.messages import HEADER, ProtocolError, ProtocolFeature, Request
from byway.vhost.payloads import Iotlb
from byway.vhost.ring import part_sizes
from byway.virtio.features import Feature, has, mask
from byway.virtio.ring import LOG_AT

OFFERED = mask(Feature.VERSION_1, Feature.PROTOCOL_FEATURES, Feature.MRG_RXBUF,
               Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.ANY_LAYOUT, Feature.MTU,
               Feature.RING_PACKED, Feature.LOG_ALL, Feature.MQ, Feature.ACCESS_PLATFORM)
PROTOCOL_OFFERED = sum(1 << f for f in (
    ProtocolFeature.MQ, ProtocolFeature.LOG_SHMFD, ProtocolFeature.RARP,
    ProtocolFeature.REPLY_ACK, ProtocolFeature.NET_MTU, ProtocolFeature.CONFIG,
    ProtocolFeature.INFLIGHT_SHMFD, ProtocolFeature.BACKEND_REQ, ProtocolFeature.RESET_DEVICE,
    ProtocolFeature.CONFIGURE_MEM_SLOTS, ProtocolFeature.STATUS))
MEMORY_NAME = "byway-dialogue"
# struct virtio_net_config (VIRTIO 1.2, 5.1.4): mac, status, pairs, mtu.
CONFIG_SPACE = bytes.fromhex("525400123456 0100 0400 dc05")


class IdleTarget:
    """A target of a BackEnd that moves no frames.

    On attach it touches the first and the last byte of every part of every ready ring, of the dirty
    log and of the in-flight region, as a worker might: an address outside ends the process.
    """

    def __init__(self, mtu: int = 9000) -> None:
        self._flag = ctypes.c_int64(0)
        self.back_end: BackEnd | None = None
        self.mtu = mtu
        self.attached = False
        self.attaches = 0
        self.detaches = 0
        self.served: list[int] = []  # the rings ready at the last attach
        self.positions: dict[int, int] = {}
        self.calls: list[int] = []
        self.settled = 0
        self.announced: list[bytes] = []

    @property
    def fault_flag(self) -> int:
        """Address of the flag that a fault raises."""
        return ctypes.addressof(self._flag)

    @property
    def faulted(self) -> bool:
        """Whether the front end's memory vanished under us (with machine.sigbus installed)."""
        return bool(self._flag.value)

    def detach(self) -> None:
        """Leave the rings."""
        self.detaches += 1
        self.attached = False

    def attach(self) -> None:
        """Take up the rings that are ready."""
        if self.back_end is None or self.attached:
            raise AssertionError("attached twice, or before the BackEnd was there")
        self.attaches += 1
        self.attached = True
        ready = [r for r in self.back_end.rings if r.ready]
        self.served = [r.index for r in ready]
        event_idx = has(self.back_end.features, Feature.EVENT_IDX)
        for ring in ready:
            self.positions[ring.index] = ring.base
            sizes = part_sizes(ring.size, event_idx, ring.packed)
            parts = (ring.desc, ring.avail, ring.used)
            for start, (_, n, _) in zip(parts, sizes, strict=True):
                _touch(start, n)
            if ring.inflight:
                size = self.back_end.inflight.queue_size
                _touch(ring.inflight, part_bytes(size, ring.packed))
        if record := self.back_end.log_record:
            _touch(_word(record + int(LOG_AT.bits)), _word(record + int(LOG_AT.bytes)))

    def position(self, index: int) -> int:
        """The next avail index; tests write it into ``positions``."""
        if self.attached:
            raise AssertionError("position of a ring that is being served")
        return self.positions[index]

    def call_changed(self, index: int) -> None:
        """Note whose call fd changed."""
        self.calls.append(index)

    def mtu_changed(self, mtu: int) -> bool:
        """Take every MTU up to ``self.mtu``."""
        return mtu <= self.mtu

    def settle(self) -> None:
        """Nobody is in the middle of anything."""
        self.settled += 1

    def announce(self, mac: bytes) -> None:
        """Note who was announced."""
        self.announced.append(mac)

    def config_space(self) -> bytes:
        """The configuration space of a device with four queue pairs."""
        return CONFIG_SPACE


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _touch(start: int, n: int) -> None:
    """Read and write the first and the last of ``n`` bytes."""
    for address in (start, start + n - 1):
        byte = ctypes.c_uint8.from_address(address)
        byte.value = byte.value


def _memory(size: int) -> int:
    fd = os.memfd_create(MEMORY_NAME)
    os.ftruncate(fd, size)
    return fd


def _closed_socket() -> int:
    a, b = socket.socketpair()
    b.close()
    return a.detach()


def _disk_file() -> int:
    # Not in a directory of memory files, which a temporary directory may be.
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        file.truncate(MEMORY_SIZE)
        return os.dup(file.fileno())


class Files:
    """One open file descriptor of each kind; the same one whenever it is asked for.

    FileKind.RETURNED is another memory file until a Dialogue's replies bring one; ``questions`` is
    the front end's end of FileKind.CHANNEL.
    """

    def __init__(self) -> None:
        read_only = _memory(MEMORY_SIZE)
        self.questions, channel = socket.socketpair()
        self.questions.setblocking(False)
        pipe = os.pipe()
        self._fds = {
            FileKind.EVENT: os.eventfd(0, os.EFD_CLOEXEC),
            FileKind.MEMORY: _memory(MEMORY_SIZE),
            FileKind.OTHER_MEMORY: _memory(MEMORY_SIZE),
            FileKind.SHORT_MEMORY: _memory(4096),
            FileKind.EMPTY_MEMORY: _memory(0),
            FileKind.READ_ONLY_MEMORY: os.open(f"/proc/self/fd/{read_only}", os.O_RDONLY),
            FileKind.PIPE: pipe[1],
            FileKind.CLOSED_SOCKET: _closed_socket(),
            FileKind.LOG: _memory(LOG_SIZE),
            FileKind.RETURNED: _memory(MEMORY_SIZE),
            FileKind.CHANNEL: channel.detach(),
            FileKind.DISK: _disk_file(),
            FileKind.DIRECTORY: os.open("/", os.O_RDONLY | os.O_DIRECTORY),
            FileKind.DEVICE: os.open("/dev/zero", os.O_RDWR),
        }
        os.close(read_only)
        os.close(pipe[0])

    def get(self, kind: FileKind) -> int:
        """The descriptor of a kind."""
        return self._fds[kind]

    def put(self, kind: FileKind, fd: int) -> None:
        """Use ``fd``, which is the caller's, for a kind from now on."""
        os.dup2(fd, self._fds[kind], inheritable=False)

    def scribble(self, rng: random.Random) -> None:
        """Write nonsense into the guest's memory and what was returned: flags, small numbers, and
        some that are large, where rings and the in-flight region have theirs."""
        for kind in (FileKind.MEMORY, FileKind.RETURNED):
            size = os.fstat(self._fds[kind]).st_size
            for _ in range(rng.randrange(1, 16)):
                near = rng.choice((32, 64, 4096, size))
                base = rng.choice((0, 0, 0x2000, 0x3000, 4160, 8256))
                data = rng.choice((rng.randbytes(8), bytes([1, 0, rng.randrange(4), 0] * 2),
                                   rng.randrange(300).to_bytes(2, "little"), b"\1", b"\xff" * 4))
                at = min(base + rng.randrange(near), size - len(data))
                if at >= 0:
                    os.pwrite(self._fds[kind], data, at)

    def shrink(self, size: int) -> None:
        """Truncate the guest's memory, and the dirty log, to ``size`` bytes, whoever has mapped
        them."""
        for kind in (FileKind.MEMORY, FileKind.LOG):
            os.ftruncate(self._fds[kind], size)

    def close(self) -> None:
        """Close them all."""
        self.questions.close()
        for fd in self._fds.values():
            os.close(fd)


class End(Enum):
    """How a dialogue ended."""

    ERROR = "the back end found an error"
    CLOSED = "the front end hung up"


class Dialogue:
    """A BackEnd with an IdleTarget, and the front end's end of the socket."""

    def __init__(self, files: Files, *, features: int = OFFERED,
                 protocol_features: int = PROTOCOL_OFFERED, queue_pairs: int = 4) -> None:
        self._files = files
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.front = ours
        self._replies = Connection(ours)
        self._connection = Connection(theirs)
        self.target = IdleTarget()
        self.loop = ManualLoop()
        self.back_end = BackEnd(self.target, features=features, queue_pairs=queue_pairs,
                                protocol_features=protocol_features, loop=self.loop)
        self.target.back_end = self.back_end
        self.back_end.connection = self._connection
        self.end: End | None = None
        self.reason = ""

    def write(self, step: Step) -> None:
        """Send a step's bytes, as far as the socket and its ``cut`` let it."""
        size = len(step.payload) if step.declared is None else step.declared
        data = (HEADER.pack(step.request, step.flags, size) + step.payload)[:step.cut]
        fds = [self._files.get(kind) for kind in step.files]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            self.front.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, BlockingIOError, ConnectionResetError):
            return  # the back end has hung up, or is full: what a front end sees, too

    def run(self) -> None:
        """Let the back end do everything it received. Its errors end the dialogue."""
        while self.end is None:
            try:
                message = self._connection.receive()
                if message is None:
                    self.loop.run()
                    return
                self.back_end.handle(message)
            except (ProtocolError, Closed) as error:
                self.end = End.ERROR if isinstance(error, ProtocolError) else End.CLOSED
                self.reason = error.reason
                self.back_end.close()
                self._connection.close()

    def replies(self) -> list[Message]:
        """What the back end sent, without files; reads until there is nothing more."""
        got: list[Message] = []
        try:
            while message := self._replies.receive():
                if message.fds:
                    self._files.put(FileKind.RETURNED, message.fds[0])
                message.close()
                got.append(message)
        except Closed:
            return got
        return got

    def say(self, step: Step) -> list[Message]:
        """Send a step, let it be done; -> the replies."""
        self.write(step)
        self.run()
        return self.replies()

    def play(self, steps: Sequence[Step]) -> list[Message]:
        """Say steps one after the other, until the back end ends it; -> the replies."""
        got: list[Message] = []
        for step in steps:
            got += self.say(step)
            if step.cut is not None:
                self.hang_up()
            if self.end is not None:
                break
        return got

    def asked(self) -> list[Iotlb]:
        """What the back end asked on the channel since the last look, if all was read."""
        data = b""
        try:
            while more := self._files.questions.recv(1 << 16):
                data += more
        except BlockingIOError:
            step = HEADER.size + Iotlb.LAYOUT.size
            return [Iotlb.unpack(data[at + HEADER.size : at + step])
                    for at in range(0, len(data), step)]
        return []

    def get(self, request: Request, payload: bytes = b"") -> bytes:
        """The payload of the one reply to a request."""
        (reply,) = self.say(Step(request, payload=payload))
        return reply.payload

    def hang_up(self) -> None:
        """Close the front end's side and let the back end notice. Idempotent."""
        self._replies.close()
        self.run()

    def close(self) -> None:
        """Hang up and release everything. Idempotent."""
        self.hang_up()
        self.back_end.close()
        self._connection.close()
