# SPDX-License-Identifier: Apache-2.0
"""What an engine can be told to do to what it has: passive data. None of it pauses a worker.

Made by diff (two whole states) and inventory (a change), carried out by the engine. Uses the model.

Names may point at what comes later in the same change: members of a security group that another
group speaks of, the port that a mirror goes to, networks of a host that were replaced. The engine
ties them when both are there.
"""

from dataclasses import dataclass
from typing import TypeAlias

from byway.control.model import (
    EntryConfig,
    FunctionConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    PortConfig,
    RouterConfig,
    ServiceConfig,
    UnderlayConfig,
)


@dataclass(frozen=True)
class SetUnderlay:
    """Have this underlay; None: none. There are no hosts while it changes."""

    underlay: UnderlayConfig | None


@dataclass(frozen=True)
class AddGroup:
    """Create a security group."""

    group: GroupConfig


@dataclass(frozen=True)
class ChangeGroup:
    """A security group has other rules from now on; its ports and their connections go on."""

    old: GroupConfig
    new: GroupConfig


@dataclass(frozen=True)
class RemoveGroup:
    """Remove a security group that no port has any more."""

    name: str


@dataclass(frozen=True)
class AddFunction:
    """Have a network function with a name."""

    function: FunctionConfig


@dataclass(frozen=True)
class ChangeFunction:
    """It has another code, parameters or tables; chains that it stands in go on."""

    old: FunctionConfig
    new: FunctionConfig


@dataclass(frozen=True)
class RemoveFunction:
    """Remove a network function that stands in no chain any more."""

    name: str


@dataclass(frozen=True)
class AddService:
    """Have a service; its appliances' ports are no members of their network from now on."""

    service: ServiceConfig


@dataclass(frozen=True)
class ChangeService:
    """A service is done by others, or otherwise, from now on; the ports that have it go on."""

    old: ServiceConfig
    new: ServiceConfig


@dataclass(frozen=True)
class RemoveService:
    """Remove a service that no port has any more."""

    name: str


@dataclass(frozen=True)
class AddNetwork:
    """Create a network."""

    network: NetworkConfig


@dataclass(frozen=True)
class ChangeNetwork:
    """A network has other values from now on; its ports go on. Name, vni, mtu and fdb_limit are
    the same."""

    old: NetworkConfig
    new: NetworkConfig


@dataclass(frozen=True)
class RemoveNetwork:
    """Remove a network that has no ports, entries and routers any more."""

    name: str


@dataclass(frozen=True)
class AddHost:
    """Have a tunnel to another host, and flood these networks to it."""

    host: HostConfig


@dataclass(frozen=True)
class RemoveHost:
    """Have none any more; it has no entries any more."""

    name: str


@dataclass(frozen=True)
class AddEntry:
    """An address is behind another host."""

    entry: EntryConfig


@dataclass(frozen=True)
class RemoveEntry:
    """It no longer is."""

    network: str
    mac: str


@dataclass(frozen=True)
class AddRouter:
    """Join networks."""

    router: RouterConfig


@dataclass(frozen=True)
class RemoveRouter:
    """Join them no longer."""

    name: str


@dataclass(frozen=True)
class AddPort:
    """Open a port and give it to a worker.

    ``patient``: where it cannot be opened now, it is there and down, and opened later."""

    port: PortConfig
    patient: bool = False


@dataclass(frozen=True)
class ChangePort:
    """A port has other values from now on, and goes on: only keys of IN_PLACE differ."""

    old: PortConfig
    new: PortConfig


@dataclass(frozen=True)
class RemovePort:
    """Take a port from its worker and close it."""

    name: str


Action: TypeAlias = (
    SetUnderlay | AddGroup | ChangeGroup | RemoveGroup | AddFunction | ChangeFunction
    | RemoveFunction | AddService | ChangeService | RemoveService | AddNetwork | ChangeNetwork
    | RemoveNetwork | AddHost | RemoveHost | AddEntry | RemoveEntry | AddRouter | RemoveRouter
    | AddPort | ChangePort | RemovePort)
