# SPDX-License-Identifier: Apache-2.0
"""Translations of whole ranges of I/O virtual addresses, as a front end sent them.

Used by iotlb. Uses NumPy only.

The ranges are kept sorted and do not overlap: a new one replaces what it covers, and grows
together with neighbours that continue it (a guest that maps a page at a time would fill any list).
There are at most ``limit`` of them; where one more comes, the one that was not changed for longest
goes. They stand in arrays, so that every operation takes some microseconds, whatever their number.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_START, _END, _HOST, _PERMISSION, _AGE = range(5)
FIELDS = 4  # of an Interval


class Interval(NamedTuple):
    """IOVAs [start, end) lie at host addresses [host, host + end - start). Below 2^63."""

    start: int
    end: int
    host: int
    permission: int


class Intervals:
    """A map from ranges of IOVAs to host addresses."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._n = 0
        self._changes = 0
        self._rows = np.zeros((FIELDS + 1, limit + 3), np.int64)  # sorted by start; and their age

    def __len__(self) -> int:
        return self._n

    def find(self, iova: int) -> Interval | None:
        """The interval that holds ``iova``."""
        at = self._after(iova) - 1
        if at < 0 or iova >= self._rows[_END, at]:
            return None
        return self._at(at)

    def all(self) -> list[Interval]:
        """All intervals, sorted."""
        return [self._at(k) for k in range(self._n)]

    def columns(self) -> Any:
        """Starts, ends, host addresses and permissions: FIELDS arrays of int64, sorted."""
        return self._rows[:FIELDS, : self._n]

    def add(self, interval: Interval) -> None:
        """Put an interval in place of whatever it covers."""
        self.remove(interval.start, interval.end)
        start, end, host, permission = interval
        first = last = self._after(start)
        if first > 0:
            before = self._at(first - 1)
            if (before.end == start and before.permission == permission
                    and before.host + before.end - before.start == host):
                first, start, host = first - 1, before.start, before.host
        if last < self._n:
            after = self._at(last)
            if (after.start == end and after.permission == permission
                    and after.host == host + end - start):
                last, end = last + 1, after.end
        self._replace(first, last, [Interval(start, end, host, permission)])

    def remove(self, start: int, end: int) -> None:
        """Forget [start, end); what sticks out of it stays."""
        first = self._after(start) - 1
        if first < 0 or self._rows[_END, first] <= start:
            first += 1
        last = int(np.searchsorted(self._rows[_START, : self._n], end))
        if first >= last:
            return
        kept = []
        one, other = self._at(first), self._at(last - 1)
        if one.start < start:
            kept.append(one._replace(end=start))
        if other.end > end:
            kept.append(other._replace(start=end, host=other.host + end - other.start))
        self._replace(first, last, kept)

    def clear(self) -> None:
        """Forget everything."""
        self._n = 0

    def _after(self, iova: int) -> int:
        """How many intervals start at or before ``iova``."""
        return int(np.searchsorted(self._rows[_START, : self._n], iova, side="right"))

    def _at(self, place: int) -> Interval:
        return Interval(*self._rows[:FIELDS, place].tolist())

    def _replace(self, first: int, last: int, new: Sequence[Interval]) -> None:
        """Put ``new`` in the places [first, last); then the oldest goes, if there are too many."""
        rows, behind, n = self._rows, first + len(new), self._n
        rows[:, behind : behind + n - last] = rows[:, last:n].copy()
        self._n = behind + n - last
        for place, interval in enumerate(new, first):
            self._changes += 1
            rows[:, place] = *interval, self._changes
        if self._n > self.limit:
            oldest = int(np.argmin(rows[_AGE, : self._n]))
            rows[:, oldest : self._n - 1] = rows[:, oldest + 1 : self._n].copy()
            self._n -= 1
