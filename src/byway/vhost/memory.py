# SPDX-License-Identifier: Apache-2.0
"""A front end's memory: its regions checked, mapped, guarded and listed for kernels.

Used by the back end; uses machine (regions, sigbus) and virtio.memtab.

Theory of operation
-------------------
The front end says where its memory lies three times over: in the guest's physical addresses
(what descriptors carry), in its own virtual addresses (what SET_VRING_ADDR carries), and as a file
with an offset. Every number is hostile. A region is taken only if it is not empty, does not wrap,
overlaps no other in either address space, and lies inside its file; the file must be one that
lives in memory, because a page of a disk, network or FUSE file may take for ever to come, and the
worker that touches it would wait.

The file's size can change after the check. Therefore every mapping is guarded (machine.sigbus): a
worker that touches what was cut off reads zeros, and the flag at ``fault_flag`` is raised.

Changes are made only while no worker reads the table; that is the back end's duty. The fds stay
the caller's: a mapping needs none.
"""

import ctypes
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from byway.machine import sigbus
from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import MemoryRegion
from byway.virtio.memtab import ADDRESS_LIMIT, MAX_REGIONS, MEMTAB, fill

# statfs(2), f_type: memfd and /dev/shm, huge pages, ramfs.
MEMORY_FILE_SYSTEMS = {0x01021994, 0x958458F6, 0x858458F6}
STATFS_SIZE = 120
# Sparse files cost nothing to make: without a limit one front end could take this process's whole
# address space (2^47 bytes). 4 TiB leaves room for the largest machines.
MAX_MAPPED = 1 << 42

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mapped:
    """A region and its mapping; ``backing`` (device, inode) names the file."""

    region: MemoryRegion
    shared: Region
    guard: int
    backing: tuple[int, int]

    def close(self) -> None:
        """Unguard, then unmap."""
        sigbus.remove(self.guard)
        self.shared.close()


def _label(region: MemoryRegion) -> str:
    return f"the memory region of {region.size:#x} bytes at guest address {region.gpa:#x}"


def _overlap(a_start: int, a_size: int, b_start: int, b_size: int) -> bool:
    return a_start < b_start + b_size and b_start < a_start + a_size


def check_region(region: MemoryRegion, others: Iterable[MemoryRegion]) -> None:
    """ProtocolError where a region is empty, wraps, overlaps one of ``others``, or is too much."""
    if region.size == 0:
        raise ProtocolError(f"{_label(region)} is empty")
    for what, start in (("guest address", region.gpa), ("user address", region.user),
                        ("file offset", region.offset)):
        if start + region.size > ADDRESS_LIMIT:
            raise ProtocolError(f"{_label(region)} wraps or lies too high: {what} {start:#x}")
    mapped = region.offset + region.size
    for other in others:
        mapped += other.offset + other.size
        if _overlap(region.gpa, region.size, other.gpa, other.size):
            raise ProtocolError(f"{_label(region)} overlaps {_label(other)}")
        if _overlap(region.user, region.size, other.user, other.size):
            raise ProtocolError(f"{_label(region)} overlaps the user addresses of {_label(other)}")
    if mapped > MAX_MAPPED:
        raise ProtocolError(f"{_label(region)} needs {mapped:#x} bytes mapped, with those before; "
                            f"more than {MAX_MAPPED:#x}")


def _file_system(fd: int) -> int:
    """The kind of file system a file lies on (fstatfs, f_type)."""
    answer = (ctypes.c_uint8 * STATFS_SIZE)()
    if _libc.fstatfs(fd, answer):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return ctypes.c_uint32.from_buffer(answer).value


def _check_file(region: MemoryRegion, fd: int) -> tuple[int, int]:
    """-> (device, inode) of a file that can hold the region; else ProtocolError."""
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise ProtocolError(f"{_label(region)} comes with a descriptor that is no memory file")
    if _file_system(fd) not in MEMORY_FILE_SYSTEMS:
        raise ProtocolError(f"{_label(region)} lies in a file on a disk or network; use memfd, "
                            "/dev/shm or hugetlbfs")
    if region.offset + region.size > about.st_size:
        raise ProtocolError(f"{_label(region)} ends {region.offset + region.size:#x} bytes into "
                            f"a file of {about.st_size:#x}")
    return about.st_dev, about.st_ino


class Memory:
    """The memory regions of one front end. ``fault_flag``: address of the int64 a fault raises."""

    def __init__(self, fault_flag: int) -> None:
        self._fault_flag = fault_flag
        self._mapped: list[Mapped] = []
        self._record = alloc(MEMTAB, 1)

    @property
    def table(self) -> int:
        """The address of the MEMTAB record that kernels read."""
        return address_of(self._record)

    @property
    def regions(self) -> list[MemoryRegion]:
        """The regions mapped now."""
        return [m.region for m in self._mapped]

    def is_same(self, regions: Sequence[MemoryRegion], fds: Sequence[int]) -> bool:
        """Whether these regions, in these files, are mapped already, and no others."""
        if list(regions) != self.regions or len(fds) != len(regions):
            return False
        files = [os.fstat(fd) for fd in fds]
        return [(f.st_dev, f.st_ino) for f in files] == [m.backing for m in self._mapped]

    def _map(self, region: MemoryRegion, fd: int) -> Mapped:
        try:
            backing = _check_file(region, fd)
            shared = Region.map(fd, region.size, region.offset)
        except OSError as error:
            raise ProtocolError(f"{_label(region)} cannot be mapped: {error.strerror}") from error
        try:
            guard = sigbus.add(shared.start, shared.length, self._fault_flag)
        except MemoryError as error:
            shared.close()
            raise ProtocolError(f"{_label(region)} cannot be guarded: {error}") from error
        return Mapped(region, shared, guard, backing)

    def _install(self, mapped: list[Mapped]) -> None:
        """List ``mapped`` for kernels and unmap what is no longer among them."""
        gone = [m for m in self._mapped if m not in mapped]
        self._mapped = mapped
        fill(self._record[0], [(m.region.gpa, m.region.size, m.shared.address) for m in mapped])
        for m in gone:
            m.close()

    def replace(self, regions: Sequence[MemoryRegion], fds: Sequence[int]) -> None:
        """Map these regions instead of the old ones.

        ProtocolError leaves the old ones in place.
        """
        if len(fds) != len(regions):
            raise ProtocolError(f"{len(regions)} memory regions with {len(fds)} file descriptors")
        if len(regions) > MAX_REGIONS:
            raise ProtocolError(f"{len(regions)} memory regions, more than {MAX_REGIONS}")
        for i, region in enumerate(regions):
            check_region(region, regions[:i])
        made: list[Mapped] = []
        try:
            for region, fd in zip(regions, fds, strict=True):
                made.append(self._map(region, fd))
        except ProtocolError:
            for m in made:
                m.close()
            raise
        self._install(made)

    def add(self, region: MemoryRegion, fd: int) -> None:
        """Map one region more (ADD_MEM_REG)."""
        if len(self._mapped) >= MAX_REGIONS:
            raise ProtocolError(f"more than {MAX_REGIONS} memory regions")
        check_region(region, self.regions)
        self._install([*self._mapped, self._map(region, fd)])

    def remove(self, region: MemoryRegion) -> None:
        """Unmap a region (REM_MEM_REG); found by guest address, user address and size."""
        kept = [m for m in self._mapped
                if (m.region.gpa, m.region.user, m.region.size)
                != (region.gpa, region.user, region.size)]
        if len(kept) == len(self._mapped):
            raise ProtocolError(f"{_label(region)} is to be removed but was never added")
        self._install(kept)

    def user_to_host(self, user: int, n: int) -> int | None:
        """The host address of ``n`` bytes at a user address; None: not all in one region."""
        for m in self._mapped:
            offset = user - m.region.user
            if 0 <= offset <= m.region.size - n:
                return m.shared.address + offset
        return None

    def close(self) -> None:
        """Unmap everything. Idempotent."""
        self._install([])
