# SPDX-License-Identifier: Apache-2.0
"""The dirty log: which pages of a guest's memory we wrote, for a guest that is being moved.

Used by the device's kernels after each write, while the front end wants it (LOG_ALL). The record
is filled by vhost. vhost-user specification, "Migration": one bit a page of 4096 bytes, set
atomically, after the page was written.

Pages are found from host addresses, through the table of the guest's physical memory: so it does
not matter whether the guest's descriptors hold physical addresses or those of its IOMMU.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, or8
from byway.virtio.memtab import M
from byway.virtio.ring import log_at

PAGE_SHIFT = 12


@kernel
def guest_address(memtab, host):
    """The guest's physical address of host address ``host``, -1 where it is none of the guest's."""
    for i in range(ld64(memtab + M.n)):
        gpa = host - ld64(memtab + M.delta + 8 * i)
        offset = gpa - ld64(memtab + M.gpa + 8 * i)
        if offset >= 0 and offset < ld64(memtab + M.size + 8 * i):
            return gpa
    return -1


@kernel
def log_write(log, host, n):
    """Note that the ``n`` bytes at host address ``host``, in one memory region, were written.

    What lies beyond the end of the log is not noted: it would be beyond the guest's memory, or
    the front end made the log too small.
    """
    at = log_at(log)
    gpa = guest_address(at.memtab, host)
    if gpa < 0 or n <= 0:
        return
    bits, octets = at.bits, at.bytes
    for page in range(gpa >> PAGE_SHIFT, (gpa + n - 1 >> PAGE_SHIFT) + 1):
        if page >> 3 >= octets:
            return
        or8(bits + (page >> 3), 1 << (page & 7))
