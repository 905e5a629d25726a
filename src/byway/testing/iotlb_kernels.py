# SPDX-License-Identifier: Apache-2.0
"""The kernels of memory tables, with and without an IOMMU, one by one, as tests call them.

Used by tests. Each is a cached entry of int64 arguments; see the function that it calls.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64
from byway.virtio.ahead import look_ahead
from byway.virtio.iotlb import PAGE, place_of
from byway.virtio.memtab import bytes_from, missed, translate


@kernel(entry=True)
def iova_to_host(memtab, iova, n, write):
    """memtab.translate."""
    return translate(memtab, iova, n, write)


@kernel(entry=True)
def bytes_at_iova(memtab, iova, write):
    """memtab.bytes_from."""
    return bytes_from(memtab, iova, write)


@kernel(entry=True)
def miss_iova(memtab, iova, write):
    """memtab.missed."""
    return missed(memtab, iova, write)


@kernel(entry=True)
def cache_place(page):
    """iotlb.place_of."""
    return place_of(page)


@kernel(entry=True)
def watch_iova(memtab, iova, looks, results):
    """Look ``looks`` times where a page is; count at ``results`` by int64: not known, at the page
    with number 1, 2, ... of the four that follow the address stored there first, elsewhere."""
    base = ld64(results)
    other = 0
    for k in range(6):
        st64(results + 8 * k, 0)
    for _ in range(looks):
        host = translate(memtab, iova, 1, 0)
        place = 5
        if host == 0:
            place = 0
        elif host >= base and host < base + 4 * PAGE and (host - base) % PAGE == 0:
            place = 1 + (host - base) // PAGE
        else:
            other += 1
        st64(results + 8 * place, ld64(results + 8 * place) + 1)
    return other


@kernel(entry=True)
def ask_ahead(queue, direction):
    """ahead.look_ahead."""
    look_ahead(queue, direction)
    return 0
