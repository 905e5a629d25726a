# SPDX-License-Identifier: Apache-2.0
"""Pools of addresses: what is chosen, what is refused and with which words, what is kept."""

import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.ipam import IpamError, Pools


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    with Pools(tmp_path / "ipam.db", timeout=0.1) as made:
        yield made


def refused(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(IpamError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    assert caught.value.fix
    return caught.value.problem


# ------------------------------------------------------------ pools
def test_a_pool_that_is_named(pools: Pools) -> None:
    assert pools.request_pool("s", "10.0.0.0/24") == ("s/10.0.0.0/24", "10.0.0.0/24")
    assert pools.request_pool("t", "10.0.0.0/24") == ("t/10.0.0.0/24", "10.0.0.0/24")
    assert pools.request_pool("s", "fd00:0:0:1::/64") == ("s/fd00:0:0:1::/64", "fd00:0:0:1::/64")
    assert [pool.prefix for pool in pools.pools("s")] == ["10.0.0.0/24", "fd00:0:0:1::/64"]
    assert len(pools.pools()) == 3


def test_the_same_pool_twice(pools: Pools) -> None:
    first = pools.request_pool("s", "10.0.0.0/24")
    assert "overlaps with the pool s/10.0.0.0/24" in refused(
        pools.request_pool, "s", "10.0.0.0/24")
    assert pools.request_pool("s", "10.0.0.0/24", shared=True) == first


@pytest.mark.parametrize("other", ["10.0.0.0/23", "10.0.0.128/25", "10.0.0.7/32", "0.0.0.0/0"])
def test_pools_of_a_space_do_not_overlap(pools: Pools, other: str) -> None:
    pools.request_pool("s", "10.0.0.0/24")
    assert "overlaps" in refused(pools.request_pool, "s", other)
    assert "overlaps" in refused(pools.request_pool, "s", other, shared=True)
    pools.request_pool("s", "::/0")
    pools.request_pool("s", "10.0.1.0/24")


def test_ranges_of_one_prefix(pools: Pools) -> None:
    low, prefix = pools.request_pool("s", "10.0.0.0/24", "10.0.0.64/26")
    assert (low, prefix) == ("s/10.0.0.0/24/10.0.0.64/26", "10.0.0.0/24")
    high, _ = pools.request_pool("s", "10.0.0.0/24", "10.0.0.128-10.0.0.130")
    for overlapping in ("10.0.0.96/27", "10.0.0.1-10.0.0.64"):
        assert "overlaps" in refused(pools.request_pool, "s", "10.0.0.0/24", overlapping)
    assert "overlaps" in refused(pools.request_pool, "s", "10.0.0.0/24")
    assert pools.request_address(low) == "10.0.0.64/24"  # no network's address in the prefix
    assert [pools.request_address(high) for _ in range(3)] == [
        "10.0.0.128/24", "10.0.0.129/24", "10.0.0.130/24"]
    assert "no address left" in refused(pools.request_address, high)
    # Beyond its range a pool gives what is asked for by name; nobody gets it twice.
    assert pools.request_address(high, "10.0.0.7") == "10.0.0.7/24"
    assert "in use" in refused(pools.request_address, low, "10.0.0.7")


@pytest.mark.parametrize("text", ["x", "10.0.0.0", "10.0.0.0/33", "10.0.0/24", "fe80::%1/64", "/",
                                  7])
def test_what_is_no_pool(pools: Pools, text: object) -> None:
    assert "is no pool" in refused(pools.request_pool, "s", text)


def test_pools_that_say_something_else_than_they_mean(pools: Pools) -> None:
    assert "bits set behind" in refused(pools.request_pool, "s", "10.0.0.1/24")
    assert "not within" in refused(pools.request_pool, "s", "10.0.0.0/24", "10.0.1.0/26")
    assert "ends before" in refused(pools.request_pool, "s", "10.0.0.0/24", "10.0.0.9-10.0.0.8")
    assert "no IPv4" in refused(pools.request_pool, "s", "10.0.0.0/24", "fd00::/120")
    assert "no IPv4" in refused(pools.request_pool, "s", "10.0.0.0/24", "fd00::1-fd00::2")
    assert "no address that may be given" in refused(
        pools.request_pool, "s", "10.0.0.0/24", "10.0.0.0-10.0.0.0")
    assert "has no pool" in refused(pools.request_pool, "s", None, "10.0.0.0/26")
    assert "no IPv6 pool" in refused(pools.request_pool, "s", "10.0.0.0/24", v6=True)
    assert pools.pools() == []


@pytest.mark.parametrize("name", ["", "x" * 256, "new\nline", None])
def test_names(pools: Pools, name: object) -> None:
    assert "no name of an address space" in refused(pools.request_pool, name, "10.0.0.0/24")
    pool, _ = pools.request_pool("s", "10.0.0.0/24")
    assert "no name of an owner" in refused(pools.release_owner, "s", name)
    if name:
        assert "no name of an owner" in refused(pools.request_address, pool, owner=name)


def test_a_pool_is_chosen(pools: Pools) -> None:
    assert pools.request_pool("s")[1] == "10.192.0.0/24"
    pools.request_pool("t", "10.192.1.0/25")
    pools.request_pool("u", "10.192.2.0/23")
    chosen = pools.request_pool("s", avoid=["10.192.4.0/24", "0.0.0.0/32", "fd00::/8"])
    assert chosen[1] == "10.192.5.0/24"
    pools.release_pool("s/10.192.0.0/24")
    assert pools.request_pool("v")[1] == "10.192.0.0/24"


def test_an_ipv6_pool_is_chosen(pools: Pools, tmp_path: Path) -> None:
    prefixes = [pools.request_pool("s", v6=True)[1] for _ in range(3)]
    assert len({prefix[:12] for prefix in prefixes}) == 1
    assert all(prefix.startswith("fd") and prefix.endswith("/64") for prefix in prefixes)
    with Pools(tmp_path / "other.db") as others:
        assert others.request_pool("s", v6=True)[1] not in prefixes


def test_defaults_come_to_an_end(tmp_path: Path) -> None:
    defaults = (("10.0.0.0/30", 31), ("fd00::/126", 127), ("10.1.0.0/32", 32))
    with Pools(tmp_path / "ipam.db", defaults) as pools:
        assert [pools.request_pool("s")[1] for _ in range(3)] == [
            "10.0.0.0/31", "10.0.0.2/31", "10.1.0.0/32"]
        assert "no IPv4 pool is left" in refused(pools.request_pool, "t")
        assert [pools.request_pool("s", v6=True)[1] for _ in range(2)] == ["fd00::/127",
                                                                          "fd00::2/127"]
        assert "no IPv6 pool is left" in refused(pools.request_pool, "t", v6=True)


def test_a_pool_goes_with_its_addresses(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "10.0.0.0/24")
    pools.request_address(pool, owner="c1")
    pools.release_pool(pool)
    pools.release_pool(pool)
    assert pools.owned("s", "c1") == []
    assert "there is no pool" in refused(pools.request_address, pool)
    assert "there is no pool" in refused(pools.request_gateway, pool)
    assert "there is no pool" in refused(pools.pool, pool)
    pools.release_address(pool, "10.0.0.1")


# ------------------------------------------------------------ addresses
def test_addresses_in_turn(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "10.0.0.0/29")
    given = [pools.request_address(pool) for _ in range(4)]
    assert given == [f"10.0.0.{k}/29" for k in (1, 2, 3, 4)]
    pools.release_address(pool, "10.0.0.2")
    pools.release_address(pool, "10.0.0.2/29")
    # What was released comes last.
    assert [pools.request_address(pool) for _ in range(3)] == [
        "10.0.0.5/29", "10.0.0.6/29", "10.0.0.2/29"]
    assert "no address left" in refused(pools.request_address, pool)


def test_prefixes_without_a_broadcast_address(pools: Pools) -> None:
    for prefix, first, last in (("10.0.0.0/31", "10.0.0.0/31", "10.0.0.1/31"),
                                ("fd00::/127", "fd00::/127", "fd00::1/127")):
        pool, _ = pools.request_pool("s", prefix)
        assert [pools.request_address(pool) for _ in range(2)] == [first, last]
        refused(pools.request_address, pool)
    pool, _ = pools.request_pool("s", "10.0.1.1/32")
    assert pools.request_address(pool) == "10.0.1.1/32"


def test_ipv6_has_no_broadcast_address(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "fd00::/126")
    assert [pools.request_address(pool) for _ in range(3)] == [
        "fd00::1/126", "fd00::2/126", "fd00::3/126"]


def test_a_huge_pool_is_not_counted_through(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "::/0")
    assert pools.request_address(pool) == "::1/0"
    last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    assert pools.request_address(pool, last) == f"{last}/0"
    assert pools.request_address(pool) == "::2/0"


def test_an_address_that_is_named(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "10.0.0.0/24")
    assert pools.request_address(pool, "10.0.0.2", owner="c1") == "10.0.0.2/24"
    assert "in use by c1" in refused(pools.request_address, pool, "10.0.0.2", owner="c2")
    assert [pools.request_address(pool) for _ in range(2)] == ["10.0.0.1/24", "10.0.0.3/24"]
    assert "not in the pool" in refused(pools.request_address, pool, "10.0.1.1")
    assert "no IP address" in refused(pools.request_address, pool, "10.0.0")
    assert "no IPv4 address" in refused(pools.request_address, pool, "fd00::1")
    for reserved in ("10.0.0.0", "10.0.0.255"):
        assert "network's or the broadcast" in refused(pools.request_address, pool, reserved)


def test_one_owner_has_one_address(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "10.0.0.0/24")
    assert pools.request_address(pool, owner="c1") == "10.0.0.1/24"
    assert pools.request_address(pool, owner="c1") == "10.0.0.1/24"
    assert pools.request_address(pool, "10.0.0.1", owner="c1") == "10.0.0.1/24"
    assert "c1 has the address 10.0.0.1/24" in refused(
        pools.request_address, pool, "10.0.0.9", owner="c1")
    six, _ = pools.request_pool("s", "fd00::/64")
    pools.request_address(six, owner="c1")
    assert [held.address for held in pools.owned("s", "c1")] == ["10.0.0.1/24", "fd00::1/64"]
    assert pools.release_owner("s", "c1") == ["10.0.0.1/24", "fd00::1/64"]
    assert pools.release_owner("s", "c1") == []
    assert pools.request_address(pool, owner="c1") == "10.0.0.2/24"


def test_a_part_of_a_pool(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "10.0.0.0/24")
    part = "10.0.0.100-10.0.0.101"
    assert pools.request_address(pool) == "10.0.0.1/24"
    assert [pools.request_address(pool, within=part) for _ in range(2)] == [
        "10.0.0.100/24", "10.0.0.101/24"]
    assert "the range 10.0.0.100-10.0.0.101" in refused(pools.request_address, pool, within=part)
    pools.release_address(pool, "10.0.0.100")
    assert pools.request_address(pool, within=part) == "10.0.0.100/24"
    assert pools.request_address(pool) == "10.0.0.102/24"


def test_the_gateway(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "10.0.0.0/24")
    assert pools.gateway(pool) is None
    assert pools.request_gateway(pool) == "10.0.0.1/24"
    assert pools.request_gateway(pool, "10.0.0.1/24") == "10.0.0.1/24"
    assert pools.gateway(pool) == "10.0.0.1/24"
    assert "the gateway of s/10.0.0.0/24 is 10.0.0.1/24" in refused(
        pools.request_gateway, pool, "10.0.0.254")
    assert pools.request_address(pool, owner="c1") == "10.0.0.2/24"
    assert "in use" in refused(pools.request_address, pool, "10.0.0.1")
    pools.release_address(pool, "10.0.0.1")
    assert pools.gateway(pool) is None
    assert pools.request_gateway(pool, "10.0.0.254") == "10.0.0.254/24"
    other, _ = pools.request_pool("s", "10.1.0.0/24")
    pools.request_address(other, owner="c1")
    assert "in use by c1" in refused(pools.request_gateway, other, "10.1.0.1")


def test_a_gateway_of_a_full_pool(pools: Pools) -> None:
    pool, _ = pools.request_pool("s", "10.0.0.0/31")
    for _ in range(2):
        pools.request_address(pool)
    assert "no address left" in refused(pools.request_gateway, pool)


# ------------------------------------------------------------ the file
def test_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "ipam.db"
    with Pools(path) as pools:
        pool, _ = pools.request_pool("s", "10.0.0.0/24")
        pools.request_gateway(pool)
        pools.request_address(pool, owner="c1")
    with Pools(path) as pools:
        assert [(one.address, one.owner) for one in pools.addresses(pool)] == [
            ("10.0.0.1/24", ""), ("10.0.0.2/24", "c1")]
        assert pools.gateway(pool) == "10.0.0.1/24"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_several_calls_as_one(pools: Pools, tmp_path: Path) -> None:
    pool, _ = pools.request_pool("s", "10.0.0.0/30")

    def take_three() -> None:
        with pools.transaction():
            for _ in range(3):
                pools.request_address(pool)

    assert "no address left" in refused(take_three)
    assert pools.addresses(pool) == []
    with pools.transaction():
        pools.request_address(pool)
        with Pools(tmp_path / "ipam.db") as other:
            assert other.addresses(pool) == []
    assert len(pools.addresses(pool)) == 1


def test_a_writer_that_does_not_end(pools: Pools, tmp_path: Path) -> None:
    with Pools(tmp_path / "ipam.db") as other, other.transaction():
        assert "another process is writing" in refused(pools.request_pool, "s", "10.0.0.0/24")
    pools.request_pool("s", "10.0.0.0/24")


def test_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ipam.db"
    with Pools(path) as pools:
        pool, _ = pools.request_pool("s", "10.0.0.0/24")
    given: list[str] = []

    def take() -> None:
        with Pools(path, timeout=60.0) as mine:
            given.extend(mine.request_address(pool) for _ in range(10))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) == 80


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, and long enough to be sure of it" * 40)
    assert "not a database" in refused(Pools, tmp_path / "text")
    assert "cannot be used" in refused(Pools, tmp_path)
    assert "cannot be used" in refused(Pools, tmp_path / "text" / "below")
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    assert "has the layout 99" in refused(Pools, tmp_path / "newer.db")
