# SPDX-License-Identifier: Apache-2.0
"""The switch itself, and the whole of a configuration.

Used through byway.control.model. Uses the other modules of it.
"""

from typing import Annotated

from pydantic import Field, StrictInt

from byway.control.model.base import Model
from byway.control.model.function import FunctionConfig
from byway.control.model.network import NetworkConfig, RouterConfig
from byway.control.model.overlay import ClusterConfig, EntryConfig, HostConfig, UnderlayConfig
from byway.control.model.policy import MAX_CONNECTIONS, GroupConfig
from byway.control.model.ports import PortConfig
from byway.control.model.service import ServiceConfig
from byway.control.values import Cpus, FilePath, Name, SocketPath

MAX_LISTENERS = 4096
MAX_GATHER_US = 100


class SwitchConfig(Model):
    """The switch itself. `workers`: CPUs, one worker each; None: one worker, not pinned.

    `api`: the Unix socket of the API; None: the default (machine.rundir.default_socket). `state`:
    the file in which what comes through the API outlives the switch; None: it does not.
    `connections`: of all ports with security groups, at most. `listeners`: processes of network
    functions that run at the same time, at most. `gather_us`: microseconds for which a worker
    that finds little may let frames gather, before it looks again."""

    name: Name = "byway"
    workers: Cpus | None = None
    api: SocketPath | None = None
    state: FilePath | None = None
    connections: Annotated[StrictInt, Field(ge=1, le=MAX_CONNECTIONS)] = 262_144
    listeners: Annotated[StrictInt, Field(ge=0, le=MAX_LISTENERS)] = 64
    gather_us: Annotated[StrictInt, Field(ge=0, le=MAX_GATHER_US)] = 10


class Config(Model):
    """Everything a configuration file says, in its order."""

    switch: SwitchConfig = SwitchConfig()
    cluster: ClusterConfig | None = None
    underlay: UnderlayConfig | None = None
    networks: tuple[NetworkConfig, ...] = ()
    hosts: tuple[HostConfig, ...] = ()
    entries: tuple[EntryConfig, ...] = ()
    routers: tuple[RouterConfig, ...] = ()
    groups: tuple[GroupConfig, ...] = ()
    functions: tuple[FunctionConfig, ...] = ()
    services: tuple[ServiceConfig, ...] = ()
    ports: tuple[PortConfig, ...] = ()

    @property
    def has_stages(self) -> bool:
        """Is more done with frames than switching them?"""
        return bool(self.cluster or self.underlay or self.services) or any(
            network.vni or network.responds or network.chain for network in self.networks) or any(
            port.vlans or port.limit or port.mirror or port.port_security or port.security_groups
            or port.chain or port.chain_tx or port.services
            for port in self.ports)
