# SPDX-License-Identifier: Apache-2.0
"""What no two parts of a switch may share: sockets, files, interfaces, VNIs.

Used by config (a whole configuration) and inventory (a change of a running switch). Uses model.

A *claim* is one such thing that a network or a port names. Claims on different things never meet;
two on the same thing with the same value do not go together.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from byway.control.model import (
    AfPacketPort,
    AfXdpPort,
    NetworkConfig,
    PcapPort,
    PortConfig,
    SwitchConfig,
    TapPort,
    UdpPort,
    VhostKernelPort,
    VhostUserPort,
    VirtioUserPort,
)
from byway.control.problem import Problem, shown

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


def network_claims(network: NetworkConfig, label: str) -> Iterator[Claim]:
    """What a network needs for itself."""
    if network.vni is not None:
        yield Claim("vni", network.vni, f"{label}: vni", "give it another vni")


def port_claims(port: PortConfig, label: str) -> Iterator[Claim]:
    """What a port needs for itself."""
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
