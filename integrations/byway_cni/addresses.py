# SPDX-License-Identifier: Apache-2.0
"""Addresses from Byway's own pools, described as the usual IPAM plugins' configuration does it.

Used by attach (in process) and by ipam_plugin (for other plugins). Uses byway.ipam.

`ranges` is a list of sets: an attachment gets one address of each set, from the first range of the
set that has one left. The pool of a range is its whole subnet, `rangeStart` and `rangeEnd` only say
what is chosen from: they may be changed while containers run. Without any subnet the pool is chosen
once for a network, and stays.
"""

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from byway.ipam import IpamError, Pool, Pools
from byway_cni.attachments import space
from byway_cni.problem import CniError, Code
from byway_cni.settings import wrong

ROUTES = "/proc/net/route"


class Range(NamedTuple):
    """Where addresses come from: `subnet` empty: any pool of this IP version."""

    subnet: str
    version: int
    within: str = ""  # "first-last"
    gateway: str = ""


def allocate(pools: Pools, network: str, owner: str, ipam: dict[str, Any],
             runtime: dict[str, Any], ips: Iterable[str]) -> dict[str, Any]:
    """One address of each set of ranges; -> the result of an IPAM plugin. CniError: none at all."""
    sets = read_ranges(ipam, runtime)
    routes = _routes(ipam)
    wanted = list(ips)
    try:
        with pools.transaction():
            entries = [_from_set(pools, network, owner, ranges, wanted) for ranges in sets]
            if wanted:
                raise CniError(Code.ADDRESSES,
                               f"{', '.join(wanted)} is in none of the network's ranges",
                               "ask for an address of a subnet in ipam.ranges")
    except IpamError as error:
        raise CniError(Code.ADDRESSES, error.problem, error.fix) from None
    return {"ips": entries, "routes": routes, "dns": ipam.get("dns") or {}}


def release_others(pools: Pools, network: str, valid: set[str]) -> None:
    """Free the addresses of a network's owners that are not in `valid`."""
    name = space(network)
    with pools.transaction():
        for pool in pools.pools(name):
            for owner in {held.owner for held in pools.addresses(pool.id)} - valid - {""}:
                pools.release_owner(name, owner)


def missing(pools: Pools, network: str, owner: str, addresses: Iterable[str]) -> list[str]:
    """Those of these addresses that the owner does not have."""
    held = {one.address.partition("/")[0] for one in pools.owned(space(network), owner)}
    return [address for address in addresses if address.partition("/")[0] not in held]


# ------------------------------------------------------------ the configuration
def read_ranges(ipam: dict[str, Any], runtime: dict[str, Any]) -> list[list[Range]]:
    """The sets of ranges, those of the runtime first. CniError with code 7 where one is wrong."""
    sets: list[list[Range]] = []
    for key, table in (("runtimeConfig.ipRanges", runtime.get("ipRanges")),
                       ("ipam.ranges", ipam.get("ranges"))):
        for entry in _list(key, table):
            sets.append([_range(key, one) for one in _list(key, entry)])
    if ipam.get("subnet"):
        sets.append([_range("ipam", ipam)])
    sets = [ranges for ranges in sets if ranges]
    if not sets:
        sets.append([Range("", 4)])
        if ipam.get("ipv6") is True:
            sets.append([Range("", 6)])
    subnets = [one.subnet for ranges in sets for one in {r.subnet: r for r in ranges}.values()
               if one.subnet]
    for subnet in subnets:
        if subnets.count(subnet) > 1:
            raise wrong("ipam.ranges", subnet, "name a subnet in one set only")
    return sets


def _list(key: str, value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(key, value, 'write a list of lists: [[{"subnet": "10.0.0.0/24"}]]')
    return value


def _range(key: str, table: object) -> Range:
    if not isinstance(table, dict):
        raise wrong(key, table, 'write objects such as {"subnet": "10.0.0.0/24"}')
    try:
        subnet = ipaddress.ip_network(str(table.get("subnet")), strict=False)
        ends = [ipaddress.ip_address(str(table[name])) if table.get(name) else None
                for name in ("rangeStart", "rangeEnd", "gateway")]
    except (ValueError, TypeError) as error:
        raise wrong(key, table, f"mend it: {error}") from None
    for end in ends:
        if end is not None and end not in subnet:
            raise wrong(key, table, f"{end} is not in the subnet {subnet}")
    first, last, gateway = ends
    within = ""
    if first or last:
        within = f"{first or subnet[0]}-{last or subnet[-1]}"
    return Range(str(subnet), subnet.version, within, str(gateway or ""))


def _routes(ipam: dict[str, Any]) -> list[dict[str, Any]]:
    found = ipam.get("routes") or []
    if not isinstance(found, list):
        raise wrong("ipam.routes", found, 'write a list: [{"dst": "0.0.0.0/0"}]')
    for route in found:
        try:
            ipaddress.ip_network(str(route["dst"]), strict=False)
            if route.get("gw"):
                ipaddress.ip_address(str(route["gw"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise wrong("ipam.routes", route,
                        'write objects such as {"dst": "0.0.0.0/0", "gw": "10.0.0.1"}') from None
    return found


# ------------------------------------------------------------ the pools
def _from_set(pools: Pools, network: str, owner: str, ranges: list[Range],
              wanted: list[str]) -> dict[str, Any]:
    """One address of a set, as an entry of a result's `ips`; a wish that fits is taken off."""
    refusal: IpamError | None = None
    for one in ranges:
        pool = _pool(pools, network, one)
        asked = next((text for text in wanted if _within(text, pool)), None)
        gateway = pools.request_gateway(
            pool.id, one.gateway or str(ipaddress.ip_network(pool.prefix)[1])
            if pool.span.last > pool.span.first else None)
        try:
            address = pools.request_address(pool.id, asked and asked.partition("/")[0], owner,
                                            one.within)
        except IpamError as error:
            refusal = error
            if asked:
                raise
            continue
        if asked:
            wanted.remove(asked)
        return {"address": address, "gateway": gateway.partition("/")[0]}
    raise refusal or IpamError("a set of ranges is empty", "write at least one range in it")


def _within(text: str, pool: Pool) -> bool:
    address = ipaddress.ip_interface(text).ip
    return address in ipaddress.ip_network(pool.prefix)


def _pool(pools: Pools, network: str, one: Range) -> Pool:
    name = space(network)
    present = [pool for pool in pools.pools(name) if pool.version == one.version]
    if not one.subnet:
        if present:
            return present[0]
        found, _ = pools.request_pool(name, v6=one.version == 6, avoid=_host_routes())
        return pools.pool(found)
    subnet = ipaddress.ip_network(one.subnet)
    for pool in present:
        # What another configuration of this network left behind, once nobody has it any more.
        if pool.prefix != one.subnet and ipaddress.ip_network(pool.prefix).overlaps(subnet):
            if not any(held.owner for held in pools.addresses(pool.id)):
                pools.release_pool(pool.id)
    found, _ = pools.request_pool(name, one.subnet, shared=True)
    return pools.pool(found)


def _host_routes() -> list[str]:
    """Where this host sends IPv4 already (proc_net_route: addresses in the host's byte order)."""
    found = []
    with suppress(OSError), open(ROUTES) as file:  # a kernel without it has no such routes
        for line in list(file)[1:]:
            fields = line.split()
            address, mask = (int.from_bytes(bytes.fromhex(fields[column])[::-1], "big")
                             for column in (1, 7))
            if mask:
                found.append(f"{ipaddress.IPv4Address(address)}/{mask.bit_count()}")
    return found
