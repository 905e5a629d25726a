# SPDX-License-Identifier: Apache-2.0
"""One stage, a network, and a batch of frames from one of its ports: for tests of stages.

    place = Place()
    place.population.set_ip(place.number, mapped("10.0.0.2"), 0x020000000002)
    outcome, = place.run(respond, responder, [request], origin=1)
"""

import ctypes
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from byway.machine.dual import signed
from byway.machine.layout import address_of, alloc
from byway.packet.batch import HEAD, ROWS, UNDECIDED, Batch
from byway.packet.reason import Reason
from byway.switch.fdb import Fdb
from byway.switch.network import NETWORK, RESPONDS
from byway.switch.population import Population
from byway.testing.kernels import learn_address
from byway.testing.ring_kernels import look_at
from byway.worker.events import Event, Events


def mapped(ip: str) -> bytes:
    """An IP address in 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    packed = ipaddress.ip_address(ip).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


class Addressed(Protocol):
    """What has a record for kernels, and keeps it alive."""

    address: int


@dataclass(frozen=True)
class Outcome:
    """What became of a row: ``out`` a port (None: undecided) or a drop ``reason``; the frame."""

    out: int | None
    reason: Reason | None
    frame: bytes


class Place:
    """A network with its tables, and a batch; number and flags as they are in switch.network."""

    def __init__(self, number: int = 5, flags: int = RESPONDS, gateway: int = 0) -> None:
        self.number = number
        self.fdb, self.population, self.batch = Fdb(256, 1), Population(seed=1), Batch()
        self.events = Events()
        self.network = alloc(NETWORK, 1)
        row = self.network[0]
        row["fdb"], row["max_frame"], row["number"] = self.fdb.address, 1514, number
        row["population"], row["flags"] = self.population.address, flags
        row["gateway"] = gateway << 16
        batch = self.batch.record[0]
        batch["here"], batch["network"] = address_of(self.network), number
        batch["events"], batch["now"] = self.events.address, 1

    def learn(self, mac: int, port: int) -> None:
        """The network's fdb knows the address."""
        learn_address(self.fdb.address, signed(mac << 16), port, 1)

    def run(self, stage: Callable[[int, int], int], owner: Addressed, frames: Sequence[bytes],
            origin: int = 1, offload: int = 0) -> list[Outcome]:
        """Have the stage look at frames that came in on port ``origin``, at most ROWS of them.

        ``owner``: of the stage's record, and of the memory that it leads to.
        """
        assert len(frames) <= ROWS
        kept = [np.frombuffer(frame, np.uint8).copy() for frame in frames]
        for row, octets in zip(self.batch.rows, kept, strict=False):
            row["addr"], row["len"], row["out"] = address_of(octets), len(octets), UNDECIDED
            row["nsegs"], row["offload"] = 0, offload
        batch = self.batch.record[0]
        batch["n"], batch["origin"], batch["offloads"] = len(frames), origin, offload
        look_at(self.batch.address)
        stage(owner.address, self.batch.address)
        assert [bytes(octets) for octets in kept] == list(frames), "the sender's memory"
        return [self._outcome(k) for k in range(len(frames))]

    def _outcome(self, k: int) -> Outcome:
        row = self.batch.rows[k]
        out, n = int(row["out"]), int(row["len"])
        head = ctypes.string_at(int(row["head"]), min(n, HEAD))
        rest = ctypes.string_at(int(row["addr"]) + HEAD, n - HEAD) if n > HEAD else b""
        if out < 0 and out != UNDECIDED:
            return Outcome(None, Reason(-1 - out), head + rest)
        return Outcome(None if out == UNDECIDED else out, None, head + rest)

    def told(self) -> list[Event]:
        """What control has been told since this was asked before."""
        return list(self.events.take())

    def close(self) -> None:
        """Give the event fd back."""
        self.events.close()
