# SPDX-License-Identifier: Apache-2.0
"""Full-speed test traffic of a guest: Python's side of traffic.py.

Used by byway.testing.process, the demo and the benchmarks.
"""

import struct
from collections.abc import Sequence

import numpy as np

from byway.machine.clock import measure_hz, tsc
from byway.machine.layout import address_of, alloc
from byway.packet.batch import MAX_FRAME, ROWS, Batch
from byway.testing.guest import Guest
from byway.testing.traffic import MIN_TEST_FRAME, TRAFFIC, traffic_pair, traffic_run
from byway.testing.traffic_frames import FLOW_PLACES, IN_TCP, IN_UDP, PLAIN

PATIENCE_SECONDS = 5.0
IMIX = (60,) * 7 + (590,) * 4 + (1514,)  # the "simple Internet mix", without the frame checksum
COUNTERS = ("sent", "received", "checked", "answers", "lost", "bad", "unexpected", "leaked",
            "disordered", "other", "octets", "waiting")


class Exchange:
    """Numbered, checked traffic between ``guest`` and ``peer`` (6 bytes; b"" asks nobody), on all
    queue pairs of the guest.

    ``foreign``: the address of a station that must never be heard. ``sizes``: frame lengths in
    turn (at least 28 bytes and the headers, at most what the guest's MTU allows). ``window``:
    requests unanswered at a time, a power of two. ``flows``: how many each queue pair asks in;
    default: one by the MAC addresses alone, or 16 in UDP for a guest with several pairs.
    ``gso_size``: requests are TCP frames to be cut into segments with that many bytes of payload,
    which are up to 64 KiB long; both guests must have negotiated that, and say so here.
    """

    def __init__(self, guest: Guest, peer: bytes = b"", foreign: bytes = b"",
                 sizes: Sequence[int] = IMIX, window: int = 64, check: bool = True, *,
                 flows: int = 0, gso_size: int = 0) -> None:
        if not flows and guest.pairs > 1:
            flows = 16
        form = IN_TCP if gso_size else IN_UDP if flows else PLAIN
        longest = MAX_FRAME if gso_size else int(guest.tx_queue.record["max_frame"][0])
        _check_sizes(sizes, window, form, longest, guest.tx_queue.size)
        self._guest = guest
        self._batches = Batch(), Batch()
        self._selected = np.zeros(ROWS, np.int64)
        # An answer is as long as its request, whatever our own sizes are.
        self._room = np.zeros((ROWS, -(-longest // 64) * 64 + 64), np.uint8)
        self._linear = np.zeros(MAX_FRAME + 64, np.uint8)
        repeated = [sizes[k % len(sizes)] for k in range(1 << (4 * len(sizes) - 1).bit_length())]
        self._sizes = np.array(repeated, np.int64)
        self._answered = np.zeros(window, np.int64)
        self._order = np.zeros(FLOW_PLACES, np.int64)
        self._queues = np.array([[q.address for q in guest.queues.rx],
                                 [q.address for q in guest.queues.tx]], np.int64)
        self._poll = np.frombuffer(bytearray(
            b"".join(struct.pack("=ihh", q.call, 1, 0) for q in guest.queues.rx) + bytes(8)),
            np.uint8)
        self._hz = measure_hz()
        self.record = alloc(TRAFFIC, 1)
        self.address = address_of(self.record)
        row = self.record[0]
        for name, mac in (("own", guest.mac), ("peer", peer), ("foreign", foreign)):
            row[name] = int.from_bytes(mac, "big") << 16
        row["pairs"] = guest.pairs
        row["rx"], row["tx"] = address_of(self._queues[0]), address_of(self._queues[1])
        row["rx_batch"], row["tx_batch"] = (b.address for b in self._batches)
        row["selected"], row["room"] = address_of(self._selected), address_of(self._room)
        row["room_size"], row["linear"] = self._room.shape[1], address_of(self._linear)
        row["sizes"], row["sizes_mask"] = address_of(self._sizes), len(self._sizes) - 1
        row["window"], row["answered"] = window, address_of(self._answered)
        row["patience"], row["check"] = int(PATIENCE_SECONDS * self._hz), check
        row["form"], row["flows"], row["gso_size"] = form, max(flows, 1), gso_size
        row["order"], row["fds"] = address_of(self._order), address_of(self._poll)

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


def _check_sizes(sizes: Sequence[int], window: int, form: int, longest: int, ring: int) -> None:
    """ValueError for frames or a window that cannot be."""
    least = MIN_TEST_FRAME + _HEADERS[form]
    if min(sizes) < least:
        raise ValueError(f"test frames have at least {least} bytes")
    if max(sizes) > longest:
        raise ValueError(f"test frames have at most {longest} bytes, as the guest's MTU says")
    if window & (window - 1) or window > ring // 2:
        raise ValueError("the window is a power of two, at most half a ring")


_HEADERS = {PLAIN: 0, IN_UDP: 28, IN_TCP: 40}  # traffic_frames.headers_of, for Python
