# SPDX-License-Identifier: Apache-2.0
"""Which addresses of a network a port gets, so that no two ports of the cluster get the same.

Used by registry. Uses etcd and layout. Blocks: never called on the control thread.

An address is given by making its key, on the condition that there is none: etcd itself refuses the
second one, however many hosts ask at once. Who was refused looks again. To meet seldom, each
process begins at another place of a subnet, and goes on from what it gave last: an address that was
just freed comes late, when nobody remembers whose it was.

Not given are a network's own and broadcast address (IPv4), the routers' anycast address (IPv6, RFC
4291 2.6.1) and the gateways. Addresses stand under no lease: a host that is away for a while, or
whose switch is restarted, finds its ports with the addresses that they had.
"""

import ipaddress
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from byway.control.cluster.etcd import Condition, Etcd, Operation, absent, delete, put
from byway.control.cluster.layout import Layout
from byway.control.problem import EngineError

Subnet: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Plan:
    """Addresses for one port, and what a transaction must check and do for them."""

    ips: list[str]
    conditions: list[Condition] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


class Addresses:
    """Gives addresses; keeps nothing but where it goes on."""

    def __init__(self, etcd: Etcd, layout: Layout, chance: random.Random) -> None:
        self._etcd = etcd
        self._layout = layout
        self._chance = chance
        self._latest: dict[tuple[str, str], int] = {}

    def plan(self, network: Mapping[str, Any], owner: str, wanted: Sequence[str] | Literal["auto"],
             held: Sequence[str]) -> Plan:
        """Addresses of `network` for `owner`, who has those of `held`: `wanted`, or, "auto", those
        that it has, else one of each family that the network has subnets of.

        Raises EngineError: an address is in no subnet or is another's, or none is free."""
        name = str(network["name"])
        subnets = [ipaddress.ip_network(text) for text in network.get("subnets") or ()]
        if wanted == "auto":
            if not subnets:
                raise EngineError(f'network "{name}" has no subnets to take addresses from',
                                  'add subnets = ["10.0.0.0/24"] to it, or name the ips')
            ips = list(held) or self._choose(network, subnets)
        else:
            ips = [str(ipaddress.ip_address(ip)) for ip in wanted]
            self._check(network, subnets, ips)
        made = Plan(ips)
        below = self._layout.addresses(name)
        # An address that is in no subnet is the user's own affair.
        mine = [ip for ip in ips if not subnets or _subnet_of(subnets, ip) is not None]
        for ip in mine:
            if ip not in held:
                made.conditions.append(absent(below + ip))
                made.operations.append(put(below + ip, owner.encode()))
        made.operations += [delete(below + ip) for ip in held if ip not in mine]
        return made

    def holders(self, network: str) -> dict[str, str]:
        """Who has which address of a network."""
        below = self._layout.addresses(network)
        return {found.key.removeprefix(below): found.value.decode(errors="replace")
                for _, page in self._etcd.pages(below) for found in page}

    def _check(self, network: Mapping[str, Any], subnets: Sequence[Subnet],
               ips: Sequence[str]) -> None:
        for ip in ips:
            if subnets and _subnet_of(subnets, ip) is None:
                raise EngineError(f'{ip} is in no subnet of the network "{network["name"]}"',
                                  f"take one of {', '.join(map(str, subnets))}")
            if ip in _reserved(network, _subnet_of(subnets, ip)):
                raise EngineError(f'{ip} is no address for a port of "{network["name"]}"',
                                  "it is the network's, the broadcast or the gateway's:"
                                  " take another one")

    def _choose(self, network: Mapping[str, Any], subnets: Sequence[Subnet]) -> list[str]:
        taken = self.holders(network["name"])
        chosen = []
        for version in (4, 6):
            those = [subnet for subnet in subnets if subnet.version == version]
            if not those:
                continue
            found = next((ip for subnet in those if (ip := self._free(network, subnet, taken))),
                         None)
            if found is None:
                raise EngineError(f'no address of the network "{network["name"]}" is free in'
                                  f" {', '.join(map(str, those))}",
                                  "remove ports that are not needed, or add a subnet")
            chosen.append(found)
        return chosen

    def _free(self, network: Mapping[str, Any], subnet: Subnet,
              taken: Mapping[str, str]) -> str | None:
        """The next free address of a subnet after the one that was given last."""
        at = network["name"], str(subnet)
        size = subnet.num_addresses
        reserved = _reserved(network, subnet)
        start = self._latest.get(at, self._chance.randrange(size))
        # Among so many neighbours one is free, if any is.
        for step in range(1, min(size, len(taken) + len(reserved) + 1) + 1):
            number = (start + step) % size
            ip = str(subnet[number])
            if ip not in taken and ip not in reserved:
                self._latest[at] = number
                return ip
        return None


def _subnet_of(subnets: Sequence[Subnet], ip: str) -> Subnet | None:
    address = ipaddress.ip_address(ip)
    return next((subnet for subnet in subnets if address in subnet), None)


def _reserved(network: Mapping[str, Any], subnet: Subnet | None) -> set[str]:
    reserved = {str(ipaddress.ip_interface(text).ip) for text in network.get("gateway") or ()}
    if subnet is not None and subnet.num_addresses > 2:
        reserved.add(str(subnet.network_address))
        if subnet.version == 4:
            reserved.add(str(subnet.broadcast_address))
    return reserved
