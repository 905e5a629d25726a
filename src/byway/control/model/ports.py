# SPDX-License-Identifier: Apache-2.0
"""Ports: what every kind of them has, and what each kind has besides.

Used through byway.control.model. Uses base, policy and the values.
"""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, StrictBool, model_validator

from byway.control.model.base import Model
from byway.control.model.function import Chain
from byway.control.model.policy import AddressPair, LimitConfig, MirrorConfig
from byway.control.network_values import GroupNames, Ips, Vlans, at_most, once
from byway.control.problem import shown, wrong
from byway.control.values import (
    Addresses,
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


# Keys that are changed in a port that goes on: no file of it is closed.
IN_PLACE = frozenset({"ips", "allowed_address_pairs", "port_security", "trusted",
                      "security_groups", "limit", "mirror", "chain", "chain_tx", "services"})
_Trusted = Annotated[tuple[Literal["dhcp", "ra"], ...], AfterValidator(once("service"))]
MAX_PAIRS = 100  # they are looked through for every frame
_Pairs = Annotated[tuple[AddressPair, ...], AfterValidator(once("address pair")),
                   AfterValidator(at_most(MAX_PAIRS, "address pairs", "; networks hold many"))]
MAX_SERVICES = 8  # of a port
MAX_IPS = 64  # of one MAC address: hosts tell each other no more
_Ips = Annotated[Ips, AfterValidator(at_most(
    MAX_IPS, "addresses", "; others can be networks in allowed_address_pairs"))]
_Services = Annotated[tuple[Name, ...], AfterValidator(once("service")),
                      AfterValidator(at_most(MAX_SERVICES, "services"))]
_OwnIps = Annotated[Addresses, AfterValidator(at_most(MAX_IPS, "addresses"))]


class _Port(Model):
    """What every kind of port has.

    `mac`, `ips`: the guest's. `port_security`: it may use these and `allowed_address_pairs` only,
    and may be a DHCP server or router only where `trusted` says so. `security_groups`: what may
    reach it and what it may reach; () and no key: all. `vlans`: a trunk, its tags with the network
    of each; `network` is that of frames without a tag. `chain`: network functions that its frames
    go through as they come in; `chain_tx`: as they go out. `services`: machines that its frames
    have to pass, the first of them next to the port; of frames to it, the last comes first."""

    name: Name
    network: Name
    mac: Mac | None = None
    ips: _Ips = ()
    allowed_address_pairs: _Pairs = ()
    port_security: StrictBool = False
    trusted: _Trusted = ()
    security_groups: GroupNames = ()
    limit: LimitConfig | None = None
    vlans: Vlans = ()
    mirror: MirrorConfig | None = None
    chain: Chain = ()
    chain_tx: Chain = ()
    services: _Services = ()

    @property
    def networks(self) -> tuple[str, ...]:
        """All networks that it is in: the native one first, then those of its tags."""
        return self.network, *(network for _, network in self.vlans)

    @property
    def known_ips(self) -> tuple[str, ...]:
        """The IPs of whoever is behind it: `ips`, or those that are configured on it."""
        return self.ips or tuple(one.split("/")[0] for one in getattr(self, "address", ()))

    @model_validator(mode="after")
    def _policy_fits(self) -> Self:
        if self.port_security and self.mac is None:
            raise wrong("port_security is true, but the port has no mac",
                        "add the mac that the guest is to have")
        if self.services and self.mac is None:
            raise wrong("services are there, but the port has no mac",
                        "add the guest's mac: it tells which frames come back to the port")
        if self.services and self.vlans:
            raise wrong("services and vlans are both there", "give the services to other ports")
        if self.network in self.networks[1:]:
            raise wrong(f'vlans: "{self.network}" is the native network already',
                        "give each network one tag, or none")
        if self.mirror and self.mirror.to == self.name:
            raise wrong("mirror: to is the port itself", "name another port")
        return self


class FeatureChoice(Model):
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
    address: _OwnIps = ()


class Route(Model):
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
    address: _OwnIps = ()
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

