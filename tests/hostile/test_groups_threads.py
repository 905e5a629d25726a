# SPDX-License-Identifier: Apache-2.0
"""Several workers, and the control thread, at the same connections: nothing is lost or left over.

Two workers carry a guest's frames, one those to it, of the same flows; control meanwhile changes
rules and members, ages, forgets, and lets go of what it replaced one change later.
"""

import threading

import numpy as np
import pytest

from byway.machine.layout import address_of, alloc
from byway.packet.counters import COUNTERS
from byway.packet.reason import Reason
from byway.switch.groups_compile import Rule
from byway.switch.groups_control import SecurityGroups
from byway.testing.flow_frames import ACK, RST, SYN, TCP, Packet, tcp
from byway.testing.frame_batch import FrameBatch
from byway.testing.groups_kernels import FLOWS, many_flows
from tests.filtering import ELSEWHERE, OUT4, octets

pytestmark = pytest.mark.compiled_only
CONNECTIONS, FRAMES, ROUNDS = 3000, 200_000, 8
LIMIT = 2000  # fewer than there are flows: some are always given up


class Worker:
    """A thread with a batch of its own, which sends segments of random flows through the stage."""

    def __init__(self, stage: int, back: bool, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self._flows = draw.integers(0, CONNECTIONS, FRAMES).astype(np.int64)
        self._frames = FrameBatch()
        self._frames.place([Packet("10.0.0.1", "11.0.0.1", TCP, tcp(1, 2, ACK)).frame()] * 64)
        self._frames.batch.record["origin"] = ELSEWHERE
        self._ticks = np.zeros(FRAMES // 64 + 1, np.int64)
        self.counters = alloc(COUNTERS, 1)
        self.record = alloc(FLOWS, 1)
        row = self.record[0]
        row["stage"], row["back"], row["n"] = stage, back, FRAMES
        row["batch"], row["selected"] = self._frames.address, self._frames.selected
        row["counters"], row["flows"] = address_of(self.counters), address_of(self._flows)
        row["ticks"] = address_of(self._ticks)

    def run(self) -> None:
        answer = SYN | ACK if self.record[0]["back"] else SYN
        for k in range(ROUNDS):
            self.record["flags"] = (answer, ACK, ACK, RST | ACK)[k % 4]
            many_flows(address_of(self.record))


def test_workers_and_control_at_once() -> None:
    groups = SecurityGroups(hz=40, capacity=4000)
    held: list[object] = []

    def keep(memory: object) -> None:
        """Pretend that all workers have ended a pass when the next thing is replaced."""
        held.append(memory)
        del held[:-50]

    groups.on_moved(keep)
    groups.set_group("a", [OUT4])
    stage = groups.attach(1, ["a"], limit=LIMIT)
    workers = [Worker(stage, False, 1), Worker(stage, False, 2), Worker(stage, True, 3)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    changes = 0
    while any(thread.is_alive() for thread in threads) or changes <= 20:
        rules = [OUT4, Rule(True, 4, remote_group="g")] if changes % 2 else [
            Rule(False, 4, remote_group="g"), OUT4]
        groups.set_group("a", rules)
        groups.join("g", octets(f"11.0.0.{changes % 200}"))
        if changes > 100:
            groups.leave("g", octets(f"11.0.0.{(changes - 100) % 200}"))
        groups.tick(0)
        if changes % 50 == 49:
            groups.table.forget(1)
        groups.connections(0, [1], most=10)
        changes += 1
    assert sum(int(worker.record["passed"][0]) for worker in workers) > FRAMES
    dropped = {reason for reason in Reason for worker in workers
               if worker.counters["drops"][0][reason]}
    assert dropped <= {Reason.BAD_STATE, Reason.NOT_ALLOWED, Reason.CONNECTIONS}
    in_use = groups.table.used()
    assert len(groups.table) == len(in_use) == groups.table.counts[1]
    assert len(in_use) <= LIMIT + len(workers), "each may look at the limit at the same moment"
    groups.table.forget(1)
    assert len(groups.table) == groups.table.counts[1] == 0
    assert not groups.table.index.any(), "no word names an entry that is not there"
