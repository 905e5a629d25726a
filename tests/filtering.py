# SPDX-License-Identifier: Apache-2.0
"""Ports with security groups, and packets that are sent through them one by one.

    lab = Filtered()
    lab.groups.set_group("web", [...])
    lab.port(1, "web")
    assert lab.rx(packet) is None        # it passed
    assert lab.tx(packet) is Reason.NOT_ALLOWED
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.batch import UNDECIDED, dropped
from byway.packet.counters import COUNTERS
from byway.packet.reason import Reason
from byway.switch.groups_compile import Rule
from byway.switch.groups_control import SecurityGroups
from byway.testing.flow_frames import Packet
from byway.testing.frame_batch import FrameBatch
from byway.testing.groups_kernels import stage_rx, stage_tx

HZ = 1000  # coarse ticks a second
ELSEWHERE = 9999  # the number of the port that frames to the guests come from
REASONS = {dropped(int(reason)): reason for reason in Reason} | {UNDECIDED: None}

OUT4, OUT6 = Rule(ingress=False, version=4), Rule(ingress=False, version=6)


def octets(address: str) -> bytes:
    """An IP address as 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    ip = ipaddress.ip_address(address)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


class Filtered:
    """Security groups, and a batch to send frames in. ``now``: coarse time, which tests move."""

    def __init__(self, capacity: int = 1000, seed: int | None = 1) -> None:
        self.groups = SecurityGroups(HZ, capacity, seed)
        self.groups.on_moved(lambda memory: None)  # nobody works at the same time
        self.stages: dict[int, int] = {}
        self.now = 0
        self.counters = alloc(COUNTERS, 1)
        self._frames = FrameBatch()
        self._frames.batch.record["origin"] = ELSEWHERE

    def port(self, number: int, *names: str, limit: int = 1000) -> None:
        """Port ``number`` has these groups from now on."""
        self.stages[number] = self.groups.attach(number, names, limit)

    def wait(self, seconds: float) -> None:
        """Time goes on."""
        self.now += round(seconds * HZ)

    def place(self, frames: Sequence[bytes]) -> int:
        """Put frames into the batch, undecided; -> how many."""
        n = self._frames.place(frames)
        self._frames.batch.rows["out"][:n] = UNDECIDED
        self._frames.batch.record["now"] = self.now
        return n

    def rx_frames(self, frames: Sequence[bytes], port: int = 1) -> list[Reason | None]:
        """What becomes of frames that the guest sends in one batch."""
        n = self.place(frames)
        stage_rx(self.stages[port], self._frames.address)
        return [REASONS[int(out)] for out in self._frames.batch.rows["out"][:n]]

    def tx_frames(self, frames: Sequence[bytes], port: int = 1,
                  origin: int = ELSEWHERE) -> list[int]:
        """Which of the frames that one batch has for the guest reach it."""
        n = self.place(frames)
        self._frames.batch.record["origin"] = origin
        rows = self._frames.chosen[:n].tolist()
        kept = stage_tx(self.stages[port], self._frames.address, self._frames.selected, n,
                        address_of(self.counters))
        self._frames.batch.record["origin"] = ELSEWHERE
        return [rows.index(row) for row in self._frames.chosen[:kept].tolist()]

    def rx(self, packet: Packet, port: int = 1) -> Reason | None:
        """Why a packet of the guest's is dropped, None where it passes."""
        return self.rx_frames([packet.frame()], port)[0]

    def tx(self, packet: Packet, port: int = 1) -> Reason | None:
        """Why a packet to the guest is dropped, None where it passes."""
        before = self.counters["drops"][0].copy()
        if self.tx_frames([packet.frame()], port):
            return None
        return Reason(int(np.flatnonzero(self.counters["drops"][0] - before)[0]))

    def states(self, port: int = 1) -> list[str]:
        """The states of a port's connections, the one that was seen last first."""
        return [found.state for found in self.groups.connections(self.now, [port])]

    def heads(self, n: int) -> list[int]:
        """Where the private heads of the first n rows are."""
        return [int(head) for head in self._frames.batch.rows["head"][:n]]

    def memory(self, port: int) -> list[tuple[str, Any]]:
        """All arrays that the stage of a port may touch, but for heads."""
        groups, frames = self.groups, self._frames.batch
        owned = groups._ports[port]
        found = [("table", groups.table.record), ("index", groups.table.index),
                 ("entries", groups.table.entries), ("counts", groups.table.counts),
                 ("members", groups.members.record), ("cells", groups.members._cells),
                 ("groups", owned.record), ("ring", owned.ring), ("counters", self.counters),
                 ("batch", frames.record), ("rows", frames.rows), ("scratch", frames._scratch),
                 ("chosen", self._frames.chosen)]
        policy = groups._policies[owned.names]
        found.append(("policy", policy.record))
        for k, rules in enumerate(policy.sets):
            found += [(f"set {k}", rules.record), (f"services {k}", rules._services.memory),
                      (f"prefixes {k}", rules._cells), (f"lengths {k}", rules._lengths),
                      (f"combinations {k}", rules._combinations)]
            found += [(f"row {k}", row) for row in rules._rows._known.values()]
        return [(name, array) for name, array in found if array.nbytes]
