# SPDX-License-Identifier: Apache-2.0
"""What all kinds of state memory have in common: an address for kernels, a table for users.

Used by states.py, map_memory.py and those who have more kinds. Uses map_control.py.

Threads: one control thread calls these methods. What workers see is changed by kernels that hold
the instance's lock; none of them takes long.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.functions.map_control import copy_words
from byway.machine.layout import address_of, alloc

WORD = np.dtype("<i8")
PORTION = 8192  # words that are copied while a lock is held: some microseconds


class TooLargeError(ValueError):
    """The machine has no memory for a state."""


def zeros(n: int) -> Any:
    """So many words of zeros, aligned for kernels. Raises TooLargeError."""
    try:
        return alloc(WORD, n, 64)
    except MemoryError:
        raise TooLargeError(f"the machine has no {max(1, n >> 17)} MiB of memory for it; "
                            "declare a smaller one") from None


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
        """It belongs to another instance now. No worker may be using it."""
        self.around = Surroundings(lock, parameter, self.around.clock)

    def dump(self, limit: int = 1000) -> list[dict[str, Any]]:
        """At most so many of its entries: key and value as JSON."""
        return []

    def put(self, key: Any, value: Any) -> bool:
        """Set a value; -> False where there is no room."""
        return not self.put_all({key: value})

    def remove(self, key: Any) -> bool:
        """Remove an entry; -> was there one?"""
        raise ValueError("nothing can be removed from this state")

    def clear(self) -> None:
        """Remove all entries."""

    def put_all(self, rows: Mapping[Any, Any]) -> list[Any]:
        """Set all of these or, where there is no room for some, none; -> the keys of those."""
        if rows:
            raise ValueError("nothing can be put into this state")
        return []

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        """Replace all entries by these; -> False where there is no room for all: the entries stay
        as they were."""
        if rows:
            raise ValueError("nothing can be put into this state")
        self.clear()
        return True

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
