# SPDX-License-Identifier: Apache-2.0
"""The memory table: a guest's physical addresses and where they lie in this process.

Used by the chain walk and the virtqueue kernels; filled by vhost (a front end's regions) and by
drivers (their own memory). This is the one door to guest memory: an address that no region
contains entirely is refused.

A device behind an IOMMU has a table without regions, which names a translation cache (iotlb.py):
there a piece of memory ends with its page, and an address may be unknown for a while.
"""

from typing import Any

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64
from byway.packet.reason import Reason
from byway.virtio.iotlb import PAGE, known, note_miss

_BAD_ADDRESS = int(Reason.BAD_ADDRESS)
_PAGE_MASK = PAGE - 1

MAX_REGIONS = 64
# hva = gpa + delta. The largest region comes first: kernels look at it before they loop. Base and
# size are below 2^62, so no sum below overflows. iotlb: address of an IOTLB record, or 0; with one
# there are no regions.
MEMTAB, memtab_at, M = record("memtab", [
    "n", ("gpa", "<i8", (MAX_REGIONS,)), ("size", "<i8", (MAX_REGIONS,)),
    ("delta", "<i8", (MAX_REGIONS,)), "iotlb"])
ADDRESS_LIMIT = 1 << 62


@kernel
def translate(memtab, gpa, n, write):
    """Guest [gpa, gpa + n) -> host address, or 0 where no one region holds all of it. n >= 0.

    Behind an IOMMU: 0 also where it crosses a page or is not known yet. ``write``: whether the
    device is to write there (0: to read).
    """
    for i in range(ld64(memtab + M.n)):
        offset = gpa - ld64(memtab + M.gpa + 8 * i)
        if offset >= 0 and offset <= ld64(memtab + M.size + 8 * i) - n:
            return gpa + ld64(memtab + M.delta + 8 * i)
    iotlb = ld64(memtab + M.iotlb)
    if iotlb != 0 and (gpa & _PAGE_MASK) + n <= PAGE:
        return known(iotlb, gpa, write)
    return 0


@kernel
def bytes_from(memtab, gpa, write):
    """How many bytes from ``gpa`` on lie in its region, or page (0: in none, or not known yet)."""
    for i in range(ld64(memtab + M.n)):
        offset = gpa - ld64(memtab + M.gpa + 8 * i)
        size = ld64(memtab + M.size + 8 * i)
        if offset >= 0 and offset < size:
            return size - offset
    iotlb = ld64(memtab + M.iotlb)
    if iotlb != 0 and known(iotlb, gpa, write) != 0:
        return PAGE - (gpa & _PAGE_MASK)
    return 0


@kernel
def missed(memtab, gpa, write):
    """Why guest address ``gpa`` cannot be reached: -> BAD_ADDRESS, or NO_TRANSLATION where the
    front end is asked for it now."""
    iotlb = ld64(memtab + M.iotlb)
    if iotlb == 0:
        return _BAD_ADDRESS
    return note_miss(iotlb, gpa, write)


def fill(table: Any, regions: list[tuple[int, int, int]]) -> None:
    """Write (gpa, size, host address) regions into a MEMTAB record, the largest first.

    Only while no worker reads the table. ValueError for more than MAX_REGIONS, an empty region or
    one beyond ADDRESS_LIMIT.
    """
    if len(regions) > MAX_REGIONS:
        raise ValueError(f"{len(regions)} memory regions; at most {MAX_REGIONS} are supported")
    for gpa, size, _ in regions:
        if size <= 0 or gpa < 0 or gpa + size > ADDRESS_LIMIT:
            raise ValueError(f"memory region at {gpa:#x} of {size:#x} bytes is out of range")
    table["size"][:] = 0  # kernels look at the first region without asking how many there are
    for i, (gpa, size, host) in enumerate(sorted(regions, key=lambda r: -r[1])):
        table["gpa"][i], table["size"][i], table["delta"][i] = gpa, size, host - gpa
    table["n"] = len(regions)
