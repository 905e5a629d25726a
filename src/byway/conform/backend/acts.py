# SPDX-License-Identifier: Apache-2.0
"""Conversations and rings as lists of acts, which can be spoiled, written to a file and done again.

Used by backend.spoil and backend.hostile. An `Act` is passive: a message, bytes written into guest
memory, a kick, or a pause. Everything lies at fixed addresses, so that a list of acts does the same
whenever it is done: ``GUEST`` and ``USER`` are where the memory begins, ring k lies RING_SPACE * k
behind, buffers from BUFFERS on.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from byway.conform.backend.bench import Bench
from byway.conform.layout import AVAIL, INDIRECT, NEXT, WRITE
from byway.conform.memory import GUEST, USER, Area
from byway.conform.outcome import Failed
from byway.vhost.messages import NEED_REPLY, VERSION, ProtocolFeature, Request
from byway.vhost.payloads import (
    MemoryRegion,
    RingFile,
    VringAddress,
    VringState,
    pack_memory_table,
    pack_u64,
)
from byway.virtio.features import Feature, mask

R, P, F = Request, ProtocolFeature, Feature
MEMORY = 1 << 20
SIZE = 64  # entries of a ring
RING_SPACE, AVAIL_AT, USED_AT = 0x4000, 0x1000, 0x2000
BUFFERS, BUFFER = 0x20000, 2048
MESSAGE, WRITTEN, KICK, PAUSE = "message", "write", "kick", "pause"
FILES = ("memory", "event", "short", "pipe", "disk")


@dataclass(frozen=True)
class Act:
    """One thing that is done.

    message: ``number`` is the request, ``data`` the payload; ``declared``: the size that the header
    claims (-1: the truth); ``cut``: so many bytes of it are sent, and nothing more (-1: all).
    write: ``data`` at offset ``number`` of the memory. kick: of ring ``number``. pause:
    ``number`` milliseconds.
    """

    kind: str
    number: int
    data: bytes = b""
    flags: int = VERSION
    files: tuple[str, ...] = ()
    declared: int = -1
    cut: int = -1

    def as_json(self) -> dict[str, Any]:
        """The act as a file holds it."""
        return {**asdict(self), "data": self.data.hex(), "files": list(self.files)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Act":
        """From a file; KeyError, TypeError or ValueError where it is none."""
        return cls(**{**found, "data": bytes.fromhex(found["data"]),
                      "files": tuple(found["files"])})


def _message(request: Request, data: bytes = b"", *files: str) -> Act:
    return Act(MESSAGE, int(request), data, files=files)


def conversation(features: int, protocol: int, slots: bool = False) -> list[Act]:
    """A correct conversation that starts one pair of rings."""
    acts = [_message(R.GET_PROTOCOL_FEATURES), _message(R.SET_PROTOCOL_FEATURES,
                                                        pack_u64(protocol)),
            _message(R.SET_OWNER), _message(R.SET_FEATURES, pack_u64(features))]
    if slots:
        half = MEMORY // 2
        for k in (0, 1):
            region = MemoryRegion(GUEST + k * half, half, USER + k * half, k * half)
            acts.append(_message(R.ADD_MEM_REG, region.pack_single(), "memory"))
    else:
        acts.append(_message(R.SET_MEM_TABLE, pack_memory_table(
            [MemoryRegion(GUEST, MEMORY, USER, 0)]), "memory"))
    for k in (0, 1):
        at, base = USER + RING_SPACE * k, 1 << 15 if features >> F.RING_PACKED & 1 else 0
        acts += [_message(R.SET_VRING_NUM, VringState(k, SIZE).pack()),
                 _message(R.SET_VRING_BASE, VringState(k, base).pack()),
                 _message(R.SET_VRING_ADDR, VringAddress(k, 0, at, at + USED_AT,
                                                         at + AVAIL_AT).pack()),
                 _message(R.SET_VRING_CALL, RingFile(k, True).pack(), "event"),
                 _message(R.SET_VRING_KICK, RingFile(k, True).pack(), "event")]
    acts += [_message(R.SET_VRING_ENABLE, VringState(k, 1).pack()) for k in (0, 1)]
    if protocol >> P.REPLY_ACK & 1:
        acts = [replace(act, flags=VERSION | NEED_REPLY) if k > 2 else act
                for k, act in enumerate(acts)]
    return acts


def rings(packed: bool, frames: int = 8) -> list[Act]:
    """Receive buffers and frames in rings of either format, and kicks."""
    acts: list[Act] = []
    for ring in (0, 1):
        receive = ring == 0
        for k in range(frames):
            gpa = GUEST + BUFFERS + BUFFER * (2 * k + ring)
            if not receive:
                data = bytes(12) + b"\xff" * 6 + b"\x02\0\0\0\0\x09\x88\xb5" + bytes(100)
                acts.append(Act(WRITTEN, gpa - GUEST, data))
            acts += _buffer(ring, k, gpa, packed, receive)
        if not packed:
            acts.append(Act(WRITTEN, RING_SPACE * ring + AVAIL_AT + 2, struct.pack("<H", frames)))
        acts += [Act(KICK, ring), Act(PAUSE, 3)]
    return acts


def _buffer(ring: int, k: int, gpa: int, packed: bool, receive: bool) -> list[Act]:
    """Descriptors of buffer k: in turn direct, a chain of two, indirect."""
    flags, n = WRITE * receive, BUFFER if receive else 126
    at, shape = RING_SPACE * ring, k % 3
    slot, table = 2 * k, BUFFERS + BUFFER * (2 * k + ring) + 1024
    whole = [(gpa, n, flags)] if shape == 0 else [(gpa, 12, flags), (gpa + 12, n - 12, flags)]
    acts, made = [], b""
    if shape == 2 and not receive:
        for j, (a, size, what) in enumerate(whole):
            more = 0 if packed or j else NEXT
            made += struct.pack("<QIHH", a, size, 0, what) if packed else \
                struct.pack("<QIHH", a, size, what | more, 1 - j if more else 0)
        acts.append(Act(WRITTEN, table, made))
        whole = [(GUEST + table, len(made), INDIRECT)]
    if packed and len(whole) == 1:  # every slot is used
        whole = [*whole, whole[0]]
        chained = False
    else:
        chained = len(whole) > 1
    for j, (a, size, what) in enumerate(whole):
        more = NEXT if chained and j == 0 else 0
        layout = struct.pack("<QIHH", a, size, slot + j, what | more | AVAIL) if packed else \
            struct.pack("<QIHH", a, size, what | more, slot + 1 if more else 0)
        acts.append(Act(WRITTEN, at + 16 * (slot + j), layout))
    if not packed:
        acts.append(Act(WRITTEN, at + AVAIL_AT + 4 + 2 * k, struct.pack("<H", slot)))
    return acts


def seeds(bench: Bench) -> list[list[Act]]:
    """Correct lists of acts for what the back end offers."""
    bench.learn()
    offered = bench.offered
    base = offered & mask(F.VERSION_1, F.PROTOCOL_FEATURES, F.INDIRECT_DESC, F.CSUM)
    ack = bench.protocol_offered & 1 << P.REPLY_ACK
    made = [conversation(base, ack) + rings(False),
            conversation(base | offered & mask(F.MRG_RXBUF, F.EVENT_IDX), 0) + rings(False)]
    if offered >> F.RING_PACKED & 1:
        made.append(conversation(base | mask(F.RING_PACKED), ack) + rings(True))
        made.append(conversation(base | mask(F.RING_PACKED)
                                 | offered & mask(F.MRG_RXBUF, F.EVENT_IDX), 0) + rings(True))
    if bench.protocol_offered >> P.CONFIGURE_MEM_SLOTS & 1:
        made.append(conversation(base, ack | 1 << P.CONFIGURE_MEM_SLOTS, True) + rings(False))
    return made


class Stage:
    """The memory and the files of one list of acts."""

    def __init__(self) -> None:
        self.area = Area(MEMORY, GUEST, USER)
        self.kicks: dict[int, int] = {}
        self._fds: list[int] = []

    def file(self, kind: str) -> int:
        """A new fd of a kind, ours to close at the end."""
        if kind == "memory":
            fd = os.dup(self.area.fd)
        elif kind == "event":
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        elif kind == "pipe":
            one, fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._fds.append(one)
        elif kind == "disk":
            fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        else:
            fd = os.memfd_create("short")
            os.ftruncate(fd, 4096)
        self._fds.append(fd)
        return fd

    def do(self, bench: Bench, acts: Sequence[Act]) -> str:
        """Do them on a new connection; -> how it ended."""
        wire = bench.connect()
        ended = "it went on"
        try:
            for act in acts:
                if act.kind == WRITTEN:
                    end = min(act.number + len(act.data), MEMORY)
                    if act.number < end:
                        self.area.map[act.number : end] = act.data[: end - act.number]
                elif act.kind == KICK and act.number in self.kicks:
                    os.eventfd_write(self.kicks[act.number], 1)
                elif act.kind == PAUSE:
                    wire.hung_up(act.number / 1000)
                elif act.kind == MESSAGE:
                    fds = [self.file(kind) for kind in act.files[:32]]
                    if act.number == R.SET_VRING_KICK and act.files[:1] == ("event",) and act.data:
                        self.kicks[act.data[0]] = fds[0]
                    wire.say(act.number, act.data, fds, act.flags, act.declared, act.cut)
                    if act.cut >= 0:
                        break
            if wire.hung_up(0.002):
                ended = "it hung up"
            elif (peer := bench.peer()) is not None:  # something for the receive ring
                for _ in range(4):
                    peer.send(b"\xff" * 6 + b"\x02\0\0\0\0\x08\x88\xb5" + bytes(300))
                peer.flush()
                wire.hung_up(0.003)
                peer.frames()
                peer.tx.poll()
        except Failed as error:
            ended = str(error)
        wire.close()
        return ended

    def close(self) -> None:
        """Close everything."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self.area.close()
