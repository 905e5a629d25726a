# SPDX-License-Identifier: Apache-2.0
"""A front end's memory: its regions checked, mapped, guarded and listed for kernels.

Used by the back end; uses mapping and virtio.memtab.

Theory of operation
-------------------
The front end says where its memory lies three times over: in the guest's physical addresses
(what descriptors carry), in its own virtual addresses (what SET_VRING_ADDR carries), and as a file
with an offset. Every number is hostile. A region is taken only if it is not empty, does not wrap,
overlaps no other in either address space, and lies inside its file; what the file must be, and
what happens where it is cut off later, stands in mapping.py.

Changes are made only while no worker reads the table; that is the back end's duty. The fds stay
the caller's: a mapping needs none.
"""

import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from byway.machine.layout import address_of, alloc
from byway.vhost.mapping import Mapping, map_file
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import MemoryRegion
from byway.virtio.memtab import ADDRESS_LIMIT, MAX_REGIONS, MEMTAB, fill

# Sparse files cost nothing to make: without a limit one front end could take this process's whole
# address space (2^47 bytes). 4 TiB leaves room for the largest machines.
MAX_MAPPED = 1 << 42


@dataclass(frozen=True)
class Mapped:
    """A region and its mapping."""

    region: MemoryRegion
    mapping: Mapping


def _label(region: MemoryRegion) -> str:
    return f"the memory region of {region.size:#x} bytes at guest address {region.gpa:#x}"


def _same(one: MemoryRegion, other: MemoryRegion) -> bool:
    """As REM_MEM_REG identifies regions: the offset does not count."""
    return (one.gpa, one.user, one.size) == (other.gpa, other.user, other.size)


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


class Memory:
    """The memory regions of one front end. ``fault_flag``: address of the int64 a fault raises."""

    def __init__(self, fault_flag: int) -> None:
        self._fault_flag = fault_flag
        self._mapped: list[Mapped] = []
        self._removed: deque[MemoryRegion] = deque(maxlen=MAX_REGIONS)
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
        return [(f.st_dev, f.st_ino) for f in files] == [m.mapping.backing for m in self._mapped]

    def has(self, region: MemoryRegion, fd: int) -> bool:
        """Whether this very region, of this file, is mapped already."""
        file = os.fstat(fd)
        return any(m.region == region and m.mapping.backing == (file.st_dev, file.st_ino)
                   for m in self._mapped)

    def was_removed(self, region: MemoryRegion) -> bool:
        """Whether this region is not mapped, but was until ``remove``."""
        return region in self._removed and not any(_same(m.region, region) for m in self._mapped)

    def _map(self, region: MemoryRegion, fd: int) -> Mapped:
        mapping = map_file(_label(region), fd, region.size, region.offset, self._fault_flag)
        return Mapped(region, mapping)

    def _install(self, mapped: list[Mapped]) -> None:
        """List ``mapped`` for kernels and unmap what is no longer among them."""
        gone = [m for m in self._mapped if m not in mapped]
        self._mapped = mapped
        fill(self._record[0],
             [(m.region.gpa, m.region.size, m.mapping.address) for m in mapped])
        for m in gone:
            m.mapping.close()

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
                m.mapping.close()
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
        kept = [m for m in self._mapped if not _same(m.region, region)]
        if len(kept) == len(self._mapped):
            raise ProtocolError(f"{_label(region)} is to be removed but was never added")
        self._install(kept)
        self._removed.append(region)

    def user_to_host(self, user: int, n: int) -> int | None:
        """The host address of ``n`` bytes at a user address; None: not all in one region."""
        for m in self._mapped:
            offset = user - m.region.user
            if 0 <= offset <= m.region.size - n:
                return m.mapping.address + offset
        return None

    def close(self) -> None:
        """Unmap everything. Idempotent."""
        self._install([])
