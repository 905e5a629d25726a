# SPDX-License-Identifier: Apache-2.0
"""What the table of Maglev promises: even shares, few changes, the same everywhere."""

from collections import Counter

import pytest

from byway.nf import Maglev
from byway.nf.maglev import LARGEST, NOBODY, Member, is_prime, places

SIZE = 4099


def _shares(members: dict[int, Member]) -> Counter[int]:
    return Counter(places(SIZE, members))


def test_everybody_has_as_much() -> None:
    shares = _shares({number: Member() for number in range(10)})
    assert max(shares.values()) - min(shares.values()) <= 1
    assert sum(shares.values()) == SIZE


def test_shares_are_as_weights() -> None:
    shares = _shares({1: Member(1), 2: Member(3), 3: Member(4)})
    assert [round(8 * shares[number] / SIZE, 2) for number in (1, 2, 3)] == [1, 3, 4]


def test_one_that_goes_takes_few_others_along() -> None:
    members = {number: Member() for number in range(10)}
    before = places(SIZE, members)
    after = places(SIZE, {**members, 4: Member(up=False)})
    moved = [a != b for a, b in zip(before, after, strict=True) if a != 4]
    assert 4 not in after
    assert sum(moved) < len(moved) // 20


def test_the_table_depends_on_members_only() -> None:
    one = places(SIZE, {7: Member(), 9: Member(2)})
    assert one == places(SIZE, {9: Member(2), 5: Member(up=False), 7: Member()})


def test_nobody_is_up() -> None:
    table = Maglev(SIZE, capacity=4)
    assert table.pick(1) == NOBODY
    assert table.put(3, {"up": False})
    assert table.pick(1, -7) == -7


def test_members_as_users_give_them() -> None:
    table = Maglev(SIZE, capacity=2)
    assert table.put("3", {"weight": 2})
    assert table.put(5, {})
    assert not table.put(6, {})
    assert table.entries() == [(3, {"weight": 2, "up": True}), (5, {"weight": 1, "up": True})]
    assert table.remove(3)
    assert not table.remove(3)
    assert {table.pick(hash) for hash in range(-5, 1 << 33, 1 << 27)} == {5}
    table.clear()
    assert table.fresh(None).entries() == table.entries() == []


@pytest.mark.parametrize(("key", "value", "message"), [
    (-1, {}, "-1 is no number of a member"), ("x", {}, "'x' is no number"),
    (1, {"weight": 0}, "weight: 0 is no number from 1 to 100"), (1, {"up": 1}, "neither true"),
    (1, {"health": 1}, "a member is written"), (1, 5, "a member is written"),
])
def test_what_is_said_of_a_member_that_cannot_be(key: object, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Maglev(SIZE, capacity=4).put(key, value)


def test_what_cannot_be_declared() -> None:
    assert is_prime(LARGEST)
    for size in (4, 1, 655_379):
        with pytest.raises(ValueError, match="prime number"):
            Maglev(size)
    with pytest.raises(ValueError, match="capacity=0"):
        Maglev(SIZE, capacity=0)
