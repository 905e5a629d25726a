# SPDX-License-Identifier: Apache-2.0
"""What joins hosts: the underlay, the other hosts, what is behind them, and the cluster.

Used through byway.control.model. Uses base and the values.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, model_validator

from byway.control.model.base import Model
from byway.control.network_values import (
    EtcdAddresses,
    EtcdPrefix,
    Ips,
    MachineIp,
    Networks,
)
from byway.control.problem import wrong
from byway.control.values import FilePath, Mac, Name

VXLAN_PORT = 4789  # RFC 7348 5
# What VXLAN adds to a frame's payload: Ethernet 14, VXLAN 8, UDP 8, and the header of IP.
OVERHEAD = {4: 14 + 8 + 8 + 20, 6: 14 + 8 + 8 + 40}


class UnderlayConfig(Model):
    """The network that carries tunnels. `address`: this host's; `port`: UDP's, of all hosts.

    `mtu` in bytes; None: the kernel is asked. `checksum`: of UDP; "auto": sent, but not
    asked of others; "yes": asked of them too (over IPv6); "no": not sent.
    `uplink`: the port by which Byway itself speaks Ethernet and IP there, by way of the router
    `gateway`; None: sockets of the kernel. `dont_fragment`: routers are told not to cut.
    """

    address: MachineIp
    port: Annotated[StrictInt, Field(ge=1, le=65535)] = VXLAN_PORT
    mtu: Annotated[StrictInt, Field(ge=576, le=65535)] | None = None
    checksum: Literal["auto", "yes", "no"] = "auto"
    uplink: Name | None = None
    gateway: MachineIp | None = None
    dont_fragment: StrictBool = True
    ttl: Annotated[StrictInt, Field(ge=1, le=255)] = 64

    @property
    def family(self) -> Literal[4, 6]:
        """Of its address: 4 or 6."""
        return 6 if ":" in self.address else 4

    @property
    def overhead(self) -> int:
        """Bytes of the underlay's MTU that no guest has."""
        return OVERHEAD[self.family]

    @model_validator(mode="after")
    def _gateway_fits(self) -> Self:
        if self.gateway is None:
            return self
        if self.uplink is None:
            raise wrong("gateway is there, but no uplink: the kernel has routes of its own",
                        "name the port of the uplink, or leave gateway out")
        if (":" in self.gateway) != (":" in self.address):
            raise wrong(f'gateway "{self.gateway}" and address "{self.address}" are not of one'
                        " family", "write both as IPv4 addresses or both as IPv6 addresses")
        return self


class HostConfig(Model):
    """Another host that is known in advance. `address`: of its tunnels; `networks`: those whose
    floods go to it."""

    name: Name
    address: MachineIp
    networks: Networks = ()


class EntryConfig(Model):
    """A guest behind another host, known in advance: its address, its IPs, its host."""

    network: Name
    mac: Mac
    ips: Ips = ()
    host: Name

    @property
    def name(self) -> str:
        """What it is called in messages and in the API: "blue/02:00:00:00:00:01"."""
        return entry_name(self.network, self.mac)


def entry_name(network: str, mac: str) -> str:
    """The name of an entry, from what tells it from others."""
    return f"{network}/{mac}"


class ClusterConfig(Model):
    """The etcd in which all hosts keep networks, ports and who is where.

    `etcd`: its members; `prefix`: of all keys; `host`: this host's name there (None: the
    switch's); `ttl`: seconds after which a host that died is gone. With `ca` the connection is
    TLS; `cert` and `key` are this host's own."""

    etcd: EtcdAddresses
    prefix: EtcdPrefix = "/byway"
    host: Name | None = None
    ttl: Annotated[StrictInt, Field(ge=2, le=3600)] = 10
    username: str | None = None
    password_file: FilePath | None = None
    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        for one, other in (("cert", "key"), ("key", "cert"), ("username", "password_file"),
                           ("password_file", "username")):
            if getattr(self, one) is not None and getattr(self, other) is None:
                raise wrong(f"{one} is there, but no {other}", f"add {other}, or leave out {one}")
        return self
