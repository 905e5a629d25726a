# SPDX-License-Identifier: Apache-2.0
"""Plans: what edits make of the tables, and that a change costs what it changes."""

import ctypes

from hypothesis import given
from hypothesis import strategies as st

from byway.switch.network import GONE, NETWORK, PORT_BITS, N
from byway.testing.plans import settle
from byway.worker.plan import EDIT, LOOK, Plan


def words(address: int, n: int) -> list[int]:
    """n int64 words at an address."""
    return list((ctypes.c_int64 * n).from_address(address))


def field(plan: Plan, network: int, offset: int) -> int:
    """A field of a network's record."""
    return words(int(plan.record[0]["networks"]) + NETWORK.itemsize * network + offset, 1)[0]


def members(plan: Plan, network: int) -> list[tuple[int, int]]:
    """The list of members of a network: stamp, port."""
    address, n = field(plan, network, N.members), field(plan, network, N.nmembers)
    return [(entry >> PORT_BITS, (entry & 0xFFFF) - 1) for entry in words(address, n)]


def test_an_empty_plan() -> None:
    row = Plan().record[0]
    assert min(int(row[name]) for name in ("ports", "rxqs", "networks", "groups", "state")) > 0


def test_what_edits_make() -> None:
    plan = Plan()
    plan.set_network(1, 77, 1514)
    for port in (3, 0, 5):
        plan.join(1, port)
    plan.set_port(0, 1000)
    plan.set_port(3, 4000)
    plan.set_queue(3, 9000)
    assert words(int(plan.record[0]["ports"]), 4) == [0] * 4, "nothing before it is handed over"
    assert plan.changed
    settle(plan)
    assert not plan.changed
    row = plan.record[0]
    assert words(int(row["ports"]), 6) == [1000, 0, 0, 4000, 0, 0]
    assert words(int(row["rxqs"]), 5) == [0, 0, 0, 9000, 0]
    assert words(int(row["groups"]), 6) == [0] * 6
    assert [field(plan, 1, f) for f in (N.fdb, N.nmembers, N.max_frame)] == [77, 3, 1514]
    assert members(plan, 1) == [(1, 3), (2, 0), (3, 5)]
    plan.set_port(3, 0)
    plan.leave(1, 3)
    settle(plan)
    assert words(int(row["ports"]), 4) == [1000, 0, 0, 0]
    assert members(plan, 1) == [(1, GONE), (2, 0), (3, 5)]


def test_a_queue_is_looked_at_again() -> None:
    plan = Plan()
    plan.set_queue(7, 9000)
    edits, _ = plan.take()
    rxqs = int(plan.record[0]["rxqs"])
    assert edits.tolist() == [rxqs + 8 * 7, 9000, LOOK, 7]


def test_a_change_costs_what_it_changes() -> None:
    """The same edits for one port more, however many there are."""
    plan = Plan()
    plan.set_network(0, 77, 1514)
    costs = []
    for port in range(5000):
        plan.set_port(port, 1000 + port)
        plan.set_queue(port, 2000 + port)
        plan.join(0, port)
        costs.append(len(plan.take()[0]) * 8 // EDIT)
    assert set(costs[1:]) == {5, 7}, "two more where the list of members is made anew"
    assert costs.count(7) < 12


@given(steps=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), max_size=150))
def test_members_in_the_order_of_their_joining(steps: list[tuple[int, int]]) -> None:
    """Against a list; whoever is gone leaves a bounded number of marks."""
    plan, wanted, stamp = Plan(), list[tuple[int, int]](), 0
    plan.set_network(0, 1, 1514)
    for network, port in steps:
        if any(port == known for _, known in wanted):
            plan.leave(0, port)
            wanted = [(stamp, known) for stamp, known in wanted if known != port]
        else:
            stamp += 1
            plan.join(0, port)
            wanted.append((stamp, port))
        if network:
            settle(plan)
    settle(plan)
    found = members(plan, 0)
    assert [entry for entry in found if entry[1] != GONE] == wanted
    assert sorted(found) == found, "stamps grow"
    assert len(found) <= 8 + 4 * len(wanted)
    settle(plan)


def test_a_network_that_goes_leaves_nothing() -> None:
    plan = Plan()
    plan.set_network(2, 77, 1514)
    plan.join(2, 1)
    plan.leave(2, 1)
    plan.drop_network(2)
    settle(plan)
    assert members(plan, 2) == []
    plan.set_network(2, 78, 100)
    plan.join(2, 1)
    settle(plan)
    assert members(plan, 2) == [(2, 1)], "a stamp is never given again"


def test_two_plans_share_nothing() -> None:
    one, other = Plan(), Plan()
    tables = ("ports", "rxqs", "networks", "groups", "state")
    assert all(one.record[0][name] != other.record[0][name] for name in tables)
