# SPDX-License-Identifier: Apache-2.0
"""Ranges of translations against a dictionary of single addresses."""

from hypothesis import given
from hypothesis import strategies as st

from byway.vhost.intervals import Interval, Intervals

SPACE = 40
changes = st.lists(st.tuples(
    st.booleans(), st.integers(0, SPACE - 1), st.integers(1, SPACE), st.sampled_from([100, 500]),
    st.integers(1, 2)), max_size=30)


def hosts(intervals: Intervals) -> dict[int, tuple[int, int]]:
    """{iova: (host, permission)} of everything in it."""
    return {i.start + k: (i.host + k, i.permission)
            for i in intervals.all() for k in range(i.end - i.start)}


@given(changes, st.sampled_from([1, 2, 3, 1000]))
def test_as_a_dictionary(steps: list[tuple[bool, int, int, int, int]], limit: int) -> None:
    made, naive = Intervals(limit), dict[int, tuple[int, int]]()
    for add, start, size, base, permission in steps:
        covered = range(start, start + size)
        if add:  # often continues its neighbours
            made.add(Interval(start, start + size, base + start, permission))
            naive.update({k: (base + k, permission) for k in covered})
        else:
            made.remove(start, start + size)
            naive = {k: v for k, v in naive.items() if k not in covered}
        got = hosts(made)
        assert len(made) <= limit
        if limit == 1000:
            assert got == naive
        else:  # some were forgotten, none is wrong
            assert got.items() <= naive.items()
        if add:  # what came last is there
            assert all(got.get(k) == naive[k] for k in covered)
        for k in range(-1, 2 * SPACE + 1):
            found = made.find(k)
            assert (found and (found.host + k - found.start, found.permission)) == got.get(k)


def test_neighbours_become_one() -> None:
    made = Intervals(8)
    for start in (0, 20, 10):
        made.add(Interval(start, start + 10, 1000 + start, 3))
    assert made.all() == [Interval(0, 30, 1000, 3)]
    made.add(Interval(30, 40, 1030, 1))  # another permission
    made.add(Interval(40, 50, 2000, 1))  # another place
    assert len(made) == 3
    made.remove(10, 20)
    assert [(i.start, i.end, i.host) for i in made.all()] == [
        (0, 10, 1000), (20, 30, 1020), (30, 40, 1030), (40, 50, 2000)]
    made.clear()
    assert len(made) == 0
    assert made.find(5) is None


def test_the_oldest_goes_first() -> None:
    made = Intervals(3)
    for start in (30, 10, 50, 20):
        made.add(Interval(start, start + 1, start, 3))
    assert [i.start for i in made.all()] == [10, 20, 50]


def test_what_is_cut_in_two_counts_twice() -> None:
    made = Intervals(3)
    made.add(Interval(0, 1000, 5000, 3))
    for start in (500, 200, 800, 100):
        made.remove(start, start + 10)
    assert len(made) == 3
