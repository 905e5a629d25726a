# SPDX-License-Identifier: Apache-2.0
"""Events from a worker to control: what is told, who is woken, and who gets a word in."""

import os
import select
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import UNDECIDED, Batch
from byway.switch.events import SHARE
from byway.switch.fdb import FIRST_TUNNEL, Fdb
from byway.switch.network import LEARNING, NETWORK
from byway.switch.population import Population
from byway.testing.kernels import decide_batch
from byway.testing.population_kernels import learn_run, tell_many, tell_one
from byway.testing.ring_kernels import look_at
from byway.worker.events import LOT, LOTS, Event, Events, Told

MAC = 0x0200_0000_0001


@pytest.fixture
def events() -> Iterator[Events]:
    made = Events(64)
    yield made
    made.close()


def tell(events: Events, port: int, mac: int, now: int = 1, kind: Told = Told.LEARNED) -> None:
    tell_one(events.address, now, kind, 3, port, mac, 0, 0)


def readable(events: Events) -> bool:
    return bool(select.select([events.fd], [], [], 0)[0])


def test_what_is_told(events: Events) -> None:
    tell_one(events.address, 1, Told.LEARNED, 0xFFFF, 0xBFFF, 0xFE00_0000_0001, 0, 0)
    tell_one(events.address, 1, Told.MOVED, 0, 0, MAC, 0, 0)
    tell_one(events.address, 1, Told.SAID, 5, 6, MAC, -0x180_0000_0000_0000, -2)
    assert list(events.take()) == [
        Event(Told.LEARNED, 0xFFFF, 0xBFFF, 0xFE00_0000_0001),
        Event(Told.MOVED, 0, 0, MAC),
        Event(Told.SAID, 5, 6, MAC, b"\xfe\x80" + bytes(6) + b"\xff" * 7 + b"\xfe")]
    assert list(events.take()) == []


def test_one_wake_up_until_somebody_looks(events: Events) -> None:
    assert not readable(events)
    tell(events, 1, MAC)
    tell(events, 1, MAC + 1)
    assert os.eventfd_read(events.fd) == 1, "one system call"
    os.eventfd_write(events.fd, 1)
    assert [event.mac for event in events.take()] == [MAC, MAC + 1]
    assert not readable(events)
    tell(events, 1, MAC + 2)
    assert readable(events)
    assert [event.mac for event in events.take()] == [MAC + 2]


def test_a_port_tells_its_share_and_takes_nothing_from_others() -> None:
    events = Events()
    for k in range(10 * SHARE):
        tell(events, 1, MAC + k, now=7)
    tell(events, 2, MAC, now=7)
    told = [event.port for event in events.take()]
    assert (told.count(1), told.count(2), events.missed) == (SHARE, 1, 9 * SHARE)
    tell(events, 1, MAC, now=8)
    assert len(list(events.take())) == 1, "the next tick"
    events.close()


def test_a_full_ring_loses_nothing_that_is_in_it(events: Events) -> None:
    for k in range(70):
        tell(events, k, MAC + k)
    assert [event.mac for event in events.take()] == [MAC + k for k in range(64)]
    assert events.missed == 6
    tell(events, 1, MAC)
    assert [event.mac for event in events.take()] == [MAC]


def test_who_takes_lets_others_have_a_turn() -> None:
    events = Events(1 << 12)
    total = LOT * LOTS + 5
    for k in range(total):
        tell(events, k % 4000, MAC + k, now=k)
    first = list(events.take())
    assert (len(first), readable(events)) == (LOT * LOTS, True)
    assert len(list(events.take())) == 5
    assert not readable(events)
    events.close()


def test_nobody_listens() -> None:
    tell_one(0, 1, Told.LEARNED, 1, 1, MAC, 0, 0)


def test_room_is_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="100 events: no power of two"):
        Events(100)


def test_no_wake_up_is_lost() -> None:
    """A worker tells while the control thread sleeps until it is woken, again and again."""
    events, total = Events(128), 500 if INTERPRETED else 200_000
    worker = threading.Thread(target=tell_many, args=(events.address, MAC, total, 1))
    worker.start()
    seen = 0
    while seen < total:
        assert select.select([events.fd], [], [], 60)[0], f"asleep after {seen} events"
        for event in events.take():
            assert event.mac == MAC + seen
            seen += 1
    worker.join()
    assert events.missed == 0
    events.close()


# ---------------------------------------------------------------- what decide tells
class Place:
    """A network and a batch whose worker tells."""

    def __init__(self, spans: bool = True, flags: int = 0) -> None:
        self.fdb, self.population, self.batch = Fdb(64, 1), Population(), Batch()
        self.events, self.network = Events(), alloc(NETWORK, 1)
        self.network["fdb"], self.network["max_frame"] = self.fdb.address, 1514
        self.network["number"], self.network["flags"] = 9, flags
        self.network["population"] = self.population.address if spans else 0
        self.batch.record["events"] = self.events.address

    def sent(self, source: int, port: int, answered: bool = False) -> list[Event]:
        frame = np.frombuffer((b"\xff" * 6 + source.to_bytes(6, "big")).ljust(60, b"\0"), np.uint8)
        row = self.batch.rows[0]
        row["addr"], row["len"], row["out"] = address_of(frame), 60, UNDECIDED
        self.batch.record["n"] = 1
        look_at(self.batch.address)
        run = learn_run if answered else decide_batch
        run(self.batch.address, address_of(self.network), port)
        return list(self.events.take())


@pytest.mark.parametrize("answered", [False, True])
def test_new_and_moved_addresses_are_told_once(answered: bool) -> None:
    place = Place(flags=LEARNING)
    assert place.sent(MAC, 1, answered) == [Event(Told.LEARNED, 9, 1, MAC)]
    assert place.sent(MAC, 1, answered) == []
    assert place.sent(MAC, 2, answered) == [Event(Told.MOVED, 9, 2, MAC)]
    assert place.sent(MAC + 1, FIRST_TUNNEL, answered) == [], "a tunnel's are not ours to tell"
    assert place.sent(MAC + 1, 2, answered) == [Event(Told.MOVED, 9, 2, MAC + 1)]
    place.events.close()


def test_a_network_of_this_host_alone_tells_nothing() -> None:
    place = Place(spans=False)
    assert place.sent(MAC, 1) == []
    place.events.close()
