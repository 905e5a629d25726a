# SPDX-License-Identifier: Apache-2.0
"""What a port may do: security groups and their rules, address pairs, limits; and mirrors.

Used through byway.control.model. Uses base and the values. Ingress and egress are the guest's: what
is ingress to a guest, the switch sends out of the port (tx).
"""

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, StrictInt, model_validator

from byway.control.model.base import Model
from byway.control.network_values import Octet, PortRange, Prefix, Protocol, Rate
from byway.control.problem import wrong
from byway.control.values import Mac, Name

MAX_CONNECTIONS = 1 << 26
_FAMILY = {"ipv4": 4, "ipv6": 6}
_WITH_PORTS = ("tcp", "udp", 6, 17, 132, 136)  # and SCTP, UDP-Lite


class RuleConfig(Model):
    """One thing that is allowed. A key that is left out allows all.

    `ports`: of the destination. `remote`: the other side is in this network; `remote_group`: it is
    a port of that security group."""

    direction: Literal["ingress", "egress"]
    ethertype: Literal["ipv4", "ipv6"] | None = None
    protocol: Protocol | None = None
    ports: PortRange | None = None
    icmp_type: Octet | None = None
    icmp_code: Octet | None = None
    remote: Prefix | None = None
    remote_group: Name | None = None

    @property
    def families(self) -> tuple[int, ...]:
        """Those that the rule is for: (4,), (6,) or (4, 6)."""
        if self.ethertype:
            return (_FAMILY[self.ethertype],)
        if self.remote:
            return (ipaddress.ip_network(self.remote).version,)
        if self.protocol in ("icmp", 1):
            return (4,)
        return (6,) if self.protocol in ("icmpv6", 58) else (4, 6)

    @property
    def port_range(self) -> tuple[int, int] | None:
        """The lowest and the highest of `ports`; None: all."""
        if self.ports is None:
            return None
        first, _, last = self.ports.partition("-")
        return int(first), int(last or first)

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.ports and self.protocol not in _WITH_PORTS:
            raise wrong("ports is there, but the protocol has none",
                        'write protocol = "tcp" or "udp", or leave ports out')
        icmp = self.protocol in ("icmp", "icmpv6", 1, 58)
        if (self.icmp_type is not None or self.icmp_code is not None) and not icmp:
            raise wrong("icmp_type and icmp_code are of ICMP only",
                        'write protocol = "icmp" or "icmpv6", or leave them out')
        if self.icmp_code is not None and self.icmp_type is None:
            raise wrong("icmp_code is there, but no icmp_type", "add icmp_type")
        if self.remote and self.remote_group:
            raise wrong("remote and remote_group are both there", "make two rules of it")
        if self.protocol in ("icmp", 1) and self.ethertype == "ipv6":
            raise wrong('protocol "icmp" is not of ethertype "ipv6"', 'write protocol = "icmpv6"')
        if self.protocol in ("icmpv6", 58) and self.ethertype == "ipv4":
            raise wrong('protocol "icmpv6" is not of ethertype "ipv4"', 'write protocol = "icmp"')
        family = self.remote and ipaddress.ip_network(self.remote).version
        if family and icmp and (family == 6) != (self.protocol in ("icmpv6", 58)):
            other = "icmpv6" if family == 6 else "icmp"
            raise wrong(f'protocol "{self.protocol}" is not of the family of remote'
                        f' "{self.remote}"', f'write protocol = "{other}"')
        if family and family not in self.families:
            raise wrong(f'remote "{self.remote}" is not of ethertype "{self.ethertype}"',
                        "write a network of the same family")
        return self


class GroupConfig(Model):
    """A security group: what no rule of a port's groups allows is dropped; replies pass."""

    name: Name
    rules: tuple[RuleConfig, ...] = ()


class AddressPair(Model):
    """Addresses that a port may have besides its own: `ip` is an address or a network; `mac` None:
    the port's own."""

    ip: Prefix
    mac: Mac | None = None


class LimitConfig(Model):
    """What a port may do in a second at most; None: no limit. `burst` in milliseconds of it.

    `connections`: of security groups, at any time; None: as many as the switch allows a port."""

    rx_bits: Rate | None = None
    rx_frames: Rate | None = None
    tx_bits: Rate | None = None
    tx_frames: Rate | None = None
    broadcast_frames: Rate | None = None
    burst: Annotated[StrictInt, Field(ge=1, le=10_000)] = 100
    connections: Annotated[StrictInt, Field(ge=1, le=MAX_CONNECTIONS)] | None = None


class MirrorConfig(Model):
    """Copies of a port's frames go out of the port `to`. `direction`: rx, tx, or both."""

    to: Name
    direction: Literal["rx", "tx", "both"] = "both"
