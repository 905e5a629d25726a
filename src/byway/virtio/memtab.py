# SPDX-License-Identifier: Apache-2.0
"""The memory table: a guest's physical addresses and where they lie in this process.

Used by the chain walk and the virtqueue kernels; filled by vhost (a front end's regions) and by
drivers (their own memory). This is the one door to guest memory: an address that no region
contains entirely is refused.
"""

from typing import Any

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64

MAX_REGIONS = 64
# hva = gpa + delta. The largest region comes first: kernels look at it before they loop. Base and
# size are below 2^62, so no sum below overflows.
MEMTAB, memtab_at, M = record("memtab", [
    "n", ("gpa", "<i8", (MAX_REGIONS,)), ("size", "<i8", (MAX_REGIONS,)),
    ("delta", "<i8", (MAX_REGIONS,))])
ADDRESS_LIMIT = 1 << 62


@kernel
def xlate(memtab, gpa, n):
    """Guest [gpa, gpa + n) -> host address, or 0 where no one region holds all of it. n >= 0."""
    for i in range(ld64(memtab + M.n)):
        offset = gpa - ld64(memtab + M.gpa + 8 * i)
        if offset >= 0 and offset <= ld64(memtab + M.size + 8 * i) - n:
            return gpa + ld64(memtab + M.delta + 8 * i)
    return 0


@kernel
def reach(memtab, gpa):
    """How many bytes from ``gpa`` on lie in its region (0: in none)."""
    for i in range(ld64(memtab + M.n)):
        offset = gpa - ld64(memtab + M.gpa + 8 * i)
        size = ld64(memtab + M.size + 8 * i)
        if offset >= 0 and offset < size:
            return size - offset
    return 0


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
