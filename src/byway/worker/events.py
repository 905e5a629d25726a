# SPDX-License-Identifier: Apache-2.0
"""What one worker tells control, as Python reads it: learned and moved MAC addresses, said IPs.

Used by control. The ring and what goes into it: switch/events.py.

    events = Events()
    worker.batch.record["events"] = events.address
    loop.add_reader(events.fd, lambda: [handle(event) for event in events.take()])

``missed`` grows where a port told too much or nobody took for long; what was learned can then be
found in the forwarding databases, and IP addresses are said again by those who have them.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.switch.events import EVENT, LEARNED, MOVED, RING, SAID, take_events
from byway.switch.fdb import MAX_PORTS

ROOM = 8192
LOT, LOTS = 256, 4  # events that are copied at once, and how often before others have a turn


class Told(IntEnum):
    """What an event says."""

    LEARNED = LEARNED  # a MAC address that was not known is behind the port
    MOVED = MOVED  # a MAC address is behind the port, that was behind another one or a tunnel
    SAID = SAID  # a guest behind the port says that the IP address belongs to the MAC address


@dataclass(frozen=True, slots=True)
class Event:
    """One of them: network and port by number, the MAC address, and the IP address that is said (16
    bytes, IPv4 as ::ffff:a.b.c.d)."""

    kind: Told
    network: int
    port: int
    mac: int
    ip: bytes | None = None


class Events:
    """The ring of one worker.

    ``address``: of its record; ``fd``: readable when there are events.
    """

    def __init__(self, room: int = ROOM) -> None:
        """``room``: events that may wait, a power of two."""
        if room & room - 1:
            raise ValueError(f"room for {room} events: no power of two")
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._events = alloc(np.dtype("u1"), room * EVENT, 64)
        self._shares = alloc(np.dtype("<i8"), MAX_PORTS + 1, 64)
        self._taken = alloc(np.dtype("<i8"), LOT * EVENT // 8, 64)
        self.record = alloc(RING, 1, 128)
        row: Any = self.record[0]
        row["events"], row["mask"] = address_of(self._events), room - 1
        row["shares"], row["fd"], row["one"] = address_of(self._shares), self.fd, 1
        self.address = address_of(self.record)

    def take(self) -> Iterator[Event]:
        """The events that wait, oldest first; of very many some now, and ``fd`` stays readable."""
        with suppress(BlockingIOError):  # nobody woke us: then there is what there is
            os.eventfd_read(self.fd)
        for _ in range(LOTS):
            n = int(take_events(self.address, address_of(self._taken), LOT))
            yield from map(_event, self._taken[: n * EVENT // 8].reshape(-1, EVENT // 8).tolist())
            if n < LOT:
                return
        os.eventfd_write(self.fd, 1)

    @property
    def missed(self) -> int:
        """Events that were not told, since the start."""
        return int(self.record["missed"][0])

    def close(self) -> None:
        """The worker has been told to tell no more."""
        os.close(self.fd)


def _event(words: list[int]) -> Event:
    word, mac, high, low = words
    kind = Told(word & 0xFFFF)
    ip = None
    if kind == Told.SAID:
        ip = (high & (1 << 64) - 1).to_bytes(8, "big") + (low & (1 << 64) - 1).to_bytes(8, "big")
    return Event(kind, word >> 32, word >> 16 & 0xFFFF, mac, ip)
