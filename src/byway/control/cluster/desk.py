# SPDX-License-Identifier: Apache-2.0
"""Networks and ports of the cluster, made in this switch. Used by cluster; uses wanted.

What is written in the switch's own file, or came by its API, counts before what the cluster says
under the same name: that is refused, with a sentence. What the cluster put here is in turn nothing
that the switch's own file or its API may change, as long as etcd has it.
"""

from typing import Any

from byway.control.diff import Change
from byway.control.parts import Key
from byway.control.problem import EngineError
from byway.control.tables import parse_network, parse_port
from byway.control.wanted import Wanted


class WantedDesk:
    """A Desk (intake.py) over the wanted state of a switch. Belongs to the control thread."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._mine: set[Key] = set()  # what the cluster put here

    def put(self, kind: str, table: dict[str, Any]) -> None:
        """Have this "network" or "port", in place of one of the same name."""
        key = _key(kind, str(table["name"]))
        label = f"{key} of the cluster"
        if self.has(kind, key.name) and key not in self._mine:
            raise EngineError(f"{label}: the switch has one of its own",
                              "rename or remove one of the two")
        if kind == "network":
            change = Change(add_networks=(parse_network(table, label),))
        else:
            change = Change(add_ports=(parse_port(table, label),))
        self._wanted.alter(change, keep=False, patient=True)
        self._mine.add(key)
        self._wanted.of_cluster[key] = self._fix(key)

    def drop(self, kind: str, name: str) -> None:
        """Have it no more; it may be gone already."""
        if kind == "network":
            if users := self._users(name):
                raise EngineError(f'network "{name}" has ports here: {", ".join(users)}',
                                  "remove them, or create the network again")
            self._wanted.alter(Change(remove_networks=(name,)), keep=False)
        else:
            self._wanted.alter(Change(remove_ports=(name,)), keep=False)
        self.lose(kind, name)
        self._mine.discard(_key(kind, name))

    def lose(self, kind: str, name: str) -> None:
        """etcd has it no longer, but nobody said that it is to go: the user decides."""
        self._wanted.of_cluster.pop(_key(kind, name), None)

    def has(self, kind: str, name: str) -> bool:
        """Whether the switch has it."""
        return self._wanted.has.parts.get(_key(kind, name)) is not None

    def _fix(self, key: Key) -> str:
        has = self._wanted.has
        host = (has.cluster and has.cluster.host) or has.switch.name
        how = "--cluster " + key.name if key.kind == "network" else f"{key.name} --host {host}"
        return f"change or remove it there, such as by: byway {key.kind} remove {how}"

    def networks(self) -> tuple[str, ...]:
        """The networks that this switch has ports in, in order."""
        return tuple(sorted({network for port in self._wanted.has.ports.values()
                             for network in port.networks}))

    def address(self) -> str | None:
        """The switch's own in the underlay; None: it has no underlay."""
        underlay = self._wanted.has.underlay
        return underlay.address if underlay else None

    def _users(self, network: str) -> list[str]:
        return sorted(port.name for port in self._wanted.has.ports.values()
                      if network in port.networks)


def _key(kind: str, name: str) -> Key:
    return Key("network" if kind == "network" else "port", name)
