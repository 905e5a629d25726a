# SPDX-License-Identifier: Apache-2.0
"""The back end's requests about memory: the guest's, the dirty log, the in-flight
region. Part of BackEnd; the theory stands in backend.py."""

import os

from byway.vhost.backend_state import Answer, State
from byway.vhost.connection import Message
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import Inflight, Log, MemoryRegion, pack_u64, unpack_memory_table
from byway.vhost.ring import check_event_fd


class MemoryRequests(State):
    """Memory as a table or region by region, the dirty log, the in-flight region."""

    def _set_mem_table(self, message: Message) -> None:
        regions = unpack_memory_table(message.payload)
        if self.memory.is_same(regions, message.fds):
            return  # QEMU repeats it whenever a driver starts
        with self._change(self.rings):
            self.memory.replace(regions, message.fds)
            self.iotlb.clear()

    def _get_max_mem_slots(self, message: Message) -> bytes:
        return pack_u64(self.mem_slots)

    def _add_mem_reg(self, message: Message) -> None:
        # QEMU before 8.1 adds, and removes, each region once for every queue pair.
        region = MemoryRegion.unpack_single(message.payload)
        if self.memory.has(region, message.fds[0]):
            return
        if len(self.memory.regions) >= self.mem_slots:
            raise ProtocolError(f"more than {self.mem_slots} memory regions")
        with self._change():
            self.memory.add(region, message.fds[0])

    def _rem_mem_reg(self, message: Message) -> None:
        region = MemoryRegion.unpack_single(message.payload)
        if self.memory.was_removed(region):
            return
        with self._change():
            self.memory.remove(region)
            self.iotlb.clear()

    def _set_log_base(self, message: Message) -> bytes:
        log = Log.unpack(message.payload)
        with self._change():
            self.log.replace(log, message.fds[0])
        return b""  # QEMU waits for an empty reply

    def _set_log_fd(self, message: Message) -> None:
        """An event fd to signal what was logged. It is kept and never written: front ends look
        at the log by themselves, and it is the peer's, who could make us wait."""
        if message.fds:
            check_event_fd(message.fds[0])
        self._close_log_fd()
        self.log_fd = message.take_fd()

    def _get_inflight_fd(self, message: Message) -> Answer:
        wanted = Inflight.unpack_either(message.payload)
        with self._change():
            made, fd = self.inflight.create(wanted.queues, wanted.queue_size, self._format())
            message.fds.append(fd)  # so that it is closed whatever happens
            self._begin_inflight()
        return Answer(made.pack()[: len(message.payload)], message.take_fd())

    def _set_inflight_fd(self, message: Message) -> None:
        with self._change(self.rings):
            self.inflight.replace(Inflight.unpack_either(message.payload), message.fds[0],
                                  self._format())
            self._begin_inflight()

    def _format(self) -> bool | None:
        """Whether rings are packed, where that is known."""
        return self.packed if self.features_set else None

    def _begin_inflight(self) -> None:
        for ring in self.rings:
            ring.recovered = False

    def _close_log_fd(self) -> None:
        if self.log_fd >= 0:
            os.close(self.log_fd)
            self.log_fd = -1
