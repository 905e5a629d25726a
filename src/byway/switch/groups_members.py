# SPDX-License-Identifier: Apache-2.0
"""Who is a member of which security groups: an address, its groups, and their combination.

Used by groups_control.py. Uses the kernels of groups_rules.py, which workers ask.

An address may belong to several ports and be told several times (a host that comes back, a port
that moves): each telling counts, and it is a member as long as one is left. Addresses count for the
whole switch, as routers carry them from network to network.

A change is one store. The memory grows into a new one, and what workers may still be reading is
handed to ``keep``; so are, some at a time, the numbers of combinations that nobody has any more:
they are used again when they were let go.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.switch.groups_compile import halves
from byway.switch.groups_rules import (
    CELL_BYTES,
    GONE,
    MEMBERS,
    MEMBERS_HEADER,
    members_copy,
    members_put,
)

FEW = 64
HANDED = 64  # numbers that are handed over at once
Keep = Callable[[Any], None]


class _Numbers:
    """Numbers that workers may still be reading; they are free when this is let go."""

    def __init__(self, numbers: list[int], free: list[int]) -> None:
        self._numbers, self._free = numbers, free

    def __del__(self) -> None:
        self._free += self._numbers


class Combinations:
    """Sets of groups that some address is a member of, by number from 1 on."""

    def __init__(self, born: Callable[[int, frozenset[str]], None], keep: Keep) -> None:
        """``born``: told of a new combination before any address has it."""
        self._born, self._keep = born, keep
        self._numbers: dict[frozenset[str], int] = {}
        self._users: dict[int, int] = {}
        self._free: list[int] = []
        self._gone: list[int] = []

    def __iter__(self) -> Any:
        return iter([(number, names) for names, number in self._numbers.items()])

    def __len__(self) -> int:
        return len(self._numbers)

    def enter(self, names: frozenset[str]) -> int:
        """One more address has this combination; -> its number."""
        number = self._numbers.get(names, 0)
        if not number:
            number = self._free.pop() if self._free else len(self._users) + 1
            self._numbers[names] = number
            self._users[number] = 0
            self._born(number, names)
        self._users[number] += 1
        return number

    def leave(self, names: frozenset[str]) -> None:
        """One address has it no more."""
        number = self._numbers[names]
        self._users[number] -= 1
        if not self._users[number]:
            del self._numbers[names]
            self._gone.append(number)
            if len(self._gone) == HANDED:
                gone, self._gone = self._gone, []
                self._keep(_Numbers(gone, self._free))


class Members:
    """The members of all groups. ``address``: of the MEMBERS record, which never moves."""

    def __init__(self, born: Callable[[int, frozenset[str]], None], keep: Keep) -> None:
        """``keep``: given what must stay until every worker has ended a pass."""
        self.combinations = Combinations(born, keep)
        self._keep = keep
        self._groups: dict[int, dict[str, int]] = {}
        self.record = alloc(MEMBERS, 1)
        self.address = address_of(self.record)
        self._make(FEW)
        self._publish()
        self._left = False

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def memory(self) -> int:
        """Bytes that workers read."""
        return int(self._cells.nbytes)

    def _make(self, cells: int) -> None:
        self._cells = alloc(np.dtype("u1"), MEMBERS_HEADER + cells * CELL_BYTES, 64)
        self._cells.view("<i8")[0] = cells - 1
        self._room, self._used = cells // 2, 0

    def _publish(self) -> None:
        self.record["cells"] = address_of(self._cells)

    def join(self, group: str, address: int) -> None:
        """An address (128-bit number, IPv4 as ::ffff:a.b.c.d) is a member of a group, once more."""
        groups = self._groups.setdefault(address, {})
        before = frozenset(groups)
        groups[group] = groups.get(group, 0) + 1
        if groups[group] == 1:
            self._place(address, before, frozenset(groups))

    def leave(self, group: str, address: int) -> bool:
        """One telling less; -> False where it was no member."""
        groups = self._groups.get(address, {})
        if group not in groups:
            return False
        before = frozenset(groups)
        groups[group] -= 1
        if not groups[group]:
            del groups[group]
            if not groups:
                del self._groups[address]
            self._left = True
            self._place(address, before, frozenset(groups))
        return True

    def departures(self) -> bool:
        """Connections that members were allowed are to be asked about again, if a member has left
        since the last call; -> whether one has."""
        left, self._left = self._left, False
        if left:
            self.record["epoch"] += 1
        return left

    def _place(self, address: int, before: frozenset[str], after: frozenset[str]) -> None:
        number = self.combinations.enter(after) if after else GONE
        old = self._cells
        if self._used >= self._room:
            self._make(max(FEW, 1 << (4 * len(self._groups)).bit_length()))
            self._used = int(members_copy(address_of(old), address_of(self._cells)))
        self._used += int(members_put(address_of(self._cells), *halves(address), number))
        self._publish()
        if old is not self._cells:
            self._keep(old)
        if before:
            self.combinations.leave(before)
