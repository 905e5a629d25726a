# SPDX-License-Identifier: Apache-2.0
"""What does not fit together in a wanted state whose tables are right by themselves.

Used by config (a whole file), inventory (a change) and wanted. Uses parts, claims and the model.

A whole state is checked as a change from nothing. A change is checked where it can do harm: the
parts that come, and those that stay and speak of what changes. ``label`` names a part in messages.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from byway.control.claims import claims, switch_claims, twice
from byway.control.fitting_services import of_port, of_service
from byway.control.model import (
    ClusterConfig,
    Config,
    EntryConfig,
    FunctionConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    RouterConfig,
    ServiceConfig,
    SwitchConfig,
    UnderlayConfig,
)
from byway.control.network_values import overlapping
from byway.control.parts import SECTIONS, UNDERLAY, WORDS, Key, Kind, Part, Parts, mentions
from byway.control.problem import Problem, nearest, shown

Label = Callable[[Key], str]
_HEADERS = {4: "Ethernet 14, VXLAN 8, UDP 8, IPv4 20", 6: "Ethernet 14, VXLAN 8, UDP 8, IPv6 40"}


class _View:
    """The state after a change."""

    def __init__(self, parts: Parts, after: Mapping[Key, Part | None], known: set[Key]) -> None:
        self._parts = parts
        self._after = after
        self.known = known

    def get(self, key: Key) -> Part | None:
        return self._after[key] if key in self._after else self._parts.get(key)

    def network(self, name: str) -> NetworkConfig | None:
        found = self.get(Key("network", name))
        return found if isinstance(found, NetworkConfig) else None

    @property
    def underlay(self) -> UnderlayConfig | None:
        found = self.get(UNDERLAY)
        return found if isinstance(found, UnderlayConfig) else None

    def names(self, kind: str) -> set[str]:
        names = {key.name for key in self._parts if key.kind == kind}
        for key, part in self._after.items():
            if key.kind == kind:
                names = names - {key.name} if part is None else names | {key.name}
        return names


def misfits(
    parts: Parts, after: Mapping[Key, Part | None], label: Label = str,
    known: Iterable[Key] = (),
) -> list[Problem]:
    """What is wrong with the state that ``after`` makes of ``parts``. ``known``: parts that are
    there, too, but have problems of their own, told elsewhere."""
    view = _View(parts, after, set(known))
    problems: dict[Problem, None] = {}
    for key, part in after.items():
        if part is not None:
            found = [*_unknown(view, key, part, label), *_misfits(view, key, part, label)]
            problems.update(dict.fromkeys(found))
    for key in _neighbours(parts, after):
        if part := parts.get(key):
            found = [*_unknown(view, key, part, label), *_misfits(view, key, part, label)]
            problems.update(dict.fromkeys(found))
    return list(problems)


def _neighbours(parts: Parts, after: Mapping[Key, Part | None]) -> Iterator[Key]:
    """Those that stay as they are and speak of what changes, where that matters to them."""
    for key, part in after.items():
        if part is None or key.kind in ("network", "underlay", "service", "port"):
            yield from (user for user in parts.users(key) if user not in after)
        if key == UNDERLAY:
            yield from (user for user in parts if user not in after
                        and user.kind in ("host", "network"))


def left_behind(parts: Parts, after: Mapping[Key, Part | None]) -> dict[Key, list[Key]]:
    """The parts that go, with those that would still speak of them."""
    found: dict[Key, list[Key]] = {}
    for gone, part in after.items():
        if part is not None or parts.get(gone) is None:
            continue
        users = dict.fromkeys([*parts.users(gone), *(k for k, p in after.items() if p)])
        if left := [user for user in users if _speaks(after.get(user, parts.get(user)), gone)]:
            found[gone] = left
    return found


def _speaks(part: Part | None, of: Key) -> bool:
    return part is not None and any(mention.of == of for mention in mentions(part))


def _unknown(view: _View, key: Key, part: Part, label: Label) -> Iterator[Problem]:
    """The parts that one speaks of and that are not there."""
    for mention in mentions(part):
        if view.get(mention.of) is None and mention.of not in view.known:
            kind, name = mention.of
            yield no_such(f"{label(key)}: {mention.where}", WORDS[kind], name,
                          view.names(kind) | {k.name for k in view.known if k.kind == kind},
                          f"[[{SECTIONS[kind]}]]")


def no_such(key: str, word: str, name: str, known: Iterable[str], section: str) -> Problem:
    """``key`` names a part that is not there; ``known`` are."""
    known = sorted(known)
    fix = nearest(name, known)
    if not fix:
        listed = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
        fix = (f"the {word}s are: {listed}" if known
               else f"define one with a line {section} and its name")
        if section == "[[function]]":
            fix += '; one of a file is written "guard.py:RateGuard"'
    return Problem(key, f"there is no {word} {shown(name)}", fix)


def _misfits(view: _View, key: Key, part: Part, label: Label) -> Iterator[Problem]:
    where = label(key)
    match part:
        case UnderlayConfig():
            yield from _of_underlay(view, part, where)
        case NetworkConfig():
            yield from _of_network(view, part, where)
        case HostConfig():
            yield from _of_host(view, part, where)
        case EntryConfig():
            yield from _of_entry(view, part, where)
        case RouterConfig():
            yield from _of_router(view, part, where)
        case GroupConfig() | FunctionConfig():
            return
        case ServiceConfig():
            yield from of_service(view, part, where)
        case port:
            yield from of_port(view, port, where)
            yield from _outside(f"{where}: ips", port.ips, view.network(port.network))


def _of_underlay(view: _View, underlay: UnderlayConfig, where: str) -> Iterator[Problem]:
    port = view.get(Key("port", underlay.uplink or ""))
    if port is None:
        return
    through = next((n for n in getattr(port, "networks", ()) if (
        network := view.network(n)) and network.vni is not None), None)
    if through:
        yield Problem(f"{where}: uplink", f'port "{underlay.uplink}" is in network "{through}",'
                      " which has a vni: its tunnels would go through themselves",
                      "give the uplink a network of its own, without a vni")


def _of_network(view: _View, network: NetworkConfig, where: str) -> Iterator[Problem]:
    underlay = view.underlay
    if network.vni is None or underlay is None or underlay.mtu is None:
        return
    if "mtu" not in network.model_fields_set:  # it is made to fit (mtus.py)
        return
    most = underlay.mtu - underlay.overhead
    if network.mtu > most:
        yield Problem(
            f"{where}: mtu", f"is {network.mtu}, but the underlay's is {underlay.mtu} and a tunnel"
            f" takes {underlay.overhead} of it ({_HEADERS[underlay.family]})",
            f"write {most} or less, or leave mtu out")


def _of_host(view: _View, host: HostConfig, where: str) -> Iterator[Problem]:
    underlay = view.underlay
    if underlay is None and UNDERLAY in view.known:
        return
    if underlay is None:
        yield Problem(where, "there is no [underlay] that its tunnel could take",
                      "add [underlay] with the address of this host")
    elif (":" in host.address) != (":" in underlay.address):
        yield Problem(f"{where}: address", f'"{host.address}" is not of the family of the'
                      f' underlay\'s address, "{underlay.address}"',
                      "write both as IPv4 addresses or both as IPv6 addresses")
    for name in host.networks:
        network = view.network(name)
        if network and network.vni is None:
            yield _no_vni(f"{where}: networks", name)


def _no_vni(key: str, network: str) -> Problem:
    return Problem(key, f'network "{network}" has no vni, so it ends at this host',
                   "give the network a vni, the same on every host")


def _of_entry(view: _View, entry: EntryConfig, where: str) -> Iterator[Problem]:
    network = view.network(entry.network)
    if network and network.vni is None:
        yield _no_vni(f"{where}: network", entry.network)
    if network and network.gateway_mac == entry.mac:
        yield Problem(f"{where}: mac", "is that of the network's gateway, which every host has",
                      "leave the entry out")
    yield from _outside(f"{where}: ips", entry.ips, network)


def _outside(key: str, ips: Iterable[str], network: NetworkConfig | None) -> Iterator[Problem]:
    """Addresses that are in none of a network's subnets; every network has link-local ones."""
    if network is None or not network.subnets:
        return
    for text in ips:
        link_local = ipaddress.ip_address(text).is_link_local
        if not (link_local or _within(text, network.subnets)):
            yield Problem(key, f"{shown(text)} is in none of the subnets of network"
                          f' "{network.name}" ({", ".join(network.subnets)})',
                          "take an address of them, or add a subnet")


def _within(ip: str, subnets: Iterable[str]) -> bool:
    return any(ipaddress.ip_address(ip) in ipaddress.ip_network(subnet) for subnet in subnets)


def _of_router(view: _View, router: RouterConfig, where: str) -> Iterator[Problem]:
    networks = [network for name in router.networks if (network := view.network(name))]
    for network in networks:
        if not network.gateway:
            yield Problem(f"{where}: networks", f'network "{network.name}" has no gateway',
                          'give it the router\'s address there: gateway = ["10.0.0.1/24"]')
    owner = {subnet: network.name for network in networks for subnet in network.reach}
    if sum(len(network.reach) for network in networks) > len(owner):
        twice_there = next(s for n in networks for s in n.reach if owner[s] != n.name)
        yield _overlap(where, twice_there, twice_there)
    elif pair := overlapping(owner):
        yield _overlap(where, f"{pair[0]} of {owner[pair[0]]}", f"{pair[1]} of {owner[pair[1]]}")
    ours = {one.split("/")[0] for network in networks for one in network.gateway}
    routed = dict.fromkeys(subnet for network in networks for subnet in network.routed)
    for number, route in enumerate(router.routes, 1):
        key = f"{where}: routes[{number}].via"
        if route.via in ours:
            yield Problem(key, f'"{route.via}" is the router itself', "name another machine")
        elif not _within(route.via, routed) or _of_a_link(route.via):
            yield Problem(key, f'"{route.via}" is in none of the subnets of the router\'s gateways'
                          f" ({', '.join(routed) or 'they have none'})",
                          "name a machine in one of them")


def _of_a_link(ip: str) -> bool:
    """An IPv6 link-local address: no router tells which of its links is meant (RFC 4291, 2.5.6)."""
    return ":" in ip and ipaddress.ip_address(ip).is_link_local


def _overlap(where: str, first: str, second: str) -> Problem:
    problem = (f"two of them have the subnet {first}" if first == second
               else f"their subnets overlap: {first}, {second}")
    return Problem(f"{where}: networks", problem,
                   "give each network subnets of its own, or join them by different routers")


class Labelled(NamedTuple):
    """A part and what it is called in messages."""

    label: str
    key: Key
    part: Part


def cross_check(config: Config) -> list[Problem]:
    """What does not fit together in a whole state."""
    every = (((UNDERLAY, config.underlay),) if config.underlay else ())
    lists: tuple[tuple[Kind, tuple[Part, ...]], ...] = (
        ("network", config.networks), ("host", config.hosts), ("entry", config.entries),
        ("router", config.routers), ("group", config.groups), ("function", config.functions),
        ("service", config.services),
        ("port", config.ports))
    named = [*every, *((Key(kind, part.name), part)  # type: ignore[union-attr]
                       for kind, parts in lists for part in parts)]
    return together(config.switch, config.cluster,
                    [Labelled(str(key), key, part) for key, part in named])


def together(switch: SwitchConfig, cluster: ClusterConfig | None, every: Sequence[Labelled],
             known: Iterable[Key] = ()) -> list[Problem]:
    """What does not fit together in a whole state; ``known`` as for misfits."""
    problems = []
    first: dict[Key, str] = {}
    for label, key, _ in every:
        if key in first:
            problems.append(Problem(
                *(f"{label}: name", f"{shown(key.name)} is also that of {first[key]}: name",
                  "give it another name") if key.kind != "entry" else
                (f"{label}: mac", f"{first[key]} is of the same guest", "leave one of them out")))
        first.setdefault(key, label)
    after: dict[Key, Part | None] = {key: part for _, key, part in every}
    problems += misfits(Parts(), after, lambda key: first[key], known)
    if cluster and UNDERLAY not in after and UNDERLAY not in known:
        problems.append(Problem("cluster", "there is no [underlay] that tunnels could take",
                                "add [underlay] with the address of this host"))
    needed = chain(switch_claims(switch), *(claims(part, label) for label, _, part in every))
    return problems + twice(needed, {})
