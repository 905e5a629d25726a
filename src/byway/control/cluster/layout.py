# SPDX-License-Identifier: Apache-2.0
"""Which key of etcd holds what, and what its value means.

Used by feed, presence, registry and addresses. Uses the standard library only.

    <prefix>/cluster                              a random name, made by the first host
    <prefix>/networks/<network>                   a network as the API writes it
    <prefix>/ports/<host>/<port>                  a port that this host is to have
    <prefix>/hosts/<host>                         who is there (under the host's lease)
    <prefix>/entries/<network>/<host>/<mac>       who is behind it (under the host's lease)
    <prefix>/vnis/<vni>, <prefix>/vnis/latest     which network has the VNI; the last one given
    <prefix>/addresses/<network>/<address>        which port has the address
    <prefix>/owners/<network>/<host>/<port>       which addresses it has; keeps the network

`entries`, `hosts` and `networks` are neighbours among these words: what every host hears of is one
range, and what only matters at a change (`addresses`, `owners`, `vnis`, ports of others) is not in
it. A value that is no valid model is ValueError with a sentence here, and nothing else happens.
"""

import json
import re
import socket
from dataclasses import dataclass
from typing import Any, TypeAlias

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
MAX_IPS = 64  # of one MAC address
MAX_VALUE = 64 << 10
MAX_GENERATION = (1 << 62) - 1
_V4 = b"\0" * 10 + b"\xff\xff"

# What a key says, ready for the population: the name of what to call, and its arguments.
Said: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class HostValue:
    """What a host says of itself. `instance`: which of its lives this is."""

    address: str
    networks: tuple[str, ...]
    instance: str

    def encode(self) -> bytes:
        """The value of its key."""
        return json.dumps({"address": self.address, "networks": sorted(self.networks),
                           "instance": self.instance}, separators=(",", ":")).encode()


class Layout:
    """The keys below one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._groups: dict[tuple[str, ...], tuple[str, ...]] = {}  # equal ones are one object
        self.marker = f"{prefix}/cluster"
        self.networks = f"{prefix}/networks/"
        self.hosts = f"{prefix}/hosts/"
        self.entries = f"{prefix}/entries/"
        self.vnis = f"{prefix}/vnis/"
        self.latest_vni = f"{prefix}/vnis/latest"

    def network(self, name: str) -> str:
        """The key of a network."""
        return f"{self.networks}{name}"

    def host(self, name: str) -> str:
        """The key of a host's presence."""
        return f"{self.hosts}{name}"

    def entry(self, network: str, host: str, mac: int) -> str:
        """The key of a MAC address behind a host."""
        return f"{self.entries}{network}/{host}/{mac_text(mac)}"

    def ports(self, host: str) -> str:
        """What the keys of a host's ports begin with."""
        return f"{self.prefix}/ports/{host}/"

    def port(self, host: str, name: str) -> str:
        """The key of a port that a host is to have."""
        return f"{self.prefix}/ports/{host}/{name}"

    def vni(self, number: int) -> str:
        """The key of a VNI."""
        return f"{self.vnis}{number}"

    def addresses(self, network: str) -> str:
        """What the keys of a network's given addresses begin with."""
        return f"{self.prefix}/addresses/{network}/"

    def owners(self, network: str) -> str:
        """What the keys of those begin with who need the network."""
        return f"{self.prefix}/owners/{network}/"

    def owner(self, network: str, owner: str) -> str:
        """The key of one port, `host/name`, that needs the network."""
        return f"{self.prefix}/owners/{network}/{owner}"

    def read(self, key: str, value: bytes | None) -> Said | None:
        """What a key says with its value (None: it is gone); None: nothing that concerns a host.

        ValueError: key or value are no valid model; the text says why."""
        kind, *names = key.removeprefix(self.prefix + "/").split("/")
        if not all(map(NAME.fullmatch, names[:2])):
            raise ValueError("the key has a part that is no name")
        if kind == "entries" and len(names) == 3:
            return self._entry(names, value)
        if kind == "hosts" and len(names) == 1:
            return _host(names[0], value)
        if kind == "networks" and len(names) == 1:
            return _table("network", names[0], value)
        if kind == "ports" and len(names) == 2:
            return _table("port", names[1], value)
        if kind in ("entries", "hosts", "networks", "ports"):
            raise ValueError("the key has too few or too many parts")
        return None

    def _entry(self, names: list[str], value: bytes | None) -> Said:
        network, host, mac = names
        if not MAC.fullmatch(mac):
            raise ValueError(f"{mac!r} is no MAC address in lower case")
        number = int(mac.replace(":", ""), 16)
        if number >> 40 & 1 or not number:
            raise ValueError(f"{mac} is not the address of one station")
        if value is None:
            return "drop_entry", network, host, number
        table = load(value)
        generation, ips, groups = (table.get(key) for key in ("generation", "ips", "groups"))
        if type(generation) is not int or not 0 < generation <= MAX_GENERATION:
            raise ValueError("generation is no whole number from 1 on")
        if type(ips) is not list or len(ips) > MAX_IPS:
            raise ValueError(f"ips is no list of at most {MAX_IPS} addresses")
        found = _names("groups", groups or [])
        one = self._groups.setdefault(found, found)
        return "put_entry", network, host, number, tuple(map(packed, ips)), generation, one


def _host(name: str, value: bytes | None) -> Said:
    if value is None:
        return "drop_host", name
    told = host_value(value)
    return "put_host", name, told.address, told.networks


def _table(kind: str, name: str, value: bytes | None) -> Said:
    if value is None:
        return f"drop_{kind}", name
    table = load(value)
    if table.get("name") != name:
        raise ValueError(f"name is {table.get('name')!r}, but the key says {name!r}")
    return f"put_{kind}", name, table


def host_value(value: bytes) -> HostValue:
    """The presence of a host. Raises ValueError."""
    table = load(value)
    address, networks, instance = (table.get(key) for key in ("address", "networks", "instance"))
    if type(instance) is not str:
        raise ValueError("instance is no text")
    names = _names("networks", networks)
    raw = packed(address)
    if raw in (_V4 + b"\0\0\0\0", b"\0" * 16) or (raw[12] if raw[:12] == _V4 else raw[0]) >= (
            224 if raw[:12] == _V4 else 255):
        raise ValueError(f"{address} is not the address of one machine")
    return HostValue(address_text(raw), names, instance)


def _names(key: str, value: object) -> tuple[str, ...]:
    if type(value) is not list or not all(
            type(name) is str and NAME.fullmatch(name) for name in value):
        raise ValueError(f"{key} is no list of names")
    return tuple(value)


def load(value: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError."""
    if len(value) > MAX_VALUE:
        raise ValueError(f"the value has {len(value)} bytes, at most {MAX_VALUE} are read")
    try:
        table = json.loads(value)
        if b"\\u" in value or not value.isascii():
            json.dumps(table, ensure_ascii=False).encode()  # half a character is no Unicode
    except (ValueError, RecursionError):
        raise ValueError("the value is no JSON") from None
    if type(table) is not dict:
        raise ValueError("the value is no JSON object")
    return table


def entry_value(ips: tuple[bytes, ...], generation: int, groups: tuple[str, ...] = ()) -> bytes:
    """The value of an entry's key."""
    table: dict[str, Any] = {"ips": [address_text(ip) for ip in ips], "generation": generation}
    if groups:
        table["groups"] = list(groups)
    return json.dumps(table, separators=(",", ":")).encode()


def packed(text: object) -> bytes:
    """An IP address in 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). Raises ValueError."""
    try:
        if type(text) is str:
            if ":" in text:
                return socket.inet_pton(socket.AF_INET6, text)
            return _V4 + socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is no IP address") from None
    raise ValueError(f"{text!r} is no IP address")


def address_text(raw: bytes) -> str:
    """16 bytes as an IP address is written."""
    if raw[:12] == _V4:
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)


def mac_text(mac: int) -> str:
    """A 48-bit number as a MAC address is written."""
    text = f"{mac:012x}"
    return ":".join(text[k : k + 2] for k in range(0, 12, 2))
