# SPDX-License-Identifier: Apache-2.0
"""Instances: parameters, what they count, and what outlives their code."""

import dataclasses
import os
import threading

import pytest

from byway.functions import map_memory
from byway.functions.harness import Harness, blueprint_of
from byway.functions.memory import Chain, Instance, clock_of
from byway.machine.clock import measure_hz, tsc
from byway.nf.problem import ParameterError
from byway.testing import builders
from tests.unit.functions.samples import Counts, Divides, Older, Patient, Says, Tells, Within

FRAME = builders.udp(dport=53)


def test_parameters_are_changed_at_work() -> None:
    harness = Harness(Says, what="drop")
    assert harness.run([FRAME])[0].reason == "told to"
    harness.instances[0].set({"only": 54})
    assert harness.run([FRAME])[0].reason == ""
    assert harness.instances[0].parameters == {"what": "drop", "to": "", "only": 54}


def test_a_change_with_a_mistake_changes_nothing() -> None:
    instance = Instance(blueprint_of(Says), {"only": 5})
    for given in ({"only": 6, "nothing": 1}, {"only": 6, "what": "fly"}):
        with pytest.raises(ParameterError):
            instance.set(given)
        assert instance.parameters["only"] == 5


def test_ports_have_the_numbers_that_they_have_now() -> None:
    numbers = {"x": 3}
    instance = Instance(blueprint_of(Says), {"to": "x"}, lambda name: numbers.get(name, -1))
    place = instance.blueprint.place("to") // 8
    assert instance.record[place] == 3
    numbers["x"] = 7
    instance.renumber()
    assert instance.record[place] == 7
    numbers.clear()
    instance.renumber()
    assert instance.record[place] == -1


def test_state_outlives_the_code_and_counts_are_added() -> None:
    harness = Harness(Counts)
    harness.run([FRAME] * 3)
    old = harness.instances[0]
    new = Instance(dataclasses.replace(old.blueprint, digest="another"), {"least": 2})
    new.carry(old)
    assert new.lock is old.lock
    assert new.states["by_source"] is old.states["by_source"]
    assert new.counters["frames"] == 0
    new.add_counts(old)
    assert new.counters == old.counters
    assert new.counters["frames"] == 3


def test_parameters_change_all_at_once() -> None:
    """... for whoever holds the lock: also a function that keeps nothing, if one has two words."""
    instance = Instance(blueprint_of(Within))
    chain = Chain([instance, Instance(blueprint_of(Older))], "rx", 1e9)
    assert int(chain.record[0]["nlocks"]) == 1
    before = instance.record.tolist()
    instance.lock[0] = 1
    change = threading.Thread(target=instance.set, args=({"prefix": "11.1.0.0/16"},))
    change.start()
    change.join(0.02)
    assert change.is_alive(), "it waits"
    assert instance.record.tolist() == before
    instance.lock[0] = 0
    change.join()
    assert instance.record.tolist() != before


def test_entries_do_not_age_out_while_their_map_is_carried_over() -> None:
    """Workers look at it meanwhile: whatever they see is an age that somebody has set."""
    memory = Instance(blueprint_of(Patient)).states["known"]
    seen, place = [], int(memory.record["age"][0])

    def parameter(name: str) -> int:
        seen.append(int(memory.record["age"][0]))
        return place

    memory.bind(memory.around.lock, parameter)
    assert seen == [place]
    assert int(memory.record["age"][0]) == place


def test_one_entry_is_removed_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """... however long it takes: nobody can replace the table in the middle."""
    memory = Instance(blueprint_of(Counts)).states["by_source"]
    assert memory.put("10.0.0.1", 1)
    monkeypatch.setattr(map_memory, "STEP_SECONDS", 0.0)
    assert list(memory.removing("10.0.0.1")) == []
    assert memory.dump() == []


def test_what_is_carried_over_takes_no_more_files() -> None:
    def instance(digest: str) -> Instance:
        return Instance(dataclasses.replace(blueprint_of(Tells), digest=digest))

    old = instance("first")
    before = len(os.listdir("/proc/self/fd"))
    for k in range(3):
        new = instance(f"digest {k}")
        new.carry(old)
        old = new
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_table_too_large_for_the_machine_is_refused() -> None:
    """... with a sentence, and what was made already is closed."""
    blueprint = blueprint_of(Tells)
    huge = {**blueprint.states["flows"], "capacity": 1 << 45}
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ParameterError, match=r"flows: the machine has no \d+ MiB .* declare"):
        Instance(dataclasses.replace(blueprint, states={**blueprint.states, "flows": huge}))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_state_that_is_described_otherwise_begins_anew() -> None:
    old = Instance(blueprint_of(Counts))
    states = dict(old.blueprint.states)
    states["by_source"] = {**states["by_source"], "capacity": 32}
    new = Instance(dataclasses.replace(old.blueprint, states=states))
    new.carry(old)
    assert new.states["by_source"] is not old.states["by_source"]
    assert new.states["out"] is old.states["out"]


def test_locks_are_of_those_with_state_each_once_and_in_order() -> None:
    with_state = [Instance(blueprint_of(Counts)) for _ in range(3)]
    without = Instance(blueprint_of(Older))
    chain = Chain([with_state[2], without, with_state[0], with_state[2], with_state[1]], "rx", 1e9)
    record = chain.record[0]
    assert int(record["nlocks"]) == 3
    locks = [int(word) for word in chain._locks]
    assert locks == sorted(one.lock.ctypes.data for one in with_state)


def test_what_went_wrong_is_told_with_its_line() -> None:
    harness = Harness(Divides)
    outcome, = harness.run([builders.udp(dport=0)])
    assert outcome.fault is not None
    assert outcome.fault.kind == "division by zero"
    counters = harness.instances[0].counters
    assert counters["faults"] == 1
    file, line, what = counters["last_fault"].split(":")
    assert (file.endswith("samples.py"), what) == (True, " division by zero")
    assert int(line) == outcome.fault.line > 0


def test_the_clock_is_that_of_the_time_stamp_counter() -> None:
    hz = measure_hz()
    before = int(tsc())
    now = clock_of(hz)()
    assert before / hz * 1e9 * 0.999 < now < int(tsc()) / hz * 1e9 * 1.001
