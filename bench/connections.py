# SPDX-License-Identifier: Apache-2.0
"""What security groups cost a frame: with few and many connections, with few and many rules.

    .venv/bin/python bench/connections.py [CONNECTIONS ...]

Connections: established ones, TCP segments of all of them in random order through the stage, each
batch of another 64. Prints cycles a frame (the lower quartile of all batches), and the ratio to the
first line; frames from the guest (rx) and to it (tx).

Rules: random questions to a set of rules, as the first frame of each connection asks one.
"""

import ipaddress
import random
import sys

import numpy as np

from byway.machine.clock import measure_hz
from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS
from byway.packet.counters import COUNTERS
from byway.switch.fdb import CLOCK_SHIFT
from byway.switch.groups_compile import Policy, Rule, halves
from byway.switch.groups_control import SecurityGroups
from byway.testing.flow_frames import ACK, SYN, TCP, Packet, tcp
from byway.testing.frame_batch import FrameBatch
from byway.testing.groups_kernels import FLOWS, allow_many, many_flows

FEW, MANY = 1000, 1_000_000
RUNS, LEAST_FRAMES = 5, 1_000_000
QUESTIONS = 20_000


class Flows:
    """A port with many connections."""

    def __init__(self, connections: int) -> None:
        groups = SecurityGroups(measure_hz() / (1 << CLOCK_SHIFT), capacity=connections * 5 // 4)
        groups.set_group("all", [Rule(ingress=False, version=4)])
        self.groups, self.connections = groups, connections
        self.frames = FrameBatch()
        self.frames.place([Packet("10.0.0.1", "11.0.0.1", TCP, tcp(1, 2, ACK)).frame()] * ROWS)
        self.frames.batch.record["origin"] = 99
        self.counters = alloc(COUNTERS, 1)
        self.record = alloc(FLOWS, 1)
        row = self.record[0]
        row["stage"] = groups.attach(1, ["all"], limit=connections)
        row["batch"], row["selected"] = self.frames.address, self.frames.selected
        row["counters"] = address_of(self.counters)
        self.order = np.random.default_rng(1).permutation(connections).astype(np.int64)

    def run(self, flags: int, back: bool, frames: int) -> float:
        """Frames of all connections in turn; -> cycles a frame."""
        order = np.resize(self.order, max(frames, self.connections))
        row = self.record[0]
        row["flows"], row["n"], row["flags"], row["back"] = (
            address_of(order), len(order), flags, back)
        row["passed"] = 0
        ticks = np.zeros(len(order) // ROWS + 1, np.int64)
        row["ticks"] = address_of(ticks)
        batches = many_flows(address_of(self.record))
        if int(row["passed"]) < len(order) * 0.999:
            raise SystemExit(f"only {row['passed']} of {len(order)} frames passed")
        return float(np.quantile(ticks[:batches], 0.25)) / ROWS

    def establish(self) -> float:
        """The handshakes; -> cycles that opening took."""
        opening = self.run(SYN, False, 0)
        self.run(SYN | ACK, True, 0)
        self.run(ACK, False, 0)
        return opening


def measure_connections(counts: list[int]) -> None:
    """Cycles a frame, by number of connections."""
    print("connections".rjust(12), "open".rjust(8), "rx".rjust(8), "tx".rjust(8), "ratio rx, tx")
    first = None
    for connections in counts:
        flows = Flows(connections)
        opening = flows.establish()
        cycles = [flows.run(ACK, back, LEAST_FRAMES) for back in (False, True)]
        first = first or cycles
        print(f"{connections:12d} {opening:8.1f} {cycles[0]:8.1f} {cycles[1]:8.1f}"
              f" {cycles[0] / first[0]:5.2f} {cycles[1] / first[1]:5.2f}")


def measure_rules(counts: tuple[int, ...]) -> None:
    """Cycles a question, by number of rules."""
    print("\n" + "rules".rjust(12), "cycles a question")
    draw = random.Random(1)
    for n in counts:
        rules = []
        for _ in range(n):
            port = draw.randrange(60000)
            remote = ipaddress.ip_network((draw.getrandbits(32), draw.randrange(8, 33)), False)
            rules.append(Rule(ingress=True, version=4, protocol=TCP,
                              ports=(port, port + draw.randrange(100)), remote=remote))
        made = Policy(1, rules).sets[2]
        services = np.array([TCP << 16 | draw.randrange(60000) for _ in range(QUESTIONS)])
        asked = np.array([halves(0xFFFF << 32 | draw.getrandbits(32)) for _ in range(QUESTIONS)])
        cycles = min(allow_many(made.address, 0, address_of(services), address_of(asked),
                                QUESTIONS) for _ in range(RUNS)) / QUESTIONS
        print(f"{n:12d} {cycles:8.1f}")


def main() -> None:
    """Measure and print both tables."""
    measure_connections([int(word) for word in sys.argv[1:]] or [FEW, 10_000, 100_000, MANY])
    measure_rules((1, 10, 100, 1000, 10_000))


main()
