# SPDX-License-Identifier: Apache-2.0
"""The ring of an nf.Event, as control reads it.

Used by states.py. Uses event_kernels.py (which explains it), nf.

    loop.add_reader(ring.fd, lambda: [handle(event) for event in ring.take()])
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from byway.functions.event_kernels import RING, take_slots
from byway.functions.state_memory import StateMemory, Surroundings, zeros
from byway.machine.layout import address_of, alloc
from byway.nf.events import bytes_of, show_event

LOT = 256  # events that are copied at once


def event_fields(fields: Mapping[str, str]) -> dict[str, int]:
    """Where each field of an event is: bytes from where the first one begins (bytes: of the word
    that says how many)."""
    made, at = {}, 0
    for name, kind in fields.items():
        made[name] = at
        at += 8 * (1 + (kind == "ipv6")) + (bytes_of(kind) + 7 & ~7)
    return made


def slot_bytes(fields: Mapping[str, str]) -> int:
    """What one event takes."""
    name, kind = list(fields.items())[-1]
    return 16 + event_fields(fields)[name] + 8 * (kind == "ipv6") + (bytes_of(kind) + 7 & ~7)


class EventMemory(StateMemory):
    """``fd``: readable when there are events; -1 when it was closed."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self.fields: dict[str, str] = dict(spec["fields"])
        self._places = event_fields(self.fields)
        size, slots = slot_bytes(self.fields), 1 << (spec["capacity"] - 1).bit_length()
        self._slots, self._taken = zeros(size // 8 * (slots + 1)), zeros(size // 8 * LOT)
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.record = alloc(RING, 1, 128)
        row = self.record[0]
        row["slots"], row["mask"], row["size"] = address_of(self._slots), slots - 1, size
        row["capacity"], row["fd"], row["one"] = spec["capacity"], self.fd, 1
        self.address = address_of(self.record)

    def take(self) -> list[dict[str, Any]]:
        """The events that wait, oldest first: fields by name (addresses are numbers), ``time``; of
        very many some now, and ``fd`` stays readable."""
        with suppress(BlockingIOError):  # nobody woke us: then there is what there is
            os.eventfd_read(self.fd)
        n = int(take_slots(self.address, address_of(self._taken), LOT))
        if n == LOT:
            os.eventfd_write(self.fd, 1)
        size = int(self.record["size"][0]) // 8
        return [self._event(slot) for slot in self._taken[: n * size].reshape(n, size)]

    def _event(self, slot: Any) -> dict[str, Any]:
        event: dict[str, Any] = {"time": int(slot[0])}
        for name, kind in self.fields.items():
            word = 1 + self._places[name] // 8
            if bytes_of(kind):
                n = int(slot[word])
                event[name] = slot[word + 1 :].view(np.uint8)[:n].tobytes()
            elif kind == "ipv6":
                event[name] = int.from_bytes(slot[word : word + 2].astype(">i8").tobytes(), "big")
            else:
                event[name] = int(slot[word])
        return event

    def shown(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """An event of ``take`` as JSON."""
        return show_event(self.fields, event)

    def clear(self) -> None:
        while self.take():
            pass

    def stats(self) -> dict[str, int]:
        """waiting: events; lost: those that there was no room for."""
        row = self.record[0]
        return {"waiting": int(row["head"] - row["tail"]), "capacity": int(row["capacity"]),
                "lost": int(row["lost"])}

    def close(self) -> None:
        if self.fd >= 0:
            self.record["fd"] = -1  # the number may soon be that of another file
            os.close(self.fd)
            self.fd = -1
