# SPDX-License-Identifier: Apache-2.0
"""What no two parts of a switch may share: sockets, files, interfaces, VNIs, MACs, addresses.

Used by fitting (a whole configuration) and inventory (a change of a running switch). Uses the model
and parts.

A *claim* is one such thing that a part names. Claims on different things never meet; two on the
same thing with the same value do not go together. An address that a port has here ("near") may be
that of an entry ("far") meanwhile: a guest that moves is at both for a moment.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from byway.control.model import (
    AfPacketPort,
    AfXdpPort,
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
    UdpPort,
    UnderlayConfig,
    VhostKernelPort,
    VhostUserPort,
    VirtioUserPort,
)
from byway.control.parts import Part
from byway.control.problem import Problem, shown

_ANOTHER_IP = "give each its own address"
Place = tuple[str, str | int]  # what is claimed, and which of them


class Claim(NamedTuple):
    """``key`` is where the configuration says so: 'port "vm1": socket'."""

    what: str
    value: str | int
    key: str
    fix: str

    @property
    def place(self) -> Place:
        """What may be claimed once."""
        return self.what, self.value


def switch_claims(switch: SwitchConfig) -> Iterator[Claim]:
    """What the switch itself needs for itself."""
    if switch.api is not None:
        yield _path("switch: api", switch.api)


def claims(part: Part, label: str) -> Iterator[Claim]:
    """What a part needs for itself; ``label`` names it in messages."""
    match part:
        case UnderlayConfig(address=address):
            yield Claim("tunnels", address, f"{label}: address", "name other hosts only")
        case HostConfig(address=address):
            yield Claim("tunnels", address, f"{label}: address",
                        "each host has one of its own; name other hosts only")
        case NetworkConfig():
            yield from _of_network(part, label)
        case EntryConfig(network=network, ips=ips):
            for ip in ips:
                yield Claim(f"address far in {network}", ip, f"{label}: ips", _ANOTHER_IP)
        case RouterConfig(networks=networks):
            for network in networks:
                yield Claim("router of", network, f"{label}: networks",
                            "a network has one router")
        case ServiceConfig(ports=ports):
            for name in ports:
                yield Claim("appliance", name, f"{label}: appliances",
                            "an appliance does one service")
        case GroupConfig() | FunctionConfig():
            return
        case port:
            yield from _of_port(port, label)


def _of_network(network: NetworkConfig, label: str) -> Iterator[Claim]:
    if network.vni is not None:
        yield Claim("vni", network.vni, f"{label}: vni", "give it another vni")
    if network.gateway_mac:
        yield _mac(network.name, network.gateway_mac, f"{label}: gateway_mac")
    for one in network.gateway:
        for where in ("near", "far"):  # neither a port nor an entry has it
            yield Claim(f"address {where} in {network.name}", one.split("/")[0],
                        f"{label}: gateway", _ANOTHER_IP)


def _of_port(port: PortConfig, label: str) -> Iterator[Claim]:
    if port.mac:
        yield _mac(port.network, port.mac, f"{label}: mac")
    for ip in port.ips:
        yield Claim(f"address near in {port.network}", ip, f"{label}: ips", _ANOTHER_IP)
    if isinstance(port, VhostUserPort | VirtioUserPort):
        yield _path(f"{label}: socket", port.socket)
    elif isinstance(port, PcapPort) and port.write is not None:
        yield _path(f"{label}: write", port.write)
    elif isinstance(port, VhostKernelPort | TapPort):
        yield Claim("ifname", _interface(port.ifname, port.netns), f"{label}: ifname",
                    "give it another name")
    elif isinstance(port, AfPacketPort | AfXdpPort):
        # One interface twice would be a loop: what one port sends, the other receives.
        yield Claim("attached", _interface(port.ifname, port.netns), f"{label}: ifname",
                    "attach to an interface once")
    elif isinstance(port, UdpPort):
        yield Claim("local", port.local, f"{label}: local", "give it another port number")


def _mac(network: str, mac: str, key: str) -> Claim:
    return Claim(f"mac in {network}", mac, key, "give each port of a network a mac of its own")


def _path(key: str, path: str) -> Claim:
    return Claim("path", os.path.abspath(path), key, "give each a path of its own")


def _interface(name: str, netns: str | None) -> str:
    return f"{name} in netns {netns}" if netns else name


def twice(claims: Iterable[Claim], taken: Mapping[Place, str]) -> list[Problem]:
    """A problem for each claim on what an earlier one has, or whoever ``taken`` names."""
    first: dict[Place, str] = {}
    problems = []
    for claim in claims:
        if owner := first.get(claim.place) or taken.get(claim.place):
            problems.append(
                Problem(claim.key, f"{shown(claim.value)} is also that of {owner}", claim.fix))
        else:
            first[claim.place] = claim.key
    return problems
