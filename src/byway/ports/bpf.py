# SPDX-License-Identifier: Apache-2.0
"""bpf(2), as far as a program at an interface needs it: a map, a program, a link.

Used by xdp_program.py; uses ctypes only, no library. Source: bpf(2); Linux,
include/uapi/linux/bpf.h (union bpf_attr, struct bpf_prog_info).

Everything here is a file descriptor and lives as long as somebody holds one: a program is attached
for as long as its link is open, so a process that ends, however it does, leaves nothing attached.

The files work in any thread. Which interface an index means is decided by the network namespace of
the thread that calls ``attach_xdp``.
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

_SYS_BPF = 321  # x86-64
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD = 0, 2, 5
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _LINK_CREATE = 13, 15, 28
XSKMAP, PROG_XDP, ATTACH_XDP = 17, 6, 37
HAS_FRAGS = 0x20  # BPF_F_XDP_HAS_FRAGS: the program knows frames in several pieces
SKB_MODE, DRV_MODE = 2, 4  # XDP_FLAGS_*: behind the driver, in the driver
ATTR_BYTES = 144  # of union bpf_attr that we may fill; the kernel takes a longer, zeroed one too
INSTRUCTION = 8
_LOG_BYTES = 65536
_INFO_BYTES = 128

# union bpf_attr, one struct a command. Offsets are pinned by tests/spec/test_xdp.py.
_MAP_ATTR = struct.Struct("=IIIII")  # type, key and value bytes, entries, flags
_UPDATE_ATTR = struct.Struct("=I4xQQQ")  # map, key, value, flags
# type, instructions, their address, licence, log level, bytes and address, kernel version, flags,
# name, interface, attach type
_PROG_ATTR = struct.Struct("=IIQQIIQII16sII")
_LINK_ATTR = struct.Struct("=IIII")  # program, interface, attach type, flags
_INFO_ATTR = struct.Struct("=IIQ")  # file, bytes, address
_PROG_INFO = struct.Struct("=4xI40xI12x16s")  # id, created_by_uid, name

_libc = ctypes.CDLL(None, use_errno=True)


class BpfError(OSError):
    """The kernel refused. ``log``: what its verifier said, "" where it said nothing."""

    log = ""


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr.ljust(ATTR_BYTES, b"\0"), ATTR_BYTES)
    answer = int(_libc.syscall(_SYS_BPF, command, buffer, ATTR_BYTES))
    if answer < 0:
        code = ctypes.get_errno()
        raise BpfError(code, os.strerror(code))
    return answer


def create_map(kind: int, key: int, value: int, entries: int) -> int:
    """A map of ``entries`` keys of ``key`` bytes, with values of ``value`` bytes; -> its file.

    BpfError EPERM: without CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN)."""
    return _bpf(_MAP_CREATE, _MAP_ATTR.pack(kind, key, value, entries, 0))


def update_map(file: int, key: bytes, value: bytes) -> None:
    """Set the value of a key."""
    k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value)
    _bpf(_MAP_UPDATE, _UPDATE_ATTR.pack(file, ctypes.addressof(k), ctypes.addressof(v), 0))


def load_program(code: bytes, name: str, flags: int = 0) -> int:
    """Have the verifier look at an XDP program; -> its file. BpfError has the verifier's log."""
    try:
        return _load(code, name, flags, 0)
    except BpfError as error:
        if error.errno == errno.EPERM:
            raise
    return _load(code, name, flags, 1)  # once more, with a log


def _load(code: bytes, name: str, flags: int, log_level: int) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")  # calls no helper that asks for GPL
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attr = _PROG_ATTR.pack(
        PROG_XDP, len(code) // INSTRUCTION, ctypes.addressof(instructions),
        ctypes.addressof(licence), log_level, _LOG_BYTES if log_level else 0,
        ctypes.addressof(log) if log_level else 0, 0, flags, name.encode(), 0, ATTACH_XDP)
    try:
        return _bpf(_PROG_LOAD, attr)
    except BpfError as error:
        error.log = log.value.decode(errors="replace").strip()
        raise


def attach_xdp(ifindex: int, program: int, mode: int) -> int:
    """Attach a program to an interface of this thread's namespace, for as long as the returned
    file (the link) is open.

    BpfError: EBUSY or EEXIST where another one is attached, EOPNOTSUPP (or EINVAL, ERANGE) where
    the driver cannot do it in this mode, ENODEV without such an interface.
    """
    return _bpf(_LINK_CREATE, _LINK_ATTR.pack(program, ifindex, ATTACH_XDP, mode))


@dataclass(frozen=True)
class Program:
    """A program that is loaded: its number, name, and the user who loaded it."""

    number: int
    name: str
    uid: int


def program_info(number: int) -> Program:
    """What the kernel tells of a program (BpfError: it has gone, or without CAP_SYS_ADMIN)."""
    file = _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
    try:
        info = ctypes.create_string_buffer(_INFO_BYTES)
        _bpf(_OBJ_GET_INFO_BY_FD, _INFO_ATTR.pack(file, _INFO_BYTES, ctypes.addressof(info)))
    finally:
        os.close(file)
    found, uid, name = _PROG_INFO.unpack_from(info.raw)
    return Program(found, name.rstrip(b"\0").decode(errors="replace"), uid)
