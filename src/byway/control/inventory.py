# SPDX-License-Identifier: Apache-2.0
"""What a running switch has, in a form in which a change costs what it changes.

Used by wanted. Uses diff, claims and the model; passive, like them.

``config()`` gives the same as one Config, which diff and the reload compare whole. For the API
that would be too dear: with thousands of ports, each more would cost a look at all of them. So
networks and ports are kept by name, ports also by network, and claims by what they claim.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from byway.control.claims import Claim, Place, network_claims, port_claims, switch_claims, twice
from byway.control.diff import (
    Action,
    AddNetwork,
    AddPort,
    Change,
    RemoveNetwork,
    RemovePort,
)
from byway.control.model import Config, NetworkConfig, PortConfig, SwitchConfig
from byway.control.problem import Problem, no_network

Entry = TypeVar("Entry", NetworkConfig, PortConfig)


class Inventory:
    """The networks and ports of a switch. ``networks`` and ``ports`` are to be read only."""

    def __init__(self, switch: SwitchConfig) -> None:
        self.switch = switch
        self.networks: dict[str, NetworkConfig] = {}
        self.ports: dict[str, PortConfig] = {}
        self._of: dict[str, dict[str, None]] = {}  # names of ports by network
        self._taken: dict[Place, str] = {c.place: c.key for c in switch_claims(switch)}

    def config(self) -> Config:
        """All of it."""
        return Config(switch=self.switch, networks=tuple(self.networks.values()),
                      ports=tuple(self.ports.values()))

    def actions(self, change: Change) -> list[Action]:
        """The actions that a change needs, in an order that is valid at every step; as diff."""
        networks = _after(self.networks, change.remove_networks, change.add_networks)
        changed = {n for n, new in networks.items() if self.networks.get(n) != new}
        replaced = {name: self.ports[name] for n in changed for name in self._of.get(n, ())}
        ports: dict[str, PortConfig | None] = {**replaced}
        ports.update(_after(self.ports, change.remove_ports, change.add_ports))
        new_ports = [(name, port) for name, port in ports.items()
                     if port != self.ports.get(name) or (port and port.network in changed)]
        made: list[Action] = [RemovePort(n) for n, _ in new_ports if n in self.ports]
        made += [RemoveNetwork(n) for n in networks if n in changed and n in self.networks]
        made += [AddNetwork(new) for n, new in networks.items() if new and n in changed]
        made += [AddPort(port) for _, port in new_ports if port]
        return made

    def orphans(self, change: Change) -> list[PortConfig]:
        """The ports whose network the change takes away and does not bring again."""
        networks = _after(self.networks, change.remove_networks, change.add_networks)
        ports = _after(self.ports, change.remove_ports, change.add_ports)
        gone = {name for name, new in networks.items() if new is None}
        left = [self.ports[name] for n in gone for name in self._of.get(n, ()) if name not in ports]
        return left + [port for port in ports.values() if port and port.network in gone]

    def problems(self, actions: Sequence[Action]) -> list[Problem]:
        """What of these actions does not fit together, or to what stays."""
        gone = {claim.place for action in actions for claim in self._released(action)}
        # What is claimed by what stays: only what is asked for is looked up.
        wanted = [claim for action in actions for claim in _claimed(action)]
        taken = {c.place: self._taken[c.place] for c in wanted
                 if c.place in self._taken and c.place not in gone}
        removed = {a.name for a in actions if isinstance(a, RemoveNetwork)}
        added = {a.network.name for a in actions if isinstance(a, AddNetwork)}
        problems = [
            no_network(f'port "{a.port.name}"', a.port.network,
                       (set(self.networks) - removed) | added)
            for a in actions if isinstance(a, AddPort) and a.port.network not in added
            and (a.port.network not in self.networks or a.port.network in removed)
        ]
        return problems + twice(wanted, taken)

    def commit(self, actions: Sequence[Action]) -> None:
        """The actions have been carried out."""
        for action in actions:
            for claim in self._released(action):
                self._taken.pop(claim.place, None)
            match action:
                case RemovePort(name):
                    del self._of[self.ports.pop(name).network][name]
                case RemoveNetwork(name):
                    del self.networks[name], self._of[name]
                case AddNetwork(network):
                    self.networks[network.name] = network
                    self._of[network.name] = {}
                case AddPort(port):
                    self.ports[port.name] = port
                    self._of[port.network][port.name] = None
            self._taken.update((claim.place, claim.key) for claim in _claimed(action))

    def _released(self, action: Action) -> Iterator[Claim]:
        match action:
            case RemovePort(name):
                yield from port_claims(self.ports[name], "")
            case RemoveNetwork(name):
                yield from network_claims(self.networks[name], "")


def _claimed(action: Action) -> Iterator[Claim]:
    match action:
        case AddPort(port):
            yield from port_claims(port, f'port "{port.name}"')
        case AddNetwork(network):
            yield from network_claims(network, f'network "{network.name}"')


def _after(
    present: Mapping[str, Entry], gone: Sequence[str], added: Sequence[Entry]
) -> dict[str, Entry | None]:
    """What becomes of each name that a change mentions; None: nothing."""
    mentioned: dict[str, Entry | None] = {name: None for name in gone if name in present}
    mentioned.update((entry.name, entry) for entry in added)
    return mentioned
