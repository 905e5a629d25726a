# SPDX-License-Identifier: Apache-2.0
"""A file that a peer shares: checked, mapped and guarded.

Used by memory, log and inflight; uses machine (regions, sigbus).

The file must be one that lives in memory, because a page of a disk, network or FUSE file may take
for ever to come, and the worker that touches it would wait. It must be as long as is said; it may
be cut off later, so every mapping is guarded (machine.sigbus): a worker that touches what is gone
reads zeros, and the flag at ``fault_flag`` is raised. The fd stays the caller's: a mapping needs
none.
"""

import ctypes
import os
import stat
from dataclasses import dataclass

from byway.machine import sigbus
from byway.machine.regions import Region
from byway.vhost.messages import ProtocolError

# statfs(2), f_type: memfd and /dev/shm, huge pages, ramfs.
MEMORY_FILE_SYSTEMS = {0x01021994, 0x958458F6, 0x858458F6}
STATFS_SIZE = 120

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mapping:
    """A mapped piece of a file; ``backing`` (device, inode) names the file."""

    shared: Region
    guard: int
    backing: tuple[int, int]

    @property
    def address(self) -> int:
        """The host address of its first byte."""
        return self.shared.address

    def close(self) -> None:
        """Unguard, then unmap. Once."""
        sigbus.remove(self.guard)
        self.shared.close()


def _file_system(fd: int) -> int:
    """The kind of file system a file lies on (fstatfs, f_type)."""
    answer = (ctypes.c_uint8 * STATFS_SIZE)()
    if _libc.fstatfs(fd, answer):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return ctypes.c_uint32.from_buffer(answer).value


def _check_file(label: str, fd: int, end: int) -> tuple[int, int]:
    """-> (device, inode) of a file that has ``end`` bytes; else ProtocolError."""
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise ProtocolError(f"{label} comes with a descriptor that is no memory file")
    if _file_system(fd) not in MEMORY_FILE_SYSTEMS:
        raise ProtocolError(f"{label} lies in a file on a disk or network; use memfd, /dev/shm or "
                            "hugetlbfs")
    if end > about.st_size:
        raise ProtocolError(f"{label} ends {end:#x} bytes into a file of {about.st_size:#x}")
    return about.st_dev, about.st_ino


def map_file(label: str, fd: int, size: int, offset: int, fault_flag: int) -> Mapping:
    """Map ``size`` bytes from ``offset`` of the file behind ``fd``; ``label`` begins sentences.

    The caller has checked that offset + size is within reason. ProtocolError where the file is
    none that can be mapped.
    """
    try:
        backing = _check_file(label, fd, offset + size)
        shared = Region.map(fd, size, offset)
    except OSError as error:
        raise ProtocolError(f"{label} cannot be mapped: {error.strerror}") from error
    try:
        guard = sigbus.add(shared.start, shared.length, fault_flag)
    except MemoryError as error:
        shared.close()
        raise ProtocolError(f"{label} cannot be guarded: {error}") from error
    return Mapping(shared, guard, backing)
