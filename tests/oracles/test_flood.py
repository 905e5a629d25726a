# SPDX-License-Identifier: Apache-2.0
"""Flooding with bounded work against plain lists; and that nobody takes the room of others."""

import ctypes
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import MAX_FRAME, ROWS, Batch
from byway.packet.counters import drops_by_name
from byway.packet.reason import Reason
from byway.ports.pcap_kernels import PCAP_OUT, WRAP
from byway.ports.record import Kind
from byway.testing.kernels import flood_more, flood_rows
from byway.testing.plans import settle
from byway.testing.records import PortRecords
from byway.testing.ring_kernels import look_at
from byway.worker.backlog import CELL, CELLS, SHARE
from byway.worker.plan import Plan
from tests.oracles.plain_flood import PlainFlood

PORTS, NETWORKS = 8, 2
EXAMPLES = 30 if INTERPRETED else 150
RING = 1 << 21


class Sink:
    """A port that keeps what it is given: a ring as that of a capture."""

    def __init__(self, index: int, wake: int) -> None:
        self._ring, self._out = alloc(np.dtype("u1"), RING), alloc(PCAP_OUT, 1)
        self.records = PortRecords(Kind.PCAP, index, tx=address_of(self._out))
        row = self._out[0]
        row["ring"], row["size"], row["wake"] = address_of(self._ring), RING, wake
        self._one = np.ones(1, np.int64)
        row["counters"], row["one"] = address_of(self.records.sent), address_of(self._one)
        self.got: list[bytes] = []

    def read(self) -> list[bytes]:
        """All that it was ever given."""
        row, start = self._out[0], address_of(self._ring)
        tail = int(row["tail"])
        while tail != int(row["head"]):
            place = tail % RING
            length = ctypes.c_int64.from_address(start + place).value
            if length == WRAP:
                tail += RING - place
                continue
            self.got.append(ctypes.string_at(start + place + 8, length))
            tail += 8 + (length + 7 & ~7)
        row["tail"] = tail
        return self.got


class Flooding:
    """Ports in networks over one plan."""

    def __init__(self, ports: int = PORTS) -> None:
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self.sinks = [Sink(k, self._wake) for k in range(ports)]
        self.plan, self.batch = Plan(), Batch()
        self._selected = np.array([address_of(self.batch.rows[k:]) for k in range(ROWS)])
        for network in range(NETWORKS):
            self.plan.set_network(network, 0, MAX_FRAME)
        settle(self.plan)

    def up(self, port: int, is_up: bool) -> None:
        self.plan.set_port(port, self.sinks[port].records.address if is_up else 0)
        settle(self.plan)

    def join(self, network: int, port: int) -> None:
        self.plan.join(network, port)
        self.sinks[port].records.port["network"] = network
        settle(self.plan)

    def leave(self, network: int, port: int) -> None:
        self.plan.leave(network, port)
        settle(self.plan)

    def flood(self, source: int, frames: list[bytes], units: int) -> None:
        kept = [np.frombuffer(frame, np.uint8).copy() for frame in frames]
        for k, data in enumerate(kept):
            row = self.batch.rows[k]
            row["addr"], row["len"], row["nsegs"] = address_of(data), len(data), 0
            row["offload"] = 0
        self.batch.record["n"], self.batch.record["offloads"] = len(frames), 0
        look_at(self.batch.address)
        for data in kept:
            data[:128] = 0  # what was looked at counts
        flood_rows(self.plan.address, self.sinks[source].records.rx_address, self.batch.address,
                   address_of(self._selected), len(frames), units)
        for data in kept:
            data[:] = 0  # and what waits is a copy

    def more(self, units: int) -> bool:
        return bool(flood_more(self.plan.address, self.batch.address, units))

    def dropped(self, port: int) -> dict[str, int]:
        return drops_by_name(self.sinks[port].records.received[0])

    def close(self) -> None:
        os.close(self._wake)


def numbered(number: int, length: int) -> bytes:
    """A frame that no other is like, to its end."""
    return (number.to_bytes(4, "big") * (length // 4 + 1))[:length]


lengths = st.sampled_from([14, 60, 128, 129, CELL, CELL + 1, 3000, MAX_FRAME])
ports = st.integers(0, PORTS - 1)
units = st.sampled_from([0, 1, 2, 5, 9, 20, 100, 10_000])
steps = st.lists(st.one_of(
    st.tuples(st.just("flood"), ports, st.tuples(st.lists(lengths, min_size=1, max_size=4), units)),
    st.tuples(st.just("flood"), ports, st.tuples(st.lists(lengths, min_size=1, max_size=4), units)),
    st.tuples(st.just("more"), ports, units), st.tuples(st.just("more"), ports, units),
    st.tuples(st.just("up"), ports, st.booleans()),
    st.tuples(st.just("join"), ports, st.integers(0, NETWORKS - 1))), max_size=40)


@settings(max_examples=EXAMPLES, deadline=None)
@given(steps=steps)
def test_like_lists(steps: list[tuple[str, int, Any]]) -> None:
    made, plain = Flooding(), PlainFlood({n: {} for n in range(NETWORKS)})
    home: dict[int, int] = {}
    number = 0
    for port in range(PORTS - 2):  # the others come when they come
        steps = [("join", port, 0), ("up", port, True), *steps]
    for what, port, value in [*steps, ("more", 0, 1 << 30)]:
        if what == "more":
            assert made.more(value) == plain.more(value)
        elif what == "up":
            made.up(port, value)
            (plain.up.add if value else plain.up.discard)(port)
        elif what == "join":
            if port in home:
                made.leave(home[port], port)
                plain.leave(home.pop(port), port)
            else:
                made.join(value, port)
                plain.join(value, port)
                home[port] = value
        elif port in home:
            frames = [numbered(number + k, length) for k, length in enumerate(value[0])]
            number += len(frames)
            made.flood(port, frames, value[1])
            plain.flood(port, home[port], frames, value[1])
        assert made.plan.backlog.waiting == sum(map(len, plain.queues.values()))
        for sink in range(PORTS):
            assert made.sinks[sink].read() == plain.got.get(sink, [])
            assert made.dropped(sink) == plain.dropped.get(sink, {})
    assert made.plan.backlog.waiting == 0
    assert int(made.plan.backlog.record["nfree"][0]) == CELLS
    made.close()


@pytest.fixture
def three() -> Any:
    made = Flooding(3)
    for port in range(3):
        made.join(0, port)
        made.up(port, True)
    yield made
    made.close()


def test_a_source_has_a_share(three: Flooding) -> None:
    """What one may let wait is bounded; another's frames find room, and have their turn."""
    frames = [numbered(k, 60) for k in range(SHARE + 100)]
    for k in range(0, len(frames), ROWS):
        three.flood(0, frames[k : k + ROWS], 0)
    assert three.plan.backlog.waiting == SHARE
    assert three.dropped(0) == {Reason.FLOOD_BACKLOG.name.lower(): 100}
    three.flood(1, [numbered(7777, 60)], 0)
    while numbered(7777, 60) not in three.sinks[2].read():
        three.more(1)
    assert len(three.sinks[2].read()) <= 2 * ROWS, "it did not have to wait for all the others"
    three.more(1 << 30)
    assert [f for f in three.sinks[2].read() if f != numbered(7777, 60)] == frames[:SHARE]
    assert three.sinks[0].read() == [numbered(7777, 60)]


def test_there_is_always_room_for_who_has_nothing_waiting() -> None:
    """Everybody at once, as much as they can: each gets some, and the last ones do too."""
    sources = 4 * CELLS // SHARE
    made = Flooding(sources + 1)
    for port in range(sources + 1):
        made.join(0, port)
        made.up(port, True)
    for _ in range(SHARE // ROWS + 1):
        for port in range(sources):
            made.flood(port, [numbered(port, 60)] * ROWS, 0)
    made.flood(sources, [numbered(9999, 60)], 0)
    assert made.dropped(sources) == {}
    assert made.plan.backlog.waiting <= CELLS
    made.more(1 << 30)
    assert all(numbered(9999, 60) in sink.read() for sink in made.sinks[:-1])
    made.close()


@pytest.mark.parametrize("units", [1, 64, 1000])
def test_a_step_is_bounded(units: int) -> None:
    """However many members and frames: what is spent goes beyond its bound by one member only."""
    made = Flooding(200)
    for port in range(200):
        made.join(0, port)
        made.up(port, True)
    made.flood(0, [numbered(k, 60) for k in range(ROWS)], units)
    most = (units + 2 * ROWS) // ROWS
    assert sum(len(sink.read()) for sink in made.sinks) <= most * ROWS
    before = sum(len(sink.got) for sink in made.sinks)
    while made.more(units):
        now = sum(len(sink.read()) for sink in made.sinks)
        assert now - before <= most * ROWS
        before = now
    assert before == 199 * ROWS
    made.close()
