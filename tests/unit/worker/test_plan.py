# SPDX-License-Identifier: Apache-2.0
"""Plans: what a worker reads of them, and that what they point to lives as long as they do."""

import ctypes
import gc
import weakref

from byway.machine.layout import alloc
from byway.ports.record import PORT
from byway.worker.plan import ABSENT, NetworkRow, Plan, Tables, empty_plan


def words(address: int, n: int) -> list[int]:
    """n int64 words at an address."""
    return list((ctypes.c_int64 * n).from_address(address))


def test_an_empty_plan() -> None:
    row = empty_plan().record[0]
    assert (row["nports"], row["nrx"]) == (0, 0)
    assert min(int(row[name]) for name in ("ports", "rx", "networks", "groups", "state")) > 0


def test_what_a_plan_says() -> None:
    tables = Tables({0: 1000, 3: 4000}, {1: NetworkRow(77, (3, 0, 5), 1514)}, {3: 9000})
    row = Plan(tables, [3]).record[0]
    assert row["nports"] == 6, "port 5 is a member although it is down"
    assert words(int(row["ports"]), 6) == [1000, 0, 0, 4000, 0, 0]
    assert words(int(row["rx"]), int(row["nrx"])) == [3]
    assert words(int(row["rxqs"]), int(row["nrxqs"])) == [0, 0, 0, 9000]
    assert words(int(row["state"]), 4) == [ABSENT] * 4
    assert words(int(row["groups"]), 6) == [0] * 6
    fdb, members, n, longest = words(int(row["networks"]) + 64, 4)
    assert (fdb, n, longest) == (77, 3, 1514)
    assert words(members, n) == [0, 3, 5]


def test_plans_of_one_change_share_tables_but_no_scratch() -> None:
    tables = Tables({0: 1, 1: 2}, {}, {0: 3, 1: 4})
    one, other = Plan(tables, [0]).record[0], Plan(tables, [1]).record[0]
    assert one["ports"] == other["ports"]
    assert one["groups"] != other["groups"]
    assert one["state"] != other["state"]


def test_what_a_plan_names_lives_as_long() -> None:
    class Thing:
        record = alloc(PORT, 1)

    thing = Thing()
    gone = weakref.ref(thing)
    plan = Plan(Tables({}, {}, {}, keep=[thing]), ())
    del thing
    gc.collect()
    assert gone() is not None
    del plan
    gc.collect()
    assert gone() is None
