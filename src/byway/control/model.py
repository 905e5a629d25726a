# SPDX-License-Identifier: Apache-2.0
"""The wanted state of a switch as passive, frozen data: switch, networks, ports.

Used by config (which reads it from TOML), diff, the API (which reads it from JSON) and the
engine. Uses pydantic and problem: nothing here opens a file, looks at the machine or knows a
worker. What one value alone can say is checked here; what values say together in
config.cross_check, and what the machine says about them in config.check_machine.
"""

import ipaddress
import os
import re
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from byway.control.problem import nearest, shown, wrong
from byway.machine.unixsocket import MAX_PATH
from byway.virtio.negotiation import BY_NAME

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAC_EXAMPLE = 'write six bytes in hexadecimal, such as "02:00:00:00:00:01"'
MAX_IFNAME = 15  # bytes, linux/if.h: IFNAMSIZ with its NUL
MAX_QUEUE_PAIRS = 32
# What a tap does with frames of which something is left to do (features.off).
_TAP_FEATURES = ("csum", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "host_tso4",
                 "host_tso6", "host_ecn", "guest_uso4", "guest_uso6", "host_uso")


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise wrong(
            f"{shown(value)} is no valid name",
            "use 1 to 63 letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
    return value


def _path(value: str) -> str:
    if not value:
        raise wrong("is empty", "write the path of a file")
    if "\0" in value:
        raise wrong("contains a NUL byte", "write the path of a file")
    return value


def _socket(value: str) -> str:
    length = len(os.fsencode(_path(value)))
    if length > MAX_PATH:
        raise wrong(
            f"is {length} bytes long, but the path of a Unix socket"
            f" has at most {MAX_PATH}",
            "choose a shorter path",
        )
    return value


def _mac(value: str) -> str:
    mac = value.lower()
    if not _MAC.fullmatch(mac):
        raise wrong(f"{shown(value)} is no MAC address", _MAC_EXAMPLE)
    if int(mac[:2], 16) & 1:
        raise wrong(
            f"{shown(value)} is a group address", "take a unicast one: its first byte is even"
        )
    if mac == "00:00:00:00:00:00":
        raise wrong(f"{shown(value)} is the zero address", _MAC_EXAMPLE)
    return mac


def _workers(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value:
        raise wrong("is empty", "name at least one CPU, or leave the key out for one worker")
    for cpu in value:
        if value.count(cpu) > 1:
            raise wrong(f"names CPU {cpu} twice", "give each worker a CPU of its own")
    return value


def _one_queue(value: int) -> int:
    if value != 1:
        raise wrong(f"is {value}", "write 1: this kind of port has one queue pair")
    return value


def _features(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name not in BY_NAME:
            fix = nearest(name.lower(), BY_NAME) or 'take names such as "mrg_rxbuf" and "packed"'
            raise wrong(f"{shown(name)} is no virtio feature", fix)
    return tuple(dict.fromkeys(BY_NAME[name].name.lower() for name in value))


def _ifname(value: str) -> str:
    # What Linux accepts (net/core/dev.c, dev_valid_name), without "%": it makes a pattern of it.
    if not 1 <= len(os.fsencode(value)) <= MAX_IFNAME:
        raise wrong(f"{shown(value)} is no interface name", f"write 1 to {MAX_IFNAME} bytes")
    if value in (".", "..") or re.search(r"[/:%\s\0]", value):
        raise wrong(f"{shown(value)} is no interface name",
                    "leave out white space, '/', ':' and '%'")
    return value


def _netns(value: str) -> str:
    if not value or value in (".", "..") or "/" in value or "\0" in value:
        raise wrong(f"{shown(value)} is no name of a network namespace",
                    "write a name that `ip netns list` shows")
    return value


def _netns_or_path(value: str) -> str:
    return _path(value) if value.startswith("/") else _netns(value)


def _destination(value: str) -> str:
    try:
        return value if value == "default" else str(ipaddress.ip_network(value))
    except ValueError:
        raise wrong(f"{shown(value)} is no destination of a route",
                    'write a network as in "10.1.0.0/16", or "default"') from None


def _gateway(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise wrong(f"{shown(value)} is no address of a gateway",
                    'write it as in "10.0.0.1"') from None


def _addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    made = []
    for text in value:
        try:
            if "/" not in text:
                raise ValueError(text)
            made.append(str(ipaddress.ip_interface(text)))
        except ValueError:
            raise wrong(f"{shown(text)} is no address with a prefix length",
                        'write it as in "10.0.0.2/24"') from None
        if made.count(made[-1]) > 1:
            raise wrong(f"names {text} twice", "name it once")
    return tuple(made)


Name: TypeAlias = Annotated[StrictStr, AfterValidator(_name)]
SocketPath: TypeAlias = Annotated[StrictStr, AfterValidator(_socket)]
FilePath: TypeAlias = Annotated[StrictStr, AfterValidator(_path)]
Mac: TypeAlias = Annotated[StrictStr, AfterValidator(_mac)]
Cpu: TypeAlias = Annotated[StrictInt, Field(ge=0)]
OneQueue: TypeAlias = Annotated[StrictInt, AfterValidator(_one_queue)]
QueuePairs: TypeAlias = Annotated[StrictInt, Field(ge=1, le=MAX_QUEUE_PAIRS)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SwitchConfig(_Model):
    """The switch itself. `workers`: CPUs, one worker each; None: one worker, not pinned.

    `api`: the Unix socket of the API; None: the default (machine.rundir.default_socket)."""

    name: Name = "byway"
    workers: Annotated[tuple[Cpu, ...], AfterValidator(_workers)] | None = None
    api: SocketPath | None = None


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

    off: Annotated[tuple[StrictStr, ...], AfterValidator(_features)] = ()


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
    ifname: Annotated[StrictStr, AfterValidator(_ifname)]
    netns: Annotated[StrictStr, AfterValidator(_netns)] | None = None
    address: Annotated[tuple[StrictStr, ...], AfterValidator(_addresses)] = ()


class Route(_Model):
    """A route of an interface: what goes ``to`` a network, or "default", takes gateway ``via``."""

    to: Annotated[StrictStr, AfterValidator(_destination)]
    via: Annotated[StrictStr, AfterValidator(_gateway)]

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
    ifname: Annotated[StrictStr, AfterValidator(_ifname)]
    netns: Annotated[StrictStr, AfterValidator(_netns_or_path)] | None = None
    address: Annotated[tuple[StrictStr, ...], AfterValidator(_addresses)] = ()
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


AnyPort: TypeAlias = (
    VhostUserPort | VirtioUserPort | VhostKernelPort | TapPort | NullPort | PcapPort)
PortConfig: TypeAlias = Annotated[AnyPort, Field(discriminator="kind")]
# A port's kind, as the user writes it, and its model.
KINDS: dict[str, type[AnyPort]] = {
    "vhost-user": VhostUserPort,
    "virtio-user": VirtioUserPort,
    "vhost-kernel": VhostKernelPort,
    "tap": TapPort,
    "null": NullPort,
    "pcap": PcapPort,
}


class Config(_Model):
    """Everything a configuration file says, in its order."""

    switch: SwitchConfig = SwitchConfig()
    networks: tuple[NetworkConfig, ...] = ()
    ports: tuple[PortConfig, ...] = ()
