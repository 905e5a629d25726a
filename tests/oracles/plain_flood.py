# SPDX-License-Identifier: Apache-2.0
"""Flooding with bounded work, in the slow and obvious way: lists and dictionaries.

Used by test_flood.py. Frames are bytes; members are known by the number with which they joined.
"""

from dataclasses import dataclass, field

from byway.packet.batch import ROWS, SEGMENTS
from byway.worker.backlog import CELL, CELLS, SHARE
from byway.worker.flood import UNIT_BYTES


@dataclass
class Waiting:
    """A frame on its way: ``done`` and ``until`` are numbers of members."""

    frame: bytes
    network: int
    done: int
    until: int

    @property
    def cells(self) -> int:
        return max(1, -(-len(self.frame) // CELL))

    @property
    def way(self) -> tuple[int, int, int]:
        return self.network, self.done, self.until


@dataclass
class PlainFlood:
    """Networks, ports that are up, and what waits. ``got``: what each port was given."""

    members: dict[int, dict[int, int]] = field(default_factory=dict)  # network: {number: port}
    up: set[int] = field(default_factory=set)
    got: dict[int, list[bytes]] = field(default_factory=dict)
    dropped: dict[int, dict[str, int]] = field(default_factory=dict)
    queues: dict[int, list[Waiting]] = field(default_factory=dict)  # by source, in turn
    joined: int = 0
    spare: int = 0

    def join(self, network: int, port: int) -> None:
        self.joined += 1
        self.members[network][self.joined] = port

    def leave(self, network: int, port: int) -> None:
        self.members[network] = {n: p for n, p in self.members[network].items() if p != port}

    def drop(self, source: int, reason: str, n: int) -> None:
        counted = self.dropped.setdefault(source, {})
        counted[reason] = counted.get(reason, 0) + n

    def spread(self, source: int, frames: list[bytes], way: tuple[int, int, int]) -> int:
        """Who has them, as far as what may be spent goes."""
        network, done, until = way
        for number, port in sorted(self.members[network].items()):
            if not done < number <= until:
                continue
            if self.spare <= 0:
                return done
            self.spare -= 1
            if port != source and port in self.up:
                self.got.setdefault(port, []).extend(frames)
                self.spare -= len(frames) + sum(map(len, frames)) // UNIT_BYTES
            done = number
        return until

    def flood(self, source: int, network: int, frames: list[bytes], units: int) -> None:
        others = [p for p in self.members[network].values() if p != source]
        if not any(p in self.up for p in others):
            self.drop(source, "port_down" if others else "no_destination", len(frames))
            return
        self.spare = units
        until, done = max(self.members[network]), 0
        if source not in self.queues:
            done = self.spread(source, frames, (network, 0, until))
        for k, frame in enumerate(frames):
            if done == until:
                break
            made = Waiting(frame, network, done, until)
            mine = sum(w.cells for w in self.queues.get(source, ()))
            free = CELLS - sum(w.cells for q in self.queues.values() for w in q)
            if mine + made.cells > min(SHARE, free):
                self.drop(source, "flood_backlog", len(frames) - k)
                break
            self.queues.setdefault(source, []).append(made)

    def more(self, units: int) -> bool:
        waited = bool(self.queues)
        self.spare = units
        while self.spare > 0 and self.queues:
            source, queue = next(iter(self.queues.items()))
            group, pieces = [queue[0]], queue[0].cells if queue[0].cells > 1 else 0
            for waiting in queue[1:ROWS]:
                if waiting.way != queue[0].way or pieces + waiting.cells > SEGMENTS:
                    break
                pieces += waiting.cells if waiting.cells > 1 else 0
                group.append(waiting)
            done = self.spread(source, [w.frame for w in group], queue[0].way)
            for waiting in group:
                waiting.done = done
            del self.queues[source]
            if left := [w for w in queue if w.done < w.until]:
                self.queues[source] = left  # the last of the ring
        return waited
