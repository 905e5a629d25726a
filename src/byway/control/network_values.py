# SPDX-License-Identifier: Apache-2.0
"""The values of an overlay's configuration, each by itself: addresses, subnets, tags, port numbers.

Used by model. Uses pydantic, problem and values (whose rules for names and paths hold here too).
Addresses come out in their one canonical spelling, so that equal ones are equal strings.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from byway.control.problem import shown, wrong
from byway.control.values import NAME, Name

MAX_TAG = 4094  # IEEE 802.1Q 9.6: 0 is no VLAN, 4095 is reserved
PROTOCOLS = ("tcp", "udp", "icmp", "icmpv6")
_ENDPOINT = re.compile(r"(https?://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})/?")


def _ip(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise wrong(f"{shown(value)} is no IP address",
                    'write it as in "10.0.0.2" or "fd00::2"') from None
    if "%" in value:
        raise wrong(f"{shown(value)} names a zone", "leave out what follows the %")
    return str(address)


def _machine_ip(value: str) -> str:
    address = _ip(value)
    parsed = ipaddress.ip_address(address)
    if parsed.is_multicast or parsed.is_unspecified or address == "255.255.255.255":
        raise wrong(f"{shown(value)} is not the address of one machine",
                    "write an address that a machine has")
    if inner := mapped(address):
        raise wrong(f"{shown(value)} is an IPv4 address in the form of an IPv6 one",
                    f'write "{inner}"')
    return address


def mapped(prefix: str) -> str | None:
    """The IPv4 address or network that an IPv6 one stands for (RFC 4291, 2.5.5.2), for none goes
    over a wire in this form; None: it stands for none."""
    network = ipaddress.ip_network(prefix)
    if network.version == 4 or network.prefixlen < 96:
        return None
    inner = network.network_address.ipv4_mapped
    length = f"/{network.prefixlen - 96}" if "/" in prefix else ""
    return f"{inner}{length}" if inner else None


def _prefix(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        pass_on = _loose(value)
    if pass_on is None:
        raise wrong(f"{shown(value)} is no network", 'write it as in "10.0.0.0/24" or "fd00::/64"')
    raise wrong(f"{shown(value)} has bits set behind its prefix length",
                f'write "{pass_on}"')


def _loose(value: str) -> str | None:
    """The network that an address with a prefix length is in; None: it is no address."""
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        return None


def _own_address(value: str) -> str:
    """An address that a gateway has in a subnet, with the subnet's prefix length."""
    try:
        if "/" not in value:
            raise ValueError(value)
        parsed = ipaddress.ip_interface(value)
    except ValueError:
        raise wrong(f"{shown(value)} is no address with a prefix length",
                    'write it as in "10.0.0.1/24"') from None
    _machine_ip(value.partition("/")[0])
    if parsed.version == 4 and parsed.network.prefixlen < 31 and parsed.ip in (
            parsed.network.network_address, parsed.network.broadcast_address):
        raise wrong(f"{shown(value)} is the {_end_of(parsed)} address of its subnet",
                    "take an address between the first and the last one")
    return str(parsed)


def _end_of(parsed: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> str:
    return "network" if parsed.ip == parsed.network.network_address else "broadcast"


def _ports(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"\d{1,5}(-\d{1,5})?", text):
        raise wrong(f"{shown(value)} is no range of ports", 'write "80" or "1000-2000"')
    first, _, last = text.partition("-")
    low, high = int(first), int(last or first)
    if not 0 <= low <= high <= 65535:
        raise wrong(f"{shown(value)} is no range of ports",
                    "write the lower one first; the highest is 65535")
    return str(low) if low == high else f"{low}-{high}"


def _protocol(value: object) -> str | int:
    if isinstance(value, str) and value in PROTOCOLS:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value
    names = ", ".join(f'"{name}"' for name in PROTOCOLS)
    raise wrong(f"{shown(value)} is no protocol", f"write {names}, or a number from 0 to 255")


def _etcd(value: str) -> str:
    found = _ENDPOINT.fullmatch(value)
    if not found or not 1 <= int(found[3]) <= 65535:
        raise wrong(f"{shown(value)} is no address of an etcd",
                    'write it as in "10.0.0.9:2379" or "https://etcd1:2379"')
    return value.rstrip("/")


def _etcd_prefix(value: str) -> str:
    if not value.startswith("/") or value.endswith("/") or "//" in value or "\0" in value:
        raise wrong(f"{shown(value)} is no prefix of keys", 'write it as in "/byway"')
    return value


def _vlans(value: object) -> tuple[tuple[int, str], ...]:
    """{"10": "blue"} -> ((10, "blue"),), in the order of the tags."""
    if not isinstance(value, dict):
        raise wrong(f"is {shown(value)}", 'write a table of tags and networks: { "10" = "blue" }')
    found: dict[int, str] = {}
    for text, network in value.items():
        if not re.fullmatch(r"\d{1,5}", str(text)) or not 1 <= int(text) <= MAX_TAG:
            raise wrong(f"{shown(text)} is no VLAN tag", f"write a number from 1 to {MAX_TAG}")
        if not isinstance(network, str) or not NAME.fullmatch(network):
            raise wrong(f"tag {int(text)} has {shown(network)} for a network",
                        "write a network's name")
        if int(text) in found:
            raise wrong(f"tag {int(text)} is there twice", "give each tag one network")
        if network in found.values():
            raise wrong(f'network "{network}" has two tags', "give each network one tag")
        found[int(text)] = network
    return tuple(sorted(found.items()))


def _vlans_written(value: tuple[tuple[int, str], ...]) -> dict[str, str]:
    return {str(tag): network for tag, network in value}


def once(what: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A validator of lists: nothing of it is there twice. ``what``: one of them, in words."""

    def check(value: tuple[Any, ...]) -> tuple[Any, ...]:
        for number, one in enumerate(value):
            if one in value[:number]:
                raise wrong(f"names {what} {shown(one)} twice", "name it once")
        return value

    return check


def some(what: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A validator of lists: there is at least one in it. ``what``: one of them, in words."""

    def check(value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise wrong("is empty", f"name at least one {what}")
        return value

    return check


def at_most(
    limit: int, what: str, besides: str = ""
) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A validator of lists: it has no more than so many. ``what``: several of them, in words;
    ``besides``: what else can be done."""

    def check(value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(value) > limit:
            raise wrong(f"has {len(value)} {what}", f"name {limit} at most{besides}")
        return value

    return check


def overlapping(subnets: Iterable[str]) -> tuple[str, str] | None:
    """The first two that have an address in common; None: there are none."""
    parsed = sorted(((ipaddress.ip_network(one), one) for one in subnets),
                    key=lambda pair: (pair[0].version, int(pair[0].network_address)))
    for (first, text), (second, other) in pairwise(parsed):
        if first.version == second.version and first.overlaps(second):
            return text, other
    return None


Ip: TypeAlias = Annotated[StrictStr, AfterValidator(_ip)]
MachineIp: TypeAlias = Annotated[StrictStr, AfterValidator(_machine_ip)]
Prefix: TypeAlias = Annotated[StrictStr, AfterValidator(_prefix)]
OwnAddress: TypeAlias = Annotated[StrictStr, AfterValidator(_own_address)]
Ips: TypeAlias = Annotated[tuple[MachineIp, ...], AfterValidator(once("address"))]
Subnets: TypeAlias = Annotated[tuple[Prefix, ...], AfterValidator(once("subnet"))]
OwnAddresses: TypeAlias = Annotated[tuple[OwnAddress, ...], AfterValidator(once("address"))]
Networks: TypeAlias = Annotated[tuple[Name, ...], AfterValidator(once("network"))]
GroupNames: TypeAlias = Annotated[tuple[Name, ...], AfterValidator(once("security group"))]
Vni: TypeAlias = Annotated[StrictInt, Field(ge=1, le=0xFFFFFF)]  # RFC 7348 5: 24 bits
PortRange: TypeAlias = Annotated[
    str, PlainValidator(_ports), WithJsonSchema({"type": "string", "pattern": r"^\d+(-\d+)?$"})]
Protocol: TypeAlias = Annotated[str | int, PlainValidator(_protocol), WithJsonSchema(
    {"anyOf": [{"enum": list(PROTOCOLS)}, {"type": "integer", "minimum": 0, "maximum": 255}]})]
Octet: TypeAlias = Annotated[StrictInt, Field(ge=0, le=255)]
Rate: TypeAlias = Annotated[StrictInt, Field(ge=1, le=10**15)]
EtcdAddresses: TypeAlias = Annotated[
    tuple[Annotated[StrictStr, AfterValidator(_etcd)], ...], AfterValidator(some("etcd")),
    AfterValidator(once("etcd"))]
EtcdPrefix: TypeAlias = Annotated[StrictStr, AfterValidator(_etcd_prefix)]
Vlans: TypeAlias = Annotated[
    tuple[tuple[int, str], ...], BeforeValidator(_vlans), PlainSerializer(_vlans_written),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}})]
