# SPDX-License-Identifier: Apache-2.0
"""Full-speed test traffic of a guest: Python's side of traffic.py.

Used by byway.testing.process, the demo and the benchmarks.
"""

import struct
from collections.abc import Sequence

import numpy as np

from byway.machine.clock import measure_hz, tsc
from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS, Batch
from byway.testing.guest import Guest
from byway.testing.traffic import MIN_TEST_FRAME, TRAFFIC, traffic_pair, traffic_run

PATIENCE_SECONDS = 5.0
IMIX = (60,) * 7 + (590,) * 4 + (1514,)  # the "simple Internet mix", without the frame checksum
COUNTERS = ("sent", "received", "checked", "answers", "lost", "bad", "unexpected", "leaked",
            "other", "octets", "waiting")


class Exchange:
    """Numbered, checked traffic between ``guest`` and ``peer`` (6 bytes; b"" asks nobody).

    ``foreign``: the address of a station that must never be heard. ``sizes``: frame lengths in
    turn (at least 28 bytes, at most what the guest's MTU allows). ``window``: requests unanswered
    at a time, a power of two.
    """

    def __init__(self, guest: Guest, peer: bytes = b"", foreign: bytes = b"",
                 sizes: Sequence[int] = IMIX, window: int = 64, check: bool = True) -> None:
        if min(sizes) < MIN_TEST_FRAME:
            raise ValueError(f"test frames have at least {MIN_TEST_FRAME} bytes")
        longest = int(guest.tx_queue.record["max_frame"][0])
        if max(sizes) > longest:
            raise ValueError(f"test frames have at most {longest} bytes, as the guest's MTU says")
        if window & (window - 1) or window > guest.tx_queue.size // 2:
            raise ValueError("the window is a power of two, at most half a ring")
        self._guest = guest
        self._batches = Batch(), Batch()
        self._selected = np.zeros(ROWS, np.int64)
        # An answer is as long as its request, whatever our own sizes are.
        self._room = np.zeros((ROWS, -(-longest // 64) * 64 + 64), np.uint8)
        repeated = [sizes[k % len(sizes)] for k in range(1 << (4 * len(sizes) - 1).bit_length())]
        self._sizes = np.array(repeated, np.int64)
        self._answered = np.zeros(window, np.int64)
        self._poll = np.frombuffer(
            bytearray(struct.pack("=ihhq", guest.rx_queue.call, 1, 0, 0)), np.uint8)
        self._hz = measure_hz()
        self.record = alloc(TRAFFIC, 1)
        self.address = address_of(self.record)
        row = self.record[0]
        for name, mac in (("own", guest.mac), ("peer", peer), ("foreign", foreign)):
            row[name] = int.from_bytes(mac, "big") << 16
        row["rx"], row["tx"] = guest.rx_queue.address, guest.tx_queue.address
        row["rx_batch"], row["tx_batch"] = (b.address for b in self._batches)
        row["selected"], row["room"] = address_of(self._selected), address_of(self._room)
        row["room_size"] = self._room.shape[1]
        row["sizes"], row["sizes_mask"] = address_of(self._sizes), len(self._sizes) - 1
        row["window"], row["answered"] = window, address_of(self._answered)
        row["patience"], row["check"] = int(PATIENCE_SECONDS * self._hz), check
        row["fd"] = address_of(self._poll)

    def run(self, seconds: float, asking: bool = True) -> None:
        """Exchange for ``seconds``; ``asking``: send requests, else only answer."""
        traffic_run(self.address, int(tsc()) + int(seconds * self._hz), int(asking))

    def run_with(self, other: "Exchange", seconds: float) -> None:
        """Both ends in this thread, without sleep, for ``seconds``."""
        traffic_pair(self.address, other.address, int(tsc()) + int(seconds * self._hz))

    def stop(self) -> None:
        """End a ``run`` that another thread is in."""
        self.record["stop"] = 1

    def statistics(self) -> dict[str, int]:
        """What was counted so far."""
        return {name: int(self.record[name][0]) for name in COUNTERS}
