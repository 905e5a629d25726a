# SPDX-License-Identifier: Apache-2.0
"""What a request of Docker's says: its fields read one by one, and refused where they are wrong.

Used by the two drivers. Uses model. Source: libnetwork's docs/remote.md and docs/ipam.md, and the
types of its drivers/remote/api. Fields that are missing, null or empty are the same; fields that
nobody knows are left alone.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from byway_docker.model import Network, Published, Refused, Subnet, network_name

Body = Mapping[str, Any]

_ID = re.compile(r"[A-Za-z0-9]{12,128}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_GENERIC = "com.docker.network.generic"
_INTERNAL = "com.docker.network.internal"
_MTU = "com.docker.network.driver.mtu"
_PORTMAP = "com.docker.network.portmap"
MAC_LABEL = "com.docker.network.endpoint.macaddress"
# Of libnetwork's network and bridge drivers: said to every driver, of no meaning here.
_IGNORED = ("com.docker.", "com.docker.network.")
_OPTIONS = ("byway.network", "byway.vni", "byway.gateway", _MTU)
_GATEWAYS = ("host", "elsewhere")
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


def text(body: Body, key: str) -> str:
    """The text at `key`, "" where there is none."""
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value or len(value) > 4096:
        raise Refused(f"{key} is {_shown(value)}", "send a text")
    return value


def identity(body: Body, key: str) -> str:
    """The id at `key`: of a network or an endpoint."""
    value = text(body, key)
    if not _ID.fullmatch(value):
        raise Refused(f"{key} is {_shown(value)}",
                      "send an id: 12 to 128 letters and digits")
    return value


def table(body: Body, key: str) -> Body:
    """The object at `key`, empty where there is none."""
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(f"{key} is {_shown(value)}", "send an object")
    return value


def entries(body: Body, key: str) -> list[Body]:
    """The list of objects at `key`, empty where there is none."""
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Refused(f"{key} is {_shown(value)}", "send a list of objects")
    return value


def mac(body: Body, key: str) -> str:
    """The MAC address at `key` in lower case, "" where there is none."""
    value = text(body, key).lower().replace("-", ":")
    if value and (not _MAC.fullmatch(value) or int(value[:2], 16) & 1):
        raise Refused(f"{key} is {_shown(value)}",
                      "send a unicast MAC address, such as 02:00:00:00:00:01")
    return value


def cidr(body: Body, key: str, version: int) -> str:
    """The address with prefix length at `key`, "" where there is none."""
    value = text(body, key)
    if not value:
        return ""
    try:
        found = ipaddress.ip_interface(value)
    except ValueError:
        found = None
    if found is None or "/" not in value or found.version != version:
        raise Refused(f"{key} is {_shown(value)}",
                      f"send an IPv{version} address with its prefix length")
    return str(found)


def host(body: Body, key: str) -> str:
    """The address without prefix length at `key`, "" where there is none."""
    value = text(body, key)
    if not value:
        return ""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise Refused(f"{key} is {_shown(value)}", "send an IP address") from None


def network(body: Body) -> Network:
    """The network that CreateNetwork asks for."""
    found = identity(body, "NetworkID")
    options = table(body, "Options")
    generic = table(options, _GENERIC)
    for name in generic:
        if name not in _OPTIONS and not name.startswith(_IGNORED):
            raise Refused(f"-o {name}: there is no such option",
                          f"the options are: {', '.join(_OPTIONS)}")
    joined = text(generic, "byway.network")
    vni = _number(generic, "byway.vni", 1, 0xFFFFFF)
    if joined and vni is not None:
        raise Refused(f"-o byway.vni: the network {joined} has a vni of its own, or none",
                      "leave one of byway.network and byway.vni out")
    ipv4 = tuple(_subnet(data, 4) for data in entries(body, "IPv4Data"))
    ipv6 = tuple(_subnet(data, 6) for data in entries(body, "IPv6Data"))
    return Network(
        id=found, name=joined or network_name(found), own=not joined,
        mtu=_number(generic, _MTU, 68, 9216), vni=vni,
        gateway=_gateway(generic, options, ipv4 + ipv6), ipv4=ipv4, ipv6=ipv6,
    )


def _gateway(generic: Body, options: Body, subnets: tuple[Subnet, ...]) -> str:
    choice = text(generic, "byway.gateway") or "host"
    if choice not in _GATEWAYS:
        raise Refused(f"-o byway.gateway is {_shown(choice)}", f"write {' or '.join(_GATEWAYS)}")
    if options.get(_INTERNAL) or not any(subnet.gateway for subnet in subnets):
        return "none"
    return choice


def _subnet(data: Body, version: int) -> Subnet:
    pool = text(data, "Pool")
    try:
        prefix = ipaddress.ip_network(pool) if pool else None
    except ValueError:
        prefix = None
    if prefix is None or prefix.version != version:
        raise Refused(f"Pool is {_shown(pool)}", f"send an IPv{version} prefix, address/length")
    gateway = cidr(data, "Gateway", version)
    return Subnet(text(data, "AddressSpace"), str(prefix), gateway)


def _number(options: Body, name: str, low: int, high: int) -> int | None:
    value = text(options, name)
    if not value:
        return None
    if not value.isdecimal() or not value.isascii() or not low <= int(value) <= high:
        raise Refused(f"-o {name} is {_shown(value)}", f"write a number from {low} to {high}")
    return int(value)


def published(body: Body) -> tuple[Published, ...]:
    """What ProgramExternalConnectivity asks to publish."""
    return tuple(_one_published(entry) for entry in entries(table(body, "Options"), _PORTMAP))


def _one_published(entry: Body) -> Published:
    protocol = entry.get("Proto")
    if protocol not in _PROTOCOLS:
        raise Refused(f"the protocol {_shown(protocol)} cannot be published",
                      "publish tcp, udp or sctp")
    port = _port(entry, "Port")
    wanted = _port(entry, "HostPort")
    name = f"{port}/{_PROTOCOLS[protocol]}"
    if port == 0:
        raise Refused(f"{name} cannot be published", "publish a port from 1 to 65535")
    if wanted == 0 or _port(entry, "HostPortEnd") not in (0, wanted):
        raise Refused(
            f"{name} is to be published at a port to be chosen, but Docker does not learn from a"
            " network plugin which one it is", f"name one: --publish HOSTPORT:{name}")
    return Published(_PROTOCOLS[protocol], host(entry, "HostIP"), wanted, port)


def _port(entry: Body, key: str) -> int:
    value = entry.get(key) or 0
    if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
        raise Refused(f"{key} is {_shown(value)}", "send a port number")
    return value


def _shown(value: object) -> str:
    """A value in a message: on one line, and not too long."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
