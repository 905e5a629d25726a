# SPDX-License-Identifier: Apache-2.0
"""Networks, and the routers that join them.

Used through byway.control.model. Uses base and the values.
"""

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator

from byway.control.model.base import Model
from byway.control.model.function import Chain
from byway.control.network_values import (
    MachineIp,
    Networks,
    OwnAddresses,
    Subnets,
    Vni,
    mapped,
    overlapping,
    some,
)
from byway.control.problem import wrong
from byway.control.values import Destination, Mac, Name

MIN_MTU, MAX_MTU = 68, 9216  # bytes; the least that IPv4 asks of a link (RFC 791 3.2)


class NetworkConfig(Model):
    """One Ethernet segment, isolated from all others. `mtu` in bytes, `ageing` in seconds.

    `vni` names the network between hosts. `fdb_limit` bounds the learned addresses, so that one
    guest cannot fill the memory of the switch. `mtu`, where it is not written and there is a vni,
    is what the underlay leaves (fitting.py puts it in).

    `learning`: addresses behind tunnels are learned from their frames; None: where hosts are
    static. `unknown`: what becomes of frames to an address that nobody knows. `subnets`: addresses
    of its ports are in them. `gateway`: addresses that every host answers for, with `gateway_mac`.
    `responder`: ARP and neighbour solicitations are answered from the population; None: where
    there is a vni or a gateway. `chain`: network functions that all frames of its ports go through,
    after those of the port."""

    name: Name
    vni: Vni | None = None
    mtu: Annotated[StrictInt, Field(ge=MIN_MTU, le=MAX_MTU)] = 1500
    fdb_limit: Annotated[StrictInt, Field(ge=1, le=1_048_576)] = 8192
    ageing: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 300
    learning: StrictBool | None = None
    unknown: Literal["flood", "drop"] = "flood"
    subnets: Subnets = ()
    gateway: OwnAddresses = ()
    gateway_mac: Mac | None = None
    responder: StrictBool | None = None
    chain: Chain = ()

    @property
    def responds(self) -> bool:
        """ARP and neighbour solicitations are answered for the guests."""
        if self.responder is None:
            return self.vni is not None or bool(self.gateway)
        return self.responder

    def learns(self, in_cluster: bool) -> bool:
        """Addresses behind tunnels are learned: a cluster tells them, so there it is off."""
        return not in_cluster if self.learning is None else self.learning

    @property
    def reach(self) -> tuple[str, ...]:
        """The subnets whose addresses are here: `subnets`, or else those of the gateways."""
        return self.subnets or self.routed

    @property
    def routed(self) -> tuple[str, ...]:
        """The subnets that its gateways route to. Link-local ones are the same everywhere, so no
        router does (RFC 4291, 2.5.6)."""
        found = [ipaddress.ip_interface(one) for one in self.gateway]
        return tuple(dict.fromkeys(
            str(one.network) for one in found if one.version == 4 or not one.is_link_local))

    @model_validator(mode="after")
    def _gateways_fit(self) -> Self:
        if pair := overlapping(self.subnets):
            raise wrong(f'subnets: "{pair[0]}" and "{pair[1]}" overlap', "leave one of them out")
        if self.gateway_mac and not self.gateway:
            raise wrong("gateway_mac is there, but no gateway", 'add gateway = ["10.0.0.1/24"]')
        for one in self.gateway:
            subnet = str(ipaddress.ip_interface(one).network)
            if self.subnets and subnet not in self.subnets:
                raise wrong(f'gateway: "{one}" is in the subnet {subnet}, which is not among'
                            f" subnets ({', '.join(self.subnets)})",
                            "give it an address and prefix length of one of them")
        if pair := overlapping(self.routed):
            raise wrong(f"gateway: the subnets {pair[0]} and {pair[1]} of two addresses overlap",
                        "give both the same prefix length, or leave one of them out")
        return self


class StaticRoute(Model):
    """What goes ``to`` a network, or "default", takes the machine at ``via``."""

    to: Destination
    via: MachineIp

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        if self.to != "default" and (":" in self.to) != (":" in self.via):
            raise wrong(f'"{self.to}" and "{self.via}" are not of one family',
                        "name a machine with an address of the same kind")
        if inner := self.to != "default" and mapped(self.to):
            raise wrong("to: is an IPv4 network in the form of an IPv6 one", f'write "{inner}"')
        return self

    @property
    def prefix(self) -> str:
        """Where it leads, with "default" as the network that it is."""
        if self.to == "default":
            return "::/0" if ":" in self.via else "0.0.0.0/0"
        return self.to


class RouterConfig(Model):
    """Joins networks of one tenant: each of them has a gateway, which is this router's there."""

    name: Name
    networks: Annotated[Networks, AfterValidator(some("network"))]
    routes: tuple[StaticRoute, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        known: set[str] = set()
        for route in self.routes:
            if route.prefix in known:
                raise wrong(f'routes: there are two to "{route.to}"'
                            + (f" ({route.prefix})" if route.to == "default" else ""),
                            "leave one of them out")
            known.add(route.prefix)
        return self
