# SPDX-License-Identifier: Apache-2.0
"""Ports that fall asleep and wake up: no wake-up is lost, on either side."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from byway.machine.jit import INTERPRETED
from byway.packet.batch import ROWS
from byway.testing.frames import TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.virtio.features import Feature, mask
from byway.worker.worker import IDLE_SECONDS
from tests.exchanging import both, chain, exchanging, introduce
from tests.running import RunningSwitch

REPETITIONS = 100 if INTERPRETED else 2000
SEED = 1
EVENT_IDX = mask(Feature.EVENT_IDX)
SECONDS = 30.0  # longer than any frame takes


def spin(seconds: float) -> None:
    """Busy, because what is tested lies below the resolution of a sleep."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def numbered(to: Guest, source: Guest, number: int) -> bytes:
    return ethernet(to.mac, source.mac, TEST_ETHERTYPE, number.to_bytes(4, "big"))


def one_by_one(one: Guest, two: Guest, repetitions: int) -> None:
    """One frame after pauses around the time at which a worker puts the port to sleep, or itself;
    each must come."""
    chance = random.Random(SEED)
    for number in range(repetitions):
        frame = numbered(two, one, number)
        spin(chance.uniform(0.0, 3 * IDLE_SECONDS))
        assert one.send([frame]) == 1
        assert two.wait(SECONDS), f"frame {number} (of seed {SEED}) never came"
        assert two.receive() == [frame]


@pytest.mark.parametrize("features", [0, EVENT_IDX], ids=["flags", "event-idx"])
def test_a_frame_after_any_pause_arrives(tmp_path: Path, features: int) -> None:
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1, features=features) as one, \
                switch.guest("vm2", 2, features=features) as two:
            introduce(one, two)
            if not INTERPRETED:  # the indices are about to wrap
                for _ in range((65536 - REPETITIONS // 2) // ROWS):
                    assert one.send([numbered(two, one, 0)] * ROWS) == ROWS
                    assert len(two.receive_until(ROWS)) == ROWS
            before = switch.worker()["wakes"]
            one_by_one(one, two, REPETITIONS)
            assert switch.drops() == {}
            if not INTERPRETED:  # it did fall asleep (where Python is slow, each time)
                assert REPETITIONS / 20 < switch.worker()["wakes"] - before <= REPETITIONS


def test_new_plans_between_idle_and_busy(tmp_path: Path) -> None:
    """Ports come and go meanwhile; none of those that stay is forgotten."""
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2, features=EVENT_IDX) as two:
            introduce(one, two)
            with again_and_again(lambda: (switch.add("null", "x"), switch.remove("x"))):
                one_by_one(one, two, REPETITIONS // 4)


@pytest.mark.compiled_only
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
@pytest.mark.parametrize("features", [0, EVENT_IDX], ids=["flags", "event-idx"])
def test_two_workers_wake_one_guest(tmp_path: Path, features: int) -> None:
    """Frames of two senders, each of another worker, at nearly the same time."""
    chance = random.Random(SEED)
    with RunningSwitch(tmp_path, workers=sorted(os.sched_getaffinity(0))[:2]) as switch:
        switch.network()
        switch.vhost("vm1", "vm2", "vm3")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two, \
                switch.guest("vm3", 3, features=features) as three:
            introduce(one, two, three)
            for number in range(REPETITIONS):
                spin(chance.uniform(0.0, 2 * IDLE_SECONDS))
                for sender in (one, two):
                    assert sender.send([numbered(three, sender, number)]) == 1
                    spin(chance.uniform(0.0, 20e-6))
                got = three.receive_until(2, SECONDS)
                assert sorted(got) == [numbered(three, s, number) for s in (one, two)], number
            assert switch.drops() == {}


@contextmanager
def again_and_again(act: Callable[[], object]) -> Iterator[None]:
    """Do something over and over in a thread until the block ends."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_call_fd_that_changes_all_the_time(tmp_path: Path) -> None:
    """Frames come while the receiver's front end replaces the fd it is called by."""
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            introduce(one, two)
            with again_and_again(lambda: two.front.set_call(0, two.rx_queue.call)):
                one_by_one(one, two, REPETITIONS // 4)


def test_a_chain_that_sleeps(tmp_path: Path) -> None:
    """A virtio-user port is woken by calls, and wakes its device by kicks."""
    with chain(tmp_path) as (one, two):
        for _ in range(4):
            one_by_one(one, two, REPETITIONS // 16)
            one, two = two, one


@pytest.mark.compiled_only
def test_after_an_exchange_the_worker_sleeps(tmp_path: Path) -> None:
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            introduce(one, two)
            for _ in range(3):
                with exchanging(both(one, two)):
                    spin(0.02)
                switch.until(lambda: switch.worker()["asleep"])
                assert switch.worker()["hot_ports"] == 0
                passes = switch.worker()["passes"]
                spin(0.02)
                assert switch.worker()["passes"] == passes
                frame = ethernet(two.mac, one.mac, TEST_ETHERTYPE, b"wake up")
                assert one.send([frame]) == 1
                assert two.receive_until(1) == [frame]
