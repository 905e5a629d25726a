# SPDX-License-Identifier: Apache-2.0
"""Guests at full speed through running workers: nothing is lost, whatever control does."""

import os
import threading
from pathlib import Path

import pytest

from byway.control.actions import AddPort, RemovePort
from byway.virtio.features import Feature, mask
from tests.exchanging import both, chain, exchanging, introduce
from tests.running import RunningSwitch

pytestmark = pytest.mark.compiled_only

EVENT_IDX = mask(Feature.EVENT_IDX)
MERGE = mask(Feature.MRG_RXBUF, Feature.EVENT_IDX, Feature.INDIRECT_DESC)
two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")


def run_for(seconds: float) -> None:
    threading.Event().wait(seconds)


@pytest.mark.parametrize("features", [0, EVENT_IDX, MERGE], ids=["flags", "event-idx", "merge"])
def test_two_guests(tmp_path: Path, features: int) -> None:
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1, features=features) as one, \
                switch.guest("vm2", 2, features=features) as two:
            introduce(one, two)
            with exchanging(both(one, two)):
                run_for(0.5)
            frames = one.statistics()["sent"]
            status = switch.port("vm1")
            assert (status["rx_frames"], status["tx_frames"]) == (frames, frames)
            # A call or a kick for every frame would mean that notifications are never refused.
            kicks = [int(q.record["kicks"][0]) for q in (one.rx_queue, one.tx_queue)]
            assert 0 < status["calls"] < frames / 2
            assert 0 < max(kicks) < frames / 2
            assert switch.drops() == {}


@two_cpus
def test_two_workers(tmp_path: Path) -> None:
    """Two pairs at once, first each within a worker, then all of them across the two."""
    with RunningSwitch(tmp_path, workers=sorted(os.sched_getaffinity(0))[:2]) as switch:
        switch.network()
        switch.vhost("vm1", "vm2", "vm3", "vm4")
        guests = [switch.guest(f"vm{k}", k, features=EVENT_IDX if k in (1, 4) else 0)
                  for k in range(1, 5)]
        owners = [set(w["ports"]) for w in switch.call(switch.engine.workers)]
        assert owners == [{"vm1", "vm3"}, {"vm2", "vm4"}]
        introduce(*guests)
        one, two, three, four = guests
        with exchanging(both(one, three) + both(two, four)):
            run_for(0.5)
        with exchanging(both(one, two) + both(three, four)):
            run_for(0.5)
        # Everybody asks the first: both workers deliver to its port at once, under its lock.
        with exchanging([(one, None), (two, one), (three, one), (four, one)]):
            run_for(0.5)
        assert switch.drops() == {}
        for guest in guests:
            guest.close()


def test_a_chain(tmp_path: Path) -> None:
    """Through a virtio-user port and the vhost-user port at its other end."""
    with chain(tmp_path) as (one, two), exchanging(both(one, two)):
        run_for(0.5)


@pytest.mark.parametrize("network", ["blue", "green"])
def test_fifty_ports_come_and_go(tmp_path: Path, network: str) -> None:
    """In the same network as those who exchange, and in another; one by one, and all at once."""
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.network("green")
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2, features=EVENT_IDX) as two:
            introduce(one, two)
            extra = [switch.config("vhost-user", f"x{k}", network) for k in range(50)]
            with exchanging(both(one, two)) as exchanges:
                for config in extra:
                    switch.call(switch.engine.add_port, config)
                guest = switch.guest("x7", 7)
                for config in extra:
                    switch.remove(config.name)
                guest.close()
                switch.apply([AddPort(config) for config in extra])
                switch.apply([RemovePort(config.name) for config in extra])
                assert exchanges[0].statistics()["received"] > 0
            assert switch.drops() == {}


def test_plans_in_a_tight_loop(tmp_path: Path) -> None:
    """New plans for two seconds, one after the other."""
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2", "vm3")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2, features=EVENT_IDX) as two:
            introduce(one, two)
            rounds = 0
            done = threading.Event()
            timer = threading.Timer(2.0, done.set)
            before = switch.worker()["plan"]
            with exchanging(both(one, two)):
                timer.start()
                while not done.is_set() or rounds <= 10:
                    switch.call(lambda: [switch.engine.settle() for _ in range(10)])
                    rounds += 1
            assert switch.worker()["plan"] - before >= 10 * rounds
            assert switch.drops() == {}
