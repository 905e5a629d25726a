# SPDX-License-Identifier: Apache-2.0
"""Sends spoiled frames through the kernels of a port, as a worker does. Used by test_tap and
test_packet_send."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.counters import COUNTERS, drops_by_name
from byway.testing.finishing import Finishing
from byway.testing.offload_kernels import begin, following, may_go


class Sending(ABC):
    """``record``: the port's queue, with counters of its own."""

    def __init__(self, record: Any) -> None:
        self.place = Finishing()
        self.place.batch.record["finisher"] = self.place.finisher.address
        self.record, self.counters = alloc(record, 1), alloc(COUNTERS, 1)
        self.record["tx"] = address_of(self.counters)
        self.row = np.array([self.place.address], np.int64)

    def send(self, frame: bytes, header: bytes, pieces: int, takes: int) -> int:
        """-> frames that the Linux kernel took, -1 where the switch does not let it pass."""
        place = self.place
        place.place(frame, header)
        if pieces > 1:
            place.cut(pieces)
        if place.check() is not None:
            return -1
        if may_go(place.address, takes):
            return self.deliver(address_of(self.row), 1)
        assert begin(place.finisher.address, place.address, takes) == 0
        sent = 0
        while n := int(following(place.finisher.address)):
            sent += self.deliver(int(place.finisher.record["selected"][0]), n)
        return sent

    @abstractmethod
    def deliver(self, selected: int, n: int) -> int:
        """Have the port's kernel deliver n rows; -> how many the Linux kernel took."""

    @property
    def drops(self) -> dict[str, int]:
        """What was counted as dropped."""
        return drops_by_name(self.counters[0])
