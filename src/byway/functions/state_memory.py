# SPDX-License-Identifier: Apache-2.0
"""What all kinds of state memory have in common: an address for kernels, a table for users.

Used by states.py, map_memory.py and those who have more kinds. Uses map_control.py.

Threads: one control thread calls these methods. What workers see is changed by kernels that hold
the instance's lock; none of them takes long.

Many rows take long to read and to show. So what is done with them comes in *steps*: a generator
that stops every few milliseconds, so that who runs it can do other work between. Where it yields a
function, that is pure work that takes long: the caller calls it, perhaps in another thread, and
sends what it returns. One at a time changes a table in steps; whole changes (``clear``, ``fill``)
may come between two of its steps, which then begins anew.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np

from byway.functions.map_control import copy_words
from byway.machine.layout import address_of, alloc
from byway.machine.memory_left import memory_left

WORD = np.dtype("<i8")
PORTION = 8192  # words that are copied while a lock is held: some microseconds
STEP = 256  # rows that are read or shown in a step: some milliseconds
LARGE = 64 << 20  # bytes; of less memory it is not asked whether it is there
_SMALLER = "declare a smaller one"
T = TypeVar("T")
Steps: TypeAlias = Generator[Callable[[], Any] | None, Any, T]


def run(steps: Steps[T]) -> T:
    """All steps at once; -> what comes of them."""
    sent = None
    while True:
        try:
            work = steps.send(sent)
        except StopIteration as end:
            done: T = end.value
            return done
        sent = work() if work else None


def in_steps(rows: Iterable[T]) -> Iterator[list[T]]:
    """Rows in lists, each enough for a step."""
    left = iter(rows)
    while some := list(islice(left, STEP)):
        yield some


class TooLargeError(ValueError):
    """The machine has no memory for a state, or for what is to be put into it."""


def enough_for(size: int, fix: str) -> None:
    """Is there memory for so many bytes? Raises TooLargeError; ``fix``: what to do then."""
    if size >= LARGE and size > memory_left():
        raise TooLargeError(f"the machine has no {size >> 20} MiB of memory for it; {fix}")


def zeros(n: int) -> Any:
    """So many words of zeros, aligned for kernels. Raises TooLargeError."""
    enough_for(8 * n, _SMALLER)
    try:
        return alloc(WORD, n, 64)
    except MemoryError:
        raise TooLargeError(f"the machine has no {max(1, n >> 17)} MiB of memory for it; "
                            f"{_SMALLER}") from None


@dataclass
class Surroundings:
    """What a state's memory knows of the instance that it belongs to. ``lock``: address of its
    lock; ``parameter``: name -> address of its word; ``clock``: the time as functions see it."""

    lock: int
    parameter: Callable[[str], int]
    clock: Callable[[], int]


class StateMemory:
    """The memory of one state. ``address``: what kernels know it by, which never changes.

    Keys and values are given and shown as users write them; ValueError says what is wrong. What is
    refused has changed nothing.
    """

    address: int

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        self.spec = dict(spec)
        self.around = around

    def bind(self, lock: int, parameter: Callable[[str], int]) -> None:
        """It belongs to another instance now, which workers do not know yet; they may be using it
        as the old one's."""
        self.around = Surroundings(lock, parameter, self.around.clock)

    def portions(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        """At most so many of its entries, some (or none) at a time: key and value as JSON. What
        changes meanwhile may be seen as before or as after."""
        return iter(())

    def dump(self, limit: int = 1000) -> list[dict[str, Any]]:
        """All portions at once."""
        return [row for some in self.portions(limit) for row in some]

    def changing(self, rows: Mapping[Any, Any], whole: bool) -> Steps[list[Any]]:
        """Set all of these or, where there is no room for some, none; -> the keys of those.
        ``whole``: have no others."""
        if rows:
            raise ValueError("nothing can be put into this state")
        if whole:
            self.clear()
        yield None
        return []

    def removing(self, key: Any) -> Steps[bool]:
        """Remove an entry; -> was there one?"""
        yield None
        raise ValueError("nothing can be removed from this state")

    def clear(self) -> None:
        """Remove all entries."""

    def put(self, key: Any, value: Any) -> bool:
        """Set a value; -> False where there is no room."""
        return not self.put_all({tuple(key) if isinstance(key, list) else key: value})

    def put_all(self, rows: Mapping[Any, Any]) -> list[Any]:
        """Set all of these, or none; -> the keys of those that there is no room for."""
        return run(self.changing(rows, whole=False))

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        """Replace all entries by these; -> False where there is no room for all: the entries stay
        as they were."""
        return not run(self.changing(rows, whole=True))

    def remove(self, key: Any) -> bool:
        """Remove an entry; -> was there one?"""
        return run(self.removing(key))

    def strict(self) -> None:
        """Capacity is exact from now on, at a cost that only tests can pay."""

    def expire(self) -> int:
        """Remove what has aged out; -> how many. To be called at least once a day."""
        return 0

    def stats(self) -> dict[str, int]:
        """Numbers for users."""
        return {}

    def close(self) -> None:
        """Nobody uses it any more."""

    # ------------------------------------------------------------ for kinds of memory
    def store(self, destination: int, words: Any) -> None:
        """Store words (an array of int64) while no worker looks."""
        copy_words(self.around.lock, destination, address_of(words), len(words))

    def copy(self, source: int, n: int) -> Any:
        """A copy of n words, each of its portions as it was at one moment."""
        made = alloc(WORD, n)
        for first in range(0, n, PORTION):
            copy_words(self.around.lock, address_of(made) + 8 * first, source + 8 * first,
                       min(PORTION, n - first))
        return made
