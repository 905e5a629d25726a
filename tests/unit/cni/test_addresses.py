# SPDX-License-Identifier: Apache-2.0
"""Addresses as IPAM plugins are asked for them: sets of ranges, and configurations that change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byway.ipam import Pools
from byway_cni import addresses
from byway_cni.problem import CniError, Code


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    with Pools(tmp_path / "cni.db") as made:
        yield made


def give(pools: Pools, owner: str, *ips: str, **ipam: Any) -> list[str]:
    """The addresses of an attachment."""
    found = addresses.allocate(pools, "net", owner, ipam, {}, ips)
    return [entry["address"] for entry in found["ips"]]


def test_one_address_of_each_set(pools: Pools) -> None:
    ranges = [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]
    assert give(pools, "a", ranges=ranges) == ["10.0.0.2/30", "fd00::2/64"]
    assert give(pools, "b", ranges=ranges) == ["10.1.0.2/24", "fd00::3/64"]  # the next range
    assert give(pools, "a", ranges=ranges) == ["10.0.0.2/30", "fd00::2/64"]
    assert give(pools, "c", "fd00::9", "10.1.0.9", ranges=ranges) == ["10.1.0.9/24", "fd00::9/64"]


def test_all_or_nothing(pools: Pools) -> None:
    ranges = [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/30"}]]
    give(pools, "a", ranges=ranges)
    with pytest.raises(CniError, match="no address left") as caught:
        give(pools, "b", ranges=ranges)
    assert caught.value.code == Code.ADDRESSES
    assert pools.owned("cni/net", "b") == []
    with pytest.raises(CniError, match="none of the network's ranges"):
        give(pools, "b", "10.2.0.1", subnet="10.3.0.0/24")
    assert pools.owned("cni/net", "b") == []


def test_the_start_and_the_end_of_a_range(pools: Pools) -> None:
    part = {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.100", "rangeEnd": "10.0.0.101"}
    assert give(pools, "a", **part) == ["10.0.0.100/24"]
    assert give(pools, "b", **part) == ["10.0.0.101/24"]
    with pytest.raises(CniError, match=r"10\.0\.0\.100-10\.0\.0\.101"):
        give(pools, "c", **part)
    # The file may be changed while containers run.
    assert give(pools, "c", **part | {"rangeEnd": "10.0.0.110"}) == ["10.0.0.102/24"]
    assert give(pools, "d", subnet="10.0.0.0/24") == ["10.0.0.103/24"]
    assert give(pools, "e", subnet="10.0.0.0/24", rangeStart="10.0.0.250") == ["10.0.0.250/24"]


def test_a_subnet_that_is_changed(pools: Pools) -> None:
    give(pools, "a", subnet="10.0.0.0/24")
    with pytest.raises(CniError, match="overlaps"):
        give(pools, "b", subnet="10.0.0.0/16")
    assert give(pools, "b", subnet="10.1.0.0/24") == ["10.1.0.2/24"]
    pools.release_owner("cni/net", "a")
    assert give(pools, "b", subnet="10.0.0.0/16") == ["10.0.0.2/16"]


def test_gateways(pools: Pools) -> None:
    found = addresses.allocate(pools, "net", "a", {"ranges": [
        [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.254"}], [{"subnet": "10.1.0.0/31"}],
        [{"subnet": "fd00::/64"}]], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"domain": "x"}},
        {}, [])
    assert found["ips"] == [{"address": "10.0.0.1/24", "gateway": "10.0.0.254"},
                            {"address": "10.1.0.0/31", "gateway": "10.1.0.1"},
                            {"address": "fd00::2/64", "gateway": "fd00::1"}]
    assert (found["routes"], found["dns"]) == ([{"dst": "0.0.0.0/0"}], {"domain": "x"})
    with pytest.raises(CniError, match=r"gateway of .* is 10\.0\.0\.254"):
        give(pools, "b", subnet="10.0.0.0/24", gateway="10.0.0.9")


def test_a_network_without_a_subnet(pools: Pools) -> None:
    (first,) = give(pools, "a")
    four, six = give(pools, "b", ipv6=True)
    assert first.rpartition(".")[0] == four.rpartition(".")[0]
    assert six.startswith("fd")
    other = addresses.allocate(pools, "other", "a", {}, {}, [])["ips"][0]["address"]
    assert other.rpartition(".")[0] != first.rpartition(".")[0]


def test_where_the_host_goes_is_left_out(
    pools: Pools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc/net/route has addresses in the byte order of the machine."""
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000C00A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n")
    monkeypatch.setattr(addresses, "ROUTES", str(tmp_path / "route"))
    assert give(pools, "a") == ["10.193.0.2/24"]  # not within 10.192.0.0/16
    monkeypatch.setattr(addresses, "ROUTES", str(tmp_path / "none"))
    assert give(pools, "b", ipv6=False) == ["10.193.0.3/24"]


def test_what_is_collected(pools: Pools) -> None:
    for owner in ("a", "b", "c"):
        give(pools, owner, subnet="10.0.0.0/24")
    addresses.allocate(pools, "other", "a", {"subnet": "10.0.0.0/24"}, {}, [])
    addresses.release_others(pools, "net", {"b"})
    assert [held.owner for held in pools.addresses("cni/net/10.0.0.0/24")] == ["", "b"]
    assert addresses.missing(pools, "net", "b", ["10.0.0.3/24", "10.0.0.4/24"]) == ["10.0.0.4/24"]
    assert addresses.missing(pools, "other", "a", ["10.0.0.2/24"]) == []
