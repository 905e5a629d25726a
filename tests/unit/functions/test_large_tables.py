# SPDX-License-Identifier: Apache-2.0
"""Tables that the machine has no memory for, as declared or with so many rows, are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byway import nf
from byway.functions import memory, state_memory
from byway.functions.harness import Harness
from byway.functions.instance import BUDGET, FAULTS
from byway.functions.state_memory import TooLargeError
from byway.functions.states import StateMemory, make
from byway.functions.translate import translate
from byway.functions.trial import problem_of
from byway.machine.layout import address_of, alloc
from byway.nf.function import definition
from byway.nf.problem import ParameterError
from tests.authoring import function_of

LOCK = alloc(np.dtype("<i8"), 1, 64)
SMALL, MANY = {1: {}}, 1000
TABLES: dict[str, tuple[Any, dict[Any, Any], Callable[[int], tuple[Any, Any]]]] = {
    "lpm": (nf.Lpm(capacity=MANY), {"10.0.0.0/8": 1}, lambda k: (f"10.{k >> 8}.{k & 255}.1/32", 2)),
    "rules": (nf.Rules(capacity=MANY), {1: {"value": 1}}, lambda k: (k, {"value": 2})),
    "maglev": (nf.Maglev(7919, capacity=MANY), {1: {}}, lambda k: (k, {"weight": 2})),
}


def filled(name: str) -> StateMemory:
    made = make(TABLES[name][0].spec(), address_of(LOCK), lambda name: 0)
    assert made.fill(TABLES[name][1])
    return made


@pytest.mark.parametrize("name", TABLES)
def test_rows_that_there_is_no_memory_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = filled(name)
    before = table.dump()
    rows = dict(map(TABLES[name][2], range(2, 500)))
    monkeypatch.setattr(state_memory, "LARGE", 1 << 16)
    monkeypatch.setattr(state_memory, "memory_left", lambda: 1 << 16)
    for change in (table.fill, table.put_all):
        with pytest.raises(TooLargeError, match=r"no \d+ MiB of memory for it; put fewer rows"):
            change(rows)
        assert table.dump() == before
    key, value = TABLES[name][2](2)
    assert table.put(key, value), "a few find room"


@pytest.mark.parametrize("name", TABLES)
def test_memory_that_runs_out_while_a_table_is_built(
        name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = filled(name)
    before = table.dump()

    def build(parts: object) -> object:
        raise MemoryError

    monkeypatch.setattr(table, "_build", build)
    with pytest.raises(MemoryError):
        table.put(*TABLES[name][2](2))
    monkeypatch.undo()
    assert table.dump() == before
    assert table.put(*TABLES[name][2](2))


@pytest.mark.parametrize("declared", ["Map(key='u64', value='u64', capacity=1 << 26)",
                                      "Array(size=1 << 24)", "Buckets(key='u64', capacity=1 << 22,"
                                      " idle=1.0)"])
def test_one_that_is_declared_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        declared: str) -> None:
    cls = function_of(tmp_path, "return nf.PASS", f"huge = nf.{declared}")
    monkeypatch.setattr(state_memory, "memory_left", lambda: 100 << 20)
    with pytest.raises(ParameterError, match=r"huge: .* no \d+ MiB of memory .*; declare"):
        Harness(cls)


@pytest.mark.parametrize("declared", ["Maglev()", "Rules(capacity=5)", "Lpm(capacity=5)"])
def test_memory_that_runs_out_when_a_table_is_made(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: str) -> None:
    cls = function_of(tmp_path, "return nf.PASS", f"huge = nf.{declared}")
    real = memory.make

    def less(spec: Any, *around: Any) -> StateMemory:
        if spec["kind"] in ("maglev", "rules", "lpm"):
            raise MemoryError
        return real(spec, *around)

    monkeypatch.setattr(memory, "make", less)
    with pytest.raises(ParameterError, match=r": the machine has no memory for it; declare"):
        Harness(cls)


def test_a_trial_that_has_no_room_for_tables_says_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that builds has less memory than the switch."""
    text = "while frame.length > 3:\n    self.hits.add(1)\nreturn nf.PASS"
    cls = function_of(tmp_path, text, "huge = nf.Map(key='u64', value='u64', capacity=1 << 26)")
    blueprint = translate(definition(cls), "trial.py:Trial", {})
    monkeypatch.setattr(state_memory, "memory_left", lambda: 100 << 20)
    assert problem_of(cls, blueprint) is None
    monkeypatch.undo()
    small = function_of(tmp_path, text)
    found = problem_of(small, translate(definition(small), "trial.py:Trial", {}))
    assert found is not None
    assert FAULTS[BUDGET].split()[0] in found.message
