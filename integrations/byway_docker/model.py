# SPDX-License-Identifier: Apache-2.0
"""What the plugin keeps: networks, endpoints, published ports; and the names made from their ids.

Used by the other modules of byway_docker. Uses the standard library only.

Docker's ids are long; names at the switch have their first 12 characters, as Docker itself shows
them: network and ports are called "docker-ID", a gateway's port "docker-ID-gw". Interfaces have at
most 15 characters: "byd" or "byg" and the 12.
"""

import hashlib
from dataclasses import dataclass

SHORT = 12  # characters of an id in a name
_ANY = ("0.0.0.0", "::")  # all addresses of a family: IPv4, IPv6


class Refused(Exception):
    """A request that cannot be granted: `problem` says why, `fix` what to do about it."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True)
class Subnet:
    """A pool of a network: its address space at the IPAM driver, its prefix, its gateway's
    address with prefix length ("" where there is none)."""

    space: str
    pool: str
    gateway: str


@dataclass(frozen=True)
class Network:
    """A network of Docker's. `name` is that of the switch's network, which the plugin made if it
    is `own`. `mtu` in bytes and `vni` are what the user wrote, None where nothing.

    `gateway`: "host" (a port of the plugin's has the gateway's address), "elsewhere" (somebody
    else on the network has it), "none" (containers have no way out)."""

    id: str
    name: str
    own: bool
    mtu: int | None
    vni: int | None
    gateway: str
    ipv4: tuple[Subnet, ...]
    ipv6: tuple[Subnet, ...]

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        """All pools."""
        return self.ipv4 + self.ipv6

    @property
    def gateway_port(self) -> str:
        """The name of the port that is the network's gateway."""
        return f"docker-{self.id[:SHORT]}-gw"

    @property
    def gateway_interface(self) -> str:
        """The interface of the gateway port, in dockerd's namespace."""
        return f"byg{self.id[:SHORT]}"


@dataclass(frozen=True)
class Published:
    """A port of a container that is to be reached at the host. `host` is one of its addresses,
    "0.0.0.0" or "::" all of one family, "" all; `protocol` is "tcp", "udp" or "sctp"."""

    protocol: str
    host: str
    host_port: int
    port: int

    def overlaps(self, other: "Published") -> bool:
        """Would a packet to the host mean both?"""
        if (self.protocol, self.host_port) != (other.protocol, other.host_port):
            return False
        return self.host == other.host or any(
            one.host in ("", _ANY[":" in two.host]) or (one.host in _ANY and not two.host)
            for one, two in ((self, other), (other, self)))


@dataclass(frozen=True)
class Endpoint:
    """A container's place on a network. Addresses with prefix length, "" where there is none.

    `sandbox`: the file of the container's network namespace; "" before Join and after Leave."""

    id: str
    network: str
    mac: str
    address: str
    address6: str
    sandbox: str = ""
    published: tuple[Published, ...] = ()

    @property
    def port(self) -> str:
        """The name of its port at the switch."""
        return port_name(self.id)

    @property
    def interface(self) -> str:
        """Its interface as it is made, before Docker moves and renames it."""
        return f"byd{self.id[:SHORT]}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, without prefix length."""
        return tuple(a.partition("/")[0] for a in (self.address, self.address6) if a)


def port_name(identity: str) -> str:
    """The name at the switch of the port of an endpoint."""
    return f"docker-{identity[:SHORT]}"


def made_mac(identity: str) -> str:
    """A locally administered MAC address that is always the same for an id."""
    digest = hashlib.sha256(identity.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def network_name(identity: str) -> str:
    """The name at the switch of a network that the plugin makes."""
    return f"docker-{identity[:SHORT]}"
