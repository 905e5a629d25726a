# SPDX-License-Identifier: Apache-2.0
"""The parts of a wanted state by kind and name, and which of them speak of which.

Used by diff (of a whole state), inventory (what a running switch has) and fitting. Uses the model.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from byway.control.model import (
    Config,
    EntryConfig,
    FunctionConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    PortConfig,
    RouterConfig,
    ServiceConfig,
    UnderlayConfig,
    steps,
)

Kind: TypeAlias = Literal[
    "underlay", "group", "function", "service", "network", "host", "entry", "router", "port"]
Part: TypeAlias = (UnderlayConfig | GroupConfig | FunctionConfig | ServiceConfig | NetworkConfig
                   | HostConfig | EntryConfig | RouterConfig | PortConfig)
# What a user calls them, and the section of a file that they stand in.
WORDS: dict[Kind, str] = {
    "underlay": "underlay", "group": "security group", "function": "network function",
    "service": "service", "network": "network", "host": "host", "entry": "entry",
    "router": "router", "port": "port"}
SECTIONS: dict[Kind, str] = {
    "underlay": "underlay", "group": "security_group", "function": "function", "service": "service",
    "network": "network", "host": "host", "entry": "entry", "router": "router", "port": "port"}


class Key(NamedTuple):
    """Names one part. The underlay's name is empty: there is one."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f'{WORDS[self.kind]} "{self.name}"' if self.name else WORDS[self.kind]


UNDERLAY = Key("underlay", "")


class Mention(NamedTuple):
    """A part speaks of another one, under a key of its own table."""

    of: Key
    where: str


def parts_of(config: Config) -> dict[Key, Part]:
    """All parts of a configuration, in its order; of two with one name, the last."""
    found: dict[Key, Part] = {UNDERLAY: config.underlay} if config.underlay else {}
    lists: tuple[tuple[Kind, Iterable[Any]], ...] = (
        ("group", config.groups), ("function", config.functions),
        ("service", config.services), ("network", config.networks),
        ("host", config.hosts), ("entry", config.entries), ("router", config.routers),
        ("port", config.ports))
    for kind, parts in lists:
        found.update((Key(kind, part.name), part) for part in parts)
    return found


_KINDS: dict[type[Any], Kind] = {
    UnderlayConfig: "underlay", GroupConfig: "group", FunctionConfig: "function",
    ServiceConfig: "service", NetworkConfig: "network", HostConfig: "host", EntryConfig: "entry",
    RouterConfig: "router"}


def key_of(part: Part) -> Key:
    """What names a part."""
    return UNDERLAY if isinstance(part, UnderlayConfig) else Key(
        _KINDS.get(type(part), "port"), part.name)


def mentions(part: Part) -> Iterator[Mention]:
    """What other parts a part speaks of; one more than once where it does so."""
    match part:
        case UnderlayConfig(uplink=str() as port):
            yield Mention(Key("port", port), "uplink")
        case GroupConfig(rules=rules):
            for number, rule in enumerate(rules, 1):
                if rule.remote_group:
                    yield Mention(Key("group", rule.remote_group), f"rules[{number}].remote_group")
        case HostConfig(networks=networks) | RouterConfig(networks=networks):
            for network in networks:
                yield Mention(Key("network", network), "networks")
        case EntryConfig(network=network, host=host):
            yield Mention(Key("network", network), "network")
            yield Mention(Key("host", host), "host")
        case NetworkConfig(chain=chain):
            yield from _of_chain(chain, "chain")
        case ServiceConfig(appliances=appliances):
            for number, one in enumerate(appliances, 1):
                yield Mention(Key("port", one.left), f"appliances[{number}].left")
                yield Mention(Key("port", one.right), f"appliances[{number}].right")
        case UnderlayConfig() | FunctionConfig():
            return
        case port:
            yield Mention(Key("network", port.network), "network")
            for tag, network in port.vlans:
                yield Mention(Key("network", network), f"vlans.{tag}")
            for group in port.security_groups:
                yield Mention(Key("group", group), "security_groups")
            if port.mirror:
                yield Mention(Key("port", port.mirror.to), "mirror.to")
            for service in port.services:
                yield Mention(Key("service", service), "services")
            yield from _of_chain(port.chain, "chain")
            yield from _of_chain(port.chain_tx, "chain_tx")


def _of_chain(chain: tuple[str, ...], where: str) -> Iterator[Mention]:
    for step in steps(chain):
        if step.name:
            yield Mention(Key("function", step.name), where)


class Parts:
    """Parts that change one by one; a change costs the same however many there are."""

    def __init__(self, parts: Mapping[Key, Part] | None = None) -> None:
        self._by_kind: dict[Kind, dict[str, Any]] = {kind: {} for kind in WORDS}
        self._users: dict[Key, dict[Key, None]] = {}
        for key, part in (parts or {}).items():
            self.put(key, part)

    def all(self, kind: Kind) -> dict[str, Any]:
        """The parts of one kind by name, in the order of their coming; to be read only."""
        return self._by_kind[kind]

    def get(self, key: Key) -> Part | None:
        """One of them, or None."""
        part: Part | None = self._by_kind[key.kind].get(key.name)
        return part

    def __iter__(self) -> Iterator[Key]:
        """The keys of all of them."""
        for kind, parts in self._by_kind.items():
            yield from (Key(kind, name) for name in parts)

    def users(self, key: Key) -> Iterable[Key]:
        """Those that speak of this one; whether it is there or not."""
        return self._users.get(key, {})

    def put(self, key: Key, part: Part) -> None:
        """Have this part; in place of that of this name."""
        self.drop(key)
        self._by_kind[key.kind][key.name] = part
        for mention in mentions(part):
            self._users.setdefault(mention.of, {})[key] = None

    def drop(self, key: Key) -> None:
        """Have it no longer, if it was there."""
        part = self._by_kind[key.kind].pop(key.name, None)
        for mention in mentions(part) if part else ():
            users = self._users.get(mention.of, {})
            users.pop(key, None)
            if not users:
                self._users.pop(mention.of, None)
