# SPDX-License-Identifier: Apache-2.0
"""The router's tables, made from plain values. See router.py for what is done with them.

Used by control (all methods belong to its thread); uses machine, routes.py, gateway.py.

    routing = Routing(hz)
    routing.set_population(population.address)
    routing.install([Gateway(3, port=70, mac=0x020000000001, addresses=("10.0.0.1/24",), mtu=1500),
                     Gateway(4, port=71, mac=0x020000000001, addresses=("10.0.1.1/24",), mtu=1450)],
                    [Router((3, 4), (("0.0.0.0/0", "10.0.0.254"),))])

``install`` makes the tables of what has changed and publishes all by one store, so a worker sees
the old ones or the new ones. It may still be reading the old ones in the pass that it is in: their
memory is handed to whoever asked by ``on_moved``, to be kept until every worker has ended a pass.
No change pauses a worker.
"""

import ipaddress
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from byway.machine.dual import signed
from byway.machine.layout import address_of, alloc
from byway.switch.fdb import CLOCK_SHIFT, MAX_PORTS
from byway.switch.gateway import ADDRESS, GATEWAY
from byway.switch.router_limits import ASKED, FRACTION, LIMITS, ROUTER
from byway.switch.routes import (
    ALL_ADDRESSES,
    DISCARD,
    FORWARD,
    LOCAL,
    MAPPED,
    MAPPED_BITS,
    ROUTE,
    Routes,
    halves,
)

# Of each port, in a second, and how many of them at once.
ERRORS, ERRORS_AT_ONCE = 100, 50
REQUESTS, REQUESTS_AT_ONCE = 100, 50

# Destinations that no router forwards to: RFC 1122, 3.2.1.3; RFC 3927; RFC 4291.
NOT_ROUTED = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "fe80::/10", "ff00::/8")

_WORD = np.dtype("<i8")
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RoutingError(ValueError):
    """Gateways or routes that cannot be: the problem, and what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True)
class Gateway:
    """A network's gateway. ``network``, ``port``: numbers, of the network and of the router's port
    there. ``mac``: a number of 48 bits. ``addresses``: texts with the subnet's prefix length.
    ``mtu``: of the network, bytes of IP. ``tunnels``: serve frames from tunnels, too."""

    network: int
    port: int
    mac: int
    addresses: tuple[str, ...]
    mtu: int = 1500
    tunnels: bool = False

    def interfaces(self) -> list[Interface]:
        """Its addresses, and with IPv6 the link-local one as well, last (RFC 4291, 2.8)."""
        made: list[Interface] = []
        for text in self.addresses:
            try:
                made.append(ipaddress.ip_interface(text))
            except ValueError:
                raise RoutingError(f"the gateway address {text!r} is none",
                                   'write it with its prefix length, as "10.0.0.1/24"') from None
        if any(i.version == 6 for i in made):
            made.append(link_local(self.mac))
        return made


@dataclass(frozen=True)
class Router:
    """Networks (by number) that are joined, and static routes: (prefix, next hop), both texts."""

    networks: tuple[int, ...]
    routes: tuple[tuple[str, str], ...] = ()


def link_local(mac: int) -> ipaddress.IPv6Interface:
    """The link-local address of an interface with this MAC address (RFC 4291, appendix A)."""
    upper, lower = mac >> 24, mac & 0xFFFFFF
    identifier = (upper ^ 0x020000) << 40 | 0xFFFE << 24 | lower
    return ipaddress.IPv6Interface((0xFE80 << 112 | identifier, 64))


def as_number(address: Address) -> int:
    """128 bits; IPv4 as ::ffff:a.b.c.d."""
    return int(address) | (MAPPED if address.version == 4 else 0)


def as_bits(prefix: Prefix) -> int:
    """The length of a prefix among addresses of 128 bits."""
    return prefix.prefixlen + (MAPPED_BITS if prefix.version == 4 else 0)


class _Joined:
    """The tables of one router: the records of its gateways, and the routes that they share.

    ``kept``: memory that lives as long as a worker may read it.
    """

    def __init__(self, gateways: tuple[Gateway, ...], routes: tuple[tuple[str, str], ...]) -> None:
        self.kept: list[Any] = []
        self._gateways = gateways
        self._interfaces = {g.network: g.interfaces() for g in gateways}
        self._records = alloc(GATEWAY, len(gateways), 64)
        first, step = address_of(self._records), GATEWAY.itemsize
        self.places = {g.network: first + step * k for k, g in enumerate(gateways)}
        self._own: dict[tuple[int, Interface], int] = {}  # ADDRESS by network and address
        for gateway, row in zip(gateways, self._records, strict=True):
            self._fill(gateway, row)
        self.routes = Routes(self._prefixes(routes))
        self._records["routes"] = self.routes.address

    def _fill(self, gateway: Gateway, row: Any) -> None:
        interfaces = self._interfaces[gateway.network]
        addresses = alloc(_WORD, 4 * max(1, len(interfaces)), 64)
        for k, interface in enumerate(interfaces):
            mask = ALL_ADDRESSES - (1 << 128 - as_bits(interface.network))
            addresses[4 * k : 4 * k + 4] = *halves(as_number(interface.ip)), *halves(mask)
            self._own[gateway.network, interface] = address_of(addresses) + ADDRESS * k
        row["number"], row["port"], row["mtu"] = gateway.network, gateway.port, gateway.mtu
        row["mac"], row["tunnels"] = signed(gateway.mac << 16), gateway.tunnels
        row["addresses"], row["n"] = address_of(addresses), len(interfaces)
        self.kept.append(addresses)

    def _prefixes(self, routes: tuple[tuple[str, str], ...]) -> list[tuple[int, int, int]]:
        """All prefixes with their ROUTEs. Of equal ones the last counts."""
        subnets = self._subnets()
        discard, local = self._route(DISCARD), self._route(LOCAL)
        made = [(*_prefix(text), discard) for text in NOT_ROUTED]
        known: set[str] = set()
        for to, via in routes:
            if to in known:
                raise RoutingError(f"there are two routes to {to}", "keep one of them")
            known.add(to)
            made.append(self._static(to, via, subnets))
        for prefix, (number, interface) in subnets.items():
            forward = self._route(FORWARD, number, interface)
            made.append((as_number(prefix.network_address), as_bits(prefix), forward))
        made += [(as_number(end), 128, discard) for prefix in subnets
                 if prefix.version == 4 and prefix.prefixlen <= 30
                 for end in (prefix.network_address, prefix.broadcast_address)]
        made += [(as_number(i.ip), 128, local) for _, i in self._own if not _of_a_link(i)]
        return made

    def _subnets(self) -> dict[Prefix, tuple[int, Interface]]:
        """Which network each subnet is in, and the gateway's address there."""
        found: dict[Prefix, tuple[int, Interface]] = {}
        for number, interface in self._own:
            if not _of_a_link(interface):
                if found.get(interface.network, (number, interface))[0] != number:
                    raise _overlap(interface.network, interface.network)
                found.setdefault(interface.network, (number, interface))
        ordered = sorted(found, key=lambda p: (as_number(p.network_address), as_bits(p)))
        for one, other in pairwise(ordered):  # of overlapping ones two are neighbours
            if one.version == other.version and one.overlaps(other):
                raise _overlap(one, other)
        return found

    def _static(self, to: str, via: str,
                subnets: dict[Prefix, tuple[int, Interface]]) -> tuple[int, int, int]:
        first, bits = _prefix(to)
        try:
            hop = ipaddress.ip_address(via)
        except ValueError:
            raise RoutingError(f"the next hop {via!r} of {to} is no address",
                               'write "10.0.0.254"') from None
        if (hop.version == 4) != (bits >= MAPPED_BITS and first >> 32 == 0xFFFF):
            raise RoutingError(f"the route to {to} by {via} mixes IPv4 and IPv6",
                               "name a next hop of the same version")
        for prefix, (number, interface) in subnets.items():
            if hop in prefix:
                if any(hop == own.ip for own in self._interfaces[number]):
                    raise RoutingError(f"the next hop {via} of {to} is the router itself",
                                       "name another station of the subnet")
                return first, bits, self._route(FORWARD, number, interface, hop)
        raise RoutingError(f"the next hop {via} of {to} is in none of the router's subnets",
                           "name an address in one of them")

    def _route(self, kind: int, network: int = -1, own: Interface | None = None,
               via: Address | None = None) -> int:
        made = alloc(ROUTE, 1, 64)
        made["kind"] = kind
        if own is not None:
            made["gateway"], made["source"] = self.places[network], self._own[network, own]
        if via is not None:
            made["via_high"], made["via_low"] = halves(as_number(via))
        self.kept.append(made)
        return address_of(made)


class _Installed:
    """The tables of one ``install``. What is as it was in ``before`` is taken over from there."""

    def __init__(self, gateways: Sequence[Gateway], routers: Sequence[Router],
                 before: "_Installed | None" = None) -> None:
        known = before.parts if before else {}
        by_network = {g.network: g for g in gateways}
        if len(by_network) != len(gateways):
            raise RoutingError("a network has two gateways", "give it one with all addresses")
        joined = [number for router in routers for number in router.networks]
        if len(set(joined)) != len(joined):
            raise RoutingError("a network is joined twice", "name it in one router, once")
        if missing := set(joined) - by_network.keys():
            raise RoutingError(f"network {min(missing)} has no gateway",
                               "give it one, or take it out of the router")
        alone = [Router((number,)) for number in sorted(by_network.keys() - set(joined))]
        self.parts: dict[Any, _Joined] = {}
        self.networks = alloc(_WORD, 2 + max(by_network, default=-1), 64)
        self.networks[0] = len(self.networks) - 1
        for router in (*routers, *alone):
            key = tuple(by_network[number] for number in router.networks), router.routes
            made = self.parts[key] = known.get(key) or _Joined(*key)
            for number, place in made.places.items():
                self.networks[1 + number] = place


def _overlap(one: Prefix, other: Prefix) -> RoutingError:
    return RoutingError(f"the subnets {one} and {other} overlap",
                        "a router cannot tell their addresses apart: change one of them")


def _of_a_link(interface: Interface) -> bool:
    """Is it an IPv6 link-local address? They are the same on every network, so none is routed."""
    return interface.version == 6 and interface.ip.is_link_local


def _prefix(text: str) -> tuple[int, int]:
    try:
        prefix = ipaddress.ip_network(text)
    except ValueError as error:
        raise RoutingError(f"the route's destination {text!r} is no prefix: {error}",
                           'write "10.1.0.0/16"') from None
    return as_number(prefix.network_address), as_bits(prefix)


class Routing:
    """The tables of a switch. ``address``: of its ROUTER record, which never moves."""

    def __init__(self, hz: float) -> None:
        """``hz``: ticks of the time stamp counter in a second."""
        self._limits = alloc(np.dtype("u1"), LIMITS * (MAX_PORTS + 1), 64)
        self._asked = alloc(_WORD, ASKED, 64)
        self._installed = _Installed((), ())
        self._keep: Callable[[Any], None] = [].append
        self.record = alloc(ROUTER, 1, 64)
        row = self.record[0]
        row["networks"] = address_of(self._installed.networks)
        row["limits"], row["asked"] = address_of(self._limits), address_of(self._asked)
        row["seed"] = secrets.randbits(63)
        second = hz / (1 << CLOCK_SHIFT)
        row["second"] = int(second) + 1
        unit = second * (1 << FRACTION)
        row["error_interval"], row["ask_interval"] = unit / ERRORS, unit / REQUESTS
        row["error_burst"] = unit * (ERRORS_AT_ONCE - 1) / ERRORS
        row["ask_burst"] = unit * (REQUESTS_AT_ONCE - 1) / REQUESTS
        self.address = address_of(self.record)

    def on_moved(self, callback: Callable[[Any], None]) -> None:
        """``callback`` is given memory that no worker will find any more, to be kept until each has
        ended a pass. To be set before workers know the router."""
        self._keep = callback

    def set_population(self, address: int) -> None:
        """Where MAC addresses of next hops are looked up: a POPULATION record. To be set before
        anything is installed."""
        self.record["population"] = address

    def install(self, gateways: Iterable[Gateway], routers: Iterable[Router] = ()) -> None:
        """These are all gateways and routers from now on. A gateway in no router routes between the
        subnets of its own network only. RoutingError: they cannot be; nothing has changed then."""
        made = _Installed(tuple(gateways), tuple(routers), self._installed)
        before, self._installed = self._installed, made
        self.record["networks"] = address_of(made.networks)
        self._keep(before)


def check(gateways: Iterable[Gateway], routers: Iterable[Router] = ()) -> None:
    """RoutingError where ``install`` would raise it."""
    _Installed(tuple(gateways), tuple(routers))
