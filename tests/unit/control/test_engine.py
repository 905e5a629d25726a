# SPDX-License-Identifier: Apache-2.0
"""The engine: what it refuses, what a change costs and undoes, what it tells, how it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.control.actions import Action, AddNetwork, AddPort, RemoveNetwork, RemovePort
from byway.control.engine import Engine
from byway.control.model import NetworkConfig, SwitchConfig
from byway.control.plans import STUCK_STATUS
from byway.control.problem import EngineError
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from tests.running import RunningSwitch

NO_CPU = 4096


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        made.network()
        yield made


def names(switch: RunningSwitch) -> list[str]:
    return [p["name"] for p in switch.call(switch.engine.ports)]


def plan(switch: RunningSwitch) -> int:
    """How many plans there have been."""
    return int(switch.engine._workers[0].control[0]["generation"])


def hello(guest: Guest, length: int = 60) -> bytes:
    return ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, bytes(length - 14))


def crosses(switch: RunningSwitch, one: Guest, other: Guest) -> bool:
    """Does a broadcast come through?"""
    one.send([hello(one)])
    switch.settle()
    return other.receive() == [hello(one)]


@pytest.mark.parametrize(("change", "message"), [
    (AddNetwork(NetworkConfig(name="blue")), 'network "blue" exists already'),
    (RemoveNetwork("red"), 'there is no network "red"'),
    (RemoveNetwork("blue"), 'network "blue" has 1 ports'),
    (RemovePort("vm9"), 'there is no port "vm9"')])
def test_refused(switch: RunningSwitch, change: Action, message: str) -> None:
    switch.vhost("vm1")
    with pytest.raises(EngineError, match=message) as error:
        switch.apply([change])
    assert error.value.fix
    assert names(switch) == ["vm1"]


def test_refused_ports(switch: RunningSwitch) -> None:
    switch.vhost("vm1")
    with pytest.raises(EngineError, match='port "vm1" exists already'):
        switch.add("null", "vm1")
    with pytest.raises(EngineError, match='there is no network "red"'):
        switch.add("null", "vm2", "red")
    with pytest.raises(EngineError, match='there is no network "red"'):
        switch.call(switch.engine.fdb, "red")


class TestApply:
    """Many changes at once: few plans, all or nothing."""

    def test_fifty_ports_cost_two_plans(self, switch: RunningSwitch) -> None:
        ports = [switch.config("null", f"n{k}") for k in range(50)]
        before = plan(switch)
        switch.apply([AddPort(port) for port in ports])
        assert plan(switch) - before == 1
        switch.apply([*(RemovePort(port.name) for port in ports),
                      *(AddPort(port) for port in ports)])
        assert plan(switch) - before == 3
        assert len(names(switch)) == 50

    def test_a_failure_undoes_what_was_done(self, switch: RunningSwitch) -> None:
        switch.vhost("vm1", "vm2", "vm3")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            actions = [
                RemovePort("vm3"), AddNetwork(NetworkConfig(name="red")),
                AddPort(switch.config("null", "n1", "red")),
                AddPort(switch.config("pcap", "bad", read=str(switch.folder / "none"))),
                RemovePort("vm2"), AddPort(switch.config("null", "n2"))]
            with pytest.raises(EngineError, match='port "bad": read'):
                switch.apply(actions)
            assert sorted(names(switch)) == ["vm1", "vm2", "vm3"]
            assert [n["name"] for n in switch.call(switch.engine.networks)] == ["blue"]
            # vm2 was to go: it was out of the plan already, and has come back.
            assert switch.port("vm2")["state"] == "up"
            assert crosses(switch, one, two)
            assert crosses(switch, two, one)

    def test_a_port_that_moves_to_another_network(self, switch: RunningSwitch) -> None:
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one:
            one.send([hello(one)])
            switch.settle()
            assert len(switch.call(switch.engine.fdb, "blue")) == 1
            switch.apply([RemovePort("vm1"), AddNetwork(NetworkConfig(name="red", mtu=9000)),
                          AddPort(switch.config("vhost-user", "vm1", "red"))])
        assert switch.call(switch.engine.fdb, None) == []
        assert (switch.port("vm1")["network"], switch.port("vm1")["mtu"]) == ("red", 9000)
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            assert not crosses(switch, one, two)
            assert switch.port("vm1")["drops"] == {"no_destination": 1}

    def test_networks_come_and_go(self, switch: RunningSwitch) -> None:
        for _ in range(3):
            switch.apply([AddNetwork(NetworkConfig(name=f"n{k}")) for k in range(5)])
            switch.apply([RemoveNetwork(f"n{k}") for k in range(4, -1, -1)])
        assert [n["name"] for n in switch.call(switch.engine.networks)] == ["blue"]


def test_a_number_is_given_again(switch: RunningSwitch) -> None:
    """A new port takes the number of one that has gone, and nothing else of it."""
    switch.vhost("vm1", "vm2", "vm3")
    with switch.guest("vm2", 2) as two:
        two.send([hello(two)])
        switch.settle()
    switch.remove("vm2")
    switch.vhost("vm4")
    assert switch.port("vm4")["index"] == 1
    assert switch.port("vm4")["rx_frames"] == 0
    assert switch.call(switch.engine.fdb, None) == []
    with switch.guest("vm4", 4) as four, switch.guest("vm3", 3) as three:
        assert crosses(switch, four, three)


def test_what_it_tells(switch: RunningSwitch) -> None:
    switch.network("green", vni=7, mtu=9000, ageing=20, fdb_limit=5)
    switch.vhost("vm1", "vm2")
    switch.add("null", "sink", "green")
    with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
        assert crosses(switch, one, two)
        blue, green = switch.call(switch.engine.networks)
        assert (blue["ports"], blue["fdb_entries"], blue["fdb_limit"]) == (["vm1", "vm2"], 1, 8192)
        assert (green["vni"], green["mtu"], green["ageing"], green["ports"]) == (
            7, 9000, 20, ["sink"])
        (entry,) = switch.call(switch.engine.fdb, "blue")
        age = entry.pop("age")
        assert entry == {
                "network": "blue", "mac": "02:00:00:00:00:01", "port": "vm1", "host": None}
        assert 0 <= age < 10
        assert switch.call(switch.engine.fdb, "green") == []
        worker = switch.worker()
        assert sorted(worker["ports"]) == ["sink", "vm1", "vm2"]
        assert worker["frames"] == 1
        assert worker["plan"] == plan(switch)
        assert worker["cycles_per_second"] > 1e8


class TestLife:
    """It starts, or says why not; it ends, also twice."""

    def test_a_cpu_that_does_not_exist(self, tmp_path: Path) -> None:
        with RunningSwitch(tmp_path, stepped=True, workers=[NO_CPU]) as switch, \
                pytest.raises(EngineError, match=f"CPU {NO_CPU} is not usable"):
            switch.call(switch.engine.start)

    def test_a_second_worker_that_cannot_start(self, tmp_path: Path) -> None:
        cpu = min(os.sched_getaffinity(0))
        with RunningSwitch(tmp_path, stepped=True, workers=[cpu, NO_CPU]) as switch, \
                pytest.raises(EngineError, match="workers: "):
            switch.call(switch.engine.start)

    def test_everything_is_given_back(self, tmp_path: Path) -> None:
        counts = []
        for k in range(4):
            with RunningSwitch(tmp_path) as switch:
                switch.network()
                switch.vhost("vm1", "vm2")
                switch.add("pcap", "tap", write=str(tmp_path / f"{k}.pcap"))
                one, two = switch.guest("vm1", 1), switch.guest("vm2", 2)
                two.close()
            one.close()  # the switch went first
            assert sorted(p.suffix for p in tmp_path.iterdir()) == [".pcap"] * (k + 1)
            counts.append(len(os.listdir("/proc/self/fd")))
        assert max(counts[1:]) <= counts[0]

    def test_closed_twice(self, tmp_path: Path) -> None:
        with RunningSwitch(tmp_path) as switch:
            switch.call(switch.engine.close)
            switch.call(switch.engine.close)

    def test_ports_go_to_the_worker_with_the_fewest(self, tmp_path: Path) -> None:
        with RunningSwitch(tmp_path, stepped=True, workers=[0, 1]) as switch:
            switch.network()
            for k in range(5):
                switch.add("null", f"n{k}")
            switch.remove("n0")
            switch.remove("n2")
            switch.add("null", "n9")
            owners = [sorted(w["ports"]) for w in switch.call(switch.engine.workers)]
            assert owners == [["n4", "n9"], ["n1", "n3"]]

    def test_frames_cross_workers(self, tmp_path: Path) -> None:
        with RunningSwitch(tmp_path, stepped=True, workers=[0, 1]) as switch:
            switch.network()
            switch.vhost("vm1", "vm2", "vm3")
            with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
                assert crosses(switch, one, two)
                assert crosses(switch, two, one)
            assert [w["frames"] for w in switch.call(switch.engine.workers)] == [1, 1]


STUCK = """
import asyncio, threading
from byway.control.engine import Engine
from byway.control.model import KINDS, NetworkConfig, SwitchConfig
from byway.worker import worker

worker.ANSWER_SECONDS = 0.1
worker.Worker._run = lambda self: threading.Event().wait()

async def main():
    engine = Engine(SwitchConfig(), asyncio.get_running_loop())
    engine.start()
    engine.add_network(NetworkConfig(name="blue"))
    engine.add_port(KINDS["null"](kind="null", name="sink", network="blue"))

asyncio.run(main())
"""


def test_a_worker_that_is_stuck_for_good() -> None:
    """Nothing that it may touch can be freed any more: the process ends, and says why."""
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60)
    assert done.returncode == STUCK_STATUS
    assert "did not end its pass; the switch cannot go on" in done.stderr


def test_old_entries_are_removed_in_time(tmp_path: Path) -> None:
    """The engine's own timer, with the shortest ageing time."""
    with RunningSwitch(tmp_path) as switch:
        switch.network(ageing=1)
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            one.send([hello(one)])
            assert two.receive_until(1) == [hello(one)]
            (network,) = switch.call(switch.engine.networks)
            assert network["fdb"]["learned"] == 1
            switch.until(lambda: switch.call(switch.engine.fdb, None) == [])


def test_files_of_a_change_are_closed_together(switch: RunningSwitch) -> None:
    """Before it is over, also where it fails; and what comes finds them closed."""
    files = [os.dup(0) for _ in range(5)]
    before = len(os.listdir("/proc/self/fd"))
    closing = switch.engine._closing
    switch.call(closing.add, files[:3])
    switch.apply([AddPort(switch.config("null", "n1"))])
    assert len(os.listdir("/proc/self/fd")) <= before - 3
    switch.call(closing.add, files[3:4])
    with pytest.raises(EngineError):
        switch.apply([RemovePort("vm9")])
    switch.call(switch.engine.close_files, files[4:])
    assert len(os.listdir("/proc/self/fd")) <= before - 5


def test_an_engine_that_was_never_started(tmp_path: Path) -> None:
    with RunningSwitch(tmp_path, stepped=True) as switch:
        made = switch.call(lambda: Engine(SwitchConfig(), switch.loop))
        switch.call(made.add_network, NetworkConfig(name="blue"))
        assert switch.call(made.step) == 0
        switch.call(made.close)


def test_a_port_that_is_restored_waits_until_it_can_be_opened(
    switch: RunningSwitch, tmp_path: Path
) -> None:
    tape = switch.config("pcap", "tape", write=str(tmp_path / "later" / "tape.pcap"))
    switch.vhost("vm1")
    switch.apply([AddPort(tape, patient=True), AddPort(switch.config("null", "n"))])
    assert switch.port("tape")["state"] == "down"
    assert 'port "tape"' in switch.port("tape")["reason"]
    assert switch.port("n")["state"] == "up"  # the others are not held up
    switch.call(switch.engine._on_ageing)
    assert switch.port("tape")["state"] == "down"
    (tmp_path / "later").mkdir()
    switch.call(switch.engine._on_ageing)
    assert switch.port("tape")["state"] == "up"
    assert [*switch.engine._unopened.again(None)] == []


def test_a_port_that_could_not_be_opened_can_be_removed(
    switch: RunningSwitch, tmp_path: Path
) -> None:
    tape = switch.config("pcap", "tape", write=str(tmp_path / "later" / "tape.pcap"))
    switch.apply([AddPort(tape, patient=True)])
    switch.remove("tape")
    switch.call(switch.engine._on_ageing)
    assert names(switch) == []
