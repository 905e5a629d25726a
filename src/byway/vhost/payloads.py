# SPDX-License-Identifier: Apache-2.0
"""The payloads of vhost-user messages: layout and validity of each.

Used by the back end, the front end, memory and byway.testing; uses messages (ProtocolError).
Source: QEMU, docs/interop/vhost-user.rst, whose section each class names. Integers are in native
byte order ("Message Specification"), without padding that the layouts do not show.
"""

import struct
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from byway.vhost.messages import MAX_TABLE_REGIONS, NO_FD, ProtocolError

_U64 = struct.Struct("=Q")
_TABLE = struct.Struct("=II")  # number of regions, padding


def pack_u64(value: int) -> bytes:
    """"A single 64-bit integer"."""
    return _U64.pack(value)


def unpack_u64(payload: bytes) -> int:
    """The value of a 64-bit integer payload."""
    if len(payload) != _U64.size:
        raise ProtocolError(f"an integer of {len(payload)} bytes, not 8")
    return int(_U64.unpack(payload)[0])


class Fields:
    """A payload of fixed layout; its subclasses are the structures of the specification."""

    LAYOUT: ClassVar[struct.Struct]
    WHAT: ClassVar[str]

    def pack(self) -> bytes:
        """The structure's bytes."""
        values = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        return bytes(self.LAYOUT.pack(*values))

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """The structure from its bytes; ProtocolError where there are more or fewer."""
        if len(payload) != cls.LAYOUT.size:
            raise ProtocolError(f"{cls.WHAT} of {len(payload)} bytes, not {cls.LAYOUT.size}")
        return cls(*cls.LAYOUT.unpack(payload))


@dataclass(frozen=True, slots=True)
class VringState(Fields):
    """"Vring state description": a ring and a number."""

    LAYOUT = struct.Struct("=II")
    WHAT = "a vring state"

    index: int
    num: int


@dataclass(frozen=True, slots=True)
class VringAddress(Fields):
    """"Vring address description": the parts of a ring by user address (used before avail)."""

    LAYOUT = struct.Struct("=IIQQQQ")
    WHAT = "a vring address"

    index: int
    flags: int  # bit 0: writes to the used ring are logged, at guest address ``log``
    desc: int
    used: int
    avail: int
    log: int = 0


@dataclass(frozen=True, slots=True)
class MemoryRegion(Fields):
    """"Memory region description": guest address, bytes, user address, offset in the file."""

    LAYOUT = struct.Struct("=QQQQ")
    WHAT = "a memory region"

    gpa: int
    size: int
    user: int
    offset: int

    def pack_single(self) -> bytes:
        """"Single memory region description", of ADD_MEM_REG and REM_MEM_REG."""
        return pack_u64(0) + self.pack()

    @classmethod
    def unpack_single(cls, payload: bytes) -> Self:
        """From the payload of ADD_MEM_REG and REM_MEM_REG."""
        return cls.unpack(payload[8:])


@dataclass(frozen=True, slots=True)
class RingFile:
    """The u64 of SET_VRING_KICK, _CALL and _ERR: the ring, and whether an fd is attached."""

    index: int
    has_fd: bool

    def pack(self) -> bytes:
        """The payload."""
        return pack_u64(self.index | (0 if self.has_fd else NO_FD))

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From the payload; ProtocolError where bits are set that mean nothing."""
        value = unpack_u64(payload)
        if value & ~(NO_FD | 0xFF):
            raise ProtocolError(f"a ring index of {value:#x}, which is more than 8 bits")
        return cls(value & 0xFF, not value & NO_FD)


@dataclass(frozen=True, slots=True)
class Log(Fields):
    """"Log description": bytes and file offset of the dirty log."""

    LAYOUT = struct.Struct("=QQ")
    WHAT = "a log description"

    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Inflight(Fields):
    """"Inflight description", in the 24 bytes of the C structure that every known peer sends."""

    LAYOUT = struct.Struct("=QQHH4x")
    WHAT = "an inflight description"

    size: int
    offset: int
    queues: int
    queue_size: int

    @classmethod
    def unpack_either(cls, payload: bytes) -> Self:
        """From a payload with or without the structure's padding."""
        return cls.unpack(payload if len(payload) != cls.LAYOUT.size - 4 else payload + bytes(4))


@dataclass(frozen=True, slots=True)
class Iotlb(Fields):
    """"IOTLB message", in the 32 bytes of the C structure."""

    LAYOUT = struct.Struct("=QQQBB6x")
    WHAT = "an IOTLB message"

    iova: int
    size: int
    user: int
    permission: int  # 1 read, 2 write, 3 both
    kind: int  # 1 miss, 2 update, 3 invalidate, 4 access fails


@dataclass(frozen=True, slots=True)
class Config:
    """"Virtio device config space": a piece of it, and whether a migration writes it."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("=III")

    offset: int
    flags: int  # of SET_CONFIG: 0 a driver writes, 1 a migration
    data: bytes

    def pack(self) -> bytes:
        """The payload: offset, size, flags and the piece."""
        return self.LAYOUT.pack(self.offset, len(self.data), self.flags) + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From the payload; ProtocolError where its size is not what it says."""
        head = cls.LAYOUT.size
        if len(payload) < head:
            raise ProtocolError(f"a piece of config space of {len(payload)} bytes, not {head}")
        offset, size, flags = cls.LAYOUT.unpack_from(payload)
        if size != len(payload) - head:
            raise ProtocolError(f"a piece of config space of {size} bytes in {len(payload)}")
        return cls(offset, flags, payload[head:])


def pack_memory_table(regions: list[MemoryRegion]) -> bytes:
    """"Multiple Memory regions description"."""
    return _TABLE.pack(len(regions), 0) + b"".join(r.pack() for r in regions)


def unpack_memory_table(payload: bytes) -> list[MemoryRegion]:
    """The regions of a table; the payload may be the full structure of 8 regions or shorter."""
    n = int(_TABLE.unpack_from(payload)[0]) if len(payload) >= _TABLE.size else 0
    if n > MAX_TABLE_REGIONS:
        raise ProtocolError(f"a memory table of {n} regions, more than {MAX_TABLE_REGIONS}")
    size = MemoryRegion.LAYOUT.size
    if len(payload) < _TABLE.size + n * size:
        raise ProtocolError(f"a memory table of {n} regions in {len(payload)} bytes")
    starts = range(_TABLE.size, _TABLE.size + n * size, size)
    return [MemoryRegion.unpack(payload[at : at + size]) for at in starts]
