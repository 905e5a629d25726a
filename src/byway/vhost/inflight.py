# SPDX-License-Identifier: Apache-2.0
"""The in-flight region of a connection: made, brought back, and divided among the rings.

Used by the back end; uses mapping and recovery. Source: QEMU, docs/interop/vhost-user.rst,
"Inflight I/O tracking".

The region outlives us: the front end keeps it, and gives it to the next back end when this one was
killed. What is written into it while frames move stands in virtio/inflight.py; what is made of it
at the start of a ring, in recovery.py. It is the front end's memory too, so what is read from it
is nobody's word: everything is copied once, checked, then used.
"""

import os

from byway.machine.mem import st32_rel
from byway.machine.regions import Region
from byway.vhost.mapping import Mapping, map_file
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import Inflight
from byway.virtio.inflight import (
    ALIGNMENT,
    PACKED_ENTRIES_AT,
    PACKED_ENTRY,
    SPLIT_ENTRIES_AT,
    SPLIT_ENTRY,
    VERSION_AT,
)
from byway.virtio.ring import MAX_SIZE

MAX_REGION = 1 << 30  # mapped, with what lies before it in the file
LABEL = "the in-flight region"


def part_bytes(queue_size: int, packed: bool) -> int:
    """Bytes of one ring's part."""
    used = (PACKED_ENTRIES_AT + PACKED_ENTRY * queue_size if packed
            else SPLIT_ENTRIES_AT + SPLIT_ENTRY * queue_size)
    return -(-used // ALIGNMENT) * ALIGNMENT


class InflightRegion:
    """The region of one conversation, if there is one. ``rings``: how many the device has."""

    def __init__(self, rings: int, fault_flag: int) -> None:
        self._rings = rings
        self._fault_flag = fault_flag
        self._mapping: Mapping | None = None
        self._size = 0
        self._packed: bool | None = None
        self.queues = 0
        self.queue_size = 0

    def _check(self, queues: int, queue_size: int) -> None:
        if not 1 <= queues <= self._rings:
            raise ProtocolError(f"{LABEL} of {queues} rings, for a device that has {self._rings}")
        if not 1 <= queue_size <= MAX_SIZE:
            raise ProtocolError(f"{LABEL} for rings of {queue_size} entries")

    def create(self, queues: int, queue_size: int,
               packed: bool | None) -> tuple[Inflight, int]:
        """Make a region for rings of this format (None: not known yet); -> its description, and
        an fd for the caller."""
        self._check(queues, queue_size)
        size = queues * part_bytes(queue_size, bool(packed))
        try:
            memory = Region.create(size, "byway-inflight")
        except OSError as error:
            raise ProtocolError(f"{LABEL} cannot be made: {error.strerror}") from error
        try:
            made = Inflight(size, 0, queues, queue_size)
            self.replace(made, memory.fd, packed)
            return made, os.dup(memory.fd)
        finally:
            memory.close()

    def replace(self, given: Inflight, fd: int, packed: bool | None) -> None:
        """Use this region instead of the one before; ProtocolError leaves that in place."""
        self._check(given.queues, given.queue_size)
        need = given.queues * part_bytes(given.queue_size, bool(packed))
        if given.size < need:
            raise ProtocolError(f"{LABEL} of {given.size:#x} bytes; {given.queues} rings of "
                                f"{given.queue_size} entries take {need:#x}")
        if given.size + given.offset > MAX_REGION or given.offset % ALIGNMENT:
            raise ProtocolError(f"{LABEL} of {given.size:#x} bytes at offset {given.offset:#x}, "
                                f"which is odd or ends after {MAX_REGION:#x}")
        mapping = map_file(LABEL, fd, given.size, given.offset, self._fault_flag)
        self.close()
        self._mapping, self._size, self._packed = mapping, given.size, packed
        self.queues, self.queue_size = given.queues, given.queue_size

    def part(self, index: int, packed: bool) -> int:
        """The host address of a ring's part; 0 where the region has none for it.

        That is so as well where the region is for rings of the other format, or was given before
        the format was known and is too small for it.
        """
        size = part_bytes(self.queue_size, packed)
        if not self._mapping or self._packed not in (None, packed):
            return 0
        if index >= self.queues or self.queues * size > self._size:
            return 0
        return self._mapping.address + index * size

    def forget(self, index: int, packed: bool) -> None:
        """The front end was told where the ring stopped, and nothing is in flight: make the
        ring's part one that was never used, so that it starts where the front end says."""
        if at := self.part(index, packed):
            st32_rel(at + VERSION_AT, 0)

    def close(self) -> None:
        """Unmap the region. Idempotent."""
        if self._mapping:
            self._mapping.close()
            self._mapping = None
        self._size = self.queues = self.queue_size = 0
        self._packed = None
