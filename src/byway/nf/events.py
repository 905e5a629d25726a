# SPDX-License-Identifier: Apache-2.0
"""Events: what a function tells Python.

Part of the author's page. Used by authors; by byway.functions, which has the same as kernels over a
ring; and as the oracle of those. Uses keys.py.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from byway.nf.keys import BITS, show, word_of
from byway.nf.running import current
from byway.nf.state import State
from byway.nf.states import declared

MOST_BYTES = 2048  # of a frame in an event
MOST_EVENTS = 1 << 20
_BYTES = re.compile(r"bytes:([1-9][0-9]{0,3})")


class Event(State):
    """Something to tell: ``seen = nf.Event(src="ipv4", count="u32", head="bytes:64")``, then
    ``self.seen.emit(src=frame.ipv4_src, count=n, head=frame)``.

    Fields have types, as keys of a map, but flow; one of type bytes:N gets the first N bytes of the
    frame (``head=frame``) or of its payload (``data=frame.payload``): all of them, where it is
    shorter. What is not given is 0. So many wait (``capacity``) until they are received; others are
    lost and counted.
    """

    kind: ClassVar[str] = "event"

    def __init__(self, *, capacity: int = 1024, **fields: str) -> None:
        self.fields = dict(fields)
        self.capacity = declared("capacity", capacity, MOST_EVENTS)
        self.lost = 0
        self._waiting: list[dict[str, Any]] = []
        if not fields:
            raise ValueError('an event has fields: nf.Event(src="ipv4")')
        for name, kind in fields.items():
            if kind not in BITS and not 0 < bytes_of(kind) <= MOST_BYTES:
                raise ValueError(f"{name}={kind!r}: write one of {', '.join(BITS)}, or bytes:N "
                                 f"with N up to {MOST_BYTES}")
            if name in ("time", "emit") or name[0] == "_":
                raise ValueError(f"a field cannot be called {name}")

    def fresh(self, owner: object) -> Self:
        return type(self)(capacity=self.capacity, **self.fields)

    def emit(self, **values: Any) -> None:
        """Tell it. Numbers are cut to their fields' types."""
        if unknown := [name for name in values if name not in self.fields]:
            raise TypeError(f"the event has no field {', '.join(unknown)}; it has "
                            f"{', '.join(self.fields)}")
        if len(self._waiting) >= self.capacity:
            self.lost += 1
            return
        told: dict[str, Any] = {"time": current().now}
        for name, kind in self.fields.items():
            given, most = values.get(name, 0), bytes_of(kind)
            if most:
                told[name] = bytes(given)[:most] if name in values else b""
            else:
                told[name] = word_of(kind, given)
        self._waiting.append(told)

    def take(self) -> list[dict[str, Any]]:
        """What waits, oldest first, by field name; ``time``: in nanoseconds as nf.now()."""
        taken, self._waiting = self._waiting, []
        return taken

    def spec(self) -> dict[str, Any]:
        """What it is like, as JSON."""
        return {"kind": self.kind, "fields": self.fields, "capacity": self.capacity}


def bytes_of(kind: str) -> int:
    """The N of bytes:N, 0 for other types."""
    found = _BYTES.fullmatch(kind)
    return int(found[1]) if found else 0


def show_event(fields: Mapping[str, str], event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as JSON: addresses as text, bytes as hexadecimal digits."""
    return {"time": event["time"], **{
        name: event[name].hex() if bytes_of(kind) else show(kind, event[name])
        for name, kind in fields.items()}}
