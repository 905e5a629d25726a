# SPDX-License-Identifier: Apache-2.0
"""What must be done to come from one wanted state to another: pure functions over passive data.

Used by wanted (which has the engine apply the actions), inventory and the tests. Uses parts, the
model and the actions.

Theory of operation
-------------------
What is as it was stays untouched. A part that changed is changed in place where that can be done
without anybody noticing (a security group, a network function, some keys of ports and networks);
else it goes and comes again, *renewed*, and with it what cannot be without it: the ports, entries
and routers of a network, the entries of a host, every host where the underlay changes.

The order is valid at every step: what stands on others goes first and comes last. A security group
or network function goes after the ports that had it have others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byway.control.actions import (
    Action,
    AddEntry,
    AddFunction,
    AddGroup,
    AddHost,
    AddNetwork,
    AddPort,
    AddRouter,
    AddService,
    ChangeFunction,
    ChangeGroup,
    ChangeNetwork,
    ChangePort,
    ChangeService,
    RemoveEntry,
    RemoveFunction,
    RemoveGroup,
    RemoveHost,
    RemoveNetwork,
    RemovePort,
    RemoveRouter,
    RemoveService,
    SetUnderlay,
)
from byway.control.model import (
    IN_PLACE,
    Config,
    EntryConfig,
    FunctionConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    PortConfig,
    RouterConfig,
    ServiceConfig,
)
from byway.control.parts import UNDERLAY, Key, Kind, Part, Parts, parts_of

# Keys of a network that frames on their way do not notice.
_NETWORK_IN_PLACE = frozenset({"ageing", "learning", "unknown", "subnets", "gateway", "gateway_mac",
                               "responder", "chain"})
# What goes and comes again with a part that does: by its kind, those that speak of it.
_STANDS_ON: dict[Kind, frozenset[Kind]] = {
    "network": frozenset({"port", "entry", "router"}), "host": frozenset({"entry"}),
    "port": frozenset({"underlay"})}
_REMOVED: tuple[Kind, ...] = ("router", "entry", "host", "underlay", "port", "network")
_ADDED_FIRST: tuple[Kind, ...] = ("group", "function", "service", "network", "port")
_GO_LAST: tuple[Kind, ...] = ("group", "function", "service")  # ports had them until just now
_ADDED_LAST: tuple[Kind, ...] = ("underlay", "host", "entry", "router")


@dataclass(frozen=True)
class Change:
    """What is to go and what is to come; a part in place of one of the same name replaces it.

    ``remove_entries``: names of entries, "network/mac"."""

    add_networks: Sequence[NetworkConfig] = ()
    add_ports: Sequence[PortConfig] = ()
    remove_ports: Sequence[str] = ()
    remove_networks: Sequence[str] = ()
    add_hosts: Sequence[HostConfig] = ()
    add_entries: Sequence[EntryConfig] = ()
    add_groups: Sequence[GroupConfig] = ()
    add_functions: Sequence[FunctionConfig] = ()
    add_services: Sequence[ServiceConfig] = ()
    add_routers: Sequence[RouterConfig] = ()
    remove_hosts: Sequence[str] = ()
    remove_entries: Sequence[str] = ()
    remove_groups: Sequence[str] = ()
    remove_functions: Sequence[str] = ()
    remove_services: Sequence[str] = ()
    remove_routers: Sequence[str] = ()

    def after(self) -> dict[Key, Part | None]:
        """What becomes of each part that it speaks of; None: it goes."""
        gone: tuple[tuple[Kind, Sequence[str]], ...] = (
            ("port", self.remove_ports), ("network", self.remove_networks),
            ("host", self.remove_hosts), ("entry", self.remove_entries),
            ("group", self.remove_groups), ("function", self.remove_functions),
            ("service", self.remove_services),
            ("router", self.remove_routers))
        come: tuple[tuple[Kind, Sequence[Any]], ...] = (
            ("network", self.add_networks), ("port", self.add_ports), ("host", self.add_hosts),
            ("entry", self.add_entries), ("group", self.add_groups),
            ("function", self.add_functions), ("service", self.add_services),
            ("router", self.add_routers))
        found: dict[Key, Part | None] = {Key(k, name): None for k, names in gone for name in names}
        for kind, parts in come:
            found.update((Key(kind, part.name), part) for part in parts)
        return found


def diff(old: Config, new: Config) -> list[Action]:
    """The actions that lead from old to new, in an order that is valid at every step.

    The keys of [switch] and [cluster] are no part of it: see needs_restart().
    """
    before, wanted = parts_of(old), parts_of(new)
    after: dict[Key, Part | None] = {key: None for key in before if key not in wanted}
    after.update(wanted)
    return actions(Parts(before), after)


def actions(has: Parts, after: Mapping[Key, Part | None]) -> list[Action]:
    """The actions that make of the parts there are what ``after`` says of those in it."""
    changed = {key: part for key, part in after.items() if has.get(key) != part}
    renewed = _renewed(has, changed)
    # What stays what it is comes first: where two do not go together, the other one is to blame.
    touched: dict[Key, Part | None] = {
        key: has.get(key) for key in renewed if key not in changed}
    touched.update(changed)
    made: list[Action] = []
    for kind in _REMOVED:
        made += [_remove(key) for key in touched if key.kind == kind and has.get(key)
                 and (key in renewed or touched[key] is None)]
    for kind in _ADDED_FIRST:
        made += _come(has, touched, renewed, kind)
    made += [_remove(key) for key, part in touched.items() if key.kind in _GO_LAST and part is None]
    for kind in _ADDED_LAST:
        made += _come(has, touched, renewed, kind)
    return made


def _renewed(has: Parts, changed: Mapping[Key, Part | None]) -> dict[Key, None]:
    """Those that go, changed or not, to come again."""
    found: dict[Key, None] = {}
    ahead = [key for key, part in changed.items() if _goes(key, has.get(key), part)]
    routers = [user for key in changed if key.kind == "network" and key not in ahead
               for user in has.users(key) if user.kind == "router"]
    ahead += routers
    while ahead:
        key = ahead.pop()
        if key in found:
            continue
        found[key] = None
        stands_on = _STANDS_ON.get(key.kind, frozenset())
        ahead += [user for user in has.users(key) if user.kind in stands_on]
        if key == UNDERLAY:
            ahead += [Key("host", name) for name in has.all("host")]
    return found


def _goes(key: Key, old: Part | None, new: Part | None) -> bool:
    """Must the part go before its other form comes?"""
    if old is None or key.kind in _GO_LAST:
        return False
    if new is None:
        return True
    allowed = {"port": IN_PLACE, "network": _NETWORK_IN_PLACE}.get(key.kind, frozenset())
    if type(old) is not type(new):
        return True
    return any(getattr(old, name) != getattr(new, name)
               for name in type(old).model_fields if name not in allowed)


def _remove(key: Key) -> Action:
    match key:
        case Key("router", name):
            return RemoveRouter(name)
        case Key("entry", name):
            network, _, mac = name.partition("/")
            return RemoveEntry(network, mac)
        case Key("host", name):
            return RemoveHost(name)
        case Key("port", name):
            return RemovePort(name)
        case Key("network", name):
            return RemoveNetwork(name)
        case Key("group", name):
            return RemoveGroup(name)
        case Key("function", name):
            return RemoveFunction(name)
        case Key("service", name):
            return RemoveService(name)
    return SetUnderlay(None)


def _come(has: Parts, touched: Mapping[Key, Part | None], renewed: Mapping[Key, None],
          kind: Kind) -> list[Action]:
    """What comes of one kind: changed in place first, then what is new."""
    in_place: list[Action] = []
    added: list[Action] = []
    for key, part in touched.items():
        if key.kind != kind or part is None:
            continue
        old = has.get(key)
        if old is not None and key not in renewed:
            in_place.append(_change(kind, old, part))
        else:
            added.append(_add(kind, part))
    # A changed port may speak of a new one, a new port of a changed network.
    return added + in_place if kind == "port" else in_place + added


def _change(kind: Kind, old: Any, new: Any) -> Action:
    makers: dict[Kind, Any] = {"port": ChangePort, "network": ChangeNetwork, "group": ChangeGroup,
                               "function": ChangeFunction, "service": ChangeService}
    made: Action = makers[kind](old, new)
    return made


def _add(kind: Kind, part: Any) -> Action:
    makers: dict[Kind, Any] = {
        "underlay": SetUnderlay, "group": AddGroup, "function": AddFunction,
        "service": AddService,
        "network": AddNetwork, "host": AddHost, "entry": AddEntry, "router": AddRouter,
        "port": AddPort}
    made: Action = makers[kind](part)
    return made


def needs_restart(old: Config, new: Config) -> list[str]:
    """The keys of [switch] and [cluster] that differ: they are taken up at the next start only."""
    before, after = old.switch.model_dump(), new.switch.model_dump()
    keys = [f"switch.{key}" for key in before if before[key] != after[key]]
    return keys + (["cluster"] if old.cluster != new.cluster else [])


def rebase(current: Config, old_file: Config, new_file: Config) -> Config:
    """What is wanted after a reload: the new file, and what came through the API since.

    What stood in the old file and no longer stands in the new one goes; an entry of the new file
    replaces one of the same name; [switch] and [cluster] stay as they are.
    """
    merged: dict[str, Any] = {}
    for field in ("networks", "hosts", "entries", "routers", "groups", "functions", "services",
                  "ports"):
        listed = {part.name for file in (old_file, new_file) for part in getattr(file, field)}
        merged[field] = getattr(new_file, field) + tuple(
            part for part in getattr(current, field) if part.name not in listed)
    return Config(switch=current.switch, cluster=current.cluster, underlay=new_file.underlay,
                  **merged)
