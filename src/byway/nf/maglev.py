# SPDX-License-Identifier: Apache-2.0
"""Maglev: which of several members serves a flow, changed as little as can be when members change.

    members = nf.Maglev(capacity=64)
    ...
    number = self.members.pick(nf.hash(frame.ipv4_src, frame.l4_src))

Part of the author's page. Used by authors, and by byway.functions, which has the same table in
memory. Uses states.py and calls.py.

After Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016),
section 3.4: a table of a prime number of places. Each member has its own order of all places, and
they take turns in taking the next one that is still free. So each gets its share to within a place
or two, and when one goes its places are shared out among the others, and few others change. Every
switch makes the same table of the same members.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from byway.nf.calls import hash as hash_of
from byway.nf.states import Table

MOST_MEMBERS, MOST_WEIGHT, LARGEST = 1024, 100, 655_373
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Member:
    """``weight``: its share is as large. ``up``: it can serve."""

    weight: int = 1
    up: bool = True

    @classmethod
    def given(cls, row: Any) -> Self:
        """As its user writes it. Raises ValueError."""
        if not isinstance(row, Mapping) or set(row) - {"weight", "up"}:
            raise ValueError(f"{row!r}: a member is written {{weight = 1, up = true}}")
        weight, up = row.get("weight", 1), row.get("up", True)
        if isinstance(weight, bool) or not isinstance(weight, int) \
                or not 1 <= weight <= MOST_WEIGHT:
            raise ValueError(f"weight: {weight!r} is no number from 1 to {MOST_WEIGHT}")
        if not isinstance(up, bool):
            raise ValueError(f"up: {up!r} is neither true nor false")
        return cls(weight, up)

    def shown(self) -> dict[str, Any]:
        """As its user would write it."""
        return {"weight": self.weight, "up": self.up}


class Maglev(Table):
    """Members by number, with weight and health, set from outside; ``pick`` gives one for a hash.

    ``size``: places of the table, a prime of at least a hundred times the members; ``capacity``:
    the most members there can be.
    """

    kind = "maglev"

    def __init__(self, size: int = 65537, *, capacity: int = 256) -> None:
        if not isinstance(size, int) or not 2 < size <= LARGEST or not is_prime(size):
            raise ValueError(f"size={size!r}: write a prime number up to {LARGEST}, as 65537")
        if not isinstance(capacity, int) or not 1 <= capacity <= min(MOST_MEMBERS, size // 2):
            raise ValueError(f"capacity={capacity!r}: write a number from 1 to "
                             f"{min(MOST_MEMBERS, size // 2)}")
        self.size, self.capacity = size, capacity
        self._members: dict[int, Member] = {}
        self._places: list[int] = []

    def fresh(self, owner: object) -> Self:
        return type(self)(self.size, capacity=self.capacity)

    def pick(self, hash: int, default: int = NOBODY) -> int:
        """The number of the member for a hash, of which the low 32 bits count; ``default`` where
        no member is up."""
        if not self._places:
            self._places = places(self.size, self._members)
        number = self._places[(hash & 0xFFFFFFFF) * self.size >> 32]
        return default if number == NOBODY else number

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size, "capacity": self.capacity}

    def entries(self) -> list[tuple[Any, Any]]:
        return [(number, member.shown()) for number, member in sorted(self._members.items())]

    def put(self, key: Any, value: Any) -> bool:
        number, member = read_number(key), Member.given(value)
        if number not in self._members and len(self._members) >= self.capacity:
            return False
        self._members[number] = member
        self._places = []
        return True

    def remove(self, key: Any) -> bool:
        self._places = []
        return self._members.pop(read_number(key), None) is not None

    def clear(self) -> None:
        self._members.clear()
        self._places = []


def read_number(given: Any) -> int:
    """A member's number as its user writes it. Raises ValueError."""
    if isinstance(given, str) and given.isdecimal():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 1 << 31:
        raise ValueError(f"{given!r} is no number of a member; write one from 0 on")
    return given


def is_prime(n: int) -> bool:
    """Is it a prime number?"""
    return n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))


def places(size: int, members: Mapping[int, Member]) -> list[int]:
    """Which member has each place; NOBODY where none is up."""
    up = sorted((number, member.weight) for number, member in members.items() if member.up)
    taken = [NOBODY] * size
    if not up:
        return taken
    heaviest = max(weight for _, weight in up)
    steps = [hash_of(number, 1) % (size - 1) + 1 for number, _ in up]
    at = [hash_of(number, 0) % size for number, _ in up]
    turns = [0] * len(up)
    free = size
    while free:
        for k, (number, weight) in enumerate(up):
            turns[k] += weight
            if turns[k] < heaviest or not free:
                continue
            turns[k] -= heaviest
            place, step = at[k], steps[k]
            while taken[place] != NOBODY:
                place = (place + step) % size
            taken[place] = number
            at[k] = (place + step) % size
            free -= 1
    return taken
