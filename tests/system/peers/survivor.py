# SPDX-License-Identifier: Apache-2.0
"""A guest of the test that outlives the switch, and sends nothing before its peer is back as well.

Used by test_survival.py. A switch that has just started delivers to those who are there. So that a
frame can only be lost by the switch, the guest withholds what waits in its transmit queue until it
is told that everybody is there: the ring is handed over with nothing available, and what was
available before is made available again by `release`.
"""

import ctypes
import os

from byway.testing.guest import Guest
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.ring import DESCRIPTOR, WRAP

INDEX = 2  # where the index of a split ring's available ring lies (VIRTIO 1.2, 2.7.6)
FLAGS = 14  # where the flags of a packed ring's descriptor lie (2.8.13)
AVAILABLE = 1 << 7  # VIRTQ_DESC_F_AVAIL (2.8.1)


class Survivor(Guest):
    """A guest that goes on with the next switch."""

    _withheld = 0

    def _hand_over(self, again: bool = False) -> None:
        """As a guest does, but with nothing to transmit."""
        self._withheld = self._replace(self.tx_queue, None)
        super()._hand_over(again)

    def release(self) -> None:
        """Let the switch have what waits to be transmitted."""
        self._replace(self.tx_queue, self._withheld)
        os.eventfd_write(self.tx_queue.kick, 1)  # whether the switch asked for it or not

    @staticmethod
    def _replace(queue: DriverQueue, word: int | None) -> int:
        """Put a word where the device looks for the next frame (None: one that says there is
        none); -> the word that was there."""
        position = queue.position() & 0xFFFF
        if queue.record["packed"][0]:
            place = queue.desc + DESCRIPTOR * (position & (WRAP - 1)) + FLAGS
        else:
            place = queue.avail + INDEX
        cell = ctypes.c_uint16.from_address(place)
        before = cell.value
        if word is not None:
            cell.value = word
        elif not queue.record["packed"][0]:
            cell.value = position
        elif position & WRAP:  # available is what has the bit that says so like the wrap counter
            cell.value = before & ~AVAILABLE
        else:
            cell.value = before | AVAILABLE
        return before
