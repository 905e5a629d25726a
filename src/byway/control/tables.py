# SPDX-License-Identifier: Apache-2.0
"""One table, of a TOML file or of the JSON of the API, as a part of the model.

Used by config (whole files), the API, the store and the cluster. Uses the model and problem. Each
function raises ConfigError with every problem of the table; ``label`` names it in messages.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from byway.control.model import (
    KINDS,
    ClusterConfig,
    EntryConfig,
    FunctionConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    PcapPort,
    PortConfig,
    RouterConfig,
    ServiceConfig,
    SwitchConfig,
    TapPort,
    UnderlayConfig,
)
from byway.control.parts import Kind
from byway.control.problem import (
    ConfigError,
    Problem,
    from_validation,
    kind_of_value,
    nearest,
    shown,
)

# Kinds that the design knows and that come later: worth another message than a typing error.
_LATER_KINDS = ("vhost", "physical")

M = TypeVar("M", bound=BaseModel)


def parse_switch(table: object, label: str = "switch") -> SwitchConfig:
    """The switch itself."""
    return _validate(SwitchConfig, table, "the switch", label)


def parse_cluster(table: object, label: str = "cluster") -> ClusterConfig:
    """The cluster that the switch is in."""
    return _validate(ClusterConfig, table, "the cluster", label)


def parse_underlay(table: object, label: str = "underlay") -> UnderlayConfig:
    """The underlay."""
    return _validate(UnderlayConfig, table, "the underlay", label)


def parse_network(table: object, label: str) -> NetworkConfig:
    """One network."""
    return _validate(NetworkConfig, table, "a network", label)


def parse_host(table: object, label: str) -> HostConfig:
    """One other host."""
    return _validate(HostConfig, table, "a host", label)


def parse_entry(table: object, label: str) -> EntryConfig:
    """One guest behind another host."""
    return _validate(EntryConfig, table, "an entry", label)


def parse_group(table: object, label: str) -> GroupConfig:
    """One security group."""
    return _validate(GroupConfig, table, "a security group", label)


def parse_function(table: object, label: str) -> FunctionConfig:
    """One network function with a name."""
    return _validate(FunctionConfig, table, "a network function", label)


def parse_service(table: object, label: str) -> ServiceConfig:
    """One service."""
    return _validate(ServiceConfig, table, "a service", label)


def parse_router(table: object, label: str) -> RouterConfig:
    """One router."""
    return _validate(RouterConfig, table, "a router", label)


def parse_port(table: object, label: str) -> PortConfig:
    """One port of any kind."""
    kinds = ", ".join(KINDS)
    if not isinstance(table, dict):
        raise ConfigError([Problem(label, f"is {kind_of_value(table)}, not a table",
                                   "write its keys under a line [[port]]")])
    kind = table.get("kind")
    if kind is None:
        raise ConfigError([Problem(f"{label}: kind", "is missing", f"add one of: {kinds}")])
    if not isinstance(kind, str) or kind not in KINDS:
        if kind in _LATER_KINDS:
            problem = Problem(label, f"kind '{kind}' is not in this release", f"kinds: {kinds}")
        else:
            near = nearest(kind, KINDS) if isinstance(kind, str) else ""
            problem = Problem(f"{label}: kind", f"{shown(kind)} is no kind of port",
                              f"{near + ' ' if near else ''}kinds: {kinds}")
        raise ConfigError([problem])
    port: PortConfig = _validate(KINDS[kind], table, f"a {kind} port", label)
    if isinstance(port, PcapPort) and port.read is None and port.write is None:
        raise ConfigError([Problem(label, "has neither read nor write",
                                   "name a file in at least one of the two")])
    if isinstance(port, TapPort) and port.masquerade and not port.address:
        raise ConfigError([Problem(f"{label}: masquerade", "says nothing without an address",
                                   'add one of its network, as in address = ["10.0.0.1/24"]')])
    return port


def _validate(model: type[M], table: object, what: str, label: str) -> M:
    if not isinstance(table, dict):
        raise ConfigError([Problem(label, f"is {kind_of_value(table)}, not a table",
                                   f"write the keys of {what} in it")])
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ConfigError(from_validation(error, model, what, label)) from None


# Of the sections of which a file may have any number of tables.
PARSERS: dict[Kind, Callable[[object, str], Any]] = {
    "network": parse_network, "host": parse_host, "entry": parse_entry, "router": parse_router,
    "group": parse_group, "function": parse_function, "service": parse_service,
    "port": parse_port}
