# SPDX-License-Identifier: Apache-2.0
"""The dirty log: memory of the front end in which we note what we wrote into its guest's memory.

Used by the back end; uses mapping and virtio.ring (the LOG record). Kernels write it
(virtio/dirty.py). Source: QEMU, docs/interop/vhost-user.rst, "Migration".

One bit stands for a page of 4096 bytes of the guest's physical memory, so the log's size says up
to which address it reaches. A front end may send one that does not reach the end of its memory:
that is no error here, and what lies beyond is written without being logged, as the front end
asked for.

A second log replaces the first while no worker writes; that is the back end's duty.
"""

from byway.machine.layout import address_of, alloc
from byway.vhost.mapping import Mapping, map_file
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import Log
from byway.virtio.ring import LOG

# Mapped (with what lies before it in the file): enough for 2^50 bytes of guest.
MAX_LOG = 1 << 35
LABEL = "the dirty log"


class DirtyLog:
    """The log of one conversation. ``memtab``: the table of the guest's physical memory."""

    def __init__(self, memtab: int, fault_flag: int) -> None:
        self._fault_flag = fault_flag
        self._mapping: Mapping | None = None
        self._record = alloc(LOG, 1)
        self._record["memtab"] = memtab

    @property
    def mapped(self) -> bool:
        """Whether there is a log to write."""
        return self._mapping is not None

    @property
    def record(self) -> int:
        """The address of the LOG record that kernels read, 0 where there is no log."""
        return address_of(self._record) if self._mapping else 0

    def replace(self, log: Log, fd: int) -> None:
        """Map this log instead of the one before; ProtocolError leaves that in place."""
        if log.size == 0:
            raise ProtocolError(f"{LABEL} is empty")
        if log.size + log.offset > MAX_LOG:
            raise ProtocolError(f"{LABEL} of {log.size:#x} bytes at offset {log.offset:#x} ends "
                                f"after {MAX_LOG:#x}")
        mapping = map_file(LABEL, fd, log.size, log.offset, self._fault_flag)
        self.close()
        self._mapping = mapping
        self._record["bits"], self._record["bytes"] = mapping.address, log.size

    def close(self) -> None:
        """Unmap the log. Idempotent."""
        self._record["bits"] = self._record["bytes"] = 0
        if self._mapping:
            self._mapping.close()
            self._mapping = None
