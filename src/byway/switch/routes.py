# SPDX-License-Identifier: Apache-2.0
"""Where an address lies: longest prefix match over the routes of one router.

Used by router.py (``route_of``) and routing.py (``Routes``, which makes the tables); uses machine.

Theory of operation
-------------------
All prefixes of a router cut the space of addresses into *intervals*, each with the route of the
longest prefix that covers it. The intervals stand sorted by their first address, so the longest
match is one binary search: log2(2 n) steps for n prefixes, whatever their lengths and however they
overlap, and no state that a sender could wear out. IPv4 addresses are in the same table, as
::ffff:a.b.c.d (RFC 4291, 2.5.5.2); no IPv6 frame with such an address gets as far as here.

An address is two signed 64-bit words, as they are loaded from a frame. The table is sorted as if
they were unsigned: their first bits are turned round.

Threads: a table never changes. Control makes another one and the router's record then says that.
"""

from collections.abc import Iterable

import numpy as np

from byway.machine.dual import signed
from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import ld64

# kind: below. gateway: the GATEWAY of the way out. via_high, via_low: the next hop, 0 where it is
# the destination itself. source: the own ADDRESS that asks for its MAC address.
ROUTE, route_at, Q = record("route", [
    "kind", "gateway", "via_high", "via_low", "source"])
# What becomes of a packet: nobody knows the way; it goes on; it is for the router itself; it must
# not be routed.
NONE, FORWARD, LOCAL, DISCARD = 0, 1, 2, 3

# intervals: n times (first address: two words, ROUTE address, unused), sorted; the first is 0.
ROUTES, routes_at, T = record("routes", ["intervals", "n"])
INTERVAL = 32

SIGN = -(1 << 63)
MAPPED = 0xFFFF << 32  # the low word of ::ffff:0.0.0.0
MAPPED_BITS = 96  # and the length of that prefix
ALL_ADDRESSES = 1 << 128


@kernel
def route_of(routes, high, low):
    """-> the address of the ROUTE for an address."""
    t = routes_at(routes)
    key_high = high ^ SIGN
    key_low = low ^ SIGN
    at = t.intervals
    n = t.n
    while n > 1:  # the interval sought is among the n from ``at`` on
        half = n >> 1
        middle = at + INTERVAL * half
        first = ld64(middle)
        if first < key_high or (first == key_high and ld64(middle + 8) <= key_low):
            at = middle
        n -= half
    return ld64(at + 16)


def halves(address: int) -> tuple[int, int]:
    """An address of 128 bits as two words, as kernels load them from a frame."""
    return signed(address >> 64), signed(address)


def intervals(prefixes: Iterable[tuple[int, int, int]], nothing: int) -> list[tuple[int, int]]:
    """(first address, bits, value) of prefixes -> (first address, value) of intervals, sorted.

    ``nothing`` is the value where there is no prefix. Of equal prefixes the last one counts.
    """
    made = [(0, nothing)]
    around = [(ALL_ADDRESSES, nothing)]  # the prefixes that we are in: end, value

    def put(first: int, value: int) -> None:
        if made[-1][0] == first:
            made[-1] = first, value
        elif first < ALL_ADDRESSES and made[-1][1] != value:
            made.append((first, value))

    def leave_until(first: int) -> None:
        while len(around) > 1 and around[-1][0] <= first:
            end, _ = around.pop()
            put(end, around[-1][1])

    for first, bits, value in sorted(prefixes, key=lambda p: p[:2]):
        leave_until(first)
        put(first, value)
        around.append((first + (1 << 128 - bits), value))
    leave_until(ALL_ADDRESSES)
    return made


class Routes:
    """The memory of one table; ``prefixes``: (first address, bits, ROUTE address)."""

    def __init__(self, prefixes: Iterable[tuple[int, int, int]]) -> None:
        self._none = alloc(ROUTE, 1)
        nothing = address_of(self._none)
        # What is known of IPv6 (a default route) says nothing of IPv4.
        mapped = (MAPPED, MAPPED_BITS, nothing)
        made = intervals([mapped, *prefixes], nothing)
        self._intervals = alloc(np.dtype("<i8"), 4 * len(made), 64)
        for k, (first, route) in enumerate(made):
            high, low = halves(first)
            self._intervals[4 * k : 4 * k + 3] = high ^ SIGN, low ^ SIGN, route
        self.record = alloc(ROUTES, 1, 64)
        self.record["intervals"] = address_of(self._intervals)
        self.record["n"] = len(made)
        self.address = address_of(self.record)
