# SPDX-License-Identifier: Apache-2.0
"""The loop, pass by pass: which ports are polled, which sleep, and what wakes them."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from byway.control.actions import AddPort, RemovePort
from byway.machine.clock import tsc
from byway.packet.batch import ROWS
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.virtio.features import Feature, mask
from byway.virtio.ring import INDEX
from byway.worker.loop import EVENTS, gather, heat
from tests.running import RunningSwitch

LATER = 1 << 40  # ticks: some minutes


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        made.network()
        yield made


def hello(guest: Guest) -> bytes:
    return ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"")


def hot(switch: RunningSwitch) -> int:
    return int(switch.worker()["hot_ports"])


def fall_asleep(switch: RunningSwitch) -> None:
    """Two passes with much time between them."""
    for k in (1, 2):
        switch.step(now=int(tsc()) + k * LATER)
    assert hot(switch) == 0


def test_idle_ports_cool_down_and_warm_up(switch: RunningSwitch) -> None:
    switch.vhost("vm1", "vm2")
    with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
        switch.step()
        assert hot(switch) == 2, "every port is looked at when a plan is new"
        fall_asleep(switch)
        one.send([hello(one)])
        assert switch.step() == 1
        assert hot(switch) == 1, "only the one that was kicked"
        assert two.receive() == [hello(one)]


def test_a_hot_port_needs_no_kick(switch: RunningSwitch) -> None:
    """None is asked for, and the pass sees the frame by itself before it puts the port to sleep."""
    switch.vhost("vm1", "vm2")
    with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
        switch.step()
        kicks = int(one.tx_queue.record["kicks"][0])
        one.send([hello(one)])
        assert int(one.tx_queue.record["kicks"][0]) == kicks
        assert switch.step(now=int(tsc()) + LATER) == 1
        assert two.receive() == [hello(one)]


def test_a_pass_takes_a_batch_from_each(switch: RunningSwitch) -> None:
    switch.vhost("vm1", "vm2", "vm3")
    with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
        one.send([hello(one)] * (ROWS + 10))
        two.send([hello(two)] * (ROWS + 20))
        assert [switch.step() for _ in range(3)] == [2 * ROWS, 30, 0]


def test_more_wake_ups_than_one_look_takes(switch: RunningSwitch) -> None:
    """All of them are heard in the end."""
    ports = [f"vm{k}" for k in range(EVENTS + 6)]
    switch.add("null", "sink")
    switch.vhost(*ports)
    with ExitStack() as stack:
        guests = [stack.enter_context(switch.guest(name, k % 200, size=2))
                  for k, name in enumerate(ports)]
        fall_asleep(switch)
        for guest in guests:
            guest.send([hello(guest)])
        switch.settle()
        assert switch.port("sink")["tx_frames"] == len(guests)


def test_a_large_flood_takes_several_passes(switch: RunningSwitch) -> None:
    """Members leave and join meanwhile: each that stays has every frame once."""
    switch.vhost("vm1")
    switch.apply([AddPort(switch.config("null", f"n{k}")) for k in range(150)])
    with switch.guest("vm1", 1) as one:
        switch.step()
        one.send([hello(one)] * ROWS)
        assert switch.step() == ROWS
        assert switch.worker()["flood_backlog"] == ROWS
        late = [f"n{k}" for k in range(150) if switch.port(f"n{k}")["tx_frames"] == 0]
        assert 0 < len(late) < 150
        gone = late[::3]
        switch.apply([RemovePort(name) for name in gone])
        switch.add("null", "new")  # with the number of one that has gone
        one.send([hello(one)])
        switch.settle()
        assert switch.worker()["flood_backlog"] == 0
        frames = {p["name"]: p["tx_frames"] for p in switch.call(switch.engine.ports)}
        assert frames.pop("vm1") == 0
        assert frames.pop("new") == 1, "what was sent after it had joined"
        assert set(frames.values()) == {ROWS + 1}
        assert len(frames) == 150 - len(gone)


def test_a_kick_without_a_frame(switch: RunningSwitch) -> None:
    switch.vhost("vm1")
    with switch.guest("vm1", 1) as one:
        fall_asleep(switch)
        os.eventfd_write(one.tx_queue.kick, 1)
        assert switch.step() == 0
        assert hot(switch) == 1
        fall_asleep(switch)


PAIRS = 4
FORMS: dict[str, dict[str, Any]] = {
    "split": {}, "packed": {"packed": True},
    "split in order": {"features": mask(Feature.IN_ORDER)},
    "packed in order": {"features": mask(Feature.IN_ORDER), "packed": True},
    "split in-flight": {"inflight": True}, "packed in-flight": {"inflight": True, "packed": True}}


@pytest.fixture(params=FORMS)
def pairs(request: pytest.FixtureRequest, switch: RunningSwitch) -> Iterator[Guest]:
    """A guest with four pairs of queues beside one with a single pair, vm2."""
    switch.add("vhost-user", "vm1", queues=PAIRS)
    switch.vhost("vm2")
    with switch.guest("vm1", 1, pairs=PAIRS, **FORMS[request.param]) as made:
        yield made


def shares(switch: RunningSwitch) -> int:
    """Rx queues that had a part in the last batch."""
    return int(switch.engine._workers[0].record[0]["nshares"])


def test_queues_of_a_port_share_a_batch(switch: RunningSwitch, pairs: Guest) -> None:
    """Each frame arrives once, and each queue gets its own buffers back."""
    with switch.guest("vm2", 2) as two:
        fall_asleep(switch)
        sent = []
        for pair in range(PAIRS):
            frames = [ethernet(BROADCAST, pairs.mac, TEST_ETHERTYPE, bytes([pair, k]))
                      for k in range(3 + pair)]
            assert pairs.send(frames, pair=pair) == len(frames)
            sent += frames
        assert switch.step() == len(sent)
        assert shares(switch) == PAIRS
        assert sorted(two.receive()) == sorted(sent)
        for queue in pairs.queues.tx:  # all that it sent has come back to each
            frames = [hello(pairs)] * queue.size
            assert pairs.send(frames, pair=pairs.queues.tx.index(queue)) == queue.size


def test_a_full_batch_leaves_its_siblings_their_turn(switch: RunningSwitch, pairs: Guest) -> None:
    with switch.guest("vm2", 2):
        switch.step()
        for full in range(PAIRS):
            for pair in range(PAIRS):
                pairs.send([hello(pairs)] * (ROWS if pair == full else 5), pair=pair)
            assert switch.step() == ROWS + 15, "all of it in one pass, in several batches"
            assert switch.step() == 0


def test_siblings_sleep_and_wake_one_by_one(switch: RunningSwitch, pairs: Guest) -> None:
    with switch.guest("vm2", 2) as two:
        switch.step()
        assert hot(switch) == PAIRS + 1
        fall_asleep(switch)
        pairs.send([hello(pairs)], pair=2)
        assert switch.step() == 1
        assert hot(switch) == 1, "the others go on sleeping"
        pairs.send([hello(pairs)], pair=0)
        pairs.send([hello(pairs)] * 2, pair=2)
        assert switch.step() == 3
        assert (hot(switch), shares(switch)) == (2, 2)
        assert len(two.receive()) == 4
        fall_asleep(switch)


def test_a_disabled_sibling_is_not_heard(switch: RunningSwitch, pairs: Guest) -> None:
    """What it sends is dropped, and nobody else's; its buffers come back like others."""
    with switch.guest("vm2", 2) as two:
        pairs.front.enable_ring(3, False)
        switch.step()
        for queue in pairs.queues.tx:
            pairs.send([hello(pairs)] * 3, pair=pairs.queues.tx.index(queue))
        switch.settle()
        assert two.receive() == [hello(pairs)] * 9
        assert switch.port("vm1")["drops"] == {"ring_disabled": 3}
        frames = [hello(pairs)] * pairs.queues.tx[1].size
        assert pairs.send(frames, pair=1) == len(frames)


def test_fewer_siblings(switch: RunningSwitch, pairs: Guest) -> None:
    """Rings that are stopped leave the circle; the others go on sharing."""
    with switch.guest("vm2", 2) as two:
        left = [0, 1, 2, 3]
        for gone in (3, 1):
            left.remove(gone)
            pairs.front.stop_ring(2 * gone + 1)
            switch.step()
            fall_asleep(switch)
            for pair in left:
                pairs.send([hello(pairs)], pair=pair)
            assert switch.step() == len(left)
            assert shares(switch) == len(left)
            assert two.receive() == [hello(pairs)] * len(left)


@pytest.mark.parametrize("pairs", ["split"], indirect=True)  # whose index can be wrong
def test_a_broken_sibling_is_the_ports_end(switch: RunningSwitch, pairs: Guest) -> None:
    """What the queues before it gave is delivered; other ports go on."""
    with switch.guest("vm2", 2) as two:
        switch.step()
        queue = pairs.queues.tx[1]
        pairs.send([hello(pairs)] * 2, pair=0)
        ctypes.c_uint16.from_address(queue.avail + INDEX).value += queue.size + 1
        switch.settle()
        assert switch.port("vm1")["state"] != "up"
        assert two.receive() == [hello(pairs)] * 2
        two.send([hello(two)])
        assert switch.step() == 1


@pytest.mark.interpreted_only
def test_when_frames_are_let_gather(switch: RunningSwitch) -> None:
    """Not where that would only add delay, and never where it is switched off."""
    worker = switch.engine._workers[0]
    row = worker.record[0]
    row["nhot"], row["gave"], row["gather_ticks"] = 2, 2, 8_000_000
    waits = [(moved, streak) for moved in (1, 3, 4, 40, 64) for streak in (0, 1)]
    waited = []
    for moved, streak in waits:
        row["streak"] = streak
        began = int(tsc())
        if gather(worker.address, moved, began, began) >= began + 4_000_000:
            waited.append((moved, streak))
    assert waited == [(4, 1), (40, 1)], "again few, two from each queue at least, not a full batch"
    row["gather_ticks"] = 0
    assert gather(worker.address, 10, began, began) == began
    row["nhot"] = 0


@pytest.mark.interpreted_only
def test_events_of_ports_that_are_not_there(switch: RunningSwitch) -> None:
    """Late events of a plan before this one."""
    switch.vhost("vm1", "vm2")
    with switch.guest("vm1", 1):
        switch.step()
        fall_asleep(switch)
        worker = switch.engine._workers[0]
        for number in (-1, 1, 2, 1 << 31):
            heat(worker.address, worker.plan.address, number, 0)
        assert hot(switch) == 0
        heat(worker.address, worker.plan.address, 0, 0)
        heat(worker.address, worker.plan.address, 0, 0)
        assert hot(switch) == 1
