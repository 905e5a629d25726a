# SPDX-License-Identifier: Apache-2.0
"""Translations of whole ranges of I/O virtual addresses, as a front end sent them.

Used by iotlb. Uses nothing of Byway.

The ranges are kept sorted and do not overlap: a new one replaces what it covers, and grows
together with neighbours that continue it (a guest that maps a page at a time would fill any list).
There are at most ``limit`` of them; where one more comes, the one that was not changed for longest
goes. Every operation takes time in proportion to ``limit`` at the most.
"""

import bisect
from collections import OrderedDict
from typing import NamedTuple


class Interval(NamedTuple):
    """IOVAs [start, end) lie at host addresses [host, host + end - start)."""

    start: int
    end: int
    host: int
    permission: int


class Intervals:
    """A map from ranges of IOVAs to host addresses."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._starts: list[int] = []  # sorted
        self._by_start: OrderedDict[int, Interval] = OrderedDict()  # the longest unchanged first

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, iova: int) -> Interval | None:
        """The interval that holds ``iova``."""
        at = bisect.bisect(self._starts, iova) - 1
        if at < 0:
            return None
        found = self._by_start[self._starts[at]]
        return found if iova < found.end else None

    def all(self) -> list[Interval]:
        """All intervals, sorted."""
        return [self._by_start[start] for start in self._starts]

    def add(self, interval: Interval) -> None:
        """Put an interval in place of whatever it covers."""
        self.remove(interval.start, interval.end)
        start, end, host, permission = interval
        before = self.find(start - 1)
        if (before and before.permission == permission
                and before.host + before.end - before.start == host):
            self._delete(before)
            start, host = before.start, before.host
        after = self.find(end)
        if after and after.permission == permission and after.host == host + end - start:
            self._delete(after)
            end = after.end
        self._insert(Interval(start, end, host, permission))

    def remove(self, start: int, end: int) -> None:
        """Forget [start, end); what sticks out of it stays."""
        first = bisect.bisect(self._starts, start) - 1
        if first < 0 or self._by_start[self._starts[first]].end <= start:
            first += 1
        last = bisect.bisect_left(self._starts, end)
        if first >= last:
            return
        gone = [self._by_start.pop(begin) for begin in self._starts[first:last]]
        del self._starts[first:last]
        for old in gone[:1]:
            if old.start < start:
                self._insert(old._replace(end=start))
        for old in gone[-1:]:
            if old.end > end:
                self._insert(old._replace(start=end, host=old.host + end - old.start))

    def clear(self) -> None:
        """Forget everything."""
        self._starts.clear()
        self._by_start.clear()

    def _insert(self, interval: Interval) -> None:
        bisect.insort(self._starts, interval.start)
        self._by_start[interval.start] = interval
        if len(self._starts) > self.limit:
            oldest, _ = self._by_start.popitem(last=False)
            del self._starts[bisect.bisect_left(self._starts, oldest)]

    def _delete(self, interval: Interval) -> None:
        del self._by_start[interval.start]
        del self._starts[bisect.bisect_left(self._starts, interval.start)]
