# SPDX-License-Identifier: Apache-2.0
"""Changes of a Config, in the slow and obvious way: the oracle of inventory.

Used by the tests of control.
"""

from collections.abc import Iterable
from typing import Any

from byway.control.diff import Change
from byway.control.model import Config, NetworkConfig, PortConfig
from byway.control.parts import Kind, parts_of

FIELDS: dict[str, Kind] = {"networks": "network", "hosts": "host", "entries": "entry",
                           "routers": "router", "groups": "group",
                           "functions": "function", "ports": "port"}


def merged(
    config: Config, networks: Iterable[NetworkConfig] = (), ports: Iterable[PortConfig] = ()
) -> Config:
    """`config` with these networks and ports added, or in place of those of the same name."""
    all_networks = {n.name: n for n in (*config.networks, *networks)}
    all_ports = {p.name: p for p in (*config.ports, *ports)}
    return config.model_copy(update={"networks": tuple(all_networks.values()),
                                     "ports": tuple(all_ports.values())})


def without(config: Config, networks: Iterable[str] = (), ports: Iterable[str] = ()) -> Config:
    """`config` without the networks and ports of these names."""
    gone_networks, gone_ports = set(networks), set(ports)
    return Config(
        switch=config.switch,
        networks=tuple(n for n in config.networks if n.name not in gone_networks),
        ports=tuple(p for p in config.ports if p.name not in gone_ports))


def changed(config: Config, change: Change) -> Config:
    """`config` after a change: first what goes, then what comes."""
    parts = parts_of(config)
    for key, part in change.after().items():
        if part is None:
            parts.pop(key, None)
        else:
            parts[key] = part
    made: dict[str, Any] = {field: tuple(part for key, part in parts.items() if key.kind == kind)
                            for field, kind in FIELDS.items()}
    return Config(switch=config.switch, underlay=config.underlay, **made)
