# SPDX-License-Identifier: Apache-2.0
"""The wanted state of a switch as passive, frozen data: switch, networks, ports.

Used by config (which reads it from TOML), diff, the API (which reads it from JSON) and the
engine. Uses pydantic, values and problem: nothing here opens a file, looks at the machine or
knows a worker. What one value alone can say is checked here; what values say together in
config.cross_check, and what the machine says about them in config.check_machine.
"""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)

from byway.control.problem import shown, wrong
from byway.control.values import (
    Addresses,
    Cpus,
    Destination,
    Endpoint,
    FeatureNames,
    FilePath,
    Gateway,
    IfName,
    Mac,
    Name,
    Netns,
    NetnsOrPath,
    OneQueue,
    QueuePairs,
    RingSize,
    SocketPath,
)

# What a tap does with frames of which something is left to do (features.off).
_TAP_FEATURES = ("csum", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "host_tso4",
                 "host_tso6", "host_ecn", "guest_uso4", "guest_uso6", "host_uso")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SwitchConfig(_Model):
    """The switch itself. `workers`: CPUs, one worker each; None: one worker, not pinned.

    `api`: the Unix socket of the API; None: the default (machine.rundir.default_socket). `state`:
    the file in which what comes through the API outlives the switch; None: it does not."""

    name: Name = "byway"
    workers: Cpus | None = None
    api: SocketPath | None = None
    state: FilePath | None = None


class NetworkConfig(_Model):
    """One Ethernet segment, isolated from all others. `mtu` in bytes, `ageing` in seconds.

    `vni` (RFC 7348: 24 bits) names the network between hosts. `fdb_limit` bounds the learned
    addresses, so that one guest cannot fill the memory of the switch."""

    name: Name
    vni: Annotated[StrictInt, Field(ge=1, le=0xFFFFFF)] | None = None
    mtu: Annotated[StrictInt, Field(ge=68, le=9216)] = 1500
    fdb_limit: Annotated[StrictInt, Field(ge=1, le=1_048_576)] = 8192
    ageing: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 300


class _Port(_Model):
    """What every kind of port has."""

    name: Name
    network: Name
    mac: Mac | None = None


class FeatureChoice(_Model):
    """What the user decided about virtio features. ``off``: those not to offer or to take, by
    name, in lower case."""

    off: FeatureNames = ()


def _of_a_tap(value: FeatureChoice) -> FeatureChoice:
    for name in value.off:
        if name not in _TAP_FEATURES:
            raise wrong(f"off: a tap has no {shown(name)} that could be off",
                        f"its features are: {', '.join(_TAP_FEATURES)}")
    return value


class _VirtioPort(_Port):
    """A port with virtqueues: up to MAX_QUEUE_PAIRS pairs of them, and features."""

    queues: QueuePairs = 1
    features: FeatureChoice = FeatureChoice()

    @property
    def features_off(self) -> tuple[str, ...]:
        """The names of virtio.features.Feature, in lower case, that are switched off."""
        return self.features.off


class VhostUserPort(_VirtioPort):
    """A guest's device: Byway is the back end. mode "server": Byway listens on the socket."""

    kind: Literal["vhost-user"]
    socket: SocketPath
    mode: Literal["server", "client"] = "server"


class VirtioUserPort(_VirtioPort):
    """Byway is the front end, the driver: two switches are chained with this kind."""

    kind: Literal["virtio-user"]
    socket: SocketPath
    mode: Literal["server", "client"] = "client"


class VhostKernelPort(_VirtioPort):
    """An interface of the Linux kernel, through a tap and its vhost-net device.

    ``ifname``: the interface's name; ``netns``: the network namespace that it is moved to (None:
    that of the switch); ``address``: what is configured on it."""

    kind: Literal["vhost-kernel"]
    ifname: IfName
    netns: Netns | None = None
    address: Addresses = ()


class Route(_Model):
    """A route of an interface: what goes ``to`` a network, or "default", takes gateway ``via``."""

    to: Destination
    via: Gateway

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        if self.to != "default" and (":" in self.to) != (":" in self.via):
            raise wrong(f'"{self.to}" and "{self.via}" are not of one family',
                        "name a gateway with an address of the same kind")
        return self


class TapPort(_Port):
    """An interface of the Linux kernel, whose frames go by system calls.

    ``netns``: the network namespace that it is made in, by name or absolute path (None: that of
    the switch); ``address``, ``routes``: what is configured on it. ``persistent``: it stays when
    the switch ends. ``masquerade``: what comes from its network leaves this host behind its
    address."""

    kind: Literal["tap"]
    ifname: IfName
    netns: NetnsOrPath | None = None
    address: Addresses = ()
    routes: tuple[Route, ...] = ()
    queues: QueuePairs = 1
    features: Annotated[FeatureChoice, AfterValidator(_of_a_tap)] = FeatureChoice()
    persistent: StrictBool = False
    masquerade: StrictBool = False

    @property
    def features_off(self) -> tuple[str, ...]:
        """The names of virtio.features.Feature, in lower case, that are switched off."""
        return self.features.off


class NullPort(_Port):
    """Swallows what is sent to it and receives nothing: for measurements and tests."""

    queues: OneQueue = 1
    kind: Literal["null"]


class PcapPort(_Port):
    """Frames of the file `read` come in; what goes out is written to the file `write`."""

    queues: OneQueue = 1
    kind: Literal["pcap"]
    read: FilePath | None = None
    write: FilePath | None = None


class AfPacketPort(_Port):
    """An interface of the Linux kernel that is there already, by packet sockets.

    ``netns``: the network namespace that it is in, by name or absolute path (None: that of the
    switch); ``queues``: sockets that its frames are spread over."""

    kind: Literal["af-packet"]
    ifname: IfName
    netns: NetnsOrPath | None = None
    queues: QueuePairs = 1


class AfXdpPort(_Port):
    """An interface of the Linux kernel that is there already, by AF_XDP sockets.

    ``netns``: the network namespace that it is in, by name or absolute path (None: that of the
    switch); ``queues``: its receive queues, each with a socket. ``mode``: where the program is
    attached; ``zero_copy``: the driver uses our memory. ``frames``: that a socket has room for,
    each way. ``checksums``: who sees to it that frames come finished."""

    kind: Literal["af-xdp"]
    ifname: IfName
    netns: NetnsOrPath | None = None
    queues: QueuePairs = 1
    mode: Literal["auto", "native", "skb"] = "auto"
    zero_copy: Literal["auto"] | StrictBool = "auto"
    frames: RingSize = 1024
    checksums: Literal["peer", "complete", "trust"] = "peer"

    @model_validator(mode="after")
    def _zero_copy_is_native(self) -> Self:
        if self.mode == "skb" and self.zero_copy is True:
            raise wrong('mode is "skb" and zero_copy true, but only a driver can leave copying out',
                        'write mode = "native"')
        return self


class UdpPort(_Port):
    """A link whose frames travel in UDP, from address and port ``local`` to ``remote``."""

    kind: Literal["udp"]
    local: Endpoint
    remote: Endpoint
    queues: OneQueue = 1

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        if (self.local[0] == "[") != (self.remote[0] == "["):
            raise wrong(f'"{self.local}" and "{self.remote}" are not of one family',
                        "write both as IPv4 addresses or both as IPv6 addresses")
        if self.local == self.remote:
            raise wrong(f'local and remote are both "{self.local}"',
                        "name the peer's address and port number")
        return self


AnyPort: TypeAlias = (
    VhostUserPort | VirtioUserPort | VhostKernelPort | TapPort | AfPacketPort | AfXdpPort
    | UdpPort | NullPort | PcapPort)
PortConfig: TypeAlias = Annotated[AnyPort, Field(discriminator="kind")]
# A port's kind, as the user writes it, and its model.
KINDS: dict[str, type[AnyPort]] = {
    "vhost-user": VhostUserPort,
    "virtio-user": VirtioUserPort,
    "vhost-kernel": VhostKernelPort,
    "tap": TapPort,
    "af-packet": AfPacketPort,
    "af-xdp": AfXdpPort,
    "udp": UdpPort,
    "null": NullPort,
    "pcap": PcapPort,
}


class Config(_Model):
    """Everything a configuration file says, in its order."""

    switch: SwitchConfig = SwitchConfig()
    networks: tuple[NetworkConfig, ...] = ()
    ports: tuple[PortConfig, ...] = ()
