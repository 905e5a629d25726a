# SPDX-License-Identifier: Apache-2.0
"""Rows that a table refuses, for what they are or because it has no room, have changed nothing."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from byway import nf
from byway.functions.states import StateMemory, make
from byway.machine.layout import address_of, alloc


@dataclass
class Table:
    """A table in memory. ``rows``: what it holds; ``wrong``: what it refuses with a sentence;
    ``many``: what there is no room for, which speaks of an entry that is there first."""

    declared: Any
    rows: dict[Any, Any]
    wrong: dict[Any, Any]
    many: dict[Any, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=lambda: alloc(np.dtype("<i8"), 1, 64))

    def filled(self) -> StateMemory:
        made = make(self.declared.spec(), address_of(self.lock), lambda name: 0, lambda: 1 << 40)
        assert made.fill(self.rows)
        return made


TABLES = {
    "counter": Table(nf.Counter(), {"value": 7}, {"value": 9, "x": 1}),
    "array": Table(nf.Array("u8", size=4), {0: [1, 2, 3, 4]}, {0: 9, 1: "x"}),
    "map": Table(nf.Map("u16", "u32", 4), {1: 10, 2: 20, 3: 30}, {1: 11, 5: "x"},
                 {1: 11, 5: 50, 6: 60, 7: 70, 8: 80}),
    "ages": Table(nf.Map("ipv4", {"n": "u8"}, 2, age=5.0), {"10.0.0.1": {"n": 1}},
                  {"10.0.0.1": {"n": 2}, "10.0.0.2": {"m": 1}},
                  {"10.0.0.1": {"n": 2}, "10.0.0.2": {}, "10.0.0.3": {}}),
    "lpm": Table(nf.Lpm("u32", capacity=2), {"10.0.0.0/8": 1}, {"10.0.0.0/8": 2, "11.0.0.1/8": 3},
                 {"10.0.0.0/8": 2, "10.1.0.0/16": 3, "10.2.0.0/16": 4}),
    "rules": Table(nf.Rules(capacity=2), {1: {"value": 1}}, {1: {"value": 2}, 2: {"color": 3}},
                   {1: {"value": 2}, 2: {"value": 3}, 3: {"value": 4}}),
    "maglev": Table(nf.Maglev(7, capacity=2), {1: {}}, {1: {"up": False}, 2: {"weight": -1}},
                    {1: {"up": False}, 2: {}, 3: {}}),
}
WITH_ROOM = [name for name, table in TABLES.items() if table.many]


@pytest.mark.parametrize("name", TABLES)
def test_wrong_rows_change_nothing(name: str) -> None:
    table = TABLES[name]
    memory = table.filled()
    before = memory.dump()
    assert before
    for change in (memory.fill, memory.put_all):
        with pytest.raises(ValueError, match=r"\w"):
            change(table.wrong)
        assert memory.dump() == before


@pytest.mark.parametrize("name", WITH_ROOM)
def test_too_many_rows_change_nothing(name: str) -> None:
    table = TABLES[name]
    memory = table.filled()
    before = memory.dump()
    assert not memory.fill(table.many)
    assert memory.dump() == before
    assert memory.put_all(table.many), "the keys that there is no room for"
    assert memory.dump() == before
    assert memory.fill(dict(list(table.many.items())[:2])), "so many it has room for"
    assert len(memory.dump()) == 2


@pytest.mark.parametrize("name", TABLES)
def test_the_plain_table_does_the_same(name: str) -> None:
    table = TABLES[name]
    plain = table.declared.fresh(None)
    assert plain.fill(table.rows)
    before = plain.entries()
    with pytest.raises(ValueError, match=r"\w"):
        plain.fill(table.wrong)
    assert plain.entries() == before
    assert not table.many or not plain.fill(table.many)
    assert plain.entries() == before


@pytest.mark.parametrize("declared", [
    nf.Bucket(), nf.Buckets("u8", 4, 10), nf.Event(count="u32")], ids=lambda one: one.kind)
def test_a_table_that_takes_no_rows_stays_as_it_is(declared: Any) -> None:
    lock = alloc(np.dtype("<i8"), 1, 64)
    memory = make(declared.spec(), address_of(lock), lambda name: 0, lambda: 1 << 40)
    before = memory.stats()
    for change in (memory.fill, memory.put_all):
        with pytest.raises(ValueError, match="be put"):
            change({1: {"missing": 5, "since": 6}})
    assert memory.stats() == before
    assert memory.fill({})
    memory.close()


def test_nothing_is_no_value() -> None:
    for declared in (nf.Map("u8", "u8", 4), nf.Map("u8", {"n": "u8"}, 4)):
        memory = Table(declared, {}, {}).filled()
        with pytest.raises(ValueError, match="null is no"):
            memory.put_all({1: None})
        assert memory.dump() == []


def test_many_rows_are_put_in_portions() -> None:
    """More than a lot of them, some there already, one twice; and one too many changes nothing."""
    table = Table(nf.Map("ipv4", {"n": "u16", "via": "ipv6"}, 300), {}, {})
    memory = table.filled()
    rows = {f"10.0.{k >> 8}.{k & 255}": {"n": k, "via": "2001:db8::1"} for k in range(200)}
    assert memory.put_all(dict(list(rows.items())[100:])) == []
    assert memory.put_all({**rows, 10 << 24: {"n": 7}}) == []
    rows["10.0.0.0"] = {"n": 7, "via": "::"}
    kept = {row["key"]: row["value"] for row in memory.dump()}
    assert kept == rows
    more = {f"11.0.0.{k}": {} for k in range(101)}
    assert len(memory.put_all({**more, "10.0.0.1": {"n": 9}})) == 1
    assert {row["key"]: row["value"] for row in memory.dump()} == kept
    assert memory.stats()["entries"] == 200
