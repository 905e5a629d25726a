# SPDX-License-Identifier: Apache-2.0
"""Longest prefix match against looking at every prefix."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.switch.routes import (
    ALL_ADDRESSES,
    FORWARD,
    MAPPED,
    MAPPED_BITS,
    NONE,
    ROUTE,
    Routes,
    halves,
    intervals,
)
from byway.testing.router_kernels import find_route

ADDRESSES = st.integers(0, ALL_ADDRESSES - 1) | st.integers(0, 1 << 34) \
    | st.sampled_from([0, MAPPED, ALL_ADDRESSES - 1, 1 << 127, (1 << 127) - 1, 1 << 63, 1 << 64])


@st.composite
def prefixes(draw: st.DrawFn) -> list[tuple[int, int]]:
    """(first address, bits), none of them twice, many of them within each other."""
    made = []
    for _ in range(draw(st.integers(0, 12))):
        bits = draw(st.integers(0, 128))
        first = draw(ADDRESSES) if not made or draw(st.booleans()) else draw(
            st.sampled_from(made))[0]
        made.append((first >> 128 - bits << 128 - bits, bits))
    return sorted(set(made), key=lambda p: draw(st.integers(0, 9)))


def longest(among: list[tuple[int, int]], address: int) -> int:
    """The place of the longest prefix that holds an address, -1: none does."""
    found = [(bits, k) for k, (first, bits) in enumerate(among)
             if address >> 128 - bits == first >> 128 - bits]
    return max(found)[1] if found else -1


@settings(max_examples=60 if INTERPRETED else 400, deadline=None)
@given(among=prefixes(), others=st.lists(ADDRESSES, max_size=20))
def test_as_looking_at_every_prefix(among: list[tuple[int, int]], others: list[int]) -> None:
    routes = alloc(ROUTE, max(1, len(among)), 64)
    step, at = ROUTE.itemsize, address_of(routes)
    table = Routes([(first, bits, at + step * k) for k, (first, bits) in enumerate(among)])
    routes["kind"] = FORWARD
    edges = [first + d for first, bits in among for d in (-1, 0, 1, (1 << 128 - bits) - 1,
                                                          1 << 128 - bits)]
    everything = [(MAPPED, MAPPED_BITS), *among]  # IPv4 knows nothing of IPv6's routes
    for address in {a % ALL_ADDRESSES for a in edges + others}:
        found = int(find_route(table.address, *halves(address)))
        best = longest(everything, address) - 1
        if (MAPPED, MAPPED_BITS) in among and best == -1:
            best = among.index((MAPPED, MAPPED_BITS))
        if best < 0:
            assert found == address_of(table._none)
        else:
            assert found == at + step * best


def test_no_more_intervals_than_needed() -> None:
    """A prefix makes two at the most, and neighbours with the same value are one."""
    net = ipaddress.ip_network
    values = {"::/0": 1, "fd00::/8": 2, "fd00::/16": 2, "fd01::/16": 1, "fe00::/8": 1}
    made = intervals(((int(net(p).network_address), net(p).prefixlen, v)
                      for p, v in values.items()), 0)
    assert made == [(0, 1), (int(net("fd00::/8").network_address), 2),
                    (int(net("fd01::/16").network_address), 1),
                    (int(net("fd02::/16").network_address), 2),
                    (int(net("fe00::/8").network_address), 1)]


def test_an_empty_table_knows_nothing() -> None:
    table = Routes([])
    for address in ("::", "10.0.0.1", "ffff::"):
        number = int(ipaddress.ip_address(address))
        assert int(find_route(table.address, *halves(number))) == address_of(table._none)
    assert int(table._none["kind"][0]) == NONE


def test_many_routes() -> None:
    """As many as a data centre has: all found."""
    n = 300 if INTERPRETED else 5000
    routes = alloc(ROUTE, n, 64)
    at = address_of(routes)
    table = Routes((MAPPED + (k << 12), 96 + 20, at + ROUTE.itemsize * k) for k in range(n))
    for k in range(0, n, 7):
        assert int(find_route(table.address, 0, MAPPED + (k << 12) + 4095)) \
            == at + ROUTE.itemsize * k


@pytest.mark.parametrize(("address", "words"), [
    (0, (0, 0)), (ALL_ADDRESSES - 1, (-1, -1)), (1 << 127, (-1 << 63, 0)), (MAPPED, (0, MAPPED))])
def test_halves(address: int, words: tuple[int, int]) -> None:
    assert halves(address) == words
