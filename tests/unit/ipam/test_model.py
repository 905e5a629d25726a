# SPDX-License-Identifier: Apache-2.0
"""Pools against a naive model: a dictionary of what is given, and a list of what was given when."""

import ipaddress
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from byway.ipam import IpamError, Pools

PREFIXES = ("10.0.0.0/29", "10.0.0.8/29", "10.0.0.0/28", "10.0.1.0/31", "fd00::/125", "fd00::/64")
SPACES = ("s", "t")
OWNERS = ("", "c1", "c2", "c3")


class Model:
    """What there should be: {(space, prefix): {address: owner}}, and each pool's last choice."""

    def __init__(self) -> None:
        self.given: dict[tuple[str, str], dict[int, str]] = {}
        self.latest: dict[tuple[str, str], int] = {}

    def choices(self, prefix: str) -> list[int]:
        """The first addresses of a prefix that may be chosen, enough for these tests."""
        network = ipaddress.ip_network(prefix)
        first = int(network[0])
        count = min(network.num_addresses, 64)
        if network.num_addresses <= 2:
            return [first + k for k in range(count)]
        last = count - 1 if network.version == 4 else count
        return [first + k for k in range(1, last)]

    def next_free(self, key: tuple[str, str]) -> int | None:
        """The free address that is nearest behind the last choice, in a circle."""
        order = self.choices(key[1])
        latest = self.latest.get(key)
        if latest is not None:
            order = [a for a in order if a > latest] + [a for a in order if a <= latest]
        return next((a for a in order if a not in self.given[key]), None)


class Comparison(RuleBasedStateMachine):
    """The same requests to both; the file is closed and opened again in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ipam.db"
        self.pools = Pools(self.path)
        self.model = Model()

    def teardown(self) -> None:
        self.pools.close()
        self.folder.cleanup()

    @rule(space=st.sampled_from(SPACES), prefix=st.sampled_from(PREFIXES), shared=st.booleans())
    def request_pool(self, space: str, prefix: str, shared: bool) -> None:
        wanted = ipaddress.ip_network(prefix)
        others = [key for key in self.model.given if key[0] == space
                  and ipaddress.ip_network(key[1]).version == wanted.version
                  and ipaddress.ip_network(key[1]).overlaps(wanted)]  # type: ignore[arg-type]
        if others and not (shared and (space, prefix) in others):
            with pytest.raises(IpamError):
                self.pools.request_pool(space, prefix, shared=shared)
            return
        assert self.pools.request_pool(space, prefix, shared=shared)[1] == prefix
        self.model.given.setdefault((space, prefix), {})

    @rule(space=st.sampled_from(SPACES), prefix=st.sampled_from(PREFIXES))
    def release_pool(self, space: str, prefix: str) -> None:
        self.pools.release_pool(f"{space}/{prefix}")
        self.model.given.pop((space, prefix), None)
        self.model.latest.pop((space, prefix), None)

    @rule(space=st.sampled_from(SPACES), prefix=st.sampled_from(PREFIXES),
          owner=st.sampled_from(OWNERS))
    def request_any(self, space: str, prefix: str, owner: str) -> None:
        key = (space, prefix)
        given = self.model.given.get(key)
        expected = None
        if given is not None:
            held = [address for address, whose in given.items() if owner and whose == owner]
            expected = held[0] if held else self.model.next_free(key)
        if given is None or expected is None:
            with pytest.raises(IpamError):
                self.pools.request_address(f"{space}/{prefix}", owner=owner)
            return
        answer = ipaddress.ip_interface(
            self.pools.request_address(f"{space}/{prefix}", owner=owner))
        assert (int(answer), answer.network) == (expected, ipaddress.ip_network(prefix))
        if expected not in given:
            self.model.latest[key] = expected
        given[expected] = owner

    @rule(space=st.sampled_from(SPACES), prefix=st.sampled_from(PREFIXES),
          owner=st.sampled_from(OWNERS), place=st.integers(0, 15))
    def request_one(self, space: str, prefix: str, owner: str, place: int) -> None:
        network = ipaddress.ip_network(prefix)
        address = int(network[0]) + place
        given = self.model.given.get((space, prefix))
        fits = given is not None and place < network.num_addresses and not (
            network.version == 4 and network.num_addresses > 2
            and place in (0, network.num_addresses - 1))
        if fits and given is not None:
            held = [one for one, whose in given.items() if owner and whose == owner]
            fits = held == [address] or (not held and address not in given)
        text = str(type(network[0])(address))
        if not fits:
            with pytest.raises(IpamError):
                self.pools.request_address(f"{space}/{prefix}", text, owner)
            return
        assert int(ipaddress.ip_interface(
            self.pools.request_address(f"{space}/{prefix}", text, owner))) == address
        assert given is not None
        given[address] = owner

    @rule(space=st.sampled_from(SPACES), prefix=st.sampled_from(PREFIXES), place=st.integers(0, 15))
    def release_address(self, space: str, prefix: str, place: int) -> None:
        network = ipaddress.ip_network(prefix)
        address = int(network[0]) + place
        self.pools.release_address(f"{space}/{prefix}", str(type(network[0])(address)))
        self.model.given.get((space, prefix), {}).pop(address, None)

    @rule(space=st.sampled_from(SPACES), owner=st.sampled_from(OWNERS[1:]))
    def release_owner(self, space: str, owner: str) -> None:
        released = {int(ipaddress.ip_interface(one))
                    for one in self.pools.release_owner(space, owner)}
        expected = set()
        for (where, _), given in self.model.given.items():
            mine = {address for address, whose in given.items() if whose == owner}
            if where == space:
                expected |= mine
                for address in mine:
                    del given[address]
        assert released == expected

    @rule()
    def open_again(self) -> None:
        self.pools.close()
        self.pools = Pools(self.path)

    @invariant()
    def both_have_the_same(self) -> None:
        assert {(pool.space, pool.prefix) for pool in self.pools.pools()} == set(self.model.given)
        for (space, prefix), given in self.model.given.items():
            held = self.pools.addresses(f"{space}/{prefix}")
            assert {int(ipaddress.ip_interface(one.address)): one.owner for one in held} == given


Comparison.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestPoolsAgainstTheModel = Comparison.TestCase
