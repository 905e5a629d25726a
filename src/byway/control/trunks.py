# SPDX-License-Identifier: Apache-2.0
"""The sub-ports of trunk ports: one for each VLAN tag, a member of its network.

Used by policy. Uses the engine's numbers, networks, plans, and switch.trunk (what a sub-port is).
"""

from typing import Protocol

from byway.control.networks import Networks
from byway.control.plans import Plans
from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.ports.port import Port
from byway.ports.record import PORT
from byway.switch.stages import STAGES
from byway.switch.trunk import SubPort, Trunk


class PortNumbers(Protocol):
    """Who gives numbers to ports."""

    def take_number(self) -> int:
        """EngineError: there is none left."""

    def number_back(self, number: int) -> None:
        """No worker knows it any more."""


class Sub:
    """One tag of a trunk port."""

    def __init__(self, parent: Port, tag: int, index: int, network: int) -> None:
        self.tag = tag
        self.index = index
        self.push = SubPort(tag)
        self.stages = alloc(STAGES, 1, CACHE_LINE)
        self.stages["parent"], self.stages["trunk"] = parent.address, self.push.address
        self.record = alloc(PORT, 1, CACHE_LINE)
        self.record[0] = parent.record[0]  # where its frames go to
        self.record["index"], self.record["network"] = index, network
        self.record["stages"] = address_of(self.stages)


class TrunkPort:
    """A port with several networks. Made before the port is attached."""

    def __init__(self, port: Port, numbers: PortNumbers, networks: Networks, plans: Plans) -> None:
        self._port = port
        self._numbers = numbers
        self._networks = networks
        self._plans = plans
        self.table = Trunk()
        self.subs: dict[str, Sub] = {}

    def join(self) -> None:
        """Make the sub-ports. EngineError: one of them cannot be; ``leave`` what there is."""
        port = self._port
        for tag, name in port.config.vlans:
            network = self._networks[name]
            sub = self.subs[name] = Sub(port, int(tag), self._numbers.take_number(), network.number)
            sub.record["shared"] = self._plans.workers > 1
            self.table.set(sub.tag, network.number, sub.index)
            network.members[sub.index] = port.name
            self._plans.join(network.number, sub.index)
            port.sub_ports.append((sub.index, address_of(sub.record)))

    def leave(self) -> None:
        """The port is about to be closed: its sub-ports are members of nothing any more."""
        for name, sub in self.subs.items():
            if network := self._networks.get(name):
                self._plans.leave(network.number, sub.index)

    def dismiss(self) -> None:
        """No worker knows the port any more."""
        for name, sub in self.subs.items():
            if network := self._networks.get(name):
                network.members.pop(sub.index, None)
                network.fdb.forget(sub.index)
            self._numbers.number_back(sub.index)
