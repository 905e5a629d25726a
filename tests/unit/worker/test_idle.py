# SPDX-License-Identifier: Apache-2.0
"""Ports that fall asleep and wake up: no wake-up is lost, on either side."""

import random
import threading
import time
from pathlib import Path

import pytest

from byway.machine.jit import INTERPRETED
from byway.testing.frames import TEST_ETHERTYPE, ethernet
from byway.virtio.features import Feature, mask
from byway.worker.worker import IDLE_SECONDS
from tests.exchanging import both, chain, exchanging, introduce
from tests.running import RunningSwitch

REPETITIONS = 100 if INTERPRETED else 2000
SEED = 1


def spin(seconds: float) -> None:
    """Busy, because what is tested lies below the resolution of a sleep."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize("features", [0, mask(Feature.EVENT_IDX)], ids=["flags", "event-idx"])
def test_a_frame_after_any_pause_arrives(tmp_path: Path, features: int) -> None:
    """Pauses around the time at which the worker puts the port to sleep, or itself."""
    chance = random.Random(SEED)
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1, features=features) as one, \
                switch.guest("vm2", 2, features=features) as two:
            introduce(one, two)
            before = switch.worker()["wakes"]
            for number in range(REPETITIONS):
                frame = ethernet(two.mac, one.mac, TEST_ETHERTYPE, number.to_bytes(4, "big"))
                spin(chance.uniform(0.0, 3 * IDLE_SECONDS))
                assert one.send([frame]) == 1
                assert two.wait(2.0), f"frame {number} (of seed {SEED}) never came"
                assert two.receive() == [frame]
            assert switch.drops() == {}
            if not INTERPRETED:  # both kinds of pauses happened
                assert REPETITIONS / 20 < switch.worker()["wakes"] - before < REPETITIONS


def test_a_call_fd_that_changes_all_the_time(tmp_path: Path) -> None:
    """Frames come while the receiver's front end replaces the fd it is called by."""
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            introduce(one, two)
            done = threading.Event()

            def change() -> None:
                while not done.is_set():
                    two.front.set_call(0, two.rx_queue.call)

            thread = threading.Thread(target=change)
            thread.start()
            try:
                for number in range(REPETITIONS // 4):
                    frame = ethernet(two.mac, one.mac, TEST_ETHERTYPE, number.to_bytes(4, "big"))
                    assert one.send([frame]) == 1
                    assert two.wait(2.0), f"frame {number} never came"
                    assert two.receive() == [frame]
            finally:
                done.set()
                thread.join()


def test_a_chain_that_sleeps(tmp_path: Path) -> None:
    """A virtio-user port is woken by calls, and wakes its device by kicks."""
    chance = random.Random(SEED)
    with chain(tmp_path) as (one, two):
        for number in range(REPETITIONS // 4):
            frame = ethernet(two.mac, one.mac, TEST_ETHERTYPE, number.to_bytes(4, "big"))
            spin(chance.uniform(0.0, 3 * IDLE_SECONDS))
            assert one.send([frame]) == 1
            assert two.wait(2.0), f"frame {number} (of seed {SEED}) never came"
            assert two.receive() == [frame]
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
