# SPDX-License-Identifier: Apache-2.0
"""A router without a switch: frames in, what became of each out.

    routed = Routed([Gateway(1, 41, MAC, ("10.0.0.1/24",)), Gateway(2, 42, MAC, ("10.0.1.1/24",))],
                    [Router((1, 2))])
    routed.know(2, "10.0.1.2", 0x020000000022)
    outcome, = routed.send([frame], network=1, port=7)
    outcome.frame, outcome.network, outcome.drop

Used by tests of switch.router. Compiled or interpreted, as the process is.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.batch import FLOOD, HEAD_STRIDE, ROWS, UNDECIDED
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.switch.population import Population
from byway.switch.routing import Gateway, Router, Routing
from byway.testing.arena import Arena
from byway.testing.finishing import content
from byway.testing.frame_batch import Frame, FrameBatch
from byway.testing.router_kernels import route_rows

HZ = 2.5e9
SECOND = 38  # ticks of the coarse clock, and one to be sure


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    ``drop``: why it was dropped, ``answer``: it goes back to its port, ``flood``: to all; else it
    is to be decided about, as if it came from ``port`` of ``network``. ``offload``: what is left
    to do.
    """

    frame: bytes
    network: int
    port: int
    drop: Reason | None = None
    answer: bool = False
    flood: bool = False
    offload: int = 0


def arrays_of(owner: object) -> list[Any]:
    """All arrays that an object keeps, itself or through what it keeps; each once."""
    found: dict[int, Any] = {}
    seen: set[int] = set()
    left: list[Any] = [owner]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            found[address_of(one)] = one
        elif isinstance(one, list | tuple):
            left += one
        elif isinstance(one, dict):
            left += one.values()
        elif type(one).__module__.startswith("byway.switch.") and hasattr(one, "__dict__"):
            left += vars(one).values()
    return [array for array in found.values() if array.nbytes]


class Routed:
    """Gateways and routers, and a population to look next hops up in. ``now``: the coarse time."""

    def __init__(self, gateways: Sequence[Gateway], routers: Sequence[Router] = (),
                 hz: float = HZ) -> None:
        self.population = Population(1 << 12)
        self.routing = Routing(hz)
        self.routing.set_population(self.population.address)
        self.routing.install(gateways, routers)
        self.frames = FrameBatch()
        self.origins = alloc(np.dtype("<i8"), ROWS)
        self.frames.batch.record["origins"] = address_of(self.origins)
        self.counters = alloc(COUNTERS, 1)
        self.now = 1000

    def know(self, network: int, ip: str, mac: int) -> None:
        """Put a station into the population; ``mac``: a number of 48 bits."""
        address = ipaddress.ip_address(ip)
        prefix = bytes(10) + b"\xff\xff" if address.version == 4 else b""
        self.population.set_ip(network, prefix + address.packed, mac)

    @property
    def counted(self) -> dict[str, int]:
        """Drops that the router has counted itself, by name."""
        return drops_by_name(self.counters[0])

    def send(self, frames: Sequence[Frame], network: int, port: int, vni: int = 0,
             pieces: Sequence[int] = (1,)) -> list[Outcome]:
        """Have at most 64 frames of a port pass the router as one run."""
        n = self.frames.place(frames, pieces)
        batch = self.frames.batch
        row = batch.record[0]
        row["network"], row["origin"], row["vni"], row["now"] = network, port, vni, self.now
        row["counters"] = address_of(self.counters)
        batch.rows["out"][:n] = UNDECIDED
        self.origins[:n] = network << 32 | port
        route_rows(self.routing.address, self.frames.address)
        return [self._outcome(k, port) for k in range(n)]

    def allow(self, arena: Arena) -> None:
        """Name to an Arena all that the router may touch: heads, rows, tables. No frame is among
        it: what the sender can still change is never looked at."""
        batch = self.frames.batch
        arena.allow("heads", int(batch.record["heads"][0]), ROWS * HEAD_STRIDE)
        for name, array in (("rows", batch.rows), ("batch", batch.record),
                            ("origins", self.origins), ("counters", self.counters)):
            arena.allow_array(name, array)
        for array in arrays_of(self.routing) + arrays_of(self.population):
            arena.allow_array("tables", array)

    def _outcome(self, k: int, port: int) -> Outcome:
        row, word = self.frames.batch.rows[k], int(self.origins[k])
        out = int(row["out"])
        drop = Reason(-1 - out) if out < FLOOD and out != UNDECIDED else None
        return Outcome(content(row), word >> 32, word & 0xFFFFFFFF, drop, out == port,
                       out == FLOOD, int(row["offload"]))
