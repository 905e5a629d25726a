# SPDX-License-Identifier: Apache-2.0
"""Decisions in a network that spans hosts, against plain functions over dicts."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import FLOOD, UNDECIDED, Batch
from byway.packet.reason import Reason
from byway.switch.fdb import FIRST_TUNNEL, Fdb
from byway.switch.network import DROP_UNKNOWN, LEARNING, NETWORK
from byway.switch.population import Population
from byway.testing.kernels import decide_batch
from byway.testing.population_kernels import learn_run
from byway.testing.ring_kernels import look_at

EXAMPLES = 200 if INTERPRETED else 1000
NUMBER = 7
GATEWAY = 0x0200_0000_00FE
LOCAL, TUNNELS = [0, 1, 2], [FIRST_TUNNEL, FIRST_TUNNEL + 1, FIRST_TUNNEL + 5]


def drop(reason: Reason) -> int:
    return -1 - reason


@dataclass
class Naive:
    """What a network knows, and what it does with a frame."""

    flags: int
    fdb: dict[int, int] = field(default_factory=dict)
    population: dict[int, int] = field(default_factory=dict)

    def is_local(self, mac: int) -> bool:
        if mac in self.population:
            return self.population[mac] < FIRST_TUNNEL
        return self.fdb.get(mac, FIRST_TUNNEL) < FIRST_TUNNEL

    def learn(self, source: int, port: int) -> None:
        if source == GATEWAY:
            return
        if port < FIRST_TUNNEL or (source not in self.population and self.flags & LEARNING):
            self.fdb[source] = port

    def decide(self, destination: int, source: int, port: int) -> int:
        if source >> 40 & 1 or source == 0:
            return drop(Reason.BAD_SOURCE)
        if port >= FIRST_TUNNEL and source != GATEWAY:
            learns = self.flags & LEARNING and source not in self.population
            if not learns and self.is_local(source):
                return drop(Reason.LOCAL_MAC)
        self.learn(source, port)
        if destination >> 40 & 1:
            return FLOOD
        local = self.fdb.get(destination, FIRST_TUNNEL) < FIRST_TUNNEL
        known = [table[destination] for table in (
            (self.fdb, self.population) if local else (self.population, self.fdb))
            if destination in table]
        if not known:
            return drop(Reason.UNKNOWN_UNICAST) if self.flags & DROP_UNKNOWN else FLOOD
        if known[0] == port or (known[0] >= FIRST_TUNNEL and port >= FIRST_TUNNEL):
            return drop(Reason.SAME_PORT)
        return known[0]


def fill(batch: Batch, frames: list[bytes]) -> list[np.ndarray]:
    """Place undecided frames; -> their memory."""
    kept = [np.frombuffer(frame, np.uint8).copy() for frame in frames]
    for k, octets in enumerate(kept):
        row = batch.rows[k]
        row["addr"], row["len"], row["out"] = address_of(octets), len(octets), UNDECIDED
        row["nsegs"] = row["offload"] = 0
    batch.record["n"] = len(frames)
    look_at(batch.address)
    return kept


macs = st.one_of(st.integers(0x0200_0000_0001, 0x0200_0000_0006), st.just(GATEWAY),
                 st.sampled_from([0, 0xFFFF_FFFF_FFFF, 0x0100_5E00_0001, 0xFE00_0000_0001]))
known_macs = st.integers(0x0200_0000_0001, 0x0200_0000_0006)
any_port = st.sampled_from(LOCAL + TUNNELS)
News = dict[int, int | None]  # what the population is told before a batch
news = st.dictionaries(known_macs, st.one_of(st.none(), any_port), max_size=2)


@settings(max_examples=EXAMPLES, deadline=None)
@given(flags=st.sampled_from([0, LEARNING, DROP_UNKNOWN, LEARNING | DROP_UNKNOWN]),
       told=st.dictionaries(known_macs, any_port, max_size=6),
       batches=st.lists(st.tuples(any_port, st.booleans(), st.lists(
           st.tuples(macs, macs), min_size=1, max_size=10), news), min_size=1, max_size=6))
def test_decisions(flags: int, told: dict[int, int],
                   batches: list[tuple[int, bool, list[tuple[int, int]], News]]) -> None:
    fdb, population, batch, network = Fdb(64, 1), Population(), Batch(), alloc(NETWORK, 1)
    network["fdb"], network["max_frame"], network["flags"] = fdb.address, 1514, flags
    network["population"], network["number"] = population.address, NUMBER
    network["gateway"] = GATEWAY << 16
    naive = Naive(flags, population=told)
    for mac, port in told.items():
        population.set_mac(NUMBER, mac, port)
        population.set_mac(NUMBER + 1, mac, LOCAL[0])  # of no matter in this network
    for port, answered, made, changes in batches:
        for mac, place in changes.items():
            told.pop(mac, None)
            population.drop_mac(NUMBER, mac)
            if place is not None:
                told[mac] = place
                population.set_mac(NUMBER, mac, place)
        frames = [(d.to_bytes(6, "big") + s.to_bytes(6, "big") + b"\x88\xb5").ljust(60, b"x")
                  for d, s in made]
        kept = fill(batch, frames)
        if answered:  # by a stage, so that they do not come to a decision
            learn_run(batch.address, address_of(network), port)
            for _, source in made:
                if not source >> 40 & 1 and source != 0:
                    naive.learn(source, port)
        else:
            decide_batch(batch.address, address_of(network), port)
            expected = [naive.decide(d, s, port) for d, s in made]
            assert batch.rows["out"][: len(kept)].tolist() == expected
        assert {mac: p for mac, p, _ in fdb.entries()} == naive.fdb


def test_destinations_all_over_a_large_population() -> None:
    """As many frames as a batch holds, each to another of many remote guests."""
    fdb, population, batch, network = Fdb(64, 1), Population(seed=3), Batch(), alloc(NETWORK, 1)
    network["fdb"], network["max_frame"] = fdb.address, 1514
    network["population"], network["number"] = population.address, NUMBER
    for k in range(5000):
        population.set_mac(NUMBER, 0x0200_0000_0000 + k * 7919, FIRST_TUNNEL + k % 100)
    rest = 0x0200_FFFF_0001.to_bytes(6, "big") + b"\x88\xb5" + bytes(46)
    frames = [(0x0200_0000_0000 + 77 * k * 7919).to_bytes(6, "big") + rest for k in range(64)]
    kept = fill(batch, frames)
    decide_batch(batch.address, address_of(network), 1)
    assert batch.rows["out"][: len(kept)].tolist() == [
        FIRST_TUNNEL + 77 * k % 100 for k in range(64)]


def test_the_populations_word_counts_more_than_what_tunnels_taught() -> None:
    """A guest was learned behind one host; then the population says another one, or this one."""
    fdb, population, batch, network = Fdb(64, 1), Population(), Batch(), alloc(NETWORK, 1)
    network["fdb"], network["max_frame"], network["flags"] = fdb.address, 1514, LEARNING
    network["population"], network["number"] = population.address, NUMBER
    mac, other = 0x0200_0000_0001, 0x0200_0000_0002

    def goes(destination: int, source: int, port: int) -> int:
        frame = destination.to_bytes(6, "big") + source.to_bytes(6, "big") + bytes(48)
        kept = fill(batch, [frame])
        decide_batch(batch.address, address_of(network), port)
        assert kept[0].tobytes() == frame
        return int(batch.rows["out"][0])

    assert goes(other, mac, TUNNELS[0]) == FLOOD
    assert goes(mac, other, LOCAL[0]) == TUNNELS[0]
    for told in (TUNNELS[1], LOCAL[2]):
        population.set_mac(NUMBER, mac, told)
        assert goes(mac, other, LOCAL[0]) == told
    assert goes(other, mac, TUNNELS[0]) == drop(Reason.LOCAL_MAC)
    population.drop_mac(NUMBER, mac)
    assert goes(mac, other, LOCAL[0]) == TUNNELS[0]
    assert goes(0xFFFF_FFFF_FFFF, mac, LOCAL[1]) == FLOOD
    population.set_mac(NUMBER, mac, TUNNELS[1])
    assert goes(mac, other, LOCAL[0]) == LOCAL[1], "what a local port was learned to have"


def test_nobody_has_address_zero() -> None:
    """A frame to it goes where any unknown address goes, whatever the network's number is."""
    fdb, population, batch, network = Fdb(64, 1), Population(seed=3), Batch(), alloc(NETWORK, 1)
    network["fdb"], network["max_frame"] = fdb.address, 1514
    network["population"] = population.address
    population.set_mac(NUMBER, 0, TUNNELS[0])
    frame = bytes(6) + 0x0200_0000_0001.to_bytes(6, "big") + bytes(48)
    for number in (0, NUMBER):
        network["number"] = number
        for flags, out in ((0, FLOOD), (DROP_UNKNOWN, drop(Reason.UNKNOWN_UNICAST))):
            network["flags"] = flags
            kept = fill(batch, [frame])
            decide_batch(batch.address, address_of(network), LOCAL[0])
            assert kept[0].tobytes() == frame
            assert int(batch.rows["out"][0]) == out
