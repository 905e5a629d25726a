# SPDX-License-Identifier: Apache-2.0
"""What must be done to come from one wanted state to another: pure functions over passive data.

Used by wanted (which has the engine apply the actions), inventory and the tests. Uses model only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from byway.control.model import Config, NetworkConfig, PortConfig


@dataclass(frozen=True)
class AddNetwork:
    """Create a network. Pauses no worker."""

    network: NetworkConfig


@dataclass(frozen=True)
class RemoveNetwork:
    """Remove a network that has no ports any more. Pauses no worker."""

    name: str


@dataclass(frozen=True)
class AddPort:
    """Open a port and give it to a worker. Pauses no worker.

    ``patient``: where it cannot be opened now, it is there and down, and opened later."""

    port: PortConfig
    patient: bool = False


@dataclass(frozen=True)
class RemovePort:
    """Take a port from its worker and close it. Pauses no worker."""

    name: str


Action: TypeAlias = AddNetwork | RemoveNetwork | AddPort | RemovePort


@dataclass(frozen=True)
class Change:
    """What is to go and what is to come; an entry in place of one of the same name replaces it."""

    add_networks: Sequence[NetworkConfig] = ()
    add_ports: Sequence[PortConfig] = ()
    remove_ports: Sequence[str] = ()
    remove_networks: Sequence[str] = ()


def diff(old: Config, new: Config) -> list[Action]:
    """The actions that lead from old to new, in an order that is valid at every step.

    A changed port is removed and added. So is a changed network, and with it its ports. The keys
    of [switch] are no part of it: see needs_restart().
    """
    networks_before = {network.name: network for network in old.networks}
    networks_after = {network.name: network for network in new.networks}
    ports_before = {port.name: port for port in old.ports}
    ports_after = {port.name: port for port in new.ports}
    same_networks = {
        name for name, network in networks_before.items() if networks_after.get(name) == network
    }
    same_ports = {
        name
        for name, port in ports_before.items()
        if ports_after.get(name) == port and port.network in same_networks
    }
    actions: list[Action] = [RemovePort(n) for n in ports_before if n not in same_ports]
    actions += [RemoveNetwork(n) for n in networks_before if n not in same_networks]
    actions += [AddNetwork(w) for n, w in networks_after.items() if n not in same_networks]
    actions += [AddPort(p) for n, p in ports_after.items() if n not in same_ports]
    return actions


def needs_restart(old: Config, new: Config) -> list[str]:
    """The keys of [switch] that differ: they are taken up at the next start only."""
    before, after = old.switch.model_dump(), new.switch.model_dump()
    return [f"switch.{key}" for key in before if before[key] != after[key]]


def rebase(current: Config, old_file: Config, new_file: Config) -> Config:
    """What is wanted after a reload: the new file, and what came through the API since.

    What stood in the old file and no longer stands in the new one goes; an entry of the new file
    replaces one of the same name; [switch] stays as it is.
    """
    listed = {n.name for n in (*old_file.networks, *new_file.networks)}
    networks = new_file.networks + tuple(n for n in current.networks if n.name not in listed)
    listed = {p.name for p in (*old_file.ports, *new_file.ports)}
    ports = new_file.ports + tuple(p for p in current.ports if p.name not in listed)
    return Config(switch=current.switch, networks=networks, ports=ports)
