# SPDX-License-Identifier: Apache-2.0
"""Numbers for ports, rx queues and networks: the lowest that is free, given again when it is back.

Used by the engine and the assignment. What is numbered stands in tables, so low numbers keep the
tables' memory small. Taking and giving back cost the same however many are in use (but for the
logarithm of a heap).
"""

import heapq


class Numbers:
    """The numbers from 0 to ``limit`` - 1."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._next = 0  # from here on none was ever taken
        self._back: list[int] = []  # a heap of those that came back

    @property
    def left(self) -> int:
        """How many can still be taken."""
        return self.limit - self._next + len(self._back)

    def take(self) -> int:
        """The lowest free number. OverflowError: there is none."""
        if self._back:
            return heapq.heappop(self._back)
        if self._next == self.limit:
            raise OverflowError(f"all {self.limit} numbers are in use")
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        """A number that was taken is free again."""
        heapq.heappush(self._back, number)
